"""Chapter 06: pairs of jet samples with classifier weights; overfitting; ParticleNet-Lite.

Not for the power of metrics: studies.ch06_power.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.distortions import Distortion, cut_distortion, product_distortion
from genamp_lib.datasets.jets import JET_OBSERVABLES, Jets, disjoint_pools
from genamp_lib.diagnostics import likelihood_ratio_weights, mean_output_logits
from genamp_lib.networks import classifier, particlenet
from genamp_lib.networks.classifier import (
    Classifier,
    ClassifierSettings,
    classifier_from_arrays,
    classifier_to_arrays,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.cross_fit import cross_fit_pairs
from genamp_lib.networks.particlenet import ParticleNetSettings, particle_inputs
from genamp_lib.networks.tabular import fold_numbers
from genamp_lib.store import Arrays, ArtefactStore, Stage, named, numbered


def logits_over_epochs(
    samples: Sequence[ArrayLike],
    *,
    epochs: Sequence[int],
    settings: ClassifierSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> list[Arrays]:
    """Train too long, paper B, Fig. 15: without a schedule, and score all events after some epochs.

    For each training there are four samples of one density, shape (4, n_events, n_features): the
    classifier learns to tell the first two apart and never sees the others. Epochs are counted from
    1, the last one ends the training; `n_epochs`, `decay_factor` and `patience` are not used. The
    first training has the seed, the others have the next ones.

    Returns:
        For each training "train_loss" and "validation_loss" (of the unseen events), (n_epochs,);
        for each of `epochs` float32 logits "N.train.0", "N.train.1", "N.unseen.0", "N.unseen.1".
    """
    settings = replace(settings, n_epochs=max(epochs), patience=max(epochs))
    own = {**asdict(settings), "epochs": list(epochs), "code_version": classifier.CODE_VERSION}
    tasks = [(np.asarray(four), seed + number) for number, four in enumerate(samples)]
    stages = [stage.adding(overfit={**own, "seed": of_training}) for _, of_training in tasks]
    return store.map(stages, partial(_train_too_long, settings, tuple(epochs)), tasks)


def _train_too_long(
    settings: ClassifierSettings, epochs: tuple[int, ...], task: tuple[np.ndarray, int]
) -> Arrays:
    samples, seed = task
    scores: Arrays = {}

    def watch(epoch: int, network: Classifier) -> None:
        if epoch in epochs:
            for name, pair in (("train", samples[:2]), ("unseen", samples[2:])):
                for k, sample in enumerate(pair):
                    logits = ensemble_logits([network], sample)
                    scores[f"{epoch}.{name}.{k}"] = logits.astype(np.float32)

    fit = fit_classifier(samples[:2], samples[2:], settings=settings, seed=seed, watch=watch)
    return {**scores, "train_loss": fit.train_loss, "validation_loss": fit.validation_loss}


Array = NDArray[np.float64]
# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
CASES = ("null", "tail cut", "smear", "shift")
WITHHELD = "mass withheld"


@dataclass(frozen=True)
class PairSettings:
    """The distortions of paper B, sec. 3, and the divisions of the jets."""

    mass_cut: float = 0.17  # relative mass from which the tail cut removes jets
    smear: float = 0.25  # width of the Gaussian of mean one that multiplies the mass
    shift: tuple[float, float] = (1.1, 0.05)  # mean and width of the Gaussian of the shift
    n_repetitions: int = 5  # divisions of the jets
    n_folds: int = 5
    n_members: int = 1  # networks per fold, averaged
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)

    def distortions(self, mass: Array) -> dict[str, Distortion | None]:
        """Return case -> distortion of jets with these masses, (n_jets,); None for the null."""
        return {
            "null": None,
            "tail cut": cut_distortion(mass, cut=self.mass_cut),
            "smear": product_distortion(mass, mean=1.0, width=self.smear),
            "shift": product_distortion(mass, mean=self.shift[0], width=self.shift[1]),
        }


@dataclass(frozen=True)
class JetPair:
    """Two samples that share no jet, by rows, and their weights."""

    truth: NDArray[np.intp]
    generated: NDArray[np.intp]
    weights: tuple[Array, Array]  # cross-fitted, of truth and generated jets
    true_weights: tuple[Array, Array]  # p_truth / p_generated of both, from the distortion


def jet_pairs(
    observables: Array,
    *,
    settings: PairSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> dict[tuple[str, int], JetPair]:
    """Divide the jets, distort one half, and weigh both by cross-fitted classifiers.

    Repetition r divides the jets with the seed `seed` + r, the same for all cases: one half is the
    truth, the jets of the other that the distortion accepts are generated. The columns of
    `observables` are `JET_OBSERVABLES`.

    Returns:
        (case, repetition) -> pair, for `CASES`, and for the tail cut seen by classifiers
        without the mass (`WITHHELD`, repetition 0).
    """
    mass = observables[:, JET_OBSERVABLES.index("mass")]
    distortions = settings.distortions(mass)
    samples, tasks = {}, {}
    for repetition in range(settings.n_repetitions):
        truth, pool = disjoint_pools(len(mass), seed=seed + repetition)
        for number, (case, distortion) in enumerate(distortions.items()):
            generated = pool
            if distortion is not None:
                rng = np.random.default_rng([seed, repetition, number])
                generated = pool[distortion.select(mass[pool], rng)]
            samples[case, repetition] = truth, generated, distortion
    samples[WITHHELD, 0] = samples["tail cut", 0]
    for (case, repetition), (truth, generated, _) in samples.items():
        columns = [
            i for i, name in enumerate(JET_OBSERVABLES) if case != WITHHELD or name != "mass"
        ]
        inputs = (observables[rows][:, columns] for rows in (truth, generated))
        tasks[f"{case} {repetition}"] = (*inputs, seed + repetition)
    distorted = {"mass_cut": settings.mass_cut, "smear": settings.smear}
    distorted |= {"shift": list(settings.shift), "pairs_version": CODE_VERSION}
    fits = cross_fit_pairs(
        tasks,
        settings=settings.classifier,
        n_folds=settings.n_folds,
        n_members=settings.n_members,
        store=store,
        stage=stage.adding(**distorted),
    )
    pairs = {}
    for (case, repetition), (truth, generated, distortion) in samples.items():
        fit = fits[f"{case} {repetition}"]
        rows = (truth, generated)
        true_weights = [
            np.ones(len(r)) if distortion is None else distortion.true_weights(mass[r])
            for r in rows
        ]
        pairs[case, repetition] = JetPair(
            truth,
            generated,
            tuple(likelihood_ratio_weights(x) for x in (fit.truth, fit.generated)),
            tuple(true_weights),
        )
    return pairs


# Part of every artefact's key: raise it when this code changes the numbers that it gives.
PARTICLENET_VERSION = 1
N_PARTS = 5  # parts of a half: one for validation, the others for training
# Rows of truth and of generated jets.
Rows = list[NDArray[np.intp]]
# Those that train and validate, of the other half, and those that are scored.
Half = tuple[Rows, Rows, Rows]


def particlenet_pair(
    jets: Jets,
    pair: JetPair,
    *,
    settings: ParticleNetSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> JetPair:
    """Weigh both samples by ParticleNet-Lite, each half by the networks of the other half.

    `pair` counts the jets; its weights are not used. Logits are kept, because networks are too
    large; a killed run continues its epochs.
    """
    halves = _halves(pair, seed)

    def mean_logits(parts: list[Arrays]) -> Arrays:
        n = settings.n_trainings
        scores = [
            [
                mean_output_logits(np.concatenate([one[kind] for one in half]))
                for kind in ("truth", "generated")
            ]
            for half in (parts[:n], parts[n:])
        ]
        truth, generated = _joined(pair, seed, scores)
        return {"truth": truth.astype(np.float32), "generated": generated.astype(np.float32)}

    own = {**asdict(settings), "code_version": particlenet.CODE_VERSION}
    stage = stage.adding(particlenet=own, **_configuration(pair, seed))
    arrays = store.combine(
        stage,
        partial(_particlenet_logits, jets, halves, settings, seed, store.unfinished(stage)),
        [(half, number) for half in (0, 1) for number in range(settings.n_trainings)],
        mean_logits,
    )
    return _weighed(pair, [arrays["truth"], arrays["generated"]])


def _particlenet_logits(
    jets: Jets,
    halves: list[Half],
    settings: ParticleNetSettings,
    seed: int,
    folder: Path,
    task: tuple[int, int],
) -> Arrays:
    """Do one training; return the logits that each of its networks gives to the half."""
    half, number = task
    train, validation, scored = (
        [particle_inputs(jets.particles[rows], jets.jets[rows]) for rows in samples]
        for samples in halves[half]
    )
    fit = particlenet.fit_particlenet(
        train,
        validation,
        settings=settings,
        seed=[_seed(seed, half), number],
        checkpoint=folder / f"{half}-{number}.safetensors",
    )
    logits = (particlenet.particlenet_logits(fit.networks, sample) for sample in scored)
    return dict(zip(("truth", "generated"), logits, strict=True))


def mlp_pair(
    observables: np.ndarray,
    pair: JetPair,
    *,
    settings: ClassifierSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> JetPair:
    """Weigh both samples by a multilayer perceptron trained on the jets of `particlenet_pair`.

    The same seed gives the same division. `pair` counts the rows of `observables`; its weights are
    not used.
    """
    halves = _halves(pair, seed)
    own = {**asdict(settings), "code_version": classifier.CODE_VERSION}
    arrays = store.combine(
        stage.adding(classifier=own, **_configuration(pair, seed)),
        partial(_fit_mlp, observables, halves, settings, seed),
        (0, 1),
        numbered,
    )
    scores = []
    for half, (_, _, scored) in enumerate(halves):
        network = classifier_from_arrays(named(arrays, f"{half}."), settings).classifier
        scores.append([ensemble_logits([network], observables[rows]) for rows in scored])
    return _weighed(pair, _joined(pair, seed, scores))


def _fit_mlp(
    observables: np.ndarray,
    halves: list[Half],
    settings: ClassifierSettings,
    seed: int,
    half: int,
) -> Arrays:
    train, validation, _ = ([observables[rows] for rows in samples] for samples in halves[half])
    fit = fit_classifier(train, validation, settings=settings, seed=_seed(seed, half))
    return classifier_to_arrays(fit)


def _parts(pair: JetPair, seed: int) -> list[NDArray[np.intp]]:
    """Divide both samples into halves of `N_PARTS` parts: the part of each jet."""
    sizes = [len(pair.truth), len(pair.generated)]
    return fold_numbers(sizes, n_folds=2 * N_PARTS, seed=seed)


def _halves(pair: JetPair, seed: int) -> list[Half]:
    halves = []
    for half in (0, 1):
        train, validation, scored = [], [], []
        for rows, parts in zip((pair.truth, pair.generated), _parts(pair, seed), strict=True):
            own, validates = parts // N_PARTS == half, parts == N_PARTS * (1 - half)
            train.append(rows[~own & ~validates])
            validation.append(rows[validates])
            scored.append(rows[own])
        halves.append((train, validation, scored))
    return halves


def _joined(pair: JetPair, seed: int, scores: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Put the logits of both halves in the order of the samples."""
    joined = []
    for k, parts in enumerate(_parts(pair, seed)):
        logits = np.empty(len(parts))
        for half in (0, 1):
            logits[parts // N_PARTS == half] = scores[half][k]
        joined.append(logits)
    return joined


def _weighed(pair: JetPair, logits: list[np.ndarray]) -> JetPair:
    truth, generated = (likelihood_ratio_weights(x) for x in logits)
    return replace(pair, weights=(truth, generated))


def _configuration(pair: JetPair, seed: int) -> dict[str, Any]:
    rows = np.concatenate([pair.truth, pair.generated]).astype("<i8").tobytes()
    return {
        "rows": hashlib.sha256(rows).hexdigest(),
        "n_parts": N_PARTS,
        "seed": seed,
        "halves_version": PARTICLENET_VERSION,
    }


def _seed(seed: int, half: int) -> int:
    return int(np.random.SeedSequence([seed, half]).generate_state(1)[0])
