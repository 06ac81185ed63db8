"""Training of top-pair generators: losses, continued trainings, what stands in the batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import random_jets as jets
from tests_support import small_flow_matching as settings

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import assignment_chi2, in_order, reconstructed
from genamp_lib.networks.fitting import fit_by_steps, one_thread
from genamp_lib.networks.top_pairs import fit
from genamp_lib.networks.top_pairs.fit import (
    FlowMatchingTask,
    FlowMatchingTraining,
    _copies,
    _Fit,
    fit_flow_matching,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch: pytest.MonkeyPatch):
    """On one thread, as parts of a training are called alone; with a short warm-up."""
    monkeypatch.setattr(fit, "N_WARMUP", 5)
    with one_thread():
        yield


def task(**changes) -> FlowMatchingTask:
    training = FlowMatchingTraining(n_steps=12, batch_size=32, compile=False)
    given = FlowMatchingTask(jets(300).numpy(), settings(), training, seed=4)
    return replace(given, **changes)


def _pairs_of(copies: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Number of the jet in `events` that is with b1, and that are its two quarks', sorted."""
    number = (copies[:, :, :, None, 0] == events[None, :, None, :, 0]).argmax(-1)
    with_first = np.where(number[..., :1] == 0, number[..., 1:3], number[..., 4:6])
    return np.sort(with_first, axis=-1)


def test_keys_are_those_of_published_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from when all constants were settings."""
    monkeypatch.undo()
    events = np.zeros((2, 6, 4))
    events[:, :, 0], events[:, :, 1], events[:, :, 3] = 50.0, np.linspace(-2.5, 2.5, 6), 5.0
    given = FlowMatchingTask(events, FlowMatchingSettings(), FlowMatchingTraining(), seed=1)
    assert given.key == "959dfed24a2422d3"
    assert len({replace(given, **o).key for o in ({"seed": 5}, {"bootstrap": True}, {})}) == 3


def test_the_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "LOSS_STEPS", 10)
    training = FlowMatchingTraining(n_steps=150, batch_size=64, compile=False)
    train_loss, validation_loss = fit_flow_matching(task(training=training))["losses"]
    assert train_loss[-3:].mean() < 0.95 * train_loss[0]
    assert validation_loss[-1] < validation_loss[0]


@pytest.mark.parametrize(
    ("architecture", "optimiser"),
    [("transformer", "muon"), ("transformer", "adamw"), ("lloca", "muon")],
)
def test_stopped_and_continued(
    architecture: str, optimiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = task(
        flow=settings(architecture),
        training=replace(task().training, optimiser=optimiser),
        bootstrap=True,
    )
    whole = fit_flow_matching(given)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit_by_steps", partial(fit_by_steps, stop_at=7))
        stopped = fit_flow_matching(given, checkpoint=tmp_path / "state")
    continued = fit_flow_matching(given, checkpoint=tmp_path / "state")
    assert whole["cpu_seconds"] > 0
    assert continued.pop("cpu_seconds") > stopped["cpu_seconds"]
    for name, array in continued.items():
        assert np.array_equal(array, whole[name]), name
    assert not np.array_equal(stopped["losses"], whole["losses"])


def test_muon_steps_have_the_size_of_adamw() -> None:
    """The root mean square of a step is 0.2 learning rates, in every direction alike."""
    state = _Fit(task())
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"], group["weight_decay"] = 0.004, 0.0
    before = {name: value.detach().clone() for name, value in state.trained.items()}
    state.gradients(0)
    for optimiser in state.optimisers:
        optimiser.step()
    steps = {name: value.detach() - before[name] for name, value in state.trained.items()}
    matrices = [name for name in steps if "blocks." in name and steps[name].ndim == 2]
    assert len(matrices) > 3
    for name in matrices:
        largest = 0.2 * max(steps[name].shape) ** 0.5 * 0.004
        median = (torch.linalg.svdvals(steps[name]) / largest).median().item()
        assert median == pytest.approx(1.0, abs=0.35), name
    # AdamW's first step has one length for every parameter.
    others = [steps[name].abs().max().item() for name in steps if "blocks." not in name]
    assert max(others) <= 1.01 * 0.004


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_steps_are_the_same_but_for_rounding() -> None:
    training = replace(task().training, n_steps=3)
    one, two = (
        fit_flow_matching(task(training=replace(training, compile=compiled)))["losses"]
        for compiled in (False, True)
    )
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    compiled = task(training=replace(task().training, compile=True))
    with pytest.raises(GenampError, match=r"`compile` needs a C\+\+ compiler, got neither"):
        fit_flow_matching(compiled)


def test_assignments_of_jets_are_drawn_by_their_chi2() -> None:
    events = in_order(jets(400))
    copies = _copies(events, chi2_scale=400.0, seed=3)
    assert copies.shape == (32, 400, 6, 4)
    # Which assignment each copy has: its W candidates, as sets of jets.
    chi2 = assignment_chi2(events)
    probability = np.exp(-(chi2 - chi2.min(1, keepdims=True)) / 400.0)
    probability /= probability.sum(1, keepdims=True)
    first = (_pairs_of(copies, events) == _pairs_of(events[None], events)).all(-1)
    expected = 32 * probability[:, 0].sum()
    error = np.sqrt(32 * (probability[:, 0] * (1 - probability[:, 0])).sum())
    assert abs(first.sum() - expected) < 5 * error  # 6e-7
    assert 0.1 < first.mean() < 0.9
    # All are the same events, and keep their assignment when drawn with no scale.
    np.testing.assert_allclose(reconstructed(copies[5]), reconstructed(events))
    kept = _copies(events, chi2_scale=0.0, seed=3)
    assert not np.array_equal(kept[0], events)
    assert all(np.array_equal(in_order(copy), events) for copy in kept)


def test_foreign_checkpoints(tmp_path: Path) -> None:
    fit_flow_matching(task(), checkpoint=tmp_path / "state")
    with pytest.raises(GenampError, match="is of another task; remove it"):
        fit_flow_matching(task(seed=5), checkpoint=tmp_path / "state")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"flow": FlowMatchingSettings(n_particles=8)},
            r"`train` must be \(n_train, 8, 4\), got \(300, 6, 4\)",
        ),
        (
            {"train": jets(300, cuts=False).numpy()},
            r"`train` must pass the cuts pt > 22 .*, got \d+ of 300",
        ),
    ],
)
def test_events_that_do_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "sgd"}, "`optimiser` must be one of muon, adamw, got 'sgd'"),
        ({"batch_size": 0}, "`batch_size` must be positive, got 0"),
        ({"chi2_scale": -1.0}, "`chi2_scale` must not be negative, got -1.0"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowMatchingTraining(**settings)


def test_a_loss_that_is_not_finite() -> None:
    training = FlowMatchingTraining(n_steps=30, learning_rate=1e30, compile=False)
    with pytest.raises(GenampError, match=r"the loss must be finite, got .*; lower `learn"):
        fit_flow_matching(task(training=training))
