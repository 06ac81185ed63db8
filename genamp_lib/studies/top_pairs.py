"""The generators of top pairs that chapters use: which events, which set-up, how many of them.

What was tried before these settings were chosen: the appendix "How the generators were made".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets import load_top_pairs
from genamp_lib.networks.top_pairs.architectures import Architecture, VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import fitted_generators, sample_generators
from genamp_lib.store import ArtefactStore

Array = NDArray[np.float64]
Result = TypeVar("Result")

# Generators of each architecture that are kept in the repository.
N_KEPT = 10
# Steps of 512 events that take a core five minutes.
STEPS: dict[Architecture, int] = {"transformer": 6_000, "lgatr-slim": 3_400, "lloca": 2_200}


class Division(NamedTuple):
    """Parts of a sample, by their place in the file; each has shape (n, n_particles, 4)."""

    train: Array  # training events of the trials of set-ups
    holdout: Array  # what trials are compared with
    spent_holdout: Array  # what earlier set-ups were compared with; no longer for judging
    fresh_train: Array  # training events of the chosen set-up
    fresh_holdout: Array  # what it is compared with, once


def divide(momenta: ArrayLike, *, n_train: int = 20_000, n_holdout: int = 20_000) -> Division:
    """Divide a sample of top pairs into parts for a search and for its result.

    Args:
        momenta: Sample, shape (n, n_particles, 4).
        n_train: Events of each training set.
        n_holdout: Events of each holdout.

    Raises:
        ValueError: There are too few events.

    >>> [len(part) for part in divide(np.zeros((100, 6, 4)), n_train=20, n_holdout=10)]
    [20, 10, 10, 20, 10]
    """
    momenta = np.asarray(momenta, dtype=np.float64)
    if n_train < 1 or n_holdout < 1 or 2 * n_train + 3 * n_holdout > len(momenta):
        raise ValueError(
            "`n_train` and `n_holdout` must be positive, twice the first and three times the "
            f"second at most {len(momenta)} events, got {n_train} and {n_holdout}."
        )
    edges = np.cumsum([0, n_train, n_holdout, n_holdout, n_train, n_holdout]).tolist()
    return Division(*(momenta[low:high] for low, high in pairwise(edges)))


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

    Members do not depend on their number. Those without a bootstrap have the same events and the
    same division into events to fit and to validate.

    Args:
        train: Momenta, shape (n_train, n_particles, 4).
        architecture: Architecture of the velocity network.
        n_members: Number of generators.
        bootstrap: Whether each member has its own draw of the events with replacement.
        seed: Seed that those of the members follow from.
        n_steps: Steps of the optimiser; `STEPS`, five minutes of a core, when None.
        training: Other settings of the training; its defaults when None.

    Raises:
        ValueError: `n_members` is not positive, or `n_steps` is None for an architecture without
            `STEPS`, or as `FlowMatchingTask`.
    """
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    flow = FlowMatchingSettings(
        n_particles=np.shape(train)[1], velocity=VelocitySettings(architecture=architecture)
    )
    if n_steps is None and architecture not in STEPS:
        raise ValueError(f"`n_steps` must be given for {architecture}, got None.")
    training = replace(
        training or FlowMatchingTraining(),
        n_steps=STEPS[architecture] if n_steps is None else n_steps,
    )
    tasks = []
    for member in range(n_members):
        own, split = np.random.SeedSequence([seed, member]).generate_state(2).tolist()
        seeds = {"seed": own, "split_seed": split if bootstrap else seed}
        tasks.append(FlowMatchingTask(train, flow, training, bootstrap=bootstrap, **seeds))
    return tasks


def kept_train() -> Array:
    """Return the momenta that the kept generators learned bootstrap draws of, (20000, 6, 4)."""
    return divide(load_top_pairs(0).momenta).fresh_train


def sample_ensemble(
    architecture: Architecture,
    n_generated: int,
    into: Callable[[Iterator[Array]], Result],
    *,
    n_members: int = N_KEPT,
    seed: int = 1,
) -> list[Result]:
    """Generate top pairs with the kept generators of one architecture, and count or sum them up.

    Events come in blocks and are not kept, so that there can be any number of them. Base events of
    any two members are independent, as the estimators assume. The appendix "How the generators were
    made" has an example with `kept_train` and `averaging_amplification`.

    Args:
        architecture: Architecture of the velocity network.
        n_generated: Events of each generator, within the cuts.
        into: Picklable function of one generator's blocks of at most 1,000 events: momenta, shape
            (n, 6, 4), pt (GeV), eta, phi, mass (GeV); `list` keeps them all.
        n_members: Number of generators; more than are kept are trained first, five minutes each.
        seed: Seed of the generated events.

    Returns:
        What `into` returned for each generator.

    Raises:
        ValueError: No generators of the architecture are kept, or `n_generated` is negative.
    """
    if architecture not in STEPS:
        raise ValueError(
            f"`architecture` must be one of {', '.join(STEPS)}, of which generators are kept, "
            f"got {architecture!r}."
        )
    if n_generated < 0:
        raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
    tasks = ensemble_tasks(kept_train(), architecture, n_members=n_members)
    generators = fitted_generators(tasks, store=ArtefactStore(), label=architecture)
    return sample_generators(generators, n_generated, into, seed=seed, label="sampling")
