"""The part of the velocity that follows from distributions of single observables; not learned.

The velocity at x_t = (1 - t) x_0 + t x_1 is E[x_1 - x_0 | x_t] = (x_t - E[x_0 | x_t]) / t: what is
wanted is the expected start of a trajectory.

If data and base are normal, x_0 given x_t is normal with mean m and covariance P, which gives the
velocity of `NormalVelocity`. Let f be an observable and g its gradient at m. Given x_t, f(x_0) is
then about normal, with mean f(m) and variance s^2 = g P g.

Data are not normal. Let their density be that of normal events times r(f), as measured. The density
of f given x_t is then proportional to r(f) N(f; f(m), s^2), and its mean is

    E[f | x_t] = f(m) + s^2 d log r_s / df at f(m),   r_s(u) = integral of r(f) N(f; u, s^2) df,

as d N(f; u, s^2) / du = N(f; u, s^2) (f - u) / s^2. Given f as well, the mean of x_0 is
m + P g (f - f(m)) / s^2. So one observable moves m by P g d log r_s / df. Several observables f_k
move it by the sum of c_k P g_k / s_k with the c_k that give each its own mean:

    sum over k of (g_j P g_k / (s_j s_k)) c_k = s_j d log r_s,j / df_j.

The network sees the observables, and can move along all P g_k as well. The observables are what top
pairs are sharp in: masses of both W, both tops and the pair, the pair's transverse momentum, and
the smallest distance of two jets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genamp_lib.networks.top_pairs.coordinates import (
    ETA,
    PHI,
    SCALE,
    EventCoordinates,
    NormalBase,
    NormalVelocity,
    wrapped,
)

# Members of both W, both tops and the pair, and typical masses in GeV.
_MEMBERS = ((1, 2), (4, 5), (0, 1, 2), (3, 4, 5), (0, 1, 2, 3, 4, 5))
_TYPICAL = (80.0, 80.0, 180.0, 180.0, 500.0)
# Units of log mass, pt (GeV) and distance, about the widths of normal events: tables of one range
# and step serve all observables.
_LOG_WIDTH, _PT_WIDTH, _DISTANCE_WIDTH = 0.4, 40.0, 0.25
# Distances that differ by more than this leave only the smaller one; a tenth of the cut.
_SOFTNESS = 0.05
# Values beyond are no top pair: a mass would be a factor exp(0.4 12) = 120 off.
LARGEST_OBSERVABLE = 12.0
N_OBSERVABLES = len(_MEMBERS) + 3

# Smearings s of the tables, logarithmically: from about that of the kernel below, to one after
# which nothing is left of r.
_SMALLEST_S, _LARGEST_S, _N_S = 0.08, 4.0, 12
# Values of the tables; the step is that of the smallest s.
_LOWEST, _HIGHEST, _STEP = -8.0, 8.0, 0.1
# Bins of a hundredth. Densities are smeared by six of them, cut off at four standard deviations, so
# that 10,000 events do.
_EDGES = torch.linspace(-LARGEST_OBSERVABLE, LARGEST_OBSERVABLE, 2401).double()
_KERNEL, _N_KERNEL = 0.06, 24
# Normal events that densities are compared with, and a density added to both, two of these events
# in a bin: ratios go to one where there are few events.
_N_NORMAL, _FEW, _SEED = 200_000, 1e-3, 1
# Part of the variance added on the diagonal: observables that share jets have almost the same
# gradients, and their steps would grow against each other.
_RIDGE = 0.2
# Directions are divided by the time.
_SMALLEST_TIME = 1e-3


class EventObservables(nn.Module):
    """Compute five masses, the pair's pt along and across the first top's, and a distance.

    Logarithms of the masses, and of both tops' masses their mean and their difference; of the
    distances of particles a smooth function close to the smallest. Each in a unit of its own, of
    about the width of the data. None changes in a rotation about the beam.

    >>> coordinates = EventCoordinates(6)
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

    def forward(
        self, coordinates: Tensor, *, gradients: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return values (n, 8), and if wanted gradients (n, 8, n_particles, 4), at coordinates."""
        momenta, jacobian = self.coordinates.four_momenta_and_gradients(
            coordinates, gradients=gradients
        )
        sums = self.members @ momenta  # (n, 5, 4)
        squared = (sums**2 * self.metric).sum(-1).clamp_min(1e-6)
        log_mass = 0.5 * squared.log() - self.typical.log()
        first, pair = sums[:, 2, 1:3], sums[:, 4, 1:3]
        along = nn.functional.normalize(first, dim=-1)
        axes = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], -1)], 1)  # (n, 2, 2)
        pt = (axes @ pair[..., None])[..., 0]
        distance, by_angles = self._distance(coordinates)
        values = torch.cat([log_mass / _LOG_WIDTH, pt * (SCALE / _PT_WIDTH), distance], 1)
        values = (values @ self.combined.T).clamp(-LARGEST_OBSERVABLE, LARGEST_OBSERVABLE)
        if jacobian is None:
            return values, None
        by_mass = sums * self.metric / squared[..., None]
        by_pt = nn.functional.pad(axes, (1, 1)) * (SCALE / _PT_WIDTH)
        by_momentum = torch.cat([by_mass / _LOG_WIDTH, by_pt], 1)  # (n, N_OBSERVABLES - 1, 4)
        members = torch.cat([self.members, self.members[-1:].expand(2, -1)])
        # The chain rule, for the particles that an observable is of.
        by_coordinate = (by_momentum[:, None] @ jacobian.transpose(-1, -2)).transpose(1, 2)
        by_coordinate = torch.cat([by_coordinate * members[..., None], by_angles], 1)
        return values, (self.combined @ by_coordinate.flatten(2)).unflatten(2, (-1, 4))

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


class ObservableVelocity(nn.Module):
    """`NormalVelocity`, and what single observables add to it."""

    def __init__(self, coordinates: EventCoordinates, base: NormalBase) -> None:
        super().__init__()
        self.observables = EventObservables(coordinates)
        self.normal = NormalVelocity(coordinates, base)
        variances = torch.full((2, coordinates.n_particles, 4), math.pi**2 / 3)
        for row, matrix in zip(
            variances, (coordinates.covariance, base.root @ base.root.T), strict=True
        ):
            row[..., [0, 1, 3]] = matrix.diag().float().unflatten(0, (-1, 3))
        # Of the data and the base; angles have those of a uniform one.
        self.register_buffer("variances", variances)
        n_values = round((_HIGHEST - _LOWEST) / _STEP) + 1
        self.register_buffer("scores", torch.zeros(N_OBSERVABLES, _N_S, n_values))

    def fit(self, events: Tensor) -> None:
        """Take the densities of observables from coordinates of events, (n, n_particles, 4)."""
        base = NormalBase(self.observables.coordinates)
        normal = base.sample(_N_NORMAL, generator=torch.Generator().manual_seed(_SEED))
        counts, expected = (self._counts(x) for x in (events.float(), normal))
        # Towards one where both have few events.
        ratios = (counts + _FEW) / (expected + _FEW)
        middles = 0.5 * (_EDGES[1:] + _EDGES[:-1])
        at = _LOWEST + _STEP * torch.arange(self.scores.shape[-1], dtype=torch.float64)
        smearings = torch.logspace(math.log10(_SMALLEST_S), math.log10(_LARGEST_S), _N_S)
        # The last one, of distances, has an edge that ratios smear: the network gets its direction
        # only.
        for k, s in enumerate(smearings.double()):
            smearing = torch.exp(-0.5 * ((at[:, None] - middles) / s) ** 2)
            for table, ratio in zip(self.scores[:-1], ratios[:-1], strict=True):
                weights = ratio * smearing
                mean = (weights * middles).sum(1) / weights.sum(1)
                table[k] = (mean - at) / s**2

    def _counts(self, events: Tensor) -> Tensor:
        """Return densities of the observables, smeared by a little, (N_OBSERVABLES, n_bins)."""
        values = torch.cat(
            [self.observables(x, gradients=False)[0] for x in events.split(10_000)]
        ).double()
        inside = values.clamp(_EDGES[0], _EDGES[-1] - 1e-6)
        counts = torch.stack([torch.histogram(x, _EDGES).hist for x in inside.T]) / len(values)
        width = _EDGES[1] - _EDGES[0]
        steps = torch.arange(-_N_KERNEL, _N_KERNEL + 1) * width
        kernel = torch.exp(-0.5 * (steps / _KERNEL) ** 2)
        smeared = nn.functional.conv1d(
            counts[:, None], (kernel / kernel.sum())[None, None], padding=_N_KERNEL
        )
        return smeared[:, 0] / width

    def forward(self, coordinates: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return velocities of events on their way at times (n,), and what a network sees.

        Returns:
            Velocities (n, n_particles, 4).
            What a network sees, (n, 3 N_OBSERVABLES): f(m), log s, and (E[f | x_t] - f(m)) / s.
            Directions (n, N_OBSERVABLES, n_particles, 4): P g / (t s).
        """
        time = time.clamp_min(_SMALLEST_TIME)
        normal = self.normal(coordinates, time)
        t = time[:, None, None]
        of_events, of_base = self.variances
        start = coordinates - t * normal
        # P / t^2. An angle starts at x_t less t times a uniform angle, whatever the data are.
        open_ = of_events * of_base / ((1 - t) ** 2 * of_events + t**2 * of_base)
        open_[..., PHI] = of_base[:, PHI]
        values, gradients = self.observables(start)
        roots = (gradients * open_.sqrt()[:, None]).flatten(2)  # (n, N_OBSERVABLES, 4 n_particles)
        norms = roots.norm(dim=-1).clamp_min(1e-3)
        s = time[:, None] * norms
        shift = s * self._score(values, s)
        unit = roots / norms[..., None]
        overlap = unit @ unit.transpose(1, 2) + _RIDGE * torch.eye(N_OBSERVABLES)
        steps = torch.linalg.solve(overlap, (1 + _RIDGE) * shift)
        directions = gradients * open_[:, None] / norms[..., None, None]
        velocity = normal - (steps[..., None, None] * directions).sum(1)
        seen = torch.cat([values.clamp(-6.0, 6.0), s.log(), shift], 1)
        return velocity, seen, directions

    def _score(self, values: Tensor, s: Tensor) -> Tensor:
        """Return the derivatives of log r_s, linear between the entries of the tables."""
        log_step = math.log(_LARGEST_S / _SMALLEST_S) / (_N_S - 1)
        row = ((s / _SMALLEST_S).log() / log_step).clamp(0.0, _N_S - 1.001)
        n_values = self.scores.shape[-1]
        column = ((values - _LOWEST) / _STEP).clamp(0.0, n_values - 1.001)
        i, j = row.detach().floor(), column.detach().floor()
        down, right = row - i, column - j
        flat = self.scores.flatten(1).T  # (n_s n_values, N_OBSERVABLES)
        index = (i * n_values + j).long()
        near = [flat.gather(0, index + k) for k in (0, 1, n_values, n_values + 1)]
        upper = near[0] * (1 - right) + near[1] * right
        lower = near[2] * (1 - right) + near[3] * right
        return upper * (1 - down) + lower * down
