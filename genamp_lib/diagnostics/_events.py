"""Weights of events, beside those of a classifier; and how many unweighted events say as much.

Scaled, weights of a sample add up to n = (sum w)^2 / sum w^2, and so do their squares. Where S is
the sum of scaled weights in a region and Q that of their squares, the sum fluctuates as that of
S^2 / Q events of weight Q / S (Bohm and Zech, NIM A 748 (2014) 1), among n S / Q in all. Where
events are few, Q / S fluctuates with S: `PRIOR` events of the sample's own Q / S = 1 are added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
PRIOR = 10.0
# Weights of truth and of generated events; None for an unweighted sample.
EventWeights = tuple[ArrayLike | None, ArrayLike | None]


def scaled(event_weights: EventWeights | None, *sizes: int) -> tuple[Array, Array] | None:
    """Return the weights of both samples, scaled; None where those of a sample are all equal.

    Raises:
        ValueError: Weights are not one finite number per event, or do not add up to more than 0.
    """
    if event_weights is None:
        return None
    found = []
    for name, weights, size in zip(("truth", "generated"), event_weights, sizes, strict=True):
        own = np.ones(size) if weights is None else np.asarray(weights, dtype=np.float64)
        if own.shape != (size,) or not np.isfinite(own).all():
            raise ValueError(
                f"`event_weights` must have one finite number for each of {size} {name} events, "
                f"got shape {own.shape}{' with NaN or infinity' * (own.shape == (size,))}."
            )
        if not own.sum() > 0:
            raise ValueError(
                f"`event_weights` of {name} events must add up to more than 0, got {own.sum():g}."
            )
        found.append(own)
    if all(own.min() == own.max() for own in found):
        return None
    return tuple(own * (own.sum() / (own**2).sum()) for own in found)


def local_counts(total: ArrayLike, squares: ArrayLike, n: float) -> tuple[Array, Array]:
    """Return events in a region and in all that say as much as sums of scaled weights there."""
    total, squares = np.asarray(total, dtype=np.float64), np.asarray(squares, dtype=np.float64)
    scale = (squares + PRIOR) / (np.maximum(total, 0.0) + PRIOR)
    return np.maximum(total, 0.0) / scale, n / scale


def sums_below(values: Array, others: Array, weights: Array | None) -> NDArray:
    """Return twice the sum of weights of others below each value, ties counting half.

    Integers without weights, so that sums of them are exact.
    """
    order = None if weights is None else np.argsort(others, kind="stable")
    others = np.sort(others) if order is None else others[order]
    places = [np.searchsorted(others, values, side) for side in ("left", "right")]
    if weights is None:
        return places[0] + places[1]
    total = np.append(0.0, np.cumsum(weights[order]))
    return total[places[0]] + total[places[1]]
