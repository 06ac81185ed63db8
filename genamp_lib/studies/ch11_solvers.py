"""How far a few steps of a solver are from many, on the same events of a generator of top pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.flow_matching import CHUNK
from genamp_lib.networks.top_pairs.members import TopPairGenerator
from genamp_lib.networks.top_pairs.solver import Solving
from genamp_lib.store import Arrays, ArtefactStore, Stage
from genamp_lib.studies.ch11_quality import ks_distances

STAGE = "top-pair-solvers"
# Part of every artefact's key: raise it when the code changes the numbers.
CODE_VERSION = 1
REFERENCE = Solving(n_steps=50)


@dataclass(frozen=True)
class SolverCheck:
    """A solver beside the reference."""

    solving: Solving
    ks: Mapping[str, float]  # to the reference's events from the same base points, by observable
    events_per_second: float  # of processor time, one thread, before the cuts


def measure_solvers(
    generators: Sequence[TopPairGenerator],
    solvers: Sequence[Solving],
    *,
    n_events: int,
    seed: int,
    store: ArtefactStore,
    label: str = "",
) -> list[list[SolverCheck]]:
    """Solve the flow of the same base events by several solvers, for each generator.

    Events come in pairs, so that distances have no fluctuation of the samples: two perfect solvers
    have distance zero. What is measured is kept.

    Args:
        generators: Generators of any architectures.
        solvers: Solvers that are compared with `REFERENCE`, which is the first of the results.
        n_events: Number of base events.
        seed: Seed of the base events.
        store: Store of the results.
        label: Name of the work in the progress line; no line when empty.

    Raises:
        ValueError: `n_events` is not positive.
    """
    if n_events < 1:
        raise ValueError(f"`n_events` must be positive, got {n_events}.")
    every = (REFERENCE, *solvers)
    common = {"solvers": [asdict(solver) for solver in every], "n_events": n_events, "seed": seed}
    stages = [Stage(STAGE, CODE_VERSION, {**common, "task": g.key}) for g in generators]
    work = [(generator, every, n_events, seed) for generator in generators]
    return [
        [
            SolverCheck(solving, dict(zip(TOP_PAIR_OBSERVABLES, ks.tolist(), strict=True)), rate)
            for solving, ks, rate in zip(
                every, arrays["ks"], arrays["events_per_second"].tolist(), strict=True
            )
        ]
        for arrays in store.map(stages, compare_solvers, work, label=label)
    ]


def compare_solvers(work: tuple[TopPairGenerator, Sequence[Solving], int, int]) -> Arrays:
    """Return "ks", the distances of each solver's events to the first one's, and rates."""
    generator, solvers, n_events, seed = work
    flow, distances, rates, expected = generator.flow, [], [], None
    with one_thread():
        base = flow.base.sample(n_events, generator=torch.Generator().manual_seed(seed))
        for solving in solvers:
            start = time.process_time()
            parts = [flow.transport(part, solving) for part in base.split(CHUNK)]
            momenta = flow.coordinates.decode(torch.cat(parts))
            rates.append(n_events / (time.process_time() - start))
            momenta = momenta[torch.isfinite(momenta).flatten(1).all(1)].numpy()
            expected = momenta if expected is None else expected
            distances.append(ks_distances(momenta, expected))
    return {"ks": np.array(distances), "events_per_second": np.array(rates)}
