"""Coordinates in which a network sees an event, and base densities in them.

An event is (n_particles, 4). Its coordinates are, in this order and for each particle,

    log_pt    log((pt - PT_MIN) / SCALE + EPSILON), standardised
    eta       pseudorapidity, as it is
    phi       azimuth in radian, as it is
    log_mass  log((mass / SCALE)^2 + EPSILON), standardised

eta and phi are not standardised, so that a rotation about the beam is a shift of phi.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genamp_lib.datasets.top_pairs import DELTA_R_MIN, PT_MIN
from genamp_lib.networks.fitting import mean_and_scale

LOG_PT, ETA, PHI, LOG_MASS = range(4)
# All but the azimuth.
_NORMAL = [LOG_PT, ETA, LOG_MASS]
# GeV; that of the public code of paper A's generators.
SCALE = 206.6
EPSILON = 1e-5
# Coordinates beyond these are no jets of a collider; it keeps the float32 momenta of networks
# finite while they are untrained.
LARGEST_ETA, LARGEST_LOG = 8.0, 6.0


class EventCoordinates(nn.Module):
    """Map momenta to coordinates and back; its constants are buffers, part of the state.

    Shapes: momenta and coordinates (n, n_particles, 4), both float64.

    >>> coordinates = EventCoordinates(2)
    >>> event = torch.tensor([[[50.0, 1.5, 3.0, 9.0], [30.0, -0.5, 0.0, 5.0]]], dtype=torch.double)
    >>> torch.allclose(coordinates.decode(coordinates.encode(event)), event)
    True
    """

    def __init__(self, n_particles: int) -> None:
        super().__init__()
        self.n_particles = n_particles
        shape = (n_particles, 4)
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))
        # Covariance of log_pt, eta and log_mass of all particles, for a base density like the data.
        self.register_buffer("covariance", torch.eye(3 * n_particles, dtype=torch.float64))

    def fit(self, momenta: Tensor) -> None:
        """Take means, scales and covariance from training events, shape (n, n_particles, 4)."""
        if momenta.ndim != 3 or momenta.shape[1:] != (self.n_particles, 4):
            raise ValueError(
                f"`momenta` must be (n, {self.n_particles}, 4), got {tuple(momenta.shape)}."
            )
        if not torch.isfinite(momenta).all():
            raise ValueError("`momenta` must be finite, got NaN or infinity.")
        if (lowest := momenta[..., 0].min().item()) <= PT_MIN:
            raise ValueError(f"`momenta` must have pt above {PT_MIN:g} GeV, got {lowest:g}.")
        self.mean.zero_()
        self.scale.fill_(1.0)
        raw = self.encode(momenta)
        mean, scale = mean_and_scale(raw.flatten(1))
        standardised = [LOG_PT, LOG_MASS]
        self.mean[:, standardised] = mean.reshape(-1, 4)[:, standardised]
        self.scale[:, standardised] = scale.reshape(-1, 4)[:, standardised]
        self.covariance.copy_(torch.cov(_without_phi(self.encode(momenta)).T))

    def encode(self, momenta: Tensor) -> Tensor:
        """Return coordinates of pt (GeV), eta, phi, mass (GeV)."""
        pt, eta, phi, mass = momenta.double().unbind(-1)
        log_pt = torch.log((pt - PT_MIN) / SCALE + EPSILON)
        log_mass = torch.log((mass / SCALE) ** 2 + EPSILON)
        return (torch.stack([log_pt, eta, phi, log_mass], -1) - self.mean) / self.scale

    def decode(self, coordinates: Tensor) -> Tensor:
        """Return pt (GeV), eta, phi in [-pi, pi), mass (GeV)."""
        log_pt, eta, phi, log_mass = (coordinates.double() * self.scale + self.mean).unbind(-1)
        pt = PT_MIN + SCALE * (log_pt.exp() - EPSILON).clamp_min(0.0)
        mass = SCALE * (log_mass.exp() - EPSILON).clamp_min(0.0).sqrt()
        return torch.stack([pt, eta, wrapped(phi), mass], -1)

    def log_abs_det(self, momenta: Tensor) -> Tensor:
        """Return log ``|d coordinates / d momenta|``, shape (n,); a mass of zero has no density."""
        pt, _, _, mass = momenta.double().unbind(-1)
        by_pt = -torch.log(pt - PT_MIN + EPSILON * SCALE)
        by_mass = torch.log(2 * mass / (mass**2 + EPSILON * SCALE**2))
        return (by_pt + by_mass - self.scale.log().sum(-1)).sum(-1)

    def four_momenta(self, coordinates: Tensor) -> Tensor:
        """Return (energy, px, py, pz) in units of SCALE, of the type of `coordinates`."""
        mean, scale = self.mean.to(coordinates), self.scale.to(coordinates)
        log_pt, eta, phi, log_mass = (coordinates * scale + mean).unbind(-1)
        pt = log_pt.clamp_max(LARGEST_LOG).exp() + PT_MIN / SCALE
        mass_squared = log_mass.clamp_max(LARGEST_LOG).exp()
        pz = pt * torch.sinh(eta.clamp(-LARGEST_ETA, LARGEST_ETA))
        energy = torch.sqrt(mass_squared + pt**2 + pz**2)
        return torch.stack([energy, pt * torch.cos(phi), pt * torch.sin(phi), pz], -1)

    def four_momenta_and_gradients(
        self, coordinates: Tensor, *, gradients: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return `four_momenta`, and if wanted (n, n_particles, 4, 4): rows by coordinate."""
        mean, scale = self.mean.to(coordinates), self.scale.to(coordinates)
        log_pt, eta, phi, log_mass = (coordinates * scale + mean).unbind(-1)
        above = log_pt.clamp_max(LARGEST_LOG).exp()
        pt = above + PT_MIN / SCALE
        mass_squared = log_mass.clamp_max(LARGEST_LOG).exp()
        eta = eta.clamp(-LARGEST_ETA, LARGEST_ETA)
        sinh, cosh, sin, cos = eta.sinh(), eta.cosh(), phi.sin(), phi.cos()
        energy = torch.sqrt(mass_squared + (pt * cosh) ** 2)
        momenta = torch.stack([energy, pt * cos, pt * sin, pt * sinh], -1)
        if not gradients:
            return momenta, None
        none = torch.zeros_like(pt)
        by_pt = torch.stack([pt * cosh**2 / energy, cos, sin, sinh], -1)
        rows = (
            (above * scale[:, 0])[..., None] * by_pt,
            torch.stack([pt**2 * cosh * sinh / energy, none, none, pt * cosh], -1),
            torch.stack([none, -pt * sin, pt * cos, none], -1),
            torch.stack([mass_squared / (2 * energy) * scale[:, 3], none, none, none], -1),
        )
        return momenta, torch.stack(rows, -2)


class NormalBase(nn.Module):
    """A base density with the widths of the data: log_pt, eta, log_mass normal, phi uniform."""

    def __init__(self, coordinates: EventCoordinates) -> None:
        super().__init__()
        self.n_particles = coordinates.n_particles
        variances = torch.diag(coordinates.covariance.diag())
        self.register_buffer("root", torch.linalg.cholesky(variances))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw coordinates, shape (n, n_particles, 4), float32."""
        normal = torch.randn(n, 3 * self.n_particles, generator=generator) @ self.root.float().T
        phi = (2 * torch.rand(n, self.n_particles, generator=generator) - 1) * math.pi
        log_pt, eta, log_mass = normal.reshape(n, self.n_particles, 3).unbind(-1)
        return torch.stack([log_pt, eta, phi, log_mass], -1)

    def log_prob(self, coordinates: Tensor) -> Tensor:
        """Return the logarithm of the density at coordinates, shape (n,), float64."""
        widths = self.root.diag()
        scaled = _without_phi(coordinates.double()) / widths
        log_norm = widths.log().sum() + 2.5 * self.n_particles * math.log(2 * math.pi)
        return -0.5 * (scaled**2).sum(1) - log_norm


class NormalVelocity(nn.Module):
    """The velocity of flow matching if events were normal, as far as their covariance says.

    For x_0 normal with covariance A, x_1 with B, and x = (1 - t) x_0 + t x_1,
    E[x_1 - x_0 | x] = (t B - (1 - t) A) (t^2 B + (1 - t)^2 A)^{-1} x: what a network need not
    learn. Azimuths have none.

    Args:
        coordinates: Fitted coordinates, with covariance A.
        base: Base density, with covariance B.

    >>> coordinates = EventCoordinates(1)
    >>> velocity = NormalVelocity(coordinates, NormalBase(coordinates))
    >>> velocity(torch.ones(1, 1, 4), torch.tensor([0.25])).tolist()
    [[[-0.8..., -0.8..., 0.0, -0.8...]]]
    """

    def __init__(self, coordinates: EventCoordinates, base: NormalBase) -> None:
        super().__init__()
        root = base.root
        half = torch.linalg.solve_triangular(root, coordinates.covariance, upper=False)
        white = torch.linalg.solve_triangular(root, half.T, upper=False)
        ratios, axes = torch.linalg.eigh(white)
        self.register_buffer("ratios", ratios.float())
        self.register_buffer("outward", (root @ axes).float())
        inward = torch.linalg.solve_triangular(root.T, axes, upper=True).T
        self.register_buffer("inward", inward.float())

    def forward(self, coordinates: Tensor, time: Tensor) -> Tensor:
        """Return velocities (n, n_particles, 4) at coordinates of that shape and times (n,)."""
        time = time[:, None]
        factors = (time - (1 - time) * self.ratios) / (time**2 + (1 - time) ** 2 * self.ratios)
        flat = (_without_phi(coordinates) @ self.inward.T * factors) @ self.outward.T
        velocity = torch.zeros_like(coordinates)
        velocity[..., _NORMAL] = flat.unflatten(1, (-1, 3))
        return velocity


class MomentumBase(nn.Module):
    """The base density of paper A's public code: (px, py, pz, log_mass) normal in units of SCALE.

    Events that the cuts on pt and delta R would drop are drawn again; there is no log_prob.
    """

    def __init__(self, coordinates: EventCoordinates) -> None:
        super().__init__()
        self.coordinates = coordinates

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw coordinates, shape (n, n_particles, 4), float32."""
        kept: list[Tensor] = []
        first, second = torch.triu_indices(*2 * (self.coordinates.n_particles,), 1)
        pt_min = PT_MIN / SCALE
        while sum(map(len, kept)) < n:
            shape = (4 * n + 1000, self.coordinates.n_particles, 4)
            px, py, pz, log_mass = torch.randn(shape, generator=generator).unbind(-1)
            pt, phi = torch.hypot(px, py), torch.atan2(py, px)
            eta = torch.asinh(pz / pt)
            distance = torch.hypot(
                wrapped(phi[:, first] - phi[:, second]), eta[:, first] - eta[:, second]
            )
            good = (pt > pt_min).all(1) & (distance > DELTA_R_MIN).all(1)
            log_pt = torch.log(pt - pt_min + EPSILON)
            kept.append(torch.stack([log_pt, eta, phi, log_mass], -1)[good])
        raw = torch.cat(kept)[:n]
        return ((raw - self.coordinates.mean) / self.coordinates.scale).float()


def wrapped(angle: Tensor) -> Tensor:
    """Return the angle in [-pi, pi).

    >>> wrapped(torch.tensor([3.0, 4.0])).tolist()
    [3.00000..., -2.28318...]
    """
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _without_phi(coordinates: Tensor) -> Tensor:
    return coordinates[..., _NORMAL].flatten(1)
