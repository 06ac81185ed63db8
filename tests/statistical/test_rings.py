"""Samples of the ring follow its density, in both conventions.

z = 4.5 standard deviations of a normal distribution are exceeded with probability 7e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstest, kstwo

from genamp_lib.datasets import Ring, radius

Z = 4.5


@pytest.mark.parametrize("n_features", [3, 4])
def test_density_integrates_to_one(n_features: int) -> None:
    """Importance sampling from the uniform density in a cube that holds 10 sigma of the ring.

    For "sphere" only: the square of the "flat" density has no integral, see the next test.
    """
    rng = np.random.default_rng(1)
    events = rng.uniform(-2.0, 2.0, (400_000, n_features))
    weights = 4.0**n_features * np.exp(Ring(n_features, "sphere").log_prob(events))
    error = weights.std() / math.sqrt(len(weights))
    assert error < 0.01
    assert abs(weights.mean() - 1.0) < Z * error


@pytest.mark.parametrize("n_features", [3, 4])
def test_the_two_conventions_reweight_into_each_other(n_features: int) -> None:
    """E_flat[p_sphere / p_flat f] = E_sphere[f]; with f = 1 the norm of the "flat" density.

    The ratio is bounded (sines to positive powers), so that its mean is close to normal.
    """
    flat, sphere = Ring(n_features, "flat"), Ring(n_features, "sphere")
    events, reference = flat.sample(100_000, seed=2), sphere.sample(100_000, seed=3)
    weights = np.exp(sphere.log_prob(events) - flat.log_prob(events))
    for function in (np.ones_like, np.square, lambda x: np.abs(x) ** 3):
        for column in range(n_features):
            value = weights * function(events[:, column])
            wanted = function(reference[:, column])
            error = math.hypot(value.std(), wanted.std()) / math.sqrt(len(events))
            assert abs(value.mean() - wanted.mean()) < Z * error + 1e-12


@pytest.mark.parametrize("angles", ["flat", "sphere"])
@pytest.mark.parametrize("n_features", [2, 4])
def test_radii_follow_their_cdf(n_features: int, angles: str) -> None:
    # Exact Kolmogorov quantile at a false-alarm rate of 2e-6 per case, 8e-6 for the four.
    ring = Ring(n_features, angles)
    radii = radius(ring.sample(50_000, seed=4))
    limit = kstwo.isf(2e-6, len(radii))
    assert kstest(radii, ring.radial_cdf).statistic < limit
    assert kstest(radii + 0.003, ring.radial_cdf).statistic > limit  # 3 % of sigma is seen


def test_flat_angles_are_uniform() -> None:
    # Three angles at a false-alarm rate of 2e-6 each; on the sphere the first two are not uniform.
    for angles, n_uniform in (("flat", 3), ("sphere", 1)):
        events = Ring(4, angles).sample(20_000, seed=5)
        limit = kstwo.isf(2e-6, len(events))
        phis = [
            np.arctan2(radius(events[:, 1:]), events[:, 0]) / np.pi,
            np.arctan2(radius(events[:, 2:]), events[:, 1]) / np.pi,
            np.arctan2(events[:, 3], events[:, 2]) / (2 * np.pi) % 1.0,
        ]
        assert sum(kstest(phi, "uniform").statistic < limit for phi in phis) == n_uniform
