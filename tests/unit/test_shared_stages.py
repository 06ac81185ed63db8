"""Two jobs: every stage of the chapters is computed by two processes, none of which is this one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genamp_lib import sharing
from genamp_lib.datasets import Ring, load_jets, load_top_pairs, observables_from_particles
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.mixture.ensemble import (
    EnsembleSettings,
    EnsembleTask,
    fit_ensembles,
)
from genamp_lib.networks.mixture.jackknife import fit_jackknife
from genamp_lib.networks.mixture.regions import fit_region_probabilities
from genamp_lib.networks.mixture.transformer import MixtureTransformerSettings
from genamp_lib.networks.particlenet import ParticleNetSettings
from genamp_lib.networks.spline_flow import FlowSettings, fit_flows
from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, FlowMatchingTraining
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings, Solving
from genamp_lib.networks.top_pairs.members import fitted_generators, sample_generators
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.studies.ch03_rings import ScanSettings, ScanTask, distance_scans
from genamp_lib.studies.ch06_jets import (
    JetPair,
    PairSettings,
    jet_pairs,
    logits_over_epochs,
    mlp_pair,
    particlenet_pair,
)
from genamp_lib.studies.ch06_power import PowerSettings, metric_values
from genamp_lib.studies.ch11_quality import Measuring, measure_members, run_trials
from genamp_lib.studies.ch11_solvers import measure_solvers

SMALL = ClassifierSettings(n_layers=1, n_hidden=4, dropout=0.0, n_epochs=1)
RING = Ring(2)
JETS = load_jets(n_jets=300)
OBSERVABLES = observables_from_particles(JETS.particles)
PAIR = JetPair(np.arange(60), np.arange(60, 120), (None, None), (None, None))
TOP_PAIRS = load_top_pairs(0).momenta[:300]
FLOW = FlowMatchingSettings(velocity=VelocitySettings(n_blocks=1, width=16))
TRAINING = FlowMatchingTraining(n_steps=1, batch_size=32, compile=False)
MEASURING = Measuring(n_generated=20, n_before_cuts=20, classifier=SMALL)


def ensemble_tasks() -> list[EnsembleTask]:
    network, training = MixtureTransformerSettings(2), EnsembleSettings(n_steps=1)
    sets = RING.sample(100, seed=1)[None]
    return [EnsembleTask(sets, seed=k, network=network, training=training) for k in (1, 2)]


def flow_tasks() -> list[FlowMatchingTask]:
    return [FlowMatchingTask(TOP_PAIRS, FLOW, TRAINING, seed=seed) for seed in (1, 2)]


def scans(store: ArtefactStore) -> None:
    tasks = [ScanTask(RING, RING.sample(50, seed=1), seed=seed) for seed in (1, 2)]
    settings = ScanSettings(window=(0.9, 1.1), sizes=(10,))
    distance_scans(tasks, settings=settings, store=store, name="x")


def power(store: ArtefactStore) -> None:
    settings = PowerSettings(
        tail_cuts=(), smears=(), shifts=(), n_nulls=1, n_jets=100, classifier=SMALL
    )
    metric_values(OBSERVABLES, settings=settings, seed=1, store=store, stage=STAGE)


def trials(store: ArtefactStore) -> None:
    how = {"one": (FLOW, TRAINING)}
    how["two"] = (FLOW, FlowMatchingTraining(n_steps=2, batch_size=32, compile=False))
    run_trials(how, TOP_PAIRS, TOP_PAIRS[:50], measuring=MEASURING, seed=1, store=store)


STAGE = Stage("x", 1, {})
KEPT = {"seed": 1, "stage": STAGE}
STAGES: dict[str, Callable[[ArtefactStore], Any]] = {
    "02 networks": lambda store: fit_ensembles(ensemble_tasks(), store=store, name="x"),
    "02 regions": lambda store: fit_region_probabilities(
        ensemble_tasks(), [0, 1, 2], n_draws=1, n_points=16, store=store, name="x"
    ),
    "02 jackknife": lambda store: fit_jackknife(
        ensemble_tasks(), [0, 1, 2], n_generated=20, n_fisher=20, store=store, name="x"
    ),
    "03 scans": scans,
    "06 pairs": lambda store: jet_pairs(
        OBSERVABLES,
        settings=PairSettings(n_repetitions=1, n_folds=3, classifier=SMALL),
        store=store,
        **KEPT,
    ),
    "06 power": power,
    "06 overfitting": lambda store: logits_over_epochs(
        OBSERVABLES[:160].reshape(2, 4, 20, 8), epochs=(1,), settings=SMALL, store=store, **KEPT
    ),
    "06 perceptron": lambda store: mlp_pair(OBSERVABLES, PAIR, settings=SMALL, store=store, **KEPT),
    "06 ParticleNet": lambda store: particlenet_pair(
        JETS,
        PAIR,
        settings=ParticleNetSettings(n_trainings=1, n_best=1, n_epochs=1),
        store=store,
        **KEPT,
    ),
    "09 flows": lambda store: fit_flows(
        OBSERVABLES[:, :2], n_members=2, settings=FlowSettings(n_epochs=1), store=store, **KEPT
    ),
    "09 classifiers": lambda store: cross_fitted_logits(
        OBSERVABLES[:50], OBSERVABLES[50:99], settings=SMALL, n_folds=3, store=store, **KEPT
    ),
    "11 generators": lambda store: fitted_generators(flow_tasks(), store=store),
    "11 trials": trials,
}


def recorded(folder: Path, function: Callable, index: int, task: Any) -> tuple[int, Any]:
    """Do a task as a worker does; the first one waits until another process has a task too."""
    os.environ[sharing.JOBS_VARIABLE] = "1"
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return index, function(task)


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which each process that does tasks leaves its number."""
    folder = tmp_path / "pids"
    folder.mkdir()
    monkeypatch.setenv(sharing.JOBS_VARIABLE, "2")
    monkeypatch.setattr(sharing, "_numbered", partial(recorded, folder))
    return folder


def two_others(folder: Path) -> bool:
    pids = {int(path.name) for path in folder.iterdir()}
    return len(pids) == 2 and os.getpid() not in pids


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_compute_each_stage(stage: str, pids: Path, tmp_path: Path) -> None:
    store = ArtefactStore(published=tmp_path / "p", local=tmp_path / "l", fresh=False)
    STAGES[stage](store)
    assert two_others(pids)


@pytest.mark.parametrize("what", ["members", "solvers", "sampling"])
def test_two_processes_use_the_generators(
    what: str, pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtefactStore(published=tmp_path / "p", local=tmp_path / "l", fresh=False)
    with monkeypatch.context() as alone:
        alone.setenv(sharing.JOBS_VARIABLE, "1")
        generators = fitted_generators(flow_tasks(), store=store)
    if what == "members":
        arguments = (generators, TOP_PAIRS, TOP_PAIRS[:50])
        measure_members(*arguments, measuring=MEASURING, seed=1, store=store)
    elif what == "solvers":
        measure_solvers(generators, [Solving("midpoint", 2)], n_events=20, seed=1, store=store)
    else:
        sample_generators(generators, 5, list, seed=1)
    assert two_others(pids)
