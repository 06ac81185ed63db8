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

from genamp_lib.amplification._bridge import KOLMOGOROV_MEAN, amplification_intervals

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


def verdict_probabilities(
    ratios: ArrayLike,
    amplifications: ArrayLike,
    *,
    n_generated_ratio: float = math.inf,
    n_experiments: int = 2000,
    seed: int = 1,
) -> Array:
    """Return how often a holdout shows that a generator amplifies, and that it does not.

    The differential verdict on a continuous statistic of large samples; else it is "undecided". The
    difference of the distribution functions is a Brownian bridge plus a signal, here that of
    `shifted`. Only ratios of sizes matter.

    Args:
        ratios: Holdout events over training events, of any shape.
        amplifications: True G, shape (n_amplifications,); infinite for a perfect generator.
        n_generated_ratio: Generated events over holdout events.
        n_experiments: Number of simulated experiments; all cases share their random numbers.
        seed: Seed of the experiments.

    Returns:
        Probabilities of "amplifies" and "does not amplify", (*ratios.shape, n_amplifications, 2).

    Raises:
        ValueError: A ratio or an amplification is not positive.

    >>> equal, larger = verdict_probabilities([1, 100], [3])
    >>> equal.round(1).tolist(), larger.round(1).tolist()  # too small to show a G of 3; not so
    ([[0.0, 0.0]], [[1.0, 0.0]])
    """
    ratios, amplifications = np.asarray(ratios, np.float64), np.asarray(amplifications, np.float64)
    for name, values in (("ratios", ratios), ("amplifications", amplifications)):
        if not (values > 0).all():
            raise ValueError(f"`{name}` must be positive, got {values.min():g}.")
    sizes = ratios[..., np.newaxis] / (1 + 1 / n_generated_ratio)  # n_eff/n_train
    rng, u = np.random.default_rng(seed), np.linspace(0, 1, 65)
    walk = np.cumsum(rng.normal(size=(n_experiments, 65)) / 8, axis=1)
    walk -= walk[:, :1]
    bridge = walk - u * walk[:, -1:]
    spread = -np.log(rng.random((n_experiments, 64))) / 32  # of extremes between two of its points
    signal = np.exp(-(ndtri(u) ** 2) / 2)
    strengths, case = np.unique((sizes / amplifications).round(12), return_inverse=True)
    distances = np.empty((len(strengths), n_experiments))
    for strength, x in zip(strengths, distances, strict=True):
        path = bridge + KOLMOGOROV_MEAN * math.sqrt(strength) * signal
        middle, half = path[:, 1:] + path[:, :-1], np.sqrt(np.diff(path) ** 2 + spread)
        x[:] = np.maximum(half + middle, half - middle).max(axis=1) / 2
    # The distances at which a limit of G is 1; limits are those of n_eff = n_train, times n_eff.
    grid = np.geomspace(1e-2, 1e4, 4000)
    _, low, high = amplification_intervals(grid, n_effective=1.0, n_train=1, confidence=None)
    nearest, farthest = (
        np.interp(sizes, 1 / limit, grid)[..., np.newaxis] for limit in (low, high)
    )
    x = distances[case.reshape(np.broadcast_shapes(sizes.shape, amplifications.shape))]
    return np.stack([(x < nearest).mean(axis=-1), (x > farthest).mean(axis=-1)], axis=-1)
