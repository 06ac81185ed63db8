"""Many small cross-fits at once, and the power study that is made of them."""

import numpy as np
import pytest

from genamp_lib.diagnostics import auc_from_weights
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.classifier_batch import cross_fitted_logits_of_many
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.studies.ch06_power import METRICS, PowerSettings, alarm_thresholds, metric_values

QUICK = ClassifierSettings(
    n_layers=1, n_hidden=8, dropout=0.0, n_epochs=8, batch_size=100, learning_rate=0.02
)


def samples(n_experiments=3, n_events=300, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(shift, 1.0, (n_experiments, n_events, 2))
    return truth, rng.normal(0.0, 1.0, (n_experiments, n_events, 2))


def test_learns_a_difference_and_none_where_there_is_none():
    truth, generated = samples()
    truth[2] = np.random.default_rng(9).normal(size=truth[2].shape)
    logits = cross_fitted_logits_of_many(truth, generated, settings=QUICK, seed=1, n_folds=3)
    auc = [auc_from_weights(np.exp(t), np.exp(g)) for t, g in zip(*logits, strict=True)]
    # Two unit shifts: Phi(1) = 0.84. The error of an AUC of 300 against 300 is 0.024 at most, and
    # cross-fitting adds half of that: six standard deviations.
    assert min(auc[:2]) > 0.84 - 0.1
    assert abs(auc[2] - 0.5) < 6 * 0.034


def test_experiments_do_not_see_each_other():
    truth, generated = samples()
    both = cross_fitted_logits_of_many(truth, generated, settings=QUICK, seed=1, n_folds=3)
    generated[1:] = generated[1:] * 7 - 3
    other = cross_fitted_logits_of_many(truth, generated, settings=QUICK, seed=1, n_folds=3)
    np.testing.assert_allclose(both[0][0], other[0][0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(both[0][1], other[0][1])


def test_no_event_is_scored_by_a_network_that_saw_it():
    """Random labels can be learned by heart; the scores of unseen events must not show it."""
    truth, generated = samples(n_experiments=20, n_events=30, shift=0.0)
    settings = ClassifierSettings(
        n_layers=1, n_hidden=64, dropout=0.0, n_epochs=60, batch_size=60, learning_rate=0.03
    )
    logits = cross_fitted_logits_of_many(truth, generated, settings=settings, seed=1, n_folds=3)
    auc = [auc_from_weights(np.exp(t), np.exp(g)) for t, g in zip(*logits, strict=True)]
    # Error of one: 0.075, doubled variance; of the mean of 20: 0.024; six of them.
    assert abs(np.mean(auc) - 0.5) < 6 * 0.024


@pytest.mark.parametrize(
    ("truth", "generated", "n_folds", "message"),
    [
        (np.zeros((2, 9, 1)), np.zeros((2, 9, 1)), 2, "`n_folds` must be at least 3"),
        (np.zeros((2, 8, 1)), np.zeros((2, 9, 1)), 3, "a multiple of 3 events"),
        (np.zeros((2, 9, 1)), np.full((2, 9, 1), np.nan), 3, "`generated` must be finite"),
        (np.zeros((2, 9, 1)), np.zeros((3, 9, 1)), 3, "must agree in experiments and features"),
        (np.zeros((2, 9, 1)), np.zeros((2, 9, 1)), 3, "`features` must vary"),
    ],
)
def test_bad_samples(truth, generated, n_folds, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted_logits_of_many(truth, generated, settings=QUICK, seed=1, n_folds=n_folds)


class TestPower:
    settings = PowerSettings(
        tail_cuts=(0.2,),
        smears=(),
        shifts=(0.1,),
        n_repetitions=12,
        n_nulls=21,
        n_jets=90,
        n_folds=3,
        classifier=QUICK,
    )

    def values(self, tmp_path):
        rng = np.random.default_rng(0)
        mass = rng.gamma(3.0, size=3000)
        observables = np.stack([mass, mass + rng.normal(size=3000)], axis=1)
        store = ArtefactStore(published=tmp_path / "published", local=tmp_path / "local")
        return metric_values(
            observables, settings=self.settings, seed=1, store=store, stage=Stage("power", 1, {})
        )

    def test_a_large_flaw_is_seen(self, tmp_path):
        values = self.values(tmp_path / "whole")
        assert {k: v.shape for k, v in values.items()} == {
            ("null", 0): (21, len(METRICS)),
            ("null", 1): (21, len(METRICS)),
            ("tail cut", 0.2): (12, len(METRICS)),
            ("shift", 0.1): (12, len(METRICS)),
        }
        thresholds = alarm_thresholds(values["null", 0])
        w1 = list(METRICS).index("w1_mass")
        assert (values["tail cut", 0.2] > thresholds)[:, w1].mean() > 0.5
        again = self.values(tmp_path / "whole")
        np.testing.assert_array_equal(again["shift", 0.1], values["shift", 0.1])

    def test_thresholds(self):
        nulls = np.stack([np.arange(99.0), -np.arange(99.0)], axis=1)
        assert alarm_thresholds(nulls).tolist() == [94.0, -4.0]
        with pytest.raises(ValueError, match="`nulls` must be at least 19"):
            alarm_thresholds(nulls[:10])
