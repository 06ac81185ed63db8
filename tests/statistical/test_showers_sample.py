"""The shipped showers are what they say: layout exactly, physics against what is known.

The files are fixed: these tests either always pass or always fail. Where a threshold is statistical
it is set as for a fresh sample, with a false-alarm rate of at most 1e-5; it says so beside it. The
others are tolerances: the formulas beside them are worth no more.
"""

import numpy as np
import pytest
from scipy.special import gammainc
from scipy.stats import kstest, mannwhitneyu

from genamp_lib.datasets import load_showers, shower_observables
from genamp_lib.datasets.showers import PARTICLES
from genamp_lib.datasets.sources import find_sample

# Two-sided Gaussian tail of 1e-6; several such tests stay below 1e-5 together.
N_SIGMA = 4.9
P_VALUE = 1e-6
MANTISSA_BITS = 10

# A sampling layer of 2 mm of lead and 4 mm of argon in radiation lengths of 5.61 and 140 mm.
X0_PER_MM = (2 / 5.61 + 4 / 140) / 6
# Of lead, MeV (Particle Data Group); the argon's part of the losses raises it by less than a third.
CRITICAL_ENERGY = 7.43 * 1.2


@pytest.fixture(scope="module")
def showers():
    return {particle: load_showers(particle) for particle in PARTICLES}


@pytest.fixture(scope="module")
def values(showers):
    return {particle: shower_observables(sample) for particle, sample in showers.items()}


def pull_of_mean(sample, expected=0.0):
    return (sample.mean() - expected) / (sample.std(ddof=1) / np.sqrt(len(sample)))


@pytest.mark.parametrize("particle", PARTICLES)
def test_layout(showers, particle):
    sample = showers[particle]
    n = find_sample(f"showers_{particle}").rows
    assert len(sample) == n >= 1000
    assert sample.layer_0.shape == (n, 3, 96)
    assert sample.layer_1.shape == (n, 12, 12)
    assert sample.layer_2.shape == (n, 12, 6)
    assert sample.overflow.shape == (n, 3)
    assert sample.voxels.dtype == sample.energy.dtype == np.float32
    made = sample.provenance
    assert made["particle"] == particle
    assert made["n_showers"] == n
    assert made["settings"]["chain"] == "Geant4 11.4 with analytic low-energy tables"
    assert made["mantissa_bits"] == MANTISSA_BITS
    # Rounded, as the provenance says: the dropped bits are zero.
    assert not (sample.voxels.view(np.uint32) & ((1 << (23 - MANTISSA_BITS)) - 1)).any()


@pytest.mark.parametrize("particle", PARTICLES)
def test_no_shower_is_there_twice(showers, particle):
    assert len(np.unique(showers[particle].energy)) > 0.999 * len(showers[particle])


@pytest.mark.parametrize("particle", PARTICLES)
def test_energies_are_uniform(showers, particle):
    assert kstest(showers[particle].energy, "uniform", args=(1, 99)).pvalue > P_VALUE


def test_energies_of_two_particles_are_independent(showers):
    n = min(len(sample) for sample in showers.values())
    energies = [sample.energy[:n].astype(np.float64) for sample in showers.values()]
    assert np.abs(np.corrcoef(energies)[np.triu_indices(3, 1)]).max() < N_SIGMA / np.sqrt(n)


@pytest.mark.parametrize("particle", PARTICLES)
def test_no_more_energy_comes_out_than_goes_in(showers, values, particle):
    """Annihilation adds two electron masses, a stopped pion its own mass and a nucleus its own."""
    given = 1e3 * showers[particle].energy.astype(np.float64)
    more = {"eplus": 1.022, "gamma": 0.0, "piplus": 150.0}[particle]
    overflow = showers[particle].overflow.sum(axis=1, dtype=np.float64)
    found = values[particle]["total_energy"] + overflow
    assert (found < given * (1 + 2.0 ** -(MANTISSA_BITS + 1)) + more).all()


@pytest.mark.parametrize("particle", ["eplus", "gamma"])
def test_electromagnetic_response(showers, values, particle):
    """27 radiation lengths hold all but a per cent; deposits in lead count, so nothing is lost."""
    response = values[particle]["response"]
    for low, high in ((1, 10), (10, 40), (40, 100)):
        here = response[(showers[particle].energy >= low) & (showers[particle].energy < high)]
        assert 0.985 < here.mean() < 1.001
        assert here.std() < 0.01
    assert values[particle]["overflow_fraction"].mean() < 0.003


def test_a_third_of_the_pions_only_ionise(showers, values):
    """160 mm of lead and 320 mm of argon are 1.1 pion interaction lengths (199 and 1067 mm).

    Those deposit 271 MeV if minimum ionising, and up to a third more as relativistic pions. 0.05
    is for interactions that leave little, and for delta rays.
    """
    total = values["piplus"]["total_energy"][showers["piplus"].energy > 10]
    assert (total < 600).mean() == pytest.approx(np.exp(-160 / 199.3 - 320 / 1067), abs=0.05)
    counts, edges = np.histogram(total, bins=np.arange(0, 600, 25))
    assert 271 < edges[counts.argmax()] + 12.5 < 271 * 4 / 3
    # The others leave anything between that and all: the response is broad.
    response = values["piplus"]["response"]
    assert 0.2 < response.mean() < 0.4
    assert response.std() > 0.2 > 20 * values["eplus"]["response"].std()


@pytest.mark.parametrize(("particle", "later"), [("eplus", -0.5), ("gamma", 0.5)])
def test_layer_fractions_follow_the_longitudinal_profile(showers, values, particle, later):
    """Gamma distribution of the Particle Data Group, b = 0.5, t_max = ln(E / E_c) -+ 0.5.

    0.03 is what the rough b and critical energy leave open.
    """
    b, energy = 0.5, 1e3 * showers[particle].energy.astype(np.float64)
    a = 1 + b * (np.log(energy / CRITICAL_ENERGY) + later)
    inside = [gammainc(a, b * depth * X0_PER_MM) for depth in (90, 437, 480)]
    expected = (inside[0] / inside[2], (inside[1] - inside[0]) / inside[2])
    for layer, fraction in enumerate(expected):
        found = values[particle][f"fraction_{layer}"]
        assert found.mean() == pytest.approx(fraction.mean(), abs=0.03)
        # Showers of more energy are deeper, by as much as the profile says.
        fast = energy > 50e3
        change = found[fast].mean() - found[~fast].mean()
        assert change == pytest.approx(fraction[fast].mean() - fraction[~fast].mean(), abs=0.05)


def test_photons_start_later_than_positrons(values):
    eplus, gamma = values["eplus"], values["gamma"]
    for name, alternative in (("depth", "less"), ("fraction_0", "greater")):
        assert mannwhitneyu(eplus[name], gamma[name], alternative=alternative).pvalue < P_VALUE
    # All positrons radiate in the first layer. Of the photons exp(-7/9 t) do not convert in it,
    # which is 1.1 %; below 10 GeV conversion is rarer, and a late one leaves little.
    assert eplus["energy_0"].min() > 20
    assert 0.004 < (gamma["energy_0"] < 20).mean() < 0.03


def test_pions_are_broader_than_positrons(values):
    eplus, piplus = values["eplus"], values["piplus"]
    interacted = piplus["response"] > 0.3
    for layer in (0, 1):
        ours = piplus[f"eta_width_{layer}"][interacted]
        assert np.median(ours) > 1.2 * np.median(eplus[f"eta_width_{layer}"])
    assert piplus["overflow_fraction"].mean() > 5 * eplus["overflow_fraction"].mean()


def test_pions_that_only_ionise_make_the_sharp_edge_in_layer_0(values):
    """30 mm of lead at 12.7 MeV/cm and 60 mm of argon at 2.1 MeV/cm: 51 MeV, up to a third more."""
    total, energy = values["piplus"]["total_energy"], values["piplus"]["energy_0"]
    counts, edges = np.histogram(energy, bins=np.arange(0, 300, 5))
    assert 45 < edges[counts.argmax()] < 70
    assert np.quantile(energy, 0.01) > 45
    through = energy[total < 600]
    assert ((through > 45) & (through < 2 * 51 * 4 / 3)).mean() > 0.95


@pytest.mark.parametrize("particle", PARTICLES)
def test_showers_are_centred(showers, values, particle):
    """The beam hits the middle; means of hundreds of centroids are zero within their errors."""
    for layer in (0, 1):
        for axis in ("eta", "phi"):
            centroid = values[particle][f"{axis}_centroid_{layer}"]
            assert abs(pull_of_mean(centroid)) < N_SIGMA
    # The second layer has square cells: both directions must be alike.
    widths = [values[particle][f"{axis}_width_1"] for axis in ("eta", "phi")]
    assert abs(pull_of_mean(widths[0] - widths[1])) < N_SIGMA
