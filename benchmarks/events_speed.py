"""Collider events per second of processor time, beside the same chains with a loop over events.

    python benchmarks/events_speed.py            # about three minutes, one core
    python benchmarks/events_speed.py --quick    # a tenth of the events, to see that it runs

The peers are written as such chains usually are: generation, response and clustering on arrays of
a batch, then a Python loop that selects event by event. Each pair is measured in one run, in turn.
Needs the extra [simulate].
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import awkward as ak
import fastjet
import numpy as np
from rich.console import Console
from rich.table import Table

from genamp_lib.simulation import detector, top_pairs, z_jets
from genamp_lib.simulation.collisions import start_pythia

NEUTRINOS_AND_MUONS = (12, 13, 14, 16)
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    table = Table(title=f"collisions per second of processor time, {platform.machine()}")
    columns = ("chain", "loop over events", "genamp", "ratio", "selected: loop", "genamp")
    for column in columns:
        table.add_column(column, justify="left" if column == "chain" else "right")
    for name, peer, ours, n in (
        (
            "top pairs, underlying event",
            partial(top_pairs_by_a_loop, mpi=True),
            partial(top_pairs.make_events, 0, mpi=True),
            1000 // scale,
        ),
        (
            "top pairs, without",
            partial(top_pairs_by_a_loop, mpi=False),
            partial(top_pairs.make_events, 0, mpi=False),
            3000 // scale,
        ),
        ("Z and jets, without", z_jets_by_a_loop, partial(z_jets.make_events, 0), 10_000 // scale),
    ):
        peer_rates, our_rates, selected = [], [], []
        for repeat in range(REPEATS):
            seconds, n_peer = timed(lambda p=peer, s=repeat, n=n: p(s + 1, n_events=n))
            peer_rates.append(n / seconds)
            seconds, made = timed(lambda o=ours, s=repeat, n=n: o(s + 11, n_events=n))
            our_rates.append(n / seconds)
            selected.append((n_peer, len(made[0]["n_jets"])))
        peer_rate, our_rate = np.median(peer_rates), np.median(our_rates)
        by_loop, by_us = np.sum(selected, axis=0)
        table.add_row(
            name,
            f"{peer_rate:.0f}",
            f"{our_rate:.0f}",
            f"{our_rate / peer_rate:.2f}",
            f"{by_loop}",
            f"{by_us}",
        )
    Console(width=110).print(table)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def clustered(records: Any, rng: np.random.Generator, raw_pt_min: float) -> Any:
    """Measure the particles of a batch and cluster them; jets as an awkward array of events."""
    abs_id = abs(records.id)
    chosen = records.status > 0
    for pdg_id in NEUTRINOS_AND_MUONS:
        chosen = chosen & (abs_id != pdg_id)
    particles = records[chosen]
    count = ak.to_numpy(ak.num(particles))
    px, py, pz, energy = (
        ak.to_numpy(ak.flatten(particles.p[name])) for name in ("px", "py", "pz", "e")
    )
    eta = np.arcsinh(pz / np.maximum(np.hypot(px, py), 1e-9))
    pdg_id = ak.to_numpy(ak.flatten(particles.id))
    response = detector.calorimeter_response(energy, eta, pdg_id, rng)
    seen = response > 0
    n_seen = np.bincount(np.repeat(np.arange(len(count)), count)[seen], minlength=len(count))
    columns = {"px": px, "py": py, "pz": pz, "E": energy}
    table = ak.zip(
        {name: (column * response)[seen] for name, column in columns.items()},
        with_name="Momentum4D",
    )
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    return fastjet.ClusterSequence(ak.unflatten(table, n_seen), definition).inclusive_jets(
        raw_pt_min
    )


def jets_of_event(jets: Any, pt_min: float, abs_eta_max: float) -> np.ndarray:
    """Return energy, px, py, pz of the jets of one event, by falling pt."""
    rows = np.stack([ak.to_numpy(jets[name]) for name in ("E", "px", "py", "pz")], axis=1)
    pt = np.hypot(rows[:, 1], rows[:, 2])
    eta = np.arcsinh(rows[:, 3] / pt)
    scale = detector.jet_energy_scale(pt, eta)
    kept = (pt * scale > pt_min) & (np.abs(eta) < abs_eta_max)
    rows, pt = (rows * scale[:, None])[kept], (pt * scale)[kept]
    return rows[np.argsort(-pt)]


def directions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pt = np.hypot(rows[:, 1], rows[:, 2])
    return pt, np.arcsinh(rows[:, 3] / pt), np.arctan2(rows[:, 2], rows[:, 1])


def distance(eta: np.ndarray, phi: np.ndarray, etas: np.ndarray, phis: np.ndarray) -> np.ndarray:
    delta_phi = (phi[:, None] - phis + np.pi) % (2 * np.pi) - np.pi
    return np.hypot(eta[:, None] - etas, delta_phi)


def top_pairs_by_a_loop(seed: int, *, n_events: int, mpi: bool) -> int:
    """Return how many top pairs pass; exactly 6 jets only, which is the loop's advantage."""
    rng = np.random.default_rng(seed)
    settings = [
        line
        for line in top_pairs.chain_settings(n_events, mpi=mpi)["pythia"]
        if not line.startswith("111:")
    ]
    pythia = start_pythia(settings, seed)
    selected = []
    for _ in range(n_events // 100):
        records = pythia.nextBatch(100).prt
        jets = clustered(records, rng, top_pairs.RAW_PT_MIN)
        abs_id, status = abs(records.id), abs(records.status)
        bottoms = records[(abs_id == 5) & (status >= 71) & (status <= 79)]
        for event in range(len(records)):
            rows = jets_of_event(jets[event], top_pairs.PT_MIN, top_pairs.ABS_ETA_MAX)
            if len(rows) != 6:
                continue
            pt, eta, phi = directions(rows)
            quarks = bottoms[event].p
            quark_rows = np.stack([ak.to_numpy(quarks[name]) for name in ("e", "px", "py", "pz")])
            _, quark_eta, quark_phi = directions(quark_rows.T)
            near = (distance(eta, phi, quark_eta, quark_phi) < 0.5).any(axis=1)
            tagged = rng.random(6) < detector.tagging_efficiency(pt, np.where(near, 5, 0))
            apart = distance(eta, phi, eta, phi)[np.triu_indices(6, 1)]
            if tagged.sum() == 2 and apart.min() > top_pairs.DELTA_R_MIN:
                selected.append(assigned_by_a_loop(rows, tagged))
    return len(selected)


def assigned_by_a_loop(rows: np.ndarray, tagged: np.ndarray) -> tuple[float, list[int]]:
    def mass(vector: np.ndarray) -> float:
        return float(np.sqrt(max(vector[0] ** 2 - vector[1:] @ vector[1:], 0)))

    b1, b2 = np.flatnonzero(tagged)
    best = (np.inf, [])
    for q1, q2, q3, q4 in permutations(np.flatnonzero(~tagged)):
        if q1 > q2 or q3 > q4:
            continue
        first, second = rows[q1] + rows[q2], rows[q3] + rows[q4]
        tops = mass(rows[b1] + first) - mass(rows[b2] + second)
        chi2 = tops**2 / (2 * top_pairs.SIGMA_TOP**2)
        chi2 += sum(((mass(w) - 80.4) / top_pairs.SIGMA_W) ** 2 for w in (first, second))
        best = min(best, (chi2, [b1, q1, q2, b2, q3, q4]))
    return best


def z_jets_by_a_loop(seed: int, *, n_events: int) -> int:
    """Return how many Z bosons with one to three jets pass."""
    rng = np.random.default_rng(seed)
    settings = [
        line for line in z_jets.chain_settings(n_events)["pythia"] if not line.startswith("111:")
    ]
    pythia = start_pythia(settings, seed)
    selected = []
    for _ in range(n_events // 1000):
        records = pythia.nextBatch(1000).prt
        muons = records[(records.status > 0) & (abs(records.id) == 13)]
        muons = muons[ak.argsort(muons.p.px**2 + muons.p.py**2, ascending=False)]
        found = []
        for event in range(len(records)):
            momenta = muons[event].p
            rows = np.stack([ak.to_numpy(momenta[name]) for name in ("e", "px", "py", "pz")])
            pt, eta, _ = directions(rows.T[:2])
            if len(pt) == 2 and (rng.random(2) < detector.muon_efficiency(pt, eta)).all():
                sigma = detector.muon_resolution(pt, eta)
                found.append((event, rows.T[:2] * rng.lognormal(0, sigma)[:, None]))
        jets = clustered(records[[event for event, _ in found]], rng, z_jets.RAW_PT_MIN)
        for row, (_, pair) in enumerate(found):
            momenta = jets_of_event(jets[row], z_jets.PT_MIN, z_jets.ABS_ETA_MAX)
            if 1 <= len(momenta) <= 3:
                selected.append(np.concatenate([pair, momenta]))
    return len(selected)


if __name__ == "__main__":
    main()
