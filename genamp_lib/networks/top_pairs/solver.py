"""How the equation of a flow is solved: torchdiffeq's solvers, with steps of given lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchdiffeq import odeint

from genamp_lib.networks.fitting import check_positive

# torchdiffeq's explicit_adams is not among them: at 40 steps it leaves events far off.
Solver = Literal["rk4", "midpoint"]
_CALLS_PER_STEP = {"rk4": 4, "midpoint": 2}
State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Solving:
    """A solver and its steps.

    Attributes:
        solver: Name of the solver in torchdiffeq: "rk4" or "midpoint".
        n_steps: Number of steps.
        time_power: Exponent of the times (i / n_steps)^time_power at which steps end: with more
            than 1 they are shorter towards time 0, where sharp features take shape.

    Raises:
        ValueError: There is no such solver, or a number is not positive.

    >>> Solving().n_calls
    24
    >>> Solving(n_steps=2, time_power=2.0).times()
    tensor([0.0000, 0.2500, 1.0000])
    """

    solver: Solver = "rk4"
    n_steps: int = 6
    time_power: float = 1.75

    def __post_init__(self) -> None:
        if self.solver not in _CALLS_PER_STEP:
            raise ValueError(
                f"`solver` must be one of {', '.join(_CALLS_PER_STEP)}, got {self.solver!r}."
            )
        check_positive(self, "n_steps", "time_power")

    @property
    def n_calls(self) -> int:
        """Calls of the network per event."""
        return _CALLS_PER_STEP[self.solver] * self.n_steps

    def times(self) -> Tensor:
        """Return where steps end, from 0 to 1, shape (n_steps + 1,)."""
        return torch.linspace(0.0, 1.0, self.n_steps + 1) ** self.time_power


# For events, and for densities, whose divergence needs many more gradients but no speed.
GENERATING, DENSITIES = Solving(), Solving(n_steps=25)


def solve(
    velocity: Callable[[Tensor, State], State], start: State, solving: Solving, *, to_events: bool
) -> State:
    """Return where `start`, a tensor or several, gets along the flow.

    Args:
        velocity: Function of time and state.
        start: State at time 1 if it goes to events, else at time 0.
        solving: Solver and its steps.
        to_events: Whether time goes from 1 to 0.
    """
    times = solving.times()
    path = odeint(velocity, start, times.flip(0) if to_events else times, method=solving.solver)
    return path[-1] if isinstance(path, Tensor) else tuple(part[-1] for part in path)
