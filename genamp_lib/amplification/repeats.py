"""Do generated events repeat training events, or holdout events? Not for distances: differential.

A generator that draws from its training sample looks as good against a holdout as chance made that
sample. Give each generated event to the nearest true one, of the training sample and the holdout
together. The two are samples of one density, so that of events that know neither each true event
gets equally many on average. Equal values of both share what they get.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import betainc, gammaincc

from genamp_lib.amplification._numbers import Record
from genamp_lib.amplification._segments import check_values, coarser, finite_floats, precision_of
from genamp_lib.amplification.streaming import KolmogorovAccumulator

Array = NDArray[np.float64]

# Three sigma, one-sided: the alarms of the differential estimate.
ALARM = 0.00135
# A fit adapts to its training events a little, as it must; repeating them is more than that.
MOST_ADAPTED = 1.2
# An event that gets more than this many times the mean says no more for it: one event at the edge
# of the truth may get all that a generator makes beyond.
MOST_OF_ONE = 4.0
# A holdout that shares events is refused; chance alone does that once in a million.
SHARED = 1e-6


@dataclass(frozen=True, repr=False)
class RepeatedEvents(Record):
    """Whether generated events lie next to training events more often than to holdout events.

    Attributes:
        ratio: Generated events nearest to a training event, in the mean over these, over the same
            for holdout events; near 1 for a generator that repeats nothing.
        p_value: Probability of so large a ratio if the generator had not seen the training sample.
        n_train: Number of training events.
        n_holdout: Number of holdout events.
        n_generated: Number of generated events.
    """

    ratio: float
    p_value: float
    n_train: int
    n_holdout: int
    n_generated: int
    _said = ("found",)

    @property
    def found(self) -> bool:
        """Whether the ratio is too large for chance (three standard deviations) and for a fit."""
        return self.p_value < ALARM and self.ratio > MOST_ADAPTED

    def __repr__(self) -> str:
        return (
            f"<RepeatedEvents {'found' if self.found else 'not found'}: {self.ratio:.3g} times as "
            f"many generated events next to a training event as next to a holdout event, "
            f"p = {self.p_value:.2g}>"
        )


class RepeatCounter(KolmogorovAccumulator):
    """Counts of generated events beside each true event, for samples of any length; exact.

    Each generated event counts half for either neighbour, and whole for a true event of equal
    value: a monotone map of the statistic changes nothing.

    Args:
        train: One number per event of the training sample, 1D.
        holdout: The same for true events that the generator has not seen.

    Raises:
        ValueError: A sample is empty, not 1D or not finite, or both share events.
        TypeError: A sample holds no real numbers.

    >>> rng = np.random.default_rng(1)
    >>> train, holdout = rng.normal(size=1000), rng.normal(size=5000)
    >>> counter = RepeatCounter(train, holdout)
    >>> counter.update(rng.choice(train, 10_000) + rng.normal(0, 1e-5, size=10_000))
    >>> counter.repeats().found
    True
    """

    _what = "samples"

    def __init__(self, train: ArrayLike, holdout: ArrayLike) -> None:
        samples = [check_values(*pair) for pair in (("train", train), ("holdout", holdout))]
        precision = coarser(*map(precision_of, samples))
        samples = [
            finite_floats(name, values).astype(precision)
            for name, values in zip(("train", "holdout"), samples, strict=True)
        ]
        self._of_train, self._of_holdout, _ = _multiplicities(*samples)
        super().__init__(np.concatenate(samples))

    @property
    def _identity(self) -> Array:
        return np.append(self.reference, self._of_train)

    def update(self, values: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Count more events, each once: weights do not tell whether an event repeats another."""
        super().update(values)

    def repeats(self) -> RepeatedEvents:
        """Return what the events counted so far say."""
        first, last = self._groups()
        below = self._below.sum(axis=0)[first].astype(np.float64)
        upto = self._at_or_below.sum(axis=0)[last].astype(np.float64)
        between = np.append(below, self.n_generated) - np.append(0.0, upto)
        between[1:-1] /= 2  # outside there is only one neighbour
        return _repeats(
            upto - below + between[:-1] + between[1:],
            np.add.reduceat(self._of_train, first),
            np.add.reduceat(self._of_holdout, first),
        )

    def __repr__(self) -> str:
        return f"<RepeatCounter n_generated={self.n_generated}>"


def repeated_events(train: ArrayLike, generated: ArrayLike, holdout: ArrayLike) -> RepeatedEvents:
    """Compare generated with training events: do they lie nearer than to holdout events?

    The p-value is that of a permutation of the labels "training" and "holdout".

    Args:
        train: Training events, shape (n,), or (n, d) for d features.
        generated: Generated events, with the same features.
        holdout: True events that the generator has not seen, best more than training events.

    Raises:
        ValueError: A sample is empty or not finite, shapes do not fit, or train and holdout share
            events.
        TypeError: A sample holds no real numbers.

    >>> rng = np.random.default_rng(1)
    >>> train, holdout, honest = (rng.normal(size=(n, 3)) for n in (500, 2000, 5000))
    >>> repeated_events(train, honest, holdout).found
    False
    >>> repeated_events(train, train[rng.integers(500, size=5000)], holdout)
    <RepeatedEvents found: inf times as many generated events next to a training event as next to a
    holdout event, p = 5.5e-159>
    """
    tables = {"train": train, "generated": generated, "holdout": holdout}
    tables = {name: np.asanyarray(values) for name, values in tables.items()}
    if tables["train"].ndim == 1:
        counter = RepeatCounter(train, holdout)
        counter.update(generated)
        return counter.repeats()
    precision = coarser(*(precision_of(table) for table in tables.values()))
    for name, table in tables.items():
        if table.ndim != 2 or table.shape[1:] != tables["train"].shape[1:] or not len(table):
            raise ValueError(
                f"`{name}` must have shape (n, d), as `train` has, or all (n,), got {table.shape}."
            )
        flat = finite_floats(name, check_values(name, table.ravel()))
        tables[name] = flat.reshape(table.shape).astype(precision).astype(np.float64)
    of_train, of_holdout, places = _multiplicities(tables["train"], tables["holdout"])
    scale = np.concatenate([tables["train"], tables["holdout"]]).std(axis=0)
    scale[scale == 0] = 1.0
    _, nearest = cKDTree(places / scale).query(tables["generated"] / scale)
    return _repeats(np.bincount(nearest, minlength=len(places)), of_train, of_holdout)


def _multiplicities(train: Array, holdout: Array) -> tuple[Array, Array, Array]:
    """Return each sample's events at each distinct place; refuse more shared ones than by ties."""
    for name, sample in (("train", train), ("holdout", holdout)):
        if not len(sample):
            raise ValueError(f"`{name}` must not be empty, got 0 events.")
    pool = np.concatenate([train, holdout])
    places, index = np.unique(pool, axis=0, return_inverse=True)
    index = index.ravel()
    of_train, of_holdout = (
        np.bincount(part, minlength=len(places)).astype(np.float64)
        for part in (index[: len(train)], index[len(train) :])
    )
    both = of_train + of_holdout
    n_pairs = (both * (both - 1)).sum() / 2
    p = len(train) / len(pool)
    split = 2 * p * (1 - p) * len(pool) / (len(pool) - 1)
    overlap = (both * (both - 1) * (both - 2)).sum() * (p * (1 - p) - split**2)
    spread = 1 + max(overlap, 0.0) / max(n_pairs * split * (1 - split), 1.0)
    found, n_pairs = (of_train * of_holdout).sum() / spread, n_pairs / spread
    if found > n_pairs * split and betainc(found, n_pairs - found + 1, split) < SHARED:
        shared = int(np.minimum(of_train, of_holdout).sum())
        raise ValueError(
            f"`holdout` must share no events with `train`, got {shared} events that equal training "
            "events, more than ties explain; leave those out."
        )
    return of_train, of_holdout, places


def _repeats(nearest: NDArray, of_train: Array, of_holdout: Array) -> RepeatedEvents:
    n_train, n_holdout, n_generated = of_train.sum(), of_holdout.sum(), float(nearest.sum())
    if not n_generated:
        raise ValueError("`generated` must not be empty, got 0 events.")
    n, both = n_train + n_holdout, of_train + of_holdout
    score = np.minimum(nearest / both, 1 + MOST_OF_ONE * n_generated / n)
    mean = (both * score).sum() / n
    variance = n_train * n_holdout / n * (both * (score - mean) ** 2).sum() / (n - 1)
    trained, held = (of_train * score).sum(), (of_holdout * score).sum() / n_holdout
    expected = n_train * mean
    return RepeatedEvents(
        ratio=float(trained / n_train / held) if held > 0 else math.inf,
        # A gamma law: near Gaussian for many hits, and as skew as few hits are.
        p_value=float(gammaincc(expected**2 / variance, trained * expected / variance))
        if variance > 0
        else 1.0,
        n_train=int(n_train),
        n_holdout=int(n_holdout),
        n_generated=int(n_generated),
    )
