"""All-hadronic top pairs at 13 TeV, as measured: one shard of them. Needs the extra [simulate].

Pythia 8, the response of the Delphes ATLAS card and anti-kT jets; cuts and the assignment of jets
are those of datasets.top_pairs. How the events differ from the paper's: data/README.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genamp_lib.datasets.kinematics import delta_r, pseudorapidity
from genamp_lib.datasets.top_pairs import (
    ABS_ETA_MAX,
    DELTA_R_MIN,
    N_TAGS,
    PT_MIN,
    SIGMA_TOP,
    SIGMA_W,
    W_MASS,
    assign_jets,
    passes_cuts,
)
from genamp_lib.simulation import detector
from genamp_lib.simulation.collisions import (
    HADRONIC_TOP_PAIRS,
    Arrays,
    Counts,
    JetTable,
    Particles,
    measured_jets,
    measured_settings,
    run_chain,
)

# Raise it whenever the code below, in collisions or in detector changes the numbers.
CHAIN_VERSION = 1

PROCESS = HADRONIC_TOP_PAIRS
# The card's jet finder drops jets below 20 GeV before the energy scale lifts them.
RAW_PT_MIN = 20.0  # GeV
N_JETS = (6, 10)  # "+0j" and "+4j"


def chain_settings(events_per_shard: int, *, mpi: bool = True) -> dict[str, Any]:
    """Return all that the events of a shard depend on besides its seed."""
    return {
        "chain": "top pairs",
        "chain_version": CHAIN_VERSION,
        **measured_settings(PROCESS, events_per_shard, mpi),
        "jet_algorithm": "anti-kT, E scheme",
        "jet_raw_pt_min_gev": RAW_PT_MIN,
        "jet_pt_min_gev": PT_MIN,
        "jet_abs_eta_max": ABS_ETA_MAX,
        "jet_delta_r_min": DELTA_R_MIN,
        "n_tags": N_TAGS,
        "n_jets": list(N_JETS),
        "chi2_w_mass_gev": W_MASS,
        "chi2_sigma_w_gev": SIGMA_W,
        "chi2_sigma_top_gev": SIGMA_TOP,
    }


def make_events(
    index: int, seed: int, *, n_events: int, mpi: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Generate one shard of top pairs from nothing but its seed, 1 to 900,000,000.

    `mpi` are multiparton interactions, the underlying event. Returns `momenta` (n, 10, 4), float32
    and not rounded, pt, eta, phi, mass in the order of `assign_jets`, zero where an event has 6
    jets only; `n_jets` (n,); `chi2` (n,); and the cut flow of the collisions.
    """
    pythia = measured_settings(PROCESS, n_events, mpi)["pythia"]
    return run_chain(pythia, seed, n_events, _select)


def _select(particles: Particles, rng: np.random.Generator) -> tuple[list[Arrays], Counts]:
    # Muons leave nothing in the card's towers, as neutrinos.
    is_final = particles.status > 0
    cuts = {"raw_pt_min": RAW_PT_MIN, "pt_min": PT_MIN, "abs_eta_max": ABS_ETA_MAX}
    table = measured_jets(particles, is_final, rng, **cuts)
    (six, of_six), (ten, of_ten) = (_passing(particles, table, n, rng) for n in N_JETS)
    return [six, ten], of_six | of_ten


def _passing(
    particles: Particles, table: JetTable, n_jets: int, rng: np.random.Generator
) -> tuple[Arrays, Counts]:
    """Apply Eq. (38) to the events with `n_jets` jets and put the jets in order."""
    events = np.flatnonzero(table.n_jets == n_jets)
    jets = table.of_events(events, n_jets)
    flavour = jet_flavour(particles, events, jets)
    tagged = rng.random(flavour.shape) < detector.tagging_efficiency(jets[..., 0], flavour)
    has_tags = tagged.sum(axis=1) == N_TAGS
    jets, tagged = jets[has_tags], tagged[has_tags]
    is_apart = passes_cuts(jets)  # pt and eta were cut before jets were counted
    jets, tagged = jets[is_apart], tagged[is_apart]
    flow = {"jets": len(events), "tagged": int(has_tags.sum()), "selected": len(jets)}

    order, chi2 = assign_jets(jets, tagged)
    momenta = np.zeros((len(jets), max(N_JETS), 4), dtype=np.float32)
    momenta[:, :n_jets] = np.take_along_axis(jets, order[..., None], axis=1)
    arrays = {
        "momenta": momenta,
        "n_jets": np.full(len(jets), n_jets, dtype=np.uint8),
        "chi2": chi2.astype(np.float32),
    }
    return arrays, {f"{cut}_{n_jets}": count for cut, count in flow.items()}


def jet_flavour(particles: Particles, events: np.ndarray, jets: np.ndarray) -> np.ndarray:
    """Return 5 for jets near a b quark, else 4 near a c quark, else 0, as Delphes, (n, n_jets).

    `events` are the ascending numbers of the events that the jets (n, n_jets, 4) are of.
    """
    flavours = np.zeros(jets.shape[:2], dtype=np.int64)
    row = np.full(particles.n_events, -1)
    row[events] = np.arange(len(events))
    for flavour in (4, 5):
        # As they are when they turn into hadrons.
        chosen = (np.abs(particles.pdg_id) == flavour) & (np.abs(particles.daughter_pdg_id) > 100)
        chosen &= row[particles.event] >= 0
        _, px, py, pz = particles.momenta[:, chosen]
        pt = np.hypot(px, py)
        quarks = np.stack([pt, pseudorapidity(pt, pz), np.arctan2(py, px), 0 * pt], axis=-1)
        inside = (pt > detector.FLAVOUR_PT_MIN) & (
            np.abs(quarks[:, 1]) < detector.FLAVOUR_ABS_ETA_MAX
        )
        quarks, rows = quarks[inside], row[particles.event[chosen]][inside]
        near = delta_r(jets[rows], quarks[:, None]) < detector.FLAVOUR_DELTA_R
        quark, jet = np.nonzero(near)
        flavours[rows[quark], jet] = flavour
    return flavours
