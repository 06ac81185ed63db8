"""Alarms, holdouts and rare regions of averaging amplification: are their error rates as stated?

Thresholds: the rate that is claimed, plus 4.5 binomial standard errors: false alarms below 1e-5 if
the claim holds exactly, less where it is an upper bound. All seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from genamp_lib import true_averaging_amplification
from genamp_lib.amplification import averaging_intervals
from genamp_lib.amplification._alarms import joint_p_value
from genamp_lib.amplification.averaging_estimate import JOINTLY_CONTRADICTED
from genamp_lib.amplification.pseudo_experiments import truth_quantiles
from genamp_lib.amplification.truth import amplification_tail, mean_square_interval
from genamp_lib.studies import ch10_misspecified as study

QUANTILES = truth_quantiles(20)


def limit(rate: float, n: int) -> float:
    return rate + 4.5 * math.sqrt(rate * (1 - rate) / n)


def gaussian_members(
    rng: np.random.Generator, sample: np.ndarray, n_members: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of the samples in 20 quantiles, and of bootstrap fits the probabilities."""
    n = sample.shape[1]
    mean, width = sample.mean(axis=1)[:, None], sample.std(axis=1)[:, None]
    # A parametric bootstrap: the fits of Gaussian samples of the fitted Gaussian.
    shape = (len(sample), n_members)
    means = mean + width * rng.normal(size=shape) / math.sqrt(n)
    widths = width * np.sqrt(rng.chisquare(n - 1, size=shape) / n)
    members = np.diff(ndtr((QUANTILES - means[..., None]) / widths[..., None]), axis=-1)
    counts = np.stack([np.histogram(one, QUANTILES)[0] for one in sample])
    return members, counts


def test_the_joint_alarm_rings_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(1)
    n = 3000
    members, counts = gaussian_members(rng, rng.normal(size=(n, 500)), 10)
    arguments = {"n_generated": math.inf, "n_train": 500}
    rate = np.mean(joint_p_value(members, counts, **arguments) < JOINTLY_CONTRADICTED)
    assert 0.005 < rate < limit(JOINTLY_CONTRADICTED, n)
    # Members that have nothing to do with this sample: the level is exact.
    truth = np.full((n, 10, 20), 0.05)
    rate = np.mean(joint_p_value(truth, counts, **arguments) < JOINTLY_CONTRADICTED)
    assert limit(JOINTLY_CONTRADICTED, n) > rate > 2 * JOINTLY_CONTRADICTED - limit(0.05, n)
    # Members with counting noise, and members that scatter widely around the truth.
    counted = rng.multinomial(2000, truth) / 2000
    p = joint_p_value(counted, counts, n_generated=2000, n_train=500)
    assert np.mean(p < JOINTLY_CONTRADICTED) < limit(JOINTLY_CONTRADICTED, n)
    # The spread of ten members stands for one mode of many sizes: half a point for that.
    means = rng.normal(size=(n, 10, 1)) / math.sqrt(200)
    wide = np.diff(ndtr(QUANTILES - means), axis=-1)
    p = joint_p_value(wide, counts, **arguments)
    assert np.mean(p < JOINTLY_CONTRADICTED) < limit(JOINTLY_CONTRADICTED + 0.005, n)


def test_the_joint_alarm_would_see_a_wrong_density() -> None:
    """A case that must ring: tails of three degrees of freedom, fitted by a Gaussian."""
    rng = np.random.default_rng(2)
    members, counts = gaussian_members(rng, rng.standard_t(3, size=(50, 2000)), 10)
    assert (joint_p_value(members, counts, n_generated=math.inf, n_train=2000) < 1e-6).all()


@pytest.mark.parametrize("n_regions", [1, 18])
@pytest.mark.parametrize("ratio", [1, 10])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("independent", [False, True])
def test_a_holdout_rarely_confirms_what_is_wrong(
    n_regions: int, ratio: int, share: float, independent: bool
) -> None:
    # True G of 1 over training sets (1/2 for share 2), by variance and bias along its mode.
    n, n_train, m = 1500, 1000, 10
    rng = np.random.default_rng([3, n_regions, ratio, int(10 * share)])
    truth = np.full(n_regions, 0.2 if n_regions == 1 else 0.05)
    square = (truth * (1 - truth)).sum() / n_train
    mode = np.cos(np.arange(n_regions))
    mode /= np.linalg.norm(mode)
    of_members = 1.0 if independent else 1 + 1 / m
    sigma = math.sqrt(share * square / of_members)
    bias = math.sqrt(max(1 - share, 0) * square)
    fit = 0.0 if independent else sigma * rng.normal(size=(n, 1))
    amplitudes = bias + fit + sigma * rng.normal(size=(n, m))
    members = truth + amplitudes[..., None] * mode
    holdout = truth + rng.multivariate_normal(
        np.zeros(n_regions),
        (np.diag(truth) - np.outer(truth, truth)) / (ratio * n_train),
        size=n,
    )
    tail = amplification_tail(
        members,
        holdout,
        amplification=1.0,
        n_train=n_train,
        n_generated=math.inf,
        n_truth=ratio * n_train,
        independent=independent,
    )
    assert np.mean(tail < ndtr(-2)) < limit(0.025, n)


def test_a_holdout_confirms_what_is_right() -> None:
    rng = np.random.default_rng(4)
    truth = np.full(18, 0.05)
    members = truth + 0.001 * rng.normal(size=(200, 10, 18))  # G = 50
    holdout = rng.multinomial(10_000, np.append(truth, 0.1), size=200)[:, :-1] / 10_000
    arguments = {"n_train": 1000, "n_generated": math.inf, "n_truth": 10_000}
    tail = amplification_tail(members, holdout, amplification=1.0, **arguments)
    assert np.mean(tail < ndtr(-2)) > 0.9


def test_the_interval_by_a_holdout_holds_the_truth() -> None:
    # Claimed: within 3 points, up to 10 too long for uneven regions. N = 1500: 0.012; 18 numbers.
    found = study.holdout_coverage(
        n_train=1000,
        ratios=[0.5, 10],
        amplifications=[0.3, 1.0, 100.0],
        confidences=[0.6827],
        n_experiments=1500,
        seed=5,
    )["coverage"]
    above = np.array([0.03, 0.1, 0.03])[:, None, None, None]
    assert (found > 0.6827 - 0.03 - 4.5 * 0.012).all()
    assert (found < 0.6827 + above + 4.5 * 0.012).all()
    # The function that users call gives the same interval.
    truth, mean, n_train = np.array([0.3, 0.05]), np.array([[0.31, 0.048]]), 1000
    covariance = (np.diag(truth) - np.outer(truth, truth)) / 5000
    event_variance = (truth * (1 - truth)).sum()
    one = true_averaging_amplification(mean, truth=truth, n_train=n_train, n_truth=5000)
    edges = mean_square_interval(
        ((mean - truth) ** 2).sum() - np.trace(covariance),
        (mean - truth)[0],
        covariance,
        scatter=0.0,
        confidence=0.68,
    )
    assert one.mean_interval == pytest.approx(tuple(event_variance / n_train / edges[::-1]))


def test_many_training_sets_against_one_true_sample() -> None:
    # Twelve sets of one member: the true sample's error is common to them. N = 600, 0.019.
    rng = np.random.default_rng(6)
    truth, n_train, held = np.array([0.3, 0.05, 0.01]), 1000, 0
    sigma = math.sqrt((truth * (1 - truth)).sum() / (3 * n_train * 2.0))  # G = 2
    for _ in range(600):
        sets = truth + sigma * rng.normal(size=(12, 1, 3))
        sample = rng.multinomial(5000, np.append(truth, 1 - truth.sum()))[:-1] / 5000
        low, high = true_averaging_amplification(
            np.clip(sets, 0, 1), truth=sample, n_train=n_train, n_truth=5000, confidence=0.6827
        ).mean_interval
        held += low <= 2.0 <= high
    assert held / 600 > 0.6827 - 0.03 - 4.5 * 0.019


@pytest.mark.parametrize("n_members", [5, 10, 20])
@pytest.mark.parametrize("n_train", [200, 1000])
def test_tails_with_twenty_events_and_more_keep_their_coverage(n_members, n_train) -> None:
    # Never more than 3 points below nominal. N = 20 000: standard error 0.0033.
    rng = np.random.default_rng([7, n_members, n_train])

    def fits(shape):
        width = np.sqrt(rng.chisquare(n_train - 1, size=shape) / n_train)
        return rng.normal(size=shape) / math.sqrt(n_train), width

    mean, width = fits((20_000, 1))
    scatter, factor = fits((20_000, n_members))
    for expected in (20, 40):
        edge = -ndtri(expected / n_train)
        tails = ndtr((mean + width * scatter - edge) / (width * factor))
        many = ndtr((fits((200_000,))[0] - edge) / fits((200_000,))[1])
        truth = many.mean() * (1 - many.mean()) / (n_train * many.var())
        _, low, high = averaging_intervals(tails[..., None], n_train=n_train, confidence=0.6827)
        assert np.mean((low <= truth) & (truth <= high)) > 0.6827 - 0.03 - 4.5 * 0.0033


def test_misspecified_cases_have_the_true_factor_that_was_asked_for() -> None:
    case = next(case for case in study.CASES if case.name == "skewed, Gaussian")
    found = study.misspecified_cases(
        n_train=[2000],
        amplifications=[0.5, 2.0],
        n_members=10,
        n_experiments=30,
        seed=9,
        cases=[case],
    )
    np.testing.assert_allclose(found["true"][0, 0, :, 0], [0.5, 2.0], rtol=0.1)
    assert found["said"].shape == (1, 1, 2, 3, len(study.SAYINGS))
    alone, regions, joint, both = found["said"][0, 0, 0, 0, :4]
    assert alone >= max(regions, joint) >= min(regions, joint) >= both
    # An ensemble cannot see its bias; the holdout of ten n_train does.
    assert alone == 30
    assert found["said"][0, 0, 0, 0, 5] == 0
