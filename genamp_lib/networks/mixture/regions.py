"""Fit many networks and keep what they say on radial regions, instead of the networks.

A study over many training sets needs thousands of networks once, and of each of them twenty
numbers. What to use when: `fit_region_probabilities` for integrals without events;
`generated_region_counts` for counts of generated events over n_generated. Networks that are looked
at again are kept by `training.ensemble.fit_ensembles`. Not for what follows: amplification.

Probabilities of radial regions under a mixture transformer, without drawing events.

What to use when: `region_probabilities` for any number of features, with an error; in two
dimensions `region_probabilities_by_quadrature`, an integral over a fixed grid, checks it.
Not for what follows from them: amplification.averaging_amplification_from_probabilities.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc
from torch import Tensor

from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.mixture.ensemble import (
    CODE_VERSION,
    EnsembleFit,
    EnsembleTask,
    fit_ensemble,
    stage_of_tasks,
)
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.sharing import map_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage

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

    >>> from genamp_lib.networks.mixture.transformer import (
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


# Part of every artefact's key: raise it when the code here changes the numbers.
_VERSION = 2
# Events of all members generated at a time.
_CHUNK = 1_000_000


def fit_region_probabilities(
    tasks: Sequence[EnsembleTask],
    edges: ArrayLike,
    *,
    n_draws: int = 50,
    n_points: int = 1024,
    n_scrambles: int = 8,
    jobs: int | None = None,
    scheduler: str | None = None,
    store: ArtefactStore | None = None,
    name: str = "",
    label: str = "",
) -> RegionProbabilities:
    """Fit ensembles and return the probabilities of radial regions under their networks.

    Args:
        tasks: What to fit; about 40 members each use a core best. Give each its own seed.
        edges: Radii, increasing from at least 0; the last may be infinite. Shape (n_regions + 1,).
        n_draws: Draws from the posterior of each Bayesian network; plain ones count once.
        n_points: Points of the integral per scramble, see `models.region_probabilities`.
        n_scrambles: Scrambles of the points.
        jobs: Processes that share the tasks.
        scheduler: Address of a Dask scheduler to share them with instead. If both are None, it is
            what `genamp run` was given, one process without it.
        store: Where the probabilities are kept, as one artefact. Until it is complete the states of
            the trainings are kept beside it, so that a killed run continues. None keeps nothing.
        name: Of the artefact, with `store`; its key covers tasks, edges and settings.
        label: What the progress line calls the work; no line when empty.

    Returns:
        Tables (n_networks, n_regions): the members of the first task, each with its draws, then
        those of the next.

    Raises:
        ValueError: Only one of `store` and `name` is given, there is no task, or an argument is
            out of range.
        GenampError: A loss is not finite, or an artefact is damaged.

    >>> from genamp_lib.datasets import Ring
    >>> from genamp_lib.networks.mixture.ensemble import (
    ...     EnsembleSettings, EnsembleTask, MixtureTransformerSettings)
    >>> events = Ring(2).sample(300, seed=1).reshape(3, 100, 2)
    >>> task = EnsembleTask(events, seed=1, network=MixtureTransformerSettings(2),
    ...                     training=EnsembleSettings(n_steps=2))
    >>> fit_region_probabilities([task], Ring(2).radial_edges(), n_points=64).probabilities.shape
    (3, 20)
    """
    if (store is None) != (not name):
        raise ValueError("`store` and `name` must be given together, got only one of them.")
    if not tasks:
        raise ValueError("`tasks` must not be empty, got none.")
    if n_draws < 1:
        raise ValueError(f"`n_draws` must be positive, got {n_draws}.")
    radii = np.asarray(edges, dtype=np.float64)
    settings = {"n_draws": n_draws, "n_points": n_points, "n_scrambles": n_scrambles}

    def compute(folder: Path | None) -> Arrays:
        function = partial(_probabilities_of_fit, folder, radii, settings)
        numbered = list(enumerate(tasks))
        parts = map_tasks(function, numbered, **sharing(jobs, scheduler), label=label)
        return {
            "probabilities": np.concatenate([part.probabilities for part in parts]),
            "errors": np.concatenate([part.errors for part in parts]),
        }

    if store is None:
        return RegionProbabilities(**compute(None))
    stage = stage_of_tasks(
        name,
        tasks,
        version=_VERSION,
        fit_version=CODE_VERSION,
        edges=[repr(edge) for edge in radii.tolist()],
        **settings,
    )
    folder = store.local / f"{name}-{stage.key}-checkpoints"
    arrays = store.load_or_compute(stage, lambda: compute(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return RegionProbabilities(**arrays)


def generated_region_counts(
    model: MixtureTransformer,
    edges: ArrayLike,
    sizes: Sequence[int],
    *,
    seed: int,
    store: ArtefactStore | None = None,
    name: str = "",
) -> NDArray[np.int64]:
    """Generate events and count them in radial regions, at growing numbers of events.

    Sizes are nested: the counts at one of them hold the events of those before.

    Args:
        model: The networks.
        edges: As in `fit_region_probabilities`.
        sizes: Increasing numbers of events per network.
        seed: Of the events.
        store: Where the counts are kept; None keeps nothing.
        name: Of the artefact, with `store`.

    Returns:
        Shape (n_sizes, n_members, n_regions).

    Raises:
        ValueError: Only one of `store` and `name` is given, or `sizes` do not increase from 1.

    >>> from genamp_lib.networks.mixture.transformer import (
    ...     MixtureTransformerSettings, starting_parameters)
    >>> network = MixtureTransformerSettings(2)
    >>> model = MixtureTransformer(network, starting_parameters(network, seeds=[1, 2, 3]))
    >>> generated_region_counts(model, [0.0, 1.0, np.inf], [10, 100], seed=1).sum(axis=2).tolist()
    [[10, 10, 10], [100, 100, 100]]
    """
    if (store is None) != (not name):
        raise ValueError("`store` and `name` must be given together, got only one of them.")
    sizes = [int(size) for size in sizes]
    if not sizes or (np.diff([0, *sizes]) <= 0).any():
        raise ValueError(f"`sizes` must increase from at least 1, got {sizes}.")
    radii = np.asarray(edges, dtype=np.float64)

    def compute() -> Arrays:
        with _one_thread():
            return {"counts": _count(model, radii, sizes, seed)}

    if store is None:
        return compute()["counts"]
    parameters = np.ascontiguousarray(model.parameters.numpy(), dtype="<f4")
    stage = Stage(
        name,
        version=_VERSION,
        configuration={
            "network": repr(model.settings),
            "edges": [repr(edge) for edge in radii.tolist()],
            "sizes": sizes,
            "seed": seed,
        },
        inputs={"parameters": hashlib.sha256(parameters).hexdigest()},
    )
    return store.load_or_compute(stage, compute)["counts"]


def _probabilities_of_fit(
    folder: Path | None,
    edges: NDArray[np.float64],
    settings: dict[str, int],
    numbered: tuple[int, EnsembleTask],
) -> RegionProbabilities:
    number, task = numbered
    checkpoint = None if folder is None else folder / f"{number}.safetensors"
    fit = fit_ensemble(task, checkpoint=checkpoint)
    with _one_thread():
        return _probabilities(fit, task.seed, edges, settings)


def _probabilities(
    fit: EnsembleFit, seed: int, edges: NDArray[np.float64], settings: dict[str, int]
) -> RegionProbabilities:
    model = fit.model
    if fit.posterior is not None:
        generator = torch.Generator().manual_seed(seed)
        model = fit.posterior.draw(settings["n_draws"], generator=generator)
    n_points, n_scrambles = settings["n_points"], settings["n_scrambles"]
    # Few networks at a time: their intermediate results stay in the cache.
    parts = [
        region_probabilities(
            model.members(slice(first, first + 50)),
            edges,
            n_points=n_points,
            n_scrambles=n_scrambles,
        )
        for first in range(0, model.n_members, 50)
    ]
    return RegionProbabilities(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.errors for part in parts]),
    )


def _count(
    model: MixtureTransformer, edges: NDArray[np.float64], sizes: Sequence[int], seed: int
) -> NDArray[np.int64]:
    generator = torch.Generator().manual_seed(seed)
    counts = np.zeros((len(sizes), model.n_members, len(edges) - 1), dtype=np.int64)
    chunk = max(1, _CHUNK // model.n_members)
    done = 0
    for row, size in enumerate(sizes):
        if row:
            counts[row] = counts[row - 1]
        while done < size:
            n_events = min(chunk, size - done)
            radii = model.sample(n_events, generator=generator).double().norm(dim=2).numpy()
            for member, values in enumerate(radii):
                counts[row, member] += np.histogram(values, edges)[0]
            done += n_events
    return counts


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads than on one."""
    with one_thread():
        yield
