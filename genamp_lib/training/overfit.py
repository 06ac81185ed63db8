"""A classifier on two samples of one density, trained for too long: paper B, Fig. 15. Kept.

Not for classifiers that are to be used: they keep their best epoch (training.classifier).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import ArrayLike

from genamp_lib.models.classifier import Classifier
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.classifier import (
    CODE_VERSION,
    ClassifierSettings,
    ensemble_logits,
    fit_classifier,
)


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
    own = {**asdict(settings), "epochs": list(epochs), "seed": seed, "code_version": CODE_VERSION}

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
