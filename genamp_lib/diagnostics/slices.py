"""Events in ranges of the classifier weight: where a generator is wrong, and how surely.

Not for histograms of these events: they are the caller's, through the indices of a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from genamp_lib.diagnostics._events import EventWeights, local_counts, scaled
from genamp_lib.diagnostics.weights import check_weights

SampleName = Literal["truth", "generated"]


@dataclass(frozen=True)
class WeightSlice:
    """Events of both samples with low <= w <= high, and which of them to look at.

    Attributes:
        sample: The sample whose events show the effect: "generated" for small weights (what the
            generator makes too often), "truth" for large weights (what it makes too rarely).
        low: Smallest weight of the slice.
        high: Largest weight of the slice; may be infinite.
        indices: Positions of the slice's events in that sample, ascending.
        n_truth: Truth events in the slice; of weighted events a number that says as much, and so
            below.
        n_generated: Generated events in the slice.
        n_truth_total: Truth events in all.
        n_generated_total: Generated events in all.
    """

    sample: SampleName
    low: float
    high: float
    indices: np.ndarray = field(repr=False, compare=False)
    n_truth: float
    n_generated: float
    n_truth_total: float
    n_generated_total: float

    @property
    def fraction(self) -> float:
        """Fraction of `sample` that lies in the slice."""
        count, total = self._counts()
        return count / total

    def significance(self, *, cross_fitted: bool = False) -> float:
        """Excess of `sample` in the slice, in standard deviations of the null.

        The null: both samples are of one density, and the events in the slice were shared out
        between them by chance. Given how many events there are in all and in the slice, the number
        from `sample` is hypergeometric. Cross-fitted weights need twice this variance, see
        `auc_interval`.

        Raises:
            ValueError: All or none of the events are in the slice: nothing was shared out.
        """
        count, total = self._counts()
        n_all = self.n_truth_total + self.n_generated_total
        n_slice = self.n_truth + self.n_generated
        if n_slice in (0, n_all):
            raise ValueError(
                f"the slice must hold some but not all events, got {n_slice} of {n_all}; "
                "move its edges."
            )
        rate = total / n_all
        variance = n_slice * rate * (1.0 - rate) * (n_all - n_slice) / (n_all - 1)
        return (count - n_slice * rate) / math.sqrt(variance * (2.0 if cross_fitted else 1.0))

    def to_dict(self) -> dict[str, Any]:
        """Return the slice as plain numbers, without the indices."""
        names = ("sample", "low", "high", "n_truth", "n_generated")
        names += ("n_truth_total", "n_generated_total", "fraction")
        return {name: getattr(self, name) for name in names}

    def _counts(self) -> tuple[float, float]:
        if self.sample == "truth":
            return self.n_truth, self.n_truth_total
        return self.n_generated, self.n_generated_total


def weight_slices(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    small: float | None = None,
    large: float | None = None,
    n_small: int | None = None,
    n_large: int | None = None,
    event_weights: EventWeights | None = None,
) -> tuple[WeightSlice, WeightSlice]:
    """Take the small-weight slice of the generated and the large-weight slice of the truth sample.

    As in paper B, events with small weights are taken from the generated sample, where they are
    too many, and events with large weights from the truth sample, where the generator misses them.
    Each slice is given by its edge or by how many events of its sample it shall hold; events whose
    weight equals that of the last one are in the slice too.

    Args:
        truth: Weights of the truth events, shape (n_truth,).
        generated: Weights of the generated events, shape (n_generated,).
        small: The small slice is w <= small.
        large: The large slice is w >= large.
        n_small: Instead of `small`: this many generated events with the smallest weights.
        n_large: Instead of `large`: this many truth events with the largest weights.
        event_weights: Weights of the events themselves, as for `auc_from_weights`.

    Returns:
        The small and the large slice.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight; not exactly one of
            `small` and `n_small`, or of `large` and `n_large`, is given; a number of events is
            outside 1 ... size of the sample.

    >>> small, large = weight_slices([0.9, 1.0, 5.0, 9.0], [0.8, 0.9, 1.0], small=0.9, n_large=2)
    >>> small
    WeightSlice(sample='generated', low=0.0, high=0.9, n_truth=1, n_generated=2,
                n_truth_total=4, n_generated_total=3)
    >>> large.low, large.indices
    (5.0, array([2, 3]))
    """
    truth, generated = check_weights(truth, generated)
    high = _edge("small", small, n_small, np.sort(generated))
    low = _edge("large", large, n_large, np.sort(truth)[::-1])
    own = scaled(event_weights, len(truth), len(generated))
    return (
        _slice("generated", truth, generated, 0.0, high, own),
        _slice("truth", truth, generated, low, math.inf, own),
    )


def binomial_interval(count: int, total: int, *, confidence: float = 0.6827) -> tuple[float, float]:
    """Give Wilson's interval for a fraction count / total.

    Raises:
        ValueError: `total` is not positive or `count` is outside 0 ... total.

    >>> low, high = binomial_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.766, 0.961)
    """
    if total < 1 or not 0 <= count <= total:
        raise ValueError(f"`count` must be in 0 ... `total` > 0, got {count} of {total}.")
    interval = binomtest(int(count), int(total)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _edge(name: str, edge: float | None, count: int | None, ordered: np.ndarray) -> float:
    if (edge is None) == (count is None):
        given = "neither" if edge is None else "both"
        raise ValueError(f"exactly one of `{name}` and `n_{name}` must be given, got {given}.")
    if count is None:
        if not edge >= 0.0:
            raise ValueError(f"`{name}` must be a weight, not negative, got {edge}.")
        return float(edge)
    if not 1 <= count <= len(ordered):
        raise ValueError(f"`n_{name}` must be in 1 ... {len(ordered)}, got {count}.")
    return float(ordered[count - 1])


def _slice(
    sample: SampleName,
    truth: np.ndarray,
    generated: np.ndarray,
    low: float,
    high: float,
    own: tuple[np.ndarray, np.ndarray] | None,
) -> WeightSlice:
    inside = [(weights >= low) & (weights <= high) for weights in (truth, generated)]
    counts = [(int(chosen.sum()), len(chosen)) for chosen in inside]
    if own is not None:
        counts = [
            tuple(map(float, local_counts(u[chosen].sum(), (u[chosen] ** 2).sum(), u.sum())))
            for u, chosen in zip(own, inside, strict=True)
        ]
    return WeightSlice(
        sample=sample,
        low=low,
        high=high,
        indices=np.flatnonzero(inside[0 if sample == "truth" else 1]),
        n_truth=counts[0][0],
        n_generated=counts[1][0],
        n_truth_total=counts[0][1],
        n_generated_total=counts[1][1],
    )
