"""ParticleNet-Lite beside the multilayer perceptron, trained on the same jets, for chapter 06.

For one pair of samples: the first repetition of the tail cut. For all pairs: jet_pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.jets import Jets
from genamp_lib.diagnostics import likelihood_ratio_weights
from genamp_lib.models.particlenet import Particles, particle_inputs
from genamp_lib.studies.jet_pairs import JetPair
from genamp_lib.training import classifier, particlenet
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.cross_fit import fold_numbers

# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
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
    progress: Callable[[str], None] | None = None,
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
        progress: Called with one line of text per epoch.

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
                progress=None if progress is None else partial(_progress, progress, half),
            )
            scores.append([particlenet.particlenet_logits(fits, inputs(rows)) for rows in scored])
        truth, generated = _joined(pair, seed, scores)
        return {"truth": truth.astype(np.float32), "generated": generated.astype(np.float32)}

    added = {"particlenet": {**asdict(settings), "code_version": particlenet.CODE_VERSION}}
    configuration = {**stage.configuration, **_configuration(pair, seed), **added}
    arrays = store.load_or_compute(replace(stage, configuration=configuration), compute)
    return _weighed(pair, [arrays["truth"], arrays["generated"]])


def perceptron_pair(
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


def _progress(report: Callable[[str], None], half: int, text: str) -> None:
    report(f"half {half + 1}/2, {text}")


def _configuration(pair: JetPair, seed: int) -> dict[str, Any]:
    rows = np.concatenate([pair.truth, pair.generated]).astype("<i8").tobytes()
    return {
        "rows": hashlib.sha256(rows).hexdigest(),
        "n_parts": N_PARTS,
        "seed": seed,
        "halves_version": CODE_VERSION,
    }


def _seed(seed: int, half: int) -> int:
    return int(np.random.SeedSequence([seed, half]).generate_state(1)[0])
