"""Where in phase space are the events of a slice? Ranks observables; not for taking slices.

A slice's events lie somewhere. The observable whose distribution inside the slice differs most
from that outside says where: a missing tail in the jet mass shows up as the jet mass.

What this does not say is whether the generator is wrong. A classifier that learned noise has put
its large weights somewhere, too. Whether the slice holds more truth than generated events than
chance allows is `WeightSlice.significance`; ask that first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogorov, ndtri_exp
from scipy.stats import ks_2samp

from genamp_lib.diagnostics._events import scaled
from genamp_lib.diagnostics._json import Result


@dataclass(frozen=True)
class ObservableRank(Result):
    """How differently one observable is distributed inside and outside a slice.

    Attributes:
        name: The observable.
        distance: Kolmogorov-Smirnov distance between inside and outside.
        log_p_value: Natural logarithm of the probability of a larger distance for a slice of
            random events.
        significance: In one-sided standard deviations, allowing for the number of observables that
            were looked at (Bonferroni); 0 where chance explains it.
        median_inside: Median of the slice's events.
        median_outside: Median of the others.
    """

    name: str
    distance: float
    log_p_value: float
    significance: float
    median_inside: float
    median_outside: float


def rank_observables(
    observables: Mapping[str, ArrayLike],
    indices: ArrayLike,
    *,
    event_weights: ArrayLike | None = None,
) -> list[ObservableRank]:
    """Rank observables by how differently a slice's events are distributed in them.

    Args:
        observables: Name -> one value per event of the slice's sample, each of shape (n_events,).
        indices: Positions of the slice's events (`WeightSlice.indices`).
        event_weights: Weights of the events themselves, (n_events,); None for unweighted ones.

    Returns:
        One entry per observable, the most telling first.

    Raises:
        ValueError: No observable, lengths that differ, values that are not finite, an index out of
            range or twice, or a slice of no or all events.

    >>> rng = np.random.default_rng(1)
    >>> events = {"mass": rng.exponential(size=1000), "eta": rng.normal(size=1000)}
    >>> heavy = np.flatnonzero(events["mass"] > 3)
    >>> [one.name for one in rank_observables(events, heavy)]
    ['mass', 'eta']
    """
    table = {name: np.asarray(values, dtype=np.float64) for name, values in observables.items()}
    if not table:
        raise ValueError("`observables` must hold at least one observable, got none.")
    n_events = len(next(iter(table.values()))) if next(iter(table.values())).ndim else 0
    for name, values in table.items():
        if values.shape != (n_events,):
            raise ValueError(
                f"`observables` must have one value per event, got shape {values.shape} for "
                f"{name} beside {n_events} events."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"`observables` must be finite, got NaN or infinity in {name}.")
    inside = _mask(indices, n_events)
    ranks = [
        _rank(name, values, inside, len(table), event_weights) for name, values in table.items()
    ]
    return sorted(ranks, key=lambda one: (one.log_p_value, -one.distance))


def allowing_for(log_p: float, n_looked_at: int) -> float:
    """Return one-sided standard deviations of n times a p-value; 0 where chance explains it.

    Args:
        log_p: Natural logarithm of the p-value.
        n_looked_at: Number of things that were looked at (Bonferroni).

    >>> round(allowing_for(math.log(0.00135), 1), 2), allowing_for(math.log(0.1), 20)
    (3.0, 0.0)
    """
    corrected = log_p + math.log(n_looked_at)
    return max(float(-ndtri_exp(corrected)), 0.0) if corrected < 0 else 0.0


def _mask(indices: ArrayLike, n_events: int) -> NDArray[np.bool_]:
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ValueError(f"`indices` must be whole numbers, 1D, got {indices.dtype}.")
    if indices.size and not (indices.min() >= 0 and indices.max() < n_events):
        raise ValueError(
            f"`indices` must be in 0 ... {n_events - 1}, got {indices.min()} to {indices.max()}; "
            "they must be of the sample of the observables."
        )
    if len(np.unique(indices)) < len(indices):
        raise ValueError("`indices` must name each event once, got one twice.")
    if not 0 < len(indices) < n_events:
        raise ValueError(
            f"`indices` must name some but not all events, got {len(indices)} of {n_events}."
        )
    inside = np.zeros(n_events, dtype=bool)
    inside[indices] = True
    return inside


def _rank(
    name: str,
    values: NDArray[np.float64],
    inside: NDArray[np.bool_],
    n_looked_at: int,
    weights: NDArray[np.float64] | None,
) -> ObservableRank:
    within, rest = values[inside], values[~inside]
    if weights is None:
        distance = float(ks_2samp(within, rest, method="asymp").statistic)
        n_effective = len(within) * len(rest) / len(values)
        medians = float(np.median(within)), float(np.median(rest))
    else:
        order = np.argsort(values, kind="stable")
        last = np.append(np.diff(values[order]) > 0, True)
        parts = scaled(
            (np.where(inside, weights, 0.0), np.where(inside, 0.0, weights)), *[len(values)] * 2
        )
        sums = [np.cumsum(own[order]) / own.sum() for own in parts]
        distance = float(np.abs(sums[0] - sums[1])[last].max())
        n_effective = 1 / sum(1 / own.sum() for own in parts)
        medians = tuple(float(values[order][np.argmax(one >= 0.5)]) for one in sums)
    log_p = _log_kolmogorov(distance * math.sqrt(n_effective))
    return ObservableRank(
        name=name,
        distance=distance,
        log_p_value=log_p,
        significance=allowing_for(log_p, n_looked_at),
        median_inside=medians[0],
        median_outside=medians[1],
    )


def _log_kolmogorov(k: float) -> float:
    """Return the logarithm of P(K > k), also where that is no longer a float."""
    p = float(kolmogorov(k))
    # The first term of Kolmogorov's series; the next is smaller by exp(-6 k^2).
    return math.log(p) if p > 1e-200 else math.log(2) - 2 * k**2
