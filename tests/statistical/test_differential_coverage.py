"""Differential amplification: the intervals cover what they claim, the mean square has no bias.

z = 4.5 standard deviations of a normal distribution are exceeded with probability 7e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.special import kolmogi, kolmogorov

from genamp_lib.amplification import (
    KOLMOGOROV_MEAN,
    KolmogorovAccumulator,
    RepeatCounter,
    differential_amplification,
    differential_intervals,
    kolmogorov_mean,
    paper_band,
    repeated_events,
)
from genamp_lib.amplification._bridge import MISS, mean_square_intervals
from genamp_lib.amplification._pairs import mean_square, mean_square_to_cdf
from genamp_lib.amplification.kolmogorov import effective_size, finite_size_shift
from genamp_lib.amplification.pseudo_experiments import (
    deformation_size,
    distances_of,
    misplaced_peak,
    missing_edge,
    shifted,
    verdict_probabilities,
    widened,
)
from genamp_lib.studies.ch10_differential import (
    VERDICTS,
    cases,
    misspecified_verdicts,
    weighted_coverage,
)

Z = 4.5
N_TRAIN = 1000
N_REPEATS = 4000
CONFIDENCES = (0.6827, 0.9545)


def with_amplification(family: Callable, amplification: float) -> Callable:
    """Return the generator's distribution function of a family that has a given true G."""
    target = KOLMOGOROV_MEAN / math.sqrt(N_TRAIN * amplification)
    size = deformation_size(family, target)
    return lambda u: family(u, size)


def binomial_margin(p: float, n: int) -> float:
    return Z * math.sqrt(p * (1 - p) / n)


@pytest.fixture(scope="module")
def holdouts() -> np.ndarray:
    """Truth at the sorted events of 4000 holdout samples of 1000 events."""
    return np.sort(np.random.default_rng(5).random((N_REPEATS, N_TRAIN)), axis=1)


def distances(holdouts: np.ndarray, generator: Callable) -> np.ndarray:
    """Kolmogorov-Smirnov distances of holdouts to a generator of known distribution."""
    return distances_of(generator(holdouts))


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_a_perfect_generator_is_covered_as_often_as_claimed(holdouts, confidence):
    found = distances(holdouts, lambda u: u)
    _, low, high = differential_intervals(
        found, n_reference=N_TRAIN, n_train=N_TRAIN, confidence=confidence
    )
    covered = np.mean((low <= math.inf) & (high == math.inf))
    assert abs(covered - confidence) <= binomial_margin(confidence, N_REPEATS)
    # A case that must fail: the paper's band holds K far more often than it says at one sigma.
    edges = paper_band(confidence)
    inside = np.mean(
        (edges[0] < found * math.sqrt(N_TRAIN)) & (found * math.sqrt(N_TRAIN) < edges[1])
    )
    if confidence < 0.9:
        assert inside > 0.99
    assert inside - confidence > binomial_margin(confidence, N_REPEATS)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("amplification", [0.1, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("family", [shifted, widened, missing_edge, misplaced_peak])
def test_any_generator_is_covered_at_least_as_often(holdouts, family, amplification, confidence):
    found = distances(holdouts, with_amplification(family, amplification))
    _, low, high = differential_intervals(
        found, n_reference=N_TRAIN, n_train=N_TRAIN, confidence=confidence
    )
    tail = (1 - confidence) / 2
    assert np.mean(low <= amplification) >= 1 - tail - binomial_margin(tail, N_REPEATS)
    covered = np.mean((low <= amplification) & (amplification <= high))
    assert covered >= confidence - binomial_margin(confidence, N_REPEATS)


@pytest.mark.parametrize(
    ("ratio", "true", "n_generated_ratio"), [(10, math.inf, 1), (20, 3, 4), (5, 0.3, 1)]
)
def test_planned_verdicts_are_those_of_studies(ratio, true, n_generated_ratio):
    rng = np.random.default_rng([8, ratio])
    grid, n_train, n_studies = np.linspace(0, 1, 20_001), 400, 300
    target = KOLMOGOROV_MEAN / math.sqrt(n_train * true)
    cdf = shifted(grid, deformation_size(shifted, target) if target else 0.0)
    found = []
    for _ in range(n_studies):
        generated = np.interp(rng.random(n_generated_ratio * ratio * n_train), cdf, grid)
        estimate = differential_amplification(
            n_train, generated, holdout=rng.random(ratio * n_train)
        )
        found.append(estimate.verdict.split(",")[0])
    planned = verdict_probabilities([ratio], [true], n_generated_ratio=n_generated_ratio)[0, 0]
    assert max(planned) > 0.4
    for verdict, p in zip(("amplifies", "does not amplify"), planned, strict=True):
        assert abs(found.count(verdict) / n_studies - p) <= binomial_margin(p, n_studies) + 0.03


def test_planned_verdicts_refuse_what_is_not_positive():
    with pytest.raises(ValueError, match="`ratios` must be positive, got 0"):
        verdict_probabilities([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="`amplifications` must be positive, got -1"):
        verdict_probabilities([1.0], [-1.0])


def test_scaling_the_law_of_k_does_not_cover(holdouts):
    """Reading Eq. (36) at exact quantiles of K is no interval: a shift with G = 1 shows it."""
    x = distances(holdouts, with_amplification(shifted, 1.0)) * math.sqrt(N_TRAIN)
    low, high = (
        np.where(x > k, 1 / np.maximum((x / k) ** 2 - 1, 1e-300), np.inf)
        for k in kolmogi([1 - 0.15865, 0.15865])
    )
    covered = np.mean((low <= 1) & (high >= 1))
    assert covered < 0.6827 - binomial_margin(0.6827, N_REPEATS)


def two_samples(
    rng: np.random.Generator, n_reference: int, n_generated: int, n_repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances, and unbiased mean squares with variances, of pairs of one density."""
    found, squares = np.empty(n_repeats), np.empty((2, n_repeats))
    for i in range(n_repeats):
        accumulator = KolmogorovAccumulator(rng.random(n_reference))
        accumulator.update(rng.random(n_generated))
        found[i] = accumulator.distance()
        squares[0, i], _, squares[1, i] = mean_square(*accumulator.cumulative_counts(), n_generated)
    return found, squares


@pytest.mark.parametrize(("n_reference", "n_generated"), [(100, 101), (200, 600), (500, 130)])
def test_two_samples_of_any_sizes(n_reference, n_generated):
    """The scaling of Eq. (34) enters both intervals, and steps of both samples enter <K>."""
    n_repeats = 2000
    found, squares = two_samples(np.random.default_rng(6), n_reference, n_generated, n_repeats)
    n_effective = effective_size(n_reference, n_generated)
    for confidence in CONFIDENCES:
        sizes = {"n_reference": n_reference, "n_generated": n_generated, "n_train": N_TRAIN}
        *_, high = differential_intervals(found, **sizes, confidence=confidence)
        *_, high_square = mean_square_intervals(
            n_effective * squares[0],
            n_effective**2 * squares[1],
            n_effective=n_effective,
            n_train=N_TRAIN,
            confidence=confidence,
        )
        for edge in (high, high_square):
            # Half a point for terms of order 1/n_eff, which is 50 to 150.
            margin = 0.005 + binomial_margin(confidence, n_repeats)
            assert abs(np.mean(edge == math.inf) - confidence) <= margin

    scaled = math.sqrt(n_effective) * found
    error = Z * scaled.std() / math.sqrt(n_repeats)
    assert abs(scaled.mean() - kolmogorov_mean(n_reference, n_generated)) <= error
    # The asymptotic mean would not do where the steps are large.
    if n_generated == n_reference + 1:
        assert abs(scaled.mean() - KOLMOGOROV_MEAN) > error
    assert abs(squares[0].mean()) <= Z * squares[0].std() / math.sqrt(n_repeats)


# Four waves worth as little as 0.03 would not be a distribution function.
@pytest.mark.parametrize(("amplification", "waves"), [(0.03, 1), *product((0.5, 1.0, 3.0), (1, 4))])
def test_the_mean_square_has_no_bias_and_its_interval_covers(amplification, waves):
    """1/G of the companion: unbiased for holdout and generated samples of a few hundred events."""
    n_repeats, n_reference, n_generated = 2000, 300, 700
    # A generator with F = u + a sin(k pi u), so int delta^2 = a^2/2 over the truth, whose mean
    # square makes the true G = (1/6)/(n_train int delta^2).
    a = math.sqrt(2 / (6 * N_TRAIN * amplification))
    grid = np.linspace(0, 1, 20_001)
    distribution = grid + a * np.sin(waves * np.pi * grid)
    rng = np.random.default_rng(7)
    squares, variances = np.empty((2, n_repeats))
    for i in range(n_repeats):
        accumulator = KolmogorovAccumulator(rng.random(n_reference))
        accumulator.update(np.interp(rng.random(n_generated), distribution, grid))
        squares[i], _, variances[i] = mean_square(*accumulator.cumulative_counts(), n_generated)
    inverse = 6 * N_TRAIN * squares
    error = inverse.std() / math.sqrt(n_repeats)
    assert abs(inverse.mean() - 1 / amplification) <= Z * error
    # What the variance holds too much where there is no deviation is known.
    n_effective = effective_size(n_reference, n_generated)
    found = variances.mean() - 1 / 45 / n_effective**2
    assert found == pytest.approx(squares.var(), rel=0.05 + Z * math.sqrt(5 / n_repeats))

    def edges(confidence):
        return mean_square_intervals(
            n_effective * squares,
            n_effective**2 * variances,
            n_effective=n_effective,
            n_train=N_TRAIN,
            confidence=confidence,
        )

    stands_out = n_effective / (6 * N_TRAIN * amplification) > 1
    for confidence in CONFIDENCES:
        _, low, high = edges(confidence)
        covered = np.mean((low <= amplification) & (amplification <= high))
        # Three points for small samples; a bound where the deviation is below the noise.
        margin = 0.03 + binomial_margin(confidence, n_repeats)
        assert covered >= confidence - margin
        if stands_out:
            assert covered <= confidence + margin
    _, low, high = edges(None)
    margin = 0.005 + binomial_margin(MISS, n_repeats)
    assert max(np.mean(low > amplification), np.mean(high < amplification)) <= MISS + margin


@pytest.mark.parametrize("amplification", [0.5, 3.0])
def test_the_mean_square_to_a_known_truth_has_no_bias(amplification):
    n_repeats, n_generated = 3000, 500
    a = math.pi * math.sqrt(2 / (6 * N_TRAIN * amplification))
    grid = np.linspace(0, 1, 20_001)
    distribution = grid + a * np.sin(np.pi * grid) / np.pi
    made = np.random.default_rng(8).random((n_repeats, n_generated))
    made = np.sort(np.interp(made, distribution, grid), axis=1)
    inverse = np.array([6 * N_TRAIN * mean_square_to_cdf(row).square for row in made])
    assert abs(inverse.mean() - 1 / amplification) <= Z * inverse.std() / math.sqrt(n_repeats)


def test_the_alarm_rings_for_a_copy_and_seldom_else():
    """A generator that smears its training events rings; independent samples do not."""
    rng = np.random.default_rng(9)
    truth = rng.normal(size=N_TRAIN)
    copied = np.repeat(truth, 20) + rng.normal(scale=0.01, size=20 * N_TRAIN)
    estimate = differential_amplification(truth, copied)
    assert estimate.status == "too close"
    assert "overfitting" in estimate.note
    # The claimed rate is 0.00135; 20 or more of 3000 have probability 2e-8.
    found, _ = two_samples(rng, 300, 500, 3000)
    scaled = found * math.sqrt(effective_size(300, 500)) + finite_size_shift(300, 500)
    assert np.sum(1 - kolmogorov(scaled) < 0.00135) < 20


def of(*draws: Callable) -> Callable:
    """Return train, generated and holdout samples, each made by its own function."""
    return lambda rng: [draw(rng, n) for draw, n in zip(draws, (300, 3000, 2000), strict=True)]


NULLS = {
    "one density": of(*[lambda rng, n: rng.normal(size=n)] * 3),
    "far off": of(
        lambda rng, n: rng.standard_cauchy(n),
        lambda rng, n: rng.normal(9, 0.1, size=n),
        lambda rng, n: rng.standard_cauchy(n),
    ),
    "rounded": of(*[lambda rng, n: rng.normal(size=n).round(2)] * 3),
    "three features": of(*[lambda rng, n: rng.normal(size=(n, 3))] * 3),
}


@pytest.mark.parametrize("case", NULLS)
def test_events_of_a_generator_that_has_seen_nothing_are_seldom_called_repeated(case):
    """1000 cases: 25 p-values or more below 0.00674 have P = 5e-8, 13 alarms or more P = 8e-9."""
    rng = np.random.default_rng(10)
    n_repeats = 400 if case == "three features" else 1000
    found = [repeated_events(*NULLS[case](rng)) for _ in range(n_repeats)]
    p_values = np.array([one.p_value for one in found])
    assert np.sum(p_values < 0.00674) < 25
    assert np.sum([one.found for one in found]) < 13
    if case == "one density":
        assert 0.4 < np.mean(p_values < 0.5) < 0.6


def test_independent_holdouts_are_never_refused():
    """Ties of all kinds: 600 pairs, with a stated rate of 1e-6 each."""
    rng = np.random.default_rng(11)
    for case in range(600):
        n_train, n_holdout = (int(10 ** rng.uniform(1, 3.5)) for _ in "ab")
        draws = (
            lambda n, k: rng.normal(size=n).round(1 + k % 4),
            lambda n, k: rng.poisson(10.0 ** (k % 5), size=n),
            lambda n, _: np.maximum(rng.normal(size=n), 0.3),
        )
        RepeatCounter(*(draws[case % 3](n, case) for n in (n_train, n_holdout)))


@pytest.mark.parametrize("name", sorted(cases()))
def test_wrong_generators_are_seldom_called_amplifying(name):
    """60 experiments with each: at most 2.3 % wrong "amplifies" in one, 10 or more have P = 1e-6.

    For all that repeat training events "amplifies" is wrong at any G.
    """
    results = misspecified_verdicts(
        n_train=300,
        n_holdout=10_000,
        n_generated=10_000,
        n_experiments=60,
        seed=13,
        names=[name],
    )[name]
    repeats = cases()[name][0] == "repeat"
    for true, verdict in (results[:, :2].T, results[:, 2:].T):
        wrong = (verdict == VERDICTS.index("amplifies")) & ((true <= 1) | repeats)
        assert np.sum(wrong) < 10
        assert np.sum((verdict == 0) & (true > 1)) < 10


def test_intervals_of_weighted_events_hold_the_truth():
    """100 experiments for each of ten kinds: 5.4 sigma, 0.25, on 20 coverages, once in 7e5.

    Two-sided for a perfect generator, which is covered exactly; at least as often for a wrong one.
    """
    found = weighted_coverage(
        n_train=300,
        n_events=800,
        amplifications=[1.0],
        confidence=0.6827,
        n_experiments=100,
        seed=3,
    )
    margin = 1.2 * binomial_margin(0.6827, 100)
    for name, held in found.items():
        intervals = held[..., :2]
        if name == "by the statistic":
            assert np.isnan(intervals[..., 1]).all()  # labelled: no mean square
            intervals = intervals[..., :1]
        else:
            assert np.abs(intervals[:, 1] - 0.6827).max() <= margin, name
        assert intervals.min() >= 0.6827 - margin, name
        assert held[..., 0, 2].max() <= 0.023 + binomial_margin(0.023, 100)
    np.testing.assert_array_equal(found["1"].shape, (2, 2, 3))
