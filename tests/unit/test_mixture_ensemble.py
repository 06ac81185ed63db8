"""Fits of many networks: independent members, continued after a kill, shared, kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genamp_lib._project import GenampError
from genamp_lib.datasets import Ring
from genamp_lib.networks.fitting import read_checkpoint
from genamp_lib.networks.mixture import ensemble as ensemble_module
from genamp_lib.networks.mixture.ensemble import (
    EnsembleFit,
    EnsembleSettings,
    EnsembleTask,
    MixtureTransformerSettings,
    PosteriorSettings,
    bootstrap_sets,
    fit_ensemble,
    fit_ensembles,
    independent_sets,
    same_sets,
)
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.store import ArtefactStore

QUICK = EnsembleSettings(n_steps=60, batch_size=50, n_warmup=10)
POSTERIORS = {
    "plain": None,
    "last layer": PosteriorSettings(layers="last"),
    "all layers": PosteriorSettings(layers="all"),
}


def task(
    n_members: int = 3,
    n_features: int = 2,
    seed: int = 1,
    training: EnsembleSettings = QUICK,
    posterior: PosteriorSettings | None = None,
) -> EnsembleTask:
    events = Ring(n_features).sample(120 * n_members, seed=5)
    return EnsembleTask(
        independent_sets(events, n_members),
        seed=seed,
        network=MixtureTransformerSettings(n_features),
        training=training,
        posterior=posterior,
    )


def assert_equal_fits(first: EnsembleFit, second: EnsembleFit) -> None:
    """Bit by bit."""
    assert torch.equal(first.model.parameters, second.model.parameters)
    np.testing.assert_array_equal(first.loss, second.loss)
    assert (first.posterior is None) == (second.posterior is None)
    if first.posterior is not None:
        assert torch.equal(first.posterior.log_variances, second.posterior.log_variances)


class TestFit:
    def test_learns_a_density(self) -> None:
        """Two correlated normal features; the entropy is the smallest mean loss there is."""
        rng = np.random.default_rng(1)
        covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
        draw = rng.multivariate_normal([0.2, -0.3], covariance, 24_000)
        sets = independent_sets(draw[:20_000], 2)
        settings = EnsembleSettings(n_steps=500, batch_size=250)
        fit = fit_ensemble(
            EnsembleTask(sets, seed=2, network=MixtureTransformerSettings(2), training=settings)
        )
        entropy = 1 + np.log(2 * np.pi) + 0.5 * np.log(np.linalg.det(covariance))
        loss = -fit.model.log_prob(torch.from_numpy(draw[20_000:])).mean(1)
        # The mean over 4000 events has a standard deviation of 1/sqrt(4000) = 0.016.
        assert (loss - entropy).abs().max() < 0.1
        assert fit.loss.shape == (25, 2)
        assert (fit.loss[-1] < fit.loss[0] - 0.1).all()

    @pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
    def test_same_task_same_numbers_other_seed_others(self, posterior) -> None:
        first, again = (fit_ensemble(task(posterior=posterior)) for _ in range(2))
        assert_equal_fits(first, again)
        other = fit_ensemble(task(seed=2, posterior=posterior))
        assert not torch.equal(first.model.parameters, other.model.parameters)

    def test_members_do_not_know_of_each_other(self) -> None:
        together = fit_ensemble(task())
        # The same first member beside one that meets values far off, and alone.
        whole = task()
        sets = whole.training_sets.copy()
        sets[1:] *= 30.0
        disturbed = fit_ensemble(replace(whole, training_sets=sets))
        assert torch.equal(together.model.parameters[0], disturbed.model.parameters[0])
        alone = fit_ensemble(replace(whole, training_sets=whole.training_sets[:1]))
        torch.testing.assert_close(
            alone.model.parameters[0], together.model.parameters[0], rtol=0, atol=2e-3
        )

    def test_members_on_the_same_events_differ(self) -> None:
        whole = task()
        fit = fit_ensemble(replace(whole, training_sets=same_sets(whole.training_sets[0], 2)))
        assert not torch.allclose(fit.model.parameters[0], fit.model.parameters[1], atol=1e-2)

    def test_every_event_is_met_once_per_pass(self) -> None:
        batch_of_step = ensemble_module._batches(task())
        batches = [batch_of_step(step).numpy() for step in (0, 1, 2)]
        first_pass = np.concatenate(batches[:2], axis=1)
        assert all(len(set(member)) == 100 for member in first_pass)
        assert not np.array_equal(np.sort(first_pass[0]), np.sort(first_pass[1]))
        assert not np.array_equal(batches[0], batches[2])

    def test_divergence_pulls_to_the_prior(self) -> None:
        """With a large beta the posterior moves to the prior, with a small one it hardly does."""
        settings = replace(QUICK, n_steps=200, learning_rate=1e-2)
        strong, weak = (
            fit_ensemble(
                task(training=settings, posterior=PosteriorSettings(beta=beta, prior_sigma=0.1))
            ).posterior
            for beta in (100.0, 1e-4)
        )
        assert strong.divergence(0.1).max() < 0.2 * weak.divergence(0.1).min()
        assert (strong.log_variances - np.log(0.01)).abs().mean() < 1.0
        assert (weak.log_variances - np.log(0.01)).abs().mean() > 2.0

    def test_leaves_global_randomness_and_threads_alone(self) -> None:
        state, threads = torch.get_rng_state(), torch.get_num_threads()
        numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
        torch.set_num_threads(2)
        try:
            fit = fit_ensemble(task(posterior=PosteriorSettings()))
            fit.posterior.draw(2, generator=torch.Generator().manual_seed(1))
            fit.model.sample(5, generator=torch.Generator().manual_seed(1))
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(torch.get_rng_state(), state)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002

    def test_loss_that_is_not_finite(self) -> None:
        whole = task()
        sets = whole.training_sets.copy()
        sets[1] *= 1e25
        with pytest.raises(
            GenampError, match="ensemble, member 1: the loss must be finite, got nan by step 20"
        ):
            fit_ensemble(replace(whole, training_sets=sets))


class TestContinue:
    @pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
    def test_stopped_and_continued(
        self, posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = fit_ensemble(task(posterior=posterior))
        options = {"checkpoint": tmp_path / "state.safetensors", "checkpoint_steps": 11}
        stop_at(monkeypatch, 36)
        with pytest.raises(KeyboardInterrupt):
            fit_ensemble(task(posterior=posterior), **options)
        monkeypatch.undo()
        assert_equal_fits(whole, fit_ensemble(task(posterior=posterior), **options))

    def test_killed_and_continued(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        script = (
            "import numpy as np, sys\n"
            "from pathlib import Path\n"
            "from genamp_lib.networks.mixture.ensemble import *\n"
            "task = EnsembleTask(np.load(sys.argv[1]), seed=3, "
            "network=MixtureTransformerSettings(2), training=EnsembleSettings(n_steps=1000, "
            "batch_size=50), posterior=PosteriorSettings())\n"
            "fit_ensemble(task, checkpoint=Path(sys.argv[2]), checkpoint_steps=7)\n"
        )
        sets = task().training_sets
        np.save(tmp_path / "sets.npy", sets)
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "sets.npy"), str(path)]
        )
        try:
            deadline = time.monotonic() + 120
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        long = EnsembleTask(
            sets,
            seed=3,
            network=MixtureTransformerSettings(2),
            training=EnsembleSettings(n_steps=1000, batch_size=50),
            posterior=PosteriorSettings(),
        )
        assert 0 < len(read_checkpoint(path, key=long.key)["losses"]) < 1000
        assert_equal_fits(fit_ensemble(long), fit_ensemble(long, checkpoint=path))

    def test_states_that_do_not_fit(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        fit_ensemble(task(), checkpoint=path)
        others = [
            task(seed=2),
            task(training=replace(QUICK, learning_rate=1e-3)),
            task(posterior=PosteriorSettings()),
            replace(task(), training_sets=task().training_sets + 1e-3),
        ]
        for other in others:
            with pytest.raises(GenampError, match="is of another task; remove it"):
                fit_ensemble(other, checkpoint=path)


def stop_at(monkeypatch: pytest.MonkeyPatch, n_steps: int) -> list[int]:
    """Raise KeyboardInterrupt once, in a step; the list grows with each step."""
    real, steps = MixtureTransformer.log_prob, []

    def log_prob(self: MixtureTransformer, features: torch.Tensor) -> torch.Tensor:
        steps.append(self.n_members)
        if len(steps) == n_steps:
            raise KeyboardInterrupt
        return real(self, features)

    monkeypatch.setattr(MixtureTransformer, "log_prob", log_prob)
    return steps


class TestFitEnsembles:
    def tasks(self) -> list[EnsembleTask]:
        return [
            task(seed=1),
            task(n_members=2, seed=2, posterior=PosteriorSettings()),
            task(n_members=1, seed=3, n_features=3),
        ]

    def test_kept_found_and_the_same_however_shared(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ArtefactStore(published=tmp_path / "published", local=tmp_path, fresh=False)
        alone = [fit_ensemble(wanted) for wanted in self.tasks()]
        monkeypatch.setenv("GENAMP_JOBS", "2")
        monkeypatch.setattr(ensemble_module, "fit_ensemble", None)  # not in this process
        for _ in range(2):
            fits = fit_ensembles(self.tasks(), store=store, name="rings")
            for one, other in zip(fits, alone, strict=True):
                assert_equal_fits(one, other)
        assert [use["origin"] for use in store.used] == ["computed", "local"]
        assert not list(tmp_path.glob("*unfinished"))
        monkeypatch.setenv("GENAMP_JOBS", "1")
        with pytest.raises(TypeError):  # other tasks have another key
            fit_ensembles(self.tasks()[:1], store=store, name="rings")

    def test_a_killed_run_continues_with_what_was_finished(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ArtefactStore(published=tmp_path / "published", local=tmp_path, fresh=False)
        steps = stop_at(monkeypatch, 75)  # in the second task
        with pytest.raises(KeyboardInterrupt):
            fit_ensembles(self.tasks(), store=store, name="rings")
        assert list(tmp_path.glob("*unfinished"))
        fits = fit_ensembles(self.tasks(), store=store, name="rings")
        assert steps.count(3) == QUICK.n_steps  # the first task was not done again
        monkeypatch.undo()
        for fit, wanted in zip(fits, self.tasks(), strict=True):
            assert_equal_fits(fit, fit_ensemble(wanted))


class TestTrainingSets:
    def test_same(self) -> None:
        train = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
        sets = same_sets(train, 3)
        assert sets.shape == (3, 20, 2)
        assert (sets == train).all()

    def test_bootstrap(self) -> None:
        train = np.arange(10_000.0)[:, np.newaxis]
        sets = bootstrap_sets(train, 3, seed=1)
        assert sets.shape == (3, 10_000, 1)
        # A bootstrap has 1 - 1/e of the events; the fraction's standard deviation is 0.003.
        fractions = [len(np.unique(member)) / 10_000 for member in sets]
        assert np.abs(np.array(fractions) - (1 - np.exp(-1))).max() < 0.015
        assert len({member.tobytes() for member in sets}) == 3
        np.testing.assert_array_equal(sets, bootstrap_sets(train, 3, seed=1))
        assert not np.array_equal(sets, bootstrap_sets(train, 3, seed=2))

    def test_independent(self) -> None:
        sets = independent_sets(np.arange(12.0)[:, np.newaxis], 3)
        np.testing.assert_array_equal(sets[:, :, 0], np.arange(12).reshape(3, 4))

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"`train` must be \(n_events, n_features\), got"):
            same_sets(np.zeros(3), 2)
        with pytest.raises(ValueError, match="`n_members` must be positive, got 0"):
            bootstrap_sets(np.zeros((3, 2)), 0, seed=1)
        with pytest.raises(ValueError, match="`events` must be a multiple of `n_members` = 2"):
            independent_sets(np.zeros((3, 2)), 2)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_steps": 0}, "`n_steps` must be positive, got 0"),
            ({"batch_size": 0}, "`batch_size` must be positive, got 0"),
            ({"n_warmup": 0}, "`n_warmup` must be positive, got 0"),
            ({"learning_rate": 0.0}, r"`learning_rate` must be positive, got 0\.0"),
            ({"max_gradient_norm": -1.0}, r"`max_gradient_norm` must be positive, got -1\.0"),
            ({"weight_decay": -1.0}, r"`weight_decay` must not be negative, got -1\.0"),
        ],
    )
    def test_settings(self, settings: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EnsembleSettings(**settings)

    def test_task(self) -> None:
        whole = task()
        sets = whole.training_sets
        with pytest.raises(ValueError, match=r"`training_sets` must be \(n_members, n_train, 2\)"):
            replace(whole, training_sets=sets[0])
        with pytest.raises(ValueError, match="`training_sets` must be finite, got NaN or inf"):
            replace(whole, training_sets=np.where(sets > 1.0, np.nan, sets))
        with pytest.raises(
            ValueError, match="at least `batch_size` = 50 events per member, got 49"
        ):
            replace(whole, training_sets=sets[:, :49])
        with pytest.raises(ValueError, match="`seed` must not be negative, got -1"):
            replace(whole, seed=-1)
