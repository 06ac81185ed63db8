"""Probabilities of radial regions under mixture transformers, and counts of generated events.

What to use when: `region_probabilities` for integrals without events, with an error;
`fit_region_probabilities` for many training sets, whose networks are not kept;
`generated_region_counts` for counts over n_generated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc
from torch import Tensor

from genamp_lib.dry_run import first_steps
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.mixture.ensemble import (
    CODE_VERSION,
    EnsembleFit,
    EnsembleTask,
    combine_fits,
    concatenated,
)
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.store import Arrays, ArtefactStore, Stage

# Part of every artefact's key: raise it when the code here changes the numbers.
_VERSION = 2
# Larger than any radius of interest, finite so that float32 can square it.
_FAR = 1e4
# Networks at a time whose regions are integrated: their intermediate results stay in the cache.
_N_AT_ONCE = 50
# Events of all members generated at a time.
_CHUNK = 1_000_000


@dataclass(frozen=True)
class RegionProbabilities:
    """I(V | theta) of each member, Eq. (9) of paper A, known without drawing events.

    Both arrays are (n_members, n_regions). Errors are those of the scrambles' mean; the points are
    the same for all members, so that the members' errors go together.
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
    """Return the probabilities of the regions edges[i] <= R < edges[i + 1], n_regions + 1 radii.

    The last feature is integrated in closed form: given the others, R below r means that it lies
    between -h and h, h^2 = r^2 minus their squares, with normal distribution functions for each
    component of its mixture. The others come from the network's own conditionals at the points of
    scrambled Sobol sequences, one number per feature, `n_points`, a power of two, for each
    scramble. The integrand is continuous in them, so that the error falls faster than that of
    sampled events; the spread of the scrambles tells it.
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
    for scramble in first_steps(np.random.SeedSequence(seed).spawn(n_scrambles)):
        rng = np.random.default_rng(scramble)
        points = torch.from_numpy(qmc.Sobol(n_others, rng=rng).random(n_points)).float()
        total = torch.zeros(len(squares), model.n_members, dtype=torch.float64)
        for chunk in points.split(model.chunk()):
            total += _below(model, chunk, squares).double().sum(2)
        means.append(torch.diff(total.T / n_points, dim=1).numpy())
    scrambles = np.stack(means)
    return RegionProbabilities(scrambles.mean(0), scrambles.std(0, ddof=1) / np.sqrt(n_scrambles))


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


def fit_region_probabilities(
    tasks: Sequence[EnsembleTask],
    edges: ArrayLike,
    *,
    n_draws: int = 50,
    n_points: int = 1024,
    n_scrambles: int = 8,
    store: ArtefactStore,
    name: str,
) -> RegionProbabilities:
    """Fit ensembles and return the probabilities of radial regions under their networks.

    The table has the members of the first task, each with its `n_draws` draws from the posterior if
    it is Bayesian, then those of the next. The probabilities are kept as one artefact; until it is
    complete the states of the trainings lie beside it, so that a killed run continues.
    """
    if not tasks:
        raise ValueError("`tasks` must not be empty, got none.")
    if n_draws < 1:
        raise ValueError(f"`n_draws` must be positive, got {n_draws}.")
    radii = _check_edges(edges)
    points = {"n_points": n_points, "n_scrambles": n_scrambles}
    arrays = combine_fits(
        name,
        tasks,
        partial(_probabilities, radii, n_draws, points),
        store=store,
        version=_VERSION,
        fit_version=CODE_VERSION,
        edges=_texts(radii),
        n_draws=n_draws,
        **points,
    )
    return RegionProbabilities(**arrays)


def generated_region_counts(
    model: MixtureTransformer,
    edges: ArrayLike,
    sizes: Sequence[int],
    *,
    seed: int,
    store: ArtefactStore,
    name: str,
) -> NDArray[np.int64]:
    """Generate events and count them in radial regions, (n_sizes, n_members, n_regions).

    Sizes are increasing numbers of events per network, and nested: the counts at one of them hold
    the events of those before.
    """
    sizes = [int(size) for size in sizes]
    if not sizes or (np.diff([0, *sizes]) <= 0).any():
        raise ValueError(f"`sizes` must increase from at least 1, got {sizes}.")
    radii = _check_edges(edges)
    stage = Stage(
        name,
        version=_VERSION,
        configuration={
            "network": repr(model.settings),
            "edges": _texts(radii),
            "sizes": sizes,
            "seed": seed,
        },
        inputs={"parameters": hashlib.sha256(model.identity).hexdigest()},
    )
    return store.compute(stage, partial(_counts, radii, sizes, seed), model)["counts"]


def _texts(edges: np.ndarray) -> list[str]:
    """JSON knows no infinity."""
    return [repr(edge) for edge in edges.tolist()]


def _probabilities(
    edges: np.ndarray,
    n_draws: int,
    points: dict[str, int],
    fit: EnsembleFit,
    task: EnsembleTask,
) -> Arrays:
    model = fit.model
    if fit.posterior is not None:
        generator = torch.Generator().manual_seed(task.seed)
        model = fit.posterior.draw(n_draws, generator=generator)
    slices = (slice(first, first + _N_AT_ONCE) for first in range(0, model.n_members, _N_AT_ONCE))
    parts = [region_probabilities(model.members(some), edges, **points) for some in slices]
    return concatenated([vars(part) for part in parts])


def _counts(
    edges: np.ndarray, sizes: Sequence[int], seed: int, model: MixtureTransformer
) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    counts = np.zeros((len(sizes), model.n_members, len(edges) - 1), dtype=np.int64)
    chunk = max(1, _CHUNK // model.n_members)
    done = 0
    with one_thread():
        for row, size in enumerate(sizes):
            if row:
                counts[row] = counts[row - 1]
            while done < size:
                n_events = min(chunk, size - done)
                radii = model.sample(n_events, generator=generator).double().norm(dim=2).numpy()
                for member, values in enumerate(radii):
                    counts[row, member] += np.histogram(values, edges)[0]
                done += n_events
    return {"counts": counts}
