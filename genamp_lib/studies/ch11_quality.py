"""How good generators of top pairs are: distances, a classifier, peaks; each is kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from genamp_lib.datasets.peaks import Peak, find_peak
from genamp_lib.datasets.top_pairs import (
    DELTA_R_MIN,
    TOP_PAIR_OBSERVABLES,
    passes_cuts,
    top_pair_features,
    top_pair_observables,
)
from genamp_lib.diagnostics import auc_from_weights, auc_interval, likelihood_ratio_weights
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.fit import (
    FlowMatchingTask,
    FlowMatchingTraining,
    fit_flow_matching,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import TopPairGenerator
from genamp_lib.networks.top_pairs.solver import GENERATING, Solving
from genamp_lib.store import Arrays, ArtefactStore, Stage

Array = NDArray[np.float64]
Summary = dict[str, tuple[float, float]]

TRIAL_STAGE, MEMBER_STAGE = "top-pair-trial", "top-pair-quality"
# Part of every artefact's key: raise it when this code or a training changes the numbers.
TRIAL_VERSION, MEMBER_VERSION = 2, 1
# Edges of histograms; GeV, or none of eta_t and delta_r_min.
EDGES: Mapping[str, Array] = {
    "m_tt": np.geomspace(250.0, 2500.0, 31),
    "m_t": np.linspace(90.0, 410.0, 41),
    "m_w": np.linspace(20.0, 180.0, 41),
    "pt_t": np.linspace(0.0, 600.0, 31),
    "pt_tt": np.linspace(0.0, 120.0, 31),
    "eta_t": np.linspace(-5.0, 5.0, 31),
    "pt_b": np.linspace(20.0, 320.0, 31),
    "pt_q": np.linspace(20.0, 140.0, 31),
    "mass_b": np.linspace(0.0, 40.0, 31),
    "delta_r_min": np.linspace(0.4, 1.9, 31),
}
# Where peaks are looked for, and the smoothing, all in GeV.
_PEAKS = {"m_w": (50.0, 120.0, 2.0), "m_t": (100.0, 300.0, 4.0)}
_PARTS = {"closer than 0.5, before the cuts": "close", "outside of the cuts": "outside"}


@dataclass(frozen=True)
class Measuring:
    """The comparison of generators with held-out events."""

    n_generated: int = 20_000  # within the cuts
    n_before_cuts: int = 20_000  # other events, which tell how many fail the cuts
    solving: Solving = GENERATING
    n_folds: int = 3
    classifier: ClassifierSettings = field(
        default_factory=lambda: ClassifierSettings(n_hidden=128, n_epochs=25)
    )


@dataclass(frozen=True)
class Quality:
    """A generator beside held-out events."""

    ks: Mapping[str, float]  # distances to held-out events, by `TOP_PAIR_OBSERVABLES`
    # of training events: a perfect generator's, for as many events
    ks_of_train: Mapping[str, float]
    auc: float  # of a cross-fitted classifier that sees `top_pair_features`
    auc_interval: tuple[float, float]  # 68 %
    outside: float  # fraction of the events before the cuts that fails them
    close: float  # fraction with two jets closer than the cut
    cpu_seconds: float = math.nan  # of the training; NaN where `TopPairGenerator` has it
    peaks: Mapping[str, Peak] = field(default_factory=dict)  # of "m_w" and "m_t"; not of trials
    # with `EDGES`; not of trials
    densities: Mapping[str, Array] = field(default_factory=dict, compare=False)


def run_trials(
    trials: Mapping[str, tuple[FlowMatchingSettings, FlowMatchingTraining]],
    train: Array,
    holdout: Array,
    *,
    measuring: Measuring,
    seed: int,
    store: ArtefactStore,
    label: str = "",
) -> dict[str, Quality]:
    """Fit a generator for each trial and compare it with held-out events; a killed run continues.

    Only measures are kept, no networks: for those, `fitted_generators`.

    Args:
        trials: Generator and training of each trial, by its name.
        train: Momenta, shape (n_train, n_particles, 4).
        holdout: Momenta that no choice was made with, if the numbers shall be honest.
        measuring: Settings of the comparison.
        seed: Seed of the trainings, the generated events and the classifiers.
        store: Store of the results.
        label: Name of the work in the progress line; no line when empty.
    """
    tasks = [FlowMatchingTask(train, *how, seed=seed) for how in trials.values()]
    # The events themselves, not their file: a longer one begins with the same events.
    common = {"measuring": asdict(measuring), "holdout": _checksum(holdout)}
    stages = [Stage(TRIAL_STAGE, TRIAL_VERSION, {**common, "task": t.key}) for t in tasks]
    work = [
        (task, holdout, measuring, store.unfinished(stage) / "state")
        for task, stage in zip(tasks, stages, strict=True)
    ]
    found = store.map(stages, _trial, work, label=label)
    return dict(zip(trials, map(_quality, found), strict=True))


def measure_members(
    generators: Sequence[TopPairGenerator],
    train: Array,
    holdout: Array,
    *,
    measuring: Measuring,
    seed: int,
    store: ArtefactStore,
    label: str = "",
) -> list[Quality]:
    """Compare generators with held-out events one by one; what is measured is kept.

    Args:
        generators: Generators of one ensemble.
        train: Momenta of the training events, shape (n_train, n_particles, 4).
        holdout: Momenta of events of which nothing was known when the generators were made.
        measuring: Settings of the comparison.
        seed: Seed of the generated events and the classifiers.
        store: Store of the results.
        label: Name of the work in the progress line; no line when empty.
    """
    common = {"measuring": asdict(measuring), "seed": seed}
    common |= {"train": _checksum(train), "holdout": _checksum(holdout)}
    stages = [Stage(MEMBER_STAGE, MEMBER_VERSION, {**common, "task": g.key}) for g in generators]
    work = [(generator, train, holdout, measuring, seed) for generator in generators]
    return [_quality(arrays) for arrays in store.map(stages, _member, work, label=label)]


def measure(
    flow: FlowMatching, train: Array, holdout: Array, *, measuring: Measuring, seed: int
) -> tuple[Arrays, Array]:
    """Return how a generator compares with held-out events, and the events that it generated."""
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        how = {"generator": generator, "solving": measuring.solving}
        every = flow.sample(measuring.n_before_cuts, selected=False, **how).numpy()
        generated = flow.sample(measuring.n_generated, **how).numpy()
    close = _columns(every)["delta_r_min"] < DELTA_R_MIN
    fit = cross_fitted_logits(
        top_pair_features(holdout),
        top_pair_features(generated),
        settings=measuring.classifier,
        seed=seed,
        n_folds=measuring.n_folds,
    )
    weights = [likelihood_ratio_weights(logits) for logits in (fit.truth, fit.generated)]
    low, high = auc_interval(*weights, cross_fitted=True)
    arrays = {
        "ks": np.array(ks_distances(generated, holdout)),
        "ks_of_train": np.array(ks_distances(train, holdout)),
        "auc": np.array([auc_from_weights(*weights), low, high]),
        "outside": np.array([(~passes_cuts(every)).mean(), close.mean()]),
    }
    return arrays, generated


def ks_distances(events: Array, reference: Array) -> list[float]:
    """Return Kolmogorov-Smirnov distances of two samples, as in `TOP_PAIR_OBSERVABLES`."""
    pairs = zip(top_pair_observables(events).T, top_pair_observables(reference).T, strict=True)
    return [float(ks_2samp(*pair, method="asymp").statistic) for pair in pairs]


def densities_of(events: Array) -> dict[str, Array]:
    """Return normalised histograms of events with `EDGES`; all events count, in bins or not."""
    columns = _columns(events)
    return {
        name: np.histogram(columns[name], edges)[0] / (len(events) * np.diff(edges))
        for name, edges in EDGES.items()
    }


def peaks_of(events: Array) -> dict[str, Peak]:
    """Return the peaks of "m_w" and "m_t" of the first top candidate, in GeV; NaN without one."""
    columns, peaks = _columns(events), {}
    for name, (low, high, bandwidth) in _PEAKS.items():
        try:
            peaks[name] = find_peak(columns[name], low, high, bandwidth=bandwidth)
        except ValueError:  # little is left of a peak in a generator's first steps
            peaks[name] = Peak(*(4 * (math.nan,)))
    return peaks


def distance_error(n_first: int, n_second: int) -> float:
    """Return the largest standard deviation that a Kolmogorov-Smirnov distance can have.

    That of the difference of two empirical distribution functions where both are one half.

    >>> distance_error(5000, 5000)
    0.01
    """
    return 0.5 * math.sqrt(1 / n_first + 1 / n_second)


def summarise_members(
    members: Sequence[Quality], *, n_generated: int, n_before_cuts: int, n_holdout: int
) -> Summary:
    """Return means over members with the error of one member, by what is measured.

    The error is the statistical one and, from two members on, their standard deviation, in
    quadrature. That of a distance is `distance_error`.

    Args:
        members: Members of one ensemble.
        n_generated: Events of each member, within the cuts.
        n_before_cuts: Events of each member before the cuts.
        n_holdout: Held-out events.

    Raises:
        ValueError: There are no members, or a number is not positive.
    """
    if not members:
        raise ValueError("`members` must not be empty.")
    numbers = {"n_generated": n_generated, "n_before_cuts": n_before_cuts, "n_holdout": n_holdout}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be positive, got {number}.")
    distance = distance_error(n_generated, n_holdout)
    each = [_of_member(member, distance, n_before_cuts) for member in members]
    summary = {}
    for what in each[0]:
        values, errors = np.transpose([found[what] for found in each])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        summary[what] = float(values.mean()), float(np.hypot(spread, errors.mean()))
    return summary


def summarise_truth(member: Quality, holdout: Array) -> Summary:
    """Return what a perfect generator has, by what is measured, with the error where it has one.

    Args:
        member: Any generator that was compared with `holdout`.
        holdout: Momenta, shape (n, n_particles, 4).
    """
    summary = {"AUC of a classifier": (0.5, 0.0)}
    summary |= {f"KS {name}": (value, 0.0) for name, value in member.ks_of_train.items()}
    summary |= dict.fromkeys(_PARTS, (0.0, 0.0))
    return summary | _of_peaks(peaks_of(holdout))


def table_of(truth: Summary, summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the rows of a table: what is measured, the truth, each of `summaries`.

    >>> table_of({"KS m_t": (0.01, 0.0)}, [{"KS m_t": (0.04, 0.005)}])
    [['KS m_t', '0.010', '0.040 ± 0.005']]
    """
    rows = []
    for what in truth:
        digits = 1 if what.endswith("GeV") else 3
        cells = [what]
        for mean, error in (summary[what] for summary in (truth, *summaries)):
            cells.append(f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error else ""))
        rows.append(cells)
    return rows


def _trial(work: tuple[FlowMatchingTask, Array, Measuring, Path]) -> Arrays:
    task, holdout, measuring, checkpoint = work
    made = fit_flow_matching(task, checkpoint=checkpoint)
    flow = TopPairGenerator(task.flow, task.key, made).flow
    train = np.asarray(task.train)
    arrays, _ = measure(flow, train, holdout, measuring=measuring, seed=task.seed)
    return arrays | {name: made[name] for name in ("losses", "cpu_seconds")}


def _member(work: tuple[TopPairGenerator, Array, Array, Measuring, int]) -> Arrays:
    generator, train, holdout, measuring, seed = work
    arrays, generated = measure(generator.flow, train, holdout, measuring=measuring, seed=seed)
    arrays["peaks"] = np.array([astuple(peak) for peak in peaks_of(generated).values()])
    return arrays | {f"density.{name}": x for name, x in densities_of(generated).items()}


def _quality(arrays: Arrays) -> Quality:
    ks, of_train = (
        dict(zip(TOP_PAIR_OBSERVABLES, arrays[name].tolist(), strict=True))
        for name in ("ks", "ks_of_train")
    )
    auc, low, high = arrays["auc"].tolist()
    outside, close = arrays["outside"].tolist()
    more = {}
    if "cpu_seconds" in arrays:
        more["cpu_seconds"] = arrays["cpu_seconds"].item()
    if "peaks" in arrays:
        rows = zip(_PEAKS, arrays["peaks"].tolist(), strict=True)
        more["peaks"] = {name: Peak(*row) for name, row in rows}
        more["densities"] = {name: arrays[f"density.{name}"] for name in EDGES}
    return Quality(ks, of_train, auc, (low, high), outside, close, **more)


def _columns(events: Array) -> dict[str, Array]:
    return dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables(events).T, strict=True))


def _checksum(events: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(events).tobytes()).hexdigest()


def _of_member(member: Quality, distance: float, n_before_cuts: int) -> Summary:
    low, high = member.auc_interval
    summary = {"AUC of a classifier": (member.auc, (high - low) / 2)}
    summary |= {f"KS {name}": (value, distance) for name, value in member.ks.items()}
    for what, name in _PARTS.items():
        part = getattr(member, name)
        summary[what] = part, math.sqrt(part * (1 - part) / n_before_cuts)
    return summary | _of_peaks(member.peaks)


def _of_peaks(peaks: Mapping[str, Peak]) -> Summary:
    return {
        f"{label} peak, {what} / GeV": (getattr(peak, what), getattr(peak, f"{what}_error"))
        for label, peak in (("W", peaks["m_w"]), ("top", peaks["m_t"]))
        for what in ("position", "width")
    }
