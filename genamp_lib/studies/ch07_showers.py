"""Chapter 07: train flows on showers, generate, and weigh by two classifiers.

Everything that the numbers of the chapter depend on stands here and was written down before the
printed seeds were run: the training showers, the generators, the classifiers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError, project_root
from genamp_lib.datasets import Showers, load_showers, shower_observables
from genamp_lib.datasets.rows import unrounded
from genamp_lib.datasets.showers import LAYERS, layers_of_voxels
from genamp_lib.networks.classifier import (
    Classifier,
    ClassifierSettings,
    RawClassifierSettings,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.conditional_flow import (
    ConditionalFlow,
    ConditionalFlowSettings,
    FlowTask,
    fitted_conditional_flows,
    generate_given,
)
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.fitting import one_thread
from genamp_lib.store import Arrays, ArtefactStore, Stage
from genamp_lib.studies.ch07_coordinates import (
    above_threshold,
    layer_coordinates,
    layer_energies,
    layers_of_coordinates,
    one_step_coordinates,
    one_step_voxels,
    two_step_voxels,
    voxel_conditions,
    voxel_coordinates,
)

Array = NDArray[np.float64]

# Part of the artefacts' keys: raise one when its code changes the numbers.
FLOW_VERSION, WEIGHTS_VERSION = 1, 1
# Simulated training showers, which are too many to ship.
TRAINING_SEED = 21
_shipped = lru_cache(maxsize=6)(load_showers)  # every task reads them
# SHA-256 of the cells of the first showers of each file.
N_CHECKED = 3_000
TRAINING_SHA256 = {
    "eplus": "8aa994e4246c9ecd8eda9cf5051d9a434a8405214724e1f10efe6ac4a09aad03",
    "gamma": "e4473366898728ac0b917fb7236062017fccec639c26d156fba4e57e84cd1f16",
    "piplus": "725e4a12fb6d728df35ee8b2b314b6322971443f557a80404b06b34617fa5fae",
}
_BITS = 10  # of a deposit's mantissa, in files
ENERGIES = (1.0, 100.0)  # GeV, uniform
# What the second classifier sees.
OBSERVABLES = (
    "response",
    *(f"{name}_{k}" for name in ("energy", "brightest", "sparsity") for k in range(3)),
    "eta_width_0",
    "eta_width_1",
)
# What is kept of generated showers.
KEPT = (*OBSERVABLES, "total_energy", "fraction_0")
# Paper B, Tab. 1, with 40 epochs in place of 150.
TABLE_1 = RawClassifierSettings(n_layers=3, n_hidden=512, batch_size=1000, n_epochs=40)
OF_OBSERVABLES = ClassifierSettings(n_layers=3, n_hidden=64, batch_size=500, n_epochs=40)


@dataclass(frozen=True)
class ShowerGenerator:
    """One or two flows that make showers given the particle's energy.

    Attributes:
        cells: Flow of all cells: of everything in one step, or of the second step.
        layers: Flow of the layers' energies and numbers of active cells, the first of two steps;
            None for one step.
    """

    cells: ConditionalFlowSettings
    layers: ConditionalFlowSettings | None = None


# Chosen on the first 5,600 simulated photons by the validation loss: with 48 or 64 nodes the flow
# learns its showers by heart.
_CELLS = ConditionalFlowSettings(
    n_transforms=6,
    n_layers=2,
    n_hidden=32,
    n_bins=8,
    bound=8.0,
    n_epochs=40,
    batch_size=64,
    learning_rate=1e-3,
)
_LAYERS = ConditionalFlowSettings(
    n_transforms=8, n_bins=10, bound=6.0, n_epochs=30, batch_size=256, learning_rate=1e-3
)
GENERATORS = {
    "one step": ShowerGenerator(_CELLS),
    "two steps": ShowerGenerator(_CELLS, _LAYERS),
}


def scaled_generators(epoch_share: float) -> dict[str, ShowerGenerator]:
    """Return `GENERATORS` that are trained for a part of their epochs, at least one.

    Args:
        epoch_share: Part of the epochs, in (0, 1].

    Raises:
        ValueError: `epoch_share` is out of range.
    """
    if not 0 < epoch_share <= 1:
        raise ValueError(f"`epoch_share` must be in (0, 1], got {epoch_share}.")

    def scaled(flow: ConditionalFlowSettings) -> ConditionalFlowSettings:
        return replace(flow, n_epochs=max(1, round(epoch_share * flow.n_epochs)))

    return {
        name: ShowerGenerator(scaled(one.cells), None if one.layers is None else scaled(one.layers))
        for name, one in GENERATORS.items()
    }


@dataclass(frozen=True)
class ShowerTraining:
    """Where the training showers come from.

    Attributes:
        particle: "eplus", "gamma" or "piplus".
        n_train: Number of them.
        simulated: Whether they are the first of `genamp data simulate showers` with the seed 21;
            the last ones of the shipped sample otherwise.
    """

    particle: str
    n_train: int
    simulated: bool = True

    def described(self) -> dict[str, Any]:
        """Return what the showers follow from, for keys."""
        seed = TRAINING_SEED if self.simulated else None
        return {"particle": self.particle, "n_train": self.n_train, "seed": seed}

    def showers(self) -> Showers:
        """Return the training showers.

        Raises:
            GenampError: The file is missing, has too few showers, or others; the line has the
                command.
        """
        if not self.simulated:
            return _shipped(self.particle)[-self.n_train :]
        path = project_root() / f"_build/simulate/showers_{self.particle}_seed{TRAINING_SEED}.h5"
        if not path.exists():
            raise GenampError(
                f"{path.name}: the training showers must be in {path.parent}, are not; run `genamp "
                f"data simulate showers --particle {self.particle} --n-showers {self.n_train} "
                f"--seed {TRAINING_SEED}`"
            )
        showers = load_showers(self.particle, source=path, n_showers=self.n_train)
        found = hashlib.sha256(showers[:N_CHECKED].voxels.tobytes()).hexdigest()
        if self.n_train >= N_CHECKED and found != TRAINING_SHA256[self.particle]:
            raise GenampError(
                f"{path.name}: must hold the showers that the kept generators learned from, has "
                "others; remove it and simulate again"
            )
        return showers

    def events(self, step: str, seed: int) -> tuple[Array, Array]:
        """Return features and conditions of "one step", or of the "layers" or "cells" of two."""
        showers = self.showers()
        # Empty cells get less than the threshold, and stay empty.
        voxels = above_threshold(unrounded(showers.voxels, _BITS, seed=seed))
        energy = showers.energy.astype(np.float64)
        if step == "one step":
            return one_step_coordinates(voxels, energy, seed=seed)
        layers = layer_coordinates(voxels, energy, seed=seed)
        if step == "layers":
            return layers, np.log(energy)[:, None]
        return voxel_coordinates(voxels, seed=seed), voxel_conditions(layers, energy)


def flow_tasks(
    generator: ShowerGenerator, training: ShowerTraining, *, seed: int
) -> list[FlowTask]:
    """Return the trainings of a generator, in the order in which it makes a shower.

    Args:
        generator: Settings.
        training: Where the training showers come from.
        seed: Seed of the trainings and of the noise in the coordinates.
    """
    steps = {"layers": generator.layers, "cells": generator.cells}
    if generator.layers is None:
        steps = {"one step": generator.cells}
    return [
        FlowTask(
            Stage("shower-flow", FLOW_VERSION, {"training": training.described(), "step": step}),
            partial(training.events, step, seed),
            settings,
            seed,
        )
        for step, settings in steps.items()
        if settings is not None
    ]


def generate_showers(flows: Sequence[ConditionalFlow], energy: NDArray, *, seed: int) -> Array:
    """Generate one shower for each kinetic energy, cells in MeV, shape (n, 504).

    Args:
        flows: Flows of a generator: one, or those of both steps.
        energy: Kinetic energies in GeV, shape (n,).
        seed: Seed of the showers.
    """
    energy = energy.astype(np.float64)
    seeds = [int(s) for s in np.random.SeedSequence([seed, 1]).generate_state(2)]
    first = generate_given(flows[0], np.log(energy)[:, None], seed=seeds[0])
    if len(flows) == 1:
        return one_step_voxels(first, energy)
    cells = generate_given(flows[1], voxel_conditions(first, energy), seed=seeds[1])
    return two_step_voxels(cells, *layers_of_coordinates(first, energy))


def showers_of(particle: str, voxels: NDArray, energy: NDArray) -> Showers:
    """Return showers of cells (n, 504) in MeV and kinetic energies (n,) in GeV.

    Cells that are not above the threshold are empty, and nothing lies beside the cells.
    """
    cells = layers_of_voxels(above_threshold(voxels).astype(np.float32))
    layers = dict(zip(LAYERS, cells, strict=True))
    nothing = np.zeros((len(energy), len(LAYERS)), dtype=np.float32)
    return Showers(energy.astype(np.float32), **layers, overflow=nothing, particle=particle)


def held_out_showers(particle: str, n_judged: int) -> Showers:
    """Return the first showers of the shipped sample, as `showers_of`.

    Args:
        particle: "eplus", "gamma" or "piplus".
        n_judged: Number of showers.
    """
    showers = _shipped(particle, n_showers=n_judged)
    return showers_of(particle, showers.voxels, showers.energy)


def table_1_inputs(showers: Showers) -> Array:
    """Return what paper B's classifier sees, (n, 508): cells, energy and layers, not normalised.

    Cells are in units of 100 GeV; the kinetic energy and those of the layers are logarithms.
    """
    voxels = showers.voxels.astype(np.float64)
    logs = [np.log10(showers.energy / 10), *np.log10(layer_energies(voxels).T + 1e-8) + 2]
    return np.column_stack([voxels / 1e5, *logs])


def observable_inputs(values: Mapping[str, Array], energy: NDArray) -> Array:
    """Return what the second classifier sees, (n, 13): `OBSERVABLES` and the kinetic energy.

    Energies by their logarithms; 1 keV stands for an empty layer.

    Args:
        values: Observables by name, each (n,).
        energy: Kinetic energies in GeV, shape (n,).
    """
    own = [
        np.log10(values[name] + 1e-3) if name.startswith("energy") else values[name]
        for name in OBSERVABLES
    ]
    return np.column_stack([*own, np.log10(energy)])


class _Work(NamedTuple):
    generator: ShowerGenerator
    training: ShowerTraining
    n_judged: int
    seed: int
    store: ArtefactStore


@dataclass(frozen=True)
class ShowerClassifiers:
    """The two classifiers that weigh showers.

    Attributes:
        table_1: Sees all cells, as in paper B.
        observables: Sees 13 observables.
    """

    table_1: RawClassifierSettings = TABLE_1
    observables: ClassifierSettings = OF_OBSERVABLES


def weighed_showers(
    generator: ShowerGenerator,
    training: ShowerTraining,
    n_judged: int,
    *,
    classifiers: ShowerClassifiers,
    seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Generate showers and tell them from as many held-out ones, the first of the shipped sample.

    Args:
        generator: Settings of the generator.
        training: Where the training showers come from.
        n_judged: Number of generated and of held-out showers.
        classifiers: Settings of the cross-fitted classifiers.
        seed: Seed of the networks, the showers and the folds.
        store: Store of the flows and of the result.

    Returns:
        float32 arrays: logits (n_judged,) "table_1.truth", "table_1.generated",
        "observables.truth", "observables.generated"; "energy" and the observables `KEPT` of the
        generated showers, (n_judged,); "voxels" (12, 504) and "shown" (12,), the generated showers
        of the smallest, the middle and the largest weights by observables, four each, and their
        numbers; "train_loss" and "validation_loss" of the flow of the cells.
    """
    described = {
        "generator": asdict(generator),
        "training": training.described(),
        "classifiers": asdict(classifiers),
        "n_judged": n_judged,
        "seed": seed,
    }
    stage = Stage("shower-weights", WEIGHTS_VERSION, described)
    work = _Work(generator, training, n_judged, seed, store)
    return store.compute(stage, partial(_weighed, classifiers), work)


def _weighed(classifiers: ShowerClassifiers, work: _Work) -> Arrays:
    particle = work.training.particle
    rng = np.random.default_rng(np.random.SeedSequence([work.seed, 2]))
    # As they are kept: a reader of the artefact has the showers that the classifiers saw.
    energy = rng.uniform(*ENERGIES, work.n_judged).astype(np.float32)
    tasks = flow_tasks(work.generator, work.training, seed=work.seed)
    fits = fitted_conditional_flows(tasks, store=work.store, label="flows")
    with one_thread():
        voxels = generate_showers([fit.flow for fit in fits], energy, seed=work.seed)
    generated = showers_of(particle, voxels, energy)
    truth = held_out_showers(particle, work.n_judged)
    logits = _logits(truth, generated, classifiers, work.seed)
    order = np.argsort(logits["observables.generated"])
    middle = len(order) // 2
    shown = np.concatenate([order[:4], order[middle : middle + 4], order[-4:]])
    values = shower_observables(generated)
    values = {name: values[name].astype(np.float32) for name in KEPT}
    curves = {"train_loss": fits[-1].train_loss, "validation_loss": fits[-1].validation_loss}
    pictures = {"shown": shown, "voxels": generated.voxels[shown]}
    return logits | values | curves | pictures | {"energy": energy}


def _logits(
    truth: Showers, generated: Showers, classifiers: ShowerClassifiers, seed: int
) -> Arrays:
    samples = truth, generated
    inputs = {
        "table_1": [table_1_inputs(own) for own in samples],
        "observables": [observable_inputs(shower_observables(own), own.energy) for own in samples],
    }
    found = {}
    for name, pair in inputs.items():
        fit = cross_fitted_logits(*pair, settings=getattr(classifiers, name), seed=seed)
        found[f"{name}.truth"] = fit.truth.astype(np.float32)
        found[f"{name}.generated"] = fit.generated.astype(np.float32)
    return found


def null_showers(
    training: ShowerTraining,
    n_judged: int,
    *,
    classifiers: ShowerClassifiers,
    seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Tell true showers from other true ones, two halves of a draw from the simulated showers.

    Args:
        training: Where the showers come from, at least twice `n_judged`.
        n_judged: Number of showers of each half.
        classifiers: Settings of the cross-fitted classifiers.
        seed: Seed of the draw, the folds and the networks.
        store: Store of the result.

    Returns:
        The logits, as `weighed_showers`.
    """
    described = {
        "null": True,
        "training": training.described(),
        "classifiers": asdict(classifiers),
        "n_judged": n_judged,
        "seed": seed,
    }
    stage = Stage("shower-weights", WEIGHTS_VERSION, described)
    return store.compute(stage, partial(_null, classifiers), (training, n_judged, seed))


def _null(classifiers: ShowerClassifiers, work: tuple[ShowerTraining, int, int]) -> Arrays:
    training, n_judged, seed = work
    showers = training.showers()
    showers = showers_of(training.particle, showers.voxels, showers.energy)
    order = np.random.default_rng(np.random.SeedSequence([seed, 3])).permutation(len(showers))
    parts = showers[order[:n_judged]], showers[order[n_judged : 2 * n_judged]]
    return _logits(*parts, classifiers, seed)


def overfitted_showers(
    training: ShowerTraining,
    *,
    settings: RawClassifierSettings,
    epochs: Sequence[int],
    seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Train Tab. 1's classifier on two true samples, and score unseen showers on the way: Fig. 15.

    Four sixths of the showers train, one validates and one is scored; half of each is called truth.

    Args:
        training: Where the showers come from.
        settings: Settings of the classifier; a `patience` of all its epochs makes the learning
            rate constant, as in the paper.
        epochs: Numbers of epochs after which the showers are scored.
        seed: Seed of the division and the network.
        store: Store of the result.

    Returns:
        "truth.E" and "generated.E", logits after E epochs, and the losses of all epochs,
        "train_loss" and "validation_loss".
    """
    described = {
        "training": training.described(),
        "classifier": asdict(settings),
        "epochs": list(epochs),
        "seed": seed,
    }
    stage = Stage("shower-overfit", WEIGHTS_VERSION, described)
    work = (training, settings, tuple(epochs), seed)
    return store.compute(stage, _overfitted, work)


def _overfitted(work: tuple[ShowerTraining, RawClassifierSettings, tuple[int, ...], int]) -> Arrays:
    training, settings, epochs, seed = work
    showers = training.showers()
    inputs = table_1_inputs(showers_of(training.particle, showers.voxels, showers.energy))
    order = np.random.default_rng(np.random.SeedSequence([seed, 4])).permutation(len(inputs))
    *parts, held = np.array_split(inputs[order], 6)
    pairs = {
        "train": np.array_split(np.concatenate(parts[:4]), 2),
        "validation": np.array_split(parts[4], 2),
        "test": np.array_split(held, 2),
    }
    found: Arrays = {}

    def watch(epoch: int, classifier: Classifier) -> None:
        if epoch in epochs:
            for name, own in zip(("truth", "generated"), pairs["test"], strict=True):
                found[f"{name}.{epoch}"] = ensemble_logits([classifier], own)

    fit = fit_classifier(
        pairs["train"], pairs["validation"], settings=settings, seed=seed, watch=watch
    )
    return found | {"train_loss": fit.train_loss, "validation_loss": fit.validation_loss}
