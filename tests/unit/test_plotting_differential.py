"""Figures of differential amplification and of scans over n_generated: the numbers that went in."""

from __future__ import annotations

import io
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from scipy.stats import norm

from genamp_lib import (
    DifferentialEstimate,
    KolmogorovAccumulator,
    averaging_amplification,
    averaging_amplification_from_probabilities,
    differential_amplification,
    true_averaging_amplification,
)
from genamp_lib.plotting import (
    plot_averaging_scan,
    plot_distance_curve,
    plot_distance_sketch,
    plot_empirical_cdf,
    plot_expected_distance,
    use_style,
)

SIZES = (30, 100, 1000, 10_000, 100_000)


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    with matplotlib.rc_context():
        use_style()
        yield
    plt.close("all")


def estimate_of(shift: float) -> tuple[DifferentialEstimate, tuple]:
    rng = np.random.default_rng(8)
    holdout = rng.normal(size=5000)
    accumulator = KolmogorovAccumulator(holdout, snapshots=SIZES)
    accumulator.update(rng.normal(shift, 1.0, size=SIZES[-1]))
    estimate = differential_amplification(1000, accumulator, holdout=holdout)
    return estimate, accumulator.curve()


def drawn(ax: Axes) -> bytes:
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def legend(ax: Axes) -> str:
    return "; ".join(text.get_text() for text in ax.get_legend().get_texts())


def test_curve_shows_distances_true_events_and_the_crossing() -> None:
    estimate, (sizes, distances) = estimate_of(0.1)
    ax = plot_distance_curve(sizes, distances, estimate)
    expected, curve, mark = ax.lines
    np.testing.assert_allclose(curve.get_xydata(), np.column_stack([sizes, distances]))
    np.testing.assert_allclose(
        expected.get_ydata(), estimate.expected_distance(expected.get_xdata())
    )
    x, y = mark.get_xydata()[0]
    assert x == pytest.approx(estimate.n_equiv)
    assert y == pytest.approx(estimate.expected_distance([x])[0])
    assert len(ax.collections) == 3
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert "5\N{THIN SPACE}000 holdout events" in legend(ax)
    assert drawn(ax)


def test_bands_hold_true_events_as_often_as_they_say() -> None:
    # 68.27 % band at n = 1000 against 5000: 2000 pairs of samples, standard error 0.0104; the
    # limit 0.05 leaves 4.5 of them beyond the finite-size offset of at most 0.003.
    rng = np.random.default_rng(9)
    estimate, _ = estimate_of(0.0)
    ax = plot_expected_distance([999.0, 1000.0, 1001.0], estimate, bands=(0.6827,))
    low, high = np.quantile(ax.collections[0].get_paths()[0].vertices[:, 1], [0, 1])
    inside = []
    for _ in range(2000):
        accumulator = KolmogorovAccumulator(rng.normal(size=5000))
        accumulator.update(rng.normal(size=1000))
        inside.append(low < accumulator.distance() < high)
    assert np.mean(inside) == pytest.approx(0.6827, abs=0.05)


def test_a_perfect_generator_has_no_crossing() -> None:
    # Quantiles lie closer to their density than a sample does.
    holdout = norm.ppf((np.arange(200) + 0.5) / 200)
    accumulator = KolmogorovAccumulator(holdout, snapshots=SIZES)
    accumulator.update(np.random.default_rng(8).normal(size=SIZES[-1]))
    estimate = differential_amplification(1000, accumulator, holdout=holdout)
    sizes, distances = accumulator.curve()
    assert np.isinf(estimate.amplification)
    ax = plot_distance_curve(sizes, distances, estimate)
    assert len(ax.lines) == 2
    assert drawn(plot_distance_sketch(estimate))


def test_sketch_crosses_at_n_equiv() -> None:
    estimate, _ = estimate_of(0.1)
    ax = plot_distance_sketch(estimate)
    level = ax.lines[1].get_ydata()[0]
    assert level == pytest.approx(estimate.expected_distance([estimate.n_equiv])[0])
    # M^2 = level^2 up to the counting of the generated events.
    assert level == pytest.approx(estimate.distance, rel=0.05)
    assert drawn(ax)


def test_an_exact_reference_is_drawn_too() -> None:
    values = np.random.default_rng(3).normal(0.05, 1.0, size=20_000)
    estimate = differential_amplification(100, values, cdf=norm.cdf)
    assert drawn(plot_distance_sketch(estimate))
    assert "exact distribution" in legend(
        plot_distance_curve([len(values)], [estimate.distance], estimate)
    )


def test_empirical_cdf_ends_at_the_extremes() -> None:
    ax = plot_empirical_cdf([3.0, 1.0, 2.0], label="R")
    line = ax.lines[0]
    assert line.get_xdata().max() == 3.0
    assert line.get_ydata().max() == 1.0
    long = plot_empirical_cdf(np.arange(10_000.0), label="R", ax=plt.subplots()[1]).lines[0]
    assert len(long.get_xdata()) < 2100
    assert long.get_xdata().max() == 9999.0


def test_scan_shows_measured_and_true_uncertainties() -> None:
    rng = np.random.default_rng(4)
    probabilities = 0.2 + 0.004 * rng.normal(size=20)
    estimates = [
        averaging_amplification(rng.binomial(n, probabilities), n_generated=n, n_train=1000)
        for n in (100, 1000, 10_000, 1_000_000)
    ]
    truth = true_averaging_amplification(
        probabilities[:, np.newaxis, np.newaxis], truth=[0.2], n_train=1000
    )
    ax = plot_averaging_scan(estimates, truth=truth)
    _, true = ax.lines[:2]
    np.testing.assert_allclose(
        true.get_ydata(),
        np.hypot(estimates[-1].sigma_stat(true.get_xdata()), truth.sigma("mean")),
    )
    total = ax.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(total[:, 1], [np.sqrt(one.total_variance) for one in estimates])
    assert drawn(ax)


def test_scan_shows_an_upper_limit_where_the_subtraction_fails() -> None:
    # Equal counts in all members: less spread than counting noise.
    estimates = [averaging_amplification([200, 201, 199], n_generated=1000, n_train=1000)]
    assert estimates[0].model_variance < 0
    ax = plot_averaging_scan(estimates)
    assert [line.get_marker() for line in ax.lines].count("v") == 1
    assert drawn(ax)


def test_scan_of_exact_probabilities_is_refused() -> None:
    exact = averaging_amplification_from_probabilities([0.19, 0.2, 0.21], n_train=1000)
    for estimates in ([], [exact]):
        with pytest.raises(ValueError, match="`estimates` must be of counts"):
            plot_averaging_scan(estimates)
