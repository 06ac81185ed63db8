"""Name what a generator does wrong, after the failure modes of paper B's conclusions.

Not for finding where it is wrong: diagnosis, slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib.diagnostics._json import plain
from genamp_lib.diagnostics.clustering import ObservableRank
from genamp_lib.diagnostics.slices import WeightSlice

Array = NDArray[np.float64]
# Standard deviations, after allowing for all slices looked at, that count as found.
FOUND = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that the generator does wrong.

    Attributes:
        mode: "missing tail", "missing feature", "wrong boundary", "smeared feature", "too few" or
            "too many".
        observable: Where, the observable that tells the events best from the others.
        low: 5 % quantile of the events' observable.
        high: 95 % quantile.
        factor: Generated over truth events in the slice, both as fractions of their sample.
        significance: Of the excess, in standard deviations after allowing for all that was looked
            at.
        text: The same in a sentence.
    """

    mode: str
    observable: str
    low: float
    high: float
    factor: float
    significance: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; infinity is a string."""
        return {k: plain(v) for k, v in vars(self).items()}


def findings_in_slices(
    tables: tuple[dict[str, Array], dict[str, Array]],
    small: WeightSlice,
    large: WeightSlice,
    significance: dict[str, float],
    ranks: dict[str, tuple[ObservableRank, ...]],
    marginal: list[ObservableRank],
) -> tuple[Finding, ...]:
    """Name the failure modes of the significant slices, the most significant first.

    An observable is blamed for a slice only if the slice's events stand out in it and its own
    distribution differs between truth and generated events.

    Args:
        tables: Name -> observable of truth and of generated events.
        small: Slice of small weights.
        large: Slice of large weights.
        significance: Of "small" and "large", after allowing for all that was looked at.
        ranks: "small" and "large" -> the observables ranked in that slice.
        marginal: The observables ranked without weights.
    """
    findings = []
    differing = {one.name for one in marginal if one.significance > FOUND}
    for end, one, table in (("small", small, tables[1]), ("large", large, tables[0])):
        sigma = significance[end]
        blamed = [r.name for r in ranks[end] if r.significance > FOUND and r.name in differing]
        if sigma <= FOUND or not blamed:
            continue
        name = blamed[0]
        inside = table[name][one.indices]
        low, high = np.quantile(inside, [0.05, 0.95])
        truth_fraction = one.n_truth / one.n_truth_total
        factor = (
            one.n_generated / one.n_generated_total / truth_fraction if truth_fraction else math.inf
        )
        truth_low, truth_high = np.quantile(tables[0][name], [0.05, 0.95])
        middle = np.median(inside)
        is_outer = middle < truth_low or middle > truth_high
        where = f"`{name}` mostly between {low:.4g} and {high:.4g}"
        times = f"{_times(factor)} times as many as in the truth"
        if end == "small" and _straddles(tables[0][name], inside):
            mode = "smeared feature"
            text = (
                f"{mode}: generated events of small weight lie on both sides of the bulk of "
                f"`{name}`, {times}; a peak is washed out."
            )
        elif end == "small" and factor > 5:
            mode = "wrong boundary"
            text = f"{mode}: events are generated where the truth has few or none, {where}; {times}"
            text += "."
        elif end == "large" and factor < 1 / 3:
            mode = "missing tail" if is_outer else "missing feature"
            text = f"{mode}: hardly any events are generated with {where}; {times}."
        else:
            mode = "too many" if end == "small" else "too few"
            text = f"{mode} generated events with {where}; {times}."
        findings.append(
            Finding(mode, name, float(low), float(high), float(factor), sigma, text.strip())
        )
    return tuple(sorted(findings, key=lambda one: -one.significance))


def _times(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.2g}"


def _straddles(truth: Array, inside: Array) -> bool:
    """Whether events lie on both sides of the truth's middle, and fewer in it than there should."""
    low, high = np.quantile(truth, [0.25, 0.75])
    below, above = (inside < low).mean(), (inside > high).mean()
    return bool(min(below, above) > 0.2 and below + above > 0.7)
