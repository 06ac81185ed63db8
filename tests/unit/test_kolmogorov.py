"""Kolmogorov's distribution and the bands: against scipy and exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import comb
from scipy.stats import cramervonmises, kstwo, kstwobign, norm

from genamp_lib.amplification import (
    KOLMOGOROV_MEAN,
    kolmogorov_band,
    kolmogorov_mean,
    paper_band,
)
from genamp_lib.amplification._bridge import (
    amplification_intervals,
    cramer_von_mises_cdf,
    mean_square_intervals,
)
from genamp_lib.amplification.kolmogorov import finite_size_shift
from genamp_lib.amplification.pseudo_experiments import distances_of


def test_mean_is_that_of_the_distribution():
    assert pytest.approx(kstwobign.mean(), rel=1e-6) == KOLMOGOROV_MEAN
    assert kolmogorov_mean() == KOLMOGOROV_MEAN


@pytest.mark.parametrize(("n", "tolerance"), [(10, 5e-3), (100, 5e-4), (1000, 5e-5)])
def test_mean_for_one_finite_sample_is_exact_to_order_one_over_n(n, tolerance):
    assert kolmogorov_mean(n) == pytest.approx(kstwo.mean(n) * math.sqrt(n), abs=tolerance)
    assert kolmogorov_mean(math.inf, n) == kolmogorov_mean(n)
    assert abs(KOLMOGOROV_MEAN - kstwo.mean(n) * math.sqrt(n)) > 9 * tolerance


@pytest.mark.parametrize("n", [20, 200])
def test_mean_for_two_equal_samples(n):
    # P(n D >= k) = 2 sum_i (-1)^(i-1) C(2n, n - i k) / C(2n, n), Gnedenko and Korolyuk.
    tails = [
        2
        * sum((-1) ** (i - 1) * comb(2 * n, n - i * k, exact=True) for i in range(1, n // k + 1))
        / comb(2 * n, n, exact=True)
        for k in range(1, n + 1)
    ]
    exact = sum(tails) / n * math.sqrt(n / 2)
    assert kolmogorov_mean(n, n) == pytest.approx(exact, abs=0.2 / n)


def test_steps_of_finite_samples_shift_k_and_do_not_stretch_the_deviation():
    """With a deviation of 1.5 too: K of 40 events plus the shift has the mean of 1000 events.

    Means of 20,000 experiments have a standard error of 0.003 each, terms of order 1/n are below
    0.005: 4.5 standard errors of the difference are exceeded with a probability of 7e-6.
    """
    rng, means = np.random.default_rng(12), {}
    for n in (40, 1000):
        u = np.sort(rng.random((20_000, n)), axis=1)
        made = u + 1.5 / math.sqrt(n) * 4 * u * (1 - u)
        means[n] = distances_of(made).mean() * math.sqrt(n)
    limit = means[1000] + finite_size_shift(1000, math.inf)
    assert abs(means[40] + finite_size_shift(40, math.inf) - limit) < 0.005 + 4.5 * 0.003 * 1.42
    # Division by the finite-size mean stretches the deviation as well.
    stretched = means[40] * KOLMOGOROV_MEAN / kolmogorov_mean(40)
    assert stretched - limit > 0.005 + 4.5 * 0.003 * 1.42


def test_bands():
    for confidence in (0.5, 0.6827, 0.9545, 0.9973):
        low, high = kolmogorov_band(confidence)
        assert kstwobign.cdf(high) - kstwobign.cdf(low) == pytest.approx(confidence, abs=1e-9)
        assert kstwobign.cdf(low) == pytest.approx((1 - confidence) / 2, abs=1e-9)
        # The paper's band holds K more often than it says.
        low, high = paper_band(confidence)
        assert kstwobign.cdf(high) - kstwobign.cdf(low) > confidence + 0.002
        assert high - KOLMOGOROV_MEAN == pytest.approx(KOLMOGOROV_MEAN - low)


@pytest.mark.parametrize("band", [kolmogorov_band, paper_band])
@pytest.mark.parametrize("confidence", [0.0, 1.0, 68.27, math.nan])
def test_bands_refuse_what_is_no_confidence(band, confidence):
    with pytest.raises(ValueError, match="`confidence` must be between 0 and 1, got"):
        band(confidence)


def test_cramer_von_mises_law_is_scipys():
    u = (np.arange(20_000) + 0.5) / 20_000
    for power in (1.005, 1.01, 1.02):
        result = cramervonmises(u**power, "uniform")
        assert 1 - cramer_von_mises_cdf(result.statistic) == pytest.approx(result.pvalue, abs=1e-4)
    x = np.linspace(0.0005, 6, 5000)
    assert (np.diff(cramer_von_mises_cdf(x)) >= -1e-12).all()
    # Its mean is 1/6.
    assert np.trapezoid(1 - cramer_von_mises_cdf(x), x) == pytest.approx(1 / 6, abs=6e-4)


@pytest.mark.parametrize("confidence", [0.1, 0.68, 0.95, 0.9999, None])
def test_intervals_are_ordered_and_fall_with_the_distance(confidence):
    x = np.linspace(0, 30, 601)
    sizes = {"n_effective": 1000, "n_train": 100, "confidence": confidence}
    square = x**2 - 1 / 6  # with the variance of a shift
    for (estimate, low, high), scale, slack in (
        (amplification_intervals(x, **sizes), KOLMOGOROV_MEAN**2, 0.0),
        (
            mean_square_intervals(square, 0.4 * np.maximum(square, 0) + 2 / 45, **sizes),
            1 / 6,
            0.02,
        ),
    ):
        assert (low <= estimate * (1 + 1e-12)).all()
        assert (estimate <= high * (1 + 1e-12)).all()
        for edge in (low, estimate, high):
            finite = edge[np.isfinite(edge) & (x > 20 * slack)]
            assert (np.diff(finite) <= slack * finite[:-1]).all()
            assert np.isfinite(edge[-1])
        # At large distances the signal is the distance itself.
        assert estimate[-1] == pytest.approx(10 * scale / 900, rel=0.01)
        assert high[0] == math.inf


def test_mean_square_intervals_of_no_and_of_a_large_deviation():
    """Two ends where the law is known: that of the bridge, and a normal one."""
    sizes = {"n_effective": 1000, "n_train": 1000}
    edge = float(brentq(lambda x: cramer_von_mises_cdf(x) - 0.9, 0.1, 1.0))
    for square, is_open in ((edge - 1e-6, True), (edge + 1e-6, False)):
        *_, high = mean_square_intervals(square - 1 / 6, 2 / 45, **sizes, confidence=0.9)
        assert np.isinf(high) == is_open
    square, rho = 400.0, 0.05
    _, low, high = mean_square_intervals(square, 4 * rho * square, **sizes, confidence=0.6827)
    for bound, sign in ((low, 1), (high, -1)):
        assert math.sqrt(1 / 6 / bound) == pytest.approx(20 + sign * math.sqrt(rho), abs=0.01)
    # The limits take the largest variance that a direction can have.
    _, low, _ = mean_square_intervals(square, 4 * rho * square, **sizes, confidence=None)
    assert math.sqrt(1 / 6 / low) == pytest.approx(20 + 2 / math.pi, abs=0.01)


def test_a_coarse_statistic_has_a_lower_limit_that_does_not_need_the_law():
    arguments = {"n_effective": 1000, "n_train": 1000, "confidence": 0.68}
    _, usual, _ = amplification_intervals(0.4, **arguments)
    _, coarse, _ = amplification_intervals(0.4, **arguments, continuous=False)
    assert coarse < usual / 2


def test_interval_edges_solve_their_equations():
    """Both edges from the signal t they stand for: the tails are as the module says."""
    confidence, n, alpha = 0.9, 1000, 0.1
    for x in (1.3, 2.0, 6.0):
        _, *edges = amplification_intervals(x, n_effective=n, n_train=n, confidence=confidence)
        largest, smallest = (KOLMOGOROV_MEAN / math.sqrt(edge) for edge in edges)
        lower = [alpha / 2 * t**2 / (t**2 + KOLMOGOROV_MEAN**2) for t in (largest, smallest)]
        assert kstwobign.sf(x - smallest) == pytest.approx(alpha - lower[1], rel=1e-6)
        assert norm.cdf(2 * (x - largest)) == pytest.approx(lower[0], rel=1e-6)
    _, low, high = amplification_intervals(0.45, n_effective=n, n_train=n, confidence=confidence)
    t = KOLMOGOROV_MEAN / math.sqrt(low)
    lower = alpha / 2 * t**2 / (t**2 + KOLMOGOROV_MEAN**2)
    assert kstwobign.cdf(0.45) == pytest.approx(lower, rel=1e-6)
    assert high == math.inf
