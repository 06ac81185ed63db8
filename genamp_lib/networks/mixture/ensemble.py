"""Fit many mixture transformers at once, plain or Bayesian; not for their events: training_sets.

The members of a task are independent: each has its own events, starting values, batches, gradient
limit and, because the optimiser works number by number, its own steps. They share nothing but the
computation. Networks run in float32 on one thread; the same task on the same machine gives the same
numbers, whether it was killed and continued, and however many processes share the tasks.

What an ensemble is to be fitted to, and how; not the fit itself: training.ensemble.

The state of a training of many networks: one step, and what is kept between two of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genamp_lib._project import GenampError, sha256_of_text
from genamp_lib.networks.fitting import one_thread, read_checkpoint, write_checkpoint
from genamp_lib.networks.mixture.posterior import GaussianPosterior, PosteriorSettings
from genamp_lib.networks.mixture.transformer import (
    MixtureTransformer,
    MixtureTransformerSettings,
    starting_parameters,
)
from genamp_lib.sharing import map_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage

# Steps whose mean loss is one point of the loss curve.
LOSS_STEPS = 20
# Streams of random numbers, by the third entry of their seeds.
_START, _ORDER, _NOISE = 1, 2, 3


class TrainingState:
    """Parameters, optimiser and losses of the members after a number of steps.

    No random state is needed: the random numbers of a step follow from the seed and the step.

    Args:
        task: What is fitted; the state is that before the first step.
    """

    def __init__(self, task: EnsembleTask) -> None:
        self.task = task
        self.step = 0
        self.events = torch.from_numpy(np.array(task.training_sets, dtype=np.float32))
        members = range(task.n_members)
        start = starting_parameters(task.network, seeds=[[task.seed, m, _START] for m in members])
        self.losses = torch.full((task.training.n_steps, task.n_members), math.nan)
        # The trained tensors by name, and the factor on the learning rate of each.
        self.tensors = {"parameters": start.requires_grad_()}
        rates = {"parameters": 1.0}
        if task.posterior is not None:
            shape = (task.n_members, task.posterior.n_bayesian(task.network))
            widths = torch.full(shape, task.posterior.start_log_variance)
            self.tensors["log_variances"] = widths.requires_grad_()
            rates["log_variances"] = task.posterior.log_variance_rate
        # The divergence, not the decay of AdamW, is what holds log-variances.
        groups = [
            {
                "params": [tensor],
                "factor": rates[name],
                "weight_decay": task.training.weight_decay if name == "parameters" else 0.0,
            }
            for name, tensor in self.tensors.items()
        ]
        # The second moment averages over about 100 steps: trainings are short.
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.task.training.n_steps

    def advance(self) -> None:
        """Do one step.

        Raises:
            GenampError: A loss was not finite in one of the last `LOSS_STEPS` steps.
        """
        task, tensors = self.task, self.tensors
        batch = self.events.take_along_dim(self._batch()[..., None], dim=1)
        parameters = tensors["parameters"]
        loss = torch.zeros(())
        if task.posterior is not None:
            posterior = GaussianPosterior(task.network, parameters, tensors["log_variances"])
            shape = tensors["log_variances"].shape
            rng = np.random.default_rng([task.seed, self.step, _NOISE])
            noise = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
            parameters = posterior.perturbed(noise)
            divergence = posterior.divergence(task.posterior.prior_sigma).sum()
            loss = task.posterior.beta / self.events.shape[1] * divergence
        losses = -MixtureTransformer(task.network, parameters).log_prob(batch).mean(1)
        self.optimiser.zero_grad()
        (loss + losses.sum()).backward()
        self._limit_gradients()
        for group in self.optimiser.param_groups:
            rate = task.training.rate(self.step)
            group["lr"] = task.training.learning_rate * rate * group["factor"]
        self.optimiser.step()
        self.losses[self.step] = losses.detach()
        self.step += 1
        if self.step % LOSS_STEPS == 0 or self.finished:
            self._check_losses()

    def model(self) -> MixtureTransformer:
        """Return the networks as they are now; Bayesian ones at their means."""
        return MixtureTransformer(self.task.network, self.tensors["parameters"].detach().clone())

    def posterior(self) -> GaussianPosterior | None:
        """Return the posteriors as they are now, None for plain networks."""
        if self.task.posterior is None:
            return None
        widths = self.tensors["log_variances"].detach().clone()
        return GaussianPosterior(self.task.network, self.model().parameters, widths)

    def loss_curve(self) -> np.ndarray:
        """Return means over `LOSS_STEPS` steps, the last over what is left, (n, n_members)."""
        return torch.stack([part.mean(0) for part in self.losses.split(LOSS_STEPS)]).numpy()

    def save(self, path: Path) -> None:
        """Write the state; the file is whole or absent, whenever the process is killed."""
        arrays = {"losses": self.losses}
        for name, tensor in self.tensors.items():
            arrays[name] = tensor.detach()
            for moment, value in self.optimiser.state[tensor].items():
                arrays[f"{name}.{moment}"] = value
        write_checkpoint(path, arrays, key=self.task.key, step=self.step)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            GenampError: The file is damaged or of another task.
        """
        arrays, self.step = read_checkpoint(path, key=self.task.key)
        self.losses = arrays["losses"]
        for name, tensor in self.tensors.items():
            tensor.data.copy_(arrays[name])
            moments = [key for key in arrays if key.startswith(f"{name}.")]
            self.optimiser.state[tensor] = {key.split(".")[1]: arrays[key] for key in moments}

    def _check_losses(self) -> None:
        last = self.losses[max(0, self.step - LOSS_STEPS) : self.step]
        bad = torch.nonzero(~torch.isfinite(last).all(0)).flatten().tolist()
        if bad:
            raise GenampError(
                f"ensemble: the loss must be finite, got {last[-1, bad[0]]:g} for member {bad[0]} "
                f"by step {self.step}; lower `learning_rate`"
            )

    def _batch(self) -> Tensor:
        """Return which events each member takes in this step, shape (n_members, batch_size)."""
        n_train, size = self.events.shape[1], self.task.training.batch_size
        epoch, part = divmod(self.step, n_train // size)
        if self._order[0] != epoch:
            orders = [
                np.random.default_rng([self.task.seed, member, _ORDER, epoch]).permutation(n_train)
                for member in range(self.task.n_members)
            ]
            self._order = epoch, torch.from_numpy(np.stack(orders))
        return self._order[1][:, part * size : (part + 1) * size]

    def _limit_gradients(self) -> None:
        gradients = [tensor.grad for tensor in self.tensors.values()]
        norms = torch.stack([gradient.square().sum(1) for gradient in gradients]).sum(0).sqrt()
        factors = (self.task.training.max_gradient_norm / norms).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors[:, None])


# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1


@dataclass(frozen=True)
class EnsembleSettings:
    """How the networks are trained: AdamW, a rise of the learning rate, then a cosine to zero.

    Attributes:
        n_steps: Batches.
        batch_size: Events per step and member; each pass over the events has another order.
        learning_rate: At its peak.
        n_warmup: Steps of the linear rise.
        max_gradient_norm: A member's longer gradients are scaled down to this length.
        weight_decay: Of AdamW.
    """

    n_steps: int = 2000
    batch_size: int = 100
    learning_rate: float = 2e-3
    n_warmup: int = 100
    max_gradient_norm: float = 5.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size", "n_warmup"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not self.weight_decay >= 0.0:
            raise ValueError(f"`weight_decay` must not be negative, got {self.weight_decay}.")

    @classmethod
    def for_ring(cls, n_features: int) -> EnsembleSettings:
        """Return the training of the chapters on Gaussian rings, at 1000 training events."""
        return cls() if n_features <= 2 else cls(n_steps=1200)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a fraction of the peak."""
        rise = min(1.0, (step + 1) / self.n_warmup)
        return rise * 0.5 * (1.0 + math.cos(math.pi * step / self.n_steps))


@dataclass(frozen=True)
class EnsembleTask:
    """An ensemble to fit: all that its numbers depend on.

    Attributes:
        training_sets: Shape (n_members, n_train, n_features), see training.training_sets.
        seed: Of starting values, batches and noise; the members differ by their position.
        network: Size of a network.
        training: How it is trained.
        posterior: Of Bayesian networks; None for plain ones.

    Raises:
        ValueError: `training_sets` has another shape, is not finite, or has fewer events than a
            batch.
    """

    training_sets: np.ndarray = field(repr=False)
    seed: int
    network: MixtureTransformerSettings
    training: EnsembleSettings
    posterior: PosteriorSettings | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.training_sets)
        if len(shape) != 3 or not shape[0] or shape[2] != self.network.n_features:
            raise ValueError(
                f"`training_sets` must be (n_members, n_train, {self.network.n_features}), "
                f"got shape {shape}."
            )
        if not np.isfinite(self.training_sets).all():
            raise ValueError("`training_sets` must be finite, got NaN or infinity.")
        if shape[1] < self.training.batch_size:
            raise ValueError(
                f"`training_sets` must have at least `batch_size` = {self.training.batch_size} "
                f"events per member, got {shape[1]}."
            )
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}.")

    @property
    def n_members(self) -> int:
        """Networks to fit."""
        return self.training_sets.shape[0]

    @property
    def n_train(self) -> int:
        """Training events of each."""
        return self.training_sets.shape[1]

    @property
    def configuration(self) -> dict[str, Any]:
        """Everything but the events, as JSON types."""
        return {
            "seed": self.seed,
            "n_members": self.n_members,
            "n_train": self.n_train,
            "network": asdict(self.network),
            "training": asdict(self.training),
            "posterior": None if self.posterior is None else asdict(self.posterior),
        }

    @property
    def key(self) -> str:
        """SHA-256 of all that the fit depends on."""
        content = [CODE_VERSION, self.configuration, self.checksum]
        return sha256_of_text(json.dumps(content, sort_keys=True))

    @property
    def checksum(self) -> str:
        """SHA-256 of the training sets, as float32."""
        return hashlib.sha256(np.ascontiguousarray(self.training_sets, dtype="<f4")).hexdigest()


def stage_of_tasks(
    name: str, tasks: Sequence[EnsembleTask], *, version: int, **settings: Any
) -> Stage:
    """Return the stage of what is computed from the fits of tasks.

    Args:
        name: Of the artefact.
        tasks: The fits.
        version: Of the code that computes.
        settings: What else the numbers depend on, as JSON types.
    """
    return Stage(
        name,
        version=version,
        configuration={"tasks": [task.configuration for task in tasks], **settings},
        inputs={f"training_sets_{i}": task.checksum for i, task in enumerate(tasks)},
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
