"""Training of flow matching: losses, continued trainings, what stands in the batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from genamp_lib.networks.top_pairs.order import in_order, reconstructed
from tests_support import random_jets as jets
from tests_support import small_flow_matching as settings

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import assignment_chi2
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.fit import (
    FlowMatchingState,
    FlowMatchingTask,
    FlowMatchingTraining,
    _copies,
    fit_flow_matching,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings


@pytest.fixture(autouse=True)
def on_one_thread():
    """A training sets one thread itself; here its parts are called alone."""
    with one_thread():
        yield


def as_given() -> FlowMatchingTraining:
    return FlowMatchingTraining(n_steps=2, chi2_scale=0.0, augment=False, compile=False)


def _pairs_of(copies: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Number of the jet in `events` that is with b1, and that are its two quarks', sorted."""
    number = (copies[:, :, :, None, 0] == events[None, :, None, :, 0]).argmax(-1)
    with_first = np.where(number[..., :1] == 0, number[..., 1:3], number[..., 4:6])
    return np.sort(with_first, axis=-1)


def task(**changes) -> FlowMatchingTask:
    training = FlowMatchingTraining(
        n_steps=12, batch_size=32, n_warmup=5, average_steps=10, compile=False
    )
    given = FlowMatchingTask(jets(300).numpy(), settings(), training, seed=4)
    return replace(given, **changes)


class TestTraining:
    def test_the_loss_falls(self) -> None:
        training = FlowMatchingTraining(n_steps=150, batch_size=64, n_warmup=20, compile=False)
        state = fit_flow_matching(task(training=training))
        assert state.losses[-30:].mean() < 0.95 * state.losses[:10].mean()
        assert np.isfinite(state.loss_curve()[1]).all()

    @pytest.mark.parametrize(
        ("architecture", "optimiser"),
        [("transformer", "muon"), ("transformer", "adamw"), ("lloca", "muon")],
    )
    def test_stopped_and_continued(self, architecture: str, optimiser: str, tmp_path: Path) -> None:
        given = task(
            flow=settings(architecture),
            training=replace(task().training, optimiser=optimiser),
            bootstrap=True,
        )
        whole = fit_flow_matching(given)
        stopped = FlowMatchingState(given)
        for _ in range(7):
            stopped.advance()
        stopped.save(tmp_path / "state.safetensors")
        continued = fit_flow_matching(given, checkpoint=tmp_path / "state.safetensors")
        for name, value in whole.averaged_flow().arrays().items():
            assert torch.equal(value, continued.averaged_flow().arrays()[name]), name
        assert torch.equal(whole.losses, continued.losses)

    def test_muon_steps_have_the_size_of_adamw(self) -> None:
        """The root mean square of a step is 0.2 learning rates, in every direction alike."""
        training = replace(task().training, n_warmup=1, weight_decay=0.0, optimiser="muon")
        state = FlowMatchingState(task(training=training))
        before = {name: value.detach().clone() for name, value in state.trained.items()}
        state.advance()
        steps = {name: value.detach() - before[name] for name, value in state.trained.items()}
        matrices = [name for name in steps if "blocks." in name and steps[name].ndim == 2]
        assert len(matrices) > 3
        for name in matrices:
            singular = torch.linalg.svdvals(steps[name])
            largest = 0.2 * max(steps[name].shape) ** 0.5 * training.learning_rate
            assert (singular / largest).median().item() == pytest.approx(1.0, abs=0.35), name
        # AdamW's first step has one length for every parameter.
        other = steps["linear_out.bias"] if "linear_out.bias" in steps else steps[max(steps)]
        assert other.abs().max().item() <= 1.01 * training.learning_rate

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_compiled_steps_are_the_same_but_for_rounding(self) -> None:
        training = replace(task().training, n_steps=3)
        one, two = (
            fit_flow_matching(task(training=replace(training, compile=compiled)))
            for compiled in (False, True)
        )
        torch.testing.assert_close(one.losses, two.losses, rtol=1e-4, atol=1e-5)
        assert one.cpu_seconds > 0

    def test_no_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda _: None)
        compiled = task(training=replace(task().training, compile=True))
        with pytest.raises(GenampError, match=r"`compile` needs a C\+\+ compiler, got neither"):
            fit_flow_matching(compiled)
        FlowMatchingState(task())

    def test_assignments_of_jets_are_drawn_by_their_chi2(self) -> None:
        events = in_order(jets(400)).numpy()
        given = task(train=events, training=replace(task().training, chi2_scale=400.0))
        copies = _copies(events, given, seed=3)
        assert copies.shape == (32, 400, 6, 4)
        # Which assignment each copy has: its W candidates, as sets of jets.
        chi2 = assignment_chi2(events)
        probability = np.exp(-(chi2 - chi2.min(1, keepdims=True)) / 400.0)
        probability /= probability.sum(1, keepdims=True)
        first = (_pairs_of(copies, events) == _pairs_of(events[None], events)).all(-1)
        expected, error = 32 * probability[:, 0].sum(), 0.0
        error = np.sqrt(32 * (probability[:, 0] * (1 - probability[:, 0])).sum())
        assert abs(first.sum() - expected) < 5 * error  # 6e-7
        assert 0.1 < first.mean() < 0.9
        # All are the same events, and in the order of the data when drawn with no scale.
        best = reconstructed(torch.from_numpy(copies[5]))
        torch.testing.assert_close(best, reconstructed(torch.from_numpy(events)))
        one = _copies(events, task(train=events, training=as_given()), seed=3)
        assert np.array_equal(one, events[None])

    def test_other_seeds_and_draws_give_others(self) -> None:
        steps = replace(task().training, n_steps=2)
        keys = {task(training=steps).key}
        for other in ({"seed": 5}, {"bootstrap": True}):
            keys.add(task(training=steps, **other).key)
        assert len(keys) == 3

    def test_damaged_and_foreign_checkpoints(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        FlowMatchingState(task()).save(path)
        with pytest.raises(GenampError, match="is of another task; remove it"):
            fit_flow_matching(task(seed=5), checkpoint=path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(GenampError, match="must be a safetensors file"):
            fit_flow_matching(task(), checkpoint=path)

    def test_a_sample_of_the_wrong_multiplicity(self) -> None:
        with pytest.raises(
            ValueError, match=r"`train` must be \(n_train, 8, 4\), got \(300, 6, 4\)"
        ):
            task(flow=FlowMatchingSettings(n_particles=8))

    def test_events_of_other_cuts(self) -> None:
        with pytest.raises(
            ValueError, match=r"`train` must pass the cuts pt > 22 .*, got \d+ of 300"
        ):
            task(train=jets(300, cuts=False).numpy())

    def test_an_optimiser_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="`optimiser` must be one of muon, adamw, got 'sgd'"):
            FlowMatchingTraining(optimiser="sgd")

    def test_a_loss_that_is_not_finite(self) -> None:
        training = FlowMatchingTraining(n_steps=30, n_warmup=1, learning_rate=1e30, compile=False)
        with pytest.raises(GenampError, match="lower `learning_rate`"):
            fit_flow_matching(task(training=training))
