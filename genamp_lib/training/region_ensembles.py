"""Fit many networks and keep what they say on radial regions, instead of the networks.

A study over many training sets needs thousands of networks once, and of each of them twenty
numbers. What to use when: `fit_region_probabilities` for integrals without events;
`generated_region_counts` for counts of generated events over n_generated. Networks that are looked
at again are kept by `training.ensemble.fit_ensembles`. Not for what follows: amplification.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from genamp_lib._parallel import map_tasks, sharing
from genamp_lib.models.mixture_transformer import MixtureTransformer
from genamp_lib.models.region_probabilities import RegionProbabilities, region_probabilities
from genamp_lib.training._threads import one_thread
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.ensemble import EnsembleFit, fit_ensemble
from genamp_lib.training.ensemble_task import CODE_VERSION, EnsembleTask, stage_of_tasks

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
    >>> from genamp_lib.training.ensemble import (
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

    >>> from genamp_lib.models.mixture_transformer import (
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
