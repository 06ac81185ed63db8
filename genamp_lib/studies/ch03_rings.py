"""Chapter 03: classifiers of rings, and Kolmogorov-Smirnov distances of rings over n_generated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from genamp_lib.amplification import KolmogorovAccumulator
from genamp_lib.datasets import Ring, radius
from genamp_lib.networks.classifier import CODE_VERSION as CLASSIFIER_VERSION
from genamp_lib.networks.classifier import (
    Classifier,
    ClassifierSettings,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.mixture.regions import region_probabilities
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.store import Arrays, ArtefactStore, Stage, stacked

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RingClassifiers:
    """Classifiers of training against generated events; scores are log(p_generated/p_train)."""

    folds: tuple[Classifier, ...]  # one per fold of the cross-fitting
    own: Classifier  # trained and chosen on all training events, which it then scores
    half: Classifier  # trained on the first half of the training events
    crossed_train: Values  # all training events, each by a classifier that never saw it
    half_train: Values  # the second half, by `half`

    def crossed(self, events: np.ndarray) -> Values:
        """Score new events by one fold's classifier each: the same mixture as `crossed_train`."""
        scores, n = np.empty(len(events)), len(self.folds)
        for k, classifier in enumerate(self.folds):
            scores[k::n] = score(classifier, events[k::n])
        return scores


def score(classifier: Classifier, events: np.ndarray) -> Values:
    """Return log(p_generated/p_train) of events by one classifier."""
    return -ensemble_logits([classifier], events)


def fit_ring_classifiers(
    train: np.ndarray,
    generated: np.ndarray,
    *,
    settings: ClassifierSettings,
    n_folds: int = 5,
    seed: int,
) -> RingClassifiers:
    """Fit the classifiers of training against generated events, all within the window."""
    crossed = cross_fitted_logits(train, generated, settings=settings, seed=seed, n_folds=n_folds)
    fit = partial(fit_classifier, settings=settings, seed=seed)
    own = fit((train, generated), (train, generated))
    # Of the first half and of the generated events a fifth chooses the epoch.
    fitted, rest = np.split(train[: len(train) // 2], [int(0.4 * len(train))])
    half = fit(*zip((fitted, rest), np.split(generated, [int(0.8 * len(generated))]), strict=True))
    return RingClassifiers(
        folds=tuple(fits[0].classifier for fits in crossed.fits),
        own=own.classifier,
        half=half.classifier,
        crossed_train=-crossed.truth,
        half_train=score(half.classifier, train[len(train) // 2 :]),
    )


def within(events: np.ndarray, window: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which events have a radius inside of the window."""
    radii = radius(events)
    return (radii >= window[0]) & (radii < window[1])


def log_ratio_to_truth(
    model: MixtureTransformer, ring: Ring, events: np.ndarray, window: tuple[float, float]
) -> Values:
    """Return LR_truth = log(p_generated/p_truth), (n_members, n_events), both within the window."""
    edges = [window[0], window[1]]
    kept = region_probabilities(model, edges).probabilities
    kept_truth = ring.radial_cdf(window[1]) - ring.radial_cdf(window[0])
    with torch.no_grad():
        log_prob = model.log_prob(torch.as_tensor(events, dtype=torch.float32)).double().numpy()
    return log_prob - ring.log_prob(events) - np.log(kept / kept_truth)


# Part of every artefact's key: raise it when the code of a scan changes the numbers that it gives.
CODE_VERSION = 1
_CHUNK = 1 << 17
# Rows of "counts" of a scan.
COUNTS = (
    "train", "train_cut", "split", "holdout", "holdout_cut", "drawn", "generated", "generated_cut"
)  # fmt: skip


@dataclass(frozen=True)
class ScanSettings:
    """What is computed of each event, and where."""

    window: tuple[float, float]  # smallest and largest radius of all samples, the classifiers' too
    sizes: tuple[int, ...]  # generated events within the window at which distances are kept
    cut: tuple[float, float] = (0.95, 1.05)  # likelihood ratios that the refined samples keep
    # of training against generated events; no refined samples without
    classifier: ClassifierSettings | None = None
    n_classifier: int = 1000  # generated events for the classifiers, before the window
    n_folds: int = 5
    holdout_seed: int = 0  # the same for scans that share a holdout
    n_holdout: int = 0  # before the window; 0 for none


@dataclass(frozen=True)
class ScanTask:
    """One generator to be scanned."""

    ring: Ring
    train: np.ndarray = field(repr=False)  # shape (n_train, n_features)
    seed: int
    # a single network; None for the truth itself, a null run
    model: MixtureTransformer | None = None


def distance_scan(task: ScanTask, *, settings: ScanSettings) -> Arrays:
    """Return the distances of one generator to its references over n_generated, Eq. (33).

    The arrays are named sample/statistic/reference, with one number for each of `settings.sizes`,
    NaN where a refined sample ends before. Samples are "full" and "cut" (refined by `settings.cut`
    on the cross-fitted classifier, generated and reference events alike); statistics "radius",
    "truth" (LR_truth; not in a null run), and those of `RingClassifiers`; references "train" and
    "holdout". "counts" has the events in the samples, in the order of `COUNTS`.
    """
    sampling, training = np.random.SeedSequence(task.seed).generate_state(2)
    # A quarter more than the window keeps of the truth is enough for small scans.
    size = min(_CHUNK, int(1.25 * settings.sizes[-1]))
    chunks = _chunks(task, int(sampling), settings.window, size)
    references = {"train": task.train[within(task.train, settings.window)]}
    if settings.n_holdout:
        holdout = task.ring.sample(settings.n_holdout, seed=settings.holdout_seed)
        references["holdout"] = holdout[within(holdout, settings.window)]
    classifiers = None
    if settings.classifier is not None:
        generated, _ = next(_chunks(task, int(training), settings.window, settings.n_classifier))
        how = {"settings": settings.classifier, "n_folds": settings.n_folds, "seed": int(training)}
        classifiers = fit_ring_classifiers(references["train"], generated, **how)
    counts = dict.fromkeys(COUNTS, 0)
    accumulators: dict[str, KolmogorovAccumulator] = {}
    for reference, events in references.items():
        statistics = _statistics(task, events, settings, classifiers)
        if classifiers is not None and reference == "train":
            statistics["crossed"] = classifiers.crossed_train
            statistics["half"] = classifiers.half_train
            counts["split"] = len(classifiers.half_train)
        for sample, values in _samples(statistics, settings):
            counts[reference + ("_cut" if sample == "cut" else "")] = len(values["radius"])
            for statistic, numbers in values.items():
                if statistic in ("own", "half") and (sample, reference) != ("full", "train"):
                    continue
                accumulator = KolmogorovAccumulator(numbers, snapshots=settings.sizes)
                accumulators[f"{sample}/{statistic}/{reference}"] = accumulator
    for events, n_drawn in chunks:
        counts["drawn"] += n_drawn
        for sample, values in _samples(_statistics(task, events, settings, classifiers), settings):
            counts["generated" + ("_cut" if sample == "cut" else "")] += len(values["radius"])
            for name, accumulator in accumulators.items():
                if name.startswith(sample):
                    accumulator.update(values[name.split("/")[1]])
        if counts["generated"] >= settings.sizes[-1]:
            break
    arrays = {}
    for name, accumulator in accumulators.items():
        curve = np.full(len(settings.sizes), np.nan)
        complete = accumulator.curve()[1]
        curve[: len(complete)] = complete
        arrays[name] = curve
    return {**arrays, "counts": np.array([counts[name] for name in COUNTS])}


def distance_scans(
    tasks: Sequence[ScanTask], *, settings: ScanSettings, store: ArtefactStore, name: str
) -> Arrays:
    """Scan several generators; one artefact, arrays of `distance_scan` stacked along axis 0."""
    if not tasks:
        raise ValueError("`tasks` must not be empty, got none.")
    scan = partial(distance_scan, settings=settings)
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(np.ascontiguousarray(task.train, dtype="<f8"))
        if task.model is not None:
            digest.update(task.model.identity)
    stage = Stage(
        name,
        version=CODE_VERSION,
        configuration={
            "ring": asdict(tasks[0].ring),
            "seeds": [task.seed for task in tasks],
            "settings": asdict(settings),
            "classifier_version": CLASSIFIER_VERSION,
        },
        inputs={"events_and_networks": digest.hexdigest()},
    )
    return store.combine(stage, scan, tasks, stacked)


def _chunks(
    task: ScanTask, seed: int, window: tuple[float, float], size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (generated events within the window, how many were drawn) without end."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    while True:
        if task.model is None:
            events = task.ring.sample(size, seed=rng)
        else:
            events = task.model.sample(size, generator=generator)[0].double().numpy()
        yield events[within(events, window)], size


def _statistics(
    task: ScanTask,
    events: np.ndarray,
    settings: ScanSettings,
    classifiers: RingClassifiers | None,
) -> dict[str, Values]:
    """Return the statistics of events that no classifier was trained on."""
    statistics = {"radius": radius(events)}
    if task.model is not None:
        ratio = log_ratio_to_truth(task.model, task.ring, events, settings.window)
        statistics["truth"] = ratio[0]
    if classifiers is not None:
        statistics["crossed"] = classifiers.crossed(events)
        statistics["own"] = score(classifiers.own, events)
        statistics["half"] = score(classifiers.half, events)
    return statistics


def _samples(
    statistics: Mapping[str, Values], settings: ScanSettings
) -> Iterator[tuple[str, dict[str, Values]]]:
    """Yield the full sample, and with a classifier the refined one."""
    yield "full", dict(statistics)
    if "crossed" in statistics:
        low, high = np.log(settings.cut)
        kept = (statistics["crossed"] >= low) & (statistics["crossed"] <= high)
        names = [name for name in ("radius", "truth", "crossed") if name in statistics]
        yield "cut", {name: statistics[name][kept] for name in names}
