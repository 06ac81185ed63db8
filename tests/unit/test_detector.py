"""The formulas of the Delphes ATLAS card, number by number, and draws against their moments.

Statistical thresholds: 4.9 standard deviations, two-sided 1e-6 each, below 1e-5 together.
"""

import math

import numpy as np
import pytest

from genamp_lib.simulation import detector

N_SIGMA = 4.9

# Written out from cards/delphes_card_ATLAS.tcl, by hand: |eta| in a region, E = 40 GeV.
ELECTROMAGNETIC = {
    1.0: math.sqrt((40 * 0.0017) ** 2 + 40 * 0.101**2),
    3.2: math.sqrt((40 * 0.0017) ** 2 + 40 * 0.101**2),
    3.3: math.sqrt((40 * 0.0350) ** 2 + 40 * 0.285**2),
    4.9: math.sqrt((40 * 0.0350) ** 2 + 40 * 0.285**2),
    5.0: 0.0,
}
HADRONIC = {
    1.7: math.sqrt((40 * 0.0302) ** 2 + 40 * 0.5205**2),
    1.8: math.sqrt((40 * 0.0500) ** 2 + 40 * 0.706**2),
    3.2: math.sqrt((40 * 0.0500) ** 2 + 40 * 0.706**2),
    4.0: math.sqrt((40 * 0.0942) ** 2 + 40 * 1.00**2),
    5.0: 0.0,
}


@pytest.mark.parametrize("sign", [1, -1])
def test_resolutions_of_the_calorimeters(sign):
    for eta, sigma in ELECTROMAGNETIC.items():
        assert detector.resolution(
            40.0, sign * eta, detector.ELECTROMAGNETIC_REGIONS
        ) == pytest.approx(sigma)
    for eta, sigma in HADRONIC.items():
        assert detector.resolution(40.0, sign * eta, detector.HADRONIC_REGIONS) == pytest.approx(
            sigma
        )


def test_resolution_and_efficiency_of_muons():
    pt = 50.0
    expected = {
        0.5: (math.hypot(0.01, pt * 1.0e-4), 0.99 * 0.95),
        1.5: (math.hypot(0.015, pt * 1.5e-4), 0.99 * 0.95),
        2.5: (math.hypot(0.025, pt * 3.5e-4), 0.98 * 0.85),
    }
    for eta, (sigma, efficiency) in expected.items():
        for sign in (1, -1):
            assert detector.muon_resolution(pt, sign * eta) == pytest.approx(sigma)
            assert detector.muon_efficiency(pt, sign * eta) == pytest.approx(efficiency)
    # Identified up to 2.7, but without a track beyond 2.5.
    assert detector.muon_efficiency(pt, 2.6) == 0
    assert detector.muon_efficiency([10.0, 10.1], 0.0).tolist() == [0, pytest.approx(0.9405)]


def test_energy_scale_of_jets():
    assert detector.jet_energy_scale(25.0, -2.0) == pytest.approx(math.sqrt(2.6**2 / 25 + 1))


def test_tagging_efficiency():
    pt = np.array([25.0, 60.0, 300.0])
    for flavour, expected in (
        (5, 0.80 * np.tanh(0.003 * pt) * 30 / (1 + 0.086 * pt)),
        (4, 0.20 * np.tanh(0.02 * pt) / (1 + 0.0034 * pt)),
        (0, 0.002 + 7.3e-6 * pt),
        (21, 0.002 + 7.3e-6 * pt),
    ):
        assert detector.tagging_efficiency(pt, flavour) == pytest.approx(expected)
    assert detector.tagging_efficiency(80.0, [5, 4, 1])[0] > 0.6


def test_log_normal_has_its_mean_and_width():
    n = 200_000
    rng = np.random.default_rng(1)
    for mean, std in ((100.0, 5.0), (1.0, 0.7)):
        values = detector.log_normal(np.full(n, mean), std, rng)
        assert values.min() > 0
        assert abs(values.mean() - mean) < N_SIGMA * std / math.sqrt(n)
        # The logarithm is normal, so its variance has the error of a normal one.
        variance = math.log1p((std / mean) ** 2)
        error = variance * math.sqrt(2 / n)
        assert abs(np.log(values).var() - variance) < N_SIGMA * error
    assert np.array_equal(detector.log_normal([2.0, 3.0], 0.0, rng), [2.0, 3.0])


@pytest.mark.parametrize(
    ("pdg_id", "regions"),
    [
        (22, detector.ELECTROMAGNETIC_REGIONS),
        (-11, detector.ELECTROMAGNETIC_REGIONS),
        (111, detector.ELECTROMAGNETIC_REGIONS),
        (211, detector.HADRONIC_REGIONS),
        (-2112, detector.HADRONIC_REGIONS),
        (130, detector.HADRONIC_REGIONS),
    ],
)
def test_response_of_particles(pdg_id, regions):
    n = 100_000
    energy, eta = np.full(n, 80.0), np.full(n, -2.0)
    rng = np.random.default_rng(abs(pdg_id))
    response = detector.calorimeter_response(energy, eta, np.full(n, pdg_id), rng)
    sigma = float(detector.resolution(80.0, 2.0, regions)) / 80
    assert abs(response.mean() - 1) < N_SIGMA * sigma / math.sqrt(n)
    # Excess kurtosis of a log-normal this narrow is below 0.2.
    assert abs(response.std() / sigma - 1) < N_SIGMA * math.sqrt(0.55 / n)


def test_what_the_calorimeters_do_not_see():
    rng = np.random.default_rng(3)
    ids = np.array([13, -13, 12, -14, 16, 211, 211, 211, 22])
    eta = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 4.95, -6.0, np.inf, 0.0])
    energy = np.array([50.0, 50, 50, 50, 50, 50, 50, 50, 0.01])
    assert not detector.calorimeter_response(energy, eta, ids, rng).any()


def test_the_seed_says_it_all():
    arguments = (np.full(10, 5.0), np.zeros(10), np.full(10, 211))
    first, second, other = (
        detector.calorimeter_response(*arguments, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
