"""Gaussian rings, the toy data of paper A (Sec. 2), in closed form. Not for fitting them: models.

Eq. (5): the radius follows N(1, 0.1^2), the angles are flat, events are Cartesian coordinates. In
more than two dimensions "flat" has two meanings, and they are different densities:

- "flat": each polar angle is uniform, phi_1 ... phi_(d-2) in [0, pi] and phi_(d-1) in [0, 2 pi].
  The density peaks at the poles, where the Jacobian of the angles vanishes.
- "sphere": the direction is uniform on the sphere.

A negative radius, of probability 8e-24, is the same event as the positive one in the opposite
direction: R below is always the length of the vector, its law the normal one folded at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma, log, pi
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]
Angles = Literal["flat", "sphere"]
RADIUS_MEAN = 1.0
RADIUS_SIGMA = 0.1


def radius(features: ArrayLike) -> Array:
    """Return the radius R of events, shape (...), from Cartesian coordinates (..., n_features).

    >>> radius([[3.0, 4.0], [0.0, -1.0]])
    array([5., 1.])
    """
    return np.linalg.norm(np.asarray(features, dtype=np.float64), axis=-1)


@dataclass(frozen=True)
class Ring:
    """The Gaussian ring in `n_features` dimensions, Eq. (5) of paper A.

    >>> ring = Ring(2)
    >>> events = ring.sample(1000, seed=1)
    >>> events.shape, round(radius(events).mean(), 2)
    ((1000, 2), np.float64(0.99))
    >>> print(f"{ring.log_prob([[1.0, 0.0]])[0]:.4f}")
    -0.4542
    """

    n_features: int  # at least 2
    angles: Angles = "flat"  # the same thing as "sphere" in two dimensions

    def __post_init__(self) -> None:
        if self.n_features < 2:
            raise ValueError(f"`n_features` must be at least 2, got {self.n_features}.")
        if self.angles not in ("flat", "sphere"):
            raise ValueError(f"`angles` must be 'flat' or 'sphere', got {self.angles!r}.")

    def sample(self, n_events: int, *, seed: int | np.random.Generator) -> Array:
        """Draw events: Cartesian coordinates, shape (n_events, n_features), float64."""
        if n_events < 0:
            raise ValueError(f"`n_events` must not be negative, got {n_events}.")
        rng = np.random.default_rng(seed)
        radii = rng.normal(RADIUS_MEAN, RADIUS_SIGMA, n_events)
        return radii[:, np.newaxis] * self._directions(n_events, rng)

    def log_prob(self, features: ArrayLike) -> Array:
        """Return the log of the density, shape (...), in Cartesian coordinates (..., n_features).

        It is log p_R(R) minus the log of the Jacobian, R^(d-1) times that of the angles: the area
        of the unit sphere for "sphere", 2 pi^(d-1) prod_i sin(phi_i)^(d-1-i) for "flat". It is
        infinite at the origin and, for "flat" angles, on the poles.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim < 1 or features.shape[-1] != self.n_features:
            raise ValueError(
                f"`features` must be (..., {self.n_features}), got shape {features.shape}."
            )
        d = self.n_features
        # Length of the vector without its first i coordinates, i = 0 ... d-2.
        squares = np.square(features)[..., ::-1].cumsum(axis=-1)[..., ::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_lengths = 0.5 * np.log(squares[..., : d - 1])
            log_r = log_lengths[..., 0]
            jacobian = (d - 1) * log_r
            if self.angles == "sphere":
                jacobian += log(2 * pi ** (d / 2) / gamma(d / 2))
            else:
                jacobian += log(2 * pi ** (d - 1))
                for i in range(1, d - 1):  # sin(phi_i) is a ratio of successive lengths
                    log_sine = log_lengths[..., i] - log_lengths[..., i - 1]
                    jacobian += (d - 1 - i) * log_sine
            # On a pole a later sine is 0/0; the density diverges there for every value of it.
            return np.where(np.isnan(jacobian), np.inf, _log_radial_density(log_r) - jacobian)

    def radial_cdf(self, radii: ArrayLike) -> Array:
        """Return the probability of a radius below each of `radii`, for any dimension."""
        radii = np.maximum(np.asarray(radii, dtype=np.float64), 0.0)
        above, below = (radii - RADIUS_MEAN) / RADIUS_SIGMA, (-radii - RADIUS_MEAN) / RADIUS_SIGMA
        return ndtr(above) - ndtr(below)

    def radial_edges(self, n_regions: int = 20) -> Array:
        """Return the edges, from 0 to infinity, of radial regions of equal probability, Sec. 3.3.

        Region number i of the paper, counted from 1, is [edges[i-1], edges[i]).

        >>> print(Ring(2).radial_edges(4).round(4))
        [0.     0.9326 1.     1.0674    inf]
        """
        if n_regions < 1:
            raise ValueError(f"`n_regions` must be positive, got {n_regions}.")
        # The folding moves no quantile by more than 1e-23.
        inner = RADIUS_MEAN + RADIUS_SIGMA * ndtri(np.arange(1, n_regions) / n_regions)
        return np.concatenate([[0.0], inner, [np.inf]])

    def _directions(self, n_events: int, rng: np.random.Generator) -> Array:
        """Return unit vectors, shape (n_events, n_features)."""
        if self.angles == "sphere":
            vectors = rng.standard_normal((n_events, self.n_features))
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        angles = rng.uniform(0.0, pi, (n_events, self.n_features - 1))
        angles[:, -1] *= 2
        # cos phi_1, sin phi_1 cos phi_2, ..., sin phi_1 ... sin phi_(d-1)
        ones = np.ones((n_events, 1))
        sines = np.cumprod(np.concatenate([ones, np.sin(angles)], axis=1), axis=1)
        return sines * np.concatenate([np.cos(angles), ones], axis=1)


def _log_radial_density(log_r: Array) -> Array:
    """Log density of R: the normal density at R plus that at -R."""
    r = np.exp(log_r)
    up, down = ((sign * r - RADIUS_MEAN) / RADIUS_SIGMA for sign in (1, -1))
    return np.logaddexp(-0.5 * up**2, -0.5 * down**2) - 0.5 * log(2 * pi) - log(RADIUS_SIGMA)
