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
    reference: NDArray[np.int64], generated: NDArray[np.int64], n_generated: int
) -> MeanSquare:
    """Estimate the mean square difference from events at or below each distinct reference value.

    U-statistics: each reference event in turn is a place where the functions are compared, by pairs
    of other events, without bias, with ties too. Needs 3 reference and 2 generated events.
    """
    weights = np.diff(reference, prepend=0) / reference[-1]
    n, m = float(reference[-1] - 1), float(n_generated)
    truth, made = reference.astype(np.float64) - 1, generated.astype(np.float64)
    # A value shared by several events: each of them has all the others at or below it.
    truth_square = truth * (truth - 1) / (n * (n - 1))
    made_square = made * (made - 1) / (m * (m - 1))
    square = weights @ (made_square - 2 * made * truth / (m * n) + truth_square)

    # A reference event adds one place, and one step that lowers all differences at and above it;
    # a generated event adds one step that raises these.
    delta = made / m - truth / n
    above = np.cumsum((weights * delta)[::-1])[::-1]
    variance = _variance(delta**2 - 2 * above, weights) / (n + 1)
    steps = np.diff(generated, prepend=0, append=n_generated) / m
    variance += _variance(2 * np.append(above, 0.0), steps) / m
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
    variance = _variance(2 * above, np.full(n, 1 / n)) / n
    return MeanSquare(float(with_noise - noise), 1 / 6, float(variance))


def _variance(values: Array, weights: Array) -> float:
    mean = weights @ values
    return float(weights @ (values - mean) ** 2)


def tie_probability(reference: NDArray[np.int64]) -> float:
    """Estimate the probability of equal values from events at or below each distinct one."""
    multiplicity = np.diff(reference, prepend=0).astype(np.float64)
    n = multiplicity.sum()
    return float((multiplicity * (multiplicity - 1)).sum() / (n * (n - 1)))
