"""Networks that predict the velocity of an event's coordinates: transformer, L-GATr and LLoCa.

All are called with coordinates (n, n_particles, 4) and times (n,), and with what is known of an
event, see `new_velocity`; they return velocities of that shape. The transformer sees coordinates.
L-GATr and LLoCa, from their authors' packages, see four-momenta and predict a four-vector for each
particle, from which the velocities of eta and phi follow; those of log_pt and log_mass are scalars.
The beams and the time direction are given to them as reference vectors, which leaves the rotations
about the beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from genamp_lib.networks.fitting import check_positive
from genamp_lib.networks.top_pairs.coordinates import (
    ETA,
    LARGEST_ETA,
    LOG_MASS,
    LOG_PT,
    PHI,
    EventCoordinates,
)

Architecture = Literal["transformer", "lgatr-slim", "lgatr", "lloca"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)


@dataclass(frozen=True)
class VelocitySettings:
    """Architecture and size of a velocity network.

    Attributes:
        architecture: "transformer"; "lgatr-slim", L-GATr with vectors and scalars only, for
            processors; "lgatr", with all multivectors, for a GPU; "lloca".
        n_blocks: Number of transformer blocks.
        n_heads: Number of attention heads.
        width: Channels of a particle (transformer) or its scalars (the L-GATrs). LLoCa has 12
            channels for each head, four scalars and two vectors, and needs 12 `n_heads`.
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
        check_positive(self, "n_blocks", "n_heads", "width", "n_vectors", "frame_width")
        if self.width % self.n_heads:
            raise ValueError(
                f"`width` must be a multiple of `n_heads` = {self.n_heads}, got {self.width}."
            )
        if self.architecture == "lloca" and self.width != 12 * self.n_heads:
            raise ValueError(
                f"`width` must be 12 `n_heads` = {12 * self.n_heads} for lloca, got {self.width}."
            )


_N_FREQUENCIES = 4


class Inputs(nn.Module):
    """What every network sees of a particle and a rotation about the beam does not change."""

    def __init__(self, coordinates: EventCoordinates, n_seen: int, n_directions: int) -> None:
        super().__init__()
        self.coordinates, self.n_directions = coordinates, n_directions
        self.register_buffer("which", torch.eye(coordinates.n_particles))
        frequencies = 2 * math.pi * 0.5 * 2.0 ** torch.arange(_N_FREQUENCIES)
        self.register_buffer("frequencies", frequencies)
        self.n_channels = 3 + coordinates.n_particles + 1 + 2 * _N_FREQUENCIES + n_seen

    def forward(self, coordinates: Tensor, time: Tensor, seen: Tensor | None) -> Tensor:
        """Return scalars of each particle, (n, n_particles, n_channels)."""
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

    def __init__(self, settings: VelocitySettings, inputs: Inputs) -> None:
        super().__init__()
        self.scalars = inputs
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
        self.linear_out = nn.Linear(settings.width, 4 + inputs.n_directions)

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


# (energy, px, py, pz) of the two beams and of the time direction.
_REFERENCES = ((1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0))
_METRIC = (1.0, -1.0, -1.0, -1.0)


class _FourVectorVelocity(nn.Module):
    """What the equivariant networks share: their inputs, and velocities from their outputs."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.scalars, self.coordinates = inputs, inputs.coordinates
        self.n_scalars_out = 2 + inputs.n_directions  # besides one four-vector
        self.register_buffer("references", torch.tensor(_REFERENCES))

    def vectors(self, coordinates: Tensor) -> Tensor:
        """Return momenta, directions with pt 1, and references: (n, n_particles, 5, 4)."""
        momenta = self.coordinates.four_momenta(coordinates)
        space = momenta[..., 1:]
        pt = torch.hypot(space[..., 0], space[..., 1])[..., None]
        direction = torch.cat([space.norm(dim=-1, keepdim=True), space], -1) / pt
        particles = torch.stack([momenta, direction], -2)
        references = self.references.to(momenta).expand(*momenta.shape[:2], -1, -1)
        return torch.cat([particles, references], -2)

    def forward(
        self,
        coordinates: Tensor,
        time: Tensor,
        seen: Tensor | None = None,
        directions: Tensor | None = None,
    ) -> Tensor:
        """Return velocities (n, n_particles, 4), see `new_velocity`.

        The network's vector is the velocity of a momentum over pt, its first scalars are those of
        log_pt and log_mass:
        d phi = cos(phi) u_y - sin(phi) u_x, d eta = (u_z - sinh(eta) u_T) / cosh(eta).
        """
        vectors, scalars = self.outputs(coordinates, self.scalars(coordinates, time, seen))
        _, eta, phi, _ = coordinates.unbind(-1)
        eta = eta.clamp(-LARGEST_ETA, LARGEST_ETA)
        _, u_x, u_y, u_z = vectors[..., 0, :].unbind(-1)
        radial = phi.cos() * u_x + phi.sin() * u_y
        across = phi.cos() * u_y - phi.sin() * u_x
        by_eta = (u_z - eta.sinh() * radial) / eta.cosh()
        own = torch.stack([scalars[..., 0], by_eta, across, scalars[..., 1]], -1)
        return own + along(scalars[..., 2:], directions)


class LGATrVelocity(_FourVectorVelocity):
    """L-GATr: lgatr.LGATrSlim, or lgatr.LGATr, which is ten times slower on a processor."""

    def __init__(self, settings: VelocitySettings, inputs: Inputs) -> None:
        from lgatr import LGATr, LGATrSlim

        super().__init__(inputs)
        self.is_slim = settings.architecture == "lgatr-slim"
        kind, of = (LGATrSlim, "v") if self.is_slim else (LGATr, "mv")
        heads = {"num_heads": settings.n_heads}
        options = {
            f"in_{of}_channels": 2 + len(_REFERENCES),
            f"out_{of}_channels": 1,
            f"hidden_{of}_channels": settings.n_vectors,
            **(heads if self.is_slim else {"attention": heads, "mlp": {}}),
        }
        self.network = kind(
            num_blocks=settings.n_blocks,
            in_s_channels=inputs.n_channels,
            out_s_channels=self.n_scalars_out,
            hidden_s_channels=settings.width,
            **options,
        )

    def outputs(self, coordinates: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's vectors and scalars."""
        from lgatr import embed_vector, extract_vector

        vectors = self.vectors(coordinates)
        if self.is_slim:
            return self.network(vectors, scalars)
        multivectors, scalars = self.network(embed_vector(vectors), scalars)
        return extract_vector(multivectors), scalars


class LLoCaVelocity(_FourVectorVelocity):
    """A transformer in local frames that a small equivariant network predicts (lloca)."""

    def __init__(self, settings: VelocitySettings, inputs: Inputs) -> None:
        from lloca.backbone.transformer import Transformer
        from lloca.equivectors.mlp import MLPVectors
        from lloca.framesnet.equi_frames import LearnedPDFrames

        super().__init__(inputs)
        n_scalars = self.scalars.n_channels
        # Reference vectors are tokens of the network of frames; these are their scalars.
        self.reference_scalars = nn.Parameter(0.3 * torch.randn(len(_REFERENCES), n_scalars))
        self.frames = LearnedPDFrames(
            equivectors=partial(
                MLPVectors,
                num_scalars=n_scalars,
                hidden_channels=settings.frame_width,
                num_layers_mlp=2,
            )
        )
        self.network = Transformer(
            in_channels=n_scalars + 4 * (2 + len(_REFERENCES)),
            attn_reps="4x0n+2x1n",
            out_channels=4 + self.n_scalars_out,
            num_blocks=settings.n_blocks,
            num_heads=settings.n_heads,
            mlp_factor=2,
            preserve_variance=False,
        )
        self.register_buffer("metric", torch.tensor(_METRIC))
        # The network of frames standardises products of momenta once, by typical ones.
        with torch.no_grad():
            typical = torch.randn(
                256, self.coordinates.n_particles, 4, generator=torch.Generator().manual_seed(0)
            )
            self.frames.equivectors.init_standardization(self._tokens(typical))

    def outputs(self, coordinates: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's vectors and scalars."""
        from lloca.framesnet.frames import Frames

        n, n_particles = scalars.shape[:2]
        references = self.reference_scalars.expand(n, -1, -1)
        tokens = torch.cat([scalars, references], 1)
        # Frames and what is seen in them are float64: boosts along the beam cancel large numbers.
        precise = coordinates.double()
        matrices = self.frames(self._tokens(precise), scalars=tokens).matrices[:, :n_particles]
        local = (self.vectors(precise) @ matrices.transpose(-1, -2)).flatten(-2)
        # Energies of forward particles are hundreds of times their pt.
        local = (local.sign() * local.abs().log1p()).float()
        # A Lorentz transformation's inverse is its transpose between two metrics.
        inverse = self.metric[:, None] * matrices.transpose(-1, -2) * self.metric
        frames = Frames(matrices.float(), inv=inverse.float(), det=torch.ones(matrices.shape[:-2]))
        outputs = self.network(torch.cat([scalars, local], -1), frames)
        vectors, scalars = outputs.split([4, self.n_scalars_out], -1)
        vectors = vectors.unflatten(-1, (-1, 4)) @ inverse.float().transpose(-1, -2)
        return vectors, scalars

    def _tokens(self, coordinates: Tensor) -> Tensor:
        momenta = self.coordinates.four_momenta(coordinates)
        return torch.cat([momenta, self.references.to(momenta).expand(len(momenta), -1, -1)], 1)


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
        coordinates: Fitted coordinates.
        n_seen: Number of numbers about the event.
        n_directions: Number of directions.

    >>> coordinates = EventCoordinates(6)
    >>> network = new_velocity(VelocitySettings(width=8, n_blocks=1), coordinates)
    >>> network(torch.zeros(5, 6, 4), torch.zeros(5)).shape
    torch.Size([5, 6, 4])
    """
    kinds = {
        "transformer": TransformerVelocity,
        "lgatr-slim": LGATrVelocity,
        "lgatr": LGATrVelocity,
        "lloca": LLoCaVelocity,
    }
    return kinds[settings.architecture](settings, Inputs(coordinates, n_seen, n_directions))
