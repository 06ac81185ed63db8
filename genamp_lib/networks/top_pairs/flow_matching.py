"""Conditional flow matching of top pairs, Eqs. (40) to (42) of paper A. Not for fitting it.

Time runs from 0, the events, to 1, the base density. A network learns the velocity of the
coordinates of models.event_coordinates; models.solving solves the differential equation.

How the events of a batch are paired with base events in flow matching. Densities stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from genamp_lib._project import GenampError
from genamp_lib.networks.top_pairs.architectures import VelocitySettings, new_velocity
from genamp_lib.networks.top_pairs.coordinates import (
    ETA,
    LOG_MASS,
    LOG_PT,
    PHI,
    EventCoordinates,
    MomentumBase,
    NormalBase,
    NormalVelocity,
    wrapped,
)
from genamp_lib.networks.top_pairs.known_velocity import N_OBSERVABLES, ObservableVelocity
from genamp_lib.networks.top_pairs.order import in_order, reconstructed
from genamp_lib.networks.top_pairs.solver import DENSITIES, GENERATING, Solving, solve

Coupling = Literal["independent", "rotated", "optimal"]


def paired(events: Tensor, base: Tensor, coupling: Coupling) -> Tensor:
    """Return the base events in the order, and turned about the beam, of their partners.

    Neither changes the base density, as events have no preferred direction about the beam.

    Args:
        events: Coordinates of events, shape (n, n_particles, 4).
        base: The same of the base density.
        coupling: "independent", as they are; "rotated", turned; "optimal", turned and put in order.
    """
    if coupling == "independent":
        return base
    if coupling == "optimal":
        base = base[_best_order(events, base)]
    difference = events[..., PHI] - base[..., PHI]
    turn = torch.atan2(difference.sin().sum(1), difference.cos().sum(1))
    base = base.clone()
    base[..., PHI] = wrapped(base[..., PHI] + turn[:, None])
    return base


def _best_order(events: Tensor, base: Tensor) -> Tensor:
    """Return the order of base events with the smallest sum of squared distances.

    Angles differ by 2 (1 - cos), the square for small differences, after the turn of `paired`: by
    2 (number - |sum exp(i difference)|).
    """
    flat = [x[..., [LOG_PT, ETA, LOG_MASS]].flatten(1) for x in (events, base)]
    turned = [torch.polar(torch.ones_like(x[..., PHI]), x[..., PHI]) for x in (events, base)]
    common = (turned[0] @ turned[1].mH).abs()
    cost = torch.cdist(*flat).square() + 2 * (events.shape[1] - common)
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])


Base = Literal["momentum", "normal", "correlated"]
Skip = Literal["none", "normal", "observables"]
# Events at a time in sampling: this many stay in a processor's cache.
_CHUNK = 1000
# A generator that makes fewer events within the cuts than this part is not one.
_LEAST_ACCEPTANCE = 1e-3


@dataclass(frozen=True)
class FlowMatchingSettings:
    """Everything that defines a flow but its parameters.

    Attributes:
        n_particles: Particles of an event: six jets of the top quarks, and others.
        pt_min: The cut on pt in GeV.
        eta_max: The cut on the absolute pseudorapidity.
        delta_r_min: The cut on the distance of two particles.
        base: "momentum", that of paper A's public code; "normal", independent normal densities
            with the widths of the data; "correlated", with their covariance.
        skip: What a network need not learn, as its velocities are differences from it: "none";
            "normal", the velocity of normal events (`NormalVelocity`); "observables", that with the
            distributions of masses and of the pair's pt (`ObservableVelocity`), which the network
            sees, with the smallest distance. The base "momentum" has no such velocity.
        coupling: How events and base events of a batch are paired: "independent"; "rotated", each
            base event is turned about the beam to fit its event; "optimal", pairs are exchanged
            too so that the sum of squared distances is smallest.
        reassign: Jets of generated events are assigned to the top quarks as those of the samples
            were, by the smallest chi^2 of datasets.top_pair_assignment.
        velocity: The network.
    """

    n_particles: int = 6
    pt_min: float = 22.0
    eta_max: float = 5.0
    delta_r_min: float = 0.5
    base: Base = "normal"
    skip: Skip = "observables"
    coupling: Coupling = "rotated"
    reassign: bool = True
    velocity: VelocitySettings = field(default_factory=VelocitySettings)

    def __post_init__(self) -> None:
        if self.n_particles < 6:
            raise ValueError(f"`n_particles` must be at least 6, got {self.n_particles}.")
        for name, kinds in (
            ("base", Base),
            ("skip", Skip),
            ("coupling", Coupling),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"`{name}` must be one of {', '.join(get_args(kinds))}, "
                    f"got {getattr(self, name)!r}."
                )
        if self.base == "momentum" and self.skip != "none":
            raise ValueError(f'`skip` must be "none" with the base "momentum", got {self.skip!r}.')

    def accepts(self, momenta: Tensor) -> Tensor:
        """Return whether events pass the cuts of the training events, shape (n,), bool.

        Args:
            momenta: Shape (n, n_particles, 4); an event that is not finite does not pass.
        """
        pt, eta, phi, _ = momenta.unbind(-1)
        first, second = torch.triu_indices(*2 * (self.n_particles,), 1)
        distance = torch.hypot(
            eta[:, first] - eta[:, second], wrapped(phi[:, first] - phi[:, second])
        )
        jets = (pt > self.pt_min) & (eta.abs() < self.eta_max)
        passed = jets.all(1) & (distance > self.delta_r_min).all(1)
        return passed & torch.isfinite(momenta).flatten(1).all(1)


class FlowMatching(nn.Module):
    """A generator of top pairs: coordinates, base density, velocity network.

    Shapes: momenta (n, n_particles, 4): pt (GeV), eta, phi, mass (GeV), float64.

    Args:
        settings: What is built.
        train: Momenta of the training events, for the constants of the coordinates and of the base;
            None when `load_arrays` is going to set them.

    Raises:
        ValueError: As `EventCoordinates.fit`.

    >>> generator = torch.Generator().manual_seed(1)
    >>> train = torch.rand(200, 6, 4, generator=generator, dtype=torch.double)
    >>> train = torch.tensor([25.0, -1.0, 0.0, 5.0]) + torch.tensor([50.0, 2.0, 6.0, 9.0]) * train
    >>> settings = FlowMatchingSettings(velocity=VelocitySettings(width=8, n_blocks=1))
    >>> FlowMatching(settings, train).sample(3, generator=generator).shape
    torch.Size([3, 6, 4])
    """

    def __init__(self, settings: FlowMatchingSettings, train: Tensor | None) -> None:
        super().__init__()
        self.settings = settings
        self.coordinates = EventCoordinates(settings.n_particles, pt_min=settings.pt_min)
        if train is not None:
            self.coordinates.fit(train)
        self.base: NormalBase | MomentumBase
        if settings.base == "momentum":
            self.base = MomentumBase(self.coordinates, delta_r_min=settings.delta_r_min)
            self.skip = None
        else:
            self.base = NormalBase(self.coordinates, correlated=settings.base == "correlated")
            self.skip = self._new_skip(train)
        extra = {}
        if isinstance(self.skip, ObservableVelocity):
            extra = {"n_seen": 3 * N_OBSERVABLES, "n_directions": N_OBSERVABLES}
        self.velocity = new_velocity(settings.velocity, self.coordinates, **extra)

    def arrays(self) -> dict[str, Tensor]:
        """Return parameters and constants by name, each once, as they are (not copies)."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Set parameters and constants to those of another flow with the same settings.

        Raises:
            ValueError: A name or a shape differs.
        """
        mine = self.arrays()
        wrong = set(mine) ^ set(arrays)
        wrong |= {
            name for name in set(mine) & set(arrays) if mine[name].shape != arrays[name].shape
        }
        if wrong:
            raise ValueError(
                f"`arrays` must be of a flow with the same settings, got others for {min(wrong)} "
                f"and {len(wrong) - 1} more."
            )
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(arrays[name])

    def loss(self, events: Tensor, base: Tensor, time: Tensor) -> Tensor:
        """Return half the mean squared error of the velocity, a scalar.

        Args:
            events: Coordinates of events, shape (n, n_particles, 4), float32.
            base: Of as many events of the base density, already paired.
            time: Shape (n,), between 0 and 1.
        """
        velocity = base - events
        velocity[..., PHI] = wrapped(velocity[..., PHI])
        between = events + time[:, None, None] * velocity
        return 0.5 * (self._velocity(between, time) - velocity).square().mean()

    def pair(self, events: Tensor, base: Tensor) -> Tensor:
        """Return the base events as `paired` with events, as the settings say."""
        return paired(events, base, self.settings.coupling)

    @torch.no_grad()
    def sample(
        self,
        n_generated: int,
        *,
        generator: torch.Generator,
        solving: Solving = GENERATING,
        selected: bool = True,
    ) -> Tensor:
        """Generate momenta, shape (n_generated, n_particles, 4), float64.

        Identical particles are in the order of the samples, see `in_order`.

        Args:
            n_generated: Number of events.
            generator: All randomness comes from it.
            solving: The solver and its steps.
            selected: Keep events that pass the cuts only, see `FlowMatchingSettings.accepts`; else
                all that are finite.

        Raises:
            ValueError: `n_generated` is negative.
            GenampError: Fewer than one event in a thousand is kept.
        """
        if n_generated < 0:
            raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
        momenta = [torch.empty(0, self.settings.n_particles, 4, dtype=torch.float64)]
        n_kept = n_made = 0
        while n_kept < n_generated:
            base = self.base.sample(_CHUNK, generator=generator)
            found = self.coordinates.decode(self.transport(base, solving))
            finite = torch.isfinite(found).flatten(1).all(1)
            momenta.append(found[self.settings.accepts(found) if selected else finite])
            n_kept, n_made = n_kept + len(momenta[-1]), n_made + len(found)
            if n_made > 10 / _LEAST_ACCEPTANCE and n_kept < _LEAST_ACCEPTANCE * n_made:
                raise GenampError(
                    f"top-pair generator: must make one event in {1 / _LEAST_ACCEPTANCE:.0f} "
                    f"within the cuts, got {n_kept} of {n_made}; train it longer"
                )
        found = torch.cat(momenta)[:n_generated]
        return reconstructed(found) if self.settings.reassign else in_order(found)

    @torch.no_grad()
    def transport(self, base: Tensor, solving: Solving) -> Tensor:
        """Return coordinates at time 0 of what has the coordinates `base` at time 1."""
        return solve(self._velocity_at, base, solving, to_events=True)

    def log_prob(self, momenta: Tensor, *, solving: Solving = DENSITIES) -> Tensor:
        """Return the logarithm of the density at momenta, shape (n,), float64.

        d log p / dt = -div v along the flow, with the exact divergence: 4 n_particles gradients
        per network call. The density is that of pt, eta, phi, mass before the cuts: that of what
        `sample` gives is larger by one over the accepted fraction.

        Args:
            momenta: Shape (n, n_particles, 4).
            solving: The solver and its steps.

        Raises:
            ValueError: The base density has no log_prob ("momentum").
        """
        if not isinstance(self.base, NormalBase):
            raise ValueError('`base` must be "normal" or "correlated" for log_prob.')
        start = self.coordinates.encode(momenta).float()
        state = start, torch.zeros(len(start))
        with torch.no_grad():
            end, divergence = solve(self._with_divergence, state, solving, to_events=False)
        at_base = self.base.log_prob(end) + divergence.double()
        return at_base + self.coordinates.log_abs_det(momenta)

    def _new_skip(self, train: Tensor | None) -> NormalVelocity | ObservableVelocity | None:
        if self.settings.skip == "none":
            return None
        if self.settings.skip == "normal":
            return NormalVelocity(self.coordinates, self.base)
        skip = ObservableVelocity(self.coordinates, self.base)
        if train is not None:
            skip.fit(self.coordinates.encode(train))
        return skip

    def _velocity(self, coordinates: Tensor, time: Tensor) -> Tensor:
        if self.skip is None:
            return self.velocity(coordinates, time)
        if isinstance(self.skip, NormalVelocity):
            return self.velocity(coordinates, time) + self.skip(coordinates, time)
        known, seen, directions = self.skip(coordinates, time)
        return known + self.velocity(coordinates, time, seen, directions)

    def _velocity_at(self, time: Tensor, coordinates: Tensor) -> Tensor:
        return self._velocity(coordinates, time.expand(len(coordinates)))

    def _with_divergence(self, time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            coordinates = state[0].detach().requires_grad_()
            velocity = self._velocity_at(time, coordinates)
            divergence = torch.zeros(len(coordinates))
            for particle in range(velocity.shape[1]):
                for channel in range(4):
                    (gradient,) = torch.autograd.grad(
                        velocity[:, particle, channel].sum(), coordinates, retain_graph=True
                    )
                    divergence += gradient[:, particle, channel]
        return velocity.detach(), divergence
