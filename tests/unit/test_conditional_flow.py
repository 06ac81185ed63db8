"""Conditional spline flows: inverse, Jacobian, normalisation, what a fit learns, how it is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import kstwo, norm

from genamp_lib._project import GenampError
from genamp_lib.networks import conditional_flow
from genamp_lib.networks.conditional_flow import (
    ConditionalFlow,
    ConditionalFlowSettings,
    FlowTask,
    _Bin,
    fit_conditional_flow,
    fitted_conditional_flows,
    flow_from_arrays,
    generate_given,
    log_density,
)
from genamp_lib.networks.fitting import fit_to_arrays
from genamp_lib.store import ArtefactStore, Stage

QUICK = ConditionalFlowSettings(
    n_transforms=2, n_layers=1, n_hidden=8, n_bins=4, n_epochs=3, batch_size=64
)
SIZES = [(1, 0), (1, 2), (2, 0), (3, 1), (9, 2), (40, 1)]


def events(seed=1, n=300):
    """One condition c and two features: N(c, 1) in units of 1e3, and N(first, 0.1) near 1e4."""
    rng = np.random.default_rng(seed)
    conditions = rng.uniform(-2, 2, (n, 1))
    first = rng.normal(conditions[:, 0])
    return np.column_stack([1e3 * first, 1e4 + rng.normal(first, 0.1)]), conditions


def new_flow(n_features, n_conditions, *, whitening=False, seed=3):
    """A flow far from the identity, in units far from one."""
    torch.manual_seed(seed)
    settings = ConditionalFlowSettings(n_transforms=4, whitening=whitening)
    flow = ConditionalFlow(n_features, n_conditions, settings)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.5)
    mixed = torch.randn(500, n_features).double() @ torch.randn(n_features, n_features).double()
    conditions = 7 + 3 * torch.randn(500, n_conditions).double()
    flow.set_standardisation(100 + mixed * 10.0 ** (torch.arange(n_features) % 5), conditions)
    return flow, conditions


def sampled(flow, conditions, seed=1):
    return flow.sample(conditions, generator=torch.Generator().manual_seed(seed))


def to_base(flow, features, conditions):
    """Standardised features (n, n_features) after all blocks, and the sum of log-determinants."""
    x, given = (part.mT for part in flow.standardised(features, conditions))
    total = 0.0
    for block in flow.blocks:
        x, own = block(x, given)
        total = total + own
    return x.mT, total


@pytest.mark.parametrize("whitening", [False, True])
@pytest.mark.parametrize(("n_features", "n_conditions"), SIZES)
class TestTransformation:
    @torch.no_grad()
    def test_samples_lead_back_to_their_base(self, n_features, n_conditions, whitening):
        flow, conditions = new_flow(n_features, n_conditions, whitening=whitening)
        base = torch.randn(500, n_features, generator=torch.Generator().manual_seed(1))
        back, _ = to_base(flow, sampled(flow, conditions), conditions)
        np.testing.assert_allclose(back, base, atol=1e-4)
        assert (
            base - flow.standardised(sampled(flow, conditions), conditions)[0]
        ).abs().max() > 0.3

    def test_density_is_that_of_the_base_times_the_jacobian(
        self, n_features, n_conditions, whitening
    ):
        flow, conditions = new_flow(n_features, n_conditions, whitening=whitening)
        event, given = sampled(flow, conditions)[:1], conditions[:1]
        jacobian = torch.autograd.functional.jacobian(
            lambda x: to_base(flow, x[None], given)[0][0].double(), event[0]
        )
        base = to_base(flow, event, given)[0].double()
        expected = -0.5 * base.square().sum() - 0.5 * n_features * math.log(2 * math.pi)
        expected += torch.linalg.slogdet(jacobian).logabsdet
        ours = flow.log_prob(event, given).item()
        assert ours == pytest.approx(expected.item(), abs=2e-3)


def test_the_gradient_that_is_written_out():
    raw = torch.randn(29, 3, 4, dtype=torch.float64, requires_grad=True)
    u = torch.rand(3, 4, dtype=torch.float64)
    for side in (0, 1):
        assert torch.autograd.gradcheck(lambda raw, side=side: _Bin.apply(raw, u, side), raw)


def test_gradients_reach_every_parameter():
    flow, conditions = new_flow(3, 1)
    flow.log_prob(sampled(flow, conditions), conditions).square().sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad.abs().max() > 0.0, name


class TestDensity:
    @pytest.mark.parametrize("given", [4.0, 11.0])
    def test_integrates_to_one_in_one_dimension(self, given):
        flow, _ = new_flow(1, 1)
        axis = torch.linspace(-8, 8, 20_001).double()[:, None] * flow.feature_scale
        density = np.exp(log_density(flow, axis + flow.feature_mean, np.full((20_001, 1), given)))
        assert np.trapezoid(density, axis[:, 0]) == pytest.approx(1.0, abs=2e-4)
        reach = norm.pdf(0.0, scale=flow.feature_scale.item())
        assert density.max() > 1.05 * reach  # it is not a Gaussian

    @pytest.mark.parametrize("whitening", [False, True])
    def test_integrates_to_one_in_two_dimensions(self, whitening):
        flow, _ = new_flow(2, 1, whitening=whitening)
        points = torch.linspace(-8, 8, 401).double()
        scaled = torch.cartesian_prod(points, points)
        if whitening:  # the grid is turned with the features, and covers the same in the base
            scaled = scaled @ torch.linalg.inv(flow.whitening)
        values = scaled * flow.feature_scale + flow.feature_mean
        density = np.exp(log_density(flow, values, np.full((len(values), 1), 9.0)))
        cell = 0.04**2 * flow.feature_scale.prod().item()
        if whitening:
            cell /= torch.linalg.det(flow.whitening).abs().item()
        assert density.sum() * cell == pytest.approx(1.0, abs=2e-3)

    def test_far_from_all_training_events_it_is_finite(self):
        flow, conditions = new_flow(2, 1)
        far = flow.feature_mean + 100 * flow.feature_scale
        assert np.isfinite(log_density(flow, far[None], conditions[:1] * 100)).all()


class TestSample:
    def test_follows_the_density(self):
        flow, _ = new_flow(1, 1)
        n, given = 50_000, 9.0
        values = np.sort(generate_given(flow, np.full((n, 1), given), seed=1)[:, 0])
        axis = np.linspace(-8, 8, 20_001) * flow.feature_scale.item() + flow.feature_mean.item()
        density = np.exp(log_density(flow, axis[:, None], np.full((len(axis), 1), given)))
        cdf = np.interp(values, axis, np.cumsum(density) * (axis[1] - axis[0]))
        # A false alarm has probability 1e-6; 1e-3 for the integral on the grid.
        assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < kstwo.isf(1e-6, n) + 1e-3

    def test_same_generator_same_events_whatever_the_chunks(self, monkeypatch):
        flow, conditions = new_flow(3, 1)
        whole = sampled(flow, conditions)
        assert torch.equal(whole, sampled(flow, conditions))
        assert not torch.equal(whole, sampled(flow, conditions, seed=2))
        monkeypatch.setattr(conditional_flow, "_CHUNK", 137)
        np.testing.assert_allclose(whole, sampled(flow, conditions), rtol=1e-4)

    def test_numbers_of_events(self):
        flow, _ = new_flow(2, 0)
        assert generate_given(flow, np.empty((7, 0)), seed=1).shape == (7, 2)
        assert generate_given(flow, np.empty((0, 0)), seed=1).shape == (0, 2)


class TestFit:
    @pytest.mark.parametrize("whitening", [False, True])
    def test_learns_a_conditional_gaussian(self, whitening):
        settings = replace(QUICK, n_epochs=15, n_hidden=32, learning_rate=1e-2, whitening=whitening)
        fit = fit_conditional_flow(*events(n=4000), settings=settings, seed=1)
        features, conditions = events(seed=2, n=4000)
        ours = log_density(fit.flow, features, conditions)
        first, second = features[:, 0] / 1e3, features[:, 1] - 1e4
        truth = norm.logpdf(first, conditions[:, 0]) + norm.logpdf(second, first, 0.1)
        # Kullback-Leibler divergence; a Gaussian without correlations would have 2.6.
        assert (truth - math.log(1e3) - ours).mean() < 0.1
        for given in (-1.5, 0.0, 1.5):
            made = generate_given(fit.flow, np.full((4000, 1), given), seed=1)[:, 0] / 1e3
            # A small network after 900 steps; the statistical error of both is 0.02.
            assert made.mean() == pytest.approx(given, abs=0.2)
            assert made.std() == pytest.approx(1.0, abs=0.15)

    def test_the_best_epoch_is_kept(self):
        features, conditions = events(n=100)
        settings = replace(QUICK, n_epochs=60, n_hidden=64, learning_rate=2e-2, batch_size=20)
        fit = fit_conditional_flow(features, conditions, settings=settings, seed=1)
        _, part = conditional_flow.split_events(100, validation_fraction=0.1, seed=1)
        loss = -log_density(fit.flow, features[part], conditions[part]).mean()
        assert loss == pytest.approx(fit.validation_loss.min(), abs=1e-4)
        assert loss < fit.validation_loss[-1] - 0.1

    def test_same_seed_same_numbers(self):
        fits = [fit_conditional_flow(*events(), settings=QUICK, seed=s) for s in (1, 1, 2)]
        first, second, other = (fit_to_arrays(fit.flow, fit) for fit in fits)
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name])
        assert not np.array_equal(first["train_loss"], other["train_loss"])

    def test_runaway_loss(self):
        settings = replace(QUICK, learning_rate=1e30, n_epochs=9)
        with pytest.raises(GenampError, match=r"conditional flow: the loss must be finite, .*"):
            fit_conditional_flow(*events(), settings=settings, seed=1)


class Stopped(Exception):
    """A kill."""


class TestKept:
    def test_a_killed_training_ends_with_the_same_bits(self, tmp_path, monkeypatch):
        whole = fit_conditional_flow(*events(), settings=QUICK, seed=1)
        by_epochs = conditional_flow.fit_by_epochs

        def stopped(epoch):
            if epoch == 2:
                raise Stopped

        options = {"settings": QUICK, "seed": 1, "checkpoint": tmp_path / "state"}
        monkeypatch.setattr(conditional_flow, "fit_by_epochs", partial(by_epochs, watch=stopped))
        with pytest.raises(Stopped):
            fit_conditional_flow(*events(), **options)
        monkeypatch.setattr(conditional_flow, "fit_by_epochs", by_epochs)
        continued = fit_conditional_flow(*events(), **options)
        for name, array in fit_to_arrays(whole.flow, whole).items():
            np.testing.assert_array_equal(array, fit_to_arrays(continued.flow, continued)[name])
        with pytest.raises(GenampError, match="is of another task; remove it"):
            fit_conditional_flow(*events(seed=2), **options)

    @pytest.mark.parametrize(("half", "whitening"), [(False, True), (True, False)])
    def test_a_kept_flow_is_read_without_its_events(self, tmp_path, half, whitening):
        store = ArtefactStore(published=tmp_path / "a", local=tmp_path / "b", fresh=False)
        settings = replace(QUICK, half=half, whitening=whitening)
        stage = Stage("test-flow", version=1, configuration={"events": "gaussian"})
        (made,) = fitted_conditional_flows([FlowTask(stage, events, settings, 1)], store=store)
        (read,) = fitted_conditional_flows([FlowTask(stage, None, settings, 1)], store=store)
        assert [use["origin"] for use in store.used] == ["computed", "local"]
        assert len(list(store.local.iterdir())) == 2
        direct = fit_conditional_flow(*events(), settings=settings, seed=1)
        for one in (read, direct):
            for function in (log_density, lambda flow, _, c: generate_given(flow, c, seed=3)):
                np.testing.assert_array_equal(
                    function(made.flow, *events(seed=5)), function(one.flow, *events(seed=5))
                )
        dtypes = {array.dtype.name for array in fit_to_arrays(made.flow, made).values()}
        assert dtypes == {"float16" if half else "float32", "float64"}

    def test_other_settings(self):
        fit = fit_conditional_flow(*events(), settings=QUICK, seed=1)
        arrays = fit_to_arrays(fit.flow, fit)
        with pytest.raises(GenampError, match=r"stored flow: must have the arrays of .*=9"):
            flow_from_arrays(arrays, replace(QUICK, n_hidden=9))
        arrays.pop("condition_mean")
        with pytest.raises(GenampError, match=r"stored flow: .* got 'condition_mean'; rerun"):
            flow_from_arrays(arrays, QUICK)


class TestBadInput:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda x, c: (x[:, 0], c), r"`features` must be \(n_events, n_features\), got shape"),
            (lambda x, c: (x[:49], c[:49]), "`features` must hold at least 50 events, got 49"),
            (
                lambda x, c: (np.where(x > 1e4, np.nan, x), c),
                r"`features` must be finite, got NaN or infinity in column\(s\) \[1\]",
            ),
            (lambda x, c: (x * [1, 0], c), "got 1 different values for 300 events in column 1"),
            (
                lambda x, c: (x, c[:, 0]),
                r"`conditions` must be \(300, n_conditions\), got \(300,\)",
            ),
            (lambda x, c: (x, c[:7]), r"`conditions` must be \(300, n_conditions\), got \(7, 1\)"),
            (lambda x, c: (x, c / 0), "`conditions` must be finite, got NaN or infinity in column"),
            (lambda x, c: (x, 0 * c), r"`conditions` must vary, .* column\(s\) \[0\]; drop them"),
            (
                lambda x, c: (np.column_stack([x, x[:, 0] + x[:, 1]]), c),
                "`features` must not depend on each other linearly for `whitening`, got",
            ),
        ],
    )
    def test_training_events(self, spoil, message):
        with np.errstate(divide="ignore"):
            spoilt = spoil(*events())
        with pytest.raises(ValueError, match=message):
            fit_conditional_flow(*spoilt, settings=replace(QUICK, whitening=True), seed=1)

    def test_events_of_another_shape(self):
        flow, conditions = new_flow(2, 1)
        with pytest.raises(ValueError, match=r"`features` must be \(5, 2\), got \(5, 3\)"):
            log_density(flow, np.zeros((5, 3)), np.zeros((5, 1)))
        with pytest.raises(ValueError, match=r"`conditions` must be \(5, 1\), got \(5, 0\)"):
            log_density(flow, np.zeros((5, 2)))
        with pytest.raises(ValueError, match=r"`conditions` must be \(500, 1\), got \(500, 2\)"):
            generate_given(flow, conditions.repeat(1, 2), seed=1)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("n_transforms", 0, "`n_transforms` must be positive, got 0"),
            ("n_bins", 1, "`n_bins` must be from 2 to 100, got 1"),
            ("bound", 0.0, "`bound` must be positive"),
            ("validation_fraction", 1.0, "`validation_fraction` must be between 0 and 1, got 1.0"),
        ],
    )
    def test_settings(self, field, value, message):
        with pytest.raises(ValueError, match=message):
            replace(QUICK, **{field: value})
