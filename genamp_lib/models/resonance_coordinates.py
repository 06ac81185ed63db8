"""Coordinates of a top pair in which its resonances are visible; not for other processes.

The event is a chain of decays, tt -> t t, t -> b W, W -> q q, to jets without their masses. Each
decay has the mass of its parent above the sum of the masses of what it decays to, and the direction
in the parent's rest frame of one of the two; then there are the momentum of the pair, and of each
jet the mass over a power of pt, which hardly depends on pt. A peak of a W is a feature of one
coordinate then, which a network learns sooner than a surface in the momenta of two jets; that the
jets' masses are left out moves the peak by little. As many coordinates as momenta, (n_particles,
4), in this order of channels:

    b1, b2    log(m_t - m_W), direction of W in the rest frame of t, log mass / pt^0.6 of the jet
    q1, q3    log m_W, direction of q1 (q3) in that of W, log mass / pt^0.6
    q2        log(m_tt - m_t - m_t), direction of the first t in that of the pair, log mass / pt^0.6
    q4        log pt, rapidity and azimuth of the pair, log mass / pt^0.6 of the jet
    j1 ...    log(pt - pt_min), eta, azimuth relative to the pair's, log mass / pt^0.6

Channels 0, 1 and 3 are mapped to a normal distribution one by one, by a monotone cubic spline
through quantiles of the training events. Channel 2 is an angle. Of all coordinates only the azimuth
of the pair changes in a rotation about the beam.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm
from torch import Tensor, nn

from genamp_lib.models.event_coordinates import EPSILON, PHI, SCALE, check_momenta, wrapped

# Knots of the splines in units of the normal distribution; beyond the last ones it is a line.
_LARGEST_KNOT, _KNOT_DISTANCE = 3.0, 0.25
_SPLINED = [0, 1, 3]
# Masses of jets grow about so with pt: the slope of their logarithms in `load_top_pairs(0)` is 0.54
# to 0.63, jet by jet.
_MASS_POWER = 0.6
_B1, _Q1, _Q2, _B2, _Q3, _Q4 = range(6)
# (b, q, q) of the two top quarks.
_TOPS = ((_B1, _Q1, _Q2), (_B2, _Q3, _Q4))


class ResonanceCoordinates(nn.Module):
    """Map momenta of top pairs to coordinates and back; its constants are buffers.

    Shapes: momenta and coordinates (n, n_particles, 4). Particles: b1, q1, q2, b2, q3, q4, then
    other jets. `decode` and `four_momenta` take float32 and float64, `encode` computes in float64.

    Args:
        n_particles: At least six.
        pt_min: The cut on pt in GeV; decoded jets can lie below it, but those after the sixth.

    Raises:
        ValueError: Fewer than six particles.
    """

    def __init__(self, n_particles: int, *, pt_min: float) -> None:
        super().__init__()
        if n_particles < 6:
            raise ValueError(f"`n_particles` must be at least 6, got {n_particles}.")
        self.pt_min = pt_min
        knots = torch.arange(-_LARGEST_KNOT, _LARGEST_KNOT + 1e-9, _KNOT_DISTANCE).double()
        shape = (n_particles, 3, len(knots))
        self.register_buffer("knots", knots)
        self.register_buffer("values", knots.expand(shape).clone())
        self.register_buffer("slopes", torch.ones(shape, dtype=torch.float64))
        covariance = torch.eye(3 * n_particles, dtype=torch.float64)
        self.register_buffer("covariance", covariance)
        turns = torch.zeros(n_particles)
        turns[_Q4] = 1.0
        self.register_buffer("turns", turns)

    @property
    def n_particles(self) -> int:
        """Particles of an event."""
        return len(self.values)

    @property
    def by_vectors(self) -> bool:
        """Whether velocities of coordinates follow from those of four-momenta: no."""
        return False

    def fit(self, momenta: Tensor) -> None:
        """Take splines and covariance from training events, shape (n, n_particles, 4).

        Raises:
            ValueError: As `check_momenta`.
        """
        check_momenta(momenta, self.n_particles, self.pt_min)
        raw = self._raw(momenta)[..., _SPLINED]
        quantiles = np.quantile(raw.numpy(), norm.cdf(self.knots.numpy()), axis=0)
        # Symmetric under a mirror along the beam, so that `mirrored` is exact.
        signed = quantiles[:, self._signed, 1]
        quantiles[:, self._signed, 1] = 0.5 * (signed - signed[::-1])
        spline = PchipInterpolator(self.knots.numpy(), quantiles)
        self.values.copy_(torch.from_numpy(np.moveaxis(quantiles, 0, -1).copy()))
        slopes = torch.from_numpy(
            np.moveaxis(spline.derivative()(self.knots.numpy()), 0, -1).copy()
        )
        steps = self.values.diff(dim=-1) / _KNOT_DISTANCE
        # The lines beyond the ends: as steep as the last intervals.
        slopes[..., 0], slopes[..., -1] = steps[..., 0], steps[..., -1]
        # A slope of zero, at a repeated quantile, has no inverse.
        self.slopes.copy_(slopes.clamp_min(1e-3))
        self.covariance.copy_(torch.cov(self.encode(momenta)[..., _SPLINED].flatten(1).T))

    def mirrored(self, coordinates: Tensor) -> Tensor:
        """Return coordinates of the events mirrored along the beam, (px, py, pz) -> (.., -pz)."""
        mirror = coordinates.clone()
        mirror[:, self._signed, 1] *= -1
        for particle in (_B1, _Q1, _B2, _Q3):
            mirror[:, particle, PHI] = wrapped(np.pi - mirror[:, particle, PHI])
        return mirror

    @property
    def _signed(self) -> list[int]:
        """Particles whose channel 1 changes sign in a mirror along the beam."""
        return [_Q2, _Q4, *range(6, self.n_particles)]

    def encode(self, momenta: Tensor) -> Tensor:
        """Return coordinates of pt (GeV), eta, phi, mass (GeV)."""
        raw = self._raw(momenta)
        first, second, third = self._inverse_spline(raw[..., _SPLINED]).unbind(-1)
        return torch.stack([first, second, raw[..., PHI], third], -1)

    def decode(self, coordinates: Tensor) -> Tensor:
        """Return pt (GeV), eta, phi in [-pi, pi), mass (GeV)."""
        raw = self._raw_of(coordinates.double())
        px, py, pz = (SCALE * self._massless(raw)[..., 1:]).unbind(-1)
        pt = torch.hypot(px, py)
        mass = SCALE * self._masses(raw, pt / SCALE)
        return torch.stack([pt, torch.asinh(pz / pt), torch.atan2(py, px), mass], -1)

    def log_abs_det(self, momenta: Tensor) -> Tensor:
        """Return log |d coordinates / d momenta|, shape (n,)."""
        coordinates = self.encode(momenta)
        size = coordinates[0].numel()
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda x: self.decode(x[None])[0]))
        matrices = jacobian(coordinates).reshape(-1, size, size)
        return -torch.linalg.slogdet(matrices).logabsdet

    def four_momenta(self, coordinates: Tensor) -> Tensor:
        """Return (energy, px, py, pz) of the jets in units of SCALE."""
        raw = self._raw_of(coordinates)
        space = self._massless(raw)[..., 1:]
        pt = torch.hypot(space[..., 0], space[..., 1])
        return _four(self._masses(raw, pt), space)

    def _massless(self, raw: Tensor) -> Tensor:
        """Return (energy, px, py, pz) of the jets without their masses, in units of SCALE."""
        excess, direction = raw[..., 0], raw[..., 1:3]
        w_masses = [excess[:, q].exp() for _, q, _ in _TOPS]
        top_masses = [
            excess[:, b].exp() + w_mass for (b, _, _), w_mass in zip(_TOPS, w_masses, strict=True)
        ]
        excess_of_pair = excess[:, _Q2].exp()
        pair_mass = excess_of_pair + sum(top_masses)
        pt, rapidity, phi = excess[:, _Q4].exp(), raw[:, _Q4, 1], raw[:, _Q4, 2]
        # The pair's rest frame has the axes of the beam; it moves across, then along the beam.
        pair = _moving(pair_mass, pt, phi)
        momentum = _decay_momentum(pair_mass, excess_of_pair, *top_masses)
        unit = _turned(_unit(direction[:, _Q2]), phi)
        none = torch.zeros_like(phi)
        jets = [torch.empty(0)] * self.n_particles
        for (b, q, r), sign, top_mass, w_mass in zip(
            _TOPS, (1.0, -1.0), top_masses, w_masses, strict=True
        ):
            top = _boosted(_four(top_mass, sign * momentum[:, None] * unit), pair)
            p_w = _decay_momentum(top_mass, excess[:, b].exp(), none, w_mass)
            step = p_w[:, None] * _out_of_axes(_unit(direction[:, b]), top)
            w = _boosted(_four(w_mass, step), top)
            jets[b] = _boosted(_four(none, -step), top)
            step = 0.5 * w_mass[:, None] * _out_of_axes(_unit(direction[:, q]), w)
            jets[q] = _boosted(_four(none, step), w)
            jets[r] = _boosted(_four(none, -step), w)
        for b in range(6):
            jets[b] = _along_beam(jets[b], rapidity)
        for j in range(6, self.n_particles):
            pt_j = (raw[:, j, 0].exp() - EPSILON).clamp_min(0.0) + self.pt_min / SCALE
            angle = raw[:, j, 2] + phi
            pz = pt_j * torch.sinh(raw[:, j, 1])
            space = torch.stack([pt_j * angle.cos(), pt_j * angle.sin(), pz], -1)
            jets[j] = _four(none, space)
        return torch.stack(jets, 1)

    def _raw(self, momenta: Tensor) -> Tensor:
        """Return coordinates before the splines, float64, from pt, eta, phi, mass in GeV."""
        pt, eta, phi, mass = momenta.double().unbind(-1)
        pt, mass = pt / SCALE, mass / SCALE
        log_mass = torch.log((mass / pt**_MASS_POWER) ** 2 + EPSILON)
        space = torch.stack([pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)
        jets = _four(torch.zeros_like(pt), space)
        pair = jets[:, :6].sum(1)
        rapidity = torch.atanh(pair[:, 3] / pair[:, 0])
        pair_phi = torch.atan2(pair[:, 2], pair[:, 1])
        raw = torch.empty_like(momenta, dtype=torch.float64)
        raw[..., 3] = log_mass
        pair_mass = _mass(pair)
        resting = _along_beam(jets[:, :6], -rapidity[:, None])
        pair = resting.sum(1)
        top_masses = []
        for b, q, r in _TOPS:
            w = resting[:, q] + resting[:, r]
            top = resting[:, b] + w
            w_mass, top_mass = _mass(w), _mass(top)
            top_masses.append(top_mass)
            raw[:, b, 0] = torch.log(top_mass - w_mass)
            raw[:, q, 0] = torch.log(w_mass)
            raw[:, b, 1:3] = _angles(_in_axes(_boosted(w, top, back=True)[..., 1:], top))
            q_in_w = _boosted(resting[:, q], w, back=True)[..., 1:]
            raw[:, q, 1:3] = _angles(_in_axes(q_in_w, w))
        first = resting[:, _B1] + resting[:, _Q1] + resting[:, _Q2]
        direction = _boosted(first, pair, back=True)[..., 1:]
        raw[:, _Q2, 0] = torch.log(pair_mass - sum(top_masses))
        raw[:, _Q2, 1:3] = _angles(_turned(direction, -pair_phi))
        raw[:, _Q4, 0] = torch.log(torch.hypot(pair[:, 1], pair[:, 2]))
        raw[:, _Q4, 1], raw[:, _Q4, 2] = rapidity, pair_phi
        if self.n_particles > 6:
            raw[:, 6:, 0] = torch.log(pt[:, 6:] - self.pt_min / SCALE + EPSILON)
            raw[:, 6:, 1] = eta[:, 6:]
            raw[:, 6:, 2] = wrapped(phi[:, 6:] - pair_phi[:, None])
        return raw

    def _raw_of(self, coordinates: Tensor) -> Tensor:
        first, second, third = self._spline(coordinates[..., _SPLINED]).unbind(-1)
        return torch.stack([first, second, coordinates[..., PHI], third], -1)

    def _masses(self, raw: Tensor, pt: Tensor) -> Tensor:
        return pt**_MASS_POWER * (raw[..., 3].exp() - EPSILON).clamp_min(1e-12).sqrt()

    def _spline(self, normal: Tensor) -> Tensor:
        """Return raw channels at normal ones, shape (n, n_particles, 3)."""
        inside = normal.clamp(-_LARGEST_KNOT, _LARGEST_KNOT)
        position = (inside + _LARGEST_KNOT) / _KNOT_DISTANCE
        left = position.detach().floor().clamp(0, len(self.knots) - 2)
        cubic = _hermite(position - left, *self._segments(left.long(), normal.dtype))
        slopes = self.slopes.to(normal)
        end = torch.where(normal > 0, slopes[..., -1], slopes[..., 0])
        return cubic + end * (normal - inside)

    def _inverse_spline(self, raw: Tensor) -> Tensor:
        """Return normal channels at raw ones: bisection, then Newton's method to rounding."""
        columns = raw.movedim(0, -1).contiguous()
        left = torch.searchsorted(self.values, columns, right=True).movedim(-1, 0) - 1
        left = left.clamp(0, len(self.knots) - 2)
        segments = self._segments(left, raw.dtype)
        part = torch.full_like(raw, 0.5)
        for power in range(2, 12):
            below = _hermite(part, *segments) < raw
            part += torch.where(below, 0.5**power, -(0.5**power))
        for _ in range(5):
            slope = _hermite_slope(part, *segments)
            part = (part - (_hermite(part, *segments) - raw) / slope).clamp(0.0, 1.0)
        inside = (left + part) * _KNOT_DISTANCE - _LARGEST_KNOT
        low, high = self.values[..., 0], self.values[..., -1]
        above = _LARGEST_KNOT + (raw - high) / self.slopes[..., -1]
        beneath = -_LARGEST_KNOT + (raw - low) / self.slopes[..., 0]
        return torch.where(raw > high, above, torch.where(raw < low, beneath, inside))

    def _segments(self, left: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return values and slopes at both ends of the segments that start at knots `left`."""
        index = left.movedim(0, -1)
        ends = (index, index + 1)
        values = [self.values.to(dtype).gather(-1, end).movedim(-1, 0) for end in ends]
        slopes = [self.slopes.to(dtype).gather(-1, end).movedim(-1, 0) for end in ends]
        return *values, *slopes


def _hermite(part: Tensor, y0: Tensor, y1: Tensor, slope0: Tensor, slope1: Tensor) -> Tensor:
    rest = 1 - part
    return (
        y0 * (1 + 2 * part) * rest**2
        + y1 * (1 + 2 * rest) * part**2
        + _KNOT_DISTANCE * part * rest * (slope0 * rest - slope1 * part)
    )


def _hermite_slope(part: Tensor, y0: Tensor, y1: Tensor, slope0: Tensor, slope1: Tensor) -> Tensor:
    rest = 1 - part
    return 6 * part * rest * (y1 - y0) + _KNOT_DISTANCE * (
        slope0 * rest * (1 - 3 * part) + slope1 * part * (3 * part - 2)
    )


def _four(mass: Tensor, space: Tensor) -> Tensor:
    energy = torch.sqrt(mass**2 + (space**2).sum(-1))
    return torch.cat([energy[..., None], space], -1)


def _mass(four: Tensor) -> Tensor:
    return torch.sqrt(four[..., 0] ** 2 - (four[..., 1:] ** 2).sum(-1))


def _decay_momentum(parent: Tensor, excess: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the momentum of the two in their parent's rest frame; parent = excess + both."""
    product = excess * (parent + first + second) * (excess + 2 * first) * (excess + 2 * second)
    return product.sqrt() / (2 * parent)


def _boosted(four: Tensor, frame: Tensor, back: bool = False) -> Tensor:
    """Return `four`, given in the rest frame of `frame`, where that moves; `back`: the inverse."""
    mass = _mass(frame)
    along = (four[..., 1:] * frame[..., 1:]).sum(-1)
    sign = -1.0 if back else 1.0
    energy = (four[..., 0] * frame[..., 0] + sign * along) / mass
    factor = (sign * four[..., 0] + along / (frame[..., 0] + mass)) / mass
    return torch.cat([energy[..., None], four[..., 1:] + factor[..., None] * frame[..., 1:]], -1)


def _along_beam(four: Tensor, rapidity: Tensor) -> Tensor:
    energy, px, py, pz = four.unbind(-1)
    cosh, sinh = rapidity.cosh(), rapidity.sinh()
    return torch.stack([cosh * energy + sinh * pz, px, py, cosh * pz + sinh * energy], -1)


def _moving(mass: Tensor, pt: Tensor, phi: Tensor) -> Tensor:
    return _four(mass, torch.stack([pt * phi.cos(), pt * phi.sin(), torch.zeros_like(pt)], -1))


def _turned(space: Tensor, angle: Tensor) -> Tensor:
    x, y, z = space.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], -1)


def _unit(direction: Tensor) -> Tensor:
    """Return a unit vector from (pseudorapidity, azimuth)."""
    eta, phi = direction.unbind(-1)
    sin = 1 / eta.cosh()
    return torch.stack([sin * phi.cos(), sin * phi.sin(), eta.tanh()], -1)


def _angles(space: Tensor) -> Tensor:
    """Return (pseudorapidity, azimuth) of a vector."""
    x, y, z = space.unbind(-1)
    return torch.stack([torch.asinh(z / torch.hypot(x, y)), torch.atan2(y, x)], -1)


def _axes(parent: Tensor) -> Tensor:
    """Return axes (..., 3, 3) by row: the third along the flight, the second across the beam."""
    flight = torch.nn.functional.normalize(parent[..., 1:], dim=-1)
    x, y, _ = flight.unbind(-1)
    across = torch.stack([-y, x, torch.zeros_like(x)], -1)
    across = torch.nn.functional.normalize(across, dim=-1)
    return torch.stack([torch.linalg.cross(across, flight), across, flight], -2)


def _in_axes(space: Tensor, parent: Tensor) -> Tensor:
    return (_axes(parent) @ space[..., None])[..., 0]


def _out_of_axes(space: Tensor, parent: Tensor) -> Tensor:
    return (_axes(parent).transpose(-1, -2) @ space[..., None])[..., 0]
