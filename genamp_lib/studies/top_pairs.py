"""The generators of top pairs that chapters use: which events, which set-up, how many of them.

What was tried before these settings were chosen: the page "How good are the top-pair generators?".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from genamp_lib._project import project_root
from genamp_lib.datasets import load_top_pairs
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.architectures import Architecture, VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import (
    Generator,
    fit_members,
    generator_of,
    member_tasks,
    read_generator_arrays,
)
from genamp_lib.sharing import finished_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage

STAGE = "top-pair-generator"
# Part of every artefact's key: raise it when the code of a training changes its numbers.
CODE_VERSION = 1
# Generators of each architecture that are kept in the repository.
N_KEPT = 10
# Steps of 512 events that take a core five minutes.
STEPS: dict[Architecture, int] = {"transformer": 6_000, "lgatr-slim": 3_400, "lloca": 2_200}


class Division(NamedTuple):
    """Events by their place in the file; each part has shape (n, n_particles, 4).

    Attributes:
        train: For trials of set-ups.
        holdout: What trials are compared with.
        spent_holdout: What earlier set-ups were compared with; no longer for judging.
        fresh_train: What the chosen set-up is fitted to.
        fresh_holdout: What it is compared with, once.
    """

    train: NDArray[np.float64]
    holdout: NDArray[np.float64]
    spent_holdout: NDArray[np.float64]
    fresh_train: NDArray[np.float64]
    fresh_holdout: NDArray[np.float64]


def divide(momenta: ArrayLike, *, n_train: int = 20_000, n_holdout: int = 20_000) -> Division:
    """Divide a sample of top pairs into parts for a search and for its result.

    Args:
        momenta: Shape (n, n_particles, 4).
        n_train: Events of each training set.
        n_holdout: Events of each holdout.

    Raises:
        ValueError: There are not that many events.

    >>> [len(part) for part in divide(np.zeros((100, 6, 4)), n_train=20, n_holdout=10)]
    [20, 10, 10, 20, 10]
    """
    momenta = np.asarray(momenta, dtype=np.float64)
    if n_train < 1 or n_holdout < 1 or 2 * n_train + 3 * n_holdout > len(momenta):
        raise ValueError(
            "`n_train` and `n_holdout` must be positive, twice the first and three times the "
            f"second at most {len(momenta)} events, got {n_train} and {n_holdout}."
        )
    edges = np.cumsum([0, n_train, n_holdout, n_holdout, n_train, n_holdout])
    parts = pairwise(edges.tolist())
    return Division(*(momenta[low:high] for low, high in parts))


def ensemble_tasks(
    train: ArrayLike,
    architecture: Architecture,
    *,
    n_members: int = N_KEPT,
    bootstrap: bool = True,
    seed: int = 1,
    n_steps: int | None = None,
    training: FlowMatchingTraining | None = None,
) -> list[FlowMatchingTask]:
    """Return the trainings of the chosen set-up.

    Args:
        train: Momenta, shape (n_train, n_particles, 4).
        architecture: Of the velocity network.
        n_members: Number of generators; the first ones do not depend on it.
        bootstrap: Each member has its own draw of the events with replacement.
        seed: Of everything.
        n_steps: Steps of the optimiser; `STEPS`, five minutes of a core, when None.
        training: All else of the training; its defaults when None.

    Raises:
        ValueError: As `member_tasks`, or `n_steps` is None for an architecture without `STEPS`.
    """
    flow = FlowMatchingSettings(
        n_particles=np.shape(train)[1], velocity=VelocitySettings(architecture=architecture)
    )
    if n_steps is None and architecture not in STEPS:
        raise ValueError(f"`n_steps` must be given for {architecture}, got None.")
    training = training or FlowMatchingTraining()
    training = replace(training, n_steps=STEPS[architecture] if n_steps is None else n_steps)
    return member_tasks(train, flow, training, n_members=n_members, seed=seed, bootstrap=bootstrap)


def fitted_generators(
    tasks: Sequence[FlowMatchingTask],
    *,
    store: ArtefactStore,
    jobs: int | None = None,
    label: str = "",
) -> list[Generator]:
    """Return the generators of trainings: kept ones, or fitted now, which a stopped run continues.

    Args:
        tasks: The trainings.
        store: Where generators are kept.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.

    Raises:
        GenampError: As `fit_members`.
    """
    stages = [Stage(STAGE, CODE_VERSION, {"task": task.key}) for task in tasks]
    folder = project_root() / "_build" / "generators" / ("fresh" if store.fresh else "")

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        share = {"jobs": sharing(jobs, None)["jobs"], "label": label}
        files = fit_members([tasks[k] for k in missing], folder, **share)
        for number, file in zip(missing, files, strict=True):
            yield number, read_generator_arrays(file)
            file.unlink()

    arrays = store.load_or_compute_each(stages, compute)
    return [generator_of(task, found) for task, found in zip(tasks, arrays, strict=True)]


def sample_generators(
    generators: Sequence[Generator],
    n_generated: int,
    *,
    seed: int,
    jobs: int | None = None,
    label: str = "",
) -> NDArray[np.float64]:
    """Generate events with each of several generators.

    Args:
        generators: All of one multiplicity.
        n_generated: Events of each, within the cuts.
        seed: Of everything; a generator's events do not depend on the others.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.

    Returns:
        Momenta, shape (n_generators, n_generated, n_particles, 4): pt (GeV), eta, phi, mass (GeV).

    Raises:
        GenampError: A generator makes hardly any event within the cuts.
    """
    work = [(generator, n_generated, seed, k) for k, generator in enumerate(generators)]
    found = dict(finished_tasks(_sampled, work, **sharing(jobs, None), label=label))
    return np.stack([found[k] for k in range(len(work))])


def sample_ensemble(
    architecture: Architecture,
    n_generated: int,
    *,
    n_members: int = N_KEPT,
    seed: int = 1,
    jobs: int | None = None,
) -> NDArray[np.float64]:
    """Generate top pairs with the kept generators of one architecture.

    Training one takes a core five minutes.

    Args:
        architecture: Of the velocity network.
        n_generated: Events of each generator, within the cuts.
        n_members: Number of generators; more than are kept are trained first.
        seed: Of the generated events.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.

    Returns:
        Momenta, shape (n_members, n_generated, 6, 4): pt (GeV), eta, phi, mass (GeV).
    """
    train = divide(load_top_pairs(0).momenta).fresh_train
    tasks = ensemble_tasks(train, architecture, n_members=n_members)
    generators = fitted_generators(tasks, store=ArtefactStore(), jobs=jobs, label=architecture)
    return sample_generators(generators, n_generated, seed=seed, jobs=jobs, label="sampling")


def _sampled(work: tuple[Generator, int, int, int]) -> NDArray[np.float64]:
    generator, n_generated, seed, number = work
    words = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    with one_thread():
        source = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        return generator.flow.sample(n_generated, generator=source).numpy()
