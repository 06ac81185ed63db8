"""Cross-fit classifiers for many pairs of samples, kept as one artefact. One pair: cross_fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from genamp_lib._parallel import finished_tasks
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.classifier import (
    CODE_VERSION,
    ClassifierSettings,
    check_events,
    classifier_from_arrays,
    classifier_to_arrays,
)
from genamp_lib.training.cross_fit import (
    CrossFit,
    check_trained_on,
    cross_fitted_logits,
    fold_numbers,
    score,
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
