"""An ensemble of top-pair generators in numbers with errors, for tables. Not the measuring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.peaks import Peak
from genamp_lib.studies.top_pair_members import MemberQuality, peaks_of

Summary = dict[str, tuple[float, float]]
_PARTS = {"closer than 0.5, before the cuts": "close", "outside of the cuts": "outside"}
_PEAKS = {"W": "m_w", "top": "m_t"}


def distance_error(n_first: int, n_second: int) -> float:
    """Return the largest standard deviation that a Kolmogorov-Smirnov distance can have.

    That of the difference of two empirical distribution functions where both are one half.

    >>> distance_error(5000, 5000)
    0.01
    """
    return 0.5 * math.sqrt(1 / n_first + 1 / n_second)


def summarise_members(
    members: Sequence[MemberQuality], *, n_generated: int, n_before_cuts: int, n_holdout: int
) -> Summary:
    """Return means over members with the error of one member, by what is measured.

    The error is the statistical one and, from two members on, their standard deviation, in
    quadrature. That of a distance is `distance_error`.

    Args:
        members: Of one ensemble.
        n_generated: Events of each, within the cuts.
        n_before_cuts: Events of each that the parts before the cuts are of.
        n_holdout: Held-out events.

    Raises:
        ValueError: There are no members, or a number is not positive.
    """
    if not members:
        raise ValueError("`members` must not be empty.")
    numbers = {"n_generated": n_generated, "n_before_cuts": n_before_cuts, "n_holdout": n_holdout}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be positive, got {number}.")
    distance = distance_error(n_generated, n_holdout)
    each = [_of_member(member, distance, n_before_cuts) for member in members]
    summary = {}
    for what in each[0]:
        values, errors = np.transpose([found[what] for found in each])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        summary[what] = float(values.mean()), float(np.hypot(spread, errors.mean()))
    return summary


def summarise_truth(member: MemberQuality, holdout: NDArray[np.float64]) -> Summary:
    """Return what a perfect generator has, by what is measured, with the error where it has one.

    Args:
        member: Any that was compared with `holdout`.
        holdout: Momenta, shape (n, n_particles, 4).
    """
    summary = {"AUC of a classifier": (0.5, 0.0)}
    summary |= {f"KS {name}": (value, 0.0) for name, value in member.quality.ks_of_train.items()}
    summary |= dict.fromkeys(_PARTS, (0.0, 0.0))
    return summary | _of_peaks(peaks_of(holdout))


def table_of(truth: Summary, summaries: Mapping[str, Summary]) -> list[str]:
    """Return the lines of a Markdown table: what is measured, the truth, each of `summaries`.

    Args:
        truth: From `summarise_truth`.
        summaries: From `summarise_members`, by what their column is called.

    >>> for line in table_of({"KS m_t": (0.01, 0.0)}, {"LLoCa": {"KS m_t": (0.04, 0.005)}}):
    ...     print(line)
    | | truth | LLoCa |
    |---|---|---|
    | KS m_t | 0.010 | 0.040 ± 0.005 |
    """
    lines = ["| | truth | " + " | ".join(summaries) + " |", "|" + "---|" * (len(summaries) + 2)]
    for what, value in truth.items():
        digits = 1 if what.endswith("GeV") else 3
        cells = [what]
        for mean, error in (value, *(summary[what] for summary in summaries.values())):
            cells.append(f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _of_member(member: MemberQuality, distance: float, n_before_cuts: int) -> Summary:
    quality = member.quality
    low, high = quality.auc_interval
    summary = {"AUC of a classifier": (quality.auc, (high - low) / 2)}
    summary |= {f"KS {name}": (value, distance) for name, value in quality.ks.items()}
    for what, name in _PARTS.items():
        part = getattr(quality, name)
        summary[what] = part, math.sqrt(part * (1 - part) / n_before_cuts)
    return summary | _of_peaks(member.peaks)


def _of_peaks(peaks: Mapping[str, Peak]) -> Summary:
    return {
        f"{label} peak, {field} / GeV": (
            getattr(peaks[name], field),
            getattr(peaks[name], f"{field}_error"),
        )
        for label, name in _PEAKS.items()
        for field in ("position", "width")
    }
