"""Generators of an ensemble beside held-out events: each one's quality, peaks and histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.peaks import Peak, find_peak
from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.networks.top_pairs.members import Generator
from genamp_lib.sharing import finished_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage
from genamp_lib.studies.ch11_quality import (
    Measuring,
    Quality,
    checksum,
    measure,
    quality_of,
)

Array = NDArray[np.float64]
STAGE = "top-pair-quality"
# Part of every artefact's key: raise it when the code changes the numbers.
CODE_VERSION = 1
# Edges of histograms; GeV, or none of eta_t and delta_r_min.
EDGES: Mapping[str, Array] = MappingProxyType(
    {
        "m_tt": np.geomspace(250.0, 2500.0, 31),
        "m_t": np.linspace(90.0, 410.0, 41),
        "m_w": np.linspace(20.0, 180.0, 41),
        "pt_t": np.linspace(0.0, 600.0, 31),
        "pt_tt": np.linspace(0.0, 120.0, 31),
        "eta_t": np.linspace(-5.0, 5.0, 31),
        "pt_b": np.linspace(20.0, 320.0, 31),
        "pt_q": np.linspace(20.0, 140.0, 31),
        "mass_b": np.linspace(0.0, 40.0, 31),
        "delta_r_min": np.linspace(0.4, 1.9, 31),
    }
)
# Where peaks are looked for, and the smoothing, all in GeV.
_PEAKS = {"m_w": (50.0, 120.0, 2.0), "m_t": (100.0, 300.0, 4.0)}


@dataclass(frozen=True)
class MemberQuality:
    """A generator beside held-out events.

    Attributes:
        quality: Distances and the AUC.
        peaks: Of "m_w" and "m_t".
        densities: Normalised histograms with `EDGES`, by observable.
    """

    quality: Quality
    peaks: Mapping[str, Peak]
    densities: Mapping[str, Array]


def measure_members(
    generators: Sequence[Generator],
    train: Array,
    holdout: Array,
    *,
    measuring: Measuring,
    seed: int,
    store: ArtefactStore,
    jobs: int | None = None,
    label: str = "",
) -> list[MemberQuality]:
    """Compare generators with held-out events one by one; what is measured is kept.

    Args:
        generators: Of one ensemble.
        train: Momenta of the training events, shape (n_train, n_particles, 4).
        holdout: Of others, of which nothing was known when the generators were made.
        measuring: How they are compared.
        seed: Of the generated events and the classifiers.
        store: Where results are kept.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.
    """
    common = {"measuring": asdict(measuring), "seed": seed}
    common |= {"train": checksum(train), "holdout": checksum(holdout)}
    stages = [
        Stage(STAGE, CODE_VERSION, {**common, "task": generator.description["key"]})
        for generator in generators
    ]

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        work = [(generators[k], train, holdout, measuring, seed) for k in missing]
        for number, arrays in finished_tasks(_run, work, **sharing(jobs, None), label=label):
            yield missing[number], arrays

    return [_member(arrays) for arrays in store.load_or_compute_each(stages, compute)]


def densities_of(events: Array) -> dict[str, Array]:
    """Return normalised histograms of events with `EDGES`; all events count, in bins or not."""
    columns = dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables(events).T, strict=True))
    return {
        name: np.histogram(columns[name], edges)[0] / (len(events) * np.diff(edges))
        for name, edges in EDGES.items()
    }


def peaks_of(events: Array) -> dict[str, Peak]:
    """Return the peaks of "m_w" and "m_t" of the first top candidate, in GeV; NaN without one."""
    columns = dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables(events).T, strict=True))
    peaks = {}
    for name, (low, high, bandwidth) in _PEAKS.items():
        try:
            peaks[name] = find_peak(columns[name], low, high, bandwidth=bandwidth)
        except ValueError:  # little is left of a peak in a generator's first steps
            peaks[name] = Peak(*(4 * (math.nan,)))
    return peaks


def _run(work: tuple[Generator, Array, Array, Measuring, int]) -> Arrays:
    generator, train, holdout, measuring, seed = work
    arrays, generated = measure(generator.flow, train, holdout, measuring=measuring, seed=seed)
    peaks = peaks_of(generated)
    arrays["peaks"] = np.array([astuple(peaks[name]) for name in _PEAKS])
    for name, density in densities_of(generated).items():
        arrays[f"density.{name}"] = density
    return arrays


def _member(arrays: Arrays) -> MemberQuality:
    peaks = {name: Peak(*row) for name, row in zip(_PEAKS, arrays["peaks"].tolist(), strict=True)}
    densities = {name: arrays[f"density.{name}"] for name in EDGES}
    return MemberQuality(quality_of(arrays), peaks, densities)


Summary = dict[str, tuple[float, float]]
_PARTS = {"closer than 0.5, before the cuts": "close", "outside of the cuts": "outside"}
_PEAK_NAMES = {"W": "m_w", "top": "m_t"}


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


def table_of(truth: Summary, summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the rows of a table: what is measured, the truth, each of `summaries`.

    Args:
        truth: Summary of true events, from `summarise_truth`.
        summaries: Summaries of generators, from `summarise_members`.

    >>> table_of({"KS m_t": (0.01, 0.0)}, [{"KS m_t": (0.04, 0.005)}])
    [['KS m_t', '0.010', '0.040 ± 0.005']]
    """
    rows = []
    for what in truth:
        digits = 1 if what.endswith("GeV") else 3
        cells = [what]
        for mean, error in (summary[what] for summary in (truth, *summaries)):
            cells.append(f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error else ""))
        rows.append(cells)
    return rows


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
        for label, name in _PEAK_NAMES.items()
        for field in ("position", "width")
    }
