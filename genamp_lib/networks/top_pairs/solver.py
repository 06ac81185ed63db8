"""How the equation of a flow is solved: torchdiffeq's solvers, steps of given lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torchdiffeq import odeint

# torchdiffeq's explicit_adams is not among them: at 40 steps it leaves events far off.
Solver = Literal["rk4", "midpoint", "heun2", "euler", "dopri5"]
_CALLS_PER_STEP = {"rk4": 4, "midpoint": 2, "heun2": 2, "euler": 1}
State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Solving:
    """A solver and its steps.

    Attributes:
        solver: Of torchdiffeq; "dopri5" chooses its own steps.
        n_steps: Number of steps.
        time_power: Steps end at the times (i / n_steps)^time_power: with more than 1 they are
            shorter towards time 0, where sharp features take shape. 1 makes them equal.

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
        if self.solver not in get_args(Solver):
            raise ValueError(
                f"`solver` must be one of {', '.join(get_args(Solver))}, got {self.solver!r}."
            )
        if self.n_steps < 1:
            raise ValueError(f"`n_steps` must be positive, got {self.n_steps}.")
        if not self.time_power > 0.0:
            raise ValueError(f"`time_power` must be positive, got {self.time_power}.")

    @property
    def n_calls(self) -> int | None:
        """Calls of the network per event; None when the solver chooses its own steps."""
        calls = _CALLS_PER_STEP.get(self.solver)
        return None if calls is None else calls * self.n_steps

    def times(self) -> Tensor:
        """Return where steps end, from 0 to 1; 0 and 1 when the solver chooses its own."""
        n_steps = 1 if self.n_calls is None else self.n_steps
        return torch.linspace(0.0, 1.0, n_steps + 1) ** self.time_power


# For events, and for densities, whose divergence needs many more gradients but no speed.
GENERATING, DENSITIES = Solving(), Solving(n_steps=25)


def solve(
    function: Callable[[Tensor, State], State], start: State, solving: Solving, *, to_events: bool
) -> State:
    """Return where `start` gets along the flow.

    Args:
        function: Of time and state, the velocity.
        start: A tensor, or several.
        solving: How.
        to_events: From time 1 to 0; else from 0 to 1.
    """
    times = solving.times()
    path = odeint(function, start, times.flip(0) if to_events else times, method=solving.solver)
    return path[-1] if isinstance(path, Tensor) else tuple(part[-1] for part in path)
