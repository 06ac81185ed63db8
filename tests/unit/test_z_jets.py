"""Z bosons with jets: the chain is a plain loop, muons have their efficiency, the peak is there."""

import numpy as np
import pytest

from genamp_lib.datasets.kinematics import mass_of_sum, to_cartesian
from genamp_lib.simulation import collisions, detector
from genamp_lib.simulation import z_jets as chain

# Two-sided Gaussian tail of 1e-6; the few such tests here stay below 1e-5 together.
N_SIGMA = 4.9


def pairs_of_muons(n, pt=45.0, eta=(0.3, -2.0)):
    """Event records with two muons each and a photon between the events."""
    rows = np.array([[pt, eta[0], 0.0], [pt - 5, eta[1], 3.0], [20.0, 0.0, 1.0]] * n)
    momenta = np.concatenate([rows, np.zeros((3 * n, 1))], axis=1)
    event, pdg_id = np.repeat(np.arange(n), 3), np.tile([13, -13, 22], n)
    status = np.tile([1, 1, 1], n)
    return collisions.Particles(n, event, pdg_id, status, to_cartesian(momenta).T, 0 * event)


def test_muons_are_found_and_measured_as_the_card_says():
    n = 40_000
    events, muons = chain.measured_muons(pairs_of_muons(n), np.random.default_rng(1))
    efficiency = (0.99 * 0.95) * (0.98 * 0.85)
    error = np.sqrt(efficiency * (1 - efficiency) / n)
    assert abs(len(events) / n - efficiency) < N_SIGMA * error
    assert (np.diff(events) > 0).all()
    assert (muons[:, 0, 0] >= muons[:, 1, 0]).all()
    assert muons[..., 3] == pytest.approx(0.10566, abs=1e-5)
    # Which is which is told by eta, which is not smeared.
    for eta, pt in ((0.3, 45.0), (-2.0, 40.0)):
        measured = muons[..., 0][np.isclose(muons[..., 1], eta)]
        sigma = float(detector.muon_resolution(pt, eta))
        assert len(measured) == len(events)
        assert abs(measured.mean() / pt - 1) < N_SIGMA * sigma / np.sqrt(len(measured))
        assert abs(measured.std() / pt / sigma - 1) < N_SIGMA * np.sqrt(0.52 / len(measured))


def test_events_without_two_muons_are_left_out():
    # Events 0 to 3 with 2, 1, 0 and 3 muons; the softest of three is not one of the Z's.
    event = np.array([0, 0, 1, 3, 3, 3])
    pt = np.array([40.0, 50.0, 45.0, 12.0, 30.0, 60.0])
    momenta = to_cartesian(np.stack([pt, 0 * pt, 0.1 * event, 0 * pt], axis=-1)).T
    muons = collisions.Particles(4, event, 0 * event + 13, 0 * event + 1, momenta, 0 * event)
    for seed in range(20):
        events, found = chain.measured_muons(muons, np.random.default_rng(seed))
        assert set(events) <= {0, 3}
        for row, which in enumerate(events):
            expected = {0: [50, 40], 3: [60, 30]}[which]
            assert found[row, :, 0] == pytest.approx(expected, rel=0.1)
            assert found[row, :, 2] == pytest.approx([0.1 * which] * 2)


def test_no_jet_is_lost_before_the_energy_scale():
    raw = chain.RAW_PT_MIN
    for eta in (0.0, 2.0, 4.5):
        assert raw * detector.jet_energy_scale(raw, eta) <= chain.PT_MIN + 1e-9
    assert raw * detector.jet_energy_scale(raw, 0.0) == pytest.approx(chain.PT_MIN)


@pytest.mark.simulate
def test_chain_is_the_plain_loop(needs_extra, monkeypatch):
    """Without randomness in the detector: one event at a time, one particle at a time."""
    import fastjet
    import pythia8mc

    def perfect(energy, eta, pdg_id, rng):
        return 1.0 * ((np.abs(eta) <= 4.9) & ~np.isin(np.abs(pdg_id), (12, 13, 14, 16)))

    n_events, seed = 120, 98
    monkeypatch.setattr(collisions, "calorimeter_response", perfect)
    monkeypatch.setattr(detector, "muon_resolution", lambda pt, eta: 0 * pt)
    monkeypatch.setattr(
        detector, "muon_efficiency", lambda pt, eta: 1.0 * ((pt > 10) & (np.abs(eta) < 2.5))
    )
    monkeypatch.setattr(collisions, "EVENTS_PER_BATCH", 50)
    arrays, counts = chain.make_events(0, seed, n_events=n_events)

    pythia = pythia8mc.Pythia("", False)
    settings = chain.chain_settings(n_events)["pythia"]
    for line in ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}", *settings):
        assert pythia.readString(line)
    pythia.init()
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    expected, n_two_muons = [], 0
    for _ in range(n_events):
        assert pythia.next()
        final = [particle for particle in pythia.event if particle.isFinal()]
        muons = sorted((p for p in final if p.idAbs() == 13), key=lambda p: -p.pT())[:2]
        if len(muons) < 2 or any(p.pT() <= 10 or abs(p.eta()) >= 2.5 for p in muons):
            continue
        n_two_muons += 1
        inputs = [
            fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e())
            for p in final
            if p.idAbs() not in (12, 13, 14, 16)
            and abs(p.eta()) <= 4.9
            and not (p.id() == 22 and p.status() < 80)
        ]
        jets = []
        for jet in fastjet.ClusterSequence(inputs, definition).inclusive_jets(5.0):
            scale = np.sqrt((3 - 0.2 * abs(jet.eta())) ** 2 / jet.pt() + 1)
            if scale * jet.pt() > 20 and abs(jet.eta()) < 4.5:
                jets.append([scale * jet.pt(), jet.eta(), jet.phi_std(), scale * jet.m()])
        if 1 <= len(jets) <= 3:
            rows = [[p.pT(), p.eta(), p.phi(), detector.MUON_MASS] for p in muons]
            expected.append(np.array(rows + sorted(jets, reverse=True)))
    assert counts["events"] == n_events
    assert counts["two_muons"] == n_two_muons
    assert len(expected) >= 20
    # Within a batch of events those with one jet come first.
    by_muon = {round(float(row[0, 0]), 3): row for row in arrays["momenta"]}
    assert len(by_muon) == len(arrays["momenta"]) == len(expected)
    for event in expected:
        row = by_muon[round(float(np.float32(event[0, 0])), 3)]
        # A light jet's mass is known to the energy times 1e-8.
        assert row[: len(event)] == pytest.approx(event, rel=1e-5, abs=1e-4)
        assert not row[len(event) :].any()
    n_jets = np.bincount([len(event) - 2 for event in expected], minlength=4)
    assert [counts[f"selected_{n}"] for n in (1, 2, 3)] == n_jets[1:].tolist()


@pytest.mark.simulate
def test_photons_of_the_muons_are_no_jets(needs_extra):
    """Hardly an event has a jet without mass that, with the muons, has the mass of the Z."""
    arrays, _ = chain.make_events(0, 8, n_events=4000)
    jets = arrays["momenta"][:, 2:]
    assert (jets[..., 0] > 20).sum() > 1000
    assert ((jets[..., 0] > 20) & (jets[..., 3] < 0.1)).sum() < 5


@pytest.mark.simulate
def test_peak_and_cuts_of_a_small_sample(needs_extra):
    arrays, counts = chain.make_events(0, 5, n_events=4000)
    momenta, n_jets = arrays["momenta"].astype(np.float64), arrays["n_jets"]
    assert np.bincount(n_jets, minlength=4).tolist()[1:] == [
        counts[f"selected_{n}"] for n in (1, 2, 3)
    ]
    # Showers add jets one by one: each is rarer, by a factor of 2 to 10.
    for n in (1, 2):
        assert 2 < counts[f"selected_{n}"] / counts[f"selected_{n + 1}"] < 10
    for n in (1, 2, 3):
        jets = momenta[n_jets == n, 2 : 2 + n]
        assert jets[..., 0].min() > 20
        assert np.abs(jets[..., 1]).max() < 4.5
        assert (np.diff(jets[..., 0], axis=1) <= 0).all()
        assert not momenta[n_jets == n, 2 + n :].any()
    muons = momenta[:, :2]
    assert np.abs(muons[..., 1]).max() < 2.5
    assert (muons[:, 0, 0] >= muons[:, 1, 0]).all()
    # About 1000 masses with a core 2.8 GeV wide: the median is known to about 0.11 GeV.
    assert np.median(mass_of_sum(muons)) == pytest.approx(90.6, abs=0.6)
