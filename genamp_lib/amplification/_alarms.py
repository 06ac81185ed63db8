"""What an interval from few members rests on, checked on the data. Not for intervals: _spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom, shapiro

# Counts below this are too coarse to look Gaussian.
FEWEST_COUNTS = 25


def normality_p_value(fractions: NDArray[np.float64], *, n_generated: float) -> float:
    """Return the p-value of the Shapiro-Wilk test of one region's integrals, shape (n_members,).

    1 where the test cannot see the model: fewer than three members, equal ones, few counts, or a
    spread that is mostly counting noise, which is Gaussian.
    """
    mean = fractions.mean()
    counting = mean * (1 - mean) / n_generated
    if (
        len(fractions) < 3
        or np.ptp(fractions) == 0
        or min(mean, 1 - mean) * n_generated < FEWEST_COUNTS
        or fractions.var(ddof=1) < 2 * counting
    ):
        return 1.0
    return float(shapiro((fractions - mean) / np.ptp(fractions)).pvalue)


def bias_p_value(
    fractions: NDArray[np.float64], train_count: float, *, n_generated: float, n_train: int
) -> float:
    """Return the two-sided probability of the training sample's count in one region.

    The hypothesis: the true integral is the members' mean up to their spread. Then the count is
    beta-binomial; binomial for members that agree. The mean of members that were fitted to this
    sample is correlated with the count, positively, which makes the true probability of an alarm
    smaller than this one.

    Args:
        fractions: Of each member's events, shape (n_members,).
        train_count: Training events in the region.
        n_generated: Generated events per member; infinite for exact probabilities.
        n_train: Training events.
    """
    mean = float(fractions.mean())
    counting = mean * (1 - mean) / n_generated
    # Spread of a member's integral and what the mean still fluctuates with.
    variance = max(float(fractions.var(ddof=1)) - counting, 0.0) + counting / len(fractions)
    widest = mean * (1 - mean)
    concentration = widest / variance - 1 if variance > 0 else np.inf
    if concentration > 1e9:  # beyond this the beta function loses its digits
        law = binom(n_train, mean)
    else:
        concentration = max(concentration, 1e-6)
        law = betabinom(n_train, mean * concentration, (1 - mean) * concentration)
    tail = min(law.cdf(train_count), law.sf(train_count - 1))
    return float(np.clip(2 * tail, 0.0, 1.0))
