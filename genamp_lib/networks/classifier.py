"""The classifier of truth against generated events, a multilayer perceptron, and its training.

Not for what its logits mean: genamp_lib.diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import softplus

from genamp_lib.diagnostics import mean_output_logits
from genamp_lib.networks.fitting import (
    LossCurves,
    Standardised,
    check_positive,
    check_table,
    fit_by_epochs,
    fit_from_arrays,
    fit_to_arrays,
    seeded,
)
from genamp_lib.store import Arrays

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1


class Classifier(Standardised):
    """A multilayer perceptron from raw features (n, n_features) to logits (n,), Tab. 1 of paper B.

    The logit is log p_truth / p_generated once it is trained on classes of equal total weight.
    """

    def __init__(self, n_features: int, settings: ClassifierSettings) -> None:
        super().__init__(n_features)
        self.standardised = settings.standardised
        layers: list[nn.Module] = []
        width = n_features
        for _ in range(settings.n_layers):
            layers += [nn.Linear(width, settings.n_hidden), nn.LeakyReLU()]
            layers += [nn.Dropout(settings.dropout)]
            width = settings.n_hidden
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, shape (n,), of features of shape (n, n_features)."""
        if self.standardised:
            features = (features - self.feature_mean) / self.feature_scale
        return self.network(features).squeeze(-1)


@dataclass(frozen=True)
class ClassifierSettings:
    """Network and training, with the optimiser of Tab. 1 of paper B."""

    standardised: ClassVar[bool] = True  # no field, as kept classifiers' keys know of none
    n_layers: int = 3
    n_hidden: int = 64
    dropout: float = 0.1
    n_epochs: int = 30  # the best one on validation events is kept
    batch_size: int = 1000  # both classes together
    learning_rate: float = 1e-3  # of Adam at the start
    decay_factor: float = 0.1  # on the learning rate after `patience` epochs without a better loss
    patience: int = 5

    def __post_init__(self) -> None:
        counts = ("n_layers", "n_hidden", "n_epochs", "batch_size", "patience")
        check_positive(self, *counts, "learning_rate")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1), got {self.dropout}.")
        if not 0.0 < self.decay_factor < 1.0:
            raise ValueError(f"`decay_factor` must be between 0 and 1, got {self.decay_factor}.")


@dataclass(frozen=True)
class RawClassifierSettings(ClassifierSettings):
    """The same for features as they are given, of which some may be constant in training."""

    standardised: bool = False


@dataclass(frozen=True)
class ClassifierFit(LossCurves):
    """A classifier at its best epoch, in evaluation mode, and its cross entropy (with dropout)."""

    classifier: Classifier = field(repr=False)


def fit_classifier(
    train: Sequence[ArrayLike],
    validation: Sequence[ArrayLike],
    *,
    settings: ClassifierSettings,
    seed: int,
    watch: Callable[[int, Classifier], None] | None = None,
) -> ClassifierFit:
    """Fit one classifier of truth (1) against generated (0) events by binary cross entropy.

    Both classes get the same total weight, whatever their sizes: the logit estimates
    log p_truth / p_generated with both densities normalised, Eq. (1) of paper B. Both arguments
    are truth and generated events, (n_events, n_features); those of `validation` choose learning
    rates and the epoch. `watch` is called after each epoch, counted from 1, with the classifier, to
    be read only.
    """
    train, validation = check_events(*train), check_events(*validation, "validation_")
    if train[0].shape[1] != validation[0].shape[1]:
        raise ValueError(
            f"`validation_truth` must have {train[0].shape[1]} features as `truth`, "
            f"got {validation[0].shape[1]}."
        )
    features, checks = torch.cat(train), torch.cat(validation)
    labels = signs_and_weights(*map(len, train))
    check_labels = signs_and_weights(*map(len, validation))
    with seeded(seed):
        classifier = Classifier(features.shape[1], settings)
        if settings.standardised:
            classifier.set_standardisation(features)
        else:  # kept, but not applied: it tells which events the classifier was trained on
            classifier.feature_mean.copy_(features.double().mean(0))
        # foreach: the same numbers with a third less time in networks this small.
        optimiser = torch.optim.Adam(
            classifier.parameters(), lr=settings.learning_rate, foreach=True
        )
        (best,), curves = fit_by_epochs(
            classifier,
            lambda batch: [
                cross_entropies(classifier(features[batch]), *(x[batch] for x in labels)).mean()
            ],
            lambda: cross_entropies(classifier(checks), *check_labels).mean(),
            optimiser,
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, factor=settings.decay_factor, patience=settings.patience
            ),
            name="classifier",
            n_train=len(features),
            n_epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            watch=None if watch is None else lambda epoch: watch(epoch, classifier),
        )
    classifier.load_state_dict(best)
    return ClassifierFit(curves.train_loss, curves.validation_loss, classifier)


def signs_and_weights(n_truth: int, n_generated: int) -> tuple[Tensor, Tensor]:
    """Return 1 for truth and -1 for generated events, and weights of mean one that balance them."""
    sizes = (n_truth, n_generated)
    signs = torch.cat([torch.ones(n_truth), -torch.ones(n_generated)])
    weights = torch.cat([torch.full((n,), 0.5 * sum(sizes) / n) for n in sizes])
    return signs, weights


def cross_entropies(logits: Tensor, signs: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted binary cross entropy of each event, shape (n,)."""
    # -log C = softplus(-logit) for truth, -log(1 - C) = softplus(logit) for generated events.
    return weights * softplus(-signs * logits)


def ensemble_logits(classifiers: Sequence[Classifier], features: ArrayLike) -> np.ndarray:
    """Return the logit of the mean output C of classifiers, (n,), float64, of raw features."""
    inputs = torch.as_tensor(np.asarray(features, dtype=np.float32))
    with torch.no_grad():
        return mean_output_logits([c.eval()(inputs).double().numpy() for c in classifiers])


def classifier_to_arrays(fit: ClassifierFit) -> Arrays:
    """Return all that is needed to rebuild `fit` by `classifier_from_arrays`, as named arrays."""
    return fit_to_arrays(fit.classifier, fit)


def classifier_from_arrays(
    arrays: Mapping[str, np.ndarray], settings: ClassifierSettings
) -> ClassifierFit:
    """Rebuild what `classifier_to_arrays` took apart, fitted with these settings."""
    return ClassifierFit(*fit_from_arrays(Classifier, arrays, settings))


def check_events(truth: ArrayLike, generated: ArrayLike, prefix: str = "") -> list[Tensor]:
    """Return the features of both samples as float32 tensors, or say what is wrong with them."""
    samples = []
    for name, events in ((f"{prefix}truth", truth), (f"{prefix}generated", generated)):
        with np.errstate(over="ignore"):  # infinite in float32, which is said below
            array = np.asarray(events, dtype=np.float32)
        check_table(name, array)
        samples.append(torch.as_tensor(array))
    if samples[0].shape[1] != samples[1].shape[1]:
        raise ValueError(
            f"`{prefix}generated` must have {samples[0].shape[1]} features as `{prefix}truth`, "
            f"got {samples[1].shape[1]}."
        )
    return samples
