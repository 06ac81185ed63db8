"""Name what a generator does wrong, after the failure modes of paper B's conclusions.

Not for finding where it is wrong: diagnosis, slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genamp_lib.diagnostics._json import Result
from genamp_lib.diagnostics.clustering import ObservableRank
from genamp_lib.diagnostics.slices import WeightSlice

Array = NDArray[np.float64]
# Standard deviations, after allowing for all slices looked at, that count as found.
FOUND = 3.0


@dataclass(frozen=True)
class Finding(Result):
    """One thing that the generator does wrong.

    Attributes:
        mode: Name of the failure: "missing tail", "missing feature", "wrong boundary", "smeared
            feature", "too few", "too many", "spike", "missing spike", "wrong share of a value",
            "code for missing values", "wrong distribution", "wrong correlation", "copied events"
            or "repeated events".
        observable: Observable that tells the events best from the others; empty for events as a
            whole.
        low: Smallest value of the events' observable, its 5 % quantile in a slice of weights.
        high: Largest value, the 95 % quantile in a slice of weights.
        factor: Generated over truth events in it, both as fractions of their sample.
        significance: Standard deviations, after allowing for all that was looked at.
        text: Sentence that says the same.
        partner: Second observable of a pair; empty otherwise.
    """

    mode: str
    observable: str
    low: float
    high: float
    factor: float
    significance: float
    text: str
    partner: str = ""

    @property
    def where(self) -> str:
        """The observable, or the pair, in code marks."""
        return " and ".join(f"`{name}`" for name in (self.observable, self.partner) if name)


def findings_in_slices(
    tables: tuple[dict[str, Array], dict[str, Array]],
    small: WeightSlice,
    large: WeightSlice,
    significance: dict[str, float],
    ranks: dict[str, tuple[ObservableRank, ...]],
    differing: set[str],
) -> tuple[Finding, ...]:
    """Name the failure modes of the significant slices, the most significant first.

    An observable is blamed for a slice only if the slice's events stand out in it and its own
    distribution differs between truth and generated events.

    Args:
        tables: Name -> observable of truth and of generated events.
        small: Slice of small weights.
        large: Slice of large weights.
        significance: Significance of "small" and "large", allowing for all that was looked at.
        ranks: "small" and "large" -> the observables ranked in that slice.
        differing: Observables whose own distributions differ.
    """
    findings = []
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
        often = f"{times(factor)} times as many as in the truth"
        if end == "small" and _straddles(tables[0][name], inside):
            mode = "smeared feature"
            text = (
                f"{mode}: generated events of small weight lie on both sides of the bulk of "
                f"`{name}`, {often}; a peak is washed out."
            )
        elif end == "small" and factor > 5:
            mode = "wrong boundary"
            text = f"{mode}: events are generated where the truth has few or none, {where}; {often}"
            text += "."
        elif end == "large" and factor < 1 / 3:
            mode = "missing tail" if is_outer else "missing feature"
            text = f"{mode}: hardly any events are generated with {where}; {often}."
        else:
            mode = "too many" if end == "small" else "too few"
            text = f"{mode} generated events with {where}; {often}."
        findings.append(
            Finding(mode, name, float(low), float(high), float(factor), sigma, text.strip())
        )
    return tuple(sorted(findings, key=lambda one: -one.significance))


def times(factor: float) -> str:
    """Return a factor as it is read in a sentence.

    >>> times(12.34), times(0.1234)
    ('12', '0.12')
    """
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.2g}"


def _straddles(truth: Array, inside: Array) -> bool:
    """Whether events lie on both sides of the truth's middle, and fewer in it than there should."""
    low, high = np.quantile(truth, [0.25, 0.75])
    below, above = (inside < low).mean(), (inside > high).mean()
    return bool(min(below, above) > 0.2 and below + above > 0.7)
