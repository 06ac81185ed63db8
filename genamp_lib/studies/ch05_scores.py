"""Compare a classifier's score of generated top pairs with that of training and held-out events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.top_pairs import top_pair_features, top_pair_observables
from genamp_lib.diagnostics import auc_from_weights, likelihood_ratio_weights
from genamp_lib.networks.classifier import ClassifierSettings, ensemble_logits, fit_classifier
from genamp_lib.networks.cross_fit import cross_fitted_logits, unseen_logits
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, FlowMatchingTraining
from genamp_lib.networks.top_pairs.members import TopPairGenerator
from genamp_lib.store import Arrays, ArtefactStore, Stage, named, stacked
from genamp_lib.studies.ch04_ladder import (
    FURTHER_WINDOW,
    POINTS,
    WINDOWS,
    Parts,
    Rung,
    checksum,
    compared,
    distances_of,
    event_seed,
    generated_events,
    in_window,
    rung_stage,
    rung_tasks,
    training_set,
)

Array = NDArray[np.float64]

# Part of the artefacts' keys: raise it when this code changes the numbers.
SCORES_VERSION = 1
# Events of each kind that a classifier learns, a fifth of them to choose the epoch.
N_FITTED = 10_000
CLASSIFIER = ClassifierSettings(n_hidden=128, n_epochs=25)
SCORE_EDGES = np.linspace(-4.0, 4.0, 81)  # of the score, log p_truth / p_generated
# Training sets up to this size also have a classifier that knows no other true events.
N_OWN = 4_000


class _Work(NamedTuple):
    task: FlowMatchingTask
    own: Array  # momenta of the training set
    holdout: Array  # momenta
    n_generated: int
    seed: int
    store: ArtefactStore


def measure_scores(
    rung: Rung,
    parts: Parts,
    *,
    store: ArtefactStore,
    training: FlowMatchingTraining | None = None,
) -> Arrays:
    """Compare scores of a rung's plain generators, or of its bootstrap members where it has none.

    Args:
        rung: Generators that are wanted.
        parts: Training, validation and held-out events.
        store: Store of the networks, their events, and of the result.
        training: Settings of the trainings but for their steps.

    Returns:
        Arrays that begin with (n_generators,): those of `scored`, and where training sets are small
        those of `scored_by_own`, their names beginning with "own.".
    """
    tasks = rung_tasks(rung, parts.train, training)
    stage = rung_stage("top-pair-scores", SCORES_VERSION, rung, tasks, parts)
    stage = stage.adding(points=POINTS, n_fitted=N_FITTED, classifier=asdict(CLASSIFIER))
    work = []
    for number, of_set in enumerate(tasks):
        own = training_set(rung, number, parts.train)
        for member, task in list(enumerate(of_set))[rung.n_bootstrap if rung.n_plain else 0 :]:
            seed = event_seed(rung, number, member)
            work.append(_Work(task, own, parts.holdout, rung.n_generated, seed, store))
    return store.combine(stage, _scores, work, stacked)


def _scores(work: _Work) -> Arrays:
    generated = generated_events(work.task, work.n_generated, seed=work.seed, store=work.store)
    samples = (generated, work.own, work.holdout)
    found = scored(*samples, seed=work.seed)
    if len(work.own) <= N_OWN:
        found |= {f"own.{k}": x for k, x in scored_by_own(*samples, seed=work.seed).items()}
    return found


def scored(
    generated: Array,
    train: Array,
    holdout: Array,
    *,
    seed: int,
    window: tuple[float, float] = WINDOWS[-1],
) -> Arrays:
    """Compare scores of a classifier of generated against held-out events.

    It learns the first 10,000 generated events against as many held-out ones, and all others are
    compared: no event is scored by a classifier that has seen it, and all by the same one.

    Args:
        generated: Momenta, shape (n_generated, n_particles, 4).
        train: Momenta of the training set of the generator.
        holdout: Momenta of events that it never saw.
        seed: Seed of the classifier.
        window: Lower and upper edge of m_tt, GeV.

    Returns:
        "distances" and "estimates" as `compared`; "histograms", (3, n_bins): generated, training
        and held-out events in `SCORE_EDGES`; "auc".
    """
    n_fitted = min(N_FITTED, len(generated) // 2, len(holdout) // 2)
    cut = n_fitted - n_fitted // 5
    made, own, true = (top_pair_features(x) for x in (generated, train, holdout))
    with one_thread():
        fit = fit_classifier(
            (true[:cut], made[:cut]),
            (true[cut:n_fitted], made[cut:n_fitted]),
            settings=CLASSIFIER,
            seed=seed,
        )
        judged = (made[n_fitted:], own, true[n_fitted:])
        logits = [ensemble_logits([fit.classifier], features) for features in judged]
    weights = [likelihood_ratio_weights(x) for x in logits]
    momenta = (generated[n_fitted:], train, holdout[n_fitted:])
    return {
        **compared(logits, _masks(momenta, window)),
        "histograms": np.array([np.histogram(x, SCORE_EDGES)[0] for x in logits]),
        "auc": np.array(auc_from_weights(weights[2], weights[0])),
    }


def scored_by_own(generated: Array, train: Array, holdout: Array, *, seed: int) -> Arrays:
    """Compare scores of classifiers that know no other true events than the training set.

    The first n_train generated events are cross-fitted against the training events. The other
    generated and the held-out events are each scored by the classifier of one fold, as the training
    events are. Arrays as `compared`.
    """
    n = min(len(train), len(generated) // 2)
    made, own, true = (top_pair_features(x) for x in (generated, train, holdout))
    with one_thread():
        fit = cross_fitted_logits(own, made[:n], settings=CLASSIFIER, seed=seed, n_folds=3)
        others = [unseen_logits(fit, x, seed=seed + k) for k, x in enumerate((made[n:], true))]
    logits = (others[0], fit.truth, others[1])
    return compared(logits, _masks((generated[n:], train, holdout), WINDOWS[-1]))


def measure_null(n_train: int, parts: Parts, *, store: ArtefactStore) -> Arrays:
    """Return the arrays of `scored` and `distances_of` for true events in the place of generated.

    The last 30,000 held-out events stand for generated ones, or a third where there are fewer.

    Args:
        n_train: Events of the training set.
        parts: Training, validation and held-out events.
        store: Store of the result.
    """
    described = {"n_train": n_train, "train": checksum(parts.train)}
    described |= {"holdout": checksum(parts.holdout), "points": POINTS}
    described |= {"n_fitted": N_FITTED, "classifier": asdict(CLASSIFIER)}
    stage = Stage("top-pair-null", SCORES_VERSION, described)
    found = store.compute(stage, _null, (parts.train[:n_train], parts.holdout))
    return {"score": named(found, "score."), "observables": named(found, "observables.")}


def _null(work: tuple[Array, Array]) -> Arrays:
    train, holdout = work
    n = min(POINTS[-1], len(holdout) // 3)
    samples = (holdout[-n:], train, holdout[:-n])
    compared_scores = scored(*samples, seed=0)
    of_observables = distances_of(*(top_pair_observables(x) for x in samples))
    return {f"score.{name}": array for name, array in compared_scores.items()} | {
        f"observables.{name}": array for name, array in of_observables.items()
    }


def measure_further(
    generator: TopPairGenerator, momenta: Array, n_generated: int, *, store: ArtefactStore
) -> Arrays:
    """Return the arrays of `scored` for the generator with four further jets, m_tt above 1 TeV.

    Args:
        generator: Generator that was trained on the first half of `momenta`.
        momenta: Events with four further jets, shape (n, 10, 4).
        n_generated: Events that it makes.
        store: Store of the result.

    Raises:
        ValueError: The generator makes events of another number of jets.
    """
    n_particles = generator.settings.n_particles
    if momenta.shape[1:] != (n_particles, 4):
        raise ValueError(
            f"`momenta` must be (n, {n_particles}, 4), as what the generator makes, "
            f"got {momenta.shape}."
        )
    described = {"generator": generator.key, "n_generated": n_generated}
    described |= {"events": checksum(momenta), "classifier": asdict(CLASSIFIER)}
    stage = Stage("top-pair-further", SCORES_VERSION, described)
    return store.compute(stage, _further, (generator, momenta, n_generated))


def _further(work: tuple[TopPairGenerator, Array, int]) -> Arrays:
    generator, momenta, n_generated = work
    generated = generator.sample(n_generated, seed=0)
    return scored(generated, *np.array_split(momenta, 2), seed=0, window=FURTHER_WINDOW)


def _masks(samples: Sequence[Array], window: tuple[float, float]) -> list[NDArray[np.bool_]]:
    return [in_window(top_pair_observables(x), window) for x in samples]
