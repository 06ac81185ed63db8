"""The unit Gaussian with a fitted mean in closed form: Eqs. 20-30 of paper A. Not for networks.

The "generator" is N(mu_hat, 1), mu_hat the mean of n_train training events from N(0, 1), so that
mu_hat follows N(0, 1/n_train). Everything one may ask about it over intervals [lower, upper] is
known: exactly, by Gauss-Hermite quadrature over mu_hat, or with the paper's linearisation.

Three meanings of sigma_model^2, named by `definition` below:

- "linear": error propagation, Eq. (26).
- "variance": variance of the generator's integral over fits; what a spread of members measures.
- "truth": mean squared deviation from the true integral; the variance plus the squared shift that
  all fits share. What Eq. (11) defines.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Definition = Literal["linear", "variance", "truth"]
# Exact for polynomials in mu_hat up to degree 79; integrals over intervals are smooth in mu_hat.
_N_NODES = 40


def interval_probability(lower: ArrayLike, upper: ArrayLike, *, mean: ArrayLike = 0.0) -> Array:
    """Return the probability of [lower, upper] under N(mean, 1), Eqs. (23) and (25); all broadcast.

    >>> print(f"{interval_probability(0.0, 0.5):.7f}")
    0.1914625
    """
    lower, upper = _edges(lower, upper)
    left, right = lower - mean, upper - mean
    # In the right tail both values of the distribution function are close to 1: mirror it.
    mirror = left > 0
    return np.where(mirror, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))


def interval_probability_slope(
    lower: ArrayLike, upper: ArrayLike, *, mean: ArrayLike = 0.0
) -> Array:
    """Return the derivative of `interval_probability` with respect to the mean, Eq. (25).

    It vanishes for intervals symmetric around the mean.
    """
    lower, upper = _edges(lower, upper)
    return _density(lower - mean) - _density(upper - mean)


def model_variance(
    lower: ArrayLike, upper: ArrayLike, *, n_train: ArrayLike, definition: Definition = "truth"
) -> Array:
    """Return sigma_model^2 of the fitted Gaussian for integrals over [lower, upper]; broadcast."""
    n_train = _positive("n_train", n_train)
    if definition == "linear":
        return interval_probability_slope(lower, upper) ** 2 / n_train
    if definition not in ("variance", "truth"):
        raise ValueError(
            f"`definition` must be 'linear', 'variance' or 'truth', got {definition!r}."
        )
    truth = interval_probability(lower, upper)
    deviation, weight = _fitted(lower, upper, n_train)
    deviation = deviation - truth[..., np.newaxis]
    mean_square = (weight * deviation**2).sum(axis=-1)
    if definition == "truth":
        return mean_square
    return mean_square - (weight * deviation).sum(axis=-1) ** 2


def mean_squared_deviation(
    lower: ArrayLike, upper: ArrayLike, *, n_generated: ArrayLike, n_train: ArrayLike
) -> Array:
    """Return M_I of Eq. (11): how far counted fractions are from the true integral, squared.

    Expectation over training sets and generated events, exact: counting noise of the fitted
    Gaussian plus sigma_model^2 about the truth. All arguments are broadcast.
    """
    n_train = _positive("n_train", n_train)
    fitted, weight = _fitted(lower, upper, n_train)
    counting = (weight * fitted * (1 - fitted)).sum(axis=-1) / _positive("n_generated", n_generated)
    return counting + model_variance(lower, upper, n_train=n_train)


def true_amplification(
    lower: ArrayLike, upper: ArrayLike, *, n_train: ArrayLike, definition: Definition = "truth"
) -> Array:
    """Return the amplification factor of the fitted Gaussian, I(1 - I) / (n_train sigma_model^2).

    Eqs. (4), (12) and (28), without the approximation of a small integral. The definition "linear"
    gives infinity for intervals symmetric around 0. All arguments are broadcast.

    >>> for definition in ("linear", "variance", "truth"):
    ...     print(f"{true_amplification(0.0, 0.5, n_train=1000, definition=definition):.3f}")
    70.447
    70.156
    69.910
    """
    probability = interval_probability(lower, upper)
    variance = model_variance(lower, upper, n_train=n_train, definition=definition)
    with np.errstate(divide="ignore"):
        return probability * (1 - probability) / (n_train * variance)


def _fitted(lower: ArrayLike, upper: ArrayLike, n_train: Array) -> tuple[Array, Array]:
    """Return integrals of fitted Gaussians at the quadrature nodes, (..., nodes), and weights."""
    nodes, weights = hermegauss(_N_NODES)
    lower, upper = (np.asarray(edge, dtype=np.float64)[..., np.newaxis] for edge in (lower, upper))
    means = nodes / np.sqrt(n_train)[..., np.newaxis]
    return interval_probability(lower, upper, mean=means), weights / weights.sum()


def _edges(lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if not np.all(lower < upper):
        raise ValueError(f"`lower` must be below `upper`, got {lower} and {upper}.")
    return lower, upper


def _positive(name: str, number: ArrayLike) -> Array:
    number = np.asarray(number, dtype=np.float64)
    if not np.all(number > 0):
        raise ValueError(f"`{name}` must be positive, got {number}.")
    return number


def _density(x: Array) -> Array:
    return np.exp(-np.square(x) / 2) / np.sqrt(2 * np.pi)
