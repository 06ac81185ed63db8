"""Simulated top pairs: the chain as a plain loop, flavours as Delphes has them, peaks."""

import numpy as np
import pytest
from tests_support import assign_by_a_plain_loop

from genamp_lib._project import GenampError
from genamp_lib.datasets.kinematics import delta_r, mass_of_sum, to_cartesian
from genamp_lib.datasets.top_pairs import passes_cuts
from genamp_lib.simulation import collisions, detector
from genamp_lib.simulation import top_pairs as chain


def particles_of(rows, n_events):
    """Event records from rows of (event, pdg_id, pt, eta, phi, pdg_id of the daughter)."""
    event, pdg_id, pt, eta, phi, daughter = np.array(rows, dtype=float).T
    momenta = to_cartesian(np.stack([pt, eta, phi, 0 * pt], axis=-1)).T
    ids = (array.astype(int) for array in (event, pdg_id, daughter))
    event, pdg_id, daughter = ids
    return collisions.Particles(n_events, event, pdg_id, -71 + 0 * event, momenta, daughter)


def test_flavour_is_that_of_the_heaviest_quark_near_the_jet():
    jets = np.array([[[50, 0.0, 3.1, 5], [40, 1.0, 0.0, 5], [30, 2.8, 1.0, 5]]] * 2)
    particles = particles_of(
        [
            (0, 5, 30, 0.0, 3.0, 513),  # another event
            (1, 4, 20, 1.1, 0.1, 413),
            (2, 5, 20, 0.0, -3.1, 513),  # near over the seam of phi
            (2, -4, 20, 0.1, 3.1, -413),  # c beside b: b
            (2, -4, 20, 1.0, 0.4, -413),
            (2, 5, 20, 1.0, 0.0, 5),  # radiates further
            (2, 5, 0.9, 1.0, 0.0, 513),  # too soft
            (2, -5, 20, 2.6, 1.0, -513),  # too far forward
            (2, 21, 20, 2.8, 1.0, 111),
        ],
        n_events=3,
    )
    flavours = chain.jet_flavour(particles, np.array([1, 2]), jets)
    assert flavours.tolist() == [[0, 4, 0], [5, 4, 0]]


@pytest.mark.simulate
def test_chain_is_the_plain_loop(needs_extra, monkeypatch):
    """Without randomness in the detector: one event at a time, one particle at a time."""
    import fastjet
    import pythia8mc

    n_events, seed = 60, 99
    monkeypatch.setattr(collisions, "calorimeter_response", perfect_response)
    monkeypatch.setattr(detector, "tagging_efficiency", lambda pt, flavour: 1.0 * (flavour == 5))
    arrays, counts = chain.make_events(0, seed, n_events=n_events, mpi=False)

    pythia = pythia8mc.Pythia("", False)
    settings = (*collisions.COMMON_SETTINGS, *chain.PROCESS, "PartonLevel:MPI = off")
    for line in ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}", *settings):
        assert pythia.readString(line)
    pythia.init()
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    expected = []
    for _ in range(n_events):
        assert pythia.next()
        inputs, bottoms = [], []
        for particle in pythia.event:
            vector = fastjet.PseudoJet(particle.px(), particle.py(), particle.pz(), particle.e())
            is_seen = particle.isFinal() and particle.idAbs() not in (12, 13, 14, 16)
            if is_seen and abs(particle.eta()) <= 4.9:
                inputs.append(vector)
            daughter = pythia.event[particle.daughter1()].idAbs() if particle.daughter1() else 0
            if particle.idAbs() == 5 and daughter > 100 and vector.pt() > 1:
                bottoms += [vector] if abs(vector.eta()) < 2.5 else []
        sequence = fastjet.ClusterSequence(inputs, definition)
        jets = []
        for jet in fastjet.sorted_by_pt(sequence.inclusive_jets(20.0)):
            scale = np.sqrt((3 - 0.2 * abs(jet.eta())) ** 2 / jet.pt() + 1)
            if scale * jet.pt() > 22 and abs(jet.eta()) < 5:
                jets.append((scale * jet.pt(), jet.eta(), jet.phi_std(), scale * jet.m(), jet))
        jets.sort(key=lambda jet: -jet[0])
        near = [any(separation(j[4], quark) < 0.5 for quark in bottoms) for j in jets]
        pairs = ((a[4], b[4]) for i, a in enumerate(jets) for b in jets[:i])
        if len(jets) in (6, 10) and sum(near) == 2 and all(separation(*p) > 0.5 for p in pairs):
            momenta = np.array([jet[:4] for jet in jets])
            order, chi2 = assign_by_a_plain_loop(momenta, near)
            expected.append((momenta[order], chi2))
    assert counts["events"] == n_events
    assert len(expected) == counts["selected_6"] + counts["selected_10"] >= 5
    by_n_jets = sorted(expected, key=lambda event: len(event[0]))  # one batch: 6 jets first
    for row, (momenta, chi2) in enumerate(by_n_jets):
        n_jets = len(momenta)
        assert arrays["n_jets"][row] == n_jets
        assert arrays["momenta"][row, :n_jets] == pytest.approx(momenta, rel=1e-5, abs=1e-6)
        assert not arrays["momenta"][row, n_jets:].any()
        assert arrays["chi2"][row] == pytest.approx(chi2, rel=1e-4)


def perfect_response(energy, eta, pdg_id, rng):
    return np.where((np.abs(eta) <= 4.9) & ~np.isin(np.abs(pdg_id), (12, 13, 14, 16)), 1.0, 0.0)


def separation(first, second):
    """Delta R in pseudorapidity."""
    return np.hypot(first.eta() - second.eta(), first.delta_phi_to(second))


@pytest.mark.simulate
def test_peaks_and_cuts_of_a_small_sample(needs_extra):
    arrays, counts = chain.make_events(0, 5, n_events=5000, mpi=False)
    assert counts["selected_6"] == (arrays["n_jets"] == 6).sum()
    assert counts["selected_10"] == (arrays["n_jets"] == 10).sum()
    for n_jets in (6, 10):
        flow = [counts[f"{cut}_{n_jets}"] for cut in ("jets", "tagged", "selected")]
        assert flow == sorted(flow, reverse=True)
        assert flow[-1] > 0
    # About 0.08 of the collisions: 400 +- 19, five of those wide.
    assert 300 < counts["selected_6"] < 500

    momenta = arrays["momenta"][arrays["n_jets"] == 6][:, :6].astype(np.float64)
    chi2 = arrays["chi2"][arrays["n_jets"] == 6]
    assert passes_cuts(momenta).all()
    tops = momenta.reshape(-1, 2, 3, 4)
    assert (tops[:, :, 1, 0] >= tops[:, :, 2, 0]).all()
    # Where the chi^2 is good: medians of about 180 masses that are some 15 GeV wide.
    good = tops[chi2 < 10].reshape(-1, 3, 4)
    w_mass, top_mass = mass_of_sum(good[:, 1:]), mass_of_sum(good)
    assert np.median(w_mass) == pytest.approx(80.4, abs=5)
    assert np.median(top_mass) == pytest.approx(172.5, abs=10)
    # Their cores are as wide as a detector makes them, not wider.
    assert 3 < np.subtract(*np.percentile(w_mass, [84, 16])) / 2 < 11
    assert 8 < np.subtract(*np.percentile(top_mass, [84, 16])) / 2 < 30


@pytest.mark.simulate
def test_energy_scale_overshoots_as_the_datasheet_says(needs_extra, monkeypatch):
    """Measured over true pt of jets: medians of some hundred, each known to 0.01."""
    settings = {"raw_pt_min": 5.0, "pt_min": 5.0, "abs_eta_max": 2.5}
    pythia = collisions.start_pythia(chain.chain_settings(1, mpi=False)["pythia"], 7)
    (records,) = collisions.batches(pythia, 250, 250)
    particles = collisions.flat_particles(records)
    final, rng = particles.status > 0, np.random.default_rng(1)
    measured = collisions.measured_jets(particles, final, rng, **settings)
    monkeypatch.setattr(collisions, "calorimeter_response", perfect_response)
    monkeypatch.setattr(collisions, "jet_energy_scale", lambda pt, eta: np.ones_like(pt))
    true = collisions.measured_jets(particles, final, rng, **settings)
    event_of_true, event_of_measured = (
        np.repeat(np.arange(250), table.n_jets) for table in (true, measured)
    )
    distance = delta_r(true.momenta[:, None], measured.momenta[None])
    distance[event_of_true[:, None] != event_of_measured] = np.inf
    nearest, is_matched = distance.argmin(axis=1), distance.min(axis=1) < 0.2
    pt = true.momenta[:, 0]
    ratio = measured.momenta[nearest, 0] / pt
    for low, high, expected in ((20, 30, 1.14), (50, 80, 1.055), (150, 400, 1.015)):
        chosen = is_matched & (pt > low) & (pt < high)
        assert np.median(ratio[chosen]) == pytest.approx(expected, abs=0.03)


@pytest.mark.simulate
def test_underlying_event_is_on_by_default(needs_extra):
    _, with_it = chain.make_events(0, 6, n_events=20)
    _, without = chain.make_events(0, 6, n_events=20, mpi=False)
    assert with_it != without
    assert chain.chain_settings(20)["pythia"][-1] == "PartonLevel:MPI = on"


@pytest.mark.simulate
def test_pythia_refuses_a_setting_that_it_does_not_know(needs_extra, monkeypatch):
    monkeypatch.setattr(chain, "PROCESS", ("Top:gg2top = on",))
    with pytest.raises(GenampError, match="refuses the setting `Top:gg2top = on`"):
        chain.make_events(0, 1, n_events=1)
