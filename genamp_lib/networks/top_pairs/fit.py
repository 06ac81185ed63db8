"""Fit one generator of top pairs: what a training follows from, and its steps.

Networks run in float32 on one thread. The random numbers of a step follow from the seed and the
step, so that a stopped and continued training has the same parameters, bit for bit, as one that
was never stopped on the same class of machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import (
    ABS_ETA_MAX,
    DELTA_R_MIN,
    PT_MIN,
    assignment_chi2,
    assignments,
    exchanges,
    passes_cuts,
)
from genamp_lib.networks.fitting import check_positive, fit_by_steps, one_thread, split_events
from genamp_lib.networks.top_pairs.coordinates import ETA, PHI, wrapped
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings

Optimiser = Literal["muon", "adamw"]
# Steps whose mean loss is one point of the loss curve, after which the validation loss is taken.
LOSS_STEPS = 500
# Steps over which the learning rate rises, and those that the kept parameters are averaged over.
N_WARMUP, AVERAGE_STEPS = 200, 500
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 5.0  # norm to which gradients are scaled down
VALIDATION_FRACTION = 0.05
# Orders in which each event is kept, drawn once.
_N_COPIES = 32
# Training events that may fail the cuts by rounding.
_MOST_FAILING = 0.01
# Streams of random numbers, by the last entry of their seeds.
_START, _ORDER, _STEP, _VALIDATION, _COPIES = 0, 1, 2, 3, 5


@dataclass(frozen=True)
class FlowMatchingTraining:
    """How a generator of top pairs is fitted.

    Attributes:
        n_steps: Number of steps of the optimiser.
        batch_size: Events per step.
        optimiser: "adamw"; "muon", the matrices of the network's blocks by Muon, which makes all
            directions of a step equally long, and all else by AdamW.
        learning_rate: Learning rate at its peak; from there it falls to zero along a cosine.
        chi2_scale: Scale of the chi^2 in exp(-chi^2 / chi2_scale), the probability of an assignment
            of jets to top quarks with which an event stands in the batches. The density then has
            no edge where another assignment gets the smallest chi^2; generated events are assigned
            anew. 2 is the likelihood of a chi^2; 0 keeps the assignments that events come with.
        compile: Make machine code of the network with torch.compile: half a minute, and steps take
            two thirds of the time. Numbers differ by rounding from those without. Needs a C++
            compiler.
    """

    n_steps: int = 20_000
    batch_size: int = 512
    optimiser: Optimiser = "muon"
    learning_rate: float = 4e-3
    chi2_scale: float = 2.0
    compile: bool = True

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(Optimiser):
            raise ValueError(
                f"`optimiser` must be one of {', '.join(get_args(Optimiser))}, "
                f"got {self.optimiser!r}."
            )
        check_positive(self, "n_steps", "batch_size", "learning_rate")
        if not self.chi2_scale >= 0.0:
            raise ValueError(f"`chi2_scale` must not be negative, got {self.chi2_scale}.")


@dataclass(frozen=True)
class FlowMatchingTask:
    """One training: events, generator, schedule, seed.

    Attributes:
        train: Momenta of training events, shape (n_train, n_particles, 4): pt (GeV), eta, phi,
            mass (GeV).
        flow: Settings of the generator.
        training: Settings of the training.
        seed: Seed of the starting values, the batches and, without `split_seed`, of the division.
        bootstrap: Whether events are drawn from `train` with replacement.
        split_seed: Seed of the division into fitted and validation events, and of the bootstrap;
            `seed` when None.
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
        n_failing = int((~passes_cuts(self.train)).sum())
        if n_failing > _MOST_FAILING * shape[0]:
            raise ValueError(
                f"`train` must pass the cuts pt > {PT_MIN:g} GeV, |eta| < {ABS_ETA_MAX:g}, "
                f"distance > {DELTA_R_MIN:g}, got {n_failing} of {shape[0]} events that do not; "
                "drop them."
            )

    @property
    def key(self) -> str:
        """First 16 hexadecimal digits of a hash of all that the numbers depend on."""
        events = np.ascontiguousarray(self.train, dtype=np.float64)
        # Names and entries as published generators have them, so that their keys stay: what was a
        # setting and is a constant now, and a setting that had another name.
        flow = asdict(self.flow)
        flow |= {"pt_min": PT_MIN, "eta_max": ABS_ETA_MAX, "delta_r_min": DELTA_R_MIN}
        flow["skip"] = flow.pop("known_velocity")
        training = asdict(self.training)
        training |= {"n_warmup": N_WARMUP, "average_steps": AVERAGE_STEPS, "augment": True}
        training |= {"weight_decay": WEIGHT_DECAY, "largest_gradient": LARGEST_GRADIENT}
        training |= {"validation_fraction": VALIDATION_FRACTION}
        described = {name: getattr(self, name) for name in ("seed", "bootstrap", "split_seed")}
        described["train"] = hashlib.sha256(events.tobytes()).hexdigest()
        described |= {"flow": flow, "training": training}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def fit_flow_matching(
    task: FlowMatchingTask, *, checkpoint: Path | None = None
) -> dict[str, np.ndarray]:
    """Fit a generator; continue from a checkpoint if there is one.

    The parameters that are kept are a moving average over the last steps.

    Args:
        task: What is fitted.
        checkpoint: File that the state is written to every 500 steps; None keeps nothing.

    Returns:
        Arrays of the generator, as `FlowMatching.arrays`; "losses", shape (2, n_points), the mean
        loss of every `LOSS_STEPS` steps and the validation loss after them; "cpu_seconds", the
        processor time of the training.

    Raises:
        ValueError: As `EventCoordinates.fit`.
        GenampError: The checkpoint is damaged or of another task, the loss is not finite, or there
            is no C++ compiler for a training that is compiled.
    """
    training = task.training
    if training.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise GenampError(
            "flow matching: `compile` needs a C++ compiler, got neither g++ nor clang++; install "
            "one, or train with `compile` false"
        )
    with one_thread():
        fit = _Fit(task)
        losses = fit_by_steps(
            fit.gradients,
            fit.optimisers,
            fit.tensors,
            name="flow matching",
            n_steps=training.n_steps,
            learning_rate=training.learning_rate,
            n_warmup=N_WARMUP,
            loss_steps=LOSS_STEPS,
            after=fit.after,
            checkpoint=checkpoint,
            key=task.key,
        )
    train_loss = torch.stack([part.mean() for part in losses.split(LOSS_STEPS)])
    arrays = {name: array.detach().numpy() for name, array in fit.averaged.arrays().items()}
    arrays["losses"] = torch.stack([train_loss, fit.validation_loss]).numpy()
    return arrays | {"cpu_seconds": fit.cpu_seconds.numpy()}


class _Fit:
    """Events, network, moving average and optimisers of a training."""

    def __init__(self, task: FlowMatchingTask) -> None:
        self.clock = time.process_time()
        self.task = task
        momenta = np.array(task.train, dtype=np.float64)
        parts = split_events(
            len(momenta),
            validation_fraction=VALIDATION_FRACTION,
            seed=task.seed if task.split_seed is None else task.split_seed,
            bootstrap=task.bootstrap,
        )
        scale, seed = task.training.chi2_scale, self._seed(_COPIES)
        copies, validation = (
            torch.from_numpy(_copies(momenta[part], chi2_scale=scale, seed=seed)) for part in parts
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(_START))
            self.flow = FlowMatching(task.flow, copies.flatten(0, 1))
            self.averaged = FlowMatching(task.flow, None)
        self.averaged.load_arrays(self.flow.arrays())
        # Shape (n_copies, n_train, n_particles, 4).
        self.events = torch.stack([self.flow.coordinates.encode(x).float() for x in copies])
        self.validation = self.flow.coordinates.encode(validation[0]).float()
        # For batches only: other numbers of events would be compiled anew.
        self.batch_loss = self.flow.loss
        if task.training.compile:
            self.batch_loss = torch.compile(self.flow.loss, dynamic=False)
        self.trained = {n: p for n, p in self.flow.named_parameters() if p.requires_grad}
        averages = dict(self.averaged.named_parameters())
        self.averages = {name: averages[name] for name in self.trained}
        self.optimisers = _new_optimisers(self.trained, task.training.optimiser)
        self.validation_loss = torch.zeros(-(-task.training.n_steps // LOSS_STEPS))
        self.cpu_seconds = torch.zeros((), dtype=torch.float64)
        self.tensors = {"validation": self.validation_loss, "cpu_seconds": self.cpu_seconds}
        for name, parameter in self.trained.items():
            self.tensors |= {f"parameter.{name}": parameter, f"average.{name}": self.averages[name]}
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def gradients(self, step: int) -> Tensor:
        """Compute the loss of a step and its gradients."""
        generator = torch.Generator().manual_seed(self._seed(step, _STEP))
        batch = self._batch(step)
        which = torch.randint(len(self.events), (len(batch),), generator=generator)
        events = _mirrored_and_turned(self.events[which, batch], generator)
        loss = self._loss(self.batch_loss, events, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), LARGEST_GRADIENT)
        return loss

    @torch.no_grad()
    def after(self, n_done: int) -> None:
        """Take the step into the average; now and then compute the validation loss of that."""
        # Short at the start, when the parameters still move fast.
        weight = max(1.0 / AVERAGE_STEPS, 1.0 / (1.0 + 0.1 * (n_done - 1)))
        torch._foreach_lerp_(list(self.averages.values()), list(self.trained.values()), weight)
        if n_done % LOSS_STEPS == 0 or n_done == self.task.training.n_steps:
            generator = torch.Generator().manual_seed(self._seed(_VALIDATION))
            loss = self._loss(self.averaged.loss, self.validation, generator)
            self.validation_loss[(n_done - 1) // LOSS_STEPS] = loss
        now = time.process_time()
        self.cpu_seconds += now - self.clock
        self.clock = now

    def _loss(self, loss, events: Tensor, generator: torch.Generator) -> Tensor:
        n = len(events)
        base = self.flow.pair(events, self.flow.base.sample(n, generator=generator))
        # One time in each of n equal parts: less noise than independent times.
        parts = torch.randperm(n, generator=generator)
        return loss(events, base, (parts + torch.rand(n, generator=generator)) / n)

    def _batch(self, step: int) -> Tensor:
        """Return the indices of the step's events; each pass takes them in another order."""
        size = min(self.task.training.batch_size, self.events.shape[1])
        number, place = divmod(step, self.events.shape[1] // size)
        if self._order[0] != number:
            rng = np.random.default_rng([self.task.seed, number, _ORDER])
            self._order = number, torch.from_numpy(rng.permutation(self.events.shape[1]))
        return self._order[1][place * size : (place + 1) * size]

    def _seed(self, *stream: int) -> int:
        words = np.random.SeedSequence([self.task.seed, *stream]).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))


def _mirrored_and_turned(events: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each event along the beam and across, and turn it: symmetries of the collisions."""
    n = len(events)
    flip = torch.randint(0, 2, (2, n), generator=generator).bool()
    turn = 2 * math.pi * torch.rand(n, 1, generator=generator)
    events = events.clone()
    events[..., ETA] = torch.where(flip[0, :, None], -events[..., ETA], events[..., ETA])
    phi = torch.where(flip[1, :, None], -events[..., PHI], events[..., PHI])
    events[..., PHI] = wrapped(phi + turn)
    return events


def _new_optimisers(
    parameters: dict[str, Tensor], optimiser: Optimiser
) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon for the matrices of the network's blocks if it is wanted."""
    by_muon, by_adam = [], []
    for item in parameters.items():
        in_block = "blocks." in item[0] and item[1].ndim == 2
        (by_muon if in_block and optimiser == "muon" else by_adam).append(item)
    common = {"lr": 0.0, "weight_decay": WEIGHT_DECAY}
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(by_adam, fused=True, **common)]
    if by_muon:
        # Steps as long as those of AdamW, so that one learning rate is for both.
        optimisers.append(torch.optim.Muon(by_muon, adjust_lr_fn="match_rms_adamw", **common))
    return optimisers


def _copies(momenta: np.ndarray, *, chi2_scale: float, seed: int) -> np.ndarray:
    """Draw orders of the particles of events that are as good, (n_copies, n, n_particles, 4)."""
    symmetric = exchanges(momenta.shape[1])
    assigned = assignments(momenta.shape[1])[: None if chi2_scale else 1]
    rng = np.random.default_rng(seed)
    chi2 = assignment_chi2(momenta)[:, : len(assigned)]
    likelihood = np.exp(-(chi2 - chi2.min(1, keepdims=True)) / (chi2_scale or 1.0))
    cumulative = np.cumsum(likelihood, axis=1) / likelihood.sum(1, keepdims=True)
    copies = np.empty((_N_COPIES, *momenta.shape))
    for copy in copies:
        which = (cumulative[:, :-1] < rng.random((len(momenta), 1))).sum(axis=1)
        order = np.take_along_axis(
            assigned[which], symmetric[rng.integers(len(symmetric), size=len(momenta))], axis=1
        )
        copy[:] = np.take_along_axis(momenta, order[..., None], axis=1)
    return copies
