"""What all accumulators share: exact counts below thresholds, chunks, snapshots, merging."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._members import check_positive_integer

GRID_CELLS = 1 << 16
BLOCK_EVENTS = 1 << 18
LARGEST_EXACT_INTEGER = 1 << 53

FLOAT64 = np.dtype(np.float64)

Counts = NDArray[np.int64]


def check_values(name: str, values: ArrayLike) -> NDArray:
    """Return a 1D array of real numbers, not copied where it was one; finite is not checked."""
    try:
        values = np.asanyarray(values)  # keeps a memory map one
    except ValueError:
        raise ValueError(f"`{name}` must be one-dimensional, got nested lists.") from None
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise TypeError(
            f"`{name}` must be an array of real numbers of at most 64 bits, got {values.dtype}."
        )
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be a plain array, got a masked one; drop what is masked.")
    if values.ndim != 1:
        raise ValueError(
            f"`{name}` must be one-dimensional, one number per event, got shape {values.shape}."
        )
    return values


def finite_floats(name: str, values: NDArray) -> NDArray[np.floating]:
    """Return float32 or float64 without loss; refuse NaN, infinity and too large integers."""
    if not values.size:
        return values.astype(np.float64)
    low, high = values.min(), values.max()  # NaN wins in both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"`{name}` must be finite, got NaN or infinity; "
            "leave such events out of all samples alike, and say so."
        )
    if values.dtype.kind in "iu" and max(-int(low), int(high)) > LARGEST_EXACT_INTEGER:
        raise ValueError(
            f"`{name}` must hold integers up to 2^53, got {max(-int(low), int(high))}."
        )
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def precision_of(values: NDArray) -> np.dtype:
    """Return the type in which numbers were kept; two numbers are compared in the coarser one."""
    return values.dtype if values.dtype.kind == "f" else FLOAT64


def coarser(*types: np.dtype) -> np.dtype:
    """Return the coarsest of floating types."""
    return min(types, key=lambda one: one.itemsize)


class Thresholds:
    """Count how many events lie below, and how many at or below, each of sorted thresholds.

    A fixed monotone map x -> cell of a fine grid is applied to events and thresholds alike: events
    in a cell without a threshold lie strictly between two known ones, whatever rounding does. The
    few others are sorted.
    """

    def __init__(self, thresholds: NDArray[np.float64], precision: np.dtype) -> None:
        """Take finite thresholds in order, at least one, and the type to compare in."""
        self._precision = precision
        with np.errstate(over="ignore"):
            self.thresholds = thresholds = thresholds.astype(precision).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            self._width = (thresholds[-1] - thresholds[0]) / (GRID_CELLS - 3)
        # Too narrow or too wide for a grid in float64: everything is sorted.
        self._has_grid = bool(np.finfo(np.float64).tiny * GRID_CELLS < self._width < np.inf)

    @cached_property
    def _grid(self) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Whether a threshold lies in each cell, and how many lie in earlier ones."""
        occupied = self._cells(self.thresholds)
        is_mixed = np.zeros(GRID_CELLS, dtype=bool)
        is_mixed[occupied] = True
        return is_mixed, np.searchsorted(occupied, np.arange(GRID_CELLS))

    def count(self, name: str, values: NDArray) -> tuple[Counts, Counts]:
        """Return (below, at_or_below), one integer per threshold, for any number of events."""
        below = np.zeros(len(self.thresholds), dtype=np.int64)
        at_or_below = np.zeros_like(below)
        use_grid = self._has_grid and len(values) >= GRID_CELLS // 4
        if use_grid:
            is_mixed, gap_of_cell = self._grid
            content = np.zeros(GRID_CELLS, dtype=np.int64)
        for start in range(0, len(values), BLOCK_EVENTS):
            block = finite_floats(name, np.asarray(values[start : start + BLOCK_EVENTS]))
            with np.errstate(over="ignore"):
                block = block.astype(self._precision, copy=False)
            if use_grid:
                cells = self._cells(block)
                content += np.bincount(cells, minlength=GRID_CELLS)
                block = block[is_mixed[cells]]
            self._sort_and_add(block, below, at_or_below)
        if use_grid:
            content[is_mixed] = 0
            between = np.zeros(len(below) + 1, dtype=np.int64)
            np.add.at(between, gap_of_cell, content)
            between = np.cumsum(between)[:-1]
            below += between
            at_or_below += between
        return below, at_or_below

    def _sort_and_add(self, block: NDArray[np.floating], below: Counts, upto: Counts) -> None:
        block = np.sort(block).astype(np.float64, copy=False)
        if len(block) >= len(self.thresholds):
            below += np.searchsorted(block, self.thresholds, side="left")
            upto += np.searchsorted(block, self.thresholds, side="right")
            return
        # x is below the thresholds from the first one above x on.
        for total, side in ((below, "right"), (upto, "left")):
            first = np.searchsorted(self.thresholds, block, side=side)
            total += np.cumsum(np.bincount(first, minlength=len(total) + 1))[:-1]

    def _cells(self, values: NDArray[np.floating]) -> NDArray[np.intp]:
        # Every step is monotone in floating point too; the first cell takes what lies below.
        with np.errstate(over="ignore"):
            position = np.subtract(values, self.thresholds[0] - self._width, dtype=np.float64)
            position *= 1 / self._width
        np.clip(position, 0, GRID_CELLS - 1, out=position)
        return position.astype(np.intp)


class Segments:
    """Counts below thresholds, kept apart for the events between two snapshots."""

    def __init__(
        self,
        thresholds: NDArray[np.float64],
        snapshots: Iterable[int] = (),
        start: int = 0,
        precision: np.dtype = FLOAT64,
    ) -> None:
        sizes = [check_positive_integer("snapshots", size) for size in snapshots]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"`snapshots` must increase, got {sizes}.")
        if start < 0 or start != int(start):
            raise ValueError(f"`start` must be a whole number and not negative, got {start}.")
        self._thresholds = thresholds
        self._precision = self._coarsest = precision  # of the thresholds, and of all numbers met
        self._counters: dict[np.dtype, Thresholds] = {}
        self._bounds = np.array([0, *sizes], dtype=np.int64)
        self._next = int(start)
        self._sizes = np.zeros(len(self._bounds), dtype=np.int64)
        shape = (len(self._bounds), len(thresholds))
        self._below = np.zeros(shape, dtype=np.int64)
        self._at_or_below = np.zeros(shape, dtype=np.int64)

    @property
    def n_generated(self) -> int:
        """Number of events counted so far, those of merged ones included."""
        return int(self._sizes.sum())

    def update(self, values: ArrayLike) -> None:
        """Count more events.

        Args:
            values: One number per event, 1D, any real dtype up to 64 bits; a memory map is read
                by blocks.

        Raises:
            ValueError: A value is not finite, or the array is not 1D. Nothing is counted then.
            TypeError: The values are no real numbers.
        """
        values = check_values("values", values)
        precision = coarser(self._precision, precision_of(values))
        if precision not in self._counters:
            self._counters[precision] = Thresholds(self._thresholds, precision)
        counter = self._counters[precision]
        parts, done = [], 0
        while done < len(values):
            segment = int(np.searchsorted(self._bounds, self._next + done, side="right")) - 1
            is_last = segment == len(self._bounds) - 1
            room = len(values) if is_last else self._bounds[segment + 1] - self._next - done
            part = values[done : done + room]
            parts.append((segment, len(part), *counter.count("values", part)))
            done += len(part)
        for segment, size, below, at_or_below in parts:
            self._sizes[segment] += size
            self._below[segment] += below
            self._at_or_below[segment] += at_or_below
            self._coarsest = coarser(self._coarsest, precision)
        self._next += done

    def merge(self, other: Any) -> None:
        """Add the counts of an accumulator of other events; `other` is left as it is.

        Args:
            other: Made with equal reference or regions and snapshots, any `start`.

        Raises:
            TypeError: The other one counts something else.
            ValueError: Reference, regions or snapshots differ, or events were counted twice.
        """
        if type(other) is not type(self):
            raise TypeError(f"`other` must be a {type(self).__name__}, got {type(other).__name__}.")
        for name, ours, theirs in (
            (self._what, self._identity, other._identity),
            (self._what, self._precision, other._precision),
            ("snapshots", self._bounds, other._bounds),
        ):
            if not np.array_equal(ours, theirs):
                raise ValueError(f"`other` must have the same {name}, got different ones.")
        sizes = self._sizes + other._sizes
        if (sizes[:-1] > np.diff(self._bounds)).any():
            raise ValueError(
                "`other` must hold other events, got more than fit between two snapshots; "
                "give each accumulator the index of its first event as `start`."
            )
        self._sizes = sizes
        self._below = self._below + other._below
        self._at_or_below = self._at_or_below + other._at_or_below
        self._next = max(self._next, other._next)
        self._coarsest = coarser(self._coarsest, other._coarsest)

    def _snapshots(self) -> tuple[Counts, Counts, Counts]:
        """Return sizes, below and at_or_below of the snapshots whose events are all counted."""
        n = int(np.cumprod(self._sizes[:-1] == np.diff(self._bounds)).sum())
        tables = (np.cumsum(table[:n], axis=0) for table in (self._below, self._at_or_below))
        return self._bounds[1 : n + 1].copy(), *tables
