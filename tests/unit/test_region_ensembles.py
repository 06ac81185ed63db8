"""Numbers on regions of many fitted networks: the same as from the networks, kept, continued."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from genamp_lib.datasets import Ring
from genamp_lib.networks.mixture import regions as region_ensembles
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
from genamp_lib.store import ArtefactStore

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


def store(folder: Path) -> ArtefactStore:
    return ArtefactStore(published=folder / "published", local=folder / "local", fresh=False)


def test_probabilities_are_those_of_the_fitted_networks_in_order() -> None:
    tasks = [task(1, 2), task(2, 3)]
    found = fit_region_probabilities(tasks, EDGES, **POINTS)
    expected = [region_probabilities(fit_ensemble(one).model, EDGES, **POINTS) for one in tasks]
    for name in ("probabilities", "errors"):
        rows = np.concatenate([getattr(one, name) for one in expected])
        np.testing.assert_array_equal(getattr(found, name), rows)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_draws_of_bayesian_networks_come_member_by_member() -> None:
    narrow = PosteriorSettings(start_log_variance=-30.0, beta=0.0, log_variance_rate=1e-6)
    found = fit_region_probabilities(
        [task(1, 2, narrow)], EDGES, n_draws=60, **POINTS
    ).probabilities
    assert found.shape == (120, 5)
    members = found.reshape(2, 60, 5)
    # Draws of so narrow a posterior agree with each other and not with those of another member.
    assert np.ptp(members, axis=1).max() < 1e-4 < np.abs(members[0, 0] - members[1, 0]).max()

    start = PosteriorSettings(start_log_variance=-4.0)
    wide = fit_region_probabilities([task(1, 2, start)], EDGES, n_draws=60, **POINTS).probabilities
    assert np.ptp(wide.reshape(2, 60, 5), axis=1).max() > 1e-3
    assert len(np.unique(wide[:, 0])) == 120


def test_probabilities_are_kept_and_depend_on_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"store": store(tmp_path), "name": "regions"}
    first = fit_region_probabilities([task(1)], EDGES, **POINTS, **keep).probabilities
    assert not list((tmp_path / "local").glob("*checkpoints"))
    for changed in (
        ([task(2)], EDGES, 50, 64),
        ([task(1)], EDGES[1:], 50, 64),
        (
            [task(1)],
            EDGES,
            49,
            64,
        ),
        ([task(1)], EDGES, 50, 32),
    ):
        tasks, edges, n_draws, n_points = changed
        fit_region_probabilities(
            tasks, edges, n_draws=n_draws, n_points=n_points, n_scrambles=2, **keep
        )
    assert len(list((tmp_path / "local").glob("regions-*.safetensors"))) == 5

    def never(*arguments: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(region_ensembles, "fit_ensemble", never)
    again = fit_region_probabilities([task(1)], EDGES, **POINTS, **keep)
    np.testing.assert_array_equal(again.probabilities, first)


def test_a_killed_study_continues_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"store": store(tmp_path), "name": "regions"}
    tasks = [task(1), task(2)]
    whole = fit_region_probabilities(tasks, EDGES, **POINTS).probabilities
    real, calls = region_ensembles.fit_ensemble, []

    def dies_at_second(one: EnsembleTask, *, checkpoint: Path) -> object:
        calls.append(checkpoint)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(one, checkpoint=checkpoint)

    monkeypatch.setattr(region_ensembles, "fit_ensemble", dies_at_second)
    with pytest.raises(KeyboardInterrupt):
        fit_region_probabilities(tasks, EDGES, **POINTS, **keep)
    assert calls[0].exists()  # the end of the first task is there to continue from
    monkeypatch.setattr(region_ensembles, "fit_ensemble", real)
    again = fit_region_probabilities(tasks, EDGES, **POINTS, **keep)
    np.testing.assert_array_equal(again.probabilities, whole)
    assert not calls[0].exists()


def test_processes_of_the_run_share_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task(1), task(2)]
    here = fit_region_probabilities(tasks, EDGES, **POINTS)
    monkeypatch.setenv("GENAMP_JOBS", "2")
    monkeypatch.setattr(region_ensembles, "fit_ensemble", None)  # not in this process
    shared = fit_region_probabilities(tasks, EDGES, **POINTS)
    np.testing.assert_array_equal(shared.probabilities, here.probabilities)


def test_counts_are_nested_and_follow_the_integrals(tmp_path: Path) -> None:
    model = fit_ensemble(task(1, 3)).model
    sizes = [10, 500, 20_000]
    keep = {"store": store(tmp_path), "name": "counts"}
    counts = generated_region_counts(model, EDGES, sizes, seed=4, **keep)
    assert (np.diff(counts, axis=0) >= 0).all()
    np.testing.assert_array_equal(counts.sum(axis=2), np.repeat(sizes, 3).reshape(3, 3))
    expected = sizes[-1] * region_probabilities(model, EDGES, n_points=2048).probabilities
    distance = ((counts[-1] - expected) ** 2 / expected).sum()
    assert chi2.sf(distance, 3 * 4) > 1e-5  # false alarms: 1e-5
    again = generated_region_counts(model, EDGES, sizes, seed=4)
    np.testing.assert_array_equal(counts, again)
    np.testing.assert_array_equal(
        generated_region_counts(model, EDGES, sizes, seed=4, **keep), again
    )
    other = generated_region_counts(model, EDGES, sizes, seed=5, **keep)
    assert (other != counts).any()


def test_chunks_of_events_lose_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_ensemble(task(1, 2)).model
    monkeypatch.setattr(region_ensembles, "_CHUNK", 14)
    counts = generated_region_counts(model, EDGES, [5, 23, 24], seed=4)
    assert counts.sum(axis=2).tolist() == [[5, 5], [23, 23], [24, 24]]


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    fit_region_probabilities([task(1, 1)], EDGES, **POINTS)
    generated_region_counts(fit_ensemble(task(1, 1)).model, EDGES, [3], seed=1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "regions"}, "`store` and `name` must be given together"),
        ({"n_draws": 0}, "`n_draws` must be positive, got 0."),
        ({"tasks": []}, "`tasks` must not be empty"),
    ],
)
def test_what_cannot_be_fitted(arguments: dict, message: str) -> None:
    tasks = arguments.pop("tasks", [task(1)])
    with pytest.raises(ValueError, match=message):
        fit_region_probabilities(tasks, EDGES, **arguments)


@pytest.mark.parametrize("sizes", [[], [0, 5], [5, 5], [9, 3]])
def test_sizes_must_increase(sizes: list[int]) -> None:
    model = fit_ensemble(task(1, 1)).model
    with pytest.raises(ValueError, match="`sizes` must increase from at least 1"):
        generated_region_counts(model, EDGES, sizes, seed=1)
    with pytest.raises(ValueError, match="`store` and `name` must be given together"):
        generated_region_counts(model, EDGES, [5], seed=1, name="counts")
