"""Top pairs: cuts, jets assigned as a plain loop does, observables in closed form, bad input."""

from itertools import combinations

import numpy as np
import pytest
from tests_support import assign_by_a_plain_loop, random_jets

from genamp_lib.datasets.kinematics import delta_r, mass_of_sum, to_cartesian, to_cylindrical
from genamp_lib.datasets.top_pairs import (
    TOP_PAIR_OBSERVABLES,
    assign_jets,
    assignment_chi2,
    assignments,
    exchanges,
    in_order,
    passes_cuts,
    reconstructed,
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


def test_cuts():
    """Against the definition, pair by pair."""
    drawn = random_jets(100, cuts=False).numpy()
    expected = [
        all(jet[0] > 22 and abs(jet[1]) < 5 for jet in event)
        and all(delta_r(a, b) > 0.5 for a, b in combinations(event, 2))
        for event in drawn
    ]
    assert passes_cuts(drawn).tolist() == expected
    assert 5 < sum(expected) < 95


@pytest.mark.parametrize(
    ("particle", "field", "value"),
    [(2, 0, 22.0), (5, 1, -5.0), (1, 3, np.nan), (0, 1, 0.3), (4, 1, np.inf)],
)
def test_one_jet_fails_an_event(particle, field, value):
    event = np.array([[40.0, eta, 0.0, 5.0] for eta in 0.6 * np.arange(6)])
    assert passes_cuts(event[None]).all()
    event[particle, field] = value
    assert not passes_cuts(event[None]).any()


def test_what_is_identical_may_be_exchanged():
    momenta = in_order(random_jets(100, n_particles=8))
    orders = exchanges(8)
    assert len({tuple(order) for order in orders.tolist()}) == 8
    for order in orders:
        assert np.array_equal(in_order(momenta[:, order]), momenta)
    tops = to_cartesian(momenta[:, :6]).reshape(-1, 2, 3, 4).sum(2)
    top_pt = np.hypot(tops[..., 1], tops[..., 2])
    assert (top_pt[:, 0] >= top_pt[:, 1]).all()
    assert (momenta[:, 6, 0] >= momenta[:, 7, 0]).all()


def test_jets_are_assigned_by_the_smallest_chi2():
    """Against the formula, one assignment at a time."""
    momenta = random_jets(60, seed=2, n_particles=7).numpy()
    chi2, orders = assignment_chi2(momenta), assignments(7)
    assert len(orders) == 30 == len({tuple(order) for order in orders.tolist()})
    for found, order in zip(chi2.T, orders, strict=True):
        x = momenta[:, order]
        tops = [mass_of_sum(x[:, :3]), mass_of_sum(x[:, 3:6])]
        expected = (tops[0] - tops[1]) ** 2 / (2 * 10.7**2)
        expected += sum((mass_of_sum(x[:, w]) - 80.4) ** 2 for w in ([1, 2], [4, 5])) / 5.9**2
        assert found == pytest.approx(expected, rel=1e-9)
    # What is in order of pt does not change which is smallest.
    assert assignment_chi2(reconstructed(momenta))[:, 0] == pytest.approx(chi2.min(1), rel=1e-9)
    with pytest.raises(ValueError, match="`n_particles` must be at least 6, got 5"):
        assignments(5)


def random_events(n, n_jets, seed):
    """Jets in order of falling pt, two of them tagged."""
    rng = np.random.default_rng(seed)
    pt = np.sort(22 + rng.exponential(60.0, size=(n, n_jets)), axis=1)[:, ::-1]
    eta, phi = rng.normal(0, 1.2, (n, n_jets)), rng.uniform(-np.pi, np.pi, (n, n_jets))
    jets = np.stack([pt, eta, phi, 0.15 * pt], axis=-1)
    return jets, rng.random((n, n_jets)).argsort(axis=1) < 2


@pytest.mark.parametrize(("n", "n_jets"), [(60, 6), (40, 7), (8, 10)])
def test_assignment_is_the_best_of_all(n, n_jets):
    jets, tagged = random_events(n, n_jets, seed=n_jets)
    order, chi2 = assign_jets(jets, tagged)
    for event in range(n):
        expected, expected_chi2 = assign_by_a_plain_loop(jets[event], tagged[event])
        assert order[event].tolist() == expected
        assert chi2[event] == pytest.approx(expected_chi2, rel=1e-9)


def test_assignment_finds_the_top_quarks_among_others():
    """Two exact decays far apart, and four jets that do not fit: the decays are found."""
    rng = np.random.default_rng(8)
    n = 50
    first, second = (np.stack([decay(rng, sign * 120.0) for _ in range(n)]) for sign in (1, -1))
    spare = np.stack([[22.0 + index, 3.5 + 0.6 * index, 0.1, 1.0] for index in range(4)])
    jets = np.concatenate([first, second, np.tile(spare, (n, 1, 1))], axis=1)
    origin = np.tile([0, 0, 0, 1, 1, 1, 2, 2, 2, 2], (n, 1))
    tagged = np.tile([True, False, False] * 2 + [False] * 4, (n, 1))
    by_pt = np.argsort(-jets[..., 0], axis=1)
    jets = np.take_along_axis(jets, by_pt[..., None], axis=1)
    origin, tagged = (np.take_along_axis(array, by_pt, axis=1) for array in (origin, tagged))

    order, chi2 = assign_jets(jets, tagged)
    assert chi2 == pytest.approx(0, abs=1e-10)
    origin = np.take_along_axis(origin, order, axis=1)
    assert (origin[:, :3] == origin[:, :1]).all()
    assert (origin[:, 3:6] == origin[:, 3:4]).all()
    assert (np.sort(origin[:, [0, 3]], axis=1) == [0, 1]).all()
    assert (origin[:, 6:] == 2).all()


def decay(rng, px):
    """Jets b, q, q of a top quark with mass 172.5 GeV that decays to a W with mass 80.4 GeV."""

    def two_body(mass, first, second):
        energy = (mass**2 + first**2 - second**2) / (2 * mass)
        direction = rng.normal(size=3)
        momentum = np.sqrt(energy**2 - first**2) * direction / np.linalg.norm(direction)
        return np.r_[energy, momentum], np.r_[mass - energy, -momentum]

    def boosted(vector, frame):
        mass = np.sqrt(frame[0] ** 2 - frame[1:] @ frame[1:])
        along = vector[1:] @ frame[1:]
        energy = (frame[0] * vector[0] + along) / mass
        return np.r_[energy, vector[1:] + frame[1:] * (energy + vector[0]) / (frame[0] + mass)]

    top = np.r_[np.hypot(172.5, px), px, 0, 0]
    bottom, w_boson = two_body(172.5, 5.0, 80.4)
    quarks = [boosted(boosted(quark, w_boson), top) for quark in two_body(80.4, 1.0, 1.0)]
    return to_cylindrical(np.stack([boosted(bottom, top), *quarks]))


@pytest.mark.parametrize("n_tags", [1, 3])
def test_assignment_refuses_other_numbers_of_tags(n_tags):
    jets, _ = random_events(5, 6, seed=1)
    with pytest.raises(ValueError, match="two of them true, in each event"):
        assign_jets(jets, np.tile(np.arange(6) < n_tags, (5, 1)))
    with pytest.raises(ValueError, match="six jets or more"):
        assign_jets(jets[:, :5], np.tile(np.arange(5) < 2, (5, 1)))
