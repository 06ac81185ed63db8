"""Many pairs in one artefact: the numbers of single pairs, kept, continued, and checked."""

import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.networks import cross_fit as module
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import PairTask, cross_fit_pairs, cross_fitted_logits
from genamp_lib.store import ArtefactStore, Stage

SETTINGS = ClassifierSettings(n_layers=1, n_hidden=4, n_epochs=2)
STAGE = Stage("pairs", version=1, configuration={"events": "of this test"})
COMMON = {"settings": SETTINGS, "n_folds": 3, "stage": STAGE}


def tasks():
    rng = np.random.default_rng(0)
    return [
        PairTask(name, rng.normal(size=(30, 2)), rng.normal(1, 1, size=(24, 2)), seed)
        for name, seed in (("first", 1), ("second", 2))
    ]


def store(tmp_path, **options):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", **options)


def test_gives_the_numbers_of_single_pairs_and_keeps_one_artefact(tmp_path):
    fits = cross_fit_pairs(tasks(), store=store(tmp_path), **COMMON)
    for task in tasks():
        alone = cross_fitted_logits(
            task.truth, task.generated, settings=SETTINGS, seed=task.seed, n_folds=3
        )
        np.testing.assert_array_equal(fits[task.name].truth, alone.truth)
        np.testing.assert_array_equal(fits[task.name].generated, alone.generated)
    assert len(list((tmp_path / "local").glob("*.safetensors"))) == 1
    again = store(tmp_path)
    kept = cross_fit_pairs(tasks(), store=again, **COMMON)
    assert [entry["origin"] for entry in again.used] == ["local"]
    np.testing.assert_array_equal(kept["second"].truth, fits["second"].truth)


def test_a_killed_run_continues_with_the_pair_that_was_not_done(tmp_path, monkeypatch):
    done, fit = [], module._fit

    def dies_at_the_second(work):
        if work[0].name == "second":
            raise KeyboardInterrupt
        return fit(work)

    monkeypatch.setattr(module, "_fit", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        cross_fit_pairs(tasks(), store=store(tmp_path), **COMMON)
    monkeypatch.setattr(module, "_fit", lambda work: done.append(work[0].name) or fit(work))
    fits = cross_fit_pairs(tasks(), store=store(tmp_path), **COMMON)
    assert done == ["second"]
    assert set(fits) == {"first", "second"}


def test_other_events_under_the_same_key(tmp_path):
    cross_fit_pairs(tasks(), store=store(tmp_path), **COMMON)
    moved = [PairTask(t.name, t.truth + 1, t.generated, t.seed) for t in tasks()]
    with pytest.raises(GenampError, match="was trained on other events than these"):
        cross_fit_pairs(moved, store=store(tmp_path), **COMMON)


def test_names_must_differ(tmp_path):
    with pytest.raises(ValueError, match="`tasks` must have different names"):
        cross_fit_pairs(tasks()[:1] * 2, store=store(tmp_path), **COMMON)
