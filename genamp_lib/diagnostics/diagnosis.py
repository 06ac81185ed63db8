"""Everything that weights and cheap looks say about a generator, in one result and in plain words.

`diagnose` runs the tests of this package on cross-fitted weights. For one question alone, use its
function; for the names of the failure modes: findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

from genamp_lib.diagnostics._events import EventWeights, scaled
from genamp_lib.diagnostics._json import plain
from genamp_lib.diagnostics.calibration import (
    Closure,
    WeightCalibration,
    reweighting_closure,
    weight_calibration,
)
from genamp_lib.diagnostics.clustering import ObservableRank, allowing_for, rank_observables
from genamp_lib.diagnostics.findings import FOUND, Finding, findings_in_slices
from genamp_lib.diagnostics.looks import PAIR, SINGLE, Looks, cheap_looks
from genamp_lib.diagnostics.overfitting import Overfitting, overfitting
from genamp_lib.diagnostics.slices import WeightSlice, weight_slices
from genamp_lib.diagnostics.weights import auc_from_weights, auc_interval, check_weights

Array = NDArray[np.float64]
# Slices that are looked at, as fractions of a sample, at both ends of the weights.
FRACTIONS = (0.005, 0.02, 0.05, 0.2)
_N_BINS = 20
_FEWEST = 10  # events of a slice


# Which finding names an observable first, where several could.
_WEAK = ("too many", "too few")


@dataclass(frozen=True)
class Diagnosis:
    """What weights and cheap looks say about a generator.

    Attributes:
        verdict: "differs", "no difference found", "separated" where the samples hardly overlap, or
            "copies truth events" where that is all that was found.
        auc: Area under the ROC curve.
        auc_interval: Interval of `auc` that covers at least 68.27 %.
        small: Most significant slice of small weights, of generated events.
        large: Most significant slice of large weights, of truth events.
        significance: Look -> standard deviations after allowing for all that was looked at: excess
            in `small` and `large`, AUC above one half of one or two classifiers, and `cheap_looks`.
        second_auc: Area under the ROC curve of the second classifier; None without one.
        observables: All observables, the most telling first.
        ranks: "small" and "large" -> the ranking in that slice.
        marginal: Each observable of generated ("inside") against truth events, without weights.
        pairs: Pairs of observables that differ most, the first significant or not.
        calibration: Calibration of the weights.
        closure: Observable -> closure; empty where the weights cannot be used for reweighting.
        overfitting: What the weights claim and hold; None where a generated weight is infinite.
        findings: Failures, the most significant first; empty where none is significant.
        notes: What limits the result.
    """

    verdict: str
    auc: float
    auc_interval: tuple[float, float]
    small: WeightSlice
    large: WeightSlice
    significance: dict[str, float]
    second_auc: float | None
    observables: tuple[str, ...]
    ranks: dict[str, tuple[ObservableRank, ...]] = field(repr=False)
    marginal: tuple[ObservableRank, ...] = field(repr=False)
    pairs: tuple[Finding, ...] = field(repr=False)
    calibration: WeightCalibration = field(repr=False)
    closure: dict[str, Closure] = field(repr=False)
    overfitting: Overfitting | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; infinity and NaN are strings."""
        content = {k: v for k, v in vars(self).items() if k not in ("small", "large")}
        return plain({**content, "slices": {"small": self.small, "large": self.large}})


def diagnose(
    truth_weights: ArrayLike,
    generated_weights: ArrayLike,
    truth: Mapping[str, ArrayLike],
    generated: Mapping[str, ArrayLike],
    *,
    second: tuple[ArrayLike, ArrayLike] | None = None,
    looks: Looks | None = None,
    event_weights: EventWeights | None = None,
) -> Diagnosis:
    """Say what cross-fitted weights and cheap looks tell about a generator.

    The excess in slices of 0.5, 2, 5 and 20 % at both ends of the weights, the AUC, and all looks
    of `cheap_looks` are tested against samples of one density, allowing for all of them. Only what
    is above three standard deviations then is called found: 0.13 % of nulls at most.

    A classifier's noise clusters, too. So an observable is blamed for a slice only if the slice's
    events stand out in it and a look finds that its own distribution differs.

    Args:
        truth_weights: Weights of truth events by classifiers that never saw them, (n_truth,).
        generated_weights: Weights of generated events, likewise, (n_generated,).
        truth: Name -> observable of the truth events, each (n_truth,).
        generated: Name -> the same observable of the generated events, each (n_generated,).
        second: Weights of truth and generated events from a second classifier; its AUC is one more
            look.
        looks: Result of `cheap_looks` of the same events, where known; None computes it.
        event_weights: Weights of the truth and of the generated events themselves, of any sign,
            each (n_events,) or None.

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
    own = scaled(event_weights, len(w_truth), len(w_generated))
    if looks is None:
        stacked = (np.stack([*t.values()], axis=1) for t in tables)
        looks = cheap_looks(*stacked, list(tables[0]), event_weights=own)
    notes = list(looks.notes)
    small = _strongest("small", w_truth, w_generated, own)
    large = _strongest("large", w_truth, w_generated, own)
    auc = auc_from_weights(w_truth, w_generated, event_weights=own)
    interval = auc_interval(w_truth, w_generated, cross_fitted=True, event_weights=own)
    excesses = {"small": _excess(small), "large": _excess(large), "auc": _above(auc, interval)}
    n_looks = 2 * len(FRACTIONS) + 1 + looks.n_looks
    second_auc = None
    if second is not None:
        second_auc, n_looks = auc_from_weights(*second, event_weights=own), n_looks + 1
        excesses["second classifier"] = _above(
            second_auc, auc_interval(*second, cross_fitted=True, event_weights=own)
        )
    excesses |= {
        name: found[0].significance if found else 0.0 for name, found in looks.findings.items()
    }
    significance = {name: _allowing(z, n_looks) for name, z in excesses.items()}

    seen = {
        name: [replace(one, significance=_allowing(one.significance, n_looks)) for one in found]
        for name, found in looks.findings.items()
    }
    ranks = {
        name: tuple(_ranks(tables[which], one.indices, None if own is None else own[which]))
        for name, which, one in (("small", 1, small), ("large", 0, large))
    }
    separated = auc > 1 - 1e-3
    singles = [one for name in SINGLE for one in seen[name] if one.significance > FOUND]
    differing = {one.observable for one in singles}
    slices = findings_in_slices(tables, small, large, significance, ranks, differing)
    pairs = [one for name in PAIR for one in seen.get(name, [])]
    pairs.sort(key=lambda one: -one.significance)
    findings = _named(seen, () if separated else slices, singles, pairs)
    observables = _order(findings, {} if separated else ranks, significance, looks.marginal)
    if separated:
        notes.append(
            "The classifier tells the samples apart almost perfectly: they hardly overlap. Weights "
            "and rankings then say which observables suffice, not how large the flaw is."
        )
    if min(w_truth.min(), w_generated.min()) == max(w_truth.max(), w_generated.max()):
        notes.append("All weights are equal: this classifier tells no event from another.")
    closures, fit = {}, None
    if not np.isfinite(w_generated).all() or not w_generated.max() > 0:
        notes.append(
            "Generated events with infinite weights, or none with a weight above zero: no "
            "reweighting closure and no test of overfitting."
        )
    else:
        fit = overfitting(w_truth, w_generated, cross_fitted=True, event_weights=own)
        for name in observables:
            closures[name] = reweighting_closure(
                tables[0][name],
                tables[1][name],
                w_generated,
                _bins(tables[0][name], tables[1][name]),
                cross_fitted=True,
                event_weights=own,
            )
        if fit.is_overfitted and not separated:
            notes.append(
                "The weights claim a larger difference than they hold: the classifier has learned "
                "noise. Trust the excesses and the ranking, not the size of the weights."
            )
    if min(map(len, (w_truth, w_generated)) if own is None else map(np.sum, own)) < 2000:
        notes.append("Fewer than 2000 events of a sample: only gross flaws can be seen.")
    found = {name for name, value in significance.items() if value > FOUND}
    verdict = "differs" if found - {"copied events"} else "no difference found"
    if found == {"copied events"}:
        verdict = "copies truth events"
    return Diagnosis(
        verdict="separated" if separated else verdict,
        auc=auc,
        auc_interval=interval,
        small=small,
        large=large,
        significance=significance,
        second_auc=second_auc,
        observables=observables,
        ranks=ranks,
        marginal=looks.marginal,
        pairs=tuple({(one.observable, one.partner): one for one in pairs[::-1]}.values())[::-1][:5],
        calibration=weight_calibration(
            w_truth,
            w_generated,
            _weight_bins(w_generated),
            cross_fitted=True,
            event_weights=own,
        ),
        closure=closures,
        overfitting=fit,
        findings=findings,
        notes=tuple(notes),
    )


def _named(
    seen: dict[str, list[Finding]],
    slices: tuple[Finding, ...],
    singles: list[Finding],
    pairs: list[Finding],
) -> tuple[Finding, ...]:
    """Choose one finding for each observable, and pairs that no single observable explains."""
    chosen = [
        one
        for name in ("copied events", "repeated events")
        for one in seen[name]
        if one.significance > FOUND
    ]
    values = [one for one in singles if one in seen["one value"]]
    weak = [one for one in slices if one.mode in _WEAK]
    strong = [one for one in slices if one.mode not in _WEAK]
    others = [one for one in singles if one not in values]
    named: dict[str, float] = {}
    for one in singles:
        named[one.observable] = max(one.significance, named.get(one.observable, 0.0))
    taken: set[str] = set()
    for one in [*values, *strong, *others, *weak]:
        if one.observable not in taken:
            chosen.append(one)
            taken.add(one.observable)
    for one in pairs:
        names = {one.observable, one.partner}
        alone = max(named.get(name, 0.0) for name in names)
        is_new = one.mode == "wrong correlation" or not names & set(named)
        if one.significance > max(FOUND, alone) and is_new and not names <= taken:
            chosen.append(one)
            taken |= names
    return tuple(sorted(chosen, key=lambda one: -one.significance))


def _above(auc: float, interval: tuple[float, float]) -> float:
    return (auc - 0.5) / max((interval[1] - interval[0]) / 2, 1e-12)


def _strongest(
    end: str, truth: Array, generated: Array, own: tuple[Array, Array] | None
) -> WeightSlice:
    """Return the slice of one end with the largest excess."""
    best = None
    for fraction in FRACTIONS:
        pair = weight_slices(
            truth,
            generated,
            n_small=min(max(round(fraction * len(generated)), _FEWEST), len(generated)),
            n_large=min(max(round(fraction * len(truth)), _FEWEST), len(truth)),
            event_weights=own,
        )
        one = pair[0 if end == "small" else 1]
        if best is None or _excess(one) > _excess(best):
            best = one
    return best


def _excess(one: WeightSlice) -> float:
    n_slice, n_all = one.n_truth + one.n_generated, one.n_truth_total + one.n_generated_total
    # Too few weighted events may have been left of a slice by their weights.
    return 0.0 if not _FEWEST <= n_slice < n_all else one.significance(cross_fitted=True)


def _allowing(z: float, n_looks: int) -> float:
    """Return z in standard deviations after allowing for how many were looked at."""
    return allowing_for(float(log_ndtr(-z)), n_looks)


def _ranks(
    table: dict[str, Array], indices: NDArray[np.intp], own: Array | None
) -> list[ObservableRank]:
    n_events = len(next(iter(table.values())))
    if not 0 < len(indices) < n_events:
        return []
    inside = n_events if own is None else own[indices].sum()
    if own is not None and not 0 < inside < own.sum():
        return []  # negative weights outweigh the others
    return rank_observables(table, indices, event_weights=own)


def _order(
    findings: tuple[Finding, ...],
    ranks: dict[str, tuple[ObservableRank, ...]],
    significance: dict[str, float],
    marginal: tuple[ObservableRank, ...],
) -> tuple[str, ...]:
    """Order the observables: those of findings, of significant slices, then by themselves."""
    order = [name for one in findings for name in (one.observable, one.partner) if name]
    slices = [one for end, entries in ranks.items() if significance[end] > FOUND for one in entries]
    for entries in (slices, marginal):
        order += [one.name for one in sorted(entries, key=lambda x: (x.log_p_value, -x.distance))]
    return tuple(dict.fromkeys(order))


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
