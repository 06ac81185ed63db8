"""Figures of weights show the counts and errors that they claim."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from genamp_lib.diagnostics import roc_curve, weight_slices
from genamp_lib.plotting.weights import plot_distribution, plot_four_panels, plot_roc

matplotlib.use("Agg")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


class TestDistribution:
    edges = np.array([0.0, 1.0, 3.0, 4.0])
    values = np.array([-5.0, 0.5, 1.0, 2.0, 2.5, 4.0, 9.0, np.inf])

    def test_every_value_is_in_a_bin(self, ax):
        plot_distribution(self.values, self.edges, role="truth", label="truth", ax=ax)
        density = ax.patches[0].get_data().values
        np.testing.assert_allclose(density * np.diff(self.edges) * 8, [2, 3, 3])

    def test_errors_are_those_of_counting(self, ax):
        plot_distribution(self.values, self.edges, role="truth", label="truth", ax=ax)
        bars = [np.diff(bar[:, 1])[0] / 2 for bar in ax.collections[0].get_segments()]
        np.testing.assert_allclose(bars, np.sqrt([2, 3, 3]) / (8 * np.diff(self.edges)))

    def test_empty_bins_have_no_error_bar(self, ax):
        plot_distribution([0.5, 0.6], self.edges, role="truth", label="truth", ax=ax)
        assert len(ax.collections[0].get_segments()) == 1

    def test_error_bars_stand_in_the_middle_of_logarithmic_bins(self, ax):
        ax.set_xscale("log")
        plot_distribution([2.0], [1.0, 4.0], role="large", label="w", ax=ax)
        assert ax.collections[0].get_segments()[0][0, 0] == pytest.approx(2.0)

    def test_slice_without_events(self, ax):
        plot_distribution([], self.edges, role="small", label="none", ax=ax)
        assert not ax.patches[0].get_data().values.any()


class TestRoc:
    def test_many_points_are_thinned_along_the_curve(self, ax):
        rng = np.random.default_rng(1)
        curve = roc_curve(rng.exponential(2.0, 20_000), rng.exponential(1.0, 20_000))
        plot_roc(*curve, label="all", color="black", ax=ax)
        generated, truth = ax.lines[-1].get_data()
        assert len(truth) <= 400
        assert (generated[-1], truth[-1]) == (1.0, 1.0)
        # Thinned, not smoothed: each point is one of the curve's.
        points = set(zip(*curve, strict=True))
        assert set(zip(truth, generated, strict=True)) <= points

    def test_diagonal_is_drawn_once(self, ax):
        for _ in range(2):
            plot_roc([0.0, 0.5, 1.0], [0.0, 0.1, 1.0], label="few", color="black", ax=ax)
        assert len(ax.lines) == 3


def test_a_roc_curve_of_two_weights_is_drawn_between_them():
    """A removed tail: straight from (0, 0.1) to (1, 1), a curve on logarithmic scales."""
    ax = plot_roc([0.0, 0.1, 1.0], [0.0, 0.0, 1.0], label="optimum", color="black")
    generated, truth = ax.lines[-1].get_xydata().T
    inside = (generated > 1e-4) & (generated < 1)
    assert inside.sum() > 100
    np.testing.assert_allclose(truth[inside], 0.1 + 0.9 * generated[inside])


def test_four_panels_show_both_samples_and_the_slices():
    rng = np.random.default_rng(1)
    truth, generated = rng.exponential(size=500), rng.exponential(size=400)
    weights = truth + 0.1, generated + 0.1
    slices = weight_slices(*weights, n_small=20, n_large=30)
    axes = plot_four_panels(
        (truth, generated),
        weights,
        slices,
        edges=np.linspace(0, 5, 11),
        xlabel="x",
        true_weights=weights,
    )
    assert axes[1, 0].get_xscale() == "log"
    near = {"edges": np.linspace(0, 5, 11), "xlabel": "x", "weight_edges": np.linspace(0.5, 2, 16)}
    narrow = plot_four_panels((truth, generated), weights, slices, **near)[1, 0]
    assert narrow.get_xscale() == "linear"
    np.testing.assert_allclose(narrow.patches[0].get_data().edges, near["weight_edges"])
    assert [len(ax.patches) for ax in axes.flat] == [2, 0, 2, 3]
    large = axes[1, 1].patches[2].get_data()
    expected = np.histogram(np.clip(truth[slices[1].indices], 0, 5), large.edges)[0]
    np.testing.assert_allclose(large.values * 30 * 0.5, expected)
    plt.close("all")
