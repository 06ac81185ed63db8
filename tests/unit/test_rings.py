"""The ring's density, conventions and regions against integrals and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.stats import norm

from genamp_lib.datasets import Ring, radius


def test_density_integrates_to_one_in_two_dimensions() -> None:
    """Cartesian quadrature of one quadrant, up to 10 sigma: what lies beyond is below 1e-22."""

    def density(y: float, x: float) -> float:
        return math.exp(Ring(2).log_prob([x, y]))

    def floor(x: float) -> float:  # the ring only: the integrand vanishes inside of 0.3
        return math.sqrt(max(0.3**2 - x**2, 0.0))

    total = dblquad(density, 0, 2, floor, 2, epsabs=1e-8, epsrel=1e-8)[0]
    assert 4 * total == pytest.approx(1.0, abs=1e-6)


def test_density_is_that_of_eq_5_divided_by_the_jacobian() -> None:
    """At one point with known angles, R = 1.05, in four dimensions."""
    phi = np.array([0.4, 1.1, 4.0])
    sines = np.sin(phi)
    point = 1.05 * np.array(
        [
            np.cos(phi[0]),
            sines[0] * np.cos(phi[1]),
            sines[0] * sines[1] * np.cos(phi[2]),
            sines[0] * sines[1] * sines[2],
        ]
    )
    radial = norm.pdf(1.05, 1.0, 0.1)
    flat = radial / (1.05**3 * sines[0] ** 2 * sines[1]) / (np.pi * np.pi * 2 * np.pi)
    sphere = radial / 1.05**3 / (2 * np.pi**2)
    assert np.exp(Ring(4, "flat").log_prob(point)) == pytest.approx(flat, rel=1e-12)
    assert np.exp(Ring(4, "sphere").log_prob(point)) == pytest.approx(sphere, rel=1e-12)


@pytest.mark.parametrize("n_features", [3, 4, 5])
def test_sphere_does_not_depend_on_the_direction(n_features: int) -> None:
    ring = Ring(n_features, "sphere")
    vectors = np.random.default_rng(1).normal(size=(10, n_features))
    on_shell = 0.9 * vectors / radius(vectors)[:, np.newaxis]
    assert np.ptp(ring.log_prob(on_shell)) < 1e-12


def test_conventions_agree_in_two_dimensions() -> None:
    events = Ring(2).sample(100, seed=1)
    flat, sphere = (Ring(2, angles).log_prob(events) for angles in ("flat", "sphere"))
    np.testing.assert_allclose(flat, sphere, rtol=0, atol=1e-13)


def test_flat_angles_are_flat() -> None:
    """The mean of cos^2 phi_1 is 1/2 for a flat angle, 1/4 on the sphere in four dimensions."""
    for angles, wanted in (("flat", 0.5), ("sphere", 0.25)):
        events = Ring(4, angles).sample(20_000, seed=2)
        squares = (events[:, 0] / radius(events)) ** 2
        # 4.5 standard deviations: 7e-6 in each of the two cases.
        assert abs(squares.mean() - wanted) < 4.5 * squares.std() / math.sqrt(len(squares))


def test_singular_points() -> None:
    assert Ring(2).log_prob([0.0, 0.0]) == np.inf
    assert Ring(4, "flat").log_prob([1.0, 0.0, 0.0, 0.0]) == np.inf
    assert np.isfinite(Ring(4, "sphere").log_prob([1.0, 0.0, 0.0, 0.0]))


def test_radial_cdf() -> None:
    ring = Ring(4)
    for r in (0.0, 0.5, 0.9, 1.0, 1.3):
        wanted = quad(norm(1.0, 0.1).pdf, 0.0, r, epsabs=1e-12, points=[0.95 * r])[0]
        assert ring.radial_cdf(r) == pytest.approx(wanted, abs=1e-9)
    np.testing.assert_array_equal(ring.radial_cdf([-1.0, 0.0, np.inf]), [0.0, 0.0, 1.0])


def test_regions_have_equal_probability() -> None:
    edges = Ring(2).radial_edges()
    assert edges.shape == (21,)
    assert (edges[0], edges[-1]) == (0.0, np.inf)
    np.testing.assert_allclose(np.diff(Ring(2).radial_cdf(edges)), 0.05, rtol=0, atol=1e-14)


def test_same_seed_same_events() -> None:
    ring = Ring(3)
    np.testing.assert_array_equal(ring.sample(5, seed=7), ring.sample(5, seed=7))
    rng = np.random.default_rng(7)
    first, second = ring.sample(5, seed=rng), ring.sample(5, seed=rng)
    np.testing.assert_array_equal(first, ring.sample(5, seed=7))
    assert not np.array_equal(first, second)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`n_features` must be at least 2, got 1"):
        Ring(1)
    with pytest.raises(ValueError, match="`angles` must be 'flat' or 'sphere', got 'round'"):
        Ring(2, "round")
    with pytest.raises(ValueError, match="`n_events` must not be negative, got -1"):
        Ring(2).sample(-1, seed=0)
    with pytest.raises(ValueError, match=r"`features` must be \(\.\.\., 3\), got shape \(5, 2\)"):
        Ring(3).log_prob(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="`n_regions` must be positive, got 0"):
        Ring(2).radial_edges(0)
