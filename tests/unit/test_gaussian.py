"""The fitted Gaussian's closed forms against numerical integration and known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from genamp_lib.datasets import (
    interval_probability,
    interval_probability_slope,
    mean_squared_deviation,
    model_variance,
    true_amplification,
)

INTERVALS = [(0.0, 0.5), (1.0, 2.0), (-1.0, 1.0), (-2.5, -0.3), (0.0, math.inf), (-math.inf, 1.0)]


@pytest.mark.parametrize(("lower", "upper"), [*INTERVALS, (8.0, 9.0), (-9.0, -8.0), (30.0, 31.0)])
@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_probability_is_the_integral_of_the_density(
    lower: float, upper: float, mean: float
) -> None:
    wanted = quad(norm(mean).pdf, lower, upper, epsabs=0, epsrel=1e-11)[0]
    assert interval_probability(lower, upper, mean=mean) == pytest.approx(wanted, rel=1e-9, abs=0)


@pytest.mark.parametrize(("lower", "upper"), INTERVALS)
def test_slope_is_the_derivative(lower: float, upper: float) -> None:
    step = 1e-5
    up, down = (interval_probability(lower, upper, mean=0.3 + s) for s in (step, -step))
    slope = interval_probability_slope(lower, upper, mean=0.3)
    assert slope == pytest.approx((up - down) / (2 * step), abs=1e-9)


def moments_on_a_grid(lower: float, upper: float, n_train: int) -> tuple[float, float]:
    """Mean squared deviation from truth, and variance, summed over a fine grid of fitted means."""
    z = np.linspace(-12, 12, 4001)
    weight = norm.pdf(z) * (z[1] - z[0])
    mean = z / math.sqrt(n_train)
    fitted = norm.cdf(upper - mean) - norm.cdf(lower - mean)
    deviation = fitted - (norm.cdf(upper) - norm.cdf(lower))
    square = (weight * deviation**2).sum()
    return square, square - (weight * deviation).sum() ** 2


@pytest.mark.parametrize(("lower", "upper"), INTERVALS)
@pytest.mark.parametrize("n_train", [1, 20, 1000])
def test_model_variance_is_the_average_over_fits(lower: float, upper: float, n_train: int) -> None:
    truth, variance = moments_on_a_grid(lower, upper, n_train)
    assert model_variance(lower, upper, n_train=n_train) == pytest.approx(truth, rel=1e-9, abs=0)
    computed = model_variance(lower, upper, n_train=n_train, definition="variance")
    assert computed == pytest.approx(variance, rel=1e-9, abs=0)


def test_numbers_of_the_paper() -> None:
    """Sec. 3.2: independently computed with 30 digits."""
    assert interval_probability(0, 0.5) == pytest.approx(0.1914624612740131, abs=1e-15)
    assert interval_probability_slope(0, 0.5) == pytest.approx(0.0468769535, abs=1e-9)
    wanted = {("linear", 1000): 70.447, ("truth", 1000): 69.910, ("truth", 10_000): 70.393}
    for (definition, n_train), value in wanted.items():
        amplification = true_amplification(0, 0.5, n_train=n_train, definition=definition)
        assert amplification == pytest.approx(value, abs=5e-4)


def test_linear_is_the_limit_of_large_samples_and_n_equiv_grows_with_them() -> None:
    n_train = np.array([1e5, 1e6, 1e7])
    linear = true_amplification(1, 2, n_train=n_train, definition="linear")
    assert np.ptp(linear) < 1e-9
    for definition in ("truth", "variance"):
        exact = true_amplification(1, 2, n_train=n_train, definition=definition)
        assert np.all(np.diff(np.abs(exact / linear - 1)) < 0)
        assert exact[-1] == pytest.approx(linear[-1], rel=1e-5)


def test_symmetric_intervals_diverge_only_when_linearised() -> None:
    assert true_amplification(-1, 1, n_train=1000, definition="linear") == math.inf
    truth = true_amplification(-1, 1, n_train=1000)
    # All of it is quadratic in the mean: <z^4> = 3, var(z^2) = 2.
    spread = true_amplification(-1, 1, n_train=10**7, definition="variance")
    assert spread / true_amplification(-1, 1, n_train=10**7) == pytest.approx(1.5, rel=1e-4)
    assert 1000 < truth < 2000


def test_the_half_line_is_the_median_against_the_mean() -> None:
    amplification = true_amplification(0, math.inf, n_train=1, definition="linear")
    assert amplification == pytest.approx(math.pi / 2, rel=1e-12)


def test_deviation_splits_into_counting_and_model() -> None:
    model = model_variance(0, 0.5, n_train=1000)
    far = mean_squared_deviation(0, 0.5, n_generated=1e18, n_train=1000)
    assert far == pytest.approx(model, rel=1e-9, abs=0)
    # One generated event is in or out: its mean squared deviation is known.
    inside = quad(
        lambda z: norm.pdf(z) * interval_probability(0, 0.5, mean=z / math.sqrt(1000)), -9, 9
    )[0]
    truth = interval_probability(0, 0.5)
    one = mean_squared_deviation(0, 0.5, n_generated=1, n_train=1000)
    assert one == pytest.approx(inside * (1 - truth) ** 2 + (1 - inside) * truth**2, rel=1e-8)


def test_arguments_broadcast() -> None:
    lower, n_train = np.array([[0.0], [0.2]]), np.array([10, 100, 1000])
    table = true_amplification(lower, 0.5, n_train=n_train)
    assert table.shape == (2, 3)
    assert table[1, 2] == true_amplification(0.2, 0.5, n_train=1000)
    deviation = mean_squared_deviation(lower, 0.5, n_generated=100, n_train=n_train)
    assert deviation.shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval_probability(1, 1), "`lower` must be below `upper`, got 1.0 and 1.0"),
        (lambda: interval_probability(2, 1), "`lower` must be below `upper`, got 2.0 and 1.0"),
        (lambda: interval_probability_slope(0, math.nan), "`lower` must be below `upper`"),
        (lambda: model_variance(0, 1, n_train=0), "`n_train` must be positive, got 0"),
        (lambda: model_variance(0, 1, n_train=5, definition="x"), "'linear', .* got 'x'"),
        (
            lambda: mean_squared_deviation(0, 1, n_generated=-1, n_train=5),
            "`n_generated` must be positive, got -1",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
