"""All-hadronic top pairs at 13 TeV, as measured: one shard of them. Needs the extra [simulate].

Pythia 8, the response of the Delphes ATLAS card, anti-kT jets, the cuts of Eq. (38) of paper A and
its assignment of jets to top quarks. Not for many shards (simulation.samples) and not for
reading them (datasets.events). How the events differ from the paper's: data/README.md.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from genamp_lib.datasets.kinematics import delta_r, pseudorapidity, to_cartesian
from genamp_lib.datasets.top_pairs import (
    SIGMA_TOP,
    SIGMA_W,
    W_MASS,
    assignment_chi2,
    assignments,
)
from genamp_lib.simulation import detector
from genamp_lib.simulation.collisions import (
    COMMON_SETTINGS,
    EVENTS_PER_BATCH,
    JetTable,
    Particles,
    generate,
    measured_jets,
    start_pythia,
)
from genamp_lib.simulation.jets import PACKAGES

# Raise it whenever the code below, in collisions or in detector changes the numbers.
CHAIN_VERSION = 1

PROCESS = (
    "Top:gg2ttbar = on",
    "Top:qqbar2ttbar = on",
    "24:onMode = off",
    "24:onIfAny = 1 2 3 4 5",
)
RADIUS = 0.4
# The card's jet finder drops jets below 20 GeV before the energy scale lifts them.
RAW_PT_MIN = 20.0  # GeV
PT_MIN = 22.0  # GeV; this and the next three are Eq. (38)
DELTA_R_MIN = 0.5
ABS_ETA_MAX = 5.0
N_TAGS = 2
N_JETS = (6, 10)  # "+0j" and "+4j"


def chain_settings(events_per_shard: int, *, mpi: bool = True) -> dict[str, Any]:
    """Return all that the events of a shard depend on besides its seed."""
    return {
        "chain": "top pairs",
        "chain_version": CHAIN_VERSION,
        "events_per_shard": events_per_shard,
        "events_per_batch": EVENTS_PER_BATCH,
        "pythia": _pythia_settings(mpi),
        "multiparton_interactions": mpi,
        "detector": "delphes_card_ATLAS.tcl, smearing per particle",
        "jet_algorithm": "anti-kT, E scheme",
        "jet_radius": RADIUS,
        "jet_raw_pt_min_gev": RAW_PT_MIN,
        "jet_pt_min_gev": PT_MIN,
        "jet_abs_eta_max": ABS_ETA_MAX,
        "jet_delta_r_min": DELTA_R_MIN,
        "n_tags": N_TAGS,
        "n_jets": list(N_JETS),
        "chi2_w_mass_gev": W_MASS,
        "chi2_sigma_w_gev": SIGMA_W,
        "chi2_sigma_top_gev": SIGMA_TOP,
        "versions": {package: version(package) for package in PACKAGES},
    }


def _pythia_settings(mpi: bool) -> list[str]:
    return [*COMMON_SETTINGS, *PROCESS, f"PartonLevel:MPI = {'on' if mpi else 'off'}"]


def make_events(
    index: int, seed: int, *, n_events: int, mpi: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Generate one shard of top pairs; a pure function of its arguments.

    Args:
        index: Shard, not used: the seed says it all.
        seed: Pythia's seed, 1 to 900,000,000; the detector's follows from it.
        n_events: Number of collisions to generate.
        mpi: Multiparton interactions, the underlying event.

    Returns:
        Arrays: `momenta` (n, 10, 4), float32 and not rounded, pt, eta, phi, mass in the order of
        `assign_jets`, zero where an event has 6 jets only; `n_jets` (n,); `chi2` (n,). And the
        cut flow.
    """
    rng = np.random.default_rng([seed, 1])
    pythia = start_pythia(_pythia_settings(mpi), seed)
    parts: list[dict[str, np.ndarray]] = []
    counts = {"events": 0}
    for n_jets in N_JETS:
        counts |= {f"jets_{n_jets}": 0, f"tagged_{n_jets}": 0, f"selected_{n_jets}": 0}
    for particles in generate(pythia, n_events):
        counts["events"] += particles.n_events
        # Muons leave nothing in the card's towers, as neutrinos.
        jets = measured_jets(
            particles,
            particles.status > 0,
            radius=RADIUS,
            raw_pt_min=RAW_PT_MIN,
            pt_min=PT_MIN,
            abs_eta_max=ABS_ETA_MAX,
            rng=rng,
        )
        for n_jets in N_JETS:
            parts.append(_select(particles, jets, n_jets, counts, rng))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, counts


def _select(
    particles: Particles,
    table: JetTable,
    n_jets: int,
    counts: dict[str, int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Apply Eq. (38) to the events with `n_jets` jets and put the jets in order."""
    events = np.flatnonzero(table.n_jets == n_jets)
    jets = table.of_events(events, n_jets)
    flavour = jet_flavour(particles, events, jets)
    tagged = rng.random(flavour.shape) < detector.tagging_efficiency(jets[..., 0], flavour)
    has_tags = tagged.sum(axis=1) == N_TAGS
    jets, tagged = jets[has_tags], tagged[has_tags]
    first, second = np.triu_indices(n_jets, 1)
    is_apart = (delta_r(jets[:, first], jets[:, second]) > DELTA_R_MIN).all(axis=1)
    jets, tagged = jets[is_apart], tagged[is_apart]
    counts[f"jets_{n_jets}"] += len(events)
    counts[f"tagged_{n_jets}"] += int(has_tags.sum())
    counts[f"selected_{n_jets}"] += len(jets)

    order, chi2 = assign_jets(jets, tagged)
    momenta = np.zeros((len(jets), max(N_JETS), 4), dtype=np.float32)
    momenta[:, :n_jets] = np.take_along_axis(jets, order[..., None], axis=1)
    return {
        "momenta": momenta,
        "n_jets": np.full(len(jets), n_jets, dtype=np.uint8),
        "chi2": chi2.astype(np.float32),
    }


def jet_flavour(particles: Particles, events: np.ndarray, jets: np.ndarray) -> np.ndarray:
    """Return 5 for jets near a b quark, else 4 near a c quark, else 0, as Delphes does.

    Args:
        particles: All entries of the event records.
        events: Shape (n,): the events of the jets, ascending.
        jets: Shape (n, n_jets, 4): pt, eta, phi, mass.

    Returns:
        Shape (n, n_jets).
    """
    flavours = np.zeros(jets.shape[:2], dtype=np.int64)
    row = np.full(particles.n_events, -1)
    row[events] = np.arange(len(events))
    for flavour in (4, 5):
        chosen = particles.hadronising_quarks(flavour) & (row[particles.event] >= 0)
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


def assign_jets(jets: np.ndarray, tagged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find which jets come from which top quark, and put them in the order of paper A.

    The assignment is the one with the smallest chi^2 (datasets.top_pair_assignment)
    among all of two b-tagged and four of the other jets. What is identical is in order of falling
    pt: the two top candidates, the quarks of each W, the other jets.

    Args:
        jets: Shape (n, n_jets, 4): pt, eta, phi, mass, in order of falling pt.
        tagged: Shape (n, n_jets), bool, two in each event.

    Returns:
        Indices into the jets, shape (n, n_jets), in the order b1, q1, q2, b2, q3, q4, j1 ...; and
        the chi^2, shape (n,).

    Raises:
        ValueError: An event does not have two tagged jets, or has less than six jets.
    """
    n, n_jets = tagged.shape
    if n_jets < 6 or not (tagged.sum(axis=1) == N_TAGS).all():
        raise ValueError("`tagged` must have six jets or more, two of them true, in each event.")
    # Tagged jets first; a stable sort keeps the order in pt otherwise. Then b1 and b2 in place.
    order = np.argsort(~tagged, axis=1, kind="stable")
    order = order[:, [0, 2, 3, 1, *range(4, n_jets)]]
    sorted_jets = np.take_along_axis(jets, order[..., None], axis=1)
    chi2 = assignment_chi2(sorted_jets)
    best = chi2.argmin(axis=1)
    used = assignments(n_jets)[best]
    momenta = to_cartesian(np.take_along_axis(sorted_jets, used[..., None], axis=1))
    tops = momenta[:, :6].reshape(n, 2, 3, 4).sum(axis=2)
    top_pt = np.hypot(tops[..., 1], tops[..., 2])
    is_second_harder = top_pt[:, 1] > top_pt[:, 0]
    used[is_second_harder, :6] = used[is_second_harder][:, [3, 4, 5, 0, 1, 2]]
    return np.take_along_axis(order, used, axis=1), chi2[np.arange(n), best]
