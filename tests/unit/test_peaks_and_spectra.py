"""Peaks: position, width and their errors against closed forms; spectra: what is drawn."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import voigt_profile

from genamp_lib.datasets import find_peak
from genamp_lib.plotting import plot_members, plot_spectra

matplotlib.use("Agg")


def test_peak_of_a_smeared_breit_wigner():
    """The shape of a Z peak; position and width within 5 of their errors, which are below 0.1."""
    rng = np.random.default_rng(3)
    n, half_width, sigma, bandwidth = 50_000, 1.25, 1.4, 0.4
    masses = 91.2 + half_width * rng.standard_cauchy(n) + sigma * rng.standard_normal(n)
    x = np.linspace(-8, 8, 16_001)
    smooth = voigt_profile(x, np.hypot(sigma, bandwidth), half_width)
    width = np.ptp(x[smooth > smooth.max() / 2])
    peak = find_peak(masses, 75, 110, bandwidth=bandwidth)
    assert abs(peak.position - 91.2) < 5 * peak.position_error < 0.5
    assert abs(peak.width - width) < 5 * peak.width_error < 0.5


def test_errors_are_the_spread_of_repetitions():
    """60 repetitions know a spread to 9 %; the bound of 50 % is five of that and more."""
    rng = np.random.default_rng(4)
    peaks = [
        find_peak(rng.normal(80, 8, 4000), 40, 120, bandwidth=2.0, n_bootstrap=100, seed=i)
        for i in range(60)
    ]
    for name in ("position", "width"):
        spread = np.std([getattr(peak, name) for peak in peaks])
        claimed = np.mean([getattr(peak, f"{name}_error") for peak in peaks])
        assert claimed == pytest.approx(spread, rel=0.5)


def test_the_same_seed_gives_the_same_errors():
    masses = np.random.default_rng(5).normal(80, 8, 500)
    first, again = (find_peak(masses, 40, 120, bandwidth=3.0, seed=2) for _ in range(2))
    assert first == again
    assert find_peak(masses, 40, 120, bandwidth=3.0, seed=3) != first


def test_no_peak_is_an_error():
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match=r"no peak between 0 and 1: .* on both sides"):
        find_peak(rng.uniform(size=1000), 0, 1, bandwidth=0.1)
    with pytest.raises(ValueError, match="must have some between 5 and 6, got none"):
        find_peak(rng.uniform(size=1000), 5, 6, bandwidth=0.1)


def test_spectra_show_counts_errors_and_names():
    edges = np.array([0.0, 1.0, 3.0, 4.0])
    samples = {"first": [0.5, 1.5, 2.5, 9.0], "second": [3.5]}
    ax = plot_spectra(samples, edges, references={"cut": 2.0})
    first, second = (patch.get_data().values * np.diff(edges) for patch in ax.patches)
    assert first.tolist() == [0.25, 0.5, 0]  # what is outside counts in the norm
    assert second.tolist() == [0, 0, 1]
    bars = [np.diff(bar[:, 1])[0] / 2 for bar in ax.collections[0].get_segments()]
    assert bars == pytest.approx(np.sqrt([1, 2]) / (4 * np.diff(edges)[:2]))
    assert ax.lines[0].get_xdata()[0] == 2.0
    assert [text.get_text() for text in ax.texts] == ["cut"]
    assert ax.get_legend_handles_labels()[1] == ["first", "second"]
    lines = {patch.get_linestyle() for patch in ax.patches}
    assert len(lines) == 2
    plt.close(ax.figure)


def test_too_many_spectra_are_refused():
    with pytest.raises(ValueError, match="`samples` must be 1 to 5, got 6"):
        plot_spectra({str(i): [1.0] for i in range(6)}, [0, 1])


def test_members_beside_the_truth() -> None:
    truth, errors = np.array([0.2, 0.3, 0.0]), np.array([0.02, 0.03, 0.0])
    members = {"one": [[0.2, 0.3, 0.1], [0.4, 0.3, 0.1]], "two": [[0.1, 0.3, 0.0]]}
    upper, lower = plot_members(members, truth, errors, [0.0, 1.0, 2.0, 3.0])
    assert [text.get_text() for text in upper.legend().get_texts()] == [
        "one",
        "two",
        "held-out events",
    ]
    ratio, band = (patch.get_data() for patch in lower.patches[:2])
    np.testing.assert_allclose(ratio.values, [1.5, 1.0, np.nan])
    # One standard deviation of a member: of 0.2 and 0.4, over 0.2.
    np.testing.assert_allclose(band.values - ratio.values, [0.5**0.5, 0.0, np.nan])
    alone = lower.patches[3].get_data()
    np.testing.assert_allclose(alone.values, alone.baseline)


def test_members_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="`members` must be 1 to 4, got 0"):
        plot_members({}, [1.0], [1.0], [0.0, 1.0])
