"""Distances of two samples that JetNet's users know, beside the weights; one number, no where.

The Wasserstein distance of one observable and the Kolmogorov-Smirnov distance are scipy's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import sqrtm


def frechet_distance(truth: ArrayLike, generated: ArrayLike) -> float:
    """Compute the Frechet distance of two samples, each taken as a Gaussian.

    ``|mean_t - mean_g|^2 + tr(V_t + V_g - 2 (V_t V_g)^(1/2))``, with V the covariances: zero for
    equal means and covariances, whatever else differs. On features of jets it is the "FPD" of
    JetNet's users without their extrapolation to infinite samples; it is positive for finite
    samples of one density, so only its excess over a null run means something. Scale the features
    first: the distance adds up their units.

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).

    Raises:
        ValueError: An array is not 2D with at least two events, not finite, or the numbers of
            features differ.

    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=(50_000, 2))
    >>> round(frechet_distance(truth, truth + [0.5, 0.0]), 6)
    0.25
    """
    samples = [np.asarray(x, dtype=np.float64) for x in (truth, generated)]
    for name, sample in zip(("truth", "generated"), samples, strict=True):
        if sample.ndim != 2 or len(sample) < 2 or not np.isfinite(sample).all():
            raise ValueError(
                f"`{name}` must be finite, (n_events, n_features) with at least two events, got "
                f"shape {sample.shape}."
            )
    if samples[0].shape[1] != samples[1].shape[1]:
        raise ValueError(
            f"`generated` must have {samples[0].shape[1]} features as `truth`, got "
            f"{samples[1].shape[1]}."
        )
    difference = samples[0].mean(axis=0) - samples[1].mean(axis=0)
    first, second = (np.atleast_2d(np.cov(sample.T)) for sample in samples)
    # V_t^(1/2) V_g V_t^(1/2) has the same trace of its root and is symmetric: no complex root.
    root = np.real(sqrtm(first))
    values = np.linalg.eigvalsh(root @ second @ root)
    overlap = np.sqrt(np.maximum(values, 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * overlap)
