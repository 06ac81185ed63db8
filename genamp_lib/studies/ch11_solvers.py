"""How far a few steps of a solver are from many, on the same events of a generator of top pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching
from genamp_lib.networks.top_pairs.members import Generator
from genamp_lib.networks.top_pairs.solver import Solving
from genamp_lib.sharing import finished_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage

STAGE = "top-pair-solvers"
# Part of every artefact's key: raise it when the code changes the numbers.
CODE_VERSION = 1
REFERENCE = Solving(n_steps=50)
_CHUNK = 1000


@dataclass(frozen=True)
class SolverCheck:
    """A solver beside the reference.

    Attributes:
        solving: It and its steps.
        ks: Kolmogorov-Smirnov distances between its events and those of the reference, which start
            from the same points of the base density; by observable.
        events_per_second: Of processor time, one thread, before the cuts.
    """

    solving: Solving
    ks: Mapping[str, float]
    events_per_second: float


def check_solvers(
    flow: FlowMatching,
    solvers: Sequence[Solving],
    *,
    n_events: int,
    seed: int,
    reference: Solving = REFERENCE,
) -> list[SolverCheck]:
    """Solve the flow of the same base events by several solvers, the reference first.

    Events come in pairs, so that distances have no fluctuation of the samples: two perfect solvers
    have distance zero.

    Args:
        flow: In evaluation mode.
        solvers: Of fixed numbers of steps.
        n_events: Base events.
        seed: Of the base events.
        reference: The one with many steps.

    Raises:
        ValueError: A solver chooses its own steps, or `n_events` is not positive.
    """
    _require_known((reference, *solvers), n_events)
    with one_thread():
        base = flow.base.sample(n_events, generator=torch.Generator().manual_seed(seed))
        expected, checks = None, []
        for solving in (reference, *solvers):
            start = time.process_time()
            momenta = _solved(flow, base, solving)
            rate = n_events / (time.process_time() - start)
            finite = torch.isfinite(momenta).flatten(1).all(1)
            columns = top_pair_observables(momenta[finite].numpy()).T
            expected = columns if expected is None else expected
            pairs = zip(columns, expected, strict=True)
            distances = [float(ks_2samp(*pair, method="asymp").statistic) for pair in pairs]
            ks = dict(zip(TOP_PAIR_OBSERVABLES, distances, strict=True))
            checks.append(SolverCheck(solving, ks, rate))
        return checks


def measure_solvers(
    generators: Sequence[Generator],
    solvers: Sequence[Solving],
    *,
    n_events: int,
    seed: int,
    store: ArtefactStore,
    jobs: int | None = None,
    label: str = "",
) -> list[list[SolverCheck]]:
    """Return `check_solvers` of each generator beside `REFERENCE`; what is measured is kept.

    Args:
        generators: Of any architectures.
        solvers: Of fixed numbers of steps.
        n_events: Base events.
        seed: Of the base events.
        store: Where results are kept.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.

    Raises:
        ValueError: As `check_solvers`.
    """
    every = (REFERENCE, *solvers)
    _require_known(every, n_events)
    common = {"solvers": [asdict(solver) for solver in every], "n_events": n_events, "seed": seed}
    stages = [
        Stage(STAGE, CODE_VERSION, {**common, "task": generator.description["key"]})
        for generator in generators
    ]

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        work = [(generators[k], solvers, n_events, seed) for k in missing]
        for number, arrays in finished_tasks(_run, work, **sharing(jobs, None), label=label):
            yield missing[number], arrays

    found = store.load_or_compute_each(stages, compute)
    return [
        [
            SolverCheck(solving, dict(zip(TOP_PAIR_OBSERVABLES, distances, strict=True)), rate)
            for solving, distances, rate in zip(
                every, arrays["ks"].tolist(), arrays["events_per_second"].tolist(), strict=True
            )
        ]
        for arrays in found
    ]


def _run(work: tuple[Generator, Sequence[Solving], int, int]) -> Arrays:
    generator, solvers, n_events, seed = work
    checks = check_solvers(generator.flow, solvers, n_events=n_events, seed=seed)
    return {
        "ks": np.array([list(check.ks.values()) for check in checks]),
        "events_per_second": np.array([check.events_per_second for check in checks]),
    }


def _require_known(solvers: Sequence[Solving], n_events: int) -> None:
    unknown = [solving.solver for solving in solvers if solving.n_calls is None]
    if unknown:
        raise ValueError(f"`solvers` must have a number of steps, got {unknown[0]!r}.")
    if n_events < 1:
        raise ValueError(f"`n_events` must be positive, got {n_events}.")


def _solved(flow: FlowMatching, base: Tensor, solving: Solving) -> Tensor:
    parts = [flow.transport(part, solving) for part in base.split(_CHUNK)]
    return flow.coordinates.decode(torch.cat(parts))
