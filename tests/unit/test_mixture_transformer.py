"""The contract of every density model, and the transformer against plain implementations of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import zuko.bayesian
from scipy.stats import kstest, kstwo
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from genamp_lib.datasets import radius
from genamp_lib.networks.mixture.density import Mixture
from genamp_lib.networks.mixture.posterior import GaussianPosterior, PosteriorSettings
from genamp_lib.networks.mixture.transformer import (
    MixtureTransformer,
    MixtureTransformerSettings,
    starting_parameters,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ensemble(n_features: int = 2, n_members: int = 3, spread: float = 0.05) -> MixtureTransformer:
    """Networks off their starting point, where features depend on each other."""
    settings = MixtureTransformerSettings.for_ring(n_features)
    parameters = starting_parameters(settings, seeds=range(n_members))
    parameters += spread * torch.randn(parameters.shape, generator=seeded(1))
    return MixtureTransformer(settings, parameters)


def posterior_draws(n_features: int = 2) -> MixtureTransformer:
    mean = ensemble(n_features, n_members=2)
    log_variances = torch.full((2, mean.settings.n_last_layer), -4.0)
    posterior = GaussianPosterior(mean.settings, mean.parameters, log_variances)
    return posterior.draw(2, generator=seeded(2))


MODELS = {
    "2 features": ensemble,
    "4 features": lambda: ensemble(4),
    "posterior draws": posterior_draws,
    "4 features, posterior draws": lambda: posterior_draws(4),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> MixtureTransformer:
    return MODELS[request.param]()


class TestContract:
    def test_shapes(self, model: MixtureTransformer) -> None:
        members, features = model.n_members, model.settings.n_features
        events = model.sample(7, generator=seeded(1))
        assert events.shape == (members, 7, features)
        assert model.log_prob(events).shape == (members, 7)
        assert model.log_prob(events[0]).shape == (members, 7)
        assert events.dtype == model.log_prob(events).dtype == torch.float32
        assert model.sample(0, generator=seeded(1)).shape == (members, 0, features)

    def test_same_seed_same_numbers(self, model: MixtureTransformer) -> None:
        first, again, other = (model.sample(9, generator=seeded(s)) for s in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_gradients_reach_every_parameter(self, model: MixtureTransformer) -> None:
        events = model.sample(200, generator=seeded(5))
        parameters = model.parameters.clone().requires_grad_()
        MixtureTransformer(model.settings, parameters).log_prob(events).sum().backward()
        assert parameters.grad is not None
        assert (parameters.grad != 0.0).all()

    def test_members_at_once_are_members_one_by_one(self, model: MixtureTransformer) -> None:
        events = model.sample(50, generator=seeded(6))
        together = model.log_prob(events)
        for i in range(model.n_members):
            alone = model.members(i).log_prob(events[i])
            torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(model.members([2, 0]).log_prob(events[1]), together_at(model, 1))

    def test_parts_of_many_events_are_as_all(self, model: MixtureTransformer) -> None:
        events = model.sample(2 * model.chunk() + 5, generator=seeded(7))
        all_at_once = model.log_prob(events)
        torch.testing.assert_close(model.log_prob(events[:, -9:]), all_at_once[:, -9:])

    def test_a_feature_does_not_depend_on_later_ones(self, model: MixtureTransformer) -> None:
        """p(x_1 ... x_(d-1)) follows by integrating the density over x_d, whatever it is."""
        events = model.sample(20, generator=seeded(8))
        grid = torch.linspace(-15, 15, 3001)
        rows = events[:, :, None, :].repeat(1, 1, len(grid), 1)
        rows[..., -1] = grid
        log_prob = model.log_prob(rows.flatten(1, 2)).reshape(*rows.shape[:3])
        marginal = torch.trapezoid(log_prob.double().exp(), grid.double(), dim=-1)
        shorter = decode(model, events[..., :-1])
        torch.testing.assert_close(marginal.log(), shorter.double(), rtol=0, atol=1e-3)


def together_at(model: MixtureTransformer, i: int) -> torch.Tensor:
    events = model.sample(50, generator=seeded(6))[i]
    return torch.cat([model.members(m).log_prob(events) for m in (2, 0)])


def decode(model: MixtureTransformer, features: torch.Tensor) -> torch.Tensor:
    """Log density of the first features only."""
    decoder, previous, total = model.decoder(), None, torch.zeros(())
    for i in range(features.shape[-1]):
        total = total + decoder(previous).log_prob(features[..., i])
        previous = features[..., i]
    return total


@pytest.mark.parametrize("make", [ensemble, posterior_draws])
def test_density_integrates_to_one_and_samples_follow_it(make) -> None:
    model = make()
    grid = torch.linspace(-9, 9, 1201)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = model.log_prob(points).double().exp() * (grid[1] - grid[0]).double() ** 2
    torch.testing.assert_close(
        density.sum(1), torch.ones(model.n_members).double(), rtol=0, atol=2e-4
    )

    # Radii of samples against the sums of the density over circles. Grid cells on a circle's rim
    # put 2e-3 on the distribution function; a false alarm has a probability of 1e-6 per member.
    radii = radius(points.numpy())
    order = np.argsort(radii)
    for member, events in enumerate(model.sample(20_000, generator=seeded(9))):
        cumulative = np.cumsum(density[member].numpy()[order])
        sampled = radius(events.numpy())
        limit = kstwo.isf(1e-6, len(sampled)) + 2e-3

        def cdf(r: np.ndarray, cumulative: np.ndarray = cumulative) -> np.ndarray:
            return np.interp(r, radii[order], cumulative)

        assert kstest(sampled, cdf).statistic < limit
        assert kstest(sampled * 1.1, cdf).statistic > limit


def peer_of(output: torch.Tensor) -> MixtureSameFamily:
    logits, means, logarithms = (block.mT for block in output.chunk(3, 1))
    return MixtureSameFamily(Categorical(logits=logits), Normal(means, logarithms.exp() + 0.01))


class TestAgainstPlainImplementations:
    def test_mixture_is_torch_s(self) -> None:
        output = 0.7 * torch.randn(2, 15, 40, generator=seeded(1))
        values = torch.randn(2, 40, generator=seeded(2))
        mixture, peer = Mixture(output, min_sigma=0.01), peer_of(output)
        torch.testing.assert_close(mixture.log_prob(values), peer.log_prob(values))

    def test_one_uniform_number_per_value_is_enough(self) -> None:
        """Evenly spaced numbers become values whose distribution function is even again."""
        output = torch.randn(1, 15, 1, generator=seeded(3))
        mixture = Mixture(output, min_sigma=0.01)
        uniforms = (torch.arange(4000) + 0.5)[None] / 4000
        values = mixture.sample(uniforms).sort().values
        torch.testing.assert_close(peer_of(output).cdf(values), uniforms, rtol=0, atol=2e-3)

    def test_log_prob_is_that_of_a_masked_transformer_without_cache(self) -> None:
        model = ensemble(4, n_members=2)
        events = model.sample(30, generator=seeded(4))
        for member in range(2):
            wanted = plain_log_prob(model.members(member), events[member])
            torch.testing.assert_close(model.log_prob(events)[member], wanted, rtol=1e-4, atol=1e-4)

    def test_divergence_is_zuko_s(self) -> None:
        base = torch.nn.Linear(3, 4)
        peer = zuko.bayesian.BayesianModel(base, init_logvar=-0.3)
        settings = MixtureTransformerSettings(2)
        means = torch.zeros(1, settings.n_parameters)
        order = list(peer.means)
        means[0, -16:] = torch.cat([peer.means[key].detach().flatten() for key in order])
        log_variances = torch.cat([peer.logvars[key].detach().flatten() for key in order])[None]
        posterior = GaussianPosterior(settings, means, log_variances)
        # zuko bends log-variances of this size by less than 1e-4.
        for sigma in (1.0, 0.3):
            wanted = peer.kl_divergence(sigma**2).detach()
            torch.testing.assert_close(posterior.divergence(sigma)[0], wanted, rtol=1e-4, atol=0)


def plain_log_prob(model: MixtureTransformer, events: torch.Tensor) -> torch.Tensor:
    """The network of one member as in a textbook: all tokens at once, a causal mask, no cache."""
    settings, t = model.settings, {name: x[0] for name, x in model.tensors().items()}
    heads, width = settings.n_heads, settings.width
    before = torch.cat([torch.zeros(len(events), 1), events[:, :-1]], dim=1)
    tokens = before[..., None] * t["embedding"] + t["position"]
    for layer in range(settings.n_layers):
        inputs = layer_norm(tokens, (width,))
        query, key, value = (
            (inputs @ t[f"{layer}.{name}"]).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
        tokens = tokens + mixed.transpose(1, 2).flatten(2) @ t[f"{layer}.mix_heads"]
        hidden = layer_norm(tokens, (width,)) @ t[f"{layer}.hidden"] + t[f"{layer}.hidden_bias"]
        tokens = tokens + gelu(hidden, approximate="tanh") @ t[f"{layer}.output"]
    output = layer_norm(tokens, (width,)) @ t["mixture"].mT + t["mixture_bias"][:, 0]
    logits, means, logarithms = output.chunk(3, -1)
    sigmas = logarithms.exp() + settings.min_sigma
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(means, sigmas))
    return mixture.log_prob(events).sum(1)


class TestStartAndPosterior:
    def test_starts_close_to_even_components(self) -> None:
        settings = MixtureTransformerSettings(2)
        model = MixtureTransformer(settings, starting_parameters(settings, seeds=[1]))
        means = model.decoder()(None).output[0, 5:10, 0]
        assert (means - torch.linspace(-1.2, 1.2, 5)).abs().max() < 0.5

    def test_a_start_depends_on_its_own_seed_only(self) -> None:
        settings = MixtureTransformerSettings(2)
        some, more = (starting_parameters(settings, seeds=s) for s in ([5, 6], [4, 5]))
        assert torch.equal(some[0], more[1])
        assert not torch.equal(some[0], some[1])

    def test_draws_have_the_posterior_s_moments(self) -> None:
        model = ensemble(n_members=2)
        log_variances = torch.tensor([[-2.0], [1.0]]).repeat(1, 10)
        posterior = GaussianPosterior(model.settings, model.parameters, log_variances)
        draws = posterior.draw(4000, generator=seeded(1)).parameters.reshape(2, 4000, -1)
        fixed = model.settings.n_parameters - 10
        assert torch.equal(
            draws[..., :fixed], model.parameters[:, None, :fixed].expand_as(draws[..., :fixed])
        )
        sigma = (0.5 * log_variances).exp()
        # 20 means and 20 widths at 5.5 standard deviations: 2e-6 in all.
        pulls = (draws[..., fixed:].mean(1) - model.parameters[:, fixed:]) / sigma
        assert pulls.abs().max() < 5.5 / math.sqrt(4000)
        ratio = draws[..., fixed:].std(1) / sigma
        assert (ratio - 1).abs().max() < 5.5 / math.sqrt(8000)

    def test_draws_are_known_by_what_they_follow_from(self) -> None:
        """Not by their last bits, which differ between machines and would be in keys."""
        model = ensemble(n_members=2)
        widths = torch.full((2, model.settings.n_last_layer), -4.0)

        def draw(means=model.parameters, widths=widths, n_draws=3, seed=1) -> MixtureTransformer:
            posterior = GaussianPosterior(model.settings, means, widths)
            return posterior.draw(n_draws, generator=seeded(seed))

        drawn = draw()
        known = drawn.identity
        drawn.parameters.mul_(1 + 1e-6)
        assert drawn.identity == draw().identity == known
        assert drawn.members(slice(2)).identity == drawn.members([0, 1]).identity
        others = [
            draw(means=model.parameters + 1e-6),
            draw(widths=widths + 1e-6),
            draw(n_draws=2),
            draw(seed=2),
            drawn.members(0),
            drawn.members(1),
            drawn.members(slice(1, 3)).members(0),
        ]
        assert len({known, *(other.identity for other in others)}) == 8

    def test_networks_are_known_by_their_parameters(self) -> None:
        model = ensemble(n_members=2)
        other = MixtureTransformer(model.settings, model.parameters * (1 + 1e-6))
        assert model.identity == model.members([0, 1]).identity != other.identity

    def test_layers_choose_the_parameters(self) -> None:
        settings = MixtureTransformerSettings(2)
        assert PosteriorSettings(layers="last").n_bayesian(settings) == 16 * 15 + 15
        assert PosteriorSettings(layers="all").n_bayesian(settings) == settings.n_parameters
        names = list(settings.shapes)[-2:]
        assert names == ["mixture", "mixture_bias"]

    def test_gradients_reach_means_and_variances(self) -> None:
        model = ensemble(n_members=2)
        means = model.parameters.clone().requires_grad_()
        log_variances = torch.full((2, model.settings.n_last_layer), -2.0).requires_grad_()
        posterior = GaussianPosterior(model.settings, means, log_variances)
        noise = torch.randn(log_variances.shape, generator=seeded(1))
        events = model.sample(100, generator=seeded(2))
        network = MixtureTransformer(model.settings, posterior.perturbed(noise))
        (network.log_prob(events).sum() + posterior.divergence(1.0).sum()).backward()
        assert (means.grad != 0).all()
        assert (log_variances.grad != 0).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"n_features": 0}, "`n_features` must be positive, got 0"),
            ({"width": -1}, "`width` must be positive, got -1"),
            ({"width": 18}, "`width` must be a multiple of `n_heads` = 4, got 18"),
            ({"min_sigma": 0.0}, r"`min_sigma` must be positive, got 0\.0"),
        ],
    )
    def test_settings(self, sizes: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            MixtureTransformerSettings(**{"n_features": 2, **sizes})

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"layers": "first"}, "`layers` must be 'last' or 'all', got 'first'"),
            ({"beta": -1.0}, r"`beta` must not be negative, got -1\.0"),
            ({"prior_sigma": 0.0}, r"`prior_sigma` must be positive, got 0\.0"),
            ({"log_variance_rate": -1.0}, r"`log_variance_rate` must be positive, got -1\.0"),
        ],
    )
    def test_posterior_settings(self, settings: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PosteriorSettings(**settings)

    def test_shapes(self) -> None:
        model = ensemble()
        with pytest.raises(ValueError, match=r"`features` must be \(n_events, 2\) or \(3, n_ev"):
            model.log_prob(torch.zeros(5, 4))
        with pytest.raises(ValueError, match=r"`features` must be .*, got shape \(2, 5, 2\)"):
            model.log_prob(torch.zeros(2, 5, 2))
        with pytest.raises(ValueError, match=r"`parameters` must be \(n_members, 2383\)"):
            MixtureTransformer(model.settings, torch.zeros(3, 7))
        with pytest.raises(ValueError, match="`n_generated` must not be negative, got -1"):
            model.sample(-1, generator=seeded(0))
        posterior = GaussianPosterior(model.settings, model.parameters, torch.zeros(3, 5))
        with pytest.raises(ValueError, match="`n_draws` must be positive, got 0"):
            posterior.draw(0, generator=seeded(0))
