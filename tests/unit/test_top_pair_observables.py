"""Observables of top pairs: closed forms, symmetries, bad input."""

import numpy as np
import pytest

from genamp_lib.datasets import (
    TOP_PAIR_OBSERVABLES,
    mass_of_sum,
    to_cartesian,
    top_pair_features,
    top_pair_observables,
)


def events(n, n_particles=6):
    rng = np.random.default_rng(1)
    low, high = [22.0, -2.0, -np.pi, 3.0], [200.0, 2.0, np.pi, 20.0]
    return rng.uniform(low, high, (n, n_particles, 4))


def column(momenta, name):
    return top_pair_observables(momenta)[:, TOP_PAIR_OBSERVABLES.index(name)]


def turned(momenta, angle):
    moved = momenta.copy()
    moved[..., 2] = (moved[..., 2] + angle + np.pi) % (2 * np.pi) - np.pi
    return moved


def test_masses_and_pt_are_those_of_the_sums():
    momenta = events(50)
    assert column(momenta, "m_w") == pytest.approx(mass_of_sum(momenta[:, 1:3]))
    assert column(momenta, "m_t") == pytest.approx(mass_of_sum(momenta[:, :3]))
    assert column(momenta, "m_tt") == pytest.approx(mass_of_sum(momenta))
    _, px, py, _ = np.moveaxis(to_cartesian(momenta).sum(1), -1, 0)
    assert column(momenta, "pt_tt") == pytest.approx(np.hypot(px, py))
    assert np.array_equal(column(momenta, "pt_q"), momenta[:, 5, 0])


def test_closest_jets():
    momenta = events(1)
    momenta[0, :, 1] = [0.0, 1.0, 2.0, 3.0, 4.0, 4.3]
    momenta[0, :, 2] = [0.0, 0.0, 0.0, 0.0, np.pi - 0.2, -np.pi + 0.2]
    assert column(momenta, "delta_r_min") == pytest.approx([0.5])


def test_further_jets_count_for_distances_only():
    momenta = events(30, n_particles=8)
    with_jets, without = top_pair_observables(momenta), top_pair_observables(momenta[:, :6])
    assert np.array_equal(with_jets[:, :-1], without[:, :-1])
    assert (with_jets[:, -1] <= without[:, -1]).all()
    assert (with_jets[:, -1] < without[:, -1]).any()


@pytest.mark.parametrize("function", [top_pair_observables, top_pair_features])
def test_nothing_changes_in_a_rotation_about_the_beam(function):
    momenta = events(40)
    moved = turned(momenta, 2.5)
    assert function(moved) == pytest.approx(function(momenta), rel=1e-9, abs=1e-9)


def test_features_tell_a_mirror_in_azimuth_apart():
    momenta = events(5)
    mirrored = momenta * [1, 1, -1, 1]
    assert not np.allclose(top_pair_features(momenta), top_pair_features(mirrored))
    assert top_pair_features(momenta).shape == (5, 5 * 6 + 15 + 6)


@pytest.mark.parametrize("shape", [(4, 5, 4), (4, 6, 3), (6, 4)])
def test_wrong_shapes(shape):
    for function in (top_pair_observables, top_pair_features):
        with pytest.raises(ValueError, match="`momenta` must be"):
            function(np.ones(shape))
