"""Fit one flow-matching generator, step by step, and continue after a kill. Not for ensembles.

Networks run in float32 on one thread. The random numbers of a step follow from the seed and the
step, so that a stopped and continued training has the same parameters, bit for bit, as one that
was never stopped on the same class of machine.

What one training of a flow-matching generator follows from. Not the training: flow_matching.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import assignment_chi2, assignments
from genamp_lib.networks.fitting import (
    one_thread,
    read_checkpoint,
    split_events,
    write_checkpoint,
)
from genamp_lib.networks.top_pairs.coordinates import PHI, wrapped
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.order import exchanges

Optimiser = Literal["muon", "adamw"]
# Training events that may fail the cuts by rounding.
_MOST_FAILING = 0.01


@dataclass(frozen=True)
class FlowMatchingTraining:
    """How a flow-matching generator is fitted.

    Attributes:
        n_steps: Steps of the optimiser.
        batch_size: Events per step.
        optimiser: "adamw"; "muon", the matrices of the network's blocks by Muon, which makes all
            directions of a step equally long, and all else by AdamW.
        learning_rate: After `n_warmup` steps; it falls to zero along a cosine.
        n_warmup: Steps over which the learning rate rises.
        weight_decay: Of both.
        largest_gradient: Norm to which gradients are scaled down.
        average_steps: The parameters that are kept are a moving average over about so many steps.
        augment: At random, turn each event about the beam, mirror it along the beam and across,
            which are symmetries of proton collisions, and exchange what is identical and was put
            in order by pt only; `in_order` restores the order of what is generated.
        chi2_scale: Events stand in the batches with all assignments of jets to top quarks, each
            with a probability that falls as exp(-chi^2 / chi2_scale), so that the density has no
            edge where another assignment gets the smallest chi^2; generated events are assigned
            anew. 2 is the likelihood of a chi^2. 0 keeps the assignments that the events come with.
        validation_fraction: Part of the events that is kept back for the validation loss.
        compile: Make machine code of the network with torch.compile: half a minute, and steps take
            two thirds of the time. Numbers differ by rounding from those without. Needs a C++
            compiler.
    """

    n_steps: int = 20_000
    batch_size: int = 512
    optimiser: Optimiser = "muon"
    learning_rate: float = 4e-3
    n_warmup: int = 200
    weight_decay: float = 0.01
    largest_gradient: float = 5.0
    average_steps: int = 500
    augment: bool = True
    chi2_scale: float = 2.0
    validation_fraction: float = 0.05
    compile: bool = True

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(Optimiser):
            raise ValueError(
                f"`optimiser` must be one of {', '.join(get_args(Optimiser))}, "
                f"got {self.optimiser!r}."
            )
        for name in ("n_steps", "batch_size", "n_warmup", "average_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("learning_rate", "largest_gradient"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("weight_decay", "chi2_scale"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"`validation_fraction` must be between 0 and 1, got {self.validation_fraction}."
            )

    def rate(self, step: int) -> float:
        """Return the factor on the learning rate at a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.n_warmup)
        return rise * 0.5 * (1.0 + math.cos(math.pi * step / self.n_steps))


@dataclass(frozen=True)
class FlowMatchingTask:
    """One training: events, generator, schedule, seed.

    Attributes:
        train: Momenta of training events, shape (n_train, n_particles, 4): pt (GeV), eta, phi,
            mass (GeV).
        flow: What is fitted.
        training: How.
        seed: Of everything.
        bootstrap: Fit to events drawn from `train` with replacement.
        split_seed: Of the division into fitted and validation events, and of the bootstrap; `seed`
            when None.
    """

    train: ArrayLike = field(repr=False)
    flow: FlowMatchingSettings
    training: FlowMatchingTraining
    seed: int
    bootstrap: bool = False
    split_seed: int | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.train)
        if len(shape) != 3 or shape[1:] != (self.flow.n_particles, 4):
            raise ValueError(
                f"`train` must be (n_train, {self.flow.n_particles}, 4), got {shape}; "
                "`flow.n_particles` is the multiplicity of the sample."
            )
        momenta = torch.from_numpy(np.array(self.train, dtype=np.float64))
        n_failing = int((~self.flow.accepts(momenta)).sum())
        if n_failing > _MOST_FAILING * len(momenta):
            cuts = self.flow
            raise ValueError(
                f"`train` must pass the cuts pt > {cuts.pt_min:g} GeV, |eta| < {cuts.eta_max:g}, "
                f"distance > {cuts.delta_r_min:g}, got {n_failing} of {len(momenta)} events that "
                "do not; set the cuts of `flow` to those of the events."
            )

    @property
    def key(self) -> str:
        """First 16 hexadecimal digits of a hash of all fields."""
        events = np.ascontiguousarray(self.train, dtype=np.float64)
        described = {
            "train": hashlib.sha256(events.tobytes()).hexdigest(),
            "flow": asdict(self.flow),
            "training": asdict(self.training),
            "seed": self.seed,
            "bootstrap": self.bootstrap,
            "split_seed": self.split_seed,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


# Steps whose mean loss is one point of the loss curve, after which the validation loss is taken.
LOSS_STEPS = 500
# Streams of random numbers, by the last entry of their seeds.
_START, _ORDER, _STEP, _VALIDATION, _COPIES = 0, 1, 2, 3, 5
# Orders in which each event is kept, drawn once.
_N_COPIES = 32
_MOMENTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


class FlowMatchingState:
    """Parameters, their moving average, optimiser and losses after a number of steps.

    Args:
        task: What is fitted; the state is that before the first step.

    Raises:
        ValueError: As `EventCoordinates.fit`.
        GenampError: There is no C++ compiler for a training that is compiled.
    """

    def __init__(self, task: FlowMatchingTask) -> None:
        if task.training.compile:
            _require_compiler()
        self.task, self.step = task, 0
        momenta = torch.from_numpy(np.array(task.train, dtype=np.float64))
        fit, validation = split_events(
            len(momenta),
            validation_fraction=task.training.validation_fraction,
            seed=task.seed if task.split_seed is None else task.split_seed,
            bootstrap=task.bootstrap,
        )
        copies = torch.from_numpy(_copies(momenta[fit].numpy(), task, self._seed(_COPIES)))
        again = torch.from_numpy(_copies(momenta[validation].numpy(), task, self._seed(_COPIES)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(_START))
            self.flow = FlowMatching(task.flow, copies.flatten(0, 1))
        # Shape (n_copies, n_train, n_particles, 4).
        self.events = torch.stack([self.flow.coordinates.encode(x).float() for x in copies])
        self.validation = self.flow.coordinates.encode(again[0]).float()
        # For batches only: other numbers of events would be compiled anew.
        self.batch_loss = self.flow.loss
        if task.training.compile:
            self.batch_loss = torch.compile(self.flow.loss, dynamic=False)
        self.trained = {
            name: value for name, value in self.flow.named_parameters() if value.requires_grad
        }
        self.average = {name: value.detach().clone() for name, value in self.trained.items()}
        self.optimisers = _new_optimisers(self.trained, task.training)
        n_points = -(-task.training.n_steps // LOSS_STEPS)
        self.losses = torch.full((task.training.n_steps,), math.nan)
        self.validation_losses = torch.full((n_points,), math.nan)
        # Processor time of all steps, on the machines that did them.
        self.cpu_seconds = 0.0
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.task.training.n_steps

    def advance(self) -> None:
        """Do one step.

        Raises:
            GenampError: The loss was not finite in one of the last `LOSS_STEPS` steps.
        """
        training = self.task.training
        generator = torch.Generator().manual_seed(self._seed(self.step, _STEP))
        batch = self._batch()
        which = torch.randint(len(self.events), (len(batch),), generator=generator)
        events = self.events[which, batch]
        if training.augment:
            events = self._mirrored_and_turned(events, generator)
        loss = self._loss(self.batch_loss, events, generator)
        self.flow.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), training.largest_gradient)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = training.learning_rate * training.rate(self.step)
            optimiser.step()
        # Short at the start, when the parameters still move fast.
        weight = max(1.0 / training.average_steps, 1.0 / (1.0 + 0.1 * self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), weight)
        self.losses[self.step] = loss.detach()
        self.step += 1
        if self.step % LOSS_STEPS == 0 or self.finished:
            self._check()

    def averaged_flow(self) -> FlowMatching:
        """Return a generator with the averaged parameters, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):  # starting values, which are replaced
            flow = FlowMatching(self.task.flow, None)
        flow.load_arrays({**self.flow.arrays(), **self.average})
        return flow.eval()

    def loss_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means over `LOSS_STEPS` steps, of training and of validation events."""
        train = torch.stack([part.nanmean() for part in self.losses.split(LOSS_STEPS)])
        return train.numpy(), self.validation_losses.numpy()

    def save(self, path: Path) -> None:
        """Write the state; the file is whole or absent, whenever the process is killed."""
        arrays = {"losses": self.losses, "validation_losses": self.validation_losses}
        arrays["cpu_seconds"] = torch.tensor(self.cpu_seconds, dtype=torch.float64)
        for name, value in self.trained.items():
            arrays[f"parameter.{name}"] = value.detach()
            arrays[f"average.{name}"] = self.average[name]
            for optimiser in self.optimisers:
                for moment, array in optimiser.state.get(value, {}).items():
                    arrays[f"{moment}.{name}"] = array
        write_checkpoint(path, {"step": self.step, "arrays": arrays}, key=self.task.key)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            GenampError: The file is damaged or of another task.
        """
        state = read_checkpoint(path, key=self.task.key)
        arrays, self.step = state["arrays"], state["step"]
        self.losses, self.validation_losses = arrays["losses"], arrays["validation_losses"]
        self.cpu_seconds = arrays["cpu_seconds"].item()
        for name, value in self.trained.items():
            with torch.no_grad():
                value.copy_(arrays[f"parameter.{name}"])
            self.average[name] = arrays[f"average.{name}"]
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                for name, value in zip(group["param_names"], group["params"], strict=True):
                    optimiser.state[value] = {
                        moment: arrays[f"{moment}.{name}"]
                        for moment in _MOMENTS
                        if f"{moment}.{name}" in arrays
                    }

    def _loss(
        self,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        events: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        n = len(events)
        base = self.flow.pair(events, self.flow.base.sample(n, generator=generator))
        # One time in each of n equal parts: less noise than independent times.
        parts = torch.randperm(n, generator=generator)
        return loss(events, base, (parts + torch.rand(n, generator=generator)) / n)

    def _mirrored_and_turned(self, events: Tensor, generator: torch.Generator) -> Tensor:
        n = len(events)
        flip = torch.randint(0, 2, (2, n), generator=generator).bool()
        turn = 2 * math.pi * torch.rand(n, 1, generator=generator)
        events = torch.where(flip[0, :, None, None], self.flow.coordinates.mirrored(events), events)
        phi = torch.where(flip[1, :, None], -events[..., PHI], events[..., PHI])
        events[..., PHI] = wrapped(phi + turn)
        return events

    def _batch(self) -> Tensor:
        """Return the indices of the step's events; each pass takes them in another order."""
        size = min(self.task.training.batch_size, self.events.shape[1])
        per_pass = self.events.shape[1] // size
        number, place = divmod(self.step, per_pass)
        if self._order[0] != number:
            rng = np.random.default_rng([self.task.seed, number, _ORDER])
            self._order = number, torch.from_numpy(rng.permutation(self.events.shape[1]))
        return self._order[1][place * size : (place + 1) * size]

    def _check(self) -> None:
        recent = self.losses[: self.step][-LOSS_STEPS:]
        if not torch.isfinite(recent).all():
            raise GenampError(
                f"flow matching: the loss must be finite, got {recent[-1].item():g} before step "
                f"{self.step}; lower `learning_rate`"
            )
        generator = torch.Generator().manual_seed(self._seed(_VALIDATION))
        own = {name: value.detach().clone() for name, value in self.trained.items()}
        with torch.no_grad():
            for name, value in self.trained.items():
                value.copy_(self.average[name])
            loss = self._loss(self.flow.loss, self.validation, generator)
            for name, value in self.trained.items():
                value.copy_(own[name])
        self.validation_losses[(self.step - 1) // LOSS_STEPS] = loss

    def _seed(self, *stream: int) -> int:
        words = np.random.SeedSequence([self.task.seed, *stream]).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))


def fit_flow_matching(
    task: FlowMatchingTask,
    *,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 500,
    stop_at: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FlowMatchingState:
    """Fit a generator; continue from a checkpoint if there is one.

    Args:
        task: What is fitted.
        checkpoint: File that the state is written to every `checkpoint_steps` steps and at the
            end. None keeps nothing.
        checkpoint_steps: What a kill can lose.
        stop_at: Number of steps to stop after, to be continued later; all of them when None.
        progress: Called with the number of finished steps after each checkpoint interval.

    Returns:
        The state; when it is finished, `state.averaged_flow()` is the generator.

    Raises:
        ValueError: As `EventCoordinates.fit`.
        GenampError: The checkpoint is damaged or of another task, the loss is not finite, or there
            is no C++ compiler for a training that is compiled.
    """
    with one_thread():
        start = time.process_time()
        state = FlowMatchingState(task)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint)
        earlier = state.cpu_seconds
        last = task.training.n_steps if stop_at is None else min(stop_at, task.training.n_steps)
        while state.step < last:
            state.advance()
            if state.step % checkpoint_steps == 0 or state.step == last:
                state.cpu_seconds = earlier + time.process_time() - start
                if checkpoint is not None:
                    state.save(checkpoint)
                if progress is not None:
                    progress(state.step)
        return state


def _new_optimisers(
    parameters: Mapping[str, Tensor], training: FlowMatchingTraining
) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon for the matrices of the network's blocks if it is wanted."""
    by_muon, by_adam = [], []
    for item in parameters.items():
        in_block = "blocks." in item[0] and item[1].ndim == 2
        (by_muon if in_block and training.optimiser == "muon" else by_adam).append(item)
    common = {"lr": 0.0, "weight_decay": training.weight_decay}
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(by_adam, fused=True, **common)]
    if by_muon:
        # Steps as long as those of AdamW, so that one learning rate is for both.
        optimisers.append(torch.optim.Muon(by_muon, adjust_lr_fn="match_rms_adamw", **common))
    return optimisers


def _copies(momenta: np.ndarray, task: FlowMatchingTask, seed: int) -> np.ndarray:
    """Draw orders of the particles of events that are as good, (n_copies, n, n_particles, 4)."""
    training = task.training
    symmetric = np.array(
        exchanges(momenta.shape[1]) if training.augment else [range(momenta.shape[1])]
    )
    assigned = assignments(momenta.shape[1])[: None if training.chi2_scale else 1]
    n_copies = 1 if len(symmetric) * len(assigned) == 1 else _N_COPIES
    rng = np.random.default_rng(seed)
    cumulative = np.ones((len(momenta), 1))
    if training.chi2_scale:
        chi2 = assignment_chi2(momenta)
        likelihood = np.exp(-(chi2 - chi2.min(1, keepdims=True)) / training.chi2_scale)
        cumulative = np.cumsum(likelihood, axis=1) / likelihood.sum(1, keepdims=True)
    copies = np.empty((n_copies, *momenta.shape))
    for copy in copies:
        which = (cumulative[:, :-1] < rng.random((len(momenta), 1))).sum(axis=1)
        order = np.take_along_axis(
            assigned[which], symmetric[rng.integers(len(symmetric), size=len(momenta))], axis=1
        )
        copy[:] = np.take_along_axis(momenta, order[..., None], axis=1)
    return copies


def _require_compiler() -> None:
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise GenampError(
            "flow matching: `compile` needs a C++ compiler, got neither g++ nor clang++; install "
            "one, or train with `compile` false (--no-compile)"
        )
