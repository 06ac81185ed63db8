"""Jets of gluons, light quarks and top quarks from Pythia 8 and FastJet, in JetNet's layout.

One shard of them; not for many (simulation.samples) and not for reading them (datasets.jets,
where the kinematic conventions are). Needs the extra [simulate]. The jets are of the same kind as
JetNet's, but they are not JetNet's: notebooks/data_jets.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from genamp_lib._project import GenampError, install_hint
from genamp_lib.simulation.collisions import (
    BEAMS,
    HADRONIC_TOP_PAIRS,
    PACKAGES,
    batches,
    start_pythia,
)

# Raise it whenever the code below changes the numbers.
CHAIN_VERSION = 1

KINDS: dict[str, tuple[str, ...]] = {
    "gluon": ("HardQCD:gg2gg = on", "HardQCD:qqbar2gg = on"),
    "light": ("HardQCD:gg2qqbar = on", "HardQCD:qq2qq = on", "HardQCD:qqbar2qqbarNew = on"),
    "top": HADRONIC_TOP_PAIRS,
}
# Everything that is not named here is Pythia's default: Monash tune, NNPDF2.3 LO, multiparton
# interactions, shower and hadronisation on. The partons' pt window is JetNet's, 1 TeV within 1 %.
PYTHIA_SETTINGS = (*BEAMS, "PhaseSpace:pTHatMin = 995.", "PhaseSpace:pTHatMax = 1005.")
RADIUS = 0.8  # of jets, where nothing else is asked for
PT_RANGE = (800.0, 1600.0)  # GeV
ABS_ETA_MAX = 2.5
N_PARTICLES = 30
NEUTRINOS = (12, 14, 16)
EVENTS_PER_BATCH = 100


def require_extra(packages: Sequence[str] = PACKAGES) -> None:
    """Raise `GenampError` when a package of the extra [simulate] is missing."""
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            raise GenampError(
                f"`{package}` is needed to simulate; {install_hint('simulate')}"
            ) from None


def chain_settings(kind: str, events_per_shard: int, *, radius: float = RADIUS) -> dict[str, Any]:
    """Return all that the jets of a shard depend on besides its seed."""
    return {
        "chain_version": CHAIN_VERSION,
        "kind": kind,
        "events_per_shard": events_per_shard,
        "pythia": [*PYTHIA_SETTINGS, *KINDS[kind]],
        "jet_algorithm": "anti-kT, E scheme",
        "jet_radius": radius,
        "jet_pt_gev": list(PT_RANGE),
        "jet_abs_eta_max": ABS_ETA_MAX,
        "jets_kept_per_event": "one of the two hardest, in turn",
        "n_particles": N_PARTICLES,
        "excluded_pdg_ids": list(NEUTRINOS),
        "versions": {package: version(package) for package in PACKAGES},
    }


def make_jets(
    index: int, seed: int, *, kind: str, n_events: int, radius: float = RADIUS
) -> dict[str, np.ndarray]:
    """Generate one shard of jets from nothing but its seed, 1 to 900,000,000.

    One jet per event at most, so that jets are independent of each other: of the two hardest
    jets the first in even events, the second in odd ones, if it is in the window. Returns
    `particles` (n, 30, 4) and `jets` (n, 4), float32 and not rounded, and `multiplicity` (n,).
    """
    import awkward as ak
    import fastjet

    pythia = start_pythia((*PYTHIA_SETTINGS, *KINDS[kind]), seed)
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)

    parts, n_made = [], 0
    for particles in batches(pythia, n_events, EVENTS_PER_BATCH):
        visible = particles.status > 0
        for neutrino in NEUTRINOS:
            visible = visible & (abs(particles.id) != neutrino)
        momenta = particles.p[visible]
        momenta = ak.zip(
            {"px": momenta.px, "py": momenta.py, "pz": momenta.pz, "E": momenta.e},
            with_name="Momentum4D",
        )
        parts.append(_select_jets(momenta, definition, first_event=n_made))
        n_made += len(particles)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _select_jets(momenta: Any, definition: Any, *, first_event: int) -> dict[str, np.ndarray]:
    """Cluster the events of a batch and lay out the chosen jets; no loop over particles."""
    import awkward as ak
    import fastjet

    sequence = fastjet.ClusterSequence(momenta, definition)
    candidates = sequence.inclusive_jets(PT_RANGE[0])
    order = ak.argsort(np.hypot(candidates.px, candidates.py), axis=1, ascending=False)
    rank = (first_event + np.arange(len(momenta))) % 2
    chosen = order[ak.local_index(order, axis=1) == rank[:, None]]
    jets = ak.flatten(candidates[chosen])
    event = np.repeat(np.arange(len(momenta)), ak.to_numpy(ak.num(chosen)))
    indices = ak.flatten(sequence.constituent_index(PT_RANGE[0])[chosen], axis=1)

    px, py, pz, energy = (ak.to_numpy(jets[name]) for name in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))
    inside = (pt < PT_RANGE[1]) & (np.abs(eta) < ABS_ETA_MAX)

    constituents = momenta[event[inside]][indices[inside]]
    particles, multiplicity = _constituents(constituents, pt[inside], eta[inside], phi[inside])
    n_stored = np.minimum(multiplicity, N_PARTICLES)
    return {
        "particles": particles,
        "jets": np.stack([pt[inside], eta[inside], mass[inside], n_stored], axis=1).astype("f4"),
        "multiplicity": multiplicity.astype(np.uint16),
    }


def _constituents(
    momenta: Any, jet_pt: np.ndarray, jet_eta: np.ndarray, jet_phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hardest constituents (n, 30, 4) relative to the jet, and their full number."""
    import awkward as ak

    multiplicity = ak.to_numpy(ak.num(momenta))
    pt = np.hypot(momenta.px, momenta.py)
    order = ak.argsort(pt, axis=1, ascending=False)[:, :N_PARTICLES]

    def padded(values: Any) -> np.ndarray:
        filled = ak.fill_none(ak.pad_none(values[order], N_PARTICLES, clip=True), 0.0)
        return ak.to_numpy(filled)

    mask = np.arange(N_PARTICLES) < multiplicity[:, None]
    eta = padded(np.arcsinh(momenta.pz / pt))
    phi = padded(np.arctan2(momenta.py, momenta.px))
    phi_rel = np.mod(phi - jet_phi[:, None] + np.pi, 2 * np.pi) - np.pi
    fields = (eta - jet_eta[:, None], phi_rel, padded(pt) / jet_pt[:, None], mask)
    return np.where(mask[..., None], np.stack(fields, axis=-1), 0.0).astype("f4"), multiplicity
