"""Ensembles of top-pair generators: division of events, kept generators, measures of members."""

from __future__ import annotations

import pickle
from dataclasses import astuple

import numpy as np
import pytest
import torch
from tests_support import separated_jets as momenta

from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.solver import Solving
from genamp_lib.store import ArtefactStore
from genamp_lib.studies import top_pairs as top_pair_ensembles
from genamp_lib.studies.ch11_members import EDGES, densities_of, measure_members
from genamp_lib.studies.ch11_quality import Measuring
from genamp_lib.studies.ch11_solvers import check_solvers, measure_solvers
from genamp_lib.studies.top_pairs import (
    STEPS,
    divide,
    ensemble_tasks,
    fitted_generators,
    sample_generators,
)

MEASURING = Measuring(
    n_generated=60,
    n_before_cuts=60,
    classifier=ClassifierSettings(n_layers=1, n_hidden=8, n_epochs=2),
)
TRAINING = FlowMatchingTraining(batch_size=32, n_warmup=2, compile=False)


@pytest.fixture
def store(tmp_path, monkeypatch: pytest.MonkeyPatch) -> ArtefactStore:
    monkeypatch.setattr(top_pair_ensembles, "project_root", lambda: tmp_path)
    # A little-trained generator makes few events within the cuts.
    monkeypatch.setattr(
        FlowMatchingSettings, "accepts", lambda _, x: torch.isfinite(x).flatten(1).all(1)
    )
    return ArtefactStore(published=tmp_path / "data", local=tmp_path / "local", fresh=False)


def tasks(n_members: int = 2):
    return ensemble_tasks(
        momenta(100, 1), "transformer", n_members=n_members, n_steps=3, training=TRAINING
    )


def test_parts_do_not_overlap() -> None:
    events = np.arange(13 * 6 * 4, dtype=float).reshape(13, 6, 4)
    parts = divide(events, n_train=2, n_holdout=3)
    assert np.array_equal(np.concatenate(parts), events)
    assert [len(part) for part in parts] == [2, 3, 3, 2, 3]
    with pytest.raises(ValueError, match="at most 13 events, got 3 and 3"):
        divide(events, n_train=3, n_holdout=3)


def test_the_chosen_set_up() -> None:
    for architecture, n_steps in STEPS.items():
        (task,) = ensemble_tasks(momenta(100, 1), architecture, n_members=1)
        assert task.training.n_steps == n_steps
        assert task.flow.velocity.architecture == architecture
        assert task.bootstrap
        assert task.flow == FlowMatchingSettings(velocity=task.flow.velocity)


@pytest.mark.parametrize(
    ("architecture", "n_steps", "message"),
    [
        ("magic", None, "`architecture` must be one of transformer, .*got 'magic'"),
        ("lgatr", None, "`n_steps` must be given for lgatr, got None"),
        ("transformer", 0, "`n_steps` must be positive, got 0"),
    ],
)
def test_set_ups_that_are_none(architecture: str, n_steps: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ensemble_tasks(momenta(100, 1), architecture, n_members=1, n_steps=n_steps)


class TestGenerators:
    def test_they_are_kept(self, store: ArtefactStore, tmp_path) -> None:
        first = fitted_generators(tasks(1), store=store)
        both = fitted_generators(tasks(2), store=store)
        assert [used["origin"] for used in store.used] == ["computed", "local", "computed"]
        assert not list((tmp_path / "_build" / "generators").iterdir())
        assert both[0].description == first[0].description
        assert both[0].cpu_seconds == first[0].cpu_seconds > 0
        for name, array in first[0].flow.arrays().items():
            assert torch.equal(array, both[0].flow.arrays()[name])
        fresh = replace_store(store, fresh=True)
        again = fitted_generators(tasks(1), store=fresh)
        assert fresh.used[0]["origin"] == "computed"
        for name, array in first[0].flow.arrays().items():
            assert torch.equal(array, again[0].flow.arrays()[name])

    def test_events_of_each(self, store: ArtefactStore) -> None:
        generators = fitted_generators(tasks(2), store=store)
        events = sample_generators(generators, 30, seed=3)
        assert events.shape == (2, 30, 6, 4)
        assert not np.array_equal(events[0], events[1])
        assert np.array_equal(events[:1], sample_generators(generators[:1], 30, seed=3))
        assert not np.array_equal(events, sample_generators(generators, 30, seed=4))

    def test_every_architecture_can_be_sent_to_another_process(self, store: ArtefactStore) -> None:
        for architecture in STEPS:
            (task,) = ensemble_tasks(
                momenta(100, 1), architecture, n_members=1, n_steps=1, training=TRAINING
            )
            one = fitted_generators([task], store=store)
            other = [pickle.loads(pickle.dumps(one[0]))]
            assert other[0].description == one[0].description
            assert other[0].cpu_seconds == one[0].cpu_seconds
            assert np.array_equal(other[0].validation_loss, one[0].validation_loss)
            found = sample_generators(other, 5, seed=3)
            assert np.array_equal(found, sample_generators(one, 5, seed=3))

    def test_members_are_measured_once(self, store: ArtefactStore) -> None:
        generators = fitted_generators(tasks(2), store=store)

        def measured(used: ArtefactStore):
            return measure_members(
                generators,
                momenta(100, 1),
                momenta(80, 2),
                measuring=MEASURING,
                seed=2,
                store=used,
            )

        one, two = measured(store)
        assert one.quality != two.quality
        n_used = len(store.used)
        again, _ = measured(store)
        assert [used["origin"] for used in store.used[n_used:]] == ["local", "local"]
        fresh, _ = measured(replace_store(store, fresh=True))
        assert again.quality == fresh.quality == one.quality
        for name, peak in one.peaks.items():
            np.testing.assert_equal(astuple(again.peaks[name]), astuple(peak))
        assert set(one.peaks) == {"m_w", "m_t"}
        for name in EDGES:
            assert np.array_equal(again.densities[name], one.densities[name])

    def test_solvers_are_measured_once(self, store: ArtefactStore) -> None:
        generators = fitted_generators(tasks(2), store=store)
        solvers = [Solving("midpoint", 3)]

        def measured():
            return measure_solvers(generators, solvers, n_events=40, seed=2, store=store)

        found = measured()
        n_used = len(store.used)
        assert measured() == found  # the rates too, as they were kept
        assert [used["origin"] for used in store.used[n_used:]] == ["local", "local"]
        for generator, checks in zip(generators, found, strict=True):
            again = check_solvers(generator.flow, solvers, n_events=40, seed=2)
            assert [check.ks for check in checks] == [check.ks for check in again]
            assert [check.solving.n_calls for check in checks] == [200, 6]
        with pytest.raises(ValueError, match="`solvers` must have a number of steps, got 'dopri5'"):
            measure_solvers(generators, [Solving("dopri5")], n_events=40, seed=2, store=store)


def replace_store(store: ArtefactStore, *, fresh: bool) -> ArtefactStore:
    return ArtefactStore(published=store.published, local=store.local, fresh=fresh)


def test_densities_are_normalised() -> None:
    densities = densities_of(momenta(2000, 3))
    n_outside = (momenta(2000, 3)[:, 0, 0] >= EDGES["pt_b"][-1]).mean()
    total = (densities["pt_b"] * np.diff(EDGES["pt_b"])).sum()
    assert total == pytest.approx(1 - n_outside)
