"""Cross-fitting: who trains and is scored, what is kept, continued and checked; many pairs."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ks_2samp

from genamp_lib._project import GenampError
from genamp_lib.networks import cross_fit
from genamp_lib.networks.classifier import (
    ClassifierSettings,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.cross_fit import cross_fit_pairs, cross_fitted_logits, unseen_logits
from genamp_lib.store import ArtefactStore, Stage

QUICK = ClassifierSettings(n_layers=2, n_hidden=8, n_epochs=2, batch_size=64)


def gaussians(seed):
    """Truth events N(1, 1) and generated events N(0, 1) in the first of two features."""
    rng = np.random.default_rng(seed)
    return rng.normal([1.0, 0.0], size=(400, 2)), rng.normal(size=(300, 2))


class TestOnePair:
    def test_no_event_is_scored_by_a_network_that_saw_it(self, monkeypatch):
        """Each event is its own number: the trainings say which ones they were given."""
        seen, calls = [], []

        def spy(train, validation, **options):
            used = [*train, *validation]
            seen.append({int(x) for sample in used for x in np.asarray(sample)[:, 0]})
            return fit_classifier(train, validation, **options)

        def scored(classifiers, features):
            numbers = {int(x) for x in np.asarray(features)[:, 0]}
            fold = len(calls) % 4  # truth first, then generated events
            calls.append(numbers)
            for used in seen[2 * fold : 2 * fold + len(classifiers)]:
                assert not numbers & used
            return np.asarray(features)[:, 0].astype(float)

        monkeypatch.setattr(cross_fit, "fit_classifier", spy)
        monkeypatch.setattr(cross_fit, "ensemble_logits", scored)
        truth, generated = np.arange(50.0)[:, None], np.arange(50.0, 90.0)[:, None]
        result = cross_fitted_logits(
            truth, generated, settings=QUICK, seed=1, n_folds=4, n_members=2
        )
        # Every event is scored, in its place.
        np.testing.assert_array_equal(result.truth, truth[:, 0])
        np.testing.assert_array_equal(result.generated, generated[:, 0])
        assert [len(members) for members in result.fits] == [2, 2, 2, 2]
        assert len(seen) == 8
        # A member has all folds but its own one.
        assert {len(used) for used in seen} <= set(range(90 - 23, 90 - 22 + 2))

    def test_members_differ_in_their_validation_fold(self):
        result = cross_fitted_logits(*gaussians(1), settings=QUICK, seed=1, n_folds=3, n_members=2)
        means = {
            tuple(member.classifier.feature_mean.tolist())
            for members in result.fits
            for member in members
        }
        # Fold k trained with validation fold v uses the one left over: three pairs of equals.
        assert len(means) == 3

    def test_same_seed_same_logits(self):
        events = gaussians(1)
        first = cross_fitted_logits(*events, settings=QUICK, seed=1, n_folds=3)
        second = cross_fitted_logits(*events, settings=QUICK, seed=1, n_folds=3)
        other = cross_fitted_logits(*events, settings=QUICK, seed=2, n_folds=3)
        np.testing.assert_array_equal(first.truth, second.truth)
        np.testing.assert_array_equal(first.generated, second.generated)
        assert not np.array_equal(first.truth, other.truth)

    def test_killed_run_continues(self, tmp_path, monkeypatch):
        events = gaussians(1)
        options = {"settings": QUICK, "seed": 1, "n_folds": 3}
        options["stage"] = Stage("test", version=1, configuration={"sample": "gaussians"})
        expected = cross_fitted_logits(*events, settings=QUICK, seed=1, n_folds=3)
        n_fits = 0

        def killed_at_the_third(*args, **kwargs):
            nonlocal n_fits
            n_fits += 1
            if n_fits == 3:
                raise KeyboardInterrupt
            return fit_classifier(*args, **kwargs)

        monkeypatch.setattr(cross_fit, "fit_classifier", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            cross_fitted_logits(*events, store=ArtefactStore(local=tmp_path), **options)
        store = ArtefactStore(local=tmp_path)
        result = cross_fitted_logits(*events, store=store, **options)
        assert n_fits == 4  # two kept, one killed, one done now
        assert [used["origin"] for used in store.used] == ["local", "local", "computed"]
        np.testing.assert_array_equal(result.truth, expected.truth)
        np.testing.assert_array_equal(result.generated, expected.generated)

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 2},
            {"n_folds": 4},
            {"settings": dataclasses.replace(QUICK, patience=4)},
            {"stage": Stage("test", version=1, configuration={"sample": "others"})},
        ],
    )
    def test_any_change_is_another_artefact(self, tmp_path, change):
        options = {"settings": QUICK, "seed": 1, "n_folds": 3}
        options["stage"] = Stage("test", version=1, configuration={"sample": "gaussians"})
        cross_fitted_logits(*gaussians(1), store=ArtefactStore(local=tmp_path), **options)
        store = ArtefactStore(local=tmp_path)
        cross_fitted_logits(*gaussians(1), store=store, **(options | change))
        assert {used["origin"] for used in store.used} == {"computed"}

    def test_kept_classifiers_of_other_events(self, tmp_path):
        options = {"settings": QUICK, "seed": 1, "n_folds": 3}
        options["stage"] = Stage("test", version=1, configuration={})
        cross_fitted_logits(*gaussians(1), store=ArtefactStore(local=tmp_path), **options)
        with pytest.raises(GenampError, match="was trained on other events than these"):
            cross_fitted_logits(*gaussians(2), store=ArtefactStore(local=tmp_path), **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_folds": 2}, "`n_folds` must be at least 3"),
            ({"n_folds": 3, "n_members": 3}, "`n_members` must be in 1 ... n_folds - 1, got 3"),
            ({"n_members": 0}, "`n_members` must be in 1 ... n_folds - 1, got 0"),
            ({"n_folds": 301}, "must have at least 301 events, one per fold, got 400 and 300"),
            (
                {"stage": Stage("test", version=1, configuration={})},
                "`store` and `stage` must be given together",
            ),
        ],
    )
    def test_bad_numbers(self, options, message):
        with pytest.raises(ValueError, match=message):
            cross_fitted_logits(*gaussians(1), settings=QUICK, seed=1, **options)


SETTINGS = ClassifierSettings(n_layers=1, n_hidden=4, n_epochs=2)
STAGE = Stage("pairs", version=1, configuration={"events": "of this test"})
COMMON = {"settings": SETTINGS, "n_folds": 3, "stage": STAGE}


def pairs():
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(size=(30, 2)), rng.normal(1, 1, size=(24, 2)), seed)
        for name, seed in (("first", 1), ("second", 2))
    }


def store(tmp_path, **options):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", **options)


def test_gives_the_numbers_of_single_pairs_and_keeps_one_artefact(tmp_path):
    fits = cross_fit_pairs(pairs(), store=store(tmp_path), **COMMON)
    for name, (truth, generated, seed) in pairs().items():
        alone = cross_fitted_logits(truth, generated, settings=SETTINGS, seed=seed, n_folds=3)
        np.testing.assert_array_equal(fits[name].truth, alone.truth)
        np.testing.assert_array_equal(fits[name].generated, alone.generated)
    assert len(list((tmp_path / "local").glob("*.safetensors"))) == 1
    again = store(tmp_path)
    kept = cross_fit_pairs(pairs(), store=again, **COMMON)
    assert [entry["origin"] for entry in again.used] == ["local"]
    np.testing.assert_array_equal(kept["second"].truth, fits["second"].truth)


def test_a_killed_run_continues_with_the_pair_that_was_not_done(tmp_path, monkeypatch):
    done, fit = [], cross_fit._fit_pair

    def dies_at_the_second(settings, numbers, pair):
        if pair[2] == 2:
            raise KeyboardInterrupt
        return fit(settings, numbers, pair)

    monkeypatch.setattr(cross_fit, "_fit_pair", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        cross_fit_pairs(pairs(), store=store(tmp_path), **COMMON)
    monkeypatch.setattr(cross_fit, "_fit_pair", lambda *work: done.append(work[2][2]) or fit(*work))
    fits = cross_fit_pairs(pairs(), store=store(tmp_path), **COMMON)
    assert done == [2]
    assert set(fits) == {"first", "second"}


def test_other_events_under_the_same_key(tmp_path):
    cross_fit_pairs(pairs(), store=store(tmp_path), **COMMON)
    moved = {name: (truth + 1, *others) for name, (truth, *others) in pairs().items()}
    with pytest.raises(GenampError, match="was trained on other events than these"):
        cross_fit_pairs(moved, store=store(tmp_path), **COMMON)


def test_unseen_events_are_scored_as_the_samples_were():
    """All events are of one density; the mean of the networks makes a difference where none is."""
    rng = np.random.default_rng(3)
    settings = ClassifierSettings(n_layers=1, n_hidden=32, n_epochs=20, learning_rate=1e-2)
    train, made, unseen = (rng.normal(size=(n, 4)) for n in (2000, 2000, 20_000))
    fit = cross_fitted_logits(train, made, settings=settings, seed=1, n_folds=3)
    logits = unseen_logits(fit, unseen, seed=2)
    assert ks_2samp(fit.truth, logits).pvalue > 1e-5
    every = [classifiers for fold in fit.fits for classifiers in fold]
    mean = ensemble_logits([one.classifier for one in every], unseen)
    assert ks_2samp(fit.truth, mean).pvalue < 1e-5
    np.testing.assert_array_equal(logits, unseen_logits(fit, unseen, seed=2))
