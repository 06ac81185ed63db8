"""Velocity networks of flow matching: transformer, L-GATr and LLoCa. Not the flow: flow_matching.

All have the same call: coordinates (n, n_particles, 4) and times (n,) in, velocities of the
coordinates (n, n_particles, 4) out, in the order of models.event_coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from genamp_lib.models.equivariant_velocity import (
    LGATrSlimVelocity,
    LGATrVelocity,
    LLoCaVelocity,
)
from genamp_lib.models.event_coordinates import EventCoordinates
from genamp_lib.models.transformer_velocity import TransformerVelocity

Architecture = Literal["transformer", "lgatr-slim", "lgatr", "lloca"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)


@dataclass(frozen=True)
class VelocitySettings:
    """Architecture and size of a velocity network.

    Attributes:
        architecture: "transformer"; "lgatr-slim", L-GATr with vectors and scalars only, the one
            for processors; "lgatr", with all multivectors, for a GPU; "lloca".
        n_blocks: Transformer blocks.
        n_heads: Attention heads.
        width: Channels of a particle (transformer), scalars (the L-GATrs); of LLoCa 12 channels
            are a head's, four scalars and two vectors, so that it must be 12 `n_heads`.
        n_vectors: Vector or multivector channels of the L-GATrs.
        frame_width: Hidden channels of the network that predicts LLoCa's frames.
    """

    architecture: Architecture = "transformer"
    n_blocks: int = 3
    n_heads: int = 4
    width: int = 48
    n_vectors: int = 8
    frame_width: int = 32

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"`architecture` must be one of {', '.join(ARCHITECTURES)}, "
                f"got {self.architecture!r}."
            )
        for name in ("n_blocks", "n_heads", "width", "n_vectors", "frame_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.width % self.n_heads:
            raise ValueError(
                f"`width` must be a multiple of `n_heads` = {self.n_heads}, got {self.width}."
            )
        if self.architecture == "lloca" and self.width != 12 * self.n_heads:
            raise ValueError(
                f"`width` must be 12 `n_heads` = {12 * self.n_heads} for lloca, got {self.width}."
            )


def new_velocity(
    settings: VelocitySettings,
    coordinates: EventCoordinates,
    *,
    n_seen: int = 0,
    n_directions: int = 0,
) -> nn.Module:
    """Return an untrained velocity network; starting values are drawn from torch's generator.

    It is called with coordinates (n, n_particles, 4), times (n,), numbers about the event (n,
    n_seen), and directions (n, n_directions, n_particles, 4): each particle's velocity is the sum
    of its own and of steps along its directions. Numbers and directions must not change in a
    rotation about the beam, but for the shift of phi.

    Args:
        settings: Architecture and size.
        coordinates: Fitted ones.
        n_seen: Numbers about the event.
        n_directions: Directions.

    >>> import torch
    >>> coordinates = EventCoordinates(6, pt_min=22.0)
    >>> network = new_velocity(VelocitySettings(width=8, n_blocks=1), coordinates)
    >>> network(torch.zeros(5, 6, 4), torch.zeros(5)).shape
    torch.Size([5, 6, 4])
    """
    kinds = {
        "transformer": TransformerVelocity,
        "lgatr-slim": LGATrSlimVelocity,
        "lgatr": LGATrVelocity,
        "lloca": LLoCaVelocity,
    }
    return kinds[settings.architecture](settings, coordinates, (n_seen, n_directions))
