"""Probabilities of radial regions: against other integrals; of many fits; kept and continued."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ncx2, norm

from genamp_lib.datasets import Ring, radius
from genamp_lib.networks.mixture import ensemble as ensemble_module
from genamp_lib.networks.mixture import regions
from genamp_lib.networks.mixture.ensemble import (
    EnsembleSettings,
    EnsembleTask,
    MixtureTransformerSettings,
    PosteriorSettings,
    fit_ensemble,
)
from genamp_lib.networks.mixture.regions import (
    fit_region_probabilities,
    generated_region_counts,
    region_probabilities,
)
from genamp_lib.networks.mixture.transformer import MixtureTransformer, starting_parameters
from genamp_lib.store import ArtefactStore

WIDE = np.array([0.0, 0.6, 0.9, 1.0, 1.3, 2.0, np.inf])


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
    result = region_probabilities(model, WIDE, n_points=1024, n_scrambles=32, seed=2)
    # R^2 / sigma^2 follows a non-central chi-squared distribution.
    squares = (WIDE / 0.7) ** 2
    cumulative = ncx2.cdf(squares[:-1], n_features, n_features * (0.5 / 0.7) ** 2)
    wanted = np.diff([*cumulative, 1.0])
    assert result.errors.max() < 1e-3
    # 6 regions, 3 cases, Student's t with 31 degrees of freedom: 1e-6 in all.
    assert (np.abs(result.probabilities[0] - wanted) < 7 * result.errors[0] + 2e-6).all()


def by_quadrature(model: MixtureTransformer, edges: np.ndarray) -> np.ndarray:
    """Gauss-Legendre in the radius, even points in the angle; (n_members, n_regions)."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    angles = 2 * np.pi * (np.arange(512) + 0.5) / 512
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    radii = middle + half * nodes  # (n_regions, n_nodes)
    points = torch.from_numpy(radii[..., None, None] * directions).float().flatten(0, 2)
    density = model.log_prob(points).double().exp().reshape(model.n_members, *radii.shape, -1)
    return (density.mean(3).detach().numpy() * 2 * np.pi * radii * half * weights).sum(2)


def test_two_dimensions_against_quadrature() -> None:
    model = ensemble(2)
    result = region_probabilities(model, WIDE, n_scrambles=32, seed=1)
    wanted = by_quadrature(model, WIDE[:-1])
    assert result.errors.max() < 2e-4
    # As above; 1e-5 for the norm of a float32 density on a grid.
    assert (np.abs(result.probabilities[:, :-1] - wanted) < 7 * result.errors[:, :-1] + 1e-5).all()


def test_four_dimensions_against_sampling() -> None:
    model = ensemble(4, n_members=2)
    result = region_probabilities(model, WIDE, seed=1)
    n_generated = 40_000
    events = model.sample(n_generated, generator=torch.Generator().manual_seed(3)).numpy()
    for member in range(2):
        counts = np.histogram(radius(events[member]), WIDE)[0]
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
        for edges in ([0.0, 1.0, np.inf], WIDE)
    )
    np.testing.assert_allclose(coarse[:, 0], fine[:, :3].sum(1), rtol=0, atol=1e-6)


def test_errors_are_those_of_repetitions() -> None:
    """Spread over seeds against the claimed error, in four dimensions, summed over regions."""
    model = ensemble(4, n_members=1)
    runs = [region_probabilities(model, WIDE, n_points=64, seed=seed) for seed in range(40)]
    spread = np.var([run.probabilities[0] for run in runs], axis=0, ddof=1).sum()
    claimed = np.mean([np.square(run.errors[0]) for run in runs], axis=0).sum()
    # Both with at least 39 degrees of freedom: log of the ratio has a width below 0.33.
    assert abs(math.log(spread / claimed)) < norm.isf(5e-6) * 0.33


def test_members_one_by_one_and_same_seed() -> None:
    model = ensemble(2)
    together = region_probabilities(model, WIDE, n_points=64, seed=4).probabilities
    again = region_probabilities(model, WIDE, n_points=64, seed=4).probabilities
    np.testing.assert_array_equal(together, again)
    for i in range(3):
        alone = region_probabilities(model.members(i), WIDE, n_points=64, seed=4)
        np.testing.assert_allclose(alone.probabilities[0], together[i], rtol=0, atol=1e-5)
    other = region_probabilities(model, WIDE, n_points=64, seed=5).probabilities
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
        region_probabilities(model, WIDE, n_points=100)
    with pytest.raises(ValueError, match="`n_scrambles` must be at least 2, got 1"):
        region_probabilities(model, WIDE, n_scrambles=1)
    with pytest.raises(ValueError, match="`model` must have at least 2 features, got 1"):
        region_probabilities(gaussian(1, 0.5, 0.0), WIDE)


EDGES = Ring(2).radial_edges(5)
POINTS = {"n_points": 64, "n_scrambles": 2}


def task(seed: int, n_members: int = 2, posterior: PosteriorSettings | None = None) -> EnsembleTask:
    events = Ring(2).sample(100 * n_members, seed=seed).reshape(n_members, 100, 2)
    return EnsembleTask(
        events,
        seed=seed,
        network=MixtureTransformerSettings(2),
        training=EnsembleSettings(n_steps=20, batch_size=50, n_warmup=5),
        posterior=posterior,
    )


@pytest.fixture
def keep(tmp_path: Path) -> dict:
    store = ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)
    return {"store": store, "name": "regions"}


def test_probabilities_are_those_of_the_fitted_networks_in_order(keep: dict) -> None:
    tasks = [task(1, 2), task(2, 3)]
    found = fit_region_probabilities(tasks, EDGES, **POINTS, **keep)
    expected = [region_probabilities(fit_ensemble(one).model, EDGES, **POINTS) for one in tasks]
    for name in ("probabilities", "errors"):
        rows = np.concatenate([getattr(one, name) for one in expected])
        np.testing.assert_array_equal(getattr(found, name), rows)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_draws_of_bayesian_networks_come_member_by_member(keep: dict) -> None:
    narrow = PosteriorSettings(start_log_variance=-30.0, beta=0.0, log_variance_rate=1e-6)
    found = fit_region_probabilities([task(1, 2, narrow)], EDGES, n_draws=60, **POINTS, **keep)
    assert found.probabilities.shape == (120, 5)
    members = found.probabilities.reshape(2, 60, 5)
    # Draws of so narrow a posterior agree with each other and not with those of another member.
    assert np.ptp(members, axis=1).max() < 1e-4 < np.abs(members[0, 0] - members[1, 0]).max()

    start = PosteriorSettings(start_log_variance=-4.0)
    wide = fit_region_probabilities([task(1, 2, start)], EDGES, n_draws=60, **POINTS, **keep)
    assert np.ptp(wide.probabilities.reshape(2, 60, 5), axis=1).max() > 1e-3
    assert len(np.unique(wide.probabilities[:, 0])) == 120


def test_probabilities_are_kept_and_depend_on_everything(
    keep: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit_region_probabilities([task(1)], EDGES, **POINTS, **keep).probabilities
    assert not list(keep["store"].local.glob("*unfinished"))
    for tasks, edges, n_draws, n_points in (
        ([task(2)], EDGES, 50, 64),
        ([task(1)], EDGES[1:], 50, 64),
        ([task(1)], EDGES, 49, 64),
        ([task(1)], EDGES, 50, 32),
    ):
        fit_region_probabilities(
            tasks, edges, n_draws=n_draws, n_points=n_points, n_scrambles=2, **keep
        )
    assert len(list(keep["store"].local.glob("regions-*.safetensors"))) == 5
    monkeypatch.setattr(ensemble_module, "fit_ensemble", None)  # not fitted again
    again = fit_region_probabilities([task(1)], EDGES, **POINTS, **keep)
    np.testing.assert_array_equal(again.probabilities, first)


def test_processes_of_the_run_share_a_study(keep: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task(1), task(2)]
    here = fit_region_probabilities(tasks, EDGES, **POINTS, **keep)
    monkeypatch.setenv("GENAMP_JOBS", "2")
    monkeypatch.setattr(ensemble_module, "fit_ensemble", None)  # not in this process
    keep["store"].fresh = True
    shared = fit_region_probabilities(tasks, EDGES, **POINTS, **keep)
    np.testing.assert_array_equal(shared.probabilities, here.probabilities)


def test_counts_are_nested_and_follow_the_integrals(keep: dict) -> None:
    model = fit_ensemble(task(1, 3)).model
    sizes = [10, 500, 20_000]
    counts = generated_region_counts(model, EDGES, sizes, seed=4, **keep)
    assert (np.diff(counts, axis=0) >= 0).all()
    np.testing.assert_array_equal(counts.sum(axis=2), np.repeat(sizes, 3).reshape(3, 3))
    expected = sizes[-1] * region_probabilities(model, EDGES, n_points=2048).probabilities
    distance = ((counts[-1] - expected) ** 2 / expected).sum()
    assert chi2.sf(distance, 3 * 4) > 1e-5  # false alarms: 1e-5
    again = generated_region_counts(model, EDGES, sizes, seed=4, **keep)
    np.testing.assert_array_equal(counts, again)
    assert [use["origin"] for use in keep["store"].used] == ["computed", "local"]
    other = generated_region_counts(model, EDGES, sizes, seed=5, **keep)
    assert (other != counts).any()


def test_chunks_of_events_lose_none(keep: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_ensemble(task(1, 2)).model
    monkeypatch.setattr(regions, "_CHUNK", 14)
    counts = generated_region_counts(model, EDGES, [5, 23, 24], seed=4, **keep)
    assert counts.sum(axis=2).tolist() == [[5, 5], [23, 23], [24, 24]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_draws": 0}, "`n_draws` must be positive, got 0."),
        ({"tasks": []}, "`tasks` must not be empty"),
        ({"edges": [1.0]}, "`edges` must be at least 2 increasing radii"),
    ],
)
def test_what_cannot_be_fitted(keep: dict, arguments: dict, message: str) -> None:
    arguments = {"tasks": [task(1)], "edges": EDGES, **arguments}
    with pytest.raises(ValueError, match=message):
        fit_region_probabilities(**arguments, **keep)


@pytest.mark.parametrize("sizes", [[], [0, 5], [5, 5], [9, 3]])
def test_sizes_must_increase(keep: dict, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="`sizes` must increase from at least 1"):
        generated_region_counts(ensemble(2), EDGES, sizes, seed=1, **keep)
