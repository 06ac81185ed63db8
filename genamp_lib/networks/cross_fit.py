"""Score every event by classifiers that were trained without it: one pair of samples, or many.

Not for many small experiments at once: networks.classifier_batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

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
from genamp_lib.networks.fitting import check_trained_on
from genamp_lib.networks.tabular import fold_numbers
from genamp_lib.sharing import map_tasks
from genamp_lib.store import Arrays, ArtefactStore, Stage, named, numbered


@dataclass(frozen=True)
class CrossFit:
    """Logits of all events, float64, each from classifiers that never saw the event."""

    truth: np.ndarray
    generated: np.ndarray
    fits: tuple[tuple[ClassifierFit, ...], ...] = field(repr=False)  # one tuple of members per fold


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
    label: str | None = None,
) -> CrossFit:
    """Score every event by an ensemble of classifiers that were trained without it.

    Both samples (n_events, n_features) are divided at random into folds. For each fold, member m is
    trained on the others but one and chosen on the one left, the (m + 1)-th after the fold in
    cyclic order. The outputs C of the members are averaged, as in paper B, sec. 3, and the logit of
    the mean is returned.

    A `store` keeps each classifier as an artefact, a `stage` gives their name, version and inputs,
    and the configuration that the samples follow from; own arguments are added to it. Refuses kept
    classifiers that were trained on other events.

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
    if min(map(len, samples)) < n_folds:
        raise ValueError(
            f"`truth` and `generated` must have at least {n_folds} events, one per fold, "
            f"got {len(samples[0])} and {len(samples[1])}."
        )
    if (store is None) != (stage is None):
        raise ValueError("`store` and `stage` must be given together, got only one of them.")

    folds = fold_numbers([len(sample) for sample in samples], n_folds=n_folds, seed=seed)
    places = [(fold, member) for fold in range(n_folds) for member in range(n_members)]
    fit_at = partial(_fit_at, samples, folds, settings, seed)
    stages = []
    if store is None or stage is None:
        arrays = map_tasks(fit_at, places, label=label)
    else:
        own = {**asdict(settings), "n_folds": n_folds, "seed": seed, "code_version": CODE_VERSION}
        stages = [
            stage.adding(classifier={**own, "fold": fold, "member": member})
            for fold, member in places
        ]
        arrays = store.map(stages, fit_at, places, label=label)
    fits = [classifier_from_arrays(one, settings) for one in arrays]
    for fit, place, one in zip(fits, places, stages, strict=False):
        train, _ = _training_parts(samples, folds, *place)
        check_trained_on(fit.classifier, np.concatenate(train), f"{one.name}-{one.key}")
    rows = [tuple(fits[k : k + n_members]) for k in range(0, len(fits), n_members)]
    return CrossFit(*_scored(samples, folds, rows), tuple(rows))


def unseen_logits(fit: CrossFit, events: ArrayLike, *, seed: int) -> np.ndarray:
    """Score events that no classifier has seen as the samples were scored: by one fold each.

    The fold of each event is drawn at random. The mean over all folds would be less noisy than the
    scores in `fit`, and a comparison with these would find a difference where there is none.

    Args:
        fit: What `cross_fitted_logits` returned.
        events: Features, shape (n_events, n_features).
        seed: Seed of the folds.

    Returns:
        Logits, shape (n_events,), float64.
    """
    features = np.asarray(events, dtype=np.float32)
    (numbers,) = fold_numbers([len(features)], n_folds=len(fit.fits), seed=seed)
    (logits,) = _scored([features], [numbers], fit.fits)
    return logits


# Features of truth and generated events, seed of the folds and the trainings.
Pair = tuple[ArrayLike, ArrayLike, int]


def cross_fit_pairs(
    pairs: Mapping[str, Pair],
    *,
    settings: ClassifierSettings,
    n_folds: int = 5,
    n_members: int = 1,
    store: ArtefactStore,
    stage: Stage,
) -> dict[str, CrossFit]:
    """Do `cross_fitted_logits` for many named pairs, whose classifiers are kept as one artefact."""
    own = {"n_folds": n_folds, "n_members": n_members}
    whole = stage.adding(
        classifier={**asdict(settings), **own, "code_version": CODE_VERSION},
        pairs={name: seed for name, (_, _, seed) in pairs.items()},
    )
    fit = partial(_fit_pair, settings, own)
    arrays = store.combine(whole, fit, list(pairs.values()), numbered)
    found = {}
    for number, (name, (truth, generated, seed)) in enumerate(pairs.items()):
        samples = check_events(truth, generated)
        folds = fold_numbers([len(x) for x in samples], n_folds=n_folds, seed=seed)
        fits = tuple(
            tuple(
                classifier_from_arrays(named(arrays, f"{number}.{fold}.{member}."), settings)
                for member in range(n_members)
            )
            for fold in range(n_folds)
        )
        train, _ = _training_parts(samples, folds, 0, 0)
        check_trained_on(fits[0][0].classifier, np.concatenate(train), f"{whole.name}-{whole.key}")
        found[name] = CrossFit(*_scored(samples, folds, fits), fits)
    return found


def _fit_at(
    samples: list[Tensor],
    folds: list[np.ndarray],
    settings: ClassifierSettings,
    seed: int,
    place: tuple[int, int],
) -> Arrays:
    """Fit a member of a fold; a pure function for other processes."""
    own = int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])
    parts = _training_parts(samples, folds, *place)
    return classifier_to_arrays(fit_classifier(*parts, settings=settings, seed=own))


def _training_parts(
    samples: list[Tensor], folds: list[np.ndarray], fold: int, member: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a member of a fold is trained on, and what its epoch is chosen on."""
    chosen = (fold + 1 + member) % (1 + folds[0].max())  # each fold has events of each sample
    pairs = list(zip(samples, folds, strict=True))
    train = [sample[(numbers != fold) & (numbers != chosen)] for sample, numbers in pairs]
    return train, [sample[numbers == chosen] for sample, numbers in pairs]


def _scored(
    samples: list[Tensor], folds: list[np.ndarray], fits: Sequence[Sequence[ClassifierFit]]
) -> list[np.ndarray]:
    """Return the logits of each sample, each event's by the classifiers of its fold."""
    scores = []
    for events, numbers in zip(samples, folds, strict=True):
        logits = np.empty(len(events))
        for fold, members in enumerate(fits):
            chosen = numbers == fold
            logits[chosen] = ensemble_logits([fit.classifier for fit in members], events[chosen])
        scores.append(logits)
    return scores


def _fit_pair(settings: ClassifierSettings, numbers: Mapping[str, int], pair: Pair) -> Arrays:
    truth, generated, seed = pair
    fit = cross_fitted_logits(truth, generated, settings=settings, seed=seed, **numbers)
    return {
        f"{fold}.{member}.{name}": array
        for fold, members in enumerate(fit.fits)
        for member, one in enumerate(members)
        for name, array in classifier_to_arrays(one).items()
    }
