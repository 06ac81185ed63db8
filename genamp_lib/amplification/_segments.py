"""What all accumulators share: chunks, snapshots, merging. Not for results: streaming."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._below import Thresholds, check_values
from genamp_lib.amplification._members import check_positive_integer


class Segments:
    """Counts below thresholds, kept apart for the events between two snapshots."""

    def __init__(
        self, thresholds: NDArray[np.float64], snapshots: Iterable[int], start: int
    ) -> None:
        sizes = [check_positive_integer("snapshots", size) for size in snapshots]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"`snapshots` must increase, got {sizes}.")
        if start < 0 or start != int(start):
            raise ValueError(f"`start` must be a whole number and not negative, got {start}.")
        self._counter = Thresholds(thresholds)
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
            values: One number per event, 1D, any real dtype up to 64 bits. A memory map is read
                block by block.

        Raises:
            ValueError: A value is not finite, or the array is not 1D. Nothing is counted then.
            TypeError: The values are no real numbers.
        """
        values = check_values("values", values)
        parts, done = [], 0
        while done < len(values):
            segment = int(np.searchsorted(self._bounds, self._next + done, side="right")) - 1
            is_last = segment == len(self._bounds) - 1
            room = len(values) if is_last else self._bounds[segment + 1] - self._next - done
            part = values[done : done + room]
            parts.append((segment, len(part), *self._counter.count("values", part)))
            done += len(part)
        for segment, size, below, at_or_below in parts:
            self._sizes[segment] += size
            self._below[segment] += below
            self._at_or_below[segment] += at_or_below
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

    def _complete(self) -> int:
        """Return how many snapshots hold all their events."""
        return int(np.cumprod(self._sizes[:-1] == np.diff(self._bounds)).sum())

    _what = "thresholds"

    @property
    def _identity(self) -> NDArray[np.float64]:
        return self._counter.thresholds
