"""A transformer as the velocity of flow matching, and what all such networks have for inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genamp_lib.models.event_coordinates import ETA, LOG_MASS, LOG_PT, PHI, EventCoordinates

if TYPE_CHECKING:
    from genamp_lib.models.velocity import VelocitySettings

_N_FREQUENCIES = 4
# n_seen and n_directions of `new_velocity`.
Extra = tuple[int, int]


class Scalars(nn.Module):
    """What does not change in a rotation about the beam, which particle it is, and the time."""

    def __init__(self, n_particles: int, n_seen: int) -> None:
        super().__init__()
        self.register_buffer("which", torch.eye(n_particles))
        frequencies = 2 * math.pi * 0.5 * 2.0 ** torch.arange(_N_FREQUENCIES)
        self.register_buffer("frequencies", frequencies)
        self.n_channels = 3 + n_particles + 1 + 2 * _N_FREQUENCIES + n_seen

    def forward(self, coordinates: Tensor, time: Tensor, seen: Tensor | None) -> Tensor:
        """Return them for each particle, (n, n_particles, n_channels)."""
        angle = time[:, None] * self.frequencies
        of_event = [time[:, None], angle.sin(), angle.cos(), *([] if seen is None else [seen])]
        n, n_particles = coordinates.shape[:2]
        return torch.cat(
            [
                coordinates[..., [LOG_PT, ETA, LOG_MASS]],
                self.which.expand(n, -1, -1),
                torch.cat(of_event, -1)[:, None].expand(-1, n_particles, -1),
            ],
            -1,
        )


def along(steps: Tensor, directions: Tensor | None) -> Tensor | float:
    """Return velocities along directions by `steps`, (n, n_particles, n_directions)."""
    return 0.0 if directions is None else (steps[..., None] * directions.transpose(1, 2)).sum(2)


class TransformerVelocity(nn.Module):
    """A plain transformer on the coordinates; phi enters as its sine and cosine."""

    def __init__(
        self, settings: VelocitySettings, coordinates: EventCoordinates, extra: Extra
    ) -> None:
        super().__init__()
        self.scalars = Scalars(coordinates.n_particles, extra[0])
        self.n_directions = extra[1]
        self.linear_in = nn.Linear(self.scalars.n_channels + 2, settings.width)
        block = nn.TransformerEncoderLayer(
            settings.width,
            settings.n_heads,
            dim_feedforward=2 * settings.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            block, settings.n_blocks, norm=nn.LayerNorm(settings.width), enable_nested_tensor=False
        )
        # Clones of one block start alike; each draws its own starting values.
        for parameter in self.blocks.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.linear_out = nn.Linear(settings.width, 4 + self.n_directions)

    def forward(
        self,
        coordinates: Tensor,
        time: Tensor,
        seen: Tensor | None = None,
        directions: Tensor | None = None,
    ) -> Tensor:
        """Return velocities (n, n_particles, 4), see `new_velocity`."""
        phi = coordinates[..., PHI, None]
        scalars = self.scalars(coordinates, time, seen)
        inputs = torch.cat([scalars, phi.sin(), phi.cos()], -1)
        outputs = self.linear_out(self.blocks(self.linear_in(inputs)))
        return outputs[..., :4] + along(outputs[..., 4:], directions)
