"""What an ensemble is to be fitted to, and how; not the fit itself: training.ensemble."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from genamp_lib._project import sha256_of_text
from genamp_lib.models.mixture_decoder import MixtureTransformerSettings
from genamp_lib.models.posterior import PosteriorSettings
from genamp_lib.training.artefacts import Stage

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
