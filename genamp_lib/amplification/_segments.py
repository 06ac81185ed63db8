"""What all accumulators share: exact counts below thresholds, chunks, snapshots, merging."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._event_weights import check_event_weights
from genamp_lib.amplification._members import check_positive_integer

GRID_CELLS = 1 << 16
FINE_CELLS = 16  # for each of equal, coarse cells, in the mean
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
    few others are sorted. Cells are finer where thresholds are many, so that tails cost nothing.
    """

    def __init__(self, thresholds: NDArray[np.float64], precision: np.dtype) -> None:
        """Take finite thresholds in order, at least one, and the type to compare in."""
        self._precision = precision
        with np.errstate(over="ignore"):
            self.thresholds = thresholds = thresholds.astype(precision).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            # The far ends, one event in a hundred, share two cells, however far they are.
            end = len(thresholds) // 200
            self._low, high = thresholds[end], thresholds[-1 - end]
            self._width = (high - self._low) / (GRID_CELLS // FINE_CELLS - 3)
        # Too narrow or too wide for a grid in float64: everything is sorted.
        self._has_grid = bool(np.finfo(np.float64).tiny * GRID_CELLS < self._width < np.inf)

    @cached_property
    def _steps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First fine cell in each coarse one, and how many are in it: by the thresholds there."""
        coarse = self._positions(self.thresholds).astype(np.intp)
        n_coarse = GRID_CELLS // FINE_CELLS
        held = np.bincount(coarse, minlength=n_coarse) / len(coarse)
        n_cells = 1 + np.floor(held * (GRID_CELLS - n_coarse))
        return np.cumsum(n_cells) - n_cells, n_cells

    @cached_property
    def _grid(self) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Whether a threshold lies in each cell, and how many lie in earlier ones."""
        occupied = self._cells(self.thresholds)
        is_mixed = np.zeros(GRID_CELLS, dtype=bool)
        is_mixed[occupied] = True
        return is_mixed, np.searchsorted(occupied, np.arange(GRID_CELLS))

    def count(
        self, name: str, values: NDArray, weights: NDArray[np.float64] | None = None
    ) -> tuple[NDArray, NDArray]:
        """Return (below, at_or_below), one number per threshold, for any number of events.

        Numbers are counts, or sums of `weights`.
        """
        kind = np.int64 if weights is None else np.float64
        below = np.zeros(len(self.thresholds), dtype=kind)
        at_or_below = np.zeros_like(below)
        use_grid = self._has_grid and len(values) >= GRID_CELLS // 4
        if use_grid:
            is_mixed, gap_of_cell = self._grid
            content = np.zeros(GRID_CELLS, dtype=kind)
        for start in range(0, len(values), BLOCK_EVENTS):
            part = slice(start, start + BLOCK_EVENTS)
            block = finite_floats(name, np.asarray(values[part]))
            own = None if weights is None else weights[part]
            with np.errstate(over="ignore"):
                block = block.astype(self._precision, copy=False)
            if use_grid:
                cells = self._cells(block)
                content += np.bincount(cells, weights=own, minlength=GRID_CELLS)
                chosen = is_mixed[cells]
                block, own = block[chosen], None if own is None else own[chosen]
            self._sort_and_add(block, own, below, at_or_below)
        if use_grid:
            content[is_mixed] = 0
            between = np.zeros(len(below) + 1, dtype=kind)
            np.add.at(between, gap_of_cell, content)
            between = np.cumsum(between)[:-1]
            below += between
            at_or_below += between
        return below, at_or_below

    def _sort_and_add(
        self,
        block: NDArray[np.floating],
        weights: NDArray[np.float64] | None,
        below: NDArray,
        upto: NDArray,
    ) -> None:
        total = None
        if weights is None:
            block = np.sort(block)
        else:
            order = np.argsort(block, kind="stable")
            block, weights = block[order], weights[order]
            total = np.append(0.0, np.cumsum(weights))
        block = block.astype(np.float64, copy=False)
        for sums, side, other in ((below, "left", "right"), (upto, "right", "left")):
            if len(block) >= len(self.thresholds):
                place = np.searchsorted(block, self.thresholds, side=side)
                sums += place if total is None else total[place]
            else:  # x is below the thresholds from the first one above x on
                first = np.searchsorted(self.thresholds, block, side=other)
                sums += np.cumsum(np.bincount(first, weights, minlength=len(sums) + 1))[:-1]

    def _positions(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        # Every step is monotone in floating point too; the end cells take what lies outside.
        with np.errstate(over="ignore"):
            position = np.subtract(values, self._low - self._width, dtype=np.float64)
            position *= 1 / self._width
        return np.clip(position, 0, GRID_CELLS // FINE_CELLS - 1, out=position)

    def _cells(self, values: NDArray[np.floating]) -> NDArray[np.intp]:
        position = self._positions(values)
        coarse = position.astype(np.int32)
        position -= coarse
        first, n_cells = self._steps
        position *= n_cells.take(coarse)
        position += first.take(coarse)
        return position.astype(np.intp)


class Segments:
    """Counts below thresholds, kept apart for the events between two snapshots."""

    _upto = True  # whether squared weights are those at or below thresholds, or below them

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
        # Sums of weights and of squares in all, and of squares by threshold; None while all are 1.
        self._weighted: tuple[NDArray, NDArray, NDArray] | None = None

    @property
    def n_generated(self) -> int:
        """Number of events counted so far, those of merged ones included."""
        return int(self._sizes.sum())

    @property
    def is_weighted(self) -> bool:
        """Whether events were counted with weights."""
        return self._weighted is not None

    def update(self, values: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Count more events.

        Args:
            values: One number per event, 1D, any real dtype up to 64 bits; a memory map is read
                by blocks.
            weights: One weight per event, negative ones included; each is 1 if not given.

        Raises:
            ValueError: A value or weight is not finite, or shapes do not fit. Nothing is counted
                then.
            TypeError: The values are no real numbers.
        """
        values = check_values("values", values)
        if weights is not None:
            weights = check_event_weights("weights", weights, len(values))
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
            own = None if weights is None else weights[done : done + room]
            parts.append((segment, part, own, *counter.count("values", part, own)))
            done += len(part)
        if weights is not None and self._weighted is None:
            self._weighted = self._of_weights()
            self._below, self._at_or_below = self._below * 1.0, self._at_or_below * 1.0
        for segment, part, own, below, at_or_below in parts:
            self._sizes[segment] += len(part)
            self._below[segment] += below
            self._at_or_below[segment] += at_or_below
            self._coarsest = coarser(self._coarsest, precision)
            if self._weighted is not None:
                squares = (below, at_or_below)
                if own is not None:
                    squares = counter.count("values", part, own**2)
                sums = (len(part),) * 2 if own is None else (own.sum(), (own**2).sum())
                for table, more in zip(self._weighted, (*sums, squares[self._upto]), strict=True):
                    table[segment] += more
        self._next += done

    def _of_weights(self) -> tuple[NDArray, NDArray, NDArray]:
        """Return sums of weights, of their squares, and of squares by threshold, by segment."""
        if self._weighted is not None:
            return self._weighted
        return (
            self._sizes * 1.0,
            self._sizes * 1.0,
            (self._below, self._at_or_below)[self._upto] * 1.0,
        )

    def totals(self) -> tuple[float, float]:
        """Return the sums of weights and of their squares: numbers of events without weights."""
        if self._weighted is None:
            return (self.n_generated,) * 2
        return tuple(float(one.sum()) for one in self._weighted[:2])

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
        if self.is_weighted or other.is_weighted:
            pairs = zip(self._of_weights(), other._of_weights(), strict=True)
            self._weighted = tuple(ours + theirs for ours, theirs in pairs)
        self._sizes = sizes
        self._below = self._below + other._below
        self._at_or_below = self._at_or_below + other._at_or_below
        self._next = max(self._next, other._next)
        self._coarsest = coarser(self._coarsest, other._coarsest)

    def _snapshots(self) -> tuple[Counts, NDArray, NDArray, NDArray]:
        """Return sizes, totals, below and at_or_below of the snapshots that are all counted."""
        n = int(np.cumprod(self._sizes[:-1] == np.diff(self._bounds)).sum())
        totals = self._sizes if self._weighted is None else self._weighted[0]
        tables = (np.cumsum(x[:n], axis=0) for x in (totals, self._below, self._at_or_below))
        return self._bounds[1 : n + 1].copy(), *tables
