"""The shipped gluon jets are what they say: layout exactly, physics against estimates by hand.

The file is fixed: these tests either always pass or always fail. Where a threshold is statistical
it is set as for a fresh sample, with a false-alarm rate of at most 1e-5; it says so beside it.
"""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from genamp_lib._project import project_root
from genamp_lib.datasets import load_jets, relative_mass

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


def test_the_readme_has_the_numbers_of_the_file(jets, particles, radius):
    readme = (project_root() / "data/README.md").read_text()
    sections = {0.8: "## `jets_gluon`\n", 0.4: "## `jets_gluon_r04`\n"}
    readme = readme.split(sections[radius])[1].split("\n## ")[0]
    made, checks = jets.provenance, jets.provenance["checks"]
    ratio = relative_mass(particles) * jets.jets[:, 0] / jets.jets[:, 2]
    quantiles = (checks[f"relative_mass_q{percent}"] for percent in (10, 50, 90))
    for text in (
        f"{made['n_events']:,}, {made['jets_per_event']:.3f}",
        f"{checks['mean_pt_gev']:.0f} GeV, {checks['std_pt_gev']:.0f} GeV",
        f"| {checks['mean_mass_gev']:.0f} GeV |",
        f"| {checks['mean_multiplicity']:.1f} |",
        ", ".join(f"{value:.3f}" for value in quantiles),
        f"sum of `pt_rel` is {checks['mean_sum_pt_rel']:.3f}",
        f"only {100 * checks['fraction_all_constituents_stored']:.2f} %",
        f"{1e5 * checks['rounding_rms_change_of_relative_mass']:.1f}e-5 (rms)",
        f"{1e4 * checks['rounding_max_change_of_relative_mass']:.1f}e-4 at most",
        f"median of the ratio is {np.median(ratio):.2f}",
        made["settings"]["versions"]["pythia8mc"].rsplit(".", 1)[0],
    ):
        assert text in readme, text
