"""What all trainings share: the two loops, their checkpoints, the division of events."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genamp_lib._project import GenampError
from genamp_lib.networks.fitting import (
    Standardised,
    fit_by_epochs,
    fit_by_steps,
    read_checkpoint,
    seeded,
    split_events,
    warmup_cosine,
    write_checkpoint,
)

X = torch.linspace(-1, 1, 40)[:, None]
Y = X.square() + 0.1 * torch.randn(X.shape, generator=torch.Generator().manual_seed(1))


class Stopped(Exception):
    """A kill."""


def by_epochs(n_epochs=6, stop_after=None, plateau=True, rate=0.05, **options):
    """Fit a parabola; dropout and a batch norm make all of the state matter."""
    with seeded(3):
        network = torch.nn.Sequential(
            torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2),
            torch.nn.Linear(8, 1),
        )  # fmt: skip
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 4 * n_epochs)
        if plateau:
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, patience=0)

        def watch(epoch):
            if epoch == stop_after:
                raise Stopped

        return fit_by_epochs(
            network,
            lambda batch: [(network(part) - part.square()).square().mean() / 2
                           for part in X[batch].split(5)],
            lambda: (network(X) - Y).square().mean(),
            optimiser,
            schedule,
            name="parabola",
            n_train=40,
            n_epochs=n_epochs,
            batch_size=10,
            watch=watch,
            **options,
        )  # fmt: skip


class TestByEpochs:
    def test_the_best_states_come_best_first(self):
        best, curves = by_epochs(n_best=3)
        assert len(best) == 3
        network = torch.nn.Sequential(
            torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2),
            torch.nn.Linear(8, 1),
        )  # fmt: skip
        losses = []
        for state in best:
            network.load_state_dict(state)
            with torch.no_grad():
                losses.append((network.eval()(X) - Y).square().mean().item())
        np.testing.assert_allclose(losses, np.sort(curves.validation_loss)[:3], rtol=1e-6)

    @pytest.mark.parametrize("plateau", [True, False])
    def test_a_killed_training_ends_with_the_same_bits(self, tmp_path, plateau):
        options = {"plateau": plateau, "seeds": range(6), "n_best": 2, "key": "parabola"}
        whole, curves = by_epochs(**options)
        options["checkpoint"] = tmp_path / "state.safetensors"
        with pytest.raises(Stopped):
            by_epochs(stop_after=3, **options)
        continued, again = by_epochs(**options)
        np.testing.assert_array_equal(curves.train_loss, again.train_loss)
        np.testing.assert_array_equal(curves.validation_loss, again.validation_loss)
        for one, other in zip(whole, continued, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)

    def test_a_runaway_loss(self):
        with pytest.raises(GenampError, match=r"parabola: the loss must be finite, .* in epoch \d"):
            by_epochs(rate=1e30, plateau=False)


def by_steps(n_steps=50, *, spoilt=None, members=3, **options):
    """Move parameters to the mean of noise; returns them with the losses."""
    parameters = torch.full((members, 2), 3.0).requires_grad_()
    widths = torch.ones(members, 1).requires_grad_()
    groups = [{"params": [parameters]}, {"params": [widths], "factor": 2.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.0)

    def gradients(step):
        noise = torch.from_numpy(np.random.default_rng(step).normal(size=(members, 2)))
        losses = ((parameters - noise.float()) / widths).square().mean(1) + widths[:, 0].square()
        losses.sum().backward()
        if spoilt is not None and step == 15:
            losses = losses * torch.where(torch.arange(members) == spoilt, torch.nan, 1.0)
        return losses if members > 1 else losses[0]

    losses = fit_by_steps(
        gradients,
        [optimiser],
        {"parameters": parameters, "widths": widths},
        name="mean",
        n_steps=n_steps,
        learning_rate=0.1,
        n_warmup=5,
        loss_steps=20,
        **options,
    )
    return parameters.detach(), widths.detach(), losses


class TestBySteps:
    def test_stopped_and_continued_with_the_same_bits(self, tmp_path):
        whole = by_steps()
        options = {"checkpoint": tmp_path / "state.safetensors", "key": "mean"}
        for stop_at in (33, 41, None):
            continued = by_steps(stop_at=stop_at, checkpoint_steps=7, **options)
        assert all(torch.equal(one, other) for one, other in zip(whole, continued, strict=True))
        assert whole[2].shape == (50, 3)
        assert whole[2][-10:].mean() < 0.7 * whole[2][:10].mean()

    def test_a_finished_state_is_taken_as_it_is(self, tmp_path):
        options = {"checkpoint": tmp_path / "state.safetensors", "key": "mean"}
        first = by_steps(**options)
        written = options["checkpoint"].stat().st_mtime_ns
        assert torch.equal(first[0], by_steps(**options)[0])
        assert options["checkpoint"].stat().st_mtime_ns == written

    def test_what_comes_after_each_step(self):
        seen = []
        by_steps(7, after=seen.append)
        assert seen == [1, 2, 3, 4, 5, 6, 7]

    def test_a_loss_that_is_not_finite(self):
        message = "mean, member 1: the loss must be finite, got nan by step 20; lower"
        with pytest.raises(GenampError, match=message):
            by_steps(spoilt=1)
        with pytest.raises(GenampError, match="mean: the loss must be finite, got nan by step 20"):
            by_steps(spoilt=0, members=1)

    def test_the_rate_rises_and_falls(self):
        rates = np.array([warmup_cosine(step, n_steps=1000, n_warmup=100) for step in range(1000)])
        assert rates[0] < 0.011
        assert 95 <= rates.argmax() <= 100
        assert rates.max() > 0.97
        assert rates[-1] < 1e-5
        assert rates[500] == pytest.approx(0.5)


class TestCheckpoint:
    def test_nested_states_come_back(self, tmp_path):
        path = tmp_path / "folder" / "state.safetensors"
        shared = torch.arange(6.0).reshape(2, 3).T
        state = {"a": [shared, {7: shared, "n": 3}], "best": float("inf"), "none": None, "t": ()}
        write_checkpoint(path, state, key="task")
        found = read_checkpoint(path, key="task")
        assert torch.equal(found["a"][0], shared)
        assert torch.equal(found["a"][1].pop(7), shared)
        assert (found["a"][1], found["best"], found["none"], found["t"]) == (
            {"n": 3}, float("inf"), None, []
        )  # fmt: skip

    def test_files_that_do_not_fit(self, tmp_path):
        path = tmp_path / "state.safetensors"
        write_checkpoint(path, {}, key="task")
        with pytest.raises(GenampError, match="is of another task; remove it"):
            read_checkpoint(path, key="other")
        save_file({"losses": torch.zeros(1)}, path)
        with pytest.raises(GenampError, match="is of another task; remove it"):
            read_checkpoint(path, key="task")
        path.write_bytes(b"nothing")
        with pytest.raises(GenampError, match=r"must be a safetensors file .*; remove it"):
            read_checkpoint(path, key="task")


class TestStandardised:
    def test_is_in_the_state_and_not_trained(self):
        network = Standardised(2)
        features = torch.randn(1000, 2) * torch.tensor([3.0, 0.01]) + torch.tensor([100.0, -5.0])
        network.set_standardisation(features)
        scaled = (features - network.feature_mean) / network.feature_scale
        assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-4)
        assert torch.allclose(scaled.std(0), torch.ones(2), atol=1e-4)
        assert set(network.state_dict()) == {"feature_mean", "feature_scale"}
        assert not list(network.parameters())

    def test_constant_feature(self):
        features = torch.randn(10, 3)
        features[:, 1] = 0.1
        with pytest.raises(ValueError, match=r"`features` must vary, .* column\(s\) \[1\]; drop"):
            Standardised(3).set_standardisation(features)


def test_a_seed_inside_changes_nothing_outside():
    torch.manual_seed(5)
    expected, n_threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(2)
    with seeded(1):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == n_threads


class TestSplit:
    @pytest.mark.parametrize("bootstrap", [False, True])
    def test_no_event_is_fitted_and_validated(self, bootstrap):
        fit, validation = split_events(500, validation_fraction=0.3, seed=1, bootstrap=bootstrap)
        assert not np.intersect1d(fit, validation).size
        assert len(fit) + len(validation) == 500

    def test_without_bootstrap_each_event_is_used_once(self):
        fit, validation = split_events(500, validation_fraction=0.3, seed=1)
        assert len(validation) == 150
        np.testing.assert_array_equal(np.sort([*fit, *validation]), np.arange(500))

    def test_bootstrap_draws_with_replacement(self):
        # Each event is drawn as Poisson(1) nearly: mean and variance one. Over 400 draws of 500
        # events the variance of the counts is known to 0.4 %: five standard deviations.
        counts = np.array(
            [
                np.bincount(
                    np.concatenate(
                        split_events(500, validation_fraction=0.2, seed=s, bootstrap=True)
                    ),
                    minlength=500,
                )
                for s in range(400)
            ]
        )
        assert counts.var() == pytest.approx(1 - 1 / 500, rel=0.02)
        # No event is preferred: chi^2 of 500 means of 400 draws, 500 +- 32, five deviations.
        assert ((counts.mean(0) - 1) ** 2).sum() * 400 == pytest.approx(500, abs=160)

    def test_every_event_is_validated_equally_often(self):
        validated = np.zeros(100)
        for seed in range(1000):
            _, validation = split_events(100, validation_fraction=0.2, seed=seed, bootstrap=True)
            validated += np.bincount(validation, minlength=100)
        # 0.2 copies per event and draw with variance 0.36: 200 +- 19, five deviations.
        np.testing.assert_allclose(validated, 200, atol=95)

    @pytest.mark.parametrize("fraction", [0.001, 0.999])
    def test_nothing_on_one_side(self, fraction):
        with pytest.raises(ValueError, match=r"must leave events on both sides, got 0\.\d+ of 100"):
            split_events(100, validation_fraction=fraction, seed=1)
