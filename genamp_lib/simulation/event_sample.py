"""Make a whole sample of top pairs or of Z bosons with jets: shards, merged, rounded, written.

Not for the physics: simulation.top_pairs and simulation.z_jets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from genamp_lib._project import GenampError, project_root
from genamp_lib.datasets.events import Events, top_pair_particles, z_jets_particles
from genamp_lib.datasets.kinematics import CYLINDRICAL_FIELDS
from genamp_lib.simulation import top_pairs, z_jets
from genamp_lib.simulation.jet_sample import round_mantissa
from genamp_lib.simulation.jets import require_extra
from genamp_lib.simulation.sample_file import run_until, sample_file, write_record
from genamp_lib.simulation.shards import Shard, merge_shards, run_shards, total_counts

# Explicit mantissa bits of the stored momenta, of float32's 23: relative errors up to 1.5e-5.
MANTISSA_BITS = 15
# Selected events per generated one, only to guess the number of shards; any value gives the same
# events. By number of jets.
GUESSED_EFFICIENCY = {
    "top_pairs": {6: 0.081, 10: 0.007},
    "z_jets": {1: 0.189, 2: 0.046, 3: 0.0118},
}


def simulate_top_pairs(
    output: Path | str,
    *,
    n_extra_jets: int = 0,
    n_events: int = 80_000,
    seed: int = 1,
    mpi: bool = True,
    jobs: int = 1,
    events_per_shard: int = 30_000,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate all-hadronic top pairs and write them to an HDF5 file, and a record beside it.

    The file holds the first `n_events` selected events in the order of the shards: the same bytes
    for any number of processes, also after a kill and a rerun of the same call. Samples with other
    `n_extra_jets` and the same seed come from the same shards, which are not made twice.

    Args:
        output: File to write. Beside it goes `output` + ".json" with checksum and timing.
        n_extra_jets: 0 (exactly 6 jets) or 4 (exactly 10 jets).
        n_events: Number of selected events.
        seed: Base seed, not negative.
        mpi: Multiparton interactions; without them four times as fast.
        jobs: Processes.
        events_per_shard: Collisions per shard, what a kill can lose per process; changes the
            events.
        folder: Where finished shards are kept; `_build/simulate/top_pairs_seed<seed>` if None.
        overwrite: Replace `output` if it exists.

    Returns:
        The record.

    Raises:
        GenampError: An argument is out of range, the extra is missing, `output` exists, or the
            shards in `folder` are damaged or of other settings.
    """
    if n_extra_jets not in (0, 4):
        raise GenampError(f"`n_extra_jets` must be 0 or 4, got {n_extra_jets}.")
    return _simulate(
        Path(output),
        chain=top_pairs,
        process="top_pairs",
        name=f"top_pairs_{n_extra_jets}j",
        n_jets=6 + n_extra_jets,
        particles=top_pair_particles(n_extra_jets),
        n_events=n_events,
        seed=seed,
        mpi=mpi,
        jobs=jobs,
        events_per_shard=events_per_shard,
        folder=folder,
        overwrite=overwrite,
    )


def simulate_z_jets(
    output: Path | str,
    *,
    n_jets: int = 1,
    n_events: int = 80_000,
    seed: int = 1,
    mpi: bool = False,
    jobs: int = 1,
    events_per_shard: int = 50_000,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate Z bosons to two muons with exactly `n_jets` jets; else as `simulate_top_pairs`.

    Args:
        output: File to write. Beside it goes `output` + ".json" with checksum and timing.
        n_jets: 1, 2 or 3.
        n_events: Number of selected events.
        seed: Base seed, not negative.
        mpi: Multiparton interactions.
        jobs: Processes.
        events_per_shard: Collisions per shard; changes the events.
        folder: Where finished shards are kept; `_build/simulate/z_jets_seed<seed>` if None.
        overwrite: Replace `output` if it exists.

    Returns:
        The record.

    Raises:
        GenampError: As `simulate_top_pairs`.
    """
    if n_jets not in z_jets.N_JETS:
        raise GenampError(f"`n_jets` must be 1, 2 or 3, got {n_jets}.")
    return _simulate(
        Path(output),
        chain=z_jets,
        process="z_jets",
        name=f"z_jets_{n_jets}j",
        n_jets=n_jets,
        particles=z_jets_particles(n_jets),
        n_events=n_events,
        seed=seed,
        mpi=mpi,
        jobs=jobs,
        events_per_shard=events_per_shard,
        folder=folder,
        overwrite=overwrite,
    )


def _simulate(
    output: Path,
    *,
    chain: ModuleType,
    process: str,
    name: str,
    n_jets: int,
    particles: tuple[str, ...],
    n_events: int,
    seed: int,
    mpi: bool,
    jobs: int,
    events_per_shard: int,
    folder: Path | str | None,
    overwrite: bool,
) -> dict[str, Any]:
    values = {"n_events": n_events, "jobs": jobs, "events_per_shard": events_per_shard}
    for argument, value in values.items():
        if value < 1:
            raise GenampError(f"`{argument}` must be positive, got {value}.")
    if seed < 0:
        raise GenampError(f"`seed` must not be negative, got {seed}.")
    if output.exists() and not overwrite:
        raise GenampError(f"{output}: exists; remove it or pass --overwrite")
    require_extra()
    suffix = "" if mpi == (process == "top_pairs") else f"_mpi_{'on' if mpi else 'off'}"
    default = project_root() / "_build" / "simulate" / f"{process}{suffix}_seed{seed}"
    settings = chain.chain_settings(events_per_shard, mpi=mpi)
    run = partial(
        run_shards,
        partial(chain.make_events, n_events=events_per_shard, mpi=mpi),
        seed=seed,
        folder=Path(folder or default),
        settings=settings,
        jobs=jobs,
        label=process.replace("_", " "),
    )
    guess = GUESSED_EFFICIENCY[process][n_jets]
    key = f"selected_{n_jets}"
    shards = run_until(
        n_events,
        run,
        lambda shard: shard.counts[key],
        guess=guess,
        events_per_shard=events_per_shard,
    )
    arrays = _selected(shards, n_jets, n_events)
    momenta = round_mantissa(arrays["momenta"][:, : len(particles)], MANTISSA_BITS)
    counts = total_counts(shards)
    events = Events(momenta, particles, process, chi2=arrays.get("chi2"))
    provenance = {
        "name": name,
        "process": process,
        "seed": seed,
        "n_events": n_events,
        "n_shards": len(shards),
        "cut_flow": counts,
        "mantissa_bits": MANTISSA_BITS,
        "settings": settings,
        "checks": summary(events),
    }
    write_events(events, provenance, output)
    return write_record(output, shards, provenance, n_rows=n_events, jobs=jobs)


def _selected(shards: list[Shard], n_jets: int, n_events: int) -> dict[str, np.ndarray]:
    arrays = merge_shards(shards)
    rows = np.flatnonzero(arrays["n_jets"] == n_jets)[:n_events]
    return {name: array[rows] for name, array in arrays.items()}


def summary(events: Events) -> dict[str, float]:
    """Return numbers to compare a sample with: peaks, their widths, momenta.

    Args:
        events: Top pairs or Z bosons with jets.
    """
    if events.process == "z_jets":
        mass = events.mass_of("mu1", "mu2")
        values = {"mumu_mass": mass, "mu1_pt": events.of("mu1")[:, 0, 0]}
        values |= {f"{name}_pt": events.of(name)[:, 0, 0] for name in events.particles[2:]}
        fractions = {"fraction_mumu_mass_80_100": ((mass > 80) & (mass < 100)).mean()}
    else:
        tops = (("b1", "q1", "q2"), ("b2", "q3", "q4"))
        w_mass = np.concatenate([events.mass_of(*names[1:]) for names in tops])
        top_mass = np.concatenate([events.mass_of(*names) for names in tops])
        m_tt = events.mass_of(*tops[0], *tops[1])
        good = np.tile(events.chi2 < 10, 2)  # the cut of ref. [82] of paper A
        values = {"m_tt": m_tt, "top_mass": top_mass, "w_mass": w_mass}
        values |= {"top_mass_chi2_below_10": top_mass[good], "w_mass_chi2_below_10": w_mass[good]}
        fractions = {
            "fraction_chi2_below_10": (events.chi2 < 10).mean(),
            "fraction_m_tt_2000_2200": ((m_tt >= 2000) & (m_tt <= 2200)).mean(),
        }
    quantiles = {
        f"{name}_q{percent}_gev": np.quantile(array, percent / 100)
        for name, array in values.items()
        if len(array)
        for percent in (16, 50, 84)
    }
    return {name: float(f"{value:.6g}") for name, value in {**quantiles, **fractions}.items()}


def write_events(events: Events, provenance: Mapping[str, Any], path: Path) -> None:
    """Write events to HDF5; the same events give the same bytes."""
    arrays = {"momenta": events.momenta}
    if events.chi2 is not None:
        arrays["chi2"] = round_mantissa(events.chi2, MANTISSA_BITS)
    with sample_file(path, provenance) as write:
        for name, array in arrays.items():
            dataset = write(name, array)
            if name == "momenta":
                dataset.attrs["particles"] = list(events.particles)
                dataset.attrs["fields"] = list(CYLINDRICAL_FIELDS)
                dataset.attrs["units"] = ["GeV", "1", "rad", "GeV"]
