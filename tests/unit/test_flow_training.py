"""Fitting flows: the likelihood, the bootstrap without leakage, what is kept and continued."""

import dataclasses
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.stats import norm

from genamp_lib._project import GenampError
from genamp_lib.networks import spline_flow as flow_ensemble
from genamp_lib.networks.spline_flow import (
    FlowSettings,
    fit_flow,
    fit_flows,
    flows_from_arrays,
    flows_to_arrays,
    generate,
    split_events,
)
from genamp_lib.store import ArtefactStore, Stage

QUICK = FlowSettings(n_transforms=2, n_hidden=8, n_bins=4, n_epochs=3, batch_size=64)
STAGE = Stage("test-flow", version=1, configuration={"events": "gaussian"})


def gaussian(seed, n=200):
    """Correlated Gaussian features in units that differ by 1e5."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return x @ np.array([[1.0, 0.5], [0.0, 0.5]]) * [1e3, 1e-2] + [1e4, 1.0]


def assert_same(first, second):
    for name, array in flows_to_arrays(first).items():
        np.testing.assert_array_equal(array, flows_to_arrays(second)[name])


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


class TestSettings:
    @pytest.mark.parametrize("field", ["n_transforms", "n_hidden", "n_epochs", "batch_size"])
    def test_counts(self, field):
        with pytest.raises(ValueError, match=f"`{field}` must be positive, got 0"):
            FlowSettings(**{field: 0})

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("n_bins", 1, "`n_bins` must be at least 2, got 1"),
            ("learning_rate", 0.0, "`learning_rate` must be positive"),
            ("validation_fraction", 1.0, "`validation_fraction` must be between 0 and 1"),
        ],
    )
    def test_numbers(self, field, value, message):
        with pytest.raises(ValueError, match=message):
            FlowSettings(**{field: value})


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


class TestFit:
    def test_learns_a_density(self):
        # Against the true density: Kullback-Leibler divergence on fresh events. The identity flow
        # has 0.35 from the correlation of 0.71 alone.
        train, fresh = gaussian(1, n=4000), gaussian(2, n=4000)
        fit = fit_flow(train, settings=FlowSettings(n_epochs=30, n_transforms=2), seed=1)
        z = (fresh - [1e4, 1.0]) / [1e3, 1e-2]
        a = z[:, 0]
        truth = norm.logpdf(a) + norm.logpdf(z[:, 1], 0.5 * a, 0.5) - np.log(1e3 * 1e-2)
        with torch.no_grad():
            ours = fit.flow.log_prob(torch.from_numpy(fresh)).numpy()
        assert (truth - ours).mean() < 0.05
        events = generate(fit.flow, 20_000, seed=1)
        # A tenth of a standard deviation: six times the error of the mean of the training sample.
        np.testing.assert_array_less(np.abs(events.mean(0) - [1e4, 1.0]), [100, 1e-3])
        assert np.corrcoef(events.T)[0, 1] == pytest.approx(0.5**0.5, abs=0.05)

    def test_same_seed_same_numbers_whatever_torch_did_before(self):
        first = fit_flow(gaussian(1), settings=QUICK, seed=1, bootstrap=True)
        torch.rand(17)
        assert_same([first], [fit_flow(gaussian(1), settings=QUICK, seed=1, bootstrap=True)])
        other = fit_flow(gaussian(1), settings=QUICK, seed=2, bootstrap=True)
        assert not np.array_equal(first.train_loss, other.train_loss)

    def test_leaves_global_randomness_and_threads_alone(self):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        n_threads = torch.get_num_threads()
        fit_flow(gaussian(1), settings=QUICK, seed=1)
        assert torch.equal(torch.rand(3), expected)
        assert torch.get_num_threads() == n_threads

    def test_keeps_the_best_validation_epoch(self):
        # Few events, many parameters: the flow overfits after some epochs.
        train = gaussian(4, n=100)
        settings = FlowSettings(n_epochs=60, batch_size=20, learning_rate=1e-2)
        fit = fit_flow(train, settings=settings, seed=1)
        assert fit.best_epoch < 50
        _, validation = split_events(100, validation_fraction=0.2, seed=1)
        with torch.no_grad():
            loss = -fit.flow.log_prob(torch.from_numpy(train[validation])).mean().item()
        assert loss == pytest.approx(fit.validation_loss.min(), rel=1e-6)
        assert loss < fit.validation_loss[-1] - 0.1

    def test_progress_is_one_line_per_epoch(self):
        lines = []
        fit_flow(gaussian(1), settings=QUICK, seed=1, progress=lines.append)
        assert len(lines) == QUICK.n_epochs
        assert lines[0].startswith("epoch 1/3: loss ")

    def test_runaway_loss(self):
        settings = dataclasses.replace(QUICK, learning_rate=1e30, n_epochs=9)
        with pytest.raises(GenampError, match=r"loss must be finite, .* lower `learning_rate`"):
            fit_flow(gaussian(1), settings=settings, seed=1)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda x: x[:, 0], r"`train` must be \(n_train, n_features\), got shape \(200,\)"),
            (lambda x: x[:, :0], r"must be \(n_train, n_features\), got shape \(200, 0\)"),
            (lambda x: x[:49], "`train` must hold at least 50 events, got 49"),
            (
                lambda x: np.where(x > 1.01, np.nan, x),
                r"`train` must be finite, got NaN or infinity in column\(s\) \[0, 1\]",
            ),
            (lambda x: x * [1, 0], "got 1 different values for 200 events in column 1; drop it"),
            (lambda x: np.round(x / 100), "must hold continuous features, got .* column 0; drop"),
        ],
    )
    def test_bad_events(self, spoil, message):
        with pytest.raises(ValueError, match=message):
            fit_flow(spoil(gaussian(1)), settings=QUICK, seed=1)
        with pytest.raises(ValueError, match=message):
            fit_flows(spoil(gaussian(1)), n_members=2, settings=QUICK, seed=1)


class TestEnsemble:
    def test_members_differ_in_what_they_should(self):
        train = gaussian(1)
        apart = fit_flows(train, n_members=3, settings=QUICK, seed=1)
        alike = fit_flows(train, n_members=3, settings=QUICK, seed=1, bootstrap=False)
        means = [{tuple(fit.flow.feature_mean.tolist()) for fit in fits} for fits in (apart, alike)]
        assert [len(different) for different in means] == [3, 1]
        assert len({fit.train_loss[0] for fit in alike}) == 3

    def test_a_member_does_not_depend_on_how_many_there_are(self):
        few = fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1)
        many = fit_flows(gaussian(1), n_members=2, settings=QUICK, seed=1)
        assert_same(few, many[:1])

    def test_processes_give_identical_parameters(self):
        one = fit_flows(gaussian(1), n_members=3, settings=QUICK, seed=1)
        assert_same(one, fit_flows(gaussian(1), n_members=3, settings=QUICK, seed=1, jobs=2))

    def test_arguments(self, store):
        with pytest.raises(ValueError, match="`n_members` must be positive, got 0"):
            fit_flows(gaussian(1), n_members=0, settings=QUICK, seed=1)
        with pytest.raises(ValueError, match="`store` and `stage` must be given together"):
            fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1, store=store)


class TestArrays:
    def test_round_trip_gives_identical_numbers(self, store):
        fits = fit_flows(gaussian(1), n_members=2, settings=QUICK, seed=1)
        options = {"n_members": 2, "settings": QUICK, "seed": 1, "store": store, "stage": STAGE}
        fit_flows(gaussian(1), **options)
        again = fit_flows(gaussian(1), **options)
        assert [use["origin"] for use in store.used] == ["computed", "local"]
        assert_same(fits, again)
        x = torch.from_numpy(gaussian(9))
        for one, other in zip(fits, again, strict=True):
            assert torch.equal(one.flow.log_prob(x), other.flow.log_prob(x))
            np.testing.assert_array_equal(
                generate(one.flow, 100, seed=3), generate(other.flow, 100, seed=3)
            )
            assert one.best_epoch == other.best_epoch

    def test_one_file_holds_the_ensemble_and_nothing_else_stays(self, store):
        fit_flows(gaussian(1), n_members=3, settings=QUICK, seed=1, store=store, stage=STAGE)
        assert len(list(store.local.glob("*.safetensors"))) == 1
        assert len(list(store.local.iterdir())) == 2

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda a: a.pop("train_loss"), "'train_loss'"),
            (lambda a: a.pop("feature_mean"), "'feature_mean'"),
            (lambda a: a.update(other=a["train_loss"]), "Error"),
            (lambda a: a.pop("network.transform.transforms.1.hyper.0.bias"), "Error"),
        ],
    )
    def test_other_arrays(self, spoil, message):
        arrays = flows_to_arrays(fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1))
        spoil(arrays)
        with pytest.raises(GenampError, match=rf"stored flows: .* got .*{message}.*; rerun"):
            flows_from_arrays(arrays, QUICK)

    def test_other_settings(self):
        arrays = flows_to_arrays(fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1))
        with pytest.raises(GenampError, match=r"stored flows: must have the arrays of .*=9"):
            flows_from_arrays(arrays, dataclasses.replace(QUICK, n_hidden=9))

    @pytest.mark.parametrize("bootstrap", [True, False])
    def test_artefact_of_other_events(self, store, bootstrap):
        options = {
            "n_members": 1,
            "settings": QUICK,
            "seed": 1,
            "bootstrap": bootstrap,
            "store": store,
            "stage": STAGE,
        }
        fit_flows(gaussian(1), **options)
        with pytest.raises(GenampError, match="was trained on other events than these"):
            fit_flows(gaussian(2), **options)


class TestParts:
    def test_fresh_stores_do_not_continue(self, tmp_path):
        folders = {"published": tmp_path / "published", "local": tmp_path / "local"}
        store = ArtefactStore(**folders, fresh=False)
        store.keep_part(STAGE, {"x": np.arange(3)})
        np.testing.assert_array_equal(store.kept_part(STAGE)["x"], np.arange(3))
        assert ArtefactStore(**folders, fresh=True).kept_part(STAGE) is None
        store.forget_part(STAGE)
        store.forget_part(STAGE)
        assert store.kept_part(STAGE) is None
        assert not list(store.local.iterdir())
        assert not store.used


RUN = """
import sys
from pathlib import Path
import numpy as np
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.networks.spline_flow import FlowSettings
from genamp_lib.networks.spline_flow import fit_flows
folder = Path(sys.argv[1])
store = ArtefactStore(published=folder / "published", local=folder / "local", fresh=False)
fit_flows(
    np.random.default_rng(1).normal(size=(400, 2)), n_members=4, seed=1, jobs=int(sys.argv[2]),
    settings=FlowSettings(n_transforms=2, n_epochs=25, batch_size=40), store=store,
    stage=Stage("killed", version=1, configuration={}),
)
"""


class TestKill:
    def test_a_killed_run_continues_with_its_members(self, tmp_path, monkeypatch):
        command = [sys.executable, "-c", RUN, str(tmp_path), "1"]
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 120
        while not list((tmp_path / "local").glob("killed-member-*.json")):
            assert process.poll() is None, "it ended before a member was kept"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(list((tmp_path / "local").glob("killed-member-*.json")))
        assert 1 <= kept < 4

        trained = []
        real = flow_ensemble.fit_flow
        monkeypatch.setattr(
            flow_ensemble, "fit_flow", lambda *a, **k: trained.append(1) or real(*a, **k)
        )
        events = np.random.default_rng(1).normal(size=(400, 2))
        options = {
            "n_members": 4,
            "seed": 1,
            "settings": FlowSettings(n_transforms=2, n_epochs=25, batch_size=40),
        }
        store = ArtefactStore(
            published=tmp_path / "published", local=tmp_path / "local", fresh=False
        )
        stage = Stage("killed", version=1, configuration={})
        resumed = fit_flows(events, **options, store=store, stage=stage)
        assert len(trained) == 4 - kept
        assert_same(resumed, fit_flows(events, **options))
        left = [path.name for path in (tmp_path / "local").glob("killed*")]
        assert not [name for name in left if "member" in name]
