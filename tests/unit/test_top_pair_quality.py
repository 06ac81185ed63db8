"""Quality of top-pair generators: null, planted flaw, trials that are kept and not redone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests_support import separated_jets as momenta

from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.store import ArtefactStore
from genamp_lib.studies.ch11_quality import (
    Measuring,
    Trial,
    measure,
    quality_of,
    run_trials,
)

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

    def accepts(given: torch.Tensor) -> torch.Tensor:
        return (given[:, 1] != given[:, 2]).any(1)

    settings = SimpleNamespace(accepts=accepts, delta_r_min=0.5)
    return SimpleNamespace(sample=sample, settings=settings)


def test_a_generator_like_the_truth() -> None:
    train, holdout, made = (momenta(1500, seed) for seed in range(3))
    arrays, generated = measure(
        generator_of(made, outside=0.2), train, holdout, measuring=MEASURING, seed=1
    )
    quality = quality_of(arrays)
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
    quality = quality_of(arrays)
    assert max(quality.ks, key=quality.ks.get) == "mass_b"
    assert quality.ks["mass_b"] > 0.5
    assert quality.auc > 0.6


def trials(*names: str) -> list[Trial]:
    flow = FlowMatchingSettings(velocity=VelocitySettings(n_blocks=1, width=16))
    training = FlowMatchingTraining(n_steps=3, batch_size=32, n_warmup=2, compile=False)
    return [
        Trial(name, flow, replace(training, learning_rate=1e-3 * (1 + number)))
        for number, name in enumerate(names)
    ]


class TestTrials:
    def run(self, store: ArtefactStore, *names: str):
        measuring = replace(MEASURING, n_generated=30)
        return run_trials(
            trials(*names),
            momenta(100, 1),
            momenta(30, 2),
            measuring=measuring,
            seed=5,
            store=store,
        )

    def test_they_are_kept_one_by_one(self, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("genamp_lib.studies.ch11_quality.project_root", lambda: tmp_path)
        # A little-trained generator makes few events within the cuts.
        monkeypatch.setattr(
            "genamp_lib.networks.top_pairs.flow_matching.FlowMatchingSettings.accepts",
            lambda _, events: torch.isfinite(events).flatten(1).all(1),
        )
        folders = {"published": tmp_path / "data", "local": tmp_path / "local"}
        one = self.run(ArtefactStore(**folders, fresh=False), "one")["one"]
        store = ArtefactStore(**folders, fresh=False)
        both = self.run(store, "one", "two")
        assert [used["origin"] for used in store.used] == ["local", "computed"]
        assert both["one"].quality == one.quality
        assert both["one"].cpu_seconds == one.cpu_seconds > 0
        assert both["two"].quality != one.quality
        assert np.isfinite(one.validation_loss).all()
        assert not list((tmp_path / "_build" / "generators").iterdir())  # no checkpoint is left

    def test_names_differ(self, tmp_path) -> None:
        store = ArtefactStore(published=tmp_path, local=tmp_path, fresh=False)
        with pytest.raises(ValueError, match="`trials` must have different names"):
            self.run(store, "one", "one")
