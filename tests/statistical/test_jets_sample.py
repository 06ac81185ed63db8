"""The shipped jets are what they say: layout exactly, physics against estimates by hand.

The file is fixed: these tests either always pass or always fail. Where a threshold is statistical
it is set as for a fresh sample, with a false-alarm rate of at most 1e-5; it says so beside it.
"""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from genamp_lib.datasets import find_peak, load_jets, relative_mass

# Two-sided Gaussian tail of 1e-6; several such tests stay below 1e-5 together.
N_SIGMA = 4.9


@pytest.fixture(scope="module", params=["jets_gluon", "jets_gluon_r04"])
def jets(request):
    return load_jets(request.param)


@pytest.fixture(scope="module")
def radius(jets):
    return jets.provenance["settings"]["jet_radius"]


@pytest.fixture(scope="module")
def particles(jets):
    return jets.particles.astype(np.float64)


def pull_of_mean(values):
    return values.mean() / (values.std() / np.sqrt(len(values)))


def test_layout(jets):
    assert jets.particles.shape == (60_000, 30, 4)
    assert jets.jets.shape == (60_000, 4)
    assert jets.particles.dtype == jets.jets.dtype == np.float32
    assert jets.multiplicity.shape == (60_000,)
    assert jets.provenance["kind"] == "gluon"
    assert jets.provenance["n_jets"] == 60_000


def test_constituents_are_sorted_and_masked(jets):
    eta_rel, phi_rel, pt_rel, mask = np.moveaxis(jets.particles, -1, 0)
    assert (np.diff(pt_rel, axis=1) <= 0).all()
    assert np.array_equal(mask == 1, pt_rel > 0)
    assert not eta_rel[mask == 0].any()
    assert not phi_rel[mask == 0].any()
    assert np.array_equal(mask.sum(axis=1), jets.jets[:, 3])
    assert np.array_equal(jets.jets[:, 3], np.minimum(jets.multiplicity, 30))


def test_constituents_lie_around_the_axis(particles, radius):
    eta_rel, phi_rel, pt_rel, _ = np.moveaxis(particles, -1, 0)
    # An unwrapped phi would show as 2 pi.
    assert np.abs(phi_rel).max() < np.pi / 2
    # The axis is the pt-weighted centre: hardly any pt lies farther out than R.
    far = np.hypot(eta_rel, phi_rel) > radius
    assert (pt_rel * far).sum() / pt_rel.sum() < 0.02


def test_transverse_momentum_is_not_more_than_the_jets(jets, particles):
    along = (particles[..., 2] * np.cos(particles[..., 1])).sum(axis=1)
    rounding = 2.0**-12
    assert along.max() <= 1 + rounding
    # All constituents of all jets, stored or not, add up to 1.
    complete = jets.multiplicity <= 30
    assert complete.sum() > 10
    assert along[complete] == pytest.approx(1, abs=rounding)
    # Hadrons per jet are many, but the hardest 30 hold most of the momentum.
    assert 0.75 < along.mean() < 1


def test_jets_lie_in_the_window(jets):
    pt, eta, mass, _ = jets.jets.T
    assert pt.min() > 800
    assert pt.max() < 1600
    assert np.abs(eta).max() < 2.5
    assert mass.min() > 0
    # Partons have 995 to 1005 GeV.
    assert np.median(pt) == pytest.approx(1000, rel=0.05)


def test_mass_of_stored_constituents_is_below_the_mass_of_the_jet(jets, particles):
    """Leaving out constituents and their masses can only lower an invariant mass."""
    ratio = relative_mass(particles) * jets.jets[:, 0] / jets.jets[:, 2]
    assert ratio.max() < 1 + 2.0**-10


def test_mass_distribution_against_estimates_by_hand(jets, particles, radius):
    # Rule of thumb for QCD jets (Ellis, Huston et al., 0712.2447): <m> is about 0.2 pt R.
    pt, mass = jets.jets[:, 0], jets.jets[:, 2]
    assert 0.2 / 1.4 < (mass / (pt * radius)).mean() < 0.2 * 1.4
    # Median from the leading-logarithmic Sudakov factor with hard-collinear correction,
    # P(m^2 / (pt R)^2 < rho) = exp(-alpha_s C_A / pi (L^2 / 2 - 11/12 L)), L = log(1 / rho):
    alpha_s, colour = 0.1, 3.0
    exponent = np.log(2) * np.pi / (alpha_s * colour)
    log = 11 / 12 + np.sqrt((11 / 12) ** 2 + 2 * exponent)
    estimate = radius * np.exp(-log / 2)
    # 0.071 for R = 0.8. It has no soft particles from elsewhere, and the stored jets few.
    assert estimate / 1.5 < np.median(relative_mass(particles)) < estimate * 1.5


def test_beams_and_directions_are_alike(jets, particles):
    """Nothing prefers a beam, or a sense of rotation: means are zero, all at 1e-6."""
    assert abs(pull_of_mean(jets.jets[:, 1].astype(np.float64))) < N_SIGMA
    for axis in (0, 1):
        centre = (particles[..., 2] * particles[..., axis]).sum(axis=1)
        assert abs(pull_of_mean(centre)) < N_SIGMA


def test_jets_are_independent_and_identically_distributed(jets, particles):
    mass = relative_mass(particles)
    # No jet twice, which equal seeds of two shards would give.
    assert len(np.unique(jets.jets, axis=0)) == len(jets)
    # Neighbours, which might be from one event, are not correlated.
    standard = (mass - mass.mean()) / mass.std()
    assert abs(pull_of_mean(standard[:-1] * standard[1:])) < N_SIGMA
    # Early jets are like late ones, and jets of even and odd place are alike.
    assert ks_2samp(mass[:30_000], mass[30_000:]).pvalue > 1e-6
    assert ks_2samp(mass[::2], mass[1::2]).pvalue > 1e-6


def test_precision_is_the_one_that_is_documented(jets):
    bits = jets.provenance["mantissa_bits"]
    assert bits == 11
    pattern = jets.particles[..., :3].copy().view(np.uint32)
    assert (pattern & (2 ** (23 - bits) - 1) == 0).all()
    checks = jets.provenance["checks"]
    assert checks["rounding_max_change_of_relative_mass"] < 1e-3
    mass = relative_mass(jets.particles)
    assert checks["relative_mass_q50"] == pytest.approx(np.median(mass), rel=1e-5)
    assert checks["mean_pt_gev"] == pytest.approx(jets.jets[:, 0].mean(dtype=float), rel=1e-5)
    assert checks["mean_multiplicity"] == pytest.approx(jets.multiplicity.mean(), rel=1e-5)


@pytest.fixture(scope="module")
def kinds():
    """Gluon, light-quark and top jets of the same radius."""
    return {kind: load_jets(f"jets_{kind}_r04") for kind in ("gluon", "light", "top")}


def test_light_and_top_jets_are_made_as_the_gluon_jets(kinds):
    settings = {kind: dict(jets.provenance["settings"]) for kind, jets in kinds.items()}
    for kind, made in settings.items():
        assert made.pop("kind") == kind
        assert made["pythia"][:5] == settings["gluon"]["pythia"][:5]  # beams and window of pt
    common = [{k: v for k, v in made.items() if k != "pythia"} for made in settings.values()]
    assert common[0] == common[1] == common[2]
    for jets in (kinds["light"], kinds["top"]):
        assert len(jets) == 10_000
        assert len(np.unique(jets.jets, axis=0)) == len(jets)
        assert abs(pull_of_mean(jets.jets[:, 1].astype(np.float64))) < N_SIGMA
        pt, eta, mass, n_constituents = jets.jets.T
        assert (pt.min() > 800) & (pt.max() < 1600) & (np.abs(eta).max() < 2.5) & (mass.min() > 0)
        assert np.array_equal(n_constituents, np.minimum(jets.multiplicity, 30))


def test_gluon_jets_are_heavier_and_have_more_constituents_than_quark_jets(kinds):
    """Gluons radiate more, by C_A / C_F = 9/4 where only the first emission counted.

    Means of 10,000 jets are known to 0.7 %: each bound is more than ten standard deviations off.
    """
    mass = {kind: jets.jets[:, 2].mean(dtype=np.float64) for kind, jets in kinds.items()}
    assert 1.2 < mass["gluon"] / mass["light"] < 9 / 4
    assert mass["top"] / mass["gluon"] > 1.2
    multiplicity = {kind: jets.multiplicity.mean() for kind, jets in kinds.items()}
    assert 1.3 < multiplicity["gluon"] / multiplicity["light"] < 9 / 4


def test_top_jets_have_the_mass_of_the_top_quark_or_of_the_w(kinds):
    """Within 4 GeV of 172.5, and at most 12 above 80.4, of which the b's radiation is the most.

    At 1 TeV three quarks are about 2 m / pt = 0.35 apart: half of the tops fit into R = 0.4.
    """
    mass = kinds["top"].jets[:, 2].astype(np.float64)
    peak = find_peak(mass, 120, 240, bandwidth=2.0)
    assert peak.position == pytest.approx(172.5, abs=4)
    assert peak.width < 20
    # Without the b a W is left, and some of what the b has radiated.
    counts, edges = np.histogram(mass, np.arange(60, 132, 4))
    assert 80.4 < edges[counts.argmax()] + 2 < 80.4 + 12
    contained = ((mass > 140) & (mass < 200)).mean()
    assert 0.4 < contained < 0.65
    for kind in ("gluon", "light"):  # a continuum: as much as its neighbours have
        other = kinds[kind].jets[:, 2]
        inside = ((other > 140) & (other < 200)).mean()
        assert inside < ((other > 80) & (other < 140)).mean()
        assert inside < contained / 4
