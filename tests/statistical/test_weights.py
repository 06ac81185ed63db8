"""AUC, its interval and the slices against closed forms, with coverage measured.

z = 4.5 standard deviations of a normal distribution are exceeded with probability 7e-6.
"""

import math

import numpy as np
import pytest
from scipy.stats import norm

from genamp_lib.diagnostics import (
    auc_from_weights,
    auc_interval,
    likelihood_ratio_weights,
    weight_slices,
)

Z = 4.5


def half_width(interval):
    return (interval[1] - interval[0]) / 2


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0, 2.0])
def test_auc_of_two_gaussians(shift):
    # log p_truth / p_generated of N(shift, 1) against N(0, 1); AUC = Phi(shift / sqrt 2).
    rng = np.random.default_rng(11)
    x_truth, x_generated = rng.normal(shift, 1.0, 20_000), rng.normal(0.0, 1.0, 30_000)
    truth, generated = (
        likelihood_ratio_weights(shift * x - shift**2 / 2) for x in (x_truth, x_generated)
    )
    error = half_width(auc_interval(truth, generated))
    expected = norm.cdf(shift / math.sqrt(2.0))
    assert abs(auc_from_weights(truth, generated) - expected) <= Z * error
    # The weights carry the generated sample into the truth: mean weight 1, mean x = shift. The
    # largest shift has heavy tails, where the mean of a sample is not normal.
    if 0.0 < shift <= 1.0:
        for values, mean in ((generated, 1.0), (generated * x_generated, shift)):
            assert abs(values.mean() - mean) <= Z * values.std() / math.sqrt(len(values))


def test_auc_of_two_exponentials():
    # P(t > g) = mean_t / (mean_t + mean_g).
    rng = np.random.default_rng(12)
    truth, generated = rng.exponential(1.5, 20_000), rng.exponential(1.0, 10_000)
    error = half_width(auc_interval(truth, generated))
    assert abs(auc_from_weights(truth, generated) - 0.6) <= Z * error
    # A wrong value two percent away is excluded: the test can fail.
    assert abs(auc_from_weights(truth, generated) - 0.62) > Z * error


@pytest.mark.parametrize(("shift", "n_truth", "n_generated"), [(0.0, 150, 100), (1.0, 150, 400)])
def test_interval_covers_as_often_as_it_says(shift, n_truth, n_generated):
    rng = np.random.default_rng(13)
    expected = norm.cdf(shift / math.sqrt(2.0))
    n_repeats, n_covered, n_narrow = 2000, 0, 0
    for _ in range(n_repeats):
        truth = np.exp(rng.normal(shift, 1.0, n_truth))
        generated = np.exp(rng.normal(0.0, 1.0, n_generated))
        low, high = auc_interval(truth, generated)
        centre, half = (low + high) / 2, (high - low) / 2
        n_covered += low <= expected <= high
        n_narrow += abs(centre - expected) <= half / math.sqrt(2.0)
    # Standard deviation of a binomial fraction 0.6827 in 2000: 0.0104.
    assert abs(n_covered / n_repeats - 0.6827) <= Z * 0.0104
    # Half the variance would not do: it covers 52 %.
    assert n_narrow / n_repeats < 0.6827 - Z * 0.0104


@pytest.mark.parametrize(("n_features", "n_folds"), [(8, 5), (8, 3), (1, 3)])
def test_cross_fitting_needs_up_to_twice_the_variance(n_features, n_folds):
    """Two samples of one density, scored along the difference of means of the other folds."""
    rng = np.random.default_rng(14)
    n_repeats, n_events = 1500, 120
    deviations = np.empty(n_repeats)
    for i in range(n_repeats):
        samples = rng.normal(size=(2, n_events, n_features))
        fold = np.arange(n_events) % n_folds
        scores = np.empty((2, n_events))
        for k in range(n_folds):
            direction = np.subtract(*samples[:, fold != k].mean(axis=1))
            direction /= np.linalg.norm(direction)
            scores[:, fold == k] = samples[:, fold == k] @ direction
        truth, generated = np.exp(scores)
        error = half_width(auc_interval(truth, generated))
        deviations[i] = (auc_from_weights(truth, generated) - 0.5) / error
    # The mean square of n normal numbers has a relative standard deviation of sqrt(2 / n) = 0.037;
    # the products here have heavier tails, so 0.06.
    ratio = np.mean(deviations**2)
    assert ratio <= 2.0 * (1.0 + Z * 0.06)
    assert ratio >= 1.2  # and DeLong's variance alone is not enough
    n_covered = np.sum(np.abs(deviations) <= math.sqrt(2.0))
    assert n_covered / n_repeats >= 0.6827 - Z * 0.012
    assert abs(np.mean(deviations)) <= Z * math.sqrt(ratio / n_repeats)


def test_excess_is_standard_normal_when_there_is_none():
    rng = np.random.default_rng(15)
    excesses = np.empty(2000)
    for i in range(len(excesses)):
        truth, generated = rng.exponential(size=900), rng.exponential(size=600)
        _, large = weight_slices(truth, generated, small=0.1, n_large=90)
        excesses[i] = large.significance()
    # Standard deviations of mean and standard deviation of 2000 normal numbers: 0.0224, 0.0158.
    assert abs(excesses.mean()) <= Z * 0.0224 + 0.05  # + the bias of an edge set by the truth
    assert abs(excesses.std() - 1.0) <= Z * 0.0158


def test_excess_finds_a_missing_tail():
    rng = np.random.default_rng(16)
    truth, generated = rng.exponential(size=5000), rng.exponential(size=6000)
    generated = generated[generated < 4.0]
    _, large = weight_slices(truth, generated, small=0.1, large=4.0)
    n_tail = 5000 * math.exp(-4.0)
    assert abs(large.n_truth - n_tail) <= Z * math.sqrt(n_tail)
    assert large.n_generated == 0
    assert large.significance() > Z
