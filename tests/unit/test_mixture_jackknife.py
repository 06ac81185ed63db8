"""The infinitesimal jackknife: closed forms, derivatives, and what a bootstrap says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genamp_lib.datasets import Ring
from genamp_lib.networks.fitting import warmup_cosine
from genamp_lib.networks.mixture import ensemble, jackknife
from genamp_lib.networks.mixture.ensemble import (
    EnsembleSettings,
    EnsembleTask,
    MixtureTransformerSettings,
    fit_ensemble,
)
from genamp_lib.networks.mixture.jackknife import (
    fit_jackknife,
    region_variances,
    sandwich_variances,
)
from genamp_lib.networks.mixture.regions import region_probabilities
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.store import ArtefactStore

RING = Ring(2)
EDGES = RING.radial_edges(4)
NETWORK = MixtureTransformerSettings(2, width=4, n_components=3, min_sigma=0.05)
TRAINING = EnsembleSettings(n_steps=150, batch_size=50, n_warmup=10)


def task(n_members: int = 1) -> EnsembleTask:
    events = RING.sample(300 * n_members, seed=3).reshape(n_members, 300, 2)
    return EnsembleTask(events, seed=4, network=NETWORK, training=TRAINING)


def test_mean_of_a_normal_density_has_the_variance_of_its_bootstrap() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.exponential(size=200))  # not the density that is fitted to it
    sigma = 2.0
    scores = ((x - x.mean()) / sigma**2)[:, None]
    fisher = torch.full((3, 1), 1 / sigma)  # its square is the information per event
    one = torch.tensor([[1.0], [3.0]])
    found = sandwich_variances((one, one), iter(scores.split(70)), fisher, damping=0.0)
    # The mean of events drawn with replacement has exactly this variance, sigma or not.
    variance = x.var(unbiased=False) / 200
    torch.testing.assert_close(found, torch.stack([variance, 9 * variance]))


@pytest.mark.parametrize("n_fisher", [5, 40])
def test_both_ways_to_invert_agree_with_the_dense_matrix(n_fisher: int) -> None:
    """Fewer events than parameters, and more."""
    generator = torch.Generator().manual_seed(n_fisher)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first, second, scores, fisher = draw(3, 12), draw(3, 12), draw(30, 12), draw(n_fisher, 12)
    found = sandwich_variances((first, second), iter([scores]), fisher, damping=0.3)
    inverse = torch.linalg.inv(fisher.T @ fisher / n_fisher + 0.3 * torch.eye(12))
    centred = scores - scores.mean(0)
    middle = inverse @ centred.T @ centred @ inverse / 30**2
    torch.testing.assert_close(found, ((first @ middle) * second).sum(1))


def test_gradients_are_those_of_single_events() -> None:
    model = fit_ensemble(task()).model
    events = torch.from_numpy(RING.sample(3, seed=1)).float()
    parameters = model.parameters.clone().requires_grad_()
    density = MixtureTransformer(NETWORK, parameters).log_prob(events)[0]
    rows = [torch.autograd.grad(one, parameters, retain_graph=True)[0][0] for one in density]
    torch.testing.assert_close(jackknife._gradients(model, events), torch.stack(rows))


def test_one_event_more_moves_the_regions_as_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derivatives of the probabilities: against differences of the exact integrals."""
    model = fit_ensemble(task()).model
    kept = {}

    def keep(jacobians: tuple, scores: Iterator, fisher: torch.Tensor, *, damping: float) -> object:
        kept.update(jacobians=jacobians, fisher=fisher, damping=damping)
        return sandwich_variances(jacobians, scores, fisher, damping=damping)

    monkeypatch.setattr(jackknife, "sandwich_variances", keep)
    train = task().training_sets[0]
    region_variances(model, train, EDGES, training=TRAINING, n_generated=40_000, seed=5)
    assert kept["damping"] == pytest.approx(
        1 / (2e-3 * sum(warmup_cosine(i, n_steps=150, n_warmup=10) for i in range(150))), rel=1e-6
    )
    # Along the mean derivative of the first region the signal is largest.
    first, second = kept["jacobians"]
    assert torch.cosine_similarity(first, second).min() > 0.9
    rms = (
        jackknife._gradients(model, torch.from_numpy(train).float()).square().mean(0) / 50
    ).sqrt()
    root = (rms + 1e-8).rsqrt()
    step = 0.02 * first[0] / first[0].norm()
    moved = MixtureTransformer(NETWORK, model.parameters + step * root)
    back = MixtureTransformer(NETWORK, model.parameters - step * root)
    difference = [region_probabilities(one, EDGES).probabilities[0] for one in (moved, back)]
    expected = (second @ step).numpy()
    np.testing.assert_allclose(
        (difference[0] - difference[1]) / 2, expected, atol=0.1 * abs(expected[0])
    )


def test_a_longer_training_lets_events_pull_farther() -> None:
    one = task()
    model = fit_ensemble(one).model
    train = one.training_sets[0]
    arguments = {"n_generated": 4000, "n_fisher": 2000, "seed": 1}
    short, long = (
        region_variances(
            model, train, EDGES, training=replace(TRAINING, n_steps=n_steps), **arguments
        )
        for n_steps in (100, 1000)
    )
    assert (long > short).all()
    # Twice the events: half the variance.
    both = np.concatenate([train, train])
    np.testing.assert_allclose(
        region_variances(model, both, EDGES, training=replace(TRAINING, n_steps=100), **arguments),
        short / 2,
        rtol=1e-6,
    )


def test_variances_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtefactStore(published=tmp_path / "p", local=tmp_path / "l", fresh=False)
    settings = {"n_generated": 400, "n_fisher": 100, "store": store, "name": "jackknife"}
    found = fit_jackknife([task(2)], EDGES, **settings)
    model = fit_ensemble(task(2)).model.members(1)
    alone = region_variances(
        model,
        task(2).training_sets[1],
        EDGES,
        training=TRAINING,
        n_generated=400,
        n_fisher=100,
        seed=5,
    )
    np.testing.assert_allclose(found[1], alone)
    monkeypatch.setattr(ensemble, "fit_ensemble", None)
    np.testing.assert_array_equal(fit_jackknife([task(2)], EDGES, **settings), found)
    assert not list((tmp_path / "l").glob("*unfinished"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_generated": 3}, "`n_generated` must be even"),
        ({"n_fisher": 0}, "`n_fisher` must be 1 to `n_generated`"),
        ({"n_generated": 10, "n_fisher": 11}, "`n_fisher` must be 1 to `n_generated`"),
    ],
)
def test_what_cannot_be_done(arguments: dict, message: str) -> None:
    model = MixtureTransformer(NETWORK, torch.zeros(1, NETWORK.n_parameters))
    train = task().training_sets[0]
    with pytest.raises(ValueError, match=message):
        region_variances(model, train, EDGES, training=TRAINING, seed=1, **arguments)
    two = MixtureTransformer(NETWORK, torch.zeros(2, NETWORK.n_parameters))
    with pytest.raises(ValueError, match="must be one network, got 2 members"):
        region_variances(two, train, EDGES, training=TRAINING, seed=1)
