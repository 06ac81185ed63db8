"""Sharp observables of top pairs and their gradients in the coordinates of networks.

Masses of both W, both tops and the pair, the pair's transverse momentum, and the smallest distance
of two particles: what the data are sharp in, and complicated functions of the momenta of jets. Not
for reading, and not for other events; what a classifier sees is in datasets.top_pair_kinematics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genamp_lib.models.event_coordinates import (
    ETA,
    PHI,
    SCALE,
    EventCoordinates,
    wrapped,
)

# Members of both W, both tops and the pair, and typical masses in GeV.
_MEMBERS = ((1, 2), (4, 5), (0, 1, 2), (3, 4, 5), (0, 1, 2, 3, 4, 5))
_TYPICAL = (80.0, 80.0, 180.0, 180.0, 500.0)
# One unit of the logarithms of masses, and of the pair's pt in GeV.
_LOG_WIDTH, _PT_WIDTH = 0.4, 40.0
# Of distances, and how much two of them differ if only the smaller one counts.
_DISTANCE_WIDTH, _SOFTNESS = 0.25, 0.05
# Values beyond are no top pair.
LARGEST_OBSERVABLE = 12.0
N_OBSERVABLES = len(_MEMBERS) + 3


class EventObservables(nn.Module):
    """Compute five masses, the pair's pt along and across the first top's, and a distance.

    Logarithms of the masses, and of both tops' masses their mean and their difference; of the
    distances of particles a smooth function close to the smallest. Each in a unit of its own, of
    about the width of the data. None changes in a rotation about the beam.

    Args:
        coordinates: Fitted ones.

    >>> coordinates = EventCoordinates(6, pt_min=22.0)
    >>> values, gradients = EventObservables(coordinates)(torch.randn(5, 6, 4))
    >>> values.shape, gradients.shape
    (torch.Size([5, 8]), torch.Size([5, 8, 6, 4]))
    """

    def __init__(self, coordinates: EventCoordinates) -> None:
        super().__init__()
        self.coordinates = coordinates
        members = torch.zeros(len(_MEMBERS), coordinates.n_particles)
        for row, of_mass in zip(members, _MEMBERS, strict=True):
            row[list(of_mass)] = 1.0
        self.register_buffer("members", members, persistent=False)
        pairs = torch.triu_indices(*2 * (coordinates.n_particles,), 1)
        which = torch.eye(coordinates.n_particles)
        self.register_buffer("pairs", which[pairs[0]] - which[pairs[1]], persistent=False)
        self.register_buffer("typical", torch.tensor(_TYPICAL) / SCALE, persistent=False)
        # Both tops have almost the same mass: mean and difference in place of two masses.
        combined = torch.eye(N_OBSERVABLES)
        combined[2:4, 2:4] = torch.tensor([[0.5, 0.5], [1.0, -1.0]])
        self.register_buffer("combined", combined, persistent=False)
        self.register_buffer("metric", torch.tensor([1.0, -1.0, -1.0, -1.0]), persistent=False)

    def forward(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (n, 8) and their gradients (n, 8, n_particles, 4).

        Args:
            coordinates: Shape (n, n_particles, 4).
        """
        momenta, jacobian = self.coordinates.four_momenta_and_gradients(coordinates)
        sums = self.members @ momenta  # (n, 5, 4)
        squared = (sums**2 * self.metric).sum(-1).clamp_min(1e-6)
        log_mass = 0.5 * squared.log() - self.typical.log()
        by_mass = sums * self.metric / squared[..., None]
        first, pair = sums[:, 2, 1:3], sums[:, 4, 1:3]
        along = nn.functional.normalize(first, dim=-1)
        axes = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], -1)], 1)  # (n, 2, 2)
        pt = (axes @ pair[..., None])[..., 0]
        distance, by_angles = self._distance(coordinates)
        values = torch.cat([log_mass / _LOG_WIDTH, pt * (SCALE / _PT_WIDTH), distance], 1)
        by_pt = nn.functional.pad(axes, (1, 1)) * (SCALE / _PT_WIDTH)
        by_momentum = torch.cat([by_mass / _LOG_WIDTH, by_pt], 1)  # (n, N_OBSERVABLES - 1, 4)
        members = torch.cat([self.members, self.members[-1:].expand(2, -1)])
        # The chain rule, for the particles that an observable is of.
        gradients = by_momentum[:, None] @ jacobian.transpose(-1, -2)
        gradients = torch.cat([gradients.transpose(1, 2) * members[..., None], by_angles], 1)
        values = (values @ self.combined.T).clamp(-LARGEST_OBSERVABLE, LARGEST_OBSERVABLE)
        return values, (self.combined @ gradients.flatten(2)).unflatten(2, (-1, 4))

    def _distance(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest distance of two particles (n, 1) and (n, 1, n_particles, 4)."""
        eta = coordinates[..., ETA] @ self.pairs.T
        phi = wrapped(coordinates[..., PHI] @ self.pairs.T)
        distance = torch.sqrt(eta**2 + phi**2 + 1e-6)
        smallest = -_SOFTNESS * torch.logsumexp(-distance / _SOFTNESS, 1, keepdim=True)
        weights = torch.softmax(-distance / _SOFTNESS, 1) / (_DISTANCE_WIDTH * distance)
        gradients = torch.zeros_like(coordinates)
        gradients[..., ETA] = (weights * eta) @ self.pairs
        gradients[..., PHI] = (weights * phi) @ self.pairs
        return smallest / _DISTANCE_WIDTH, gradients[:, None]
