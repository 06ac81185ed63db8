"""Generators whose flaw is known exactly: samples with a distorted density of one observable.

The distribution-level distortions of paper B, sec. 3: only the distribution of one observable is
changed, everything at a fixed value of it stays as it is. Then the weight p_truth / p_generated of
an event follows from that observable alone. Not for distorting events themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Distortion:
    """A generator's density over the truth's, as a function of one observable, constant in bins."""

    edges: Array  # increasing, (n_bins + 1,)
    ratio: Array  # p_generated / p_truth in each bin, not negative, (n_bins,)

    def true_weights(self, values: ArrayLike) -> Array:
        """Return p_truth / p_generated of events (n,); infinite where nothing is generated."""
        with np.errstate(divide="ignore"):
            return 1.0 / self.ratio[self._bins(values)]

    def select(self, values: ArrayLike, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which true events, (n,), are chosen so that they follow the distorted density.

        Each is accepted with a probability proportional to its ratio, on average 1 / max(ratio), so
        that none comes twice: copies would make counting errors too small, and could be learned by
        heart.
        """
        bins = self._bins(values)
        return rng.random(len(bins)) * self.ratio.max() < self.ratio[bins]

    def _bins(self, values: ArrayLike) -> NDArray[np.intp]:
        values = np.asarray(values, dtype=np.float64)
        if not ((values >= self.edges[0]) & (values <= self.edges[-1])).all():
            raise ValueError(
                f"`values` must lie in {self.edges[0]:g} ... {self.edges[-1]:g}, got "
                f"{values.min():g} to {values.max():g}."
            )
        return np.clip(np.searchsorted(self.edges, values, "right") - 1, 0, len(self.ratio) - 1)


def cut_distortion(values: ArrayLike, *, cut: float) -> Distortion:
    """Remove all events at or above a cut: the "tail cut" of paper B, sec. 3.

    The `values` of the observable are those of all true events, (n,). With epsilon the fraction of
    them at or above the cut, the ratio below is 1 / (1 - epsilon).

    >>> distortion = cut_distortion([0.1, 0.2, 0.3, 0.4], cut=0.4)
    >>> distortion.true_weights([0.1, 0.4])
    array([0.75,  inf])
    """
    values = np.asarray(values, dtype=np.float64)
    kept = values < cut
    if kept.all() or not kept.any():
        raise ValueError(
            f"`cut` must lie between the values, {values.min():.4g} to {values.max():.4g}, "
            f"got {cut}."
        )
    edges = np.array([values.min(), cut, max(values.max(), np.nextafter(cut, np.inf))])
    return Distortion(edges, np.array([1.0 / kept.mean(), 0.0]))


def product_distortion(
    values: ArrayLike,
    *,
    mean: float,
    width: float,
    n_bins: int = 25,
    largest_ratio: float = 2.0,
) -> Distortion:
    """Multiply an observable by a Gaussian number: "smear" and "shift" of paper B, sec. 3.

    The positive `values` are those of all true events, (n,). As in the paper the distorted density
    is that of a histogram, in equal bins from zero to the largest value. Its expectation is taken
    exactly, without drawing the Gaussian numbers. Products beyond the last edge are left out. The
    ratio of the histograms is cut at `largest_ratio` and normalised again: where the truth has few
    events the ratio of the paper's grows without limit, and so would the number of true events to
    choose from.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not values.min() > 0:
        raise ValueError("`values` must be 1D and positive: they are multiplied.")
    if not width > 0 or not mean > 0:
        raise ValueError(f"`mean` and `width` must be positive, got {mean} and {width}.")
    edges = np.linspace(0.0, values.max(), n_bins + 1)
    counts = np.histogram(values, edges)[0]
    distorted = np.zeros(n_bins + 1)
    for part in np.array_split(values, max(len(values) // 5000, 1)):
        distorted += ndtr((edges / part[:, None] - mean) / width).sum(axis=0)
    ratio = np.ones(n_bins)
    np.divide(np.diff(distorted), counts, out=ratio, where=counts > 0)
    ratio = np.minimum(ratio, largest_ratio)
    return Distortion(edges, ratio * len(values) / (ratio * counts).sum())
