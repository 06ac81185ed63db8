"""Peers of `genamp diagnose`: two samples and a seed in, logits out, or a p-value of a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

from genamp_lib.diagnostics import normal_scores
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.tabular import (
    boosted_logits,
    fold_numbers_of_groups,
    network_logits,
)


def one_by_one(truth: np.ndarray, generated: np.ndarray, seed: int) -> tuple:
    n_train = (len(truth) + len(generated)) * 3 // 5
    batch = min(max(n_train // 30, 32), 1000)
    settings = ClassifierSettings(n_epochs=40, batch_size=batch)
    fit = cross_fitted_logits(truth, generated, settings=settings, seed=seed)
    return fit.truth, fit.generated


def boosted(truth: np.ndarray, generated: np.ndarray, seed: int) -> tuple:
    labels = np.repeat([1, 0], [len(truth), len(generated)])
    p = cross_val_predict(
        HistGradientBoostingClassifier(random_state=seed),
        np.concatenate([truth, generated]),
        labels,
        method="predict_proba",
    )[:, 1]
    logits = np.log(p) - np.log1p(-p)
    return logits[: len(truth)], logits[len(truth) :]


def own(fit: Callable, truth: np.ndarray, generated: np.ndarray, seed: int) -> tuple:
    folds = fold_numbers_of_groups([len(truth), len(generated)], None, seed=seed)
    return fit(*normal_scores(truth, generated), folds, seed=seed)


def hyppo_test(name: str, truth: np.ndarray, generated: np.ndarray, seed: int) -> float:
    """Return the p-value of one of hyppo's tests of two samples that are linear in events."""
    from hyppo import ksample

    return float(getattr(ksample, name)().test(truth, generated, random_state=seed)[1])


def pqmass(truth: np.ndarray, generated: np.ndarray, seed: int) -> float:
    """Return the p-value of PQMass with its default of 100 reference points."""
    from pqm import pqm_pvalue

    np.random.seed(seed)  # noqa: NPY002 (it takes no generator)
    return float(pqm_pvalue(truth, generated))


def tested(test: Callable, truth: np.ndarray, generated: np.ndarray, seed: int) -> float:
    return test(*normal_scores(truth, generated), seed=seed)


TESTS = {
    "PQMass": partial(tested, pqmass),
    "hyppo, mean embedding": partial(tested, partial(hyppo_test, "MeanEmbeddingTest")),
    "hyppo, smooth CF": partial(tested, partial(hyppo_test, "SmoothCFTest")),
}

METHODS = {
    "networks": partial(own, network_logits),
    "trees": partial(own, boosted_logits),
    "one by one": one_by_one,
    "boosted": boosted,
}
