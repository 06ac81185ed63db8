"""The classifiers of `genamp diagnose`: every event is scored by networks that never saw it."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from genamp_lib._project import GenampError
from genamp_lib.diagnostics import auc_from_weights
from genamp_lib.networks import tabular
from genamp_lib.networks.tabular import (
    N_FOLDS,
    boosted_logits,
    fold_numbers_of_groups,
    network_logits,
)


def samples(shift, n=1200):
    rng = np.random.default_rng(3)
    truth, generated = rng.normal(size=(2, n, 3))
    truth[:, 0] += shift
    return truth, generated, fold_numbers_of_groups([n, n], None, seed=1)


@pytest.mark.parametrize("fit", [network_logits, boosted_logits])
def test_learns_a_difference_and_none_where_there_is_none(fit):
    for shift, expected in ((1.0, 0.76), (0.0, 0.5)):
        logits = fit(*samples(shift), seed=1)
        auc = auc_from_weights(*(np.exp(one) for one in logits))
        # Phi(1 / sqrt 2) = 0.76. Error at 1200 events: 0.012, 0.017 with cross-fitting.
        assert abs(auc - expected) < 0.02 + 5 * 0.017


def test_the_same_seed_gives_the_same_numbers():
    first, second = (network_logits(*samples(0.3), seed=2, n_epochs=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("fit", "n_together"), [(network_logits, 1), (boosted_logits, 2)])
def test_an_event_is_scored_without_its_fold(fit, n_together):
    """Labels that only the events' own fold could teach are not learned."""
    truth, generated, folds = samples(0.0)
    changed = truth.copy()
    own = folds[0] == 4
    changed[own] = np.random.default_rng(5).permutation(changed[own])  # events, labels stay
    changed[own] += 3.0
    one, other = (fit(x, generated, folds, seed=1)[1] for x in (truth, changed))
    unseen = folds[1] // n_together == 4 // n_together
    np.testing.assert_array_equal(one[unseen], other[unseen])
    assert not np.array_equal(one[~unseen], other[~unseen])


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(7)
    x, weights = rng.normal(size=(50, 3)), rng.normal(1.0, 1.0, 50)
    labels, network = (x[:, 0] > 0).astype(float), rng.normal(size=(3 + 1 + 64 + 1 + 1) * 64 + 1)

    def loss(parameters):
        signed = (2 * labels - 1) * tabular._logits(parameters, x)
        return (weights * np.logaddexp(0, -signed)).mean()

    slope, direction = tabular._gradient(network, x, labels, weights), rng.normal(size=len(network))
    step = 1e-7 * direction
    numerical = (loss(network + step) - loss(network - step)) / 2e-7
    assert slope @ direction == pytest.approx(numerical, rel=1e-5)


def test_training_stops_early_and_progress_is_told_of_each_network(monkeypatch):
    calls, steps, gradient = [], [], tabular._gradient
    monkeypatch.setattr(tabular, "_gradient", lambda *x: steps.append(1) or gradient(*x))
    network_logits(*samples(0.0), seed=1, n_epochs=60, progress=lambda: calls.append(1))
    assert len(calls) == N_FOLDS
    assert len(steps) < N_FOLDS * 60 * 15 / 3


def test_linear_algebra_and_trees_use_one_thread_each():
    with tabular.one_thread_each():
        seen = threadpool_info()
    assert {pool["user_api"] for pool in seen} >= {"blas", "openmp"}
    assert {pool["num_threads"] for pool in seen} == {1}


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_loss_that_is_not_finite_is_one_line():
    truth, generated, folds = samples(0.0)
    with pytest.raises(GenampError, match="the loss must be finite, got nan; look for"):
        network_logits(truth * np.nan, generated, folds, seed=1)


def test_copies_share_a_fold_unless_groups_are_too_large():
    groups = np.repeat(np.arange(200), 2)  # truth event k and generated event k, pooled in turn
    order = np.argsort(np.tile([0, 1], 200), kind="stable")
    truth, generated = fold_numbers_of_groups([200, 200], groups[order], seed=1)
    np.testing.assert_array_equal(truth, generated)
    assert np.bincount(truth).min() == np.bincount(truth).max() == 200 // N_FOLDS
    folds = fold_numbers_of_groups([200, 200], np.zeros(400, int), seed=1)
    assert [len(set(one)) for one in folds] == [N_FOLDS, N_FOLDS]
