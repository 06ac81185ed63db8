"""Everything that the weights say about a generator, in one result and in plain words.

`diagnose` runs the tests of this package on cross-fitted weights. For one question alone, use its
function; for the names of the failure modes: findings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtri_exp

from genamp_lib.diagnostics._json import plain
from genamp_lib.diagnostics.calibration import WeightCalibration, weight_calibration
from genamp_lib.diagnostics.closure import Closure, reweighting_closure
from genamp_lib.diagnostics.clustering import ObservableRank, rank_observables
from genamp_lib.diagnostics.findings import FOUND, Finding, findings_in_slices
from genamp_lib.diagnostics.overfitting import Overfitting, overfitting
from genamp_lib.diagnostics.slices import WeightSlice, weight_slices
from genamp_lib.diagnostics.weights import auc_from_weights, auc_interval, check_weights

Array = NDArray[np.float64]
# Slices that are looked at, as fractions of a sample, at both ends of the weights.
FRACTIONS = (0.005, 0.02, 0.05, 0.2)
_N_BINS = 20
_FEWEST = 10  # events of a slice


@dataclass(frozen=True)
class Diagnosis:
    """What the weights say.

    Attributes:
        verdict: "differs", "no difference found" or "separated".
        auc: Area under the ROC curve.
        auc_interval: Its 68.27 % interval.
        small: Most significant slice of small weights, of generated events.
        large: Most significant slice of large weights, of truth events.
        significance: Excess in `small`, excess in `large`, AUC above one half, largest difference
            of one observable: in standard deviations after allowing for all that was looked at.
        observables: All of them ranked, the most telling first.
        ranks: "small" and "large" -> the ranking in that slice.
        marginal: Each observable of generated ("inside") against truth events, without weights.
        calibration: Of the weights.
        closure: Observable -> closure; empty where the weights cannot be used for reweighting.
        overfitting: What the weights claim and hold; None where a generated weight is infinite.
        findings: Failure modes, the most significant first; empty where none is significant.
        notes: What limits the result.
    """

    verdict: str
    auc: float
    auc_interval: tuple[float, float]
    small: WeightSlice
    large: WeightSlice
    significance: dict[str, float]
    observables: tuple[str, ...]
    ranks: dict[str, tuple[ObservableRank, ...]] = field(repr=False)
    marginal: tuple[ObservableRank, ...] = field(repr=False)
    calibration: WeightCalibration = field(repr=False)
    closure: dict[str, Closure] = field(repr=False)
    overfitting: Overfitting | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; infinity and NaN are strings."""
        return plain(
            {
                "verdict": self.verdict,
                "findings": [one.to_dict() for one in self.findings],
                "observables": list(self.observables),
                "auc": self.auc,
                "auc_interval": list(self.auc_interval),
                "significance": self.significance,
                "slices": {"small": self.small.to_dict(), "large": self.large.to_dict()},
                "ranks": {k: [one.to_dict() for one in v] for k, v in self.ranks.items()},
                "marginal": [one.to_dict() for one in self.marginal],
                "calibration": self.calibration.to_dict(),
                "closure": {k: v.to_dict() for k, v in self.closure.items()},
                "overfitting": None if self.overfitting is None else self.overfitting.to_dict(),
                "notes": list(self.notes),
            }
        )


def diagnose(
    truth_weights: ArrayLike,
    generated_weights: ArrayLike,
    truth: Mapping[str, ArrayLike],
    generated: Mapping[str, ArrayLike],
) -> Diagnosis:
    """Say what cross-fitted weights tell about a generator.

    The excess in slices of 0.5, 2, 5 and 20 % at both ends of the weights, the AUC, and the
    observables one by one are tested against samples of one density, with the variance of
    cross-fitted weights and allowing for all tests. Only what is above three standard deviations
    then is called found.

    A classifier's noise clusters, too. So an observable is blamed for a slice only if the slice's
    events stand out in it and its own distribution differs between truth and generated events.

    Args:
        truth_weights: Of truth events, each from a classifier that never saw it, (n_truth,).
        generated_weights: Of generated events, likewise, (n_generated,).
        truth: Name -> observable of the truth events, each (n_truth,).
        generated: The same observables of the generated events, each (n_generated,).

    Raises:
        ValueError: Lengths or names do not fit, a value is NaN or infinite, a weight is NaN or
            negative, or a sample has fewer than 20 events.

    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.exponential(size=5000), rng.exponential(size=5000)
    >>> y = y[y < 3]
    >>> result = diagnose(np.where(x < 3, 0.95, 9.0), np.full(len(y), 0.95), {"m": x}, {"m": y})
    >>> result.findings[0].mode, result.findings[0].observable
    ('missing tail', 'm')
    """
    w_truth, w_generated = check_weights(truth_weights, generated_weights)
    tables = _check(truth, generated, len(w_truth), len(w_generated))
    notes: list[str] = []
    small = _strongest("small", w_truth, w_generated)
    large = _strongest("large", w_truth, w_generated)
    auc = auc_from_weights(w_truth, w_generated)
    interval = auc_interval(w_truth, w_generated, cross_fitted=True)
    error = max((interval[1] - interval[0]) / 2, 1e-12)
    both = {name: np.concatenate([tables[0][name], tables[1][name]]) for name in tables[0]}
    marginal = rank_observables(both, np.arange(len(w_truth), len(w_truth) + len(w_generated)))
    n_looks = 2 * len(FRACTIONS) + 2
    excesses = {"small": _excess(small), "large": _excess(large), "auc": (auc - 0.5) / error}
    excesses["one observable"] = marginal[0].significance
    significance = {name: _allowing(z, n_looks) for name, z in excesses.items()}

    ranks = {
        name: tuple(_ranks(table, one.indices))
        for name, table, one in (("small", tables[1], small), ("large", tables[0], large))
    }
    separated = auc > 1 - 1e-3
    observables = _order({} if separated else ranks, significance, marginal)
    if separated:
        notes.append(
            "The classifier tells the samples apart almost perfectly: they hardly overlap. Weights "
            "and rankings then say which observables suffice, not how large the flaw is."
        )
    closures, fit = {}, None
    if not np.isfinite(w_generated).all() or not w_generated.max() > 0:
        notes.append(
            "Generated events with infinite weights, or none with a weight above zero: no "
            "reweighting closure and no test of overfitting."
        )
    else:
        fit = overfitting(w_truth, w_generated, cross_fitted=True)
        for name in observables:
            closures[name] = reweighting_closure(
                tables[0][name],
                tables[1][name],
                w_generated,
                _bins(tables[0][name], tables[1][name]),
                cross_fitted=True,
            )
        if fit.is_overfitted and not separated:
            notes.append(
                "The weights claim a larger difference than they hold: the classifier has learned "
                "noise. Trust the excesses and the ranking, not the size of the weights."
            )
    if min(len(w_truth), len(w_generated)) < 2000:
        notes.append("Fewer than 2000 events of a sample: only gross flaws can be seen.")
    findings = (
        () if separated else findings_in_slices(tables, small, large, significance, ranks, marginal)
    )
    found = any(value > FOUND for value in significance.values())
    return Diagnosis(
        verdict="separated" if separated else "differs" if found else "no difference found",
        auc=auc,
        auc_interval=interval,
        small=small,
        large=large,
        significance=significance,
        observables=observables,
        ranks=ranks,
        marginal=tuple(marginal),
        calibration=weight_calibration(
            w_truth, w_generated, _weight_bins(w_generated), cross_fitted=True
        ),
        closure=closures,
        overfitting=fit,
        findings=findings,
        notes=tuple(notes),
    )


def _strongest(end: str, truth: Array, generated: Array) -> WeightSlice:
    """Return the slice of one end with the largest excess."""
    best = None
    for fraction in FRACTIONS:
        pair = weight_slices(
            truth,
            generated,
            n_small=min(max(round(fraction * len(generated)), _FEWEST), len(generated)),
            n_large=min(max(round(fraction * len(truth)), _FEWEST), len(truth)),
        )
        one = pair[0 if end == "small" else 1]
        if best is None or _excess(one) > _excess(best):
            best = one
    return best


def _excess(one: WeightSlice) -> float:
    n_slice, n_all = one.n_truth + one.n_generated, one.n_truth_total + one.n_generated_total
    return 0.0 if n_slice == n_all else one.excess(cross_fitted=True)


def _allowing(z: float, n_looks: int) -> float:
    """Return z in standard deviations after allowing for how many were looked at."""
    corrected = min(float(log_ndtr(-z)) + math.log(n_looks), 0.0)
    return max(float(-ndtri_exp(corrected)), 0.0) if corrected < 0 else 0.0


def _ranks(table: dict[str, Array], indices: NDArray[np.intp]) -> list[ObservableRank]:
    n_events = len(next(iter(table.values())))
    return rank_observables(table, indices) if 0 < len(indices) < n_events else []


def _order(
    ranks: dict[str, tuple[ObservableRank, ...]],
    significance: dict[str, float],
    marginal: list[ObservableRank],
) -> tuple[str, ...]:
    """Order the observables: those to blame for a significant slice first, by their rank in it."""
    best = {one.name: (2, one.log_p_value, -one.distance) for one in marginal}
    differing = {one.name for one in marginal if one.significance > FOUND}
    for end, entries in ranks.items():
        for one in entries:
            if significance[end] > FOUND and one.significance > FOUND:
                key = (int(one.name not in differing), one.log_p_value, -one.distance)
                best[one.name] = min(best[one.name], key)
    return tuple(sorted(best, key=best.__getitem__))


def _bins(truth: Array, generated: Array) -> Array:
    """Return edges of bins with about equal parts of both samples, open at the ends."""
    both = np.concatenate([truth, generated])
    inner = np.unique(np.quantile(both, np.arange(1, _N_BINS) / _N_BINS))
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _weight_bins(generated: Array) -> Array:
    """Return edges of bins with equal parts of the generated events, up to their 99 % quantile.

    Beyond, a tail that the generator misses has truth events alone: no finite weight is right.
    """
    with np.errstate(invalid="ignore"):  # a quantile between infinite weights: left out below
        edges = np.unique(np.quantile(generated, np.linspace(0, 0.99, _N_BINS + 1)))
    edges = edges[np.isfinite(edges)]
    if len(edges) < 2:  # all weights are equal
        edges = np.array([0.0, edges[0] if len(edges) and edges[0] > 0 else 1.0])
    edges[0] = 0.0
    return np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _check(
    truth: Mapping[str, ArrayLike], generated: Mapping[str, ArrayLike], n_truth: int, n_gen: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    if min(n_truth, n_gen) < 2 * _FEWEST:
        raise ValueError(
            f"`truth` and `generated` must have at least {2 * _FEWEST} events each, got {n_truth} "
            f"and {n_gen}."
        )
    if not truth or set(truth) != set(generated):
        raise ValueError(
            f"`truth` and `generated` must have the same observables, got {sorted(truth)} and "
            f"{sorted(generated)}."
        )
    tables = []
    for name, table, n in (("truth", truth, n_truth), ("generated", generated, n_gen)):
        arrays = {key: np.asarray(table[key], dtype=np.float64) for key in truth}
        for key, values in arrays.items():
            if values.shape != (n,):
                raise ValueError(
                    f"`{name}` must have one value of {key} per weight, got shape {values.shape} "
                    f"beside {n} weights."
                )
            if not np.isfinite(values).all():
                raise ValueError(f"`{name}` must be finite, got NaN or infinity in {key}.")
        tables.append(arrays)
    return tables[0], tables[1]
