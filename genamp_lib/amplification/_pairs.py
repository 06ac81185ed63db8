"""Mean squares without bias, from pairs of events. Not for their distribution: _bridge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class MeanSquare(NamedTuple):
    """Mean square difference of two distribution functions over the truth."""

    square: float  # integral of (F_gen - F_truth)^2, without bias
    null: float  # integral of F_truth (1 - F_truth), 1/6 without ties
    variance: float  # of `square`, linearised; twice too large where the functions agree


def mean_square(
    reference: NDArray,
    generated: NDArray,
    n_generated: float,
    squares: tuple[NDArray, NDArray, float] | None = None,
) -> MeanSquare:
    """Estimate the mean square difference from events at or below each distinct reference value.

    U-statistics: each reference event in turn is a place where the functions are compared, by pairs
    of other events, without bias, with ties too. Needs 3 reference and 2 generated events. Of
    weighted events the arguments are sums of weights, and `squares` the same sums of their squares;
    a pair counts with the product of its weights.
    """
    of_reference, of_generated, all_generated = squares or (reference, generated, n_generated)
    steps, more = np.diff(reference, prepend=0), np.diff(of_reference, prepend=0)
    weights = steps / reference[-1]
    # Weight of the event that is the place: 1 without weights.
    own = np.divide(more, steps, out=np.zeros(len(steps)), where=steps != 0)
    n, m = reference[-1] - own, float(n_generated)
    truth, made = reference - own, generated.astype(np.float64)
    # A value shared by several events: each of them has all the others at or below it.
    truth_square = (truth**2 - (of_reference - own**2)) / (n**2 - (of_reference[-1] - own**2))
    made_square = (made**2 - of_generated) / (m**2 - all_generated)
    square = weights @ (made_square - 2 * made * truth / (m * n) + truth_square)

    # A reference event adds one place, and one step that lowers all differences at and above it;
    # a generated event adds one step that raises these.
    delta = made / m - truth / n
    above = np.cumsum((weights * delta)[::-1])[::-1]
    variance = _variance(delta**2 - 2 * above, weights, more / reference[-1]) / reference[-1]
    steps, more = (
        np.diff(table, prepend=0, append=total) / m
        for table, total in ((generated, n_generated), (of_generated, all_generated))
    )
    variance += _variance(2 * np.append(above, 0.0), steps, more) / m
    return MeanSquare(float(square), float(weights @ (truth / n - truth_square)), float(variance))


def mean_square_to_cdf(truth: Array) -> MeanSquare:
    """Estimate the mean square difference to a cdf, from its values at the sorted events."""
    n = len(truth)
    j = np.arange(n)
    with_noise = 1 / (12 * n**2) + np.mean((truth - (2 * j + 1) / (2 * n)) ** 2)
    shares = j[1:] / n
    noise = np.sum(shares * (1 - shares) * np.diff(truth)) / (n - 1)
    # The integral of F_gen - F_truth from an event up.
    later = np.cumsum((1 - truth)[::-1])[::-1] - (1 - truth)
    above = ((j + 1) * (1 - truth) + later) / n - (1 - truth**2) / 2
    shares = np.full(n, 1 / n)
    variance = _variance(2 * above, shares, shares) / n
    return MeanSquare(float(with_noise - noise), 1 / 6, float(variance))


def _variance(values: Array, weights: Array, squares: Array) -> float:
    mean = weights @ values
    return float(squares @ (values - mean) ** 2)


def tie_probability(reference: NDArray, squares: NDArray | None = None) -> float:
    """Estimate the probability of equal values from events at or below each distinct one.

    With weights, from sums of these and of their squares.
    """
    squares = reference if squares is None else squares
    pairs = np.diff(reference, prepend=0.0) ** 2 - np.diff(squares, prepend=0.0)
    return float(pairs.sum() / (float(reference[-1]) ** 2 - squares[-1]))
