"""Checks of what a user hands to the averaging estimators. Not for arithmetic: _spread."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Probabilities from quadrature may add up to a little more than one; overlapping regions to a lot.
OVERLAP_TOLERANCE = 0.01


def check_counts(counts: ArrayLike, *, n_generated: int) -> NDArray[np.float64]:
    """Return counts as floats of shape (n_members, n_regions)."""
    table = _check_table("counts", counts)
    if not np.all(table == np.rint(table)):
        raise ValueError(
            "`counts` must be integers, got fractions; for known probabilities use "
            "averaging_amplification_from_probabilities."
        )
    if table.min() < 0:
        raise ValueError(f"`counts` must not be negative, got {table.min():.0f}.")
    if table.max() > n_generated:
        raise ValueError(
            f"`counts` must be at most n_generated = {n_generated}, got {table.max():.0f}; "
            "n_generated is the number of events of each member."
        )
    _check_overlap("counts", table.sum(axis=1).max(), limit=n_generated)
    _check_informative("counts", table, full=n_generated)
    return table


def check_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as floats of shape (n_members, n_regions)."""
    table = _check_table("probabilities", probabilities)
    if table.min() < 0 or table.max() > 1:
        raise ValueError(
            f"`probabilities` must be between 0 and 1, got {table.min():.6g} to {table.max():.6g}."
        )
    _check_overlap("probabilities", table.sum(axis=1).max(), limit=1 + OVERLAP_TOLERANCE)
    _check_informative("probabilities", table, full=1)
    return table


def check_train_counts(
    train_counts: ArrayLike, *, n_regions: int, n_train: int
) -> NDArray[np.float64]:
    """Return the training sample's counts as floats of shape (n_regions,)."""
    try:
        counts = np.atleast_1d(np.asarray(train_counts, dtype=np.float64))
    except (TypeError, ValueError):
        raise TypeError(
            f"`train_counts` must be an array of numbers, got {type(train_counts)}."
        ) from None
    if counts.shape != (n_regions,):
        raise ValueError(
            f"`train_counts` must have one number for each of {n_regions} regions, got shape "
            f"{counts.shape}."
        )
    if not (np.isfinite(counts).all() and np.all(counts == np.rint(counts))):
        raise ValueError("`train_counts` must be integers: events of the training sample.")
    if counts.min() < 0 or counts.sum() > n_train:
        raise ValueError(
            f"`train_counts` must not be negative and add up to at most n_train = {n_train}, got "
            f"{counts.min():.0f} to {counts.max():.0f} with the sum {counts.sum():.0f}."
        )
    return counts


def check_positive_integer(name: str, value: float) -> int:
    """Return a positive whole number as an int; 1e6 is one, True is not."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        is_whole_float = isinstance(value, float | np.floating) and float(value).is_integer()
        number = int(value) if is_whole_float else operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.") from None
    if number <= 0:
        raise ValueError(f"`{name}` must be positive, got {number}.")
    return number


def check_confidence(confidence: float) -> float:
    """Return a confidence level as a float."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    return float(confidence)


def _check_table(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be an array of numbers, got {type(values)}.") from None
    if table.ndim == 1:
        table = table[:, np.newaxis]
    if table.ndim != 2:
        raise ValueError(
            f"`{name}` must have shape (n_members, n_regions) or (n_members,), got {table.shape}."
        )
    if table.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {table.shape}.")
    if not np.isfinite(table).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
    if len(table) < 2:
        raise ValueError(
            f"`{name}` must hold at least two members, got {len(table)}: the spread of the "
            "members is the measurement."
        )
    return table


def _check_overlap(name: str, largest_sum: float, *, limit: float) -> None:
    if largest_sum > limit:
        raise ValueError(
            f"`{name}` of one member must add up to at most {limit:g} over the regions, got "
            f"{largest_sum:g}; regions must not overlap (Eq. 19 of paper A)."
        )


def _check_informative(name: str, table: NDArray[np.float64], *, full: float) -> None:
    empty = np.flatnonzero((table == 0).all(axis=0))
    whole = np.flatnonzero((table == full).all(axis=0))
    for regions, content in ((empty, "no"), (whole, "all")):
        if regions.size:
            raise ValueError(
                f"`{name}` must say something on every region, got {content} events in every "
                f"member for region index {regions.tolist()}; leave it out."
            )
