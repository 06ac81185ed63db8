"""ParticleNet-Lite beside the multilayer perceptron, trained on the same jets, for chapter 06.

For one pair of samples: the first repetition of the tail cut. For all pairs: jet_pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib.chapters.jet_pairs import JetPair
from genamp_lib.datasets.jets import Jets
from genamp_lib.diagnostics import likelihood_ratio_weights
from genamp_lib.models.particlenet import particle_inputs
from genamp_lib.training import classifier, particlenet
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.cross_fit import fold_numbers

# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
N_PARTS = 5  # of a half: one for validation, the others for training
# Rows to train on, to validate with and to score; of truth and of generated jets.
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

    def scores(half: int, train: Rows, validation: Rows, scored: Rows) -> list[np.ndarray]:
        def inputs(rows: NDArray[np.intp]) -> Any:
            return particle_inputs(jets.particles[rows], jets.jets[rows])

        fits = particlenet.fit_particlenets(
            [inputs(rows) for rows in train],
            [inputs(rows) for rows in validation],
            settings=settings,
            seed=_seed(seed, half),
            store=networks,
            stage=replace(own, configuration={**own.configuration, "half": half}),
            progress=None
            if progress is None
            else lambda text: progress(f"half {half + 1}/2, {text}"),
        )
        return [particlenet.particlenet_logits(fits, inputs(rows)) for rows in scored]

    added = {"particlenet": {**asdict(settings), "code_version": particlenet.CODE_VERSION}}
    return _weighed(pair, scores, seed, store, stage, added)


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
        store: Where the logits are kept.
        stage: Name, version, inputs, and the configuration that `observables` follow from.

    Returns:
        The pair with these weights.
    """

    def scores(half: int, train: Rows, validation: Rows, scored: Rows) -> list[np.ndarray]:
        fit = classifier.fit_classifier(
            observables[train[0]],
            observables[train[1]],
            validation_truth=observables[validation[0]],
            validation_generated=observables[validation[1]],
            settings=settings,
            seed=_seed(seed, half),
        )
        return [classifier.ensemble_logits([fit.classifier], observables[rows]) for rows in scored]

    added = {"classifier": {**asdict(settings), "code_version": classifier.CODE_VERSION}}
    return _weighed(pair, scores, seed, store, stage, added)


def _weighed(
    pair: JetPair,
    scores: Callable[[int, Rows, Rows, Rows], list[np.ndarray]],
    seed: int,
    store: ArtefactStore,
    stage: Stage,
    added: dict[str, Any],
) -> JetPair:
    """Score each half by what the other half trained; keep the logits."""

    def compute() -> Arrays:
        samples = (pair.truth, pair.generated)
        parts = fold_numbers([len(rows) for rows in samples], n_folds=2 * N_PARTS, seed=seed)
        logits = [np.empty(len(rows), np.float32) for rows in samples]
        for half in (0, 1):
            own = [numbers // N_PARTS == half for numbers in parts]
            validates = [numbers == N_PARTS * (1 - half) for numbers in parts]
            chosen = (
                [~mine & ~check for mine, check in zip(own, validates, strict=True)],
                validates,
                own,
            )
            rows = [[r[k] for r, k in zip(samples, which, strict=True)] for which in chosen]
            for sample, mine, values in zip(logits, own, scores(half, *rows), strict=True):
                sample[mine] = values
        return {"truth": logits[0], "generated": logits[1]}

    configuration = {**stage.configuration, **_configuration(pair, seed), **added}
    arrays = store.load_or_compute(replace(stage, configuration=configuration), compute)
    logits = (arrays["truth"], arrays["generated"])
    return replace(pair, weights=tuple(likelihood_ratio_weights(x) for x in logits))


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
