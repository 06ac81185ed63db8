"""The posterior of a flow: its divergence, how it shrinks with events, its draws, its collapse."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from genamp_lib._project import GenampError
from genamp_lib.networks import bayesian_flow
from genamp_lib.networks.bayesian_flow import (
    PosteriorSettings,
    fit_posterior,
    fitted_posteriors,
    posterior_from_arrays,
    relative_spread,
)
from genamp_lib.networks.conditional_flow import (
    ConditionalFlowSettings,
    FlowTask,
    fit_conditional_flow,
    generate_given,
    log_density,
)
from genamp_lib.store import ArtefactStore, Stage

FLOW = ConditionalFlowSettings(
    n_transforms=1, n_layers=1, n_hidden=8, n_bins=6, n_epochs=30, batch_size=128
)
QUICK = PosteriorSettings(n_steps=20, batch_size=32)
STAGE = Stage("test-posterior", version=1, configuration={"events": "gaussian"})


def events(n=400, seed=1):
    """Three features of each event are Gaussian; the first two are what the third is given."""
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x[:, :2], x[:, 2:]


@pytest.fixture(scope="module")
def flow():
    return fit_conditional_flow(*events(), settings=FLOW, seed=1).flow


def weights(flow):
    return {name: parameter.detach().clone() for name, parameter in flow.named_parameters()}


class TestFit:
    def test_the_spread_shrinks_with_events_as_that_of_counts(self):
        # A fitted density of few bins, one feature. Each weight has an error of its own, so that
        # a bin's spread is not the binomial one: within a factor of five, and as n ** -0.5.
        spreads = {}
        for n in (400, 6400):
            x = np.random.default_rng(n).normal(size=(n, 1))
            flow_settings = replace(FLOW, n_epochs=24_000 // n, learning_rate=5e-3)
            fitted = fit_conditional_flow(x, settings=flow_settings, seed=1).flow
            settings = PosteriorSettings(n_steps=500, batch_size=128)
            posterior = fit_posterior(fitted, x, settings=settings, seed=1)
            axis = np.linspace(-0.5, 0.5, 101)[:, None]
            densities = np.exp(posterior.log_density(axis, n_draws=60, seed=1))
            fraction = densities.mean(1)  # of events between -0.5 and 0.5
            binomial = np.sqrt(fraction.mean() * (1 - fraction.mean()) / n)
            assert 0.5 < fraction.std() / binomial < 5.0
            assert fraction.mean() == pytest.approx(0.383, abs=0.06)
            assert posterior.flaw(np.log(densities)) is None
            spreads[n] = fraction.std()
        assert 2.0 < spreads[400] / spreads[6400] < 8.0  # the square root of 16 is 4

    def test_the_divergence_and_its_gradients(self, flow):
        # Against the closed form, with the number of events in the loss: with variances that hide
        # the data, the loss is that of the mean flow plus divergence / n.
        settings = replace(QUICK, layers="all", log_variance=-17.0, n_steps=1, batch_size=5000)
        settings = replace(settings, mean_rate=1e-30)
        posterior = fit_posterior(flow, *events(), settings=settings, seed=1)
        means = torch.cat([tensor.flatten() for tensor in posterior.model.means.values()])
        log_variance = -17.0 / np.sqrt(1 + (17 / 18) ** 2)  # clipped softly
        terms = np.exp(log_variance) + means.square() - 1 - log_variance
        divergence = posterior.model.kl_divergence()
        # The logarithms at the start scatter by 1e-3, and one step moved them by 1e-3.
        assert divergence.item() == pytest.approx(0.5 * terms.sum().item(), rel=1e-3)
        expected = divergence.item() / 400 - log_density(flow, *events()).mean()
        assert posterior.loss[0] == pytest.approx(expected, abs=0.1)
        divergence.backward()
        gradients = torch.cat([t.grad.flatten() for t in posterior.model.means.values()])
        assert torch.allclose(gradients, means)

    @pytest.mark.parametrize("layers", ["last", "all"])
    @pytest.mark.parametrize("mean_rate", [0.0, 1e-2])
    def test_what_is_trained(self, flow, layers, mean_rate):
        settings = replace(QUICK, layers=layers, mean_rate=mean_rate)
        posterior = fit_posterior(flow, *events(), settings=settings, seed=1)
        for which, expected in ((posterior.mean_flow, bool(mean_rate)), (posterior.draw(1), True)):
            fitted, other = weights(flow), weights(which)
            changed = {name for name in fitted if not torch.equal(fitted[name], other[name])}
            last = {"blocks.0.network.2.weight", "blocks.0.network.2.bias"}
            assert changed == ((set(fitted) if layers == "all" else last) if expected else set())

    def test_a_killed_training_ends_with_the_same_bits(self, flow, tmp_path, monkeypatch):
        settings = replace(QUICK, mean_rate=1e-2)
        whole = fit_posterior(flow, *events(), settings=settings, seed=1).arrays()
        by_steps = bayesian_flow.fit_by_steps
        for stop_at in (13, None):
            monkeypatch.setattr(
                bayesian_flow,
                "fit_by_steps",
                lambda *args, stop_at=stop_at, **kwargs: by_steps(*args, stop_at=stop_at, **kwargs),
            )
            continued = fit_posterior(
                flow, *events(), settings=settings, seed=1, checkpoint=tmp_path / "state"
            ).arrays()
        for name, array in whole.items():
            np.testing.assert_array_equal(array, continued[name])
        with pytest.raises(GenampError, match="is of another task; remove it"):
            fit_posterior(flow, *events(), settings=settings, seed=2, checkpoint=tmp_path / "state")

    def test_bad_input(self, flow):
        with pytest.raises(ValueError, match=r"`conditions` must be \(400, 1\), got \(400, 0\)"):
            fit_posterior(flow, events()[0], settings=QUICK, seed=1)
        runaway = replace(QUICK, mean_rate=1e30)
        with pytest.raises(GenampError, match="posterior: the loss must be finite"):
            fit_posterior(flow, *events(), settings=runaway, seed=1)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("layers", "first", "`layers` must be last or all, got 'first'"),
            ("mean_rate", -1.0, "`mean_rate` must not be negative, got -1.0"),
            ("n_steps", 0, "`n_steps` must be positive, got 0"),
        ],
    )
    def test_settings(self, field, value, message):
        with pytest.raises(ValueError, match=message):
            replace(QUICK, **{field: value})


class TestDraws:
    def test_follow_their_seeds(self, flow):
        posterior = fit_posterior(flow, *events(), settings=QUICK, seed=1)
        torch.manual_seed(5)
        expected = torch.rand(2)
        torch.manual_seed(5)
        logs = posterior.log_density(*events(n=20), n_draws=3, seed=1)
        assert torch.equal(torch.rand(2), expected)
        assert logs.shape == (3, 20)
        again = posterior.log_density(*events(n=20), n_draws=2, seed=1)
        np.testing.assert_array_equal(logs[:2], again)
        assert len(np.unique(logs[:, 0])) == 3
        other = posterior.log_density(*events(n=20), n_draws=2, seed=2)
        assert not np.isclose(logs[:2], other).all(axis=1).any()

    def test_relative_spread(self):
        densities = np.array([[1.0, 2.0, 5.0], [3.0, 2.0, 5.0]])
        shifted = np.log(densities) - 1000.0  # densities themselves are zero in float64
        np.testing.assert_allclose(relative_spread(shifted), [2**0.5 / 2, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("log_variance", "spread", "message"),
    [
        (-9.1, 0.1, r"variances are those at the start .* raise `variance_rate`"),
        (-0.2, 0.1, "100% of the variances are those of the prior; use more events"),
        (-5.0, 1e-5, r"all draws have the same density \(median sigma/mu 1e-05\)"),
        (-5.0, 0.1, None),
    ],
)
def test_a_collapsed_posterior_is_named(flow, log_variance, spread, message):
    posterior = fit_posterior(flow, *events(), settings=replace(QUICK, n_steps=1), seed=1)
    with torch.no_grad():
        for tensor in posterior.model.logvars.values():
            tensor.fill_(log_variance)
    found = posterior.flaw(np.log(1 + spread * np.array([[-1], [0], [1]]) * np.ones(5)))
    assert found is None if message is None else re.search(message, found)


@pytest.mark.parametrize(("half", "mean_rate"), [(False, 0.0), (True, 1e-2)])
def test_a_kept_posterior_is_read_without_its_events(tmp_path, half, mean_rate):
    store = ArtefactStore(published=tmp_path / "a", local=tmp_path / "b", fresh=False)
    flow_settings = replace(FLOW, half=half, n_epochs=2)
    flow = fit_conditional_flow(*events(), settings=flow_settings, seed=1).flow
    options = {"settings": replace(QUICK, mean_rate=mean_rate), "seed": 1, "store": store}
    tasks = [FlowTask(STAGE, own, flow_settings, 1) for own in (events, None)]
    made, read = (fitted_posteriors([task], [flow], **options)[0] for task in tasks)
    assert [use["origin"] for use in store.used] == ["computed", "local"]
    direct = fit_posterior(flow, *events(), settings=options["settings"], seed=1)
    for one in (read, direct):
        for draw, other in ((made.draw(3), one.draw(3)), (made.mean_flow, one.mean_flow)):
            assert all(torch.equal(w, weights(other)[name]) for name, w in weights(draw).items())
    given = np.zeros((5, 1))
    assert np.isfinite(generate_given(read.draw(1), given, seed=1)).all()
    arrays = made.arrays()
    assert any(name.startswith("means.") for name in arrays) == bool(mean_rate)
    arrays.pop(next(name for name in arrays if name.startswith("logvars.")))
    with pytest.raises(GenampError, match="stored posterior: must have the arrays of this flow"):
        posterior_from_arrays(arrays, flow, options["settings"])
