"""Probabilities of radial regions under a mixture transformer, without drawing events.

What to use when: `region_probabilities` for any number of features, with an error; in two
dimensions `region_probabilities_by_quadrature`, an integral over a fixed grid, checks it.
Not for what follows from them: amplification.averaging_amplification_from_probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import qmc
from torch import Tensor

from genamp_lib.models.mixture_transformer import MixtureTransformer

# Larger than any radius of interest, finite so that float32 can square it.
_FAR = 1e4


@dataclass(frozen=True)
class RegionProbabilities:
    """I(V | theta) of each member, Eq. (9) of paper A, known without drawing events.

    Attributes:
        probabilities: Shape (n_members, n_regions), float64.
        errors: Standard errors from the spread of the scrambles, shape (n_members, n_regions). The
            points are the same for all members, so that the members' errors go together.
    """

    probabilities: np.ndarray = field(repr=False)
    errors: np.ndarray = field(repr=False)

    def __repr__(self) -> str:
        n_members, n_regions = self.probabilities.shape
        return (
            f"RegionProbabilities({n_members} members, {n_regions} regions, "
            f"errors up to {self.errors.max():.1e})"
        )


@torch.no_grad()
def region_probabilities(
    model: MixtureTransformer,
    edges: ArrayLike,
    *,
    n_points: int = 1024,
    n_scrambles: int = 8,
    seed: int = 0,
) -> RegionProbabilities:
    """Return the probabilities of the regions edges[i] <= R < edges[i + 1].

    The last feature is integrated in closed form: given the others, R below r means that it lies
    between -h and h, h^2 = r^2 minus their squares, with normal distribution functions for each
    component of its mixture. The others come from the network's own conditionals at the points of
    scrambled Sobol sequences, one number per feature. The integrand is continuous in them, so that
    the error falls faster than that of sampled events.

    Args:
        model: The networks.
        edges: Radii, increasing from at least 0; the last may be infinite. Shape (n_regions + 1,).
        n_points: Points per scramble, a power of two.
        n_scrambles: Independently scrambled sequences, at least 2: their spread is the error.
        seed: Of the scrambles.

    Raises:
        ValueError: An argument is out of range, or the network has a single feature.

    >>> from genamp_lib.models.mixture_transformer import (
    ...     MixtureTransformerSettings, starting_parameters)
    >>> settings = MixtureTransformerSettings(2)
    >>> model = MixtureTransformer(settings, starting_parameters(settings, seeds=[1, 2]))
    >>> result = region_probabilities(model, [0.0, 1.0, np.inf])
    >>> result.probabilities.shape, bool(result.errors.max() < 1e-3)
    ((2, 2), True)
    """
    squares = torch.from_numpy(np.minimum(_check_edges(edges), _FAR) ** 2).float()
    n_others = model.settings.n_features - 1
    if n_others < 1:
        raise ValueError("`model` must have at least 2 features, got 1.")
    if n_points < 1 or n_points & (n_points - 1):
        raise ValueError(f"`n_points` must be a power of two, got {n_points}.")
    if n_scrambles < 2:
        raise ValueError(f"`n_scrambles` must be at least 2, got {n_scrambles}.")
    means = []
    for scramble in np.random.SeedSequence(seed).spawn(n_scrambles):
        rng = np.random.default_rng(scramble)
        points = torch.from_numpy(qmc.Sobol(n_others, rng=rng).random(n_points)).float()
        total = torch.zeros(len(squares), model.n_members, dtype=torch.float64)
        for chunk in points.split(model.chunk()):
            total += _below(model, chunk, squares).double().sum(2)
        means.append(torch.diff(total.T / n_points, dim=1).numpy())
    scrambles = np.stack(means)
    return RegionProbabilities(scrambles.mean(0), scrambles.std(0, ddof=1) / np.sqrt(n_scrambles))


@torch.no_grad()
def region_probabilities_by_quadrature(
    model: MixtureTransformer,
    edges: ArrayLike,
    *,
    n_radial: int = 12,
    n_angular: int = 512,
    largest_step: float = 0.2,
) -> np.ndarray:
    """Return the same in two dimensions by quadrature in polar coordinates.

    Gauss-Legendre points in R within each region, which is divided into steps where it is wide,
    and even points in the angle. A last region without an end is what the others leave of 1, so
    that this does not check the norm of the density; the other regions do.

    Args:
        model: The networks, of two features.
        edges: As in `region_probabilities`.
        n_radial: Radial points per step.
        n_angular: Points on the circle.
        largest_step: Of R.

    Returns:
        Shape (n_members, n_regions), float64.

    Raises:
        ValueError: `edges` is out of range, or the network has another number of features.
    """
    edges = _check_edges(edges)
    if model.settings.n_features != 2:
        raise ValueError(f"`model` must have 2 features, got {model.settings.n_features}.")
    nodes, node_weights = np.polynomial.legendre.leggauss(n_radial)
    angles = 2 * np.pi * (np.arange(n_angular) + 0.5) / n_angular
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    columns = []
    for low, high in pairwise(edges[np.isfinite(edges)]):
        steps = np.linspace(low, high, 1 + int(np.ceil((high - low) / largest_step)))
        half, middle = np.diff(steps)[:, None] / 2, (steps[1:] + steps[:-1])[:, None] / 2
        radii, lengths = (middle + half * nodes).ravel(), (half * node_weights).ravel()
        points = torch.from_numpy(radii[:, None, None] * directions).float().flatten(0, 1)
        density = model.log_prob(points).double().exp().reshape(model.n_members, len(radii), -1)
        columns.append(density.mean(2).numpy() @ (2 * np.pi * radii * lengths))
    if np.isinf(edges[-1]):
        whole = np.ones(model.n_members)
        if edges[0] > 0:
            whole -= region_probabilities_by_quadrature(model, [0.0, edges[0]])[:, 0]
        columns.append(whole - np.sum(columns, axis=0))
    return np.stack(columns, axis=1)


def _below(model: MixtureTransformer, points: Tensor, squares: Tensor) -> Tensor:
    """Return P(R^2 < squares) given all features but the last, (n_edges, n_members, n_points)."""
    decoder, values, others = model.decoder(), None, torch.zeros(())
    for column in points.T:
        values = decoder(values).sample(column[None])
        others = others + values.square()
    half_widths = (squares[:, None, None] - others).clamp(min=0.0).sqrt()
    return decoder(values).probability_within(list(half_widths))


def _check_edges(edges: ArrayLike) -> np.ndarray:
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] < 0:
        raise ValueError(
            f"`edges` must be at least 2 increasing radii, none negative, got {edges}."
        )
    return edges
