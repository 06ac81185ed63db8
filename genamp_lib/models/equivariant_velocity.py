"""Velocities that turn with the event: L-GATr and LLoCa, from their authors' packages.

They see four-momenta and predict a four-vector for each particle, from which the velocities of eta
and phi follow; the velocities of log_pt and log_mass are scalars. The beam and the time direction
are given to them as reference vectors, which leaves the rotations about the beam.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genamp_lib.models.event_coordinates import LARGEST_ETA, EventCoordinates
from genamp_lib.models.transformer_velocity import Extra, Scalars, along

if TYPE_CHECKING:
    from genamp_lib.models.velocity import VelocitySettings

# (energy, px, py, pz) of the two beams and of the time direction.
_REFERENCES = ((1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0))
_METRIC = (1.0, -1.0, -1.0, -1.0)


class _FourVectorVelocity(nn.Module):
    """What the equivariant networks share: their inputs, and velocities from their outputs."""

    def __init__(self, coordinates: EventCoordinates, extra: Extra) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.scalars = Scalars(coordinates.n_particles, extra[0])
        self.n_directions = extra[1]
        self.register_buffer("references", torch.tensor(_REFERENCES))

    @property
    def n_scalars_out(self) -> int:
        """Scalars that the network predicts for a particle, besides one four-vector."""
        return 2 + self.n_directions

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


class LGATrSlimVelocity(_FourVectorVelocity):
    """L-GATr with vectors and scalars only (lgatr.LGATrSlim)."""

    def __init__(
        self, settings: VelocitySettings, coordinates: EventCoordinates, extra: Extra
    ) -> None:
        from lgatr import LGATrSlim

        super().__init__(coordinates, extra)
        self.network = LGATrSlim(
            num_blocks=settings.n_blocks,
            in_v_channels=2 + len(_REFERENCES),
            out_v_channels=1,
            hidden_v_channels=settings.n_vectors,
            in_s_channels=self.scalars.n_channels,
            out_s_channels=self.n_scalars_out,
            hidden_s_channels=settings.width,
            num_heads=settings.n_heads,
        )

    def outputs(self, coordinates: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's vectors and scalars."""
        return self.network(self.vectors(coordinates), scalars)


class LGATrVelocity(_FourVectorVelocity):
    """L-GATr with all multivectors (lgatr.LGATr); ten times slower on a processor."""

    def __init__(
        self, settings: VelocitySettings, coordinates: EventCoordinates, extra: Extra
    ) -> None:
        from lgatr import LGATr

        super().__init__(coordinates, extra)
        self.network = LGATr(
            num_blocks=settings.n_blocks,
            in_mv_channels=2 + len(_REFERENCES),
            out_mv_channels=1,
            hidden_mv_channels=settings.n_vectors,
            in_s_channels=self.scalars.n_channels,
            out_s_channels=self.n_scalars_out,
            hidden_s_channels=settings.width,
            attention={"num_heads": settings.n_heads},
            mlp={},
        )

    def outputs(self, coordinates: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's vectors and scalars."""
        from lgatr import embed_vector, extract_vector

        multivectors, scalars = self.network(embed_vector(self.vectors(coordinates)), scalars)
        return extract_vector(multivectors), scalars


class LLoCaVelocity(_FourVectorVelocity):
    """A transformer in local frames that a small equivariant network predicts (lloca)."""

    def __init__(
        self, settings: VelocitySettings, coordinates: EventCoordinates, extra: Extra
    ) -> None:
        from lloca.backbone.transformer import Transformer
        from lloca.equivectors.mlp import MLPVectors
        from lloca.framesnet.equi_frames import LearnedPDFrames

        super().__init__(coordinates, extra)
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
                256, coordinates.n_particles, 4, generator=torch.Generator().manual_seed(0)
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
