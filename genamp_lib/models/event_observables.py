"""What a network is told of a top pair besides its momenta, and the directions that change it.

Masses of both W, both tops and the pair, and the pair's transverse momentum are sharp features of
the data and complicated functions of a network's coordinates. Here they are inputs, and their
gradients are directions that a velocity can have. Not for other events.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genamp_lib.models.event_coordinates import LARGEST_ETA, LARGEST_LOG, SCALE, EventCoordinates

# Members of both W, both tops and the pair, and typical masses in GeV.
_MEMBERS = ((1, 2), (4, 5), (0, 1, 2), (3, 4, 5), (0, 1, 2, 3, 4, 5))
_TYPICAL = (80.0, 80.0, 180.0, 180.0, 500.0)
# Widths of the logarithms of masses, and of the pair's pt in GeV.
_LOG_WIDTH, _PT_WIDTH = 0.4, 40.0
# Values beyond are no top pair.
_LARGEST = 6.0
# Squared gradients far smaller have no direction.
_SMALLEST = 0.05
N_OBSERVABLES = len(_MEMBERS) + 2
# Widths of the observables in the data, standardised: what a velocity has to hit at the end.
_WIDTHS = (0.2, 0.2, 0.3, 0.3, 1.0, 0.5, 0.5)


class EventObservables(nn.Module):
    """Compute observables of top pairs and their gradients with respect to coordinates.

    The logarithms of five masses, and the two components of the pair's pt along and across that of
    the first top. None changes in a rotation about the beam.

    Args:
        coordinates: Fitted ones.

    >>> coordinates = EventCoordinates(6, pt_min=22.0)
    >>> seen, directions = EventObservables(coordinates)(torch.randn(5, 6, 4), torch.rand(5))
    >>> seen.shape, directions.shape
    (torch.Size([5, 21]), torch.Size([5, 6, 14, 4]))
    """

    def __init__(self, coordinates: EventCoordinates) -> None:
        super().__init__()
        self.coordinates = coordinates
        members = torch.zeros(len(_MEMBERS), coordinates.n_particles)
        for row, of_mass in zip(members, _MEMBERS, strict=True):
            row[list(of_mass)] = 1.0
        self.register_buffer("members", members)
        self.register_buffer("typical", torch.tensor(_TYPICAL) / SCALE)
        self.register_buffer("widths", torch.tensor(_WIDTHS))
        self.register_buffer("metric", torch.tensor([1.0, -1.0, -1.0, -1.0]))

    def forward(self, coordinates: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a network sees, and directions.

        Events are spread by t |df| at time t. To arrive where an observable f is sharp they need a
        velocity along its direction of (f - f at the end) t |df|^2 / (width^2 + t^2 |df|^2), if all
        is normal. The second factor, large at small t, is the gain.

        Args:
            coordinates: Shape (n, n_particles, 4).
            time: Shape (n,).

        Returns:
            Observables, standardised, then logarithms of their squared gradients and of one plus
            their gains: (n, 3 N_OBSERVABLES).
            Directions (n, n_particles, 2 N_OBSERVABLES, 4): moving all coordinates along one by a
            step changes its observable by that step; then the same times the gains.
        """
        momenta, jacobian = self._momenta(coordinates)
        sums = self.members @ momenta  # (n, 5, 4)
        squared = (sums**2 * self.metric).sum(-1).clamp_min(1e-6)
        log_mass = 0.5 * squared.log() - self.typical.log()
        by_mass = sums * self.metric / squared[..., None]
        first, pair = sums[:, 2, 1:3], sums[:, 4, 1:3]
        along = nn.functional.normalize(first, dim=-1)
        axes = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], -1)], 1)  # (n, 2, 2)
        values = torch.cat(
            [log_mass / _LOG_WIDTH, (axes @ pair[..., None])[..., 0] * (SCALE / _PT_WIDTH)], 1
        ).clamp(-_LARGEST, _LARGEST)
        by_pt = nn.functional.pad(axes, (1, 1)) * (SCALE / _PT_WIDTH)
        by_momentum = torch.cat([by_mass / _LOG_WIDTH, by_pt], 1)  # (n, 7, 4)
        members = torch.cat([self.members, self.members[-1:].expand(2, -1)])
        # (n, n_particles, 7, 4): the chain rule, for the particles that an observable is of.
        gradients = (by_momentum[:, None] @ jacobian.transpose(-1, -2)) * members.T[..., None]
        norms = gradients.square().sum((1, 3))
        normals = gradients / (norms + _SMALLEST)[:, None, :, None]
        time = time[:, None]
        gains = time * norms / (self.widths**2 + time**2 * norms)
        seen = torch.cat([values, norms.clamp_min(1e-4).log(), gains.log1p()], 1)
        return seen, torch.cat([normals, gains[:, None, :, None] * normals], 2)

    def _momenta(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return (energy, px, py, pz) in units of SCALE, and (.., 4, 4): rows by coordinate."""
        mean, scale = (x.to(coordinates) for x in (self.coordinates.mean, self.coordinates.scale))
        log_pt, eta, phi, log_mass = (coordinates * scale + mean).unbind(-1)
        above = log_pt.clamp_max(LARGEST_LOG).exp()
        pt = above + self.coordinates.pt_min / SCALE
        mass_squared = log_mass.clamp_max(LARGEST_LOG).exp()
        eta = eta.clamp(-LARGEST_ETA, LARGEST_ETA)
        sinh, cosh, sin, cos = eta.sinh(), eta.cosh(), phi.sin(), phi.cos()
        energy = torch.sqrt(mass_squared + (pt * cosh) ** 2)
        none = torch.zeros_like(pt)
        momenta = torch.stack([energy, pt * cos, pt * sin, pt * sinh], -1)
        rows = (
            (above * scale[:, 0])[..., None]
            * torch.stack([pt * cosh**2 / energy, cos, sin, sinh], -1),
            torch.stack([pt**2 * cosh * sinh / energy, none, none, pt * cosh], -1),
            torch.stack([none, -pt * sin, pt * cos, none], -1),
            torch.stack([mass_squared / (2 * energy) * scale[:, 3], none, none, none], -1),
        )
        return momenta, torch.stack(rows, -2)
