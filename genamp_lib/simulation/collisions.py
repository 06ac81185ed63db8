"""Collisions from Pythia as flat arrays, and the jets that a calorimeter would make of them.

Not for choosing events: simulation.top_pairs and simulation.z_jets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from genamp_lib._project import GenampError
from genamp_lib.datasets.kinematics import pseudorapidity, to_cylindrical
from genamp_lib.simulation.detector import calorimeter_response, jet_energy_scale

PACKAGES = ("pythia8mc", "fastjet", "awkward")
EVENTS_PER_BATCH = 250
BEAMS = ("Beams:idA = 2212", "Beams:idB = 2212", "Beams:eCM = 13000.")
# A neutral pion has the response of its two photons (the card gives it the electromagnetic one),
# so it need not decay: a quarter of the particles less.
COMMON_SETTINGS = (*BEAMS, "111:mayDecay = off")
HADRONIC_TOP_PAIRS = (
    "Top:gg2ttbar = on",
    "Top:qqbar2ttbar = on",
    "24:onMode = off",
    "24:onIfAny = 1 2 3 4 5",
)
RADIUS = 0.4  # of jets as measured

Arrays = dict[str, np.ndarray]
Counts = dict[str, int]


@dataclass(frozen=True)
class Particles:
    """All n entries of Pythia's event records, one behind the other."""

    n_events: int
    event: np.ndarray  # (n,), to which event an entry belongs, ascending
    pdg_id: np.ndarray
    status: np.ndarray  # positive for particles of the final state
    momenta: np.ndarray  # (4, n), float64: energy, px, py, pz in GeV
    daughter_pdg_id: np.ndarray  # of the first daughter, 0 if there is none


def measured_settings(process: Sequence[str], events_per_shard: int, mpi: bool) -> dict[str, Any]:
    """Return what all chains with a detector depend on; "pythia" is for `start_pythia`."""
    return {
        "events_per_shard": events_per_shard,
        "events_per_batch": EVENTS_PER_BATCH,
        "pythia": [*COMMON_SETTINGS, *process, f"PartonLevel:MPI = {'on' if mpi else 'off'}"],
        "multiparton_interactions": mpi,
        "detector": "delphes_card_ATLAS.tcl, smearing per particle",
        "jet_radius": RADIUS,
        "versions": {package: version(package) for package in PACKAGES},
    }


def start_pythia(settings: Sequence[str], seed: int) -> Any:
    """Return a generator ready for events, or say which setting Pythia refuses."""
    import fastjet
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    own = ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}")
    for line in (*own, *settings):
        if not pythia.readString(line):
            raise GenampError(f"Pythia refuses the setting `{line}`; check the installed version")
    if not pythia.init():
        raise GenampError(f"Pythia cannot start with `{'`, `'.join(settings)}`, seed {seed}")
    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)  # one per process otherwise
    return pythia


def batches(pythia: Any, n_events: int, batch_size: int) -> Iterator[Any]:
    """Generate events in batches of records, awkward arrays; the last one may be smaller."""
    n_made = 0
    while n_made < n_events:
        batch = pythia.nextBatch(min(batch_size, n_events - n_made))
        if len(batch) == 0:
            raise GenampError("Pythia makes no events with these settings")
        n_made += len(batch)
        yield batch.prt


def run_chain(
    settings: Sequence[str],
    seed: int,
    n_events: int,
    select: Callable[[Particles, np.random.Generator], tuple[list[Arrays], Counts]],
) -> tuple[Arrays, Counts]:
    """Generate events; join the arrays and sum the counts that `select` makes of each batch."""
    rng = np.random.default_rng([seed, 1])
    parts: list[Arrays] = []
    counts: Counter[str] = Counter()
    for records in batches(start_pythia(settings, seed), n_events, EVENTS_PER_BATCH):
        particles = flat_particles(records)
        selected, counted = select(particles, rng)
        parts += selected
        counts.update({"events": particles.n_events, **counted})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, dict(counts)


def flat_particles(records: Any) -> Particles:
    """Return Pythia's event records, an awkward array of events, as flat arrays."""
    import awkward as ak

    def flat(values: Any) -> np.ndarray:
        return ak.to_numpy(ak.flatten(values, axis=1))

    n_entries = ak.to_numpy(ak.num(records, axis=1))
    event = np.repeat(np.arange(len(n_entries)), n_entries)
    first_entry = np.repeat(np.cumsum(n_entries) - n_entries, n_entries)
    pdg_id, daughter = flat(records.id), flat(records.daughter1)
    return Particles(
        n_events=len(n_entries),
        event=event,
        pdg_id=pdg_id,
        status=flat(records.status),
        momenta=np.stack([flat(records.p[name]) for name in ("e", "px", "py", "pz")]),
        daughter_pdg_id=np.where(daughter > 0, pdg_id[first_entry + daughter], 0),
    )


@dataclass(frozen=True)
class JetTable:
    """Jets of a batch of events: by event, and by falling pt in each."""

    momenta: np.ndarray  # (number of jets, 4), float64: pt, eta, phi, mass
    n_jets: np.ndarray  # (n_events,)

    def of_events(self, events: np.ndarray, n: int) -> np.ndarray:
        """Return the `n` hardest jets of events that have as many, shape (n_events, n, 4)."""
        first = np.cumsum(self.n_jets) - self.n_jets
        return self.momenta[first[events][:, None] + np.arange(n)]


def measured_jets(
    particles: Particles,
    chosen: np.ndarray,
    rng: np.random.Generator,
    *,
    raw_pt_min: float,
    pt_min: float,
    abs_eta_max: float,
) -> JetTable:
    """Measure particles with the calorimeters, cluster them and apply the jet energy scale.

    `chosen` is a mask of the particles that reach the detector, `raw_pt_min` is that of a jet
    before the energy scale, in GeV.
    """
    import awkward as ak
    import fastjet

    energy, px, py, pz = particles.momenta[:, chosen]
    eta = pseudorapidity(np.hypot(px, py), pz)
    response = calorimeter_response(energy, eta, particles.pdg_id[chosen], rng)
    seen = response > 0
    energy, px, py, pz = particles.momenta[:, chosen][:, seen] * response[seen]
    n_seen = np.bincount(particles.event[chosen][seen], minlength=particles.n_events)

    table = ak.zip({"px": px, "py": py, "pz": pz, "E": energy}, with_name="Momentum4D")
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    jets = fastjet.ClusterSequence(ak.unflatten(table, n_seen), definition)
    jets = jets.inclusive_jets(raw_pt_min)
    event = np.repeat(np.arange(particles.n_events), ak.to_numpy(ak.num(jets)))
    columns = [ak.to_numpy(ak.flatten(jets[name])) for name in ("E", "px", "py", "pz")]
    momenta = to_cylindrical(np.stack(columns, axis=-1))
    # The scale is a factor on the whole four-momentum: directions stay.
    momenta[:, [0, 3]] *= jet_energy_scale(momenta[:, 0], momenta[:, 1])[:, None]
    kept = (momenta[:, 0] > pt_min) & (np.abs(momenta[:, 1]) < abs_eta_max)
    momenta, event = momenta[kept], event[kept]
    momenta = momenta[np.lexsort((-momenta[:, 0], event))]
    return JetTable(momenta, np.bincount(event, minlength=particles.n_events))
