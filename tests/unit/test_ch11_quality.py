"""Quality of top-pair generators: null, planted flaw, kept measures, means and errors."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests_support import separated_jets as momenta

from genamp_lib.datasets.peaks import Peak
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import fitted_generators
from genamp_lib.store import ArtefactStore
from genamp_lib.studies.ch11_quality import (
    EDGES,
    Measuring,
    Quality,
    _quality,
    densities_of,
    measure,
    measure_members,
    peaks_of,
    run_trials,
    summarise_members,
    summarise_truth,
)
from genamp_lib.studies.top_pairs import ensemble_tasks

MEASURING = Measuring(
    n_generated=1500,
    n_before_cuts=1500,
    classifier=ClassifierSettings(n_layers=1, n_hidden=16, n_epochs=8, learning_rate=1e-2),
)


def generator_of(events: np.ndarray, outside: float = 0.0):
    """Stand in for a flow whose events are these; of those before the cuts a part is outside."""

    def sample(n: int, *, selected: bool = True, **how) -> torch.Tensor:
        assert how.keys() == {"generator", "solving"}
        drawn = torch.from_numpy(events[:n].copy())
        if not selected:
            drawn[: round(outside * n), 1] = drawn[: round(outside * n), 2]  # two in one place
        return drawn

    return SimpleNamespace(sample=sample)


def test_a_generator_like_the_truth() -> None:
    train, holdout, made = (momenta(1500, seed) for seed in range(3))
    arrays, generated = measure(
        generator_of(made, outside=0.2), train, holdout, measuring=MEASURING, seed=1
    )
    quality = _quality(arrays)
    assert np.array_equal(generated, made)
    assert quality.outside == quality.close == 0.2
    # P(KS of two samples of 1500 > 0.1) = 2 exp(-2 750 0.01) = 6e-7, for ten observables.
    assert max(quality.ks.values()) < 0.1
    assert max(quality.ks_of_train.values()) < 0.1
    low, high = quality.auc_interval
    assert low < quality.auc < high
    assert abs(quality.auc - 0.5) < 5 * (high - low) / 2


def test_a_wrong_mass_is_seen() -> None:
    train, holdout, made = (momenta(1500, seed) for seed in range(3))
    made[:, 0, 3] *= 3.0
    arrays, _ = measure(generator_of(made), train, holdout, measuring=MEASURING, seed=1)
    quality = _quality(arrays)
    assert max(quality.ks, key=quality.ks.get) == "mass_b"
    assert quality.ks["mass_b"] > 0.5
    assert quality.auc > 0.6


@pytest.fixture
def store(tmp_path, every_event_passes) -> ArtefactStore:
    return ArtefactStore(published=tmp_path / "data", local=tmp_path / "local", fresh=False)


FEW = replace(MEASURING, n_generated=60, n_before_cuts=60)
TRAINING = FlowMatchingTraining(n_steps=3, batch_size=32, compile=False)


def run(store: ArtefactStore, *names: str) -> dict[str, Quality]:
    flow = FlowMatchingSettings(velocity=VelocitySettings(n_blocks=1, width=16))
    rates = dict(zip(("one", "two"), (1e-3, 2e-3), strict=True))
    trials = {name: (flow, replace(TRAINING, learning_rate=rates[name])) for name in names}
    events = momenta(100, 1), momenta(30, 2)
    return run_trials(trials, *events, measuring=FEW, seed=5, store=store)


def test_trials_are_kept_one_by_one(store: ArtefactStore) -> None:
    one = run(store, "one")["one"]
    both = run(store, "one", "two")
    assert [used["origin"] for used in store.used] == ["computed", "local", "computed"]
    assert both["one"] == one != both["two"]
    assert one.cpu_seconds > 0
    assert not one.peaks
    assert not list(store.local.glob("*-unfinished"))


def test_members_are_measured_once(store: ArtefactStore) -> None:
    tasks = ensemble_tasks(
        momenta(100, 1), "transformer", n_members=2, n_steps=3, training=TRAINING
    )
    generators = fitted_generators(tasks, store=store)

    def measured(used: ArtefactStore) -> list[Quality]:
        events = momenta(100, 1), momenta(80, 2)
        return measure_members(generators, *events, measuring=FEW, seed=2, store=used)

    one, two = measured(store)
    assert one.auc != two.auc
    n_used = len(store.used)
    again, _ = measured(store)
    assert [used["origin"] for used in store.used[n_used:]] == ["local", "local"]
    fresh, _ = measured(ArtefactStore(published=store.local, local=store.local, fresh=True))
    for other in (again, fresh):
        np.testing.assert_equal(asdict(other), asdict(one))
    assert set(one.peaks) == {"m_w", "m_t"}
    assert set(one.densities) == set(EDGES)


def test_densities_are_normalised() -> None:
    densities = densities_of(momenta(2000, 3))
    n_outside = (momenta(2000, 3)[:, 0, 0] >= EDGES["pt_b"][-1]).mean()
    total = (densities["pt_b"] * np.diff(EDGES["pt_b"])).sum()
    assert total == pytest.approx(1 - n_outside)


MEMBER = Quality(
    ks={"m_t": 0.03},
    ks_of_train={"m_t": 0.01},
    auc=0.55,
    auc_interval=(0.546, 0.554),
    outside=0.1,
    close=0.5,
    peaks={"m_w": Peak(80.0, 0.3, 20.0, 2.0), "m_t": Peak(172.0, 0.6, 45.0, 4.0)},
)
NUMBERS = {"n_generated": 400, "n_before_cuts": 2500, "n_holdout": 400}


def test_one_member_has_statistical_errors() -> None:
    summary = summarise_members([MEMBER], **NUMBERS)
    assert summary["AUC of a classifier"] == pytest.approx((0.55, 0.004))
    assert summary["KS m_t"] == pytest.approx((0.03, 0.5 * (2 / 400) ** 0.5))
    assert summary["closer than 0.5, before the cuts"] == pytest.approx((0.5, 0.01))
    assert summary["outside of the cuts"] == pytest.approx((0.1, 0.006))
    assert summary["top peak, width / GeV"] == pytest.approx((45.0, 4.0))
    assert summary["W peak, position / GeV"] == pytest.approx((80.0, 0.3))


def test_more_members_have_their_spread() -> None:
    other = replace(MEMBER, auc=0.556)
    mean, error = summarise_members([MEMBER, other], **NUMBERS)["AUC of a classifier"]
    assert mean == pytest.approx(0.553)
    # Both have the same statistical error.
    assert error == pytest.approx(np.hypot(0.004, 0.006 / 2**0.5))


def test_a_perfect_generator() -> None:
    holdout = momenta(3000, 1)
    truth = summarise_truth(MEMBER, holdout)
    assert list(truth) == list(summarise_members([MEMBER], **NUMBERS))
    assert truth["AUC of a classifier"] == (0.5, 0.0)
    assert truth["KS m_t"] == (0.01, 0.0)
    assert truth["outside of the cuts"] == (0.0, 0.0)
    peak = peaks_of(holdout)["m_w"]
    assert truth["W peak, width / GeV"] == (peak.width, peak.width_error)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_wrong_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got 0"):
        summarise_members([MEMBER], **{**NUMBERS, name: 0})
    with pytest.raises(ValueError, match="`members` must not be empty"):
        summarise_members([], **NUMBERS)
