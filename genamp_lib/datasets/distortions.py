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
        """Return p_truth / p_generated of each event; infinite where nothing is generated.

        Args:
            values: The observable, shape (n,).

        Raises:
            ValueError: A value lies outside the edges.
        """
        with np.errstate(divide="ignore"):
            return 1.0 / self.ratio[self._bins(values)]

    def select(self, values: ArrayLike, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Choose true events so that those chosen follow the distorted density.

        Each is accepted with a probability proportional to its ratio, so that none comes twice:
        copies would make counting errors too small, and could be learned by heart.

        Args:
            values: The observable of true events, shape (n,).
            rng: Source of the choice.

        Returns:
            True for the chosen events, shape (n,), on average 1 / max(ratio) of them.

        Raises:
            ValueError: A value lies outside the edges.
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

    With epsilon the fraction at or above the cut, the ratio below is 1 / (1 - epsilon).

    Args:
        values: The observable of all true events, shape (n,); they define epsilon.
        cut: First value that is removed.

    Raises:
        ValueError: The cut removes no event or all of them.

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

    As in the paper the distorted density is that of a histogram, in equal bins from zero to the
    largest value. Its expectation is taken exactly, without drawing the Gaussian numbers. Products
    beyond the last edge are left out. The ratio of the histograms is cut at `largest_ratio` and
    normalised again: where the truth has few events the ratio of the paper's grows without limit,
    and so would the number of true events to choose from.

    Args:
        values: The observable of all true events, positive, shape (n,); they define the densities.
        mean: Mean of the Gaussian, 1 for a smear.
        width: Its standard deviation.
        n_bins: Bins of the histograms.
        largest_ratio: Largest p_generated / p_truth, up to the normalisation; above 1.

    Raises:
        ValueError: A value is not positive, or an argument is out of range.

    >>> values = np.random.default_rng(1).exponential(size=1000)
    >>> shift = product_distortion(values, mean=1.2, width=0.1, n_bins=8)
    >>> weights = shift.true_weights(values)
    >>> bool(weights[values.argmin()] > 1 > weights[values.argmax()])
    True
    >>> round(float((1 / weights).mean()), 12)
    1.0
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not values.min() > 0:
        raise ValueError("`values` must be 1D and positive: they are multiplied.")
    if not width > 0 or not mean > 0:
        raise ValueError(f"`mean` and `width` must be positive, got {mean} and {width}.")
    if n_bins < 2 or not largest_ratio > 1:
        raise ValueError(
            f"`n_bins` must be at least 2 and `largest_ratio` above 1, got {n_bins} and "
            f"{largest_ratio}."
        )
    edges = np.linspace(0.0, values.max(), n_bins + 1)
    counts = np.histogram(values, edges)[0]
    distorted = np.zeros(n_bins + 1)
    for part in np.array_split(values, max(len(values) // 5000, 1)):
        distorted += ndtr((edges / part[:, None] - mean) / width).sum(axis=0)
    ratio = np.ones(n_bins)
    np.divide(np.diff(distorted), counts, out=ratio, where=counts > 0)
    ratio = np.minimum(ratio, largest_ratio)
    return Distortion(edges, ratio * len(values) / (ratio * counts).sum())
