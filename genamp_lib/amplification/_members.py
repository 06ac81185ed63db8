"""Checks of what a user hands to the averaging estimators. Not for arithmetic: _spread."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Probabilities from quadrature may add up to a little more than one; overlapping regions to a lot.
OVERLAP_TOLERANCE = 0.01
# Fewer holdout events than this in a region have no Gaussian error.
FEWEST_HOLDOUT = 5
# chi^2 holds down to this number of expected events.
FEWEST_IN_BIN = 5
# Expected number of pairs of independent members with equal counts, above which equality is chance.
EQUAL_BY_CHANCE = 1e-3


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
    return _check_content("counts", table, most=n_generated, full=n_generated)


def check_weighted_counts(
    counts: ArrayLike, totals: ArrayLike, squares: tuple[ArrayLike, ArrayLike] | None
) -> tuple[NDArray[np.float64], float | NDArray[np.float64], NDArray[np.float64]]:
    """Return fractions (n_members, n_regions), their counting noise, and totals (n_members,).

    The noise is the mean variance over members, (n_regions,), or, where that of all is one number
    of events, this number.
    """
    table = _check_table("counts", counts)
    totals = np.broadcast_to(as_floats("n_generated", totals), len(table))
    pair = (table, totals) if squares is None else squares
    inside, every = (as_floats("squares", one) for one in pair)
    inside = inside.reshape(table.shape) if inside.size == table.size else inside
    if inside.shape != table.shape or every.shape != totals.shape:
        raise ValueError(
            f"`squares` must have the shapes of `counts` and `n_generated`, {table.shape} and "
            f"{totals.shape}, got {inside.shape} and {every.shape}."
        )
    if not (np.isfinite(totals).all() and totals.min() > 0 and table.min() >= 0):
        raise ValueError(
            "`counts` must not be negative and `n_generated` positive, got "
            f"{table.min():.6g} and {totals.min():.6g}; take wider regions where negative weights "
            "outweigh others."
        )
    totals = totals.astype(np.float64)
    fractions = table / totals[:, np.newaxis]
    fractions = _check_content("counts", fractions, most=1 + 1e-9, full=1)
    if np.array_equal(inside, table) and np.unique([totals, every]).size == 1:
        return fractions, float(totals[0]), totals
    # Of a ratio of sums: sum w^2 (1_in - f)^2 over (sum w)^2.
    variances = inside * (1 - 2 * fractions) + fractions**2 * every[:, np.newaxis]
    return fractions, (variances / totals[:, np.newaxis] ** 2).mean(axis=0), totals


def check_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as floats of shape (n_members, n_regions)."""
    table = _check_table("probabilities", probabilities)
    if table.min() < 0 or table.max() > 1:
        raise ValueError(
            f"`probabilities` must be between 0 and 1, got {table.min():.6g} to {table.max():.6g}."
        )
    return _check_content("probabilities", table, most=1 + OVERLAP_TOLERANCE, full=1)


def check_sample_counts(
    name: str, counts: ArrayLike, *, n_regions: int, total: str, n_events: int
) -> NDArray[np.float64]:
    """Return the counts of the training sample or the holdout as floats of shape (n_regions,)."""
    table = np.atleast_1d(as_floats(name, counts))
    if table.shape != (n_regions,):
        raise ValueError(
            f"`{name}` must have one number for each of {n_regions} regions, got shape "
            f"{table.shape}."
        )
    if not (np.isfinite(table).all() and np.all(table == np.rint(table))):
        raise ValueError(f"`{name}` must be integers: events in each region.")
    if table.min() < 0 or table.sum() > n_events:
        raise ValueError(
            f"`{name}` must not be negative and add up to at most {total} = {n_events}, got "
            f"{table.min():.0f} to {table.max():.0f} with the sum {table.sum():.0f}."
        )
    return table


def check_holdout(
    counts: ArrayLike | None, n_holdout: int | None, *, n_regions: int
) -> NDArray[np.float64] | None:
    """Return the holdout's fractions in the regions, shape (n_regions,); None without a holdout."""
    if counts is None and n_holdout is None:
        return None
    if counts is None or n_holdout is None:
        raise ValueError("`holdout_counts` and `n_holdout` must be given together, got one.")
    n_holdout = check_positive_integer("n_holdout", n_holdout)
    table = check_sample_counts(
        "holdout_counts", counts, n_regions=n_regions, total="n_holdout", n_events=n_holdout
    )
    few = np.flatnonzero(np.minimum(table, n_holdout - table) < FEWEST_HOLDOUT)
    if few.size:
        raise ValueError(
            f"`holdout_counts` must have at least {FEWEST_HOLDOUT} events inside and outside each "
            f"region, got fewer for region index {few.tolist()}; take wider regions."
        )
    return table / n_holdout


def check_alarm_counts(
    counts: tuple[ArrayLike, ArrayLike], *, n_members: int, full: float, n_train: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return fractions of the members and counts of the training sample in bins of everything."""
    if not isinstance(counts, tuple | list) or len(counts) != 2:
        raise ValueError(
            "`alarm_counts` must be a pair, the members' counts and the training ones."
        )
    table = _check_table("alarm_counts", counts[0])
    if len(table) != n_members or table.min() < 0:
        raise ValueError(
            f"`alarm_counts` must have a row of numbers >= 0 for each of {n_members} members, got "
            f"{len(table)} rows from {table.min():g} to {table.max():g}."
        )
    train = check_sample_counts(
        "alarm_counts", counts[1], n_regions=table.shape[1], total="n_train", n_events=n_train
    )
    table = table / full
    if abs(table.sum(axis=1) - 1).max() > OVERLAP_TOLERANCE or train.sum() != n_train:
        raise ValueError(
            "`alarm_counts` must hold all events: bins from -inf to inf, alarm_regions."
        )
    fullest = np.maximum(train, table.mean(axis=0) * n_train)
    if len(train) < 2 or fullest.min() < FEWEST_IN_BIN:
        raise ValueError(
            f"`alarm_counts` must have at least two bins and {FEWEST_IN_BIN} training events "
            f"expected in each, got {len(train)} bins and {fullest.min():.3g}; take fewer bins."
        )
    return table, train


def equal_members(fractions: NDArray[np.float64], *, n_events: float) -> tuple[int, int] | None:
    """Return the first two members with equal fractions in all regions; None if chance may do it.

    `n_events` counts the fractions; for exact probabilities it is the number of training events.
    """
    mean = fractions.mean(axis=0)
    variance = np.maximum(n_events * mean * (1 - mean), 1.0)
    pairs = len(fractions) * (len(fractions) - 1) / 2
    if pairs * np.exp(-0.5 * np.log(4 * np.pi * variance).sum()) > EQUAL_BY_CHANCE:
        return None
    seen: dict[bytes, int] = {}
    for number, row in enumerate(fractions):
        first = seen.setdefault(row.tobytes(), number)
        if first != number:
            return first, number
    return None


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


def check_positive(**numbers: float) -> None:
    """Refuse NaN, 0 and negative numbers; infinity passes."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"`{name}` must be positive, got {number}.")


def as_floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return a new array of floats, any shape."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be an array of numbers, got {type(values)}.") from None


def _check_table(name: str, values: ArrayLike) -> NDArray[np.float64]:
    table = as_floats(name, values)
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


def _check_content(
    name: str, table: NDArray[np.float64], *, most: float, full: float
) -> NDArray[np.float64]:
    largest_sum = table.sum(axis=1).max()
    if largest_sum > most:
        raise ValueError(
            f"`{name}` of one member must add up to at most {most:g} over the regions, got "
            f"{largest_sum:g}; regions must not overlap (Eq. 19 of paper A)."
        )
    for content, value in (("no", 0), ("all", full)):
        regions = np.flatnonzero((table == value).all(axis=0))
        if regions.size:
            raise ValueError(
                f"`{name}` must say something on every region, got {content} events in every "
                f"member for region index {regions.tolist()}; leave it out."
            )
    return table
