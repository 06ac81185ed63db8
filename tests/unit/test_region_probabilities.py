"""Probabilities of radial regions against quadrature, sampling and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ncx2, norm

from genamp_lib.datasets import Ring, radius
from genamp_lib.networks.mixture.regions import (
    region_probabilities,
    region_probabilities_by_quadrature,
)
from genamp_lib.networks.mixture.transformer import (
    MixtureTransformer,
    MixtureTransformerSettings,
    starting_parameters,
)

EDGES = np.array([0.0, 0.6, 0.9, 1.0, 1.3, 2.0, np.inf])


def ensemble(n_features: int, n_members: int = 3) -> MixtureTransformer:
    settings = MixtureTransformerSettings.for_ring(n_features)
    parameters = starting_parameters(settings, seeds=range(n_members))
    noise = torch.randn(parameters.shape, generator=torch.Generator().manual_seed(1))
    return MixtureTransformer(settings, parameters + 0.05 * noise)


def gaussian(n_features: int, sigma: float, mean: float) -> MixtureTransformer:
    """One network whose features are independent normal: only the last bias is not zero."""
    settings = MixtureTransformerSettings(n_features, n_components=1)
    parameters = torch.zeros(1, settings.n_parameters)
    parameters[0, -2:] = torch.tensor([mean, math.log(sigma - settings.min_sigma)])
    return MixtureTransformer(settings, parameters)


@pytest.mark.parametrize("n_features", [2, 3, 4])
def test_normal_features_in_closed_form(n_features: int) -> None:
    model = gaussian(n_features, sigma=0.7, mean=0.5)
    result = region_probabilities(model, EDGES, n_points=1024, n_scrambles=32, seed=2)
    # R^2 / sigma^2 follows a non-central chi-squared distribution.
    squares = (EDGES / 0.7) ** 2
    cumulative = ncx2.cdf(squares[:-1], n_features, n_features * (0.5 / 0.7) ** 2)
    wanted = np.diff([*cumulative, 1.0])
    assert result.errors.max() < 1e-3
    # 6 regions, 3 cases, Student's t with 31 degrees of freedom: 1e-6 in all.
    assert (np.abs(result.probabilities[0] - wanted) < 7 * result.errors[0] + 2e-6).all()


def test_two_dimensions_against_quadrature() -> None:
    model = ensemble(2)
    result = region_probabilities(model, EDGES, n_scrambles=32, seed=1)
    wanted = region_probabilities_by_quadrature(model, EDGES)
    assert result.errors.max() < 2e-4
    # As above; 1e-5 for the norm of a float32 density on a grid.
    assert (np.abs(result.probabilities - wanted) < 7 * result.errors + 1e-5).all()


def test_quadrature_knows_the_normal_density() -> None:
    model = gaussian(2, sigma=0.7, mean=0.0)
    computed = region_probabilities_by_quadrature(model, EDGES)[0]
    wanted = -np.diff([*np.exp(-((EDGES[:-1] / 0.7) ** 2) / 2), 0.0])
    np.testing.assert_allclose(computed, wanted, rtol=0, atol=1e-6)
    later = region_probabilities_by_quadrature(model, EDGES[2:])[0]
    np.testing.assert_allclose(later, wanted[2:], rtol=0, atol=1e-6)


def test_four_dimensions_against_sampling() -> None:
    model = ensemble(4, n_members=2)
    result = region_probabilities(model, EDGES, seed=1)
    n_generated = 40_000
    events = model.sample(n_generated, generator=torch.Generator().manual_seed(3)).numpy()
    for member in range(2):
        counts = np.histogram(radius(events[member]), EDGES)[0]
        p = result.probabilities[member]
        sigma = np.hypot(np.sqrt(p * (1 - p) / n_generated), result.errors[member])
        # 12 comparisons at 5.2 standard deviations: 2e-6 in all.
        assert (np.abs(counts / n_generated - p) < 5.2 * sigma).all()


def test_whole_space_is_one_and_regions_add_up() -> None:
    model = ensemble(4)
    whole = region_probabilities(model, [0.0, np.inf], n_points=64)
    np.testing.assert_allclose(whole.probabilities, 1.0, rtol=0, atol=1e-5)
    coarse, fine = (
        region_probabilities(model, edges, n_points=64).probabilities
        for edges in ([0.0, 1.0, np.inf], EDGES)
    )
    np.testing.assert_allclose(coarse[:, 0], fine[:, :3].sum(1), rtol=0, atol=1e-6)


def test_errors_are_those_of_repetitions() -> None:
    """Spread over seeds against the claimed error, in four dimensions, summed over regions."""
    model = ensemble(4, n_members=1)
    runs = [region_probabilities(model, EDGES, n_points=64, seed=seed) for seed in range(40)]
    spread = np.var([run.probabilities[0] for run in runs], axis=0, ddof=1).sum()
    claimed = np.mean([np.square(run.errors[0]) for run in runs], axis=0).sum()
    # Both with at least 39 degrees of freedom: log of the ratio has a width below 0.33.
    assert abs(math.log(spread / claimed)) < norm.isf(5e-6) * 0.33


def test_members_one_by_one_and_same_seed() -> None:
    model = ensemble(2)
    together = region_probabilities(model, EDGES, n_points=64, seed=4).probabilities
    again = region_probabilities(model, EDGES, n_points=64, seed=4).probabilities
    np.testing.assert_array_equal(together, again)
    for i in range(3):
        alone = region_probabilities(model.members(i), EDGES, n_points=64, seed=4)
        np.testing.assert_allclose(alone.probabilities[0], together[i], rtol=0, atol=1e-5)
    other = region_probabilities(model, EDGES, n_points=64, seed=5).probabilities
    assert not np.array_equal(together, other)


def test_true_regions_are_where_the_ring_is() -> None:
    """A reading of a real case: repr and the ring's own edges."""
    result = region_probabilities(ensemble(2), Ring(2).radial_edges(), n_points=64)
    assert result.probabilities.shape == (3, 20)
    assert repr(result).startswith("RegionProbabilities(3 members, 20 regions, errors up to ")


def test_errors_in_arguments() -> None:
    model = ensemble(2)
    for edges in ([1.0], [0.0, 1.0, 1.0], [-1.0, 1.0], [[0.0, 1.0]], [0.0, np.nan]):
        with pytest.raises(ValueError, match="`edges` must be at least 2 increasing radii"):
            region_probabilities(model, edges)
    with pytest.raises(ValueError, match="`n_points` must be a power of two, got 100"):
        region_probabilities(model, EDGES, n_points=100)
    with pytest.raises(ValueError, match="`n_scrambles` must be at least 2, got 1"):
        region_probabilities(model, EDGES, n_scrambles=1)
    with pytest.raises(ValueError, match="`model` must have at least 2 features, got 1"):
        region_probabilities(gaussian(1, 0.5, 0.0), EDGES)
    with pytest.raises(ValueError, match="`model` must have 2 features, got 4"):
        region_probabilities_by_quadrature(ensemble(4), EDGES)
