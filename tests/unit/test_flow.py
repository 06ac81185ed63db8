"""The neural spline flow: a normalised density, its samples, its parameters."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstwo

from genamp_lib.networks.spline_flow import BOUND, Flow


def new_flow(n_features, seed=3, spread=1.5, **sizes):
    """A flow far from the identity: random parameters, larger than at the start of a training."""
    torch.manual_seed(seed)
    flow = Flow(n_features, **({"n_transforms": 4, "n_hidden": 16, "n_bins": 5} | sizes))
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
        flow = Flow(1, n_transforms=2, n_hidden=4, n_bins=4)
        far = Flow(1, n_transforms=2, n_hidden=4, n_bins=4)
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

    def test_standardisation_is_in_the_state_and_not_trained(self):
        flow = new_flow(2)
        assert {"feature_mean", "feature_scale"} <= set(flow.state_dict())
        assert not any("feature" in name for name, _ in flow.named_parameters())

    def test_constant_feature(self):
        features = torch.randn(10, 3)
        features[:, 1] = 0.1
        with pytest.raises(ValueError, match=r"`features` must vary, .* column\(s\) \[1\]; drop"):
            new_flow(3).set_standardisation(features)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"n_features": 0}, "`n_features` must be at least 1, got 0"),
            ({"n_transforms": 0}, "`n_transforms` must be at least 1, got 0"),
            ({"n_hidden": -1}, "`n_hidden` must be at least 1, got -1"),
            ({"n_bins": 1}, "`n_bins` must be at least 2, got 1"),
        ],
    )
    def test_sizes(self, sizes, message):
        arguments = {"n_features": 2, "n_transforms": 2, "n_hidden": 4, "n_bins": 4} | sizes
        n_features = arguments.pop("n_features")
        with pytest.raises(ValueError, match=message):
            Flow(n_features, **arguments)
