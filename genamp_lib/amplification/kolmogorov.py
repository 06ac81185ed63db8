"""Kolmogorov's distribution: mean, finite-sample mean, bands. Not for distances: differential.

Which band when: `kolmogorov_band` says where K lies in a stated fraction of cases and is exact;
`paper_band` is Eq. (37) of paper A, which is far too wide, kept for comparison.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogi

from genamp_lib.amplification._bridge import KOLMOGOROV_MEAN
from genamp_lib.amplification._members import check_confidence

Number: TypeAlias = float | NDArray[np.float64]


def effective_size(n_reference: Number, n_generated: Number) -> Number:
    """Return n_ref n_gen / (n_ref + n_gen), the scaling of Eq. (34); either may be infinite.

    >>> effective_size(1000, 4000), effective_size(1000, math.inf)
    (800.0, 1000.0)
    """
    return 1 / (1 / n_reference + 1 / n_generated)


def finite_size_shift(n_reference: Number, n_generated: Number) -> Number:
    """Return how far finite samples shift the distribution of K downwards, to leading order.

    The empirical distribution functions go in steps, which the Brownian bridge does not: between
    steps it would have gone further. For steps 1/n_small in one direction and 1/n_large in the
    other the mean excess of a random walk over a boundary, averaged over the two signs, is
    (1/n_small + 2/n_large)/6: 1/(6 sqrt(n)) in K for one sample and 1/(4 sqrt(n_eff)) for two
    equal ones. Exact for integer ratios of the sizes, up to terms of order 1/n_eff.

    The shift is added to a measured K, whatever the generator: the steps around the largest
    difference are those of the samples, with a deviation of the densities or without one. To
    divide by the mean of `kolmogorov_mean` instead would stretch the deviation as well.
    """
    small, large = np.minimum(n_reference, n_generated), np.maximum(n_reference, n_generated)
    return np.sqrt(effective_size(small, large)) * (1 / small + 2 / large) / 6


def kolmogorov_mean(n_reference: Number = math.inf, n_generated: Number = math.inf) -> Number:
    """Return <K>, the mean of Eq. (35), for samples of one density; numbers or arrays.

    Args:
        n_reference: Events in one sample; infinite for the asymptotic value or a known density.
        n_generated: Events in the other sample.

    Returns:
        sqrt(pi/2) ln 2 when both are infinite, slightly less when not.

    >>> print(round(kolmogorov_mean(), 6), round(kolmogorov_mean(1000), 4))
    0.868731 0.8635
    """
    if np.isscalar(n_generated) and math.isinf(n_reference) and math.isinf(n_generated):
        return KOLMOGOROV_MEAN
    return KOLMOGOROV_MEAN - finite_size_shift(n_reference, n_generated)


def kolmogorov_band(confidence: float) -> tuple[float, float]:
    """Return the central interval of K: equal tails, exact quantiles.

    Args:
        confidence: Fraction of cases inside.

    Raises:
        ValueError: The confidence is not between 0 and 1.

    >>> [round(k, 3) for k in kolmogorov_band(0.6827)]
    [0.617, 1.126]
    """
    tail = (1 - check_confidence(confidence)) / 2
    return float(kolmogi(1 - tail)), float(kolmogi(tail))


def paper_band(confidence: float) -> tuple[float, float]:
    """Return Eq. (37) of paper A: <K> - c and <K> + c with c = sqrt(ln(2/alpha)/2).

    c is an upper quantile of K itself (the bound of Dvoretzky, Kiefer and Wolfowitz), not a
    half-width around the mean: at a nominal 68.27 % this band holds K in 99.75 % of cases.

    Args:
        confidence: Nominal confidence level, 1 - alpha.

    Raises:
        ValueError: The confidence is not between 0 and 1.

    >>> low, high = paper_band(0.6827)
    >>> round(low, 3), round(high, 3)
    (-0.091, 1.828)
    >>> from scipy.special import kolmogorov
    >>> round(float(kolmogorov(max(low, 0)) - kolmogorov(high)), 4)
    0.9975
    """
    half = math.sqrt(math.log(2 / (1 - check_confidence(confidence))) / 2)
    return KOLMOGOROV_MEAN - half, KOLMOGOROV_MEAN + half
