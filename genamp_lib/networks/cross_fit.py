"""Cross-fit classifiers for many pairs of samples, kept as one artefact. One pair: cross_fit.

Score every event by classifiers that were trained without it, and keep the classifiers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from genamp_lib._project import GenampError
from genamp_lib.networks.classifier import (
    CODE_VERSION,
    ClassifierFit,
    ClassifierSettings,
    check_events,
    classifier_from_arrays,
    classifier_to_arrays,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.sharing import finished_tasks
from genamp_lib.store import Arrays, ArtefactStore, Stage


@dataclass(frozen=True)
class CrossFit:
    """Logits of all events, each from classifiers that never saw the event.

    Attributes:
        truth: Logits of the truth events, shape (n_truth,), float64.
        generated: Logits of the generated events, shape (n_generated,), float64.
        fits: The fitted classifiers, one tuple of members per fold.
    """

    truth: np.ndarray
    generated: np.ndarray
    fits: tuple[tuple[ClassifierFit, ...], ...] = field(repr=False)


def cross_fitted_logits(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    settings: ClassifierSettings,
    seed: int,
    n_folds: int = 5,
    n_members: int = 1,
    store: ArtefactStore | None = None,
    stage: Stage | None = None,
    progress: Callable[[str], None] | None = None,
) -> CrossFit:
    """Score every event by an ensemble of classifiers that were trained without it.

    Both samples are divided at random into folds. For each fold, member m is trained on the
    others but one and chosen on the one left, the (m + 1)-th after the fold in cyclic order. The
    outputs C of the members are averaged, as in paper B, sec. 3, and the logit of the mean
    is returned.

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).
        settings: Network and training of each classifier.
        seed: Of the folds and the trainings.
        n_folds: Number of folds, at least 3.
        n_members: Classifiers per fold, at most `n_folds` - 1.
        store: Where each classifier is kept as an artefact; None keeps nothing.
        stage: With `store`: name, version and inputs of the artefacts, and the configuration that
            `truth` and `generated` follow from; this function's own arguments are added to it.
        progress: Called with one line of text per classifier.

    Raises:
        ValueError: As `fit_classifier`, or a number is out of range, a sample has fewer events
            than folds, or only one of `store` and `stage` is given.
        GenampError: An artefact is damaged or was trained on other events.

    >>> rng = np.random.default_rng(0)
    >>> fit = cross_fitted_logits(rng.normal(size=(60, 2)), rng.normal(size=(40, 2)), n_folds=3,
    ...     settings=ClassifierSettings(n_epochs=1), seed=1)
    >>> fit.truth.shape, fit.generated.shape, len(fit.fits)
    ((60,), (40,), 3)
    """
    samples = check_events(truth, generated)
    if n_folds < 3:
        raise ValueError(f"`n_folds` must be at least 3 (train, validate, score), got {n_folds}.")
    if not 1 <= n_members < n_folds:
        raise ValueError(f"`n_members` must be in 1 ... n_folds - 1, got {n_members}.")
    if min(len(samples[0]), len(samples[1])) < n_folds:
        raise ValueError(
            f"`truth` and `generated` must have at least {n_folds} events, one per fold, "
            f"got {len(samples[0])} and {len(samples[1])}."
        )
    if (store is None) != (stage is None):
        raise ValueError("`store` and `stage` must be given together, got only one of them.")

    folds = fold_numbers([len(sample) for sample in samples], n_folds=n_folds, seed=seed)
    fits = []
    for fold in range(n_folds):
        members = []
        for member in range(n_members):
            validation_fold = (fold + 1 + member) % n_folds
            train, validation = [], []
            for sample, numbers in zip(samples, folds, strict=True):
                train.append(sample[(numbers != fold) & (numbers != validation_fold)])
                validation.append(sample[numbers == validation_fold])
            own = {"fold": fold, "member": member, "n_folds": n_folds, "seed": seed}
            fit = _kept_fit(
                train,
                validation,
                settings,
                int(np.random.SeedSequence([seed, fold, member]).generate_state(1)[0]),
                store,
                None if stage is None else _with_settings(stage, own, settings),
            )
            members.append(fit)
            if progress is not None:
                progress(
                    f"fold {fold + 1}/{n_folds}, member {member + 1}/{n_members}: "
                    f"validation loss {fit.validation_loss.min():.5f} at epoch {fit.best_epoch + 1}"
                )
        fits.append(tuple(members))
    logits = [score(sample, numbers, fits) for sample, numbers in zip(samples, folds, strict=True)]
    return CrossFit(logits[0], logits[1], tuple(fits))


def fold_numbers(sizes: Sequence[int], *, n_folds: int, seed: int) -> list[np.ndarray]:
    """Divide samples at random into folds: the fold of each event, one array per sample.

    Args:
        sizes: Number of events of each sample.
        n_folds: Number of folds; their sizes differ by at most one.
        seed: Of the division.

    >>> [numbers.tolist() for numbers in fold_numbers([3, 2], n_folds=3, seed=1)]
    [[0, 1, 2], [0, 1]]
    """
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.arange(size) % n_folds) for size in sizes]


def score(
    events: ArrayLike, folds: np.ndarray, fits: Sequence[Sequence[ClassifierFit]]
) -> np.ndarray:
    """Return the logit of each event by the classifiers of its fold, shape (n_events,).

    Args:
        events: Features, shape (n_events, n_features).
        folds: Fold of each event, shape (n_events,).
        fits: The classifiers, one sequence of members per fold.
    """
    logits = np.empty(len(folds))
    for fold, members in enumerate(fits):
        chosen = folds == fold
        logits[chosen] = ensemble_logits([fit.classifier for fit in members], events[chosen])
    return logits


def _with_settings(stage: Stage, own: dict[str, Any], settings: ClassifierSettings) -> Stage:
    added = {"classifier": {**asdict(settings), **own, "code_version": CODE_VERSION}}
    return replace(stage, configuration={**stage.configuration, **added})


def _kept_fit(
    train: list[torch.Tensor],
    validation: list[torch.Tensor],
    settings: ClassifierSettings,
    seed: int,
    store: ArtefactStore | None,
    stage: Stage | None,
) -> ClassifierFit:
    def compute() -> ClassifierFit:
        return fit_classifier(
            train[0],
            train[1],
            validation_truth=validation[0],
            validation_generated=validation[1],
            settings=settings,
            seed=seed,
        )

    if store is None or stage is None:
        return compute()
    arrays = store.load_or_compute(stage, lambda: classifier_to_arrays(compute()))
    fit = classifier_from_arrays(arrays, settings)
    check_trained_on(fit, train, stage)
    return fit


def check_trained_on(fit: ClassifierFit, train: list[torch.Tensor], stage: Stage) -> None:
    """Compare a kept classifier with the events that it should have been trained on.

    The key of an artefact covers what the caller says the events follow from; the stored
    standardisation tells whether that is true.

    Raises:
        GenampError: It was trained on others.
    """
    mean = torch.cat(train).double().mean(0)
    if mean.shape != fit.classifier.feature_mean.shape or not torch.allclose(
        mean, fit.classifier.feature_mean.double(), rtol=1e-4, atol=1e-6
    ):
        raise GenampError(
            f"artefact `{stage.name}-{stage.key}`: was trained on other events than these; put "
            "all that they follow from into `stage`, or rerun with --fresh"
        )


@dataclass(frozen=True)
class PairTask:
    """Two samples to be told apart.

    Attributes:
        name: Unique among the tasks; part of the artefact's key.
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).
        seed: Of the folds and the trainings.
    """

    name: str
    truth: np.ndarray = field(repr=False)
    generated: np.ndarray = field(repr=False)
    seed: int


def cross_fit_pairs(
    tasks: Sequence[PairTask],
    *,
    settings: ClassifierSettings,
    n_folds: int = 5,
    n_members: int = 1,
    store: ArtefactStore,
    stage: Stage,
    jobs: int = 1,
    label: str = "",
) -> dict[str, CrossFit]:
    """Score the events of each pair by classifiers that were trained without them.

    As `cross_fit.cross_fitted_logits` for each task, with the classifiers of all of them in one
    artefact. A killed run continues with the first pair that was not done.

    Args:
        tasks: The pairs.
        settings: Network and training of each classifier.
        n_folds: Number of folds, at least 3.
        n_members: Classifiers per fold, at most `n_folds` - 1.
        store: Where the artefact is kept.
        stage: Name, version and inputs of the artefact, and the configuration that the events
            follow from; this function's own arguments are added to it.
        jobs: Processes that share the pairs.
        label: What the progress line calls the work; no line when empty.

    Returns:
        Name of the task -> its logits and classifiers.

    Raises:
        ValueError: As of `cross_fitted_logits`, or names are not unique.
        GenampError: An artefact is damaged or was trained on other events.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"`tasks` must have different names, got {names}.")
    common = {"n_folds": n_folds, "n_members": n_members, "code_version": CODE_VERSION}
    classifier = {"classifier": {**asdict(settings), **common}}

    def with_pairs(name: str, chosen: Sequence[PairTask]) -> Stage:
        pairs = {"pairs": {task.name: task.seed for task in chosen}}
        return replace(
            stage, name=name, configuration={**stage.configuration, **classifier, **pairs}
        )

    parts = [with_pairs(f"{stage.name}-part", [task]) for task in tasks]
    whole = with_pairs(stage.name, tasks)

    def compute() -> Arrays:
        kept = {i: part for i, one in enumerate(parts) if (part := store.kept_part(one))}
        todo = [i for i in range(len(tasks)) if i not in kept]
        work = [(tasks[i], settings, n_folds, n_members) for i in todo]
        start = time.perf_counter()
        for number, arrays in finished_tasks(_fit, work, jobs=jobs, label=label, done=len(kept)):
            kept[todo[number]] = arrays
            seconds = time.perf_counter() - start
            store.keep_part(parts[todo[number]], arrays, wall_seconds=seconds)
        for one in parts:
            store.forget_part(one)
        return {f"{i}.{key}": array for i in kept for key, array in kept[i].items()}

    arrays = store.load_or_compute(whole, compute)
    fits = {}
    for i, task in enumerate(tasks):
        samples = check_events(task.truth, task.generated)
        folds = fold_numbers([len(x) for x in samples], n_folds=n_folds, seed=task.seed)
        members = [
            [
                classifier_from_arrays(_named(arrays, f"{i}.{fold}.{member}."), settings)
                for member in range(n_members)
            ]
            for fold in range(n_folds)
        ]
        # The first classifier was trained on all folds but its own and the next.
        first = [x[(numbers > 1)] for x, numbers in zip(samples, folds, strict=True)]
        check_trained_on(members[0][0], first, whole)
        logits = [score(x, numbers, members) for x, numbers in zip(samples, folds, strict=True)]
        fits[task.name] = CrossFit(logits[0], logits[1], tuple(tuple(one) for one in members))
    return fits


def _fit(work: tuple[PairTask, ClassifierSettings, int, int]) -> Arrays:
    task, settings, n_folds, n_members = work
    fit = cross_fitted_logits(
        task.truth,
        task.generated,
        settings=settings,
        seed=task.seed,
        n_folds=n_folds,
        n_members=n_members,
    )
    return {
        f"{fold}.{member}.{name}": array
        for fold, members in enumerate(fit.fits)
        for member, one in enumerate(members)
        for name, array in classifier_to_arrays(one).items()
    }


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
