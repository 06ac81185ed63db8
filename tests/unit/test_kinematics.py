"""Four-momenta: round trips to machine precision at any rapidity, closed forms, another library."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genamp_lib.datasets.kinematics import (
    delta_phi,
    delta_r,
    mass_of_sum,
    pseudorapidity,
    to_cartesian,
    to_cylindrical,
)

EPS = np.finfo(np.float64).eps

pts = st.floats(1e-3, 1e5)
etas = st.floats(-300, 300)
phis = st.floats(-math.pi, math.pi, exclude_max=True)
masses = st.floats(0, 1e4)


@given(pts, etas, phis, masses)
def test_round_trip_from_cylindrical(pt, eta, phi, mass):
    back = to_cylindrical(to_cartesian([pt, eta, phi, mass]))
    energy = to_cartesian([pt, eta, phi, mass])[0]
    assert back[0] == pytest.approx(pt, rel=4 * EPS)
    # The cosh and sinh of a float near eta are known to eps times eta.
    assert back[1] == pytest.approx(eta, rel=8 * EPS, abs=8 * EPS)
    assert abs(delta_phi(back[2], phi)) <= 4 * EPS
    # Energy and momentum hold the mass squared to a few eps of the energy squared, and no better.
    assert abs(back[3] / energy * back[3] - mass / energy * mass) <= 16 * EPS * energy


@given(pts, st.floats(-15, 15), phis, masses)
def test_round_trip_from_cartesian(pt, eta, phi, mass):
    vector = to_cartesian([pt, eta, phi, mass])
    back = to_cartesian(to_cylindrical(vector))
    assert back == pytest.approx(vector, rel=0, abs=64 * EPS * vector[0])


@given(pts, etas, phis, masses)
def test_ranges(pt, eta, phi, mass):
    back = to_cylindrical(to_cartesian([pt, eta, phi, mass]))
    assert -math.pi <= back[2] < math.pi
    assert back[3] >= 0
    assert np.isfinite(back).all()


def test_along_the_beam_and_at_rest():
    cases = to_cylindrical([[5, 0, 0, 5], [5, 0, 0, -5], [3, 0, 0, 0], [0, 0, 0, 0]])
    assert cases[:, 1].tolist() == [np.inf, -np.inf, 0, 0]
    assert cases[:, 3].tolist() == [0, 0, 3, 0]
    assert pseudorapidity(1.0, -math.sinh(2.5)) == pytest.approx(-2.5)
    # More momentum than energy, as rounding makes it.
    assert to_cylindrical([1.0, 1.0 + 1e-15, 0, 0])[3] == 0


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_delta_phi_is_the_angle_between(first, second):
    delta = delta_phi(first, second)
    assert -math.pi <= delta < math.pi
    assert math.cos(delta) == pytest.approx(math.cos(first - second), abs=1e-13)
    assert math.sin(delta) == pytest.approx(math.sin(first - second), abs=1e-13)


def test_delta_phi_leaves_small_differences_alone():
    assert delta_phi(1e-300, 0.0) == 1e-300
    assert delta_phi(np.pi, 0.0) == -np.pi
    assert delta_phi(-np.pi, 0.0) == -np.pi
    assert delta_phi(np.nextafter(-np.pi, -4), 0.0) < np.pi


def test_delta_r_over_the_seam():
    first, second = [10, 1.0, 3.1, 0], [20, 0.7, -3.1, 5]
    assert delta_r(first, second) == pytest.approx(math.hypot(0.3, 2 * math.pi - 6.2))
    assert delta_r([first, second], first).shape == (2,)


@given(etas, phis, st.floats(0.1, 3), st.floats(0.1, 3), pts)
def test_mass_of_two_massless_particles_at_any_boost(eta, phi, delta_eta, angle, pt):
    delta_eta = (eta + delta_eta) - eta  # as the two floats have it
    angle = abs(delta_phi(phi + angle, phi))
    closed = math.sqrt(2 * pt * 2 * pt * (math.cosh(delta_eta) - math.cos(angle)))
    pair = [[pt, eta + delta_eta, phi + angle, 0], [2 * pt, eta, phi, 0]]
    # exp(eta) is known to eps times eta; the boost itself, exp(600) at most, costs nothing.
    scale = (3 * pt) ** 2 * math.cosh(delta_eta)
    tolerance = (20 + 10 * abs(eta)) * EPS * scale
    assert mass_of_sum(pair) ** 2 == pytest.approx(closed**2, rel=0, abs=tolerance)


@given(pts, etas, phis, masses)
def test_mass_of_one_particle_is_its_mass(pt, eta, phi, mass):
    tolerance = (100 + 20 * abs(eta)) * EPS * math.hypot(pt, mass) ** 2
    assert mass_of_sum([[pt, eta, phi, mass]]) ** 2 == pytest.approx(mass**2, abs=tolerance)


def test_mass_of_sum_is_that_of_the_summed_vectors():
    rng = np.random.default_rng(4)
    shape = (200, 5)
    columns = rng.exponential(50, shape), rng.normal(0, 2, shape), rng.uniform(-3, 3, shape)
    momenta = np.stack([*columns, rng.exponential(5, shape)], axis=-1)
    energy, px, py, pz = to_cartesian(momenta).sum(axis=1).T
    expected = np.sqrt(energy**2 - px**2 - py**2 - pz**2)
    assert mass_of_sum(momenta) == pytest.approx(expected, rel=1e-9)
    assert mass_of_sum(momenta.astype(np.float32)).dtype == np.float64


def test_beside_vector():
    vector = pytest.importorskip("vector", reason="vector is missing: pip install vector")
    rng = np.random.default_rng(5)
    n = 1000
    pt, eta, phi = rng.exponential(50, n), rng.normal(0, 3, n), rng.uniform(-np.pi, np.pi, n)
    mass = rng.exponential(10, n)
    theirs = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": mass})
    ours = np.stack([pt, eta, phi, mass], axis=-1)
    cartesian = to_cartesian(ours)
    for column, name in enumerate(("E", "px", "py", "pz")):
        assert cartesian[:, column] == pytest.approx(getattr(theirs, name), rel=1e-12, abs=1e-12)
    half = n // 2
    first, second = theirs[:half], theirs[half:]
    assert delta_r(ours[:half], ours[half:]) == pytest.approx(first.deltaR(second), rel=1e-12)
    pairs = np.stack([ours[:half], ours[half:]], axis=1)
    assert mass_of_sum(pairs) == pytest.approx((first + second).mass, rel=1e-6)
    assert delta_phi(phi[:half], phi[half:]) == pytest.approx(first.deltaphi(second), rel=1e-12)


@pytest.mark.parametrize("function", [to_cartesian, to_cylindrical, mass_of_sum])
def test_other_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"`momenta` must have shape \(..., 4\), got \(2, 3\)"):
        function(np.zeros((2, 3)))
