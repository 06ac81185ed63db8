"""What one training of a flow-matching generator follows from. Not the training: flow_matching."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike

from genamp_lib.models.flow_matching import FlowMatchingSettings

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
