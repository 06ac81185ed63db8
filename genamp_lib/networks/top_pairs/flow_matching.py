"""Conditional flow matching of top pairs, Eqs. (40) to (42) of paper A: what a generator is.

Time runs from 0, the events, to 1, the base density. A network learns the velocity of the
coordinates; a solver follows it from base events to events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import in_order, passes_cuts, reconstructed
from genamp_lib.networks.top_pairs.architectures import VelocitySettings, new_velocity
from genamp_lib.networks.top_pairs.coordinates import (
    PHI,
    EventCoordinates,
    MomentumBase,
    NormalBase,
    NormalVelocity,
    wrapped,
)
from genamp_lib.networks.top_pairs.known_velocity import N_OBSERVABLES, ObservableVelocity
from genamp_lib.networks.top_pairs.solver import DENSITIES, GENERATING, Solving, solve

Base = Literal["momentum", "normal"]
KnownVelocity = Literal["none", "normal", "observables"]
Coupling = Literal["independent", "rotated"]
# Events at a time in sampling: this many stay in a processor's cache.
CHUNK = 1000
# A generator that makes fewer events within the cuts than this part is not one.
_LEAST_ACCEPTANCE = 1e-3


@dataclass(frozen=True)
class FlowMatchingSettings:
    """Everything that defines a flow but its parameters.

    Attributes:
        n_particles: Number of particles: six jets of the top quarks, and others.
        base: Base density: "momentum", that of paper A's public code, or "normal", independent
            normal densities with the widths of the data.
        known_velocity: Velocity from which the network learns the difference: "none"; "normal",
            that of normal events (`NormalVelocity`); "observables", that with the distributions of
            masses and of the pair's pt (`ObservableVelocity`), which the network then sees. The
            base "momentum" has none.
        coupling: Pairs of events and base events in a batch: "independent", or "rotated", each base
            event turned about the beam to fit its event.
        reassign: Whether jets of generated events are assigned to the top quarks as those of the
            samples were, by the smallest chi^2.
        velocity: Settings of the network.
    """

    n_particles: int = 6
    base: Base = "normal"
    known_velocity: KnownVelocity = "observables"
    coupling: Coupling = "rotated"
    reassign: bool = True
    velocity: VelocitySettings = field(default_factory=VelocitySettings)

    def __post_init__(self) -> None:
        if self.n_particles < 6:
            raise ValueError(f"`n_particles` must be at least 6, got {self.n_particles}.")
        choices = {"base": Base, "known_velocity": KnownVelocity, "coupling": Coupling}
        for name, kinds in choices.items():
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"`{name}` must be one of {', '.join(get_args(kinds))}, "
                    f"got {getattr(self, name)!r}."
                )
        if self.base == "momentum" and self.known_velocity != "none":
            raise ValueError(
                '`known_velocity` must be "none" with the base "momentum", '
                f"got {self.known_velocity!r}."
            )


class FlowMatching(nn.Module):
    """A flow of top pairs: coordinates, base density, velocity network.

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
        self.coordinates = EventCoordinates(settings.n_particles)
        if train is not None:
            self.coordinates.fit(train)
        base = {"momentum": MomentumBase, "normal": NormalBase}[settings.base]
        self.base: NormalBase | MomentumBase = base(self.coordinates)
        self.known_velocity: NormalVelocity | ObservableVelocity | None = None
        extra = {}
        if settings.known_velocity == "normal":
            self.known_velocity = NormalVelocity(self.coordinates, self.base)
        elif settings.known_velocity == "observables":
            self.known_velocity = ObservableVelocity(self.coordinates, self.base)
            if train is not None:
                self.known_velocity.fit(self.coordinates.encode(train))
            extra = {"n_seen": 3 * N_OBSERVABLES, "n_directions": N_OBSERVABLES}
        self.velocity = new_velocity(settings.velocity, self.coordinates, **extra)

    def arrays(self) -> dict[str, Tensor]:
        """Return parameters and constants by name, each once, as they are (not copies)."""
        # As published generators have them: they call the known velocity "skip".
        every = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name.replace("known_velocity.", "skip."): array for name, array in every.items()}

    def load_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """Set parameters and constants to those of another flow with the same settings."""
        mine = self.arrays()
        wrong = set(mine) ^ set(arrays)
        wrong |= {k for k in set(mine) & set(arrays) if mine[k].shape != arrays[k].shape}
        if wrong:
            raise ValueError(
                f"`arrays` must be of a flow with the same settings, got others for {min(wrong)} "
                f"and {len(wrong) - 1} more."
            )
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(arrays[name])

    def pair(self, events: Tensor, base: Tensor) -> Tensor:
        """Return base events as they are or turned about the beam, as the settings say.

        Turned ones have the same density, as events have no preferred direction about the beam.
        """
        if self.settings.coupling == "independent":
            return base
        difference = events[..., PHI] - base[..., PHI]
        turn = torch.atan2(difference.sin().sum(1), difference.cos().sum(1))
        base = base.clone()
        base[..., PHI] = wrapped(base[..., PHI] + turn[:, None])
        return base

    def loss(self, events: Tensor, base: Tensor, time: Tensor) -> Tensor:
        """Return half the mean squared error of the velocity for paired events at times (n,)."""
        velocity = base - events
        velocity[..., PHI] = wrapped(velocity[..., PHI])
        between = events + time[:, None, None] * velocity
        return 0.5 * (self._velocity(between, time) - velocity).square().mean()

    def sample(
        self,
        n_generated: int,
        *,
        generator: torch.Generator,
        solving: Solving = GENERATING,
        selected: bool = True,
    ) -> Tensor:
        """Generate momenta, shape (n_generated, n_particles, 4), float64, ordered as samples are.

        Args:
            n_generated: Number of events.
            generator: Source of all randomness.
            solving: Solver and its steps.
            selected: Keep only events that pass the cuts of Eq. (38); else all that are finite.

        Raises:
            ValueError: `n_generated` is negative.
            GenampError: Fewer than one event in a thousand is kept.
        """
        how = {"generator": generator, "solving": solving, "selected": selected}
        none = torch.empty(0, self.settings.n_particles, 4, dtype=torch.float64)
        return torch.cat([none, *self.blocks(n_generated, **how)])

    @torch.no_grad()
    def blocks(
        self, n_generated: int, *, generator: torch.Generator, solving: Solving, selected: bool
    ) -> Iterator[Tensor]:
        """Yield the events of `sample` in blocks of at most `CHUNK`."""
        if n_generated < 0:
            raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
        n_kept = n_made = 0
        size = min(CHUNK, max(100, 2 * n_generated))
        while n_kept < n_generated:
            base = self.base.sample(size, generator=generator)
            found = self.coordinates.decode(self.transport(base, solving))
            kept = torch.isfinite(found).flatten(1).all(1)
            if selected:
                kept = torch.from_numpy(passes_cuts(found))
            block = found[kept][: n_generated - n_kept].numpy()
            n_kept, n_made = n_kept + int(kept.sum()), n_made + size
            if n_made > 10 / _LEAST_ACCEPTANCE and n_kept < _LEAST_ACCEPTANCE * n_made:
                raise GenampError(
                    f"top-pair generator: must make one event in {1 / _LEAST_ACCEPTANCE:.0f} "
                    f"within the cuts, got {n_kept} of {n_made}; train it longer"
                )
            if len(block):
                ordered = (reconstructed if self.settings.reassign else in_order)(block)
                yield torch.from_numpy(ordered)

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
            momenta: Events, shape (n, n_particles, 4).
            solving: Solver and its steps.

        Raises:
            ValueError: The base density has no log_prob ("momentum").
        """
        if not isinstance(self.base, NormalBase):
            raise ValueError('`base` must be "normal" for log_prob, got "momentum".')
        start = self.coordinates.encode(momenta).float()
        state = start, torch.zeros(len(start))
        with torch.no_grad():
            end, divergence = solve(self._with_divergence, state, solving, to_events=False)
        at_base = self.base.log_prob(end) + divergence.double()
        return at_base + self.coordinates.log_abs_det(momenta)

    def _velocity(self, coordinates: Tensor, time: Tensor) -> Tensor:
        if self.known_velocity is None:
            return self.velocity(coordinates, time)
        if isinstance(self.known_velocity, NormalVelocity):
            return self.velocity(coordinates, time) + self.known_velocity(coordinates, time)
        known, seen, directions = self.known_velocity(coordinates, time)
        return known + self.velocity(coordinates, time, seen, directions)

    def _velocity_at(self, time: Tensor, coordinates: Tensor) -> Tensor:
        return self._velocity(coordinates, time.expand(len(coordinates)))

    def _with_divergence(self, time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            coordinates = state[0].detach().requires_grad_()
            velocity = self._velocity_at(time, coordinates)
            divergence = torch.zeros(len(coordinates))
            for k, output in enumerate(velocity.flatten(1).unbind(1)):
                (gradient,) = torch.autograd.grad(output.sum(), coordinates, retain_graph=True)
                divergence += gradient.flatten(1)[:, k]
        return velocity.detach(), divergence
