"""Differential amplification where the likelihood ratio is known. Not for trained classifiers.

With r = p_generated/p_truth as the statistic, the Kolmogorov-Smirnov distance of infinite samples
is the total variation of the two densities: no region and no other statistic can look worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from genamp_lib.amplification._members import check_confidence, check_positive_integer
from genamp_lib.amplification._numbers import Worth, with_interval
from genamp_lib.amplification._segments import check_values
from genamp_lib.amplification.differential import FEWEST_EVENTS
from genamp_lib.amplification.kolmogorov import KOLMOGOROV_MEAN


@dataclass(frozen=True, repr=False)
class TotalVariationEstimate(Worth):
    """The amplification in the limit of infinite samples of the exact likelihood ratio.

    Attributes:
        amplification: G = <K>^2 / (n_train TV^2); infinite for equal densities.
        interval: (low, high) of G at `confidence`.
        limits: One-sided limits (low, high) of G, each at 97.7 %; the verdict uses them.
        confidence: Confidence level of `interval`.
        n_train: Number of training events.
        n_events: Number of true events that the total variation was averaged over.
        total_variation: TV = E_truth[max(0, 1 - p_generated/p_truth)], between 0 and 1.
        standard_error: Standard error of `total_variation`.
    """

    amplification: float
    interval: tuple[float, float]
    limits: tuple[float, float]
    confidence: float
    n_train: int
    n_events: int
    total_variation: float
    standard_error: float
    _said = ("verdict", "n_equiv")

    @property
    def verdict(self) -> str:
        """Say "amplifies" or "does not amplify" where a one-sided limit leaves out 1."""
        low, high = self.limits
        if low <= 1 <= high:
            return "undecided"
        return "amplifies" if low > 1 else "does not amplify"

    def __repr__(self) -> str:
        return (
            f"<TotalVariationEstimate G = {with_interval(self.amplification, self.interval)} at "
            f"{100 * self.confidence:g} %, {self.verdict}; TV = {self.total_variation:.4g} +- "
            f"{self.standard_error:.2g} from {self.n_events} events, n_train={self.n_train}>"
        )


def total_variation_amplification(
    log_ratio: ArrayLike, *, n_train: int, confidence: float = 0.68
) -> TotalVariationEstimate:
    """Return the amplification from log(p_generated/p_truth) at true events.

    Eq. (36) of paper A in the limit of infinitely many events, with LR_truth as the statistic. The
    densities must be exact and normalised: a classifier sees only part of the difference.

    Args:
        log_ratio: log p_generated(x) - log p_truth(x) at events x of the truth, 1D; -inf where
            nothing is generated.
        n_train: Number of training events.
        confidence: Confidence level of the interval, which is normal in the total variation.

    Raises:
        ValueError: Fewer than 10 events, NaN or +inf, or a number out of range.
        TypeError: The values are no real numbers.

    >>> x = np.random.default_rng(1).normal(size=100_000)
    >>> shifted = -0.5 * (x - 0.1) ** 2 + 0.5 * x**2  # a Gaussian at 0.1 for one at 0
    >>> total_variation_amplification(shifted, n_train=100)
    <TotalVariationEstimate G = 4.72 [4.68, 4.77] at 68 %, amplifies; TV = 0.03997 +- 0.00017 from
    100000 events, n_train=100>
    """
    n_train = check_positive_integer("n_train", n_train)
    confidence = check_confidence(confidence)
    values = check_values("log_ratio", log_ratio).astype(np.float64)
    if len(values) < FEWEST_EVENTS:
        raise ValueError(
            f"`log_ratio` must hold at least {FEWEST_EVENTS} events, got {len(values)}."
        )
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError(
            "`log_ratio` must be a number or -inf, got NaN or +inf: true events have p_truth > 0."
        )
    lacking = -np.expm1(np.minimum(values, 0.0))
    variation = float(lacking.mean())
    error = float(lacking.std(ddof=1)) / math.sqrt(len(values))
    reach = float(ndtri((1 + confidence) / 2)) * error

    def amplification(total: float) -> float:
        total = max(total, 0.0)
        return KOLMOGOROV_MEAN**2 / (n_train * total**2) if total > 0 else math.inf

    interval, limits = (
        (amplification(variation + width), amplification(variation - width))
        for width in (reach, 2 * error)
    )
    return TotalVariationEstimate(
        amplification=amplification(variation),
        interval=interval,
        limits=limits,
        confidence=confidence,
        n_train=n_train,
        n_events=len(values),
        total_variation=variation,
        standard_error=error,
    )
