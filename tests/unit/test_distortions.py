"""Distortions: densities against closed forms, and samples that follow them."""

import numpy as np
import pytest
from scipy.stats import norm

from genamp_lib.datasets.distortions import Distortion, cut_distortion, product_distortion


def test_cut_in_closed_form():
    values = np.arange(100) / 100
    distortion = cut_distortion(values, cut=0.9)
    weights = distortion.true_weights(values)
    np.testing.assert_allclose(weights[:90], 0.9)
    assert np.isinf(weights[90:]).all()
    chosen = distortion.select(values, np.random.default_rng(1))
    np.testing.assert_array_equal(chosen, values < 0.9)  # all below: no jet is lost


def test_product_is_the_expected_histogram():
    """One value v: the density of v z in each bin is that of the Gaussian z."""
    values = np.array([0.25] * 3 + [1.0])
    distortion = product_distortion(values, mean=1.0, width=0.1, n_bins=4, largest_ratio=100.0)
    edges = np.linspace(0, 1, 5)
    expected = sum(np.diff(norm.cdf(edges / v, 1.0, 0.1)) for v in values)
    counts = np.array([0, 3, 0, 1])
    ratio = np.divide(expected, counts, out=np.ones(4), where=counts > 0)
    np.testing.assert_allclose(distortion.ratio, ratio * 4 / (ratio * counts).sum())


def test_ratio_is_cut_and_normalised():
    values = np.random.default_rng(1).exponential(size=5000)
    distortion = product_distortion(values, mean=1.0, width=0.3, largest_ratio=1.5)
    assert (1 / distortion.true_weights(values)).mean() == pytest.approx(1.0)
    assert distortion.ratio.max() / np.median(distortion.ratio) < 2.0


def test_chosen_events_follow_the_distorted_density():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=200_000)
    distortion = product_distortion(values, mean=1.2, width=0.1, n_bins=12)
    chosen = values[distortion.select(values, rng)]
    truth, found = (np.histogram(x, distortion.edges)[0] for x in (values, chosen))
    expected = truth / len(values) * distortion.ratio * len(chosen)
    # 12 bins within 5 standard deviations: false alarms 7e-6.
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected) + 1).all()
    # Undistorted, it would not be so.
    assert (np.abs(found - truth / len(values) * len(chosen)) > 5 * np.sqrt(expected)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cut_distortion(x, cut=9.0), "`cut` must lie between the values"),
        (lambda x: product_distortion(x - 1, mean=1.0, width=0.1), "`values` must be 1D and pos"),
        (lambda x: product_distortion(x, mean=1.0, width=0.0), "`mean` and `width` must be posi"),
        (lambda x: Distortion(x, x[1:]).true_weights([9.0]), "`values` must lie in 0.1 ... 0.9"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.array([0.1, 0.5, 0.9]))
