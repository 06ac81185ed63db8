"""Classifiers of training against generated rings, and the true likelihood ratio; for chapter 03.

Not for scans over the number of generated events: studies.ring_distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genamp_lib.datasets import Ring, radius
from genamp_lib.models.classifier import Classifier
from genamp_lib.models.mixture_transformer import MixtureTransformer
from genamp_lib.models.region_probabilities import region_probabilities
from genamp_lib.training.classifier import ClassifierSettings, ensemble_logits, fit_classifier
from genamp_lib.training.cross_fit import cross_fitted_logits

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RingClassifiers:
    """Classifiers of training against generated events, and what they say of an event.

    All return log(p_generated/p_train), shape (n_events,).

    Attributes:
        folds: Of the cross-fitting, one per fold; `crossed` uses them in turn.
        own: Trained and chosen on all training events, so that it knows those that it scores.
        half: Trained on the first half of them.
        crossed_train: Scores of all training events by `folds`, each by one that never saw it.
        half_train: Scores of the second half by `half`.
    """

    folds: tuple[Classifier, ...]
    own: Classifier
    half: Classifier
    crossed_train: Values
    half_train: Values

    def crossed(self, events: np.ndarray) -> Values:
        """Score new events by one fold's classifier each: the same mixture as `crossed_train`."""
        scores, n = np.empty(len(events)), len(self.folds)
        for k, classifier in enumerate(self.folds):
            scores[k::n] = score(classifier, events[k::n])
        return scores


def score(classifier: Classifier, events: np.ndarray) -> Values:
    """Return log(p_generated/p_train) of events by one classifier."""
    return -ensemble_logits([classifier], events)


def fit_ring_classifiers(
    train: np.ndarray,
    generated: np.ndarray,
    *,
    settings: ClassifierSettings,
    n_folds: int = 5,
    seed: int,
) -> RingClassifiers:
    """Fit the classifiers of one training sample against one generated sample.

    Args:
        train: Training events within the window.
        generated: Generated events within the window, used for nothing else.
        settings: Network and training of each.
        n_folds: Of the cross-fitting, at least 3.
        seed: Of the trainings.

    Raises:
        ValueError: There are too few events.
    """
    crossed = cross_fitted_logits(train, generated, settings=settings, seed=seed, n_folds=n_folds)
    own = fit_classifier(
        train,
        generated,
        validation_truth=train,
        validation_generated=generated,
        settings=settings,
        seed=seed,
    )
    middle, fitted = len(train) // 2, int(0.4 * len(train))
    most = int(0.8 * len(generated))
    half = fit_classifier(
        train[:fitted],
        generated[:most],
        validation_truth=train[fitted:middle],
        validation_generated=generated[most:],
        settings=settings,
        seed=seed,
    )
    return RingClassifiers(
        folds=tuple(fits[0].classifier for fits in crossed.fits),
        own=own.classifier,
        half=half.classifier,
        crossed_train=-crossed.truth,
        half_train=score(half.classifier, train[middle:]),
    )


def within(events: np.ndarray, window: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which events have a radius inside of the window."""
    radii = radius(events)
    return (radii >= window[0]) & (radii < window[1])


def log_ratio_to_truth(
    model: MixtureTransformer, ring: Ring, events: np.ndarray, window: tuple[float, float]
) -> Values:
    """Return log(p_generated/p_truth), LR_truth, of densities normalised within the window.

    Args:
        model: Networks.
        ring: The truth.
        events: Shape (n_events, n_features), inside of the window.
        window: Radii.

    Returns:
        Shape (n_members, n_events).

    >>> from genamp_lib.models.mixture_transformer import (
    ...     MixtureTransformerSettings, starting_parameters)
    >>> network = MixtureTransformerSettings(2)
    >>> model = MixtureTransformer(network, starting_parameters(network, seeds=[1]))
    >>> ring = Ring(2)
    >>> events = ring.sample(4000, seed=1)
    >>> events = events[within(events, (0.9, 1.1))]
    >>> ratio = np.exp(log_ratio_to_truth(model, ring, events, (0.9, 1.1)))
    >>> bool(abs(ratio.mean() - 1) < 0.05)  # E[p_generated/p_truth] over the truth
    True
    """
    edges = [window[0], window[1]]
    kept = region_probabilities(model, edges).probabilities
    kept_truth = ring.radial_cdf(window[1]) - ring.radial_cdf(window[0])
    with torch.no_grad():
        log_prob = model.log_prob(torch.as_tensor(events, dtype=torch.float32)).double().numpy()
    return log_prob - ring.log_prob(events) - np.log(kept / kept_truth)
