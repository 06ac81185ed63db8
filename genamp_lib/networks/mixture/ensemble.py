"""Fit ensembles of mixture transformers, plain or Bayesian, and choose what each is trained on.

The members of a task are independent: each has its own events, starting values, batches, gradient
limit and, because the optimiser works number by number, its own steps. They share nothing but the
computation.

What to train on

- `bootstrap_sets`: events drawn with replacement from one sample. The members' spread is that of
  trainings on other samples of this size, as far as one sample can tell.
- `same_sets`: all members have the same events and differ by starting values and batches. Their
  spread says how well the training is reproduced, and nothing on how far the sample is off.
- `independent_sets`: separate events for each member; what the other two are measured against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from genamp_lib.networks.fitting import check_positive, check_table, fit_by_steps, one_thread
from genamp_lib.networks.mixture.posterior import GaussianPosterior, PosteriorSettings
from genamp_lib.networks.mixture.transformer import (
    MixtureTransformer,
    MixtureTransformerSettings,
    starting_parameters,
)
from genamp_lib.store import Arrays, ArtefactStore, Stage, named, numbered

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
# Steps whose mean loss is one point of the loss curve.
LOSS_STEPS = 20
# Streams of random numbers, by the third entry of their seeds.
_START, _ORDER, _NOISE = 1, 2, 3


def same_sets(train: ArrayLike, n_members: int) -> NDArray[np.float32]:
    """Return the same events for every member, shape (n_members, n_train, n_features)."""
    events = _check_events(train, n_members)
    return np.repeat(events[np.newaxis], n_members, axis=0)


def bootstrap_sets(train: ArrayLike, n_members: int, *, seed: int) -> NDArray[np.float32]:
    """Return n_train events for every member, drawn from `train` with replacement.

    >>> bootstrap_sets(np.arange(5.0).reshape(5, 1), 1, seed=1)[0, :, 0]
    array([2., 2., 3., 4., 0.], dtype=float32)
    """
    events = _check_events(train, n_members)
    rng = np.random.default_rng(seed)
    return events[rng.integers(len(events), size=(n_members, len(events)))]


def independent_sets(events: ArrayLike, n_members: int) -> NDArray[np.float32]:
    """Return a separate part of the events for every member, in their order."""
    events = _check_events(events, n_members)
    if len(events) % n_members:
        raise ValueError(
            f"`events` must be a multiple of `n_members` = {n_members}, got {len(events)}."
        )
    return events.reshape(n_members, -1, events.shape[1])


def _check_events(train: ArrayLike, n_members: int) -> NDArray[np.float32]:
    events = np.asarray(train, dtype=np.float32)
    check_table("train", events)
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    return events


@dataclass(frozen=True)
class EnsembleSettings:
    """Training of the networks: AdamW, a rise of the learning rate, then a cosine to zero."""

    n_steps: int = 2000
    batch_size: int = 100  # per member; each pass over the events has another order
    learning_rate: float = 2e-3  # at its peak
    n_warmup: int = 100
    max_gradient_norm: float = 5.0  # to which a member's longer gradients are scaled down
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        counts = ("n_steps", "batch_size", "n_warmup")
        check_positive(self, *counts, "learning_rate", "max_gradient_norm")
        if not self.weight_decay >= 0.0:
            raise ValueError(f"`weight_decay` must not be negative, got {self.weight_decay}.")


@dataclass(frozen=True)
class EnsembleTask:
    """An ensemble to fit: all that its numbers depend on."""

    training_sets: np.ndarray = field(repr=False)  # (n_members, n_train, n_features)
    seed: int  # of starting values, batches and noise; members differ by position
    network: MixtureTransformerSettings
    training: EnsembleSettings
    posterior: PosteriorSettings | None = None  # None for plain networks

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
        """Number of networks to fit."""
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
        """Hash of all that the fit depends on."""
        return stage_of_tasks("ensemble", [self], version=CODE_VERSION).key

    @property
    def checksum(self) -> str:
        """SHA-256 of the training sets, as float32."""
        return hashlib.sha256(np.ascontiguousarray(self.training_sets, dtype="<f4")).hexdigest()


def stage_of_tasks(
    name: str, tasks: Sequence[EnsembleTask], *, version: int, **settings: Any
) -> Stage:
    """Return the stage of what is computed, with some settings, from the fits of tasks."""
    return Stage(
        name,
        version=version,
        configuration={"tasks": [task.configuration for task in tasks], **settings},
        inputs={f"training_sets_{i}": task.checksum for i, task in enumerate(tasks)},
    )


@dataclass(frozen=True)
class EnsembleFit:
    """Fitted networks (Bayesian ones at the means of the posteriors) and their loss."""

    model: MixtureTransformer
    # means of -log p over `LOSS_STEPS` steps, (n_points, n_members)
    loss: np.ndarray = field(repr=False)
    posterior: GaussianPosterior | None = None


def fit_ensemble(
    task: EnsembleTask,
    *,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 200,
) -> EnsembleFit:
    """Fit the networks of a task by maximum likelihood, Eq. (8) of paper A, all at once.

    Bayesian networks minimise -log p(x) at one draw of the parameters per step and member, plus
    beta times the divergence from the prior over n_train. A killed training continues from its
    `checkpoint` and ends with the same numbers.
    """
    training, prior = task.training, task.posterior
    events = torch.from_numpy(np.array(task.training_sets, dtype=np.float32))
    seeds = [[task.seed, member, _START] for member in range(task.n_members)]
    means = starting_parameters(task.network, seeds=seeds).requires_grad_()
    tensors = {"parameters": means}
    groups = [{"params": [means], "weight_decay": training.weight_decay}]
    if prior is not None:
        shape = (task.n_members, prior.n_bayesian(task.network))
        widths = torch.full(shape, prior.start_log_variance).requires_grad_()
        tensors["log_variances"] = widths
        # The divergence, not the decay of AdamW, is what holds log-variances.
        group = {"params": [widths], "weight_decay": 0.0, "factor": prior.log_variance_rate}
        groups.append(group)
    batch_of_step = _batches(task)

    def gradients(step: int) -> Tensor:
        batch = events.take_along_dim(batch_of_step(step)[..., None], dim=1)
        parameters, divergence = means, torch.zeros(())
        if prior is not None:
            posterior = GaussianPosterior(task.network, means, widths)
            rng = np.random.default_rng([task.seed, step, _NOISE])
            noise = rng.standard_normal(tuple(widths.shape), dtype=np.float32)
            parameters = posterior.perturbed(torch.from_numpy(noise))
            divergence = prior.beta / task.n_train * posterior.divergence(prior.prior_sigma).sum()
        losses = -MixtureTransformer(task.network, parameters).log_prob(batch).mean(1)
        (divergence + losses.sum()).backward()
        _limit_gradients(list(tensors.values()), training.max_gradient_norm)
        return losses

    with one_thread():
        # The second moment averages over about 100 steps: trainings are short.
        optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        losses = fit_by_steps(
            gradients,
            [optimiser],
            tensors,
            name="ensemble",
            n_steps=training.n_steps,
            learning_rate=training.learning_rate,
            n_warmup=training.n_warmup,
            loss_steps=LOSS_STEPS,
            checkpoint=checkpoint,
            checkpoint_steps=checkpoint_steps,
            key=task.key,
        )
    curve = torch.stack([part.mean(0) for part in losses.split(LOSS_STEPS)]).numpy()
    return _fit_of(task, curve, **{name: tensor.detach() for name, tensor in tensors.items()})


def _batches(task: EnsembleTask) -> Callable[[int], Tensor]:
    """Return what tells which events the members take in a step, (n_members, batch_size)."""
    size = task.training.batch_size
    n_per_pass = task.n_train // size

    @lru_cache(maxsize=1)
    def orders(number: int) -> Tensor:
        rngs = (
            np.random.default_rng([task.seed, member, _ORDER, number])
            for member in range(task.n_members)
        )
        return torch.from_numpy(np.stack([rng.permutation(task.n_train) for rng in rngs]))

    def batch_of_step(step: int) -> Tensor:
        number, part = divmod(step, n_per_pass)
        return orders(number)[:, part * size : (part + 1) * size]

    return batch_of_step


def _limit_gradients(tensors: list[Tensor], longest: float) -> None:
    """Scale the gradients of each member down to a norm, all of its parameters together."""
    norms = torch.stack([tensor.grad.square().sum(1) for tensor in tensors]).sum(0).sqrt()
    factors = (longest / norms).clamp(max=1.0)
    for tensor in tensors:
        tensor.grad.mul_(factors[:, None])


def fit_ensembles(
    tasks: Sequence[EnsembleTask], *, store: ArtefactStore, name: str
) -> list[EnsembleFit]:
    """Fit several ensembles, shared by processes or machines; the same numbers however shared.

    About 40 members per task use a core best; fewer large tasks than processes leave cores idle.
    All are kept as one artefact. Until it is complete, finished tasks and states of unfinished ones
    lie beside it, so that a killed run continues. Several machines must share the store's folder.
    """
    arrays = combine_fits(name, tasks, _to_arrays, numbered, store=store, version=CODE_VERSION)
    fits = []
    for number, task in enumerate(tasks):
        own = named(arrays, f"{number}.")
        loss = own.pop("loss")
        fits.append(_fit_of(task, loss, **{key: torch.tensor(x) for key, x in own.items()}))
    return fits


def concatenated(parts: list[Arrays]) -> Arrays:
    """Return the arrays of all parts, one after the other along axis 0."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


OfFit = Callable[[EnsembleFit, EnsembleTask], Arrays]


def combine_fits(
    name: str,
    tasks: Sequence[EnsembleTask],
    function: OfFit,
    merge: Callable[[list[Arrays]], Arrays] = concatenated,
    *,
    store: ArtefactStore,
    **stage: Any,
) -> Arrays:
    """Keep what `function` computes of each task's fit as one artefact, by `store.combine`."""
    whole = stage_of_tasks(name, tasks, **stage)
    return store.combine(whole, partial(_compute, function, store.unfinished(whole)), tasks, merge)


def _compute(function: OfFit, folder: Path, task: EnsembleTask) -> Arrays:
    fit = fit_ensemble(task, checkpoint=folder / f"{task.key}.safetensors")
    with one_thread():
        return function(fit, task)


def _to_arrays(fit: EnsembleFit, task: EnsembleTask) -> Arrays:
    arrays = {"loss": fit.loss, "parameters": fit.model.parameters.numpy()}
    if fit.posterior is not None:
        arrays["log_variances"] = fit.posterior.log_variances.numpy()
    return arrays


def _fit_of(
    task: EnsembleTask, loss: np.ndarray, parameters: Tensor, log_variances: Tensor | None = None
) -> EnsembleFit:
    model = MixtureTransformer(task.network, parameters)
    posterior = None
    if log_variances is not None:
        posterior = GaussianPosterior(task.network, parameters, log_variances)
    return EnsembleFit(model, loss, posterior)
