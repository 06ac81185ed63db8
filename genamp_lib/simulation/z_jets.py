"""Z bosons to two muons with one, two or three jets at 13 TeV, as measured: one shard of them.

Pythia 8, the response of the Delphes ATLAS card, anti-kT jets; the process of Eq. (7) of paper B.
Needs the extra [simulate]. Not for many shards (simulation.samples) and not for reading them
(datasets.events). How the events differ from the paper's: notebooks/data_z_jets.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from genamp_lib.datasets.kinematics import pseudorapidity
from genamp_lib.simulation import detector
from genamp_lib.simulation.collisions import (
    Arrays,
    Counts,
    Particles,
    measured_jets,
    measured_settings,
    run_chain,
)

# Raise it whenever the code below, in collisions or in detector changes the numbers.
CHAIN_VERSION = 1

PROCESS = (
    "WeakBosonAndParton:qqbar2gmZg = on",
    "WeakBosonAndParton:qg2gmZq = on",
    "23:onMode = off",
    "23:onIfAny = 13",
    "23:mMin = 60.",
    "23:mMax = 120.",
    # Well below the jets' 20 GeV. With 8 GeV instead, the cross sections after selection are the
    # same within the 1 to 4 % to which 30,000 collisions know them; with 20 GeV a tenth of one-jet
    # events is lost.
    "PhaseSpace:pTHatMin = 12.0",
)
PT_MIN = 20.0  # GeV, of a jet
ABS_ETA_MAX = 4.5
N_JETS = (1, 2, 3)
# The energy scale lifts a jet at most by sqrt(9 / pt + 1): what is below cannot come to PT_MIN.
RAW_PT_MIN = (math.sqrt(81 + 4 * PT_MIN**2) - 9) / 2


def chain_settings(events_per_shard: int, *, mpi: bool = False) -> dict[str, Any]:
    """Return all that the events of a shard depend on besides its seed."""
    return {
        "chain": "Z and jets",
        "chain_version": CHAIN_VERSION,
        **measured_settings(PROCESS, events_per_shard, mpi),
        "jet_algorithm": "anti-kT, E scheme, without muons, neutrinos and photons of the shower",
        "jet_pt_min_gev": PT_MIN,
        "jet_abs_eta_max": ABS_ETA_MAX,
        "n_jets": list(N_JETS),
    }


def make_events(
    index: int, seed: int, *, n_events: int, mpi: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Generate one shard of Z bosons with jets from nothing but its seed, 1 to 900,000,000.

    Returns `momenta` (n, 5, 4), float32 and not rounded, pt, eta, phi, mass of two muons and
    the jets, each in order of falling pt, zero where an event has less than three jets;
    `n_jets` (n,); and the cut flow.
    """
    pythia = measured_settings(PROCESS, n_events, mpi)["pythia"]
    return run_chain(pythia, seed, n_events, _select)


def _select(particles: Particles, rng: np.random.Generator) -> tuple[list[Arrays], Counts]:
    events, muons = measured_muons(particles, rng)
    # Events without their muons need no jets. Nor do photons of the shower, most of them radiated
    # by the muons: a detector finds them as photons. Those of hadrons' decays have a status above.
    is_radiated = (particles.pdg_id == 22) & (particles.status < 80)
    chosen = (particles.status > 0) & np.isin(particles.event, events) & ~is_radiated
    cuts = {"raw_pt_min": RAW_PT_MIN, "pt_min": PT_MIN, "abs_eta_max": ABS_ETA_MAX}
    jets = measured_jets(particles, chosen, rng, **cuts)
    parts, counts = [], {"two_muons": len(events)}
    for n_jets in N_JETS:
        rows = np.flatnonzero(jets.n_jets[events] == n_jets)
        counts[f"selected_{n_jets}"] = len(rows)
        momenta = np.zeros((len(rows), 2 + max(N_JETS), 4), dtype=np.float32)
        momenta[:, :2] = muons[rows]
        momenta[:, 2 : 2 + n_jets] = jets.of_events(events[rows], n_jets)
        parts.append({"momenta": momenta, "n_jets": np.full(len(rows), n_jets, dtype=np.uint8)})
    return parts, counts


def measured_muons(particles: Particles, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the events in which both muons of the Z are found, and the muons.

    Indices of events (n,) are ascending; pt, eta, phi, mass (n, 2, 4) are as measured, the harder
    muon first.
    """
    chosen = np.flatnonzero((particles.status > 0) & (np.abs(particles.pdg_id) == 13))
    _, px, py, pz = particles.momenta[:, chosen]
    pt, event = np.hypot(px, py), particles.event[chosen]
    # The two hardest of each event are those of the Z.
    order = np.lexsort((-pt, event))
    n_muons = np.bincount(event, minlength=particles.n_events)
    first = (np.cumsum(n_muons) - n_muons)[n_muons >= 2]
    chosen = order[first[:, None] + np.arange(2)]
    pt, eta = pt[chosen], pseudorapidity(pt, pz)[chosen]
    phi = np.arctan2(py, px)[chosen]
    is_found = rng.random(pt.shape) < detector.muon_efficiency(pt, eta)
    both = is_found.all(axis=1)
    pt, eta, phi = pt[both], eta[both], phi[both]
    pt = detector.log_normal(pt, pt * detector.muon_resolution(pt, eta), rng)
    muons = np.stack([pt, eta, phi, np.full_like(pt, detector.MUON_MASS)], axis=-1)
    harder_first = np.argsort(-pt, axis=1, kind="stable")
    muons = np.take_along_axis(muons, harder_first[..., None], axis=1)
    return np.flatnonzero(n_muons >= 2)[both], muons
