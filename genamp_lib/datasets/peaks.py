"""Where a mass peak is and how wide, with errors: to check events by. Not for measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BINS_PER_BANDWIDTH = 5


@dataclass(frozen=True)
class Peak:
    """The highest place of a smoothed distribution.

    Attributes:
        position: Where it is.
        position_error: One standard deviation, from bootstrap samples.
        width: Full width at half of the maximum.
        width_error: One standard deviation, from bootstrap samples.
    """

    position: float
    position_error: float
    width: float
    width_error: float


def find_peak(
    values: ArrayLike,
    low: float,
    high: float,
    *,
    bandwidth: float,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Peak:
    """Find the maximum of a distribution and the width at half of it; no shape is assumed.

    The distribution is smoothed by a Gaussian of standard deviation `bandwidth`, which makes a
    Gaussian peak of standard deviation s wider by the factor (1 + (bandwidth / s)^2)^(1/2). What
    is below the peak counts as part of it.

    Args:
        values: Masses, shape (n,).
        low: Lower edge of where to look.
        high: Upper edge.
        bandwidth: Width of the smoothing; a third of the peak's width broadens it by 5 %.
        n_bootstrap: Number of bootstrap samples.
        seed: Seed of the bootstrap samples.

    Raises:
        ValueError: There is nothing between the edges, or the distribution does not fall to half
            of its maximum on both sides between them.

    >>> masses = np.random.default_rng(1).normal(80.4, 8.0, size=20_000)
    >>> peak = find_peak(masses, 40, 120, bandwidth=2.0)
    >>> abs(peak.position - 80.4) < 3 * peak.position_error < 2
    True
    >>> abs(peak.width - (8 * np.log(2) * (8.0**2 + 2.0**2)) ** 0.5) < 3 * peak.width_error < 3
    True
    """
    n_bins = int(np.ceil((high - low) / bandwidth * _BINS_PER_BANDWIDTH))
    counts, edges = np.histogram(values, n_bins, range=(low, high))
    if not counts.any():
        raise ValueError(f"`values` must have some between {low:g} and {high:g}, got none.")
    centres = (edges[:-1] + edges[1:]) / 2
    resampled = np.random.default_rng(seed).poisson(counts, size=(n_bootstrap, n_bins))
    (position, *positions), (width, *widths) = _maxima(
        np.concatenate([counts[None], resampled]), centres
    )
    if not np.isfinite(width):
        raise ValueError(
            f"no peak between {low:g} and {high:g}: the distribution must fall to half of its "
            f"maximum, at {position:.4g}, on both sides."
        )
    return Peak(float(position), float(np.std(positions)), float(width), float(np.nanstd(widths)))


def _maxima(counts: NDArray, centres: NDArray) -> tuple[NDArray, NDArray]:
    """Return places of the maxima, and widths at half of them, NaN where there is none."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(counts.astype(np.float64), _BINS_PER_BANDWIDTH, mode="nearest")
    top = smooth.argmax(axis=1)
    below = smooth < smooth.max(axis=1, keepdims=True) / 2
    bins = np.arange(counts.shape[1])
    left = np.where(below & (bins < top[:, None]), bins, -1).max(axis=1)
    right = np.where(below & (bins > top[:, None]), bins, len(bins)).min(axis=1)
    exists = (left >= 0) & (right < len(bins))
    # The crossing lies between two bins: take the middle on both sides.
    bin_width = centres[1] - centres[0]
    return centres[top], np.where(exists, (right - left - 1) * bin_width, np.nan)
