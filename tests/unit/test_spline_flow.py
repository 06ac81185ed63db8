"""Neural spline flows: a normalised density, its samples, its fit, ensembles kept and continued."""

import dataclasses
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.stats import kstwo, norm

from genamp_lib._project import GenampError
from genamp_lib.networks import spline_flow
from genamp_lib.networks.fitting import fit_to_arrays, split_events
from genamp_lib.networks.spline_flow import (
    BOUND,
    Flow,
    FlowSettings,
    _from_arrays,
    fit_flow,
    fit_flows,
    generate,
)
from genamp_lib.store import ArtefactStore, Stage, stacked

QUICK = FlowSettings(n_transforms=2, n_hidden=8, n_bins=4, n_epochs=3, batch_size=64)
STAGE = Stage("test-flow", version=1, configuration={"events": "gaussian"})


def gaussian(seed, n=200):
    """Correlated Gaussian features in units that differ by 1e5."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return x @ np.array([[1.0, 0.5], [0.0, 0.5]]) * [1e3, 1e-2] + [1e4, 1.0]


def to_arrays(fits):
    return stacked([fit_to_arrays(fit.flow, fit) for fit in fits])


def assert_same(first, second):
    for name, array in to_arrays(first).items():
        np.testing.assert_array_equal(array, to_arrays(second)[name])


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


def new_flow(n_features, seed=3, spread=1.5):
    """A flow far from the identity: random parameters, larger than at the start of a training."""
    torch.manual_seed(seed)
    flow = Flow(n_features, FlowSettings(n_transforms=4, n_hidden=16))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(spread)
    scale = 10.0 ** torch.arange(n_features)
    flow.set_standardisation(100.0 + scale * torch.randn(500, n_features))
    return flow


def sampled(flow, n, seed=1):
    return flow.sample(n, generator=torch.Generator().manual_seed(seed))


def grid_of(flow, n, reach=8.0):
    """Midpoints of cells over +-reach standard deviations, (n, n_features) columns, and volume."""
    step = 2 * reach / n
    points = -reach + step * (torch.arange(n, dtype=torch.float64) + 0.5)
    axes = [m + s * points for m, s in zip(flow.feature_mean, flow.feature_scale, strict=True)]
    return axes, math.prod((step * flow.feature_scale).tolist())


class TestDensity:
    def test_integrates_to_one_in_one_dimension(self):
        flow = new_flow(1)
        (axis,), volume = grid_of(flow, 20_000)
        density = flow.log_prob(axis[:, None]).exp()
        # Beyond 8 standard deviations it is that of the normal base: 1e-15.
        assert (density.sum() * volume).item() == pytest.approx(1.0, abs=2e-4)
        assert density.max() > 1.05 * density[len(density) // 2]  # it is not a Gaussian

    def test_integrates_to_one_in_two_dimensions(self):
        flow = new_flow(2)
        axes, volume = grid_of(flow, 1200)
        total = 0.0
        with torch.no_grad():
            for chunk in axes[0].split(100):
                total += flow.log_prob(torch.cartesian_prod(chunk, axes[1])).exp().sum().item()
        assert total * volume == pytest.approx(1.0, abs=2e-3)

    def test_is_the_base_density_times_the_jacobian(self):
        # Against autograd: log |det d base / d features|, standardisation included.
        flow = new_flow(3)
        event = sampled(flow, 1)[0]

        def to_base(features):
            z = (features - flow.feature_mean) / flow.feature_scale
            return flow.network().transform(z.float()).double()

        jacobian = torch.autograd.functional.jacobian(to_base, event)
        base = to_base(event)
        expected = -0.5 * (base**2).sum() - 1.5 * math.log(2 * math.pi)
        expected += torch.linalg.slogdet(jacobian).logabsdet
        assert flow.log_prob(event[None]).item() == pytest.approx(expected.item(), abs=1e-3)

    def test_units_shift_the_log_density_by_their_logarithm(self):
        flow, other = new_flow(2), new_flow(2)
        other.feature_mean.mul_(1000.0)
        other.feature_scale.mul_(1000.0)
        events = sampled(flow, 50)
        difference = flow.log_prob(events) - other.log_prob(1000.0 * events)
        np.testing.assert_allclose(difference.detach(), 2 * math.log(1000.0), atol=1e-4)

    def test_a_mean_far_from_zero_costs_no_precision(self):
        torch.manual_seed(1)
        flow = Flow(1, QUICK)
        far = Flow(1, QUICK)
        far.load_state_dict(flow.state_dict())
        far.feature_mean.fill_(1e8)
        x = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
        np.testing.assert_allclose(
            flow.log_prob(x).detach(), far.log_prob(x + 1e8).detach(), atol=1e-5
        )

    def test_tails_are_finite(self):
        flow = new_flow(2)
        far = flow.feature_mean + 20 * BOUND * flow.feature_scale
        assert torch.isfinite(flow.log_prob(far[None])).all()


class TestSample:
    def test_follows_log_prob(self):
        flow = new_flow(2)
        n = 100_000
        events = sampled(flow, n)
        axes, volume = grid_of(flow, 1200)
        with torch.no_grad():
            density = torch.cat(
                [
                    flow.log_prob(torch.cartesian_prod(chunk, axes[1])).exp().reshape(-1, 1200)
                    for chunk in axes[0].split(100)
                ]
            )
        # A false alarm has probability 1e-6; 2e-3 for the midpoints of the cells.
        limit = kstwo.isf(1e-6, n) + 2e-3
        for column in range(2):
            marginal = density.sum(1 - column).cumsum(0) * volume
            half = (axes[column][1] - axes[column][0]) / 2
            cdf = np.interp(np.sort(events[:, column]), axes[column] + half, marginal)
            distance = np.abs(cdf - (np.arange(n) + 0.5) / n).max()
            assert distance < limit, column

    def test_same_generator_same_events(self):
        flow = new_flow(2)
        assert torch.equal(sampled(flow, 5000), sampled(flow, 5000))
        assert not torch.equal(sampled(flow, 50), sampled(flow, 50, seed=2))

    def test_chunks_do_not_show(self, monkeypatch):
        flow = new_flow(2)
        whole = sampled(flow, 1000)
        monkeypatch.setattr("genamp_lib.networks.spline_flow._CHUNK", 137)
        np.testing.assert_allclose(whole, sampled(flow, 1000), rtol=1e-5, atol=1e-5)

    def test_leaves_global_randomness_alone(self):
        flow = new_flow(2)
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        sampled(flow, 100)
        assert torch.equal(torch.rand(3), expected)

    def test_numbers_of_events(self):
        flow = new_flow(2)
        assert sampled(flow, 0).shape == (0, 2)
        with pytest.raises(ValueError, match="`n_generated` must not be negative, got -1"):
            sampled(flow, -1)


class TestNetwork:
    @pytest.mark.parametrize("n_features", [1, 2, 3, 4])
    def test_gradients_reach_every_parameter(self, n_features):
        flow = new_flow(n_features)
        flow.log_prob(sampled(flow, 200)).square().sum().backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0.0, name


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

    def test_keeps_the_best_validation_epoch(self):
        # Few events, many parameters: the flow overfits after some epochs.
        train = gaussian(4, n=100)
        settings = FlowSettings(n_epochs=60, batch_size=20, learning_rate=1e-2)
        fit = fit_flow(train, settings=settings, seed=1)
        assert fit.validation_loss.argmin() < 50
        _, validation = split_events(100, validation_fraction=0.2, seed=1)
        with torch.no_grad():
            loss = -fit.flow.log_prob(torch.from_numpy(train[validation])).mean().item()
        assert loss == pytest.approx(fit.validation_loss.min(), rel=1e-6)
        assert loss < fit.validation_loss[-1] - 0.1

    def test_runaway_loss(self):
        settings = dataclasses.replace(QUICK, learning_rate=1e30, n_epochs=9)
        with pytest.raises(GenampError, match=r"loss must be finite, .* lower `learning_rate`"):
            fit_flow(gaussian(1), settings=settings, seed=1)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda x: x[:, 0], r"`train` must be \(n_events, n_features\), got shape \(200,\)"),
            (lambda x: x[:, :0], r"must be \(n_events, n_features\), got shape \(200, 0\)"),
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

    def test_processes_give_identical_parameters(self, monkeypatch):
        one = fit_flows(gaussian(1), n_members=3, settings=QUICK, seed=1)
        monkeypatch.setenv("GENAMP_JOBS", "2")
        monkeypatch.setattr(spline_flow, "fit_flow", None)  # not in this process
        assert_same(one, fit_flows(gaussian(1), n_members=3, settings=QUICK, seed=1))

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
        arrays = to_arrays(fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1))
        spoil(arrays)
        with pytest.raises(GenampError, match=rf"stored flow: .* got .*{message}.*; rerun"):
            _from_arrays(arrays, QUICK)

    def test_other_settings(self):
        arrays = to_arrays(fit_flows(gaussian(1), n_members=1, settings=QUICK, seed=1))
        with pytest.raises(GenampError, match=r"stored flow: must have the arrays of .*=9"):
            _from_arrays(arrays, dataclasses.replace(QUICK, n_hidden=9))

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


RUN = """
import sys
from pathlib import Path
import numpy as np
from genamp_lib.store import ArtefactStore, Stage, stacked
from genamp_lib.networks.spline_flow import FlowSettings, fit_flows
folder = Path(sys.argv[1])
store = ArtefactStore(published=folder / "published", local=folder / "local", fresh=False)
fit_flows(
    np.random.default_rng(1).normal(size=(400, 2)), n_members=4, seed=1,
    settings=FlowSettings(n_transforms=2, n_epochs=25, batch_size=40), store=store,
    stage=Stage("killed", version=1, configuration={}),
)
"""


class TestKill:
    def test_a_killed_run_continues_with_its_members(self, tmp_path, monkeypatch):
        command = [sys.executable, "-c", RUN, str(tmp_path)]
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 120
        while not list((tmp_path / "local").glob("killed-*-unfinished/*.json")):
            assert process.poll() is None, "it ended before a member was kept"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(list((tmp_path / "local").glob("killed-*-unfinished/*.json")))
        assert 1 <= kept < 4

        trained = []
        real = spline_flow.fit_flow
        monkeypatch.setattr(
            spline_flow, "fit_flow", lambda *a, **k: trained.append(1) or real(*a, **k)
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
        assert not list((tmp_path / "local").glob("*unfinished"))
