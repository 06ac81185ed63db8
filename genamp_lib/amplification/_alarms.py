"""What an interval from few members rests on, checked on the data. Not for intervals: _spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom, chi2, shapiro

# Counts below this are too coarse to look Gaussian.
FEWEST_COUNTS = 25


def normality_p_value(fractions: NDArray[np.float64], *, n_generated: float) -> float:
    """Return the p-value of the Shapiro-Wilk test of one region's integrals, shape (n_members,).

    1 for fewer than three members, equal ones, few counts, or a spread that is mostly counting
    noise.
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

    From fractions (n_members,): the true integral is the members' mean up to their spread, so the
    count is beta-binomial; binomial for members that agree. Members fitted to this sample follow
    it, so that a true alarm is rarer than this says.
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


def joint_p_value(
    fractions: NDArray[np.float64], train: NDArray[np.float64], *, n_generated: float, n_train: int
) -> NDArray[np.float64]:
    """Return the p-value of Pearson's chi^2 of the members' mean against the training sample.

    From fractions (..., n_members, n_bins) and training events (..., n_bins) in bins that cover
    everything. The spread of the members over their number counts as a single mode, the widest law.
    No degree of freedom is taken off for parameters that the sample fixes: the p-value is an upper
    bound.
    """
    n_members, n_bins = fractions.shape[-2:]
    expected = fractions.mean(axis=-2)
    scale = 1 / n_train + 1 / (n_members * n_generated)
    safe = np.maximum(expected, 1e-12)
    statistic = ((train / n_train - expected) ** 2 / safe).sum(axis=-1) / scale
    variance = np.maximum(fractions.var(axis=-2, ddof=1) - expected / n_generated, 0.0)
    scatter = (variance / safe).sum(axis=-1) / (n_members * scale)
    mean = n_bins - 1 + scatter
    size = (n_bins - 1 + 2 * scatter + scatter**2) / mean  # half the variance over the mean
    return chi2.sf(statistic / size, mean / size)
