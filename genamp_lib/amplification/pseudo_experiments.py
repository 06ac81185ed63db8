"""Toy ensembles and distances with a known true amplification. Not for estimating it.

Members are arrays of exact probabilities, (n_experiments, n_members, n_regions); generators are
distribution functions over the truth's quantiles u.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]

# Correlated regions hold this much of the truth each.
REGION_INTEGRAL = 0.03


def truth_quantiles(n_regions: int) -> Array:
    """Return n_regions + 1 edges of regions that hold equal parts of a unit Gaussian."""
    return ndtri(np.arange(n_regions + 1) / n_regions)


def fitted_regions(
    rng: np.random.Generator,
    n_experiments: int,
    n_members: int,
    *,
    edges: ArrayLike,
    n_train: int,
    fit_width: bool = False,
) -> Array:
    """Return probabilities of adjacent regions for Gaussians fitted to n_train true events each.

    The truth is a unit Gaussian; members have independent training sets, and their width is fitted
    by maximum likelihood where `fit_width` says so. `edges` has shape (n_regions + 1,).
    """
    shape = (n_experiments, n_members, 1)
    mean = rng.normal(size=shape) / math.sqrt(n_train)
    width = np.sqrt(rng.chisquare(n_train - 1, size=shape) / n_train) if fit_width else 1.0
    return np.diff(ndtr((np.asarray(edges, dtype=np.float64) - mean) / width), axis=-1)


def correlated_regions(
    rng: np.random.Generator,
    n_experiments: int,
    n_members: int,
    *,
    n_regions: int,
    correlation: float,
    amplification: float,
    n_train: int,
) -> Array:
    """Return probabilities of regions whose integrals are correlated with their neighbours'.

    Gaussian integrals around 0.03 with equal variance; regions k apart have the correlation
    `correlation`^k. Integrals are cut at 0 and where they would add up to more than one.

    >>> rng = np.random.default_rng(1)
    >>> table = correlated_regions(
    ...     rng, 4, 500, n_regions=18, correlation=0.97, amplification=5.0, n_train=1000
    ... )
    >>> round(float(np.corrcoef(table.reshape(-1, 18).T)[0, 1]), 2)
    0.97
    """
    sigma = math.sqrt(REGION_INTEGRAL * (1 - REGION_INTEGRAL) / (n_train * amplification))
    steps = rng.normal(size=(n_regions, n_experiments, n_members))
    # First order autoregression over the regions.
    for k in range(1, n_regions):
        steps[k] = correlation * steps[k - 1] + math.sqrt(1 - correlation**2) * steps[k]
    shifts = np.moveaxis(steps, 0, -1)
    return np.clip(REGION_INTEGRAL + sigma * shifts, 1e-6, 1 / n_regions)


def counted_fractions(rng: np.random.Generator, probabilities: Array, n_generated: int) -> Array:
    """Return fractions of n_generated events in regions of probabilities (..., n_regions)."""
    rest = np.clip(1 - probabilities.sum(axis=-1, keepdims=True), 0.0, 1.0)
    everything = np.concatenate([probabilities, rest], axis=-1)
    return rng.multinomial(n_generated, everything)[..., :-1] / n_generated


def shifted(u: Array, size: float) -> Array:
    """Distribution function of a Gaussian moved by `size` widths, at the truth's quantiles."""
    return ndtr(ndtri(u) - size)


def widened(u: Array, size: float) -> Array:
    """Distribution function of a Gaussian wider by the factor 1 + `size`."""
    return ndtr(ndtri(u) / (1 + size))


def missing_edge(u: Array, size: float) -> Array:
    """The lowest events, a fraction `size`, are missing and sit at the other edge instead."""
    return np.where(u > 1 - size, u, np.maximum(u - size, 0.0))


def misplaced_peak(u: Array, size: float) -> Array:
    """A narrow peak in the middle, a fraction `size` of all events, is out of place."""
    return u + size * (np.abs(u - 0.5) < 0.01)


def deformation_size(family: Callable[[Array, float], Array], largest_difference: float) -> float:
    """Return the size at which a distribution function is off by a difference below 0.4."""
    grid = np.linspace(0, 1, 20_001)[1:-1]
    return float(
        brentq(lambda s: np.abs(family(grid, s) - grid).max() - largest_difference, 1e-9, 0.5)
    )


def mean_square_difference(family: Callable[[Array, float], Array], size: float) -> float:
    """Return the integral over the truth of the squared difference of distribution functions."""
    grid = (np.arange(200_000) + 0.5) / 200_000
    return float(((family(grid, size) - grid) ** 2).mean())


def distances_of(generated_cdf: Array) -> Array:
    """Return Kolmogorov-Smirnov distances of samples to a known generator.

    From its distribution function at the samples' sorted events, (n_experiments, n_reference).
    """
    n = generated_cdf.shape[-1]
    j = np.arange(n)
    above, below = (j + 1) / n - generated_cdf, generated_cdf - j / n
    return np.maximum(above, below).max(axis=-1)
