"""Mean squares without bias, from pairs of events. Not for their distribution: _bridge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean_square(
    reference: NDArray[np.int64], generated: NDArray[np.int64], n_generated: int
) -> tuple[float, float]:
    """Estimate the integrals over the truth of (F_gen - F_truth)^2 and of F_truth (1 - F_truth).

    U-statistics: each reference event in turn is a place where the functions are compared, by
    pairs of other events, so that both have no bias, with ties too.

    Args:
        reference: Reference events at or below each of their distinct values; at least 3 events.
        generated: Generated events at or below the same values.
        n_generated: Number of generated events, at least 2.
    """
    weights = np.diff(reference, prepend=0) / reference[-1]
    n, m = float(reference[-1] - 1), float(n_generated)
    truth, made = reference.astype(np.float64) - 1, generated.astype(np.float64)
    # A value shared by several events: each of them has all the others at or below it.
    truth_square = truth * (truth - 1) / (n * (n - 1))
    made_square = made * (made - 1) / (m * (m - 1))
    square = weights @ (made_square - 2 * made * truth / (m * n) + truth_square)
    return float(square), float(weights @ (truth / n - truth_square))


def mean_square_to_cdf(truth: Array) -> float:
    """Estimate the integral over the truth of (F_gen - F_truth)^2, F_truth being known.

    Args:
        truth: F_truth at the generated events, sorted; at least 2 events.
    """
    n = len(truth)
    j = np.arange(n)
    with_noise = 1 / (12 * n**2) + np.mean((truth - (2 * j + 1) / (2 * n)) ** 2)
    shares = j[1:] / n
    noise = np.sum(shares * (1 - shares) * np.diff(truth)) / (n - 1)
    return float(with_noise - noise)


def tie_probability(reference: NDArray[np.int64]) -> float:
    """Estimate the probability that two events have equal values.

    Args:
        reference: Events at or below each distinct value; at least 2 events.
    """
    multiplicity = np.diff(reference, prepend=0).astype(np.float64)
    n = multiplicity.sum()
    return float((multiplicity * (multiplicity - 1)).sum() / (n * (n - 1)))
