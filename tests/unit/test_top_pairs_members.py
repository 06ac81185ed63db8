"""Ensembles of top-pair generators: the set-up, kept generators, other processes, their events."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests_support import separated_jets as momenta

from genamp_lib.amplification import RegionCounter
from genamp_lib.datasets.top_pairs import top_pair_observables
from genamp_lib.networks.fitting import fit_by_steps
from genamp_lib.networks.top_pairs import fit, flow_matching
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining, fit_flow_matching
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import fitted_generators, sample_generators
from genamp_lib.store import ArtefactStore
from genamp_lib.studies.top_pairs import (
    STEPS,
    divide,
    ensemble_tasks,
    kept_train,
    sample_ensemble,
)

TRAINING = FlowMatchingTraining(batch_size=32, compile=False)


@pytest.fixture
def store(tmp_path, every_event_passes) -> ArtefactStore:
    return ArtefactStore(published=tmp_path / "data", local=tmp_path / "local", fresh=False)


def tasks(n_members: int = 2, **options):
    options = {"n_steps": 3, "training": TRAINING, **options}
    return ensemble_tasks(momenta(100, 1), "transformer", n_members=n_members, **options)


def together(blocks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(blocks))


def test_parts_do_not_overlap() -> None:
    events = np.arange(13 * 6 * 4, dtype=float).reshape(13, 6, 4)
    parts = divide(events, n_train=2, n_holdout=3)
    assert np.array_equal(np.concatenate(parts), events)
    assert [len(part) for part in parts] == [2, 3, 3, 2, 3]
    with pytest.raises(ValueError, match="at most 13 events, got 3 and 3"):
        divide(events, n_train=3, n_holdout=3)


class TestTasks:
    def test_the_chosen_set_up(self) -> None:
        for architecture, n_steps in STEPS.items():
            (task,) = ensemble_tasks(momenta(100, 1), architecture, n_members=1)
            assert task.training.n_steps == n_steps
            assert task.flow.velocity.architecture == architecture
            assert task.bootstrap
            assert task.flow == FlowMatchingSettings(velocity=task.flow.velocity)

    def test_members_do_not_depend_on_their_number(self) -> None:
        assert [task.key for task in tasks(3)][:2] == [task.key for task in tasks(2)]

    def test_the_same_events_are_divided_alike(self) -> None:
        first, second = tasks(bootstrap=False)
        assert first.split_seed == second.split_seed
        assert first.seed != second.seed
        one, two = tasks(bootstrap=True)
        assert one.split_seed != two.split_seed

    @pytest.mark.parametrize(
        ("architecture", "options", "message"),
        [
            ("magic", {}, "`architecture` must be one of transformer, .*got 'magic'"),
            ("lgatr", {}, "`n_steps` must be given for lgatr, got None"),
            ("transformer", {"n_steps": 0}, "`n_steps` must be positive, got 0"),
            ("transformer", {"n_members": 0}, "`n_members` must be positive, got 0"),
        ],
    )
    def test_set_ups_that_are_none(self, architecture: str, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ensemble_tasks(momenta(100, 1), architecture, **options)


class TestGenerators:
    def test_they_are_kept(self, store: ArtefactStore) -> None:
        (first,) = fitted_generators(tasks(1), store=store)
        again, _ = fitted_generators(tasks(2), store=store)
        assert [used["origin"] for used in store.used] == ["computed", "local", "computed"]
        assert first.cpu_seconds == again.cpu_seconds > 0
        assert first.validation_loss.shape == (1,)
        assert np.array_equal(first.sample(5, seed=1), again.sample(5, seed=1))

    def test_a_killed_training_continues(
        self, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same bits as without a stop, and nothing is left of it."""

        def killed(*args, **options):
            fit_by_steps(*args, **options, stop_at=2)
            raise KeyboardInterrupt

        (task,) = tasks(1)
        with monkeypatch.context() as patch:
            patch.setattr(fit, "fit_by_steps", killed)
            with pytest.raises(KeyboardInterrupt):
                fitted_generators([task], store=store)
        assert list(store.local.glob("*-unfinished/state"))
        steps, gradients = [], fit._Fit.gradients
        with monkeypatch.context() as patch:
            patch.setattr(fit._Fit, "gradients", lambda f, k: steps.append(k) or gradients(f, k))
            (found,) = fitted_generators([task], store=store)
        assert steps == [2]
        assert not list(store.local.glob("*-unfinished"))
        for name, array in fit_flow_matching(task).items():
            assert name == "cpu_seconds" or np.array_equal(found.arrays[name], array)

    def test_events_of_each_come_in_blocks(
        self, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many there are: what is in memory is a block, and what is made of it."""
        monkeypatch.setattr(flow_matching, "CHUNK", 40)
        generators = fitted_generators(tasks(2), store=store)
        first, second = sample_generators(generators, 90, list, seed=3)
        assert max(map(len, first)) <= 40
        assert sum(map(len, first)) == sum(map(len, second)) == 90
        assert first[0].shape[1:] == (6, 4)
        assert not np.array_equal(first[0], second[0])
        (alone,) = sample_generators(generators[:1], 90, list, seed=3)
        assert np.array_equal(np.concatenate(first), np.concatenate(alone))
        (other,) = sample_generators(generators[:1], 5, list, seed=4)
        assert not np.array_equal(first[0][:5], other[0])
        (whole,) = sample_generators(generators[:1], 90, together, seed=3)
        assert np.array_equal(whole, np.concatenate(alone))
        assert sample_generators(generators, 0, list, seed=3) == [[], []]
        threads = torch.get_num_threads()
        for _ in generators[0].blocks(90, seed=1):
            assert torch.get_num_threads() == threads
            assert torch.is_grad_enabled()

    @pytest.mark.parametrize("architecture", STEPS)
    def test_every_architecture_can_be_sent_to_another_process(
        self, architecture: str, store: ArtefactStore
    ) -> None:
        options = {"n_members": 1, "n_steps": 1, "training": TRAINING}
        generators = fitted_generators(
            ensemble_tasks(momenta(100, 1), architecture, **options), store=store
        )
        (expected,) = sample_generators(generators, 5, together, seed=3)  # makes the network
        sent = pickle.loads(pickle.dumps(generators))
        assert np.array_equal(*sample_generators(sent, 5, together, seed=3), expected)


class TestEnsemble:
    def test_events_are_counted_as_they_come(self) -> None:
        """By kept generators, whose training sample is at hand for the estimator."""

        def count(blocks: Iterator[np.ndarray]) -> np.ndarray:
            counter = RegionCounter([0.0, 500.0, 3000.0])
            for block in blocks:
                counter.update(top_pair_observables(block)[:, 0])
            return counter.counts

        counts = np.array(sample_ensemble("transformer", 300, count, n_members=2))
        assert counts.shape == (2, 2)
        assert (counts.sum(axis=1) >= 298).all()  # hardly any event is heavier
        fraction = (top_pair_observables(kept_train())[:, 0] < 500).mean()
        # Seven standard deviations, the generators' own bias beside.
        np.testing.assert_allclose(counts[:, 0] / 300, fraction, atol=0.2)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("lgatr", 5), "`architecture` must be one of transformer, lgatr-slim, lloca, of wh"),
            (("lloca", -1), "`n_generated` must not be negative, got -1"),
        ],
    )
    def test_what_there_is_no_ensemble_of(self, arguments: tuple, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            sample_ensemble(*arguments, list)
