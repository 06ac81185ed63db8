"""Fit many mixture transformers at once, plain or Bayesian; not for their events: training_sets.

The members of a task are independent: each has its own events, starting values, batches, gradient
limit and, because the optimiser works number by number, its own steps. They share nothing but the
computation. Networks run in float32 on one thread; the same task on the same machine gives the same
numbers, whether it was killed and continued, and however many processes share the tasks.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from genamp_lib._parallel import map_tasks, sharing
from genamp_lib.models.mixture_transformer import MixtureTransformer, MixtureTransformerSettings
from genamp_lib.models.posterior import GaussianPosterior, PosteriorSettings
from genamp_lib.training._ensemble_state import LOSS_STEPS, TrainingState
from genamp_lib.training._threads import one_thread
from genamp_lib.training.artefacts import Arrays, ArtefactStore
from genamp_lib.training.ensemble_task import (
    CODE_VERSION,
    EnsembleSettings,
    EnsembleTask,
    stage_of_tasks,
)

__all__ = [
    "EnsembleFit",
    "EnsembleSettings",
    "EnsembleTask",
    "MixtureTransformerSettings",
    "PosteriorSettings",
    "fit_ensemble",
    "fit_ensembles",
]


@dataclass(frozen=True)
class EnsembleFit:
    """Fitted networks and how their loss went.

    Attributes:
        model: The networks; of Bayesian ones, those at the means of the posteriors.
        loss: Mean of -log p over batches, means over `LOSS_STEPS` steps, (n_points, n_members).
        posterior: Of Bayesian networks, else None; `posterior.draw` gives networks again.
    """

    model: MixtureTransformer
    loss: np.ndarray = field(repr=False)
    posterior: GaussianPosterior | None = None


def fit_ensemble(
    task: EnsembleTask,
    *,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 200,
    progress: Callable[[str], None] | None = None,
) -> EnsembleFit:
    """Fit the networks of a task by maximum likelihood, Eq. (8) of paper A, all at once.

    Bayesian networks minimise -log p(x) at one draw of the parameters per step and member, plus
    beta times the divergence from the prior over n_train.

    Args:
        task: What to fit.
        checkpoint: File that keeps the state while the training runs; a killed one continues from
            it and ends with the same numbers. It holds the end when the training is done.
        checkpoint_steps: Steps between two such states.
        progress: Called with one line of text with an estimate of the time, then now and then.

    Raises:
        GenampError: A loss is not finite, or `checkpoint` is damaged or of another task.

    >>> events = np.random.default_rng(0).normal(size=(3, 100, 2))
    >>> fit = fit_ensemble(EnsembleTask(events, seed=1, network=MixtureTransformerSettings(2),
    ...                                 training=EnsembleSettings(n_steps=40)))
    >>> fit.model.n_members, fit.loss.shape
    (3, (2, 3))
    """
    with one_thread():
        state = TrainingState(task)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint)
        _run(state, checkpoint, checkpoint_steps, progress)
        return EnsembleFit(state.model(), state.loss_curve(), state.posterior())


def fit_ensembles(
    tasks: Sequence[EnsembleTask],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    store: ArtefactStore | None = None,
    name: str = "",
    label: str = "",
) -> list[EnsembleFit]:
    """Fit several ensembles, shared by processes or machines; the same numbers however shared.

    About 40 members per task use a core best; fewer large tasks than `jobs` leave cores idle.

    Args:
        tasks: What to fit; give each its own seed.
        jobs: Processes that share the tasks.
        scheduler: Address of a Dask scheduler to share them with instead. If both are None, it is
            what `genamp run` was given, one process without it.
        store: Where all of them are kept, as one artefact. Until it is complete, the states of
            the tasks are kept beside it, so that a killed run continues, also a fresh one: a
            state is never that of a finished run. On several machines the folder must be one
            that they share. None keeps nothing.
        name: Of the artefact, with `store`; its key covers the tasks.
        label: What the progress line calls the work; no line when empty.

    Raises:
        ValueError: Only one of `store` and `name` is given.
        GenampError: As `fit_ensemble`, or an artefact is damaged.

    >>> events = np.random.default_rng(0).normal(size=(2, 100, 2))
    >>> tasks = [EnsembleTask(events, seed=seed, network=MixtureTransformerSettings(2),
    ...                       training=EnsembleSettings(n_steps=1)) for seed in (1, 2)]
    >>> [fit.model.n_members for fit in fit_ensembles(tasks)]
    [2, 2]
    """
    if (store is None) != (not name):
        raise ValueError("`store` and `name` must be given together, got only one of them.")

    def compute(folder: Path | None) -> Arrays:
        numbered = list(enumerate(tasks))
        function = partial(_arrays_of_fit, folder)
        parts = map_tasks(function, numbered, **sharing(jobs, scheduler), label=label)
        return {f"{i}.{key}": array for i, part in enumerate(parts) for key, array in part.items()}

    if store is None:
        arrays = compute(None)
    else:
        stage = stage_of_tasks(name, tasks, version=CODE_VERSION)
        folder = store.local / f"{name}-{stage.key}-checkpoints"
        arrays = store.load_or_compute(stage, lambda: compute(folder))
        shutil.rmtree(folder, ignore_errors=True)
    return [_fit_from_arrays(arrays, i, task) for i, task in enumerate(tasks)]


def _run(
    state: TrainingState,
    checkpoint: Path | None,
    checkpoint_steps: int,
    progress: Callable[[str], None] | None,
) -> None:
    """Do the steps that are left; say how far they are, with an estimate after the first few."""
    n_steps, first, start = state.task.training.n_steps, state.step, time.perf_counter()
    while not state.finished:
        state.advance()
        done = state.step - first
        is_tenth = state.step * 10 // n_steps > (state.step - 1) * 10 // n_steps
        if progress is not None and (done == LOSS_STEPS or is_tenth):
            left = (time.perf_counter() - start) / done * (n_steps - state.step)
            progress(
                f"{state.task.n_members} networks, step {state.step}/{n_steps}: "
                f"loss {state.losses[state.step - 1].mean():.4f}, about {left:.0f} s left"
            )
        if checkpoint is not None and (state.step % checkpoint_steps == 0 or state.finished):
            state.save(checkpoint)


def _arrays_of_fit(folder: Path | None, numbered: tuple[int, EnsembleTask]) -> Arrays:
    number, task = numbered
    checkpoint = None if folder is None else folder / f"{number}.safetensors"
    fit = fit_ensemble(task, checkpoint=checkpoint)
    arrays = {"parameters": fit.model.parameters.numpy(), "loss": fit.loss}
    if fit.posterior is not None:
        arrays["log_variances"] = fit.posterior.log_variances.numpy()
    return arrays


def _fit_from_arrays(
    arrays: Mapping[str, np.ndarray], number: int, task: EnsembleTask
) -> EnsembleFit:
    model = MixtureTransformer(task.network, torch.tensor(arrays[f"{number}.parameters"]))
    posterior = None
    if task.posterior is not None:
        widths = torch.tensor(arrays[f"{number}.log_variances"])
        posterior = GaussianPosterior(task.network, model.parameters, widths)
    return EnsembleFit(model, arrays[f"{number}.loss"], posterior)
