"""Train top-pair generators on ever more events and count what each makes of 75,000 unseen ones.

Everything that the numbers of chapters 04 and 05 depend on stands in this file, and was written
down before the printed seeds were run: rungs, windows, observables, steps, events. All 80,000
events that the kept generators never saw had been looked at before, in a study of which windows and
steps can work; the second holdout had not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genamp_lib.amplification import (
    KolmogorovAccumulator,
    RegionCounter,
    alarm_regions,
    differential_amplification,
    quantile_regions,
)
from genamp_lib.amplification.differential import FEWEST_EVENTS
from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.architectures import Architecture
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, FlowMatchingTraining
from genamp_lib.networks.top_pairs.members import fitted_generators
from genamp_lib.store import Arrays, ArtefactStore, Stage, stacked
from genamp_lib.studies.top_pairs import N_KEPT, STEPS, divide, ensemble_tasks

Array = NDArray[np.float64]

# Part of the artefacts' keys: raise one when its code changes the numbers.
EVENTS_VERSION, COUNTS_VERSION, STEPS_VERSION, FURTHER_VERSION = 1, 1, 1, 2
# Held-out events that choose the number of steps and the edges of quantiles; never judged with.
N_VALIDATION = 5_000
# Windows of m_tt in GeV; the last one is the paper's, Eq. (43).
WINDOWS = ((400, 500), (500, 600), (700, 900), (1000, 1200), (1600, 1800), (2000, 2200))
# What stands for it with four further jets.
FURTHER_WINDOW = (1000.0, np.inf)
N_QUANTILES = 20  # regions of every observable
# Observables whose distance to the truth is followed, and the numbers of events at which it is.
FOLLOWED = ("m_tt", "m_t", "pt_t")
POINTS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000)
M_TT_EDGES = np.geomspace(250.0, 3000.0, 36)  # GeV, of the histogram


class Parts(NamedTuple):
    """Parts of the shipped sample, each of shape (n, 6, 4)."""

    train: Array  # the events that every rung draws its training sets from
    validation: Array
    holdout: Array


@dataclass(frozen=True)
class Rung:
    """Generators of one architecture that are trained on sets of one size.

    Attributes:
        architecture: Architecture of the velocity network.
        n_train: Events of each training set.
        n_sets: Number of disjoint training sets.
        n_bootstrap: Generators of each set that are trained on bootstrap draws of it.
        n_plain: Generators of each set that are trained on the set itself.
        n_steps: Steps of the optimiser.
        n_generated: Events of each generator, within the cuts.
    """

    architecture: Architecture
    n_train: int
    n_sets: int
    n_bootstrap: int
    n_plain: int
    n_steps: int
    n_generated: int


# Steps grow about as the root of n_train.
LADDER = (
    Rung("transformer", 1_000, 10, 2, 1, 1_000, 20_000),
    Rung("transformer", 2_000, 10, 2, 1, 1_500, 30_000),
    Rung("transformer", 4_000, 5, 2, 1, 2_100, 30_000),
    Rung("transformer", 20_000, 1, N_KEPT, 0, STEPS["transformer"], 30_000),
    Rung("lgatr-slim", 2_000, 5, 2, 1, 850, 15_000),
    Rung("lgatr-slim", 20_000, 1, N_KEPT, 0, STEPS["lgatr-slim"], 15_000),
    Rung("lloca", 2_000, 5, 2, 1, 550, 15_000),
    Rung("lloca", 20_000, 1, N_KEPT, 0, STEPS["lloca"], 15_000),
)


def chosen_rungs(
    architectures: Sequence[str],
    n_train: Sequence[int],
    *,
    n_sets: int = 10,
    n_members: int = 10,
    step_share: float = 1.0,
    n_generated: int = POINTS[-1],
) -> list[Rung]:
    """Return rungs of the ladder, or smaller ones.

    Args:
        architectures: Names of architectures.
        n_train: Sizes of training sets; each has a rung of the transformer.
        n_sets: Most training sets of a rung.
        n_members: Most bootstrap members of a set, at least 2.
        step_share: Part of the steps that are done, above 0.
        n_generated: Most events of each generator, at least 200.

    Raises:
        ValueError: There is no such rung, or a number is out of range.

    >>> [(rung.n_train, rung.n_sets) for rung in chosen_rungs(["transformer"], [1000, 2000])]
    [(1000, 10), (2000, 10)]
    """
    for name, wanted, there in (
        ("architectures", architectures, {rung.architecture for rung in LADDER}),
        ("n_train", n_train, {rung.n_train for rung in LADDER}),
    ):
        if not wanted or set(wanted) - there:
            known = ", ".join(map(str, sorted(there)))
            raise ValueError(f"`{name}` must be among {known}, got {list(wanted)}.")
    if n_sets < 1 or n_members < 2 or not 0 < step_share <= 1 or n_generated < 200:
        raise ValueError(
            "`n_sets`, `n_members`, `step_share` and `n_generated` must be at least 1, at least "
            f"2, in (0, 1] and at least 200, got {n_sets}, {n_members}, {step_share} and "
            f"{n_generated}."
        )
    return [
        replace(
            rung,
            n_sets=min(n_sets, rung.n_sets),
            n_bootstrap=min(n_members, rung.n_bootstrap),
            n_steps=max(1, round(step_share * rung.n_steps)),
            n_generated=min(n_generated, rung.n_generated),
        )
        for rung in LADDER
        if rung.architecture in architectures and rung.n_train in n_train
    ]


def ladder_parts(momenta: Array, *, n_train: int = 20_000) -> Parts:
    """Divide a sample into the training events of the kept generators, and those they never saw.

    Args:
        momenta: Sample, shape (n, 6, 4), of at least five times `n_train` events.
        n_train: Events of the training part.

    Raises:
        ValueError: There are too few events.
    """
    if n_train < 4 or 5 * n_train > len(momenta):
        raise ValueError(
            f"`n_train` must be at least 4 and at most a fifth of the {len(momenta)} events, "
            f"got {n_train}."
        )
    division = divide(momenta, n_train=n_train, n_holdout=n_train)
    others = (division.train, division.holdout, division.spent_holdout, division.fresh_holdout)
    unseen = np.concatenate(others)
    n_validation = min(N_VALIDATION, n_train // 4)
    return Parts(division.fresh_train, unseen[:n_validation], unseen[n_validation:])


def training_set(rung: Rung, number: int, train: Array) -> Array:
    """Return the events of one of a rung's disjoint training sets."""
    if rung.n_train * rung.n_sets > len(train):
        raise ValueError(
            f"`rung` must need at most {len(train)} training events, got {rung.n_sets} sets of "
            f"{rung.n_train}; take fewer sets."
        )
    return train[number * rung.n_train : (number + 1) * rung.n_train]


def rung_tasks(
    rung: Rung, train: Array, training: FlowMatchingTraining | None = None
) -> list[list[FlowMatchingTask]]:
    """Return the trainings of a rung, set by set: those on bootstrap draws, then the plain ones."""
    tasks = []
    for number in range(rung.n_sets):
        own = training_set(rung, number, train)
        of_set = []
        for n_members, bootstrap, seed in (
            (rung.n_bootstrap, True, 1 + number),
            (rung.n_plain, False, 1001 + number),
        ):
            if n_members:
                of_set += ensemble_tasks(
                    own,
                    rung.architecture,
                    n_members=n_members,
                    bootstrap=bootstrap,
                    seed=seed,
                    n_steps=rung.n_steps,
                    training=training,
                )
        tasks.append(of_set)
    return tasks


def check_holdout(observables: Array, rung: Rung) -> None:
    """Refuse held-out events, given by their observables (n, 10), that cannot judge a rung.

    Raises:
        ValueError: There are fewer than in a training set, or none in one of the windows.
    """
    if len(observables) < rung.n_train:
        raise ValueError(
            f"`holdout` must have at least as many events as a training set, {rung.n_train}, "
            f"got {len(observables)}; take more events."
        )
    for low, high in WINDOWS:
        if not in_window(observables, (low, high)).any():
            raise ValueError(
                f"`holdout` must have events in the window m_tt {low}-{high} GeV, got none of "
                f"{len(observables)}; take more events."
            )


def points_among(n_generated: int) -> list[int]:
    """Return the numbers of events at which what a generator made is looked at, ascending.

    >>> points_among(600), points_among(40)
    ([100, 200, 500], [40])
    """
    return [n for n in POINTS if n <= n_generated] or [n_generated]


def quantile_edges(validation: Array) -> Array:
    """Return edges (10, 21) of regions that each hold a twentieth of the validation events."""
    columns = top_pair_observables(validation).T
    return np.array([quantile_regions(values, N_QUANTILES) for values in columns])


def counts_of(observables: Array, edges: Array) -> Arrays:
    """Count events in the windows of m_tt, (6,), in quantiles, (10, 20), and in bins of m_tt."""
    m_tt = observables[:, TOP_PAIR_OBSERVABLES.index("m_tt")]
    return {
        "windows": _counted(m_tt, np.array(WINDOWS, dtype=np.float64)),
        "quantiles": np.array([_counted(*one) for one in zip(observables.T, edges, strict=True)]),
        "m_tt": np.histogram(m_tt, M_TT_EDGES)[0],
    }


def _counted(values: Array, regions: Array) -> NDArray[np.int64]:
    counter = RegionCounter(regions)
    counter.update(values)
    return counter.counts


class _Work(NamedTuple):
    task: FlowMatchingTask
    own: Array  # observables of the training set
    holdout: Array  # observables
    edges: Array
    n_generated: int
    seed: int
    store: ArtefactStore


def measure_rung(
    rung: Rung,
    parts: Parts,
    *,
    store: ArtefactStore,
    training: FlowMatchingTraining | None = None,
) -> Arrays:
    """Return what each generator of a rung makes; networks that are missing are trained.

    The arrays begin with (n_sets, n_bootstrap + n_plain), bootstrap members first:

    - "windows", "quantiles", "m_tt": as `counts_of`;
    - "alarm", (10, 20): counts between the quantiles of the member's own training set;
    - "window_curve", (n_points, 6): counts in the windows among the first `points_among` events;
    - "distances" and "estimates", (3, 2, 2, ...): as `compared`, for each of `FOLLOWED`.

    Base events of any two members are independent.

    Args:
        rung: Generators that are wanted.
        parts: Training, validation and held-out events.
        store: Store of the networks, their events, and of the result.
        training: Settings of the trainings but for their steps.

    Raises:
        ValueError: The rung does not fit the training events, or as `check_holdout`.
    """
    tasks = rung_tasks(rung, parts.train, training)
    holdout, edges = top_pair_observables(parts.holdout), quantile_edges(parts.validation)
    check_holdout(holdout, rung)
    stage = rung_stage("top-pair-ladder", COUNTS_VERSION, rung, tasks, parts).adding(
        edges=checksum(edges), windows=WINDOWS, points=POINTS
    )
    work = []
    for number, of_set in enumerate(tasks):
        own = top_pair_observables(training_set(rung, number, parts.train))
        for member, task in enumerate(of_set):
            seed = event_seed(rung, number, member)
            work.append(_Work(task, own, holdout, edges, rung.n_generated, seed, store))
    found = store.combine(stage, _counts, work, stacked)
    shape = (rung.n_sets, rung.n_bootstrap + rung.n_plain)
    return {name: array.reshape(*shape, *array.shape[1:]) for name, array in found.items()}


def rung_stage(
    name: str, version: int, rung: Rung, tasks: list[list[FlowMatchingTask]], parts: Parts
) -> Stage:
    """Return the stage of what follows from a rung's generators and the held-out events."""
    keys = [[task.key for task in of_set] for of_set in tasks]
    described = {"rung": asdict(rung), "tasks": keys, "holdout": checksum(parts.holdout)}
    return Stage(name, version, described)


def event_seed(rung: Rung, number: int, member: int) -> int:
    """Return the seed of a generator's events."""
    return int(np.random.SeedSequence([rung.n_train, number, member]).generate_state(1)[0])


def generated_events(
    task: FlowMatchingTask, n_generated: int, *, seed: int, store: ArtefactStore
) -> Array:
    """Return events (n_generated, n_particles, 4) of one generator, trained now if need be."""
    configuration = {"task": task.key, "n_generated": n_generated, "seed": seed}
    stage = Stage("top-pair-events", EVENTS_VERSION, configuration)
    work = [(task, n_generated, seed, store)]
    (found,) = store.map([stage], _events, work, jobs=1, label="")
    return found["momenta"].astype(np.float64)


def _events(work: tuple[FlowMatchingTask, int, int, ArtefactStore]) -> Arrays:
    task, n_generated, seed, store = work
    (generator,) = fitted_generators([task], store=store)
    return {"momenta": generator.sample(n_generated, seed=seed).astype(np.float32)}


def _counts(work: _Work) -> Arrays:
    momenta = generated_events(work.task, work.n_generated, seed=work.seed, store=work.store)
    generated = top_pair_observables(momenta)
    points = points_among(len(generated))
    counter = RegionCounter(np.array(WINDOWS, dtype=np.float64), snapshots=points)
    counter.update(generated[:, TOP_PAIR_OBSERVABLES.index("m_tt")])
    alarm = [
        _counted(values, alarm_regions(train))
        for values, train in zip(generated.T, work.own.T, strict=True)
    ]
    return {
        **counts_of(generated, work.edges),
        "alarm": np.array(alarm),
        "window_curve": counter.curve()[1],
        **distances_of(generated, work.own, work.holdout),
    }


def distances_of(generated: Array, train: Array, holdout: Array) -> Arrays:
    """Compare the `FOLLOWED` observables of samples given by all observables, (n, 10)."""
    samples = (generated, train, holdout)
    masks = [in_window(sample) for sample in samples]
    columns = [TOP_PAIR_OBSERVABLES.index(name) for name in FOLLOWED]
    return stacked([compared([x[:, column] for x in samples], masks) for column in columns])


def compared(samples: Sequence[Array], masks: Sequence[NDArray[np.bool_]]) -> Arrays:
    """Compare one statistic of generated events with training and held-out ones.

    Args:
        samples: Statistic of generated, training and held-out events, 1D each.
        masks: Which events of each sample are in the window.

    Returns:
        "distances", (2, 2, n_points): KS distances in the full phase space and in the window, to
        the training set and to the holdout, of the first `points_among` generated events.
        "estimates", (2, 2, 5): G, its 68 % interval and its one-sided 97.7 % limits by all of them.
        NaN where there are fewer than ten events.
    """
    n_made = len(samples[0])
    points = points_among(n_made)
    distances = np.full((2, 2, len(points)), np.nan)
    estimates = np.full((2, 2, 5), np.nan)
    for region in range(2):
        kept = [x if region == 0 else x[mask] for x, mask in zip(samples, masks, strict=True)]
        generated, train, _ = kept
        for which, reference in enumerate(kept[1:]):
            if min(map(len, kept)) < FEWEST_EVENTS:
                continue
            for p, n in enumerate(points):
                first = generated if region == 0 else samples[0][:n][masks[0][:n]]
                if len(first[:n]):
                    accumulator = KolmogorovAccumulator(reference)
                    accumulator.update(first[:n])
                    distances[region, which, p] = accumulator.distance()
            holdout = reference if which else None
            found = differential_amplification(
                len(train) if which else train, generated, holdout=holdout
            )
            estimates[region, which] = [found.amplification, *found.interval, *found.limits]
    return {"distances": distances, "estimates": estimates}


class FurtherWork(NamedTuple):
    """One generator of events with four further jets."""

    task: FlowMatchingTask
    momenta: Array  # training and held-out events, half of them each
    n_generated: int
    seed: int  # of its events
    store: ArtefactStore


def further_work(
    momenta: Array,
    *,
    n_members: int,
    n_steps: int,
    n_generated: int,
    store: ArtefactStore,
    training: FlowMatchingTraining | None = None,
) -> list[FurtherWork]:
    """Return the L-GATr generators that learn the first half of events with further jets.

    Args:
        momenta: Events with four further jets, shape (n, 10, 4).
        n_members: Number of generators, on bootstrap draws.
        n_steps: Steps of each training.
        n_generated: Events of each generator.
        store: Store of the networks, their events, and of what follows from them.
        training: Settings of the trainings but for their steps.

    Raises:
        ValueError: The events have no further jets.
    """
    if momenta.ndim != 3 or momenta.shape[1:] != (10, 4):
        raise ValueError(
            f"`momenta` must be (n, 10, 4), events with four further jets, got {momenta.shape}."
        )
    own = np.array_split(momenta, 2)[0]
    tasks = ensemble_tasks(
        own, "lgatr-slim", n_members=n_members, n_steps=n_steps, training=training
    )
    return [FurtherWork(task, momenta, n_generated, k, store) for k, task in enumerate(tasks)]


def measure_further_members(work: Sequence[FurtherWork]) -> Arrays:
    """Return what generators of events with further jets make.

    Returns:
        "m_tt", (n_members, n_bins): counts in `M_TT_EDGES`; "tail_curve", (n_members, n_points):
        counts above 1 TeV among the first `points_among` events; "alarm", (n_members, 20): counts
        between quantiles of the training set's m_tt.
    """
    described = {"tasks": [one.task.key for one in work], "n_generated": work[0].n_generated}
    stage = Stage("top-pair-further-members", FURTHER_VERSION, described | {"points": POINTS})
    return work[0].store.combine(stage, _further_counts, work, stacked)


def further_events(work: FurtherWork) -> Array:
    """Return the events of one generator, shape (n_generated, 10, 4)."""
    return generated_events(work.task, work.n_generated, seed=work.seed, store=work.store)


def _further_counts(work: FurtherWork) -> Arrays:
    column = TOP_PAIR_OBSERVABLES.index("m_tt")
    m_tt, train = (
        top_pair_observables(x)[:, column]
        for x in (further_events(work), np.array_split(work.momenta, 2)[0])
    )
    points = points_among(len(m_tt))
    tail = RegionCounter([FURTHER_WINDOW], snapshots=points)
    tail.update(m_tt)
    return {
        "m_tt": np.histogram(m_tt, M_TT_EDGES)[0],
        "tail_curve": tail.curve()[1][:, 0],
        "alarm": _counted(m_tt, alarm_regions(train)),
    }


def in_window(observables: Array, window: tuple[float, float] = WINDOWS[-1]) -> NDArray[np.bool_]:
    """Return which events, given by their observables (n, 10), have low <= m_tt < high."""
    low, high = window
    m_tt = observables[:, TOP_PAIR_OBSERVABLES.index("m_tt")]
    return (low <= m_tt) & (m_tt < high)


def validation_losses(
    train: Array,
    validation: Array,
    architecture: Architecture,
    n_steps: Sequence[int],
    *,
    store: ArtefactStore,
    training: FlowMatchingTraining | None = None,
) -> list[float]:
    """Return the loss on held-out events after trainings of several lengths, one seed each.

    Args:
        train: Training events, shape (n_train, n_particles, 4).
        validation: Held-out events, shape (n, n_particles, 4).
        architecture: Architecture of the velocity network.
        n_steps: Lengths of the trainings.
        store: Store of the networks and the losses.
        training: Settings of the trainings but for their steps.
    """
    tasks = [
        task
        for n in n_steps
        for task in ensemble_tasks(
            train,
            architecture,
            n_members=1,
            bootstrap=False,
            seed=0,
            n_steps=n,
            training=training,
        )
    ]
    held = {"validation": checksum(validation)}
    stages = [Stage("top-pair-steps", STEPS_VERSION, {"task": t.key, **held}) for t in tasks]
    found = store.map(stages, _loss, [(task, validation, store) for task in tasks])
    return [float(arrays["loss"]) for arrays in found]


def _loss(work: tuple[FlowMatchingTask, Array, ArtefactStore]) -> Arrays:
    task, validation, store = work
    (generator,) = fitted_generators([task], store=store)
    flow, source = generator.flow, torch.Generator().manual_seed(0)
    events = flow.coordinates.encode(torch.from_numpy(validation)).float()
    with one_thread(), torch.no_grad():
        losses = []
        # Four times and base events for each event: less noise.
        for part in events.repeat(4, 1, 1).split(1000):
            base = flow.pair(part, flow.base.sample(len(part), generator=source))
            losses.append(flow.loss(part, base, torch.rand(len(part), generator=source)))
    return {"loss": torch.stack(losses).mean().numpy()}


def checksum(events: Array) -> str:
    """Return the SHA-256 of an array's numbers."""
    return hashlib.sha256(np.ascontiguousarray(events).tobytes()).hexdigest()
