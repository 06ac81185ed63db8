"""Kolmogorov's distribution: mean, finite-sample mean, bands. Not for distances: differential."""

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
    """Return n_ref n_gen / (n_ref + n_gen), the scaling of Eq. (34); either may be infinite."""
    return 1 / (1 / n_reference + 1 / n_generated)


def finite_size_shift(n_reference: Number, n_generated: Number) -> Number:
    """Return how far finite samples shift the distribution of K downwards, to leading order.

    Between the steps of the empirical distribution functions the Brownian bridge would have gone
    further: by (1/n_small + 2/n_large)/6 in the mean, that is 1/(6 sqrt(n)) in K for one sample and
    1/(4 sqrt(n_eff)) for two equal ones. Exact for integer ratios of the sizes, up to 1/n_eff. The
    shift is added to a measured K, whatever the generator: the steps are those of the samples.
    """
    small, large = np.minimum(n_reference, n_generated), np.maximum(n_reference, n_generated)
    return np.sqrt(effective_size(small, large)) * (1 / small + 2 / large) / 6


def kolmogorov_mean(n_reference: Number = math.inf, n_generated: Number = math.inf) -> Number:
    """Return <K>, the mean of Eq. (35), for samples of one density; numbers or arrays.

    >>> print(round(kolmogorov_mean(), 6), round(kolmogorov_mean(1000), 4))
    0.868731 0.8635
    """
    if np.isscalar(n_generated) and math.isinf(n_reference) and math.isinf(n_generated):
        return KOLMOGOROV_MEAN
    return KOLMOGOROV_MEAN - finite_size_shift(n_reference, n_generated)


def kolmogorov_band(confidence: float) -> tuple[float, float]:
    """Return the central interval of K, which holds it in a fraction `confidence` of cases."""
    tail = (1 - check_confidence(confidence)) / 2
    return float(kolmogi(1 - tail)), float(kolmogi(tail))


def paper_band(confidence: float) -> tuple[float, float]:
    """Return Eq. (37) of paper A: <K> - c and <K> + c with c = sqrt(ln(2/alpha)/2).

    c is an upper quantile of K itself (the bound of Dvoretzky, Kiefer and Wolfowitz), not a
    half-width around the mean: at a nominal 68.27 % this band holds K in 99.75 % of cases.
    """
    half = math.sqrt(math.log(2 / (1 - check_confidence(confidence))) / 2)
    return KOLMOGOROV_MEAN - half, KOLMOGOROV_MEAN + half
