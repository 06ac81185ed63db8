"""From a distance of two samples to an amplification: numbers in, interval out.

Let delta = F_generated - F_truth and n_eff = n_ref n_gen / (n_ref + n_gen). For large samples the
difference of the two empirical distribution functions, times sqrt(n_eff), is B + s: a Brownian
bridge B and the signal s = sqrt(n_eff) delta. Both distances are norms ||B + s||: the largest
value for Kolmogorov-Smirnov, the root of the mean square for Cramer-von Mises. With c^2 standing
for <K>^2 or E||B||^2 = 1/6, n_equiv true events have c^2/n_equiv in the place of ||delta||^2, so
t = ||s|| is the unknown: G = c^2 n_eff / (n_train t^2), infinite for t = 0.

The law of the largest value x depends on the direction of s. The interval is a bound for any:

- P(x > t + k(1-b)) <= b, by the triangle inequality, with k the quantile of ||B||;
- P(x < k(b)) <= b, since adding a signal never lowers a norm (Anderson's inequality);
- P(x < t - sigma z(1-b)) <= b: projected on the signal x is at least t plus a normal number of
  standard deviation sigma at most 1/2.

Reading Eq. (36) of paper A at quantiles of K covers 62 % instead of 68 % for a shift with G = 1.

For the mean square, B along the signal is a normal number Z of variance rho, at most 1/pi^2, so
||B + s||^2 is about (t + sqrt(rho) Z)^2 + (1 - 6 rho) ||B'||^2, with the exact mean for all t. The
linearised variance, estimated from the samples, gives rho where the signal stands out; by the share
of the noise rho goes to 1/pi^2. One-sided limits take at least 1/pi^2 always.

Tails: alpha = 1 - confidence is split into lower alpha/2 t^2/(t^2 + c^2) and upper the rest, so
that a perfect generator, t = 0, is covered in exactly the stated fraction of cases, by high = inf,
and no interval is empty. Splits that depend on the parameter alone keep the coverage (Puza and
O'Neill, Canadian Journal of Statistics 34 (2006) 299). One-sided limits have `MISS` on each side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, kolmogorov, kve, ndtr, ndtri

from genamp_lib.amplification._numbers import Array, find_root

KOLMOGOROV_MEAN = math.sqrt(math.pi / 2) * math.log(2)  # <K> of Eq. (35)
MEAN_SQUARE = 1 / 6  # of the bridge
MISS = float(ndtr(-2.0))  # a one-sided limit errs in 2.3 % of cases: two standard deviations
LARGEST_RHO = 1 / math.pi**2


def cramer_von_mises_cdf(x: ArrayLike) -> Array:
    """Return P(integral of B^2 <= x): Anderson and Darling, Ann. Math. Stat. 23 (1952) 193.

    >>> cramer_von_mises_cdf([0.11888, 0.46136]).round(4)  # their table: 0.5, 0.95
    array([0.5 , 0.95])
    """
    x = np.asarray(x, dtype=np.float64)
    safe = np.clip(x, 1e-3, 5.0)[..., np.newaxis]  # beyond these the result is 0 or 1 to 1e-10
    j = np.arange(9)
    q = (4 * j + 1) ** 2 / (16 * safe)
    log_factor = gammaln(j + 0.5) - gammaln(j + 1) - 2 * q
    terms = np.exp(log_factor) * np.sqrt((4 * j + 1) / safe) * kve(0.25, q)
    result = np.clip(terms.sum(axis=-1) / math.pi**1.5, 0.0, 1.0)
    return np.where(x <= 1e-3, 0.0, np.where(x >= 5.0, 1.0, result))


@cache
def _null_squares() -> Array:
    """Return the integral of B^2 at the middles of 64 equally probable parts."""
    x = np.geomspace(1e-3, 5.0, 4000)
    return np.interp((np.arange(64) + 0.5) / 64, cramer_von_mises_cdf(x), x)


def amplification_intervals(
    x: ArrayLike,
    *,
    n_effective: ArrayLike,
    n_train: int,
    confidence: float | None,
    continuous: bool = True,
) -> tuple[Array, Array, Array]:
    """Return (amplification, low, high) for distances x = sqrt(n_eff) max |F_gen - F_ref|.

    `confidence` None gives one-sided limits; `continuous` False, for a statistic of few values,
    leaves out the second bound above, since ||B|| is smaller then.
    """
    x = np.asarray(x, dtype=np.float64)
    alpha, lower_tail = _tails(confidence, KOLMOGOROV_MEAN**2)

    def cdf(k: Array) -> Array:
        return 1 - kolmogorov(k)

    square = np.maximum(x**2 - KOLMOGOROV_MEAN**2, 0.0)  # t^2 of the estimate
    # Largest signal: it would seldom give so small a distance.
    far = x + KOLMOGOROV_MEAN - 0.5 * ndtri(alpha / 4)
    largest = find_root(lambda t: lower_tail(t) - ndtr((x - t) / 0.5), far)
    if continuous and confidence is not None:
        closer = np.minimum(2 * cdf(x) / alpha, 1.0)
        with np.errstate(divide="ignore"):
            largest = np.minimum(largest, KOLMOGOROV_MEAN * np.sqrt(closer / (1 - closer)))
    # Smallest signal: it would seldom give so large a distance; none is needed below k(1 - alpha).
    smallest = find_root(lambda t: 1 - alpha + lower_tail(t) - cdf(x - t), x)
    smallest = np.where(cdf(x) <= 1 - alpha + lower_tail(0.0 * x), 0.0, smallest)
    return _amplifications(
        KOLMOGOROV_MEAN**2 * np.asarray(n_effective) / n_train, square, largest, smallest
    )


def mean_square_intervals(
    square: ArrayLike,
    variance: ArrayLike,
    *,
    n_effective: ArrayLike,
    n_train: int,
    confidence: float | None,
) -> tuple[Array, Array, Array]:
    """Return (amplification, low, high) for n_eff times unbiased mean squares of F_gen - F_ref.

    `variance` is their linearised variance, of the same shape; `confidence` as above.
    """
    square = np.asarray(square, dtype=np.float64)
    alpha, lower_tail = _tails(confidence, MEAN_SQUARE)
    with_noise = np.maximum(square + MEAN_SQUARE, 1e-6)
    rho = np.asarray(variance) / 4 / with_noise
    if confidence is None:
        rho = np.maximum(rho, LARGEST_RHO)
    else:
        rho = rho + np.minimum(MEAN_SQUARE / with_noise, 1.0) * (LARGEST_RHO - rho)
    rest = (
        square[..., np.newaxis]
        + np.maximum(rho, MEAN_SQUARE)[..., np.newaxis]
        - np.multiply.outer(np.maximum(1 - rho / MEAN_SQUARE, 0.0), _null_squares())
    )
    root, width = np.sqrt(np.maximum(rest, 0.0)), np.sqrt(rho)[..., np.newaxis]
    never_below = cramer_von_mises_cdf(with_noise)  # Anderson's inequality

    def cdf(t: Array) -> Array:
        t = t[..., np.newaxis]
        below = np.where(rest > 0, ndtr((root - t) / width) - ndtr((-root - t) / width), 0.0)
        return np.minimum(below.mean(axis=-1), never_below)

    far = np.sqrt(with_noise) + 2 - 2 * np.sqrt(rho) * ndtri(alpha / 4)
    largest = find_root(lambda t: lower_tail(t) - cdf(t), far)
    smallest = find_root(lambda t: 1 - alpha + lower_tail(t) - cdf(t), far)
    smallest = np.where(never_below <= 1 - alpha + lower_tail(0.0 * far), 0.0, smallest)
    return _amplifications(
        MEAN_SQUARE * np.asarray(n_effective) / n_train, np.maximum(square, 0.0), largest, smallest
    )


def _tails(
    confidence: float | None, square: float
) -> tuple[float, Callable[[ArrayLike], ArrayLike]]:
    """Return alpha and its lower part as a function of the signal."""
    if confidence is None:
        return 2 * MISS, lambda t: np.full_like(t, MISS)
    alpha = 1 - confidence
    return alpha, lambda t: alpha / 2 * t**2 / (t**2 + square)


def _amplifications(
    unit: Array, square: Array, largest: Array, smallest: Array
) -> tuple[Array, Array, Array]:
    """Return (amplification, low, high); the interval holds the estimate, whatever chance did."""
    largest = np.maximum(largest, np.sqrt(square))
    smallest = np.minimum(smallest, np.sqrt(square))
    with np.errstate(divide="ignore"):
        return unit / square, unit / largest**2, unit / smallest**2
