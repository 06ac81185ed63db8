"""Counts that any number of machines can share: exact integers, in any order. No estimates here.

Events come in chunks of any size and need no memory of their own; counters can be merged. A
snapshot at n, for curves over n_generated, holds the events number 0 to n - 1; a counter of a later
part of the sample says with `start` which event is its first.

>>> whole = KolmogorovAccumulator([0.0, 1.0, 2.0], snapshots=(2, 4))
>>> whole.update([0.5, 1.5, 1.0, 3.0])
>>> first, second = (
...     KolmogorovAccumulator([0.0, 1.0, 2.0], snapshots=(2, 4), start=start) for start in (0, 3)
... )
>>> first.update([0.5, 1.5, 1.0])
>>> second.update([3.0])
>>> second.merge(first)
>>> second.curve()
(array([2, 4]), array([0.33333333, 0.33333333]))
>>> second.distance() == whole.distance()
True
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._event_weights import check_event_weights, effective_count, is_uneven
from genamp_lib.amplification._members import as_floats, check_positive_integer
from genamp_lib.amplification._segments import Segments, check_values, finite_floats, precision_of

N_ALARM_BINS = 20


class KolmogorovAccumulator(Segments):
    """Kolmogorov-Smirnov distance of a sample of any length to a reference, Eq. (33) of paper A.

    Numbers of different types are compared in the coarser one, so that equal numbers of a float32
    and a float64 file are equal. `reference` is the sorted reference sample. Functions of weighted
    events are sums of weights; with negative ones among the generated events the distance is that
    at the reference events.

    Args:
        reference: One number per event of the training or holdout sample, 1D, at least one.
        weights: Weights of these events, negative ones included; None for unweighted ones.
        snapshots: Increasing numbers of events at which `curve` gives the distance.
        start: Index of this accumulator's first event in the whole sample.

    Raises:
        ValueError: The reference is empty, not 1D or not finite, or the snapshots do not increase.
        TypeError: The reference holds no real numbers.

    >>> accumulator = KolmogorovAccumulator([1.0, 2.0, 3.0, 4.0])
    >>> accumulator.update([1.5, 2.5])
    >>> accumulator.update([3.5])
    >>> round(accumulator.distance(), 4)
    0.25
    """

    _what = "reference"

    def __init__(
        self,
        reference: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        snapshots: Iterable[int] = (),
        start: int = 0,
    ) -> None:
        values = check_values("reference", reference)
        if not values.size:
            raise ValueError("`reference` must not be empty, got 0 events.")
        self.reference = np.sort(finite_floats("reference", values).astype(np.float64))
        self.reference.flags.writeable = False
        thresholds, place = np.unique(finite_floats("reference", values), return_inverse=True)
        multiplicity = np.bincount(place)
        self._reference_squares = self._reference_counts = np.cumsum(multiplicity)
        if weights is not None:
            weights = check_event_weights("weights", weights, len(values))
            self._reference_counts, self._reference_squares = (
                np.cumsum(np.bincount(place, power)) for power in (weights, weights**2)
            )
        super().__init__(thresholds.astype(np.float64), snapshots, start, precision_of(values))

    @property
    def _identity(self) -> NDArray[np.float64]:
        return np.append(self.reference, self._reference_counts)

    def _groups(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return first and last of the reference values that are equal in the coarsest type met."""
        with np.errstate(over="ignore"):
            rounded = self._thresholds.astype(self._coarsest)
        last = np.flatnonzero(np.append(rounded[1:] != rounded[:-1], True))
        return np.append(0, last[:-1] + 1), last

    def distance(self) -> float:
        """Return the largest difference of the two empirical distribution functions.

        Equal, to the last bit, to `scipy.stats.ks_2samp(...).statistic`, ties included.

        Raises:
            ValueError: No event was counted.
        """
        tables = self._below.sum(axis=0), self._at_or_below.sum(axis=0)
        return self._distance(*tables, self.totals()[0])

    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return (n_generated, distance) at the snapshots whose events are all counted."""
        sizes, totals, *tables = self._snapshots()
        distances = [self._distance(*row) for row in zip(*tables, totals, strict=True)]
        return sizes, np.array(distances, dtype=np.float64)

    def cumulative_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return reference and generated events at or below each distinct reference value.

        Sums of weights for weighted events.
        """
        _, last = self._groups()
        return self._reference_counts[last], self._at_or_below.sum(axis=0)[last]

    def cumulative_squares(self) -> tuple[NDArray, NDArray]:
        """Return the same of squared weights."""
        _, last = self._groups()
        squares = self._at_or_below if self._weighted is None else self._weighted[2]
        return self._reference_squares[last], squares.sum(axis=0)[last]

    def reference_totals(self) -> tuple[float, float]:
        """Return the sums of the weights of the reference and of their squares."""
        return self._reference_counts[-1].item(), self._reference_squares[-1].item()

    def effective_counts(self) -> tuple[float, float, bool]:
        """Return how many unweighted reference and generated events say as much.

        Also whether weights depend on the statistic; the counts then bound what is known.

        Raises:
            ValueError: The weights of a sample do not add up to more than 0.
        """
        counts, found = [], False
        for name, below, squares, totals in zip(
            ("weights of the reference", "weights of the generated events"),
            self.cumulative_counts(),
            self.cumulative_squares(),
            (self.reference_totals(), self.totals()),
            strict=True,
        ):
            count = effective_count(name, *totals)
            uneven, factor = is_uneven(below, squares, totals)
            counts.append(count * factor if uneven else count)
            found |= uneven
        return *counts, found

    def _distance(self, below: NDArray, at_or_below: NDArray, size: float) -> float:
        if size == 0:
            raise ValueError("`update` must be called with events before the distance is known.")
        # Between two reference values only the generated function grows: its extremes are at the
        # values themselves and just before the next one.
        first, last = self._groups()
        steps = self._reference_counts[last] / self._reference_counts[-1]
        before = np.concatenate([[0.0], steps[:-1]])
        upto, under = at_or_below[last] / size, below[first] / size
        return float(max(np.abs(upto - steps).max(), np.abs(under - before).max()))

    def __repr__(self) -> str:
        return (
            f"<KolmogorovAccumulator n_generated={self.n_generated}, "
            f"reference of {len(self.reference)} events>"
        )


class RegionCounter(Segments):
    """Numbers of events in regions: one row of the counts for `averaging_amplification`.

    Args:
        regions: Increasing edges of adjacent regions, 1D; or (low, high) for each region, shape
            (n_regions, 2), that do not overlap. A region holds low <= x < high; both may be
            infinite.
        snapshots: Increasing numbers of events at which `curve` gives the counts.
        start: Index of this counter's first event in the whole sample.

    Raises:
        ValueError: Regions are empty or overlap, or the snapshots do not increase.
        TypeError: The regions are no real numbers.

    >>> counter = RegionCounter([[0.0, 0.5], [1.0, 2.0]])
    >>> counter.update([0.1, 0.5, 1.0, 1.9, 7.0])
    >>> counter.counts, counter.n_generated
    (array([1, 2]), 5)
    """

    _what = "regions"
    _upto = False

    def __init__(
        self, regions: ArrayLike, *, snapshots: Iterable[int] = (), start: int = 0
    ) -> None:
        self.regions = _check_regions(regions)
        self.regions.flags.writeable = False
        edges = np.unique(self.regions)
        finite = edges[np.isfinite(edges)]
        # A region of everything has no finite edge; any threshold does for it.
        super().__init__(finite if finite.size else np.zeros(1), snapshots, start)
        self._n_finite = len(finite)
        self._low, self._high = (np.searchsorted(finite, side) for side in self.regions.T)

    @property
    def _identity(self) -> NDArray[np.float64]:
        return self.regions

    @property
    def counts(self) -> NDArray[np.int64]:
        """Events in each region, or the sums of their weights, shape (n_regions,)."""
        return self._regions(self._below.sum(axis=0), self.totals()[0])

    @property
    def squares(self) -> NDArray:
        """Sums of the squared weights in each region, shape (n_regions,)."""
        if self._weighted is None:
            return self.counts
        return self._regions(self._weighted[2].sum(axis=0), self.totals()[1])

    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (n_generated, counts) at complete snapshots, counts (n_snapshots, n_regions)."""
        sizes, totals, below, _ = self._snapshots()
        rows = [self._regions(row, total) for row, total in zip(below, totals, strict=True)]
        table = np.array(rows, dtype=self._below.dtype)
        return sizes, table.reshape(len(sizes), len(self.regions))

    def effective(self) -> tuple[NDArray[np.int64], int]:
        """Return counts in the regions and in all of unweighted events that say as much.

        Raises:
            ValueError: The weights do not add up to more than 0.
        """
        if self._weighted is None:
            return self.counts, self.n_generated
        n_events = round(effective_count("weights", *self.totals()))
        upto = np.rint(np.cumsum(self.counts) * (n_events / self.totals()[0]))
        return np.diff(upto, prepend=0.0).astype(np.int64), n_events

    def _regions(self, below: NDArray, size: float) -> NDArray:
        cumulative = np.append(below[: self._n_finite], size)
        low = np.where(np.isneginf(self.regions[:, 0]), 0, cumulative[self._low])
        return cumulative[self._high] - low

    def __repr__(self) -> str:
        return f"<RegionCounter n_generated={self.n_generated}, {len(self.regions)} regions>"


def quantile_regions(values: ArrayLike, n_regions: int) -> NDArray[np.float64]:
    """Return n_regions + 1 edges, from -inf to inf, of equally filled regions.

    Args:
        values: One number per event of the training sample, 1D.
        n_regions: Number of regions.

    Raises:
        ValueError: The sample is empty or not finite, or has too few different values.
        TypeError: The values are no real numbers.

    >>> quantile_regions([1.0, 2.0, 3.0, 4.0, 5.0], 4)
    array([-inf,   2.,   3.,   4.,  inf])
    """
    n_regions = check_positive_integer("n_regions", n_regions)
    values = finite_floats("values", check_values("values", values))
    if not values.size:
        raise ValueError("`values` must not be empty, got 0 events.")
    inner = np.quantile(values.astype(np.float64), np.arange(1, n_regions) / n_regions)
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    n_different = len(np.unique(values))
    if n_regions > n_different or (np.diff(edges) <= 0).any() or values.min() >= edges[1]:
        raise ValueError(
            f"`n_regions` must be small enough for the sample, got {n_regions} regions for "
            f"{n_different} different values."
        )
    return edges


def alarm_regions(values: ArrayLike) -> NDArray[np.float64]:
    """Return edges of up to 20 quantile bins of a training sample, for the joint alarm.

    Args:
        values: One number per event, 1D. Where values repeat or events are few, bins are fewer.

    Returns:
        Edges from -inf to inf; each bin holds at least 5 events. A constant sample has one bin.

    Raises:
        ValueError: The sample is empty or not finite.
        TypeError: The values are no real numbers.

    >>> len(alarm_regions(np.arange(1000.0))), alarm_regions([3.0, 3.0, 3.0])
    (21, array([-inf,  inf]))
    """
    ordered = np.sort(finite_floats("values", check_values("values", values)).astype(np.float64))
    if not ordered.size:
        raise ValueError("`values` must not be empty, got 0 events.")
    least = max(5, len(ordered) // (2 * N_ALARM_BINS))
    kept, done = [], 0
    for edge in np.quantile(ordered, np.arange(1, N_ALARM_BINS) / N_ALARM_BINS):
        below = int(np.searchsorted(ordered, edge))
        if below - done >= least and len(ordered) - below >= least:
            kept.append(edge)
            done = below
    return np.array([-np.inf, *kept, np.inf])


def _check_regions(regions: ArrayLike) -> NDArray[np.float64]:
    table = as_floats("regions", regions)
    if table.ndim == 1:
        if len(table) < 2:
            raise ValueError(f"`regions` must have at least two edges, got {len(table)}.")
        table = np.stack([table[:-1], table[1:]], axis=1)
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise ValueError(
            f"`regions` must be edges, 1D, or have shape (n_regions, 2), got {table.shape}."
        )
    if np.isnan(table).any():
        raise ValueError("`regions` must be numbers, got NaN.")
    wrong = np.flatnonzero(~(table[:, 0] < table[:, 1]))
    if wrong.size:
        low, high = table[wrong[0]]
        raise ValueError(f"`regions` must have low < high, got [{low:g}, {high:g}).")
    ordered = table[np.argsort(table[:, 0])]
    overlap = np.flatnonzero(ordered[:-1, 1] > ordered[1:, 0])
    if overlap.size:
        first, second = ordered[overlap[0]], ordered[overlap[0] + 1]
        raise ValueError(
            f"`regions` must not overlap, got [{first[0]:g}, {first[1]:g}) and "
            f"[{second[0]:g}, {second[1]:g})."
        )
    return table
