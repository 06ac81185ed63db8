"""ParticleNet-Lite beside the multilayer perceptron, trained on the same jets, for chapter 06.

For one pair of samples: the first repetition of the tail cut. For all pairs: jet_pairs.

Pairs of truth and flawed jets with their classifier weights, for chapter 06; kept, resumed.

Not for what follows from the weights: genamp_lib.diagnostics. For many small samples: jet_power.

A classifier on two samples of one density, trained for too long: paper B, Fig. 15. Kept.

Not for classifiers that are to be used: they keep their best epoch (training.classifier).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.distortions import Distortion, cut_distortion, product_distortion
from genamp_lib.datasets.jets import JET_OBSERVABLES, Jets, disjoint_pools
from genamp_lib.diagnostics import likelihood_ratio_weights
from genamp_lib.networks import classifier, particlenet
from genamp_lib.networks.classifier import (
    Classifier,
    ClassifierSettings,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.cross_fit import PairTask, cross_fit_pairs, fold_numbers
from genamp_lib.networks.particlenet import Particles, particle_inputs
from genamp_lib.store import Arrays, ArtefactStore, Stage


def logits_over_epochs(
    train: Sequence[ArrayLike],
    unseen: Sequence[ArrayLike],
    *,
    epochs: Sequence[int],
    settings: ClassifierSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> Arrays:
    """Train without a schedule of the learning rate, and score all events after some epochs.

    Args:
        train: Two samples that the classifier learns to tell apart.
        unseen: Two more of the same densities.
        epochs: After which epochs to score, counted from 1; the last one ends the training.
        settings: Network and training; `n_epochs`, `decay_factor` and `patience` are not used.
        seed: Of the training.
        store: Where the result is kept.
        stage: Name, version, inputs, and the configuration that the events follow from.

    Returns:
        "train_loss" and "validation_loss", (n_epochs,), the latter of the unseen events; and for
        each of `epochs` "N.train.0", "N.train.1", "N.unseen.0" and "N.unseen.1", logits, float32.

    Raises:
        ValueError: As of `fit_classifier`.
    """
    settings = replace(settings, n_epochs=max(epochs), patience=max(epochs))
    own = {
        **asdict(settings),
        "epochs": list(epochs),
        "seed": seed,
        "code_version": classifier.CODE_VERSION,
    }

    def compute() -> Arrays:
        arrays: Arrays = {}

        def watch(epoch: int, classifier: Classifier) -> None:
            if epoch in epochs:
                for name, samples in (("train", train), ("unseen", unseen)):
                    for k, sample in enumerate(samples):
                        logits = ensemble_logits([classifier], sample)
                        arrays[f"{epoch}.{name}.{k}"] = logits.astype(np.float32)

        fit = fit_classifier(
            *train,
            validation_truth=unseen[0],
            validation_generated=unseen[1],
            settings=settings,
            seed=seed,
            watch=watch,
        )
        return {**arrays, "train_loss": fit.train_loss, "validation_loss": fit.validation_loss}

    configuration = {**stage.configuration, "overfit": own}
    return store.load_or_compute(replace(stage, configuration=configuration), compute)


Array = NDArray[np.float64]
# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
CASES = ("null", "tail cut", "smear", "shift")
WITHHELD = "mass withheld"


@dataclass(frozen=True)
class PairSettings:
    """The distortions of paper B, sec. 3, and how often the jets are divided.

    Attributes:
        mass_cut: The tail cut removes jets of this relative mass or above.
        smear: Width of the Gaussian of mean one that multiplies the mass.
        shift: Mean and width of the Gaussian of the shift.
        n_repetitions: Divisions of the jets.
        n_folds: Of the cross-fitting.
        n_members: Networks per fold, averaged.
        classifier: Network and training.
    """

    mass_cut: float = 0.17
    smear: float = 0.25
    shift: tuple[float, float] = (1.1, 0.05)
    n_repetitions: int = 5
    n_folds: int = 5
    n_members: int = 1
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)

    def distortions(self, mass: Array) -> dict[str, Distortion | None]:
        """Return case -> distortion, None for the null.

        Args:
            mass: Of all jets, shape (n_jets,).
        """
        return {
            "null": None,
            "tail cut": cut_distortion(mass, cut=self.mass_cut),
            "smear": product_distortion(mass, mean=1.0, width=self.smear),
            "shift": product_distortion(mass, mean=self.shift[0], width=self.shift[1]),
        }


@dataclass(frozen=True)
class JetPair:
    """Two samples that share no jet, and what the classifier says.

    Attributes:
        truth: Rows of the truth jets.
        generated: Rows of the generated jets.
        weights: Cross-fitted weights of truth and generated jets.
        true_weights: p_truth / p_generated of both, known from the distortion.
    """

    truth: NDArray[np.intp]
    generated: NDArray[np.intp]
    weights: tuple[Array, Array]
    true_weights: tuple[Array, Array]


def jet_pairs(
    observables: Array,
    *,
    settings: PairSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
    label: str = "",
) -> dict[tuple[str, int], JetPair]:
    """Divide the jets, distort one half, and weigh both by cross-fitted classifiers.

    Repetition r divides the jets with the seed `seed` + r, the same for all cases: one half is the
    truth, the jets of the other that the distortion accepts are generated.

    Args:
        observables: Of all jets, columns as `JET_OBSERVABLES`, shape (n_jets, 8).
        settings: Distortions and classifier.
        seed: Of everything.
        store: Where the classifiers are kept. A killed run continues.
        stage: Name, version, inputs, and the configuration that `observables` follow from.
        label: What the progress line calls the work; no line when empty.

    Returns:
        (case, repetition) -> pair, for `CASES`, and for the tail cut seen by classifiers
        without the mass (`WITHHELD`, repetition 0).
    """
    mass = observables[:, JET_OBSERVABLES.index("mass")]
    distortions = settings.distortions(mass)
    samples, tasks = {}, []
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
        tasks.append(PairTask(f"{case} {repetition}", *inputs, seed=seed + repetition))
    distorted = {"mass_cut": settings.mass_cut, "smear": settings.smear}
    distorted |= {"shift": list(settings.shift), "pairs_version": CODE_VERSION}
    fits = cross_fit_pairs(
        tasks,
        settings=settings.classifier,
        n_folds=settings.n_folds,
        n_members=settings.n_members,
        store=store,
        stage=Stage(stage.name, stage.version, {**stage.configuration, **distorted}, stage.inputs),
        label=label,
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
N_PARTS = 5  # of a half: one for validation, the others for training
# Of truth and of generated jets.
Rows = list[NDArray[np.intp]]


def particlenet_pair(
    jets: Jets,
    pair: JetPair,
    *,
    settings: particlenet.ParticleNetSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> JetPair:
    """Weigh both samples by ParticleNet-Lite, each half by the networks of the other half.

    The logits are kept, the networks only here: they are large.

    Args:
        jets: The jets that `pair` counts.
        pair: Two samples of them; its weights are not used.
        settings: The trainings for either half.
        seed: Of the division and the trainings.
        store: Where the logits are kept. A killed run continues with the epoch it was in.
        stage: Name, version, inputs, and the configuration that `jets` follow from.

    Returns:
        The pair with these weights.
    """
    own = Stage(
        f"{stage.name}-networks",
        stage.version,
        {**stage.configuration, **_configuration(pair, seed)},
        stage.inputs,
    )
    networks = ArtefactStore(published=store.published, local=store.local, fresh=store.fresh)

    def compute() -> Arrays:
        def inputs(rows: NDArray[np.intp]) -> Particles:
            return particle_inputs(jets.particles[rows], jets.jets[rows])

        scores = []
        for half, (train, validation, scored) in enumerate(_halves(pair, seed)):
            fits = particlenet.fit_particlenets(
                [inputs(rows) for rows in train],
                [inputs(rows) for rows in validation],
                settings=settings,
                seed=_seed(seed, half),
                store=networks,
                stage=replace(own, configuration={**own.configuration, "half": half}),
                label=f"ParticleNet-Lite, half {half + 1} of 2",
            )
            scores.append([particlenet.particlenet_logits(fits, inputs(rows)) for rows in scored])
        truth, generated = _joined(pair, seed, scores)
        return {"truth": truth.astype(np.float32), "generated": generated.astype(np.float32)}

    added = {"particlenet": {**asdict(settings), "code_version": particlenet.CODE_VERSION}}
    configuration = {**stage.configuration, **_configuration(pair, seed), **added}
    arrays = store.load_or_compute(replace(stage, configuration=configuration), compute)
    return _weighed(pair, [arrays["truth"], arrays["generated"]])


def mlp_pair(
    observables: np.ndarray,
    pair: JetPair,
    *,
    settings: classifier.ClassifierSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> JetPair:
    """Weigh both samples by a multilayer perceptron trained on the jets of `particlenet_pair`.

    Args:
        observables: Of the jets that `pair` counts, shape (n_jets, n_features).
        pair: Two samples of them; its weights are not used.
        settings: Network and training for either half.
        seed: Of the division and the trainings; the same seed, the same division.
        store: Where the networks are kept.
        stage: Name, version, inputs, and the configuration that `observables` follow from.

    Returns:
        The pair with these weights.
    """
    halves = _halves(pair, seed)

    def compute() -> Arrays:
        arrays: Arrays = {}
        for half, (train, validation, _) in enumerate(halves):
            fit = classifier.fit_classifier(
                observables[train[0]],
                observables[train[1]],
                validation_truth=observables[validation[0]],
                validation_generated=observables[validation[1]],
                settings=settings,
                seed=_seed(seed, half),
            )
            named = classifier.classifier_to_arrays(fit)
            arrays |= {f"{half}.{name}": array for name, array in named.items()}
        return arrays

    added = {"classifier": {**asdict(settings), "code_version": classifier.CODE_VERSION}}
    configuration = {**stage.configuration, **_configuration(pair, seed), **added}
    arrays = store.load_or_compute(replace(stage, configuration=configuration), compute)
    scores = []
    for half, (_, _, scored) in enumerate(halves):
        own = {k[2:]: array for k, array in arrays.items() if k.startswith(f"{half}.")}
        network = classifier.classifier_from_arrays(own, settings).classifier
        scores.append([classifier.ensemble_logits([network], observables[r]) for r in scored])
    return _weighed(pair, _joined(pair, seed, scores))


def _parts(pair: JetPair, seed: int) -> list[NDArray[np.intp]]:
    """Divide both samples into halves of `N_PARTS` parts: the part of each jet."""
    sizes = [len(pair.truth), len(pair.generated)]
    return fold_numbers(sizes, n_folds=2 * N_PARTS, seed=seed)


def _halves(pair: JetPair, seed: int) -> list[tuple[Rows, Rows, Rows]]:
    """Return for each half who trains (of the other half), validates (likewise) and is scored."""
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
