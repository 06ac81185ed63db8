"""How far a few steps of a solver are from many, on the same events of a generator of top pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from genamp_lib.datasets.top_pair_kinematics import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.models.flow_matching import FlowMatching, Solver
from genamp_lib.training._threads import one_thread

# Network calls of one step.
CALLS_PER_STEP: dict[Solver, int] = {"euler": 1, "midpoint": 2, "heun2": 2, "rk4": 4}
_CHUNK = 1000


@dataclass(frozen=True)
class SolverCheck:
    """A solver beside the reference.

    Attributes:
        solver: Its name.
        n_steps: Of equal length.
        n_calls: Calls of the network per event.
        ks: Kolmogorov-Smirnov distances between its events and those of the reference, which start
            from the same points of the base density; by observable.
        events_per_second: Of processor time, one thread, before the cuts.
    """

    solver: Solver
    n_steps: int
    n_calls: int
    ks: Mapping[str, float]
    events_per_second: float


def check_solvers(
    flow: FlowMatching,
    solvers: Sequence[tuple[Solver, int]],
    *,
    n_events: int,
    seed: int,
    reference: tuple[Solver, int] = ("rk4", 50),
) -> list[SolverCheck]:
    """Solve the flow of the same base events by several solvers, the reference first.

    Events come in pairs, so that distances have no fluctuation of the samples: two perfect solvers
    have distance zero.

    Args:
        flow: In evaluation mode.
        solvers: Names and numbers of steps.
        n_events: Base events.
        seed: Of the base events.
        reference: Name and number of steps.

    Raises:
        ValueError: A solver chooses its own steps, or a number is not positive.
    """
    unknown = [name for name, _ in (reference, *solvers) if name not in CALLS_PER_STEP]
    if unknown:
        raise ValueError(f"`solvers` must be of {', '.join(CALLS_PER_STEP)}, got {unknown[0]!r}.")
    if n_events < 1:
        raise ValueError(f"`n_events` must be positive, got {n_events}.")
    with one_thread():
        base = flow.base.sample(n_events, generator=torch.Generator().manual_seed(seed))
        expected, checks = None, []
        for name, n_steps in (reference, *solvers):
            start = time.process_time()
            momenta = _solved(flow, base, name, n_steps)
            rate = n_events / (time.process_time() - start)
            finite = torch.isfinite(momenta).flatten(1).all(1)
            columns = top_pair_observables(momenta[finite].numpy()).T
            expected = columns if expected is None else expected
            pairs = zip(columns, expected, strict=True)
            distances = [float(ks_2samp(*pair, method="asymp").statistic) for pair in pairs]
            ks = dict(zip(TOP_PAIR_OBSERVABLES, distances, strict=True))
            checks.append(SolverCheck(name, n_steps, CALLS_PER_STEP[name] * n_steps, ks, rate))
        return checks


def _solved(flow: FlowMatching, base: Tensor, solver: Solver, n_steps: int) -> Tensor:
    parts = [flow.transport(part, solver=solver, n_steps=n_steps) for part in base.split(_CHUNK)]
    return flow.coordinates.decode(torch.cat(parts))
