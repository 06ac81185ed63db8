"""Make a whole sample of jets: shards, merged, rounded, written with provenance and checksum.

Not for the physics: simulation.jets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import GenampError, project_root
from genamp_lib.datasets.jets import JET_FIELDS, PARTICLE_FIELDS, relative_mass
from genamp_lib.simulation.jets import (
    KINDS,
    N_PARTICLES,
    RADIUS,
    chain_settings,
    make_jets,
    require_extra,
)
from genamp_lib.simulation.sample_file import run_until, sample_file, write_record
from genamp_lib.simulation.shards import Shard, merge_shards, run_shards

# Explicit mantissa bits of the stored constituents, of float32's 23.
MANTISSA_BITS = 11
# Only to guess the number of shards; any value gives the same jets.
GUESSED_EFFICIENCY = 0.9


def simulate_jets(
    output: Path | str,
    *,
    kind: str = "gluon",
    n_jets: int = 60_000,
    seed: int = 1,
    radius: float = RADIUS,
    jobs: int = 1,
    events_per_shard: int = 2000,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate jets and write them to an HDF5 file in JetNet's layout, and a record beside it.

    The file holds the first `n_jets` jets in the order of the shards: the same bytes for any
    number of processes, also after a kill and a rerun of the same call.

    Args:
        output: File to write. Beside it goes `output` + ".json" with checksum and timing.
        kind: "gluon", "light" or "top".
        n_jets: Number of jets.
        seed: Base seed, not negative.
        radius: R of the anti-kT algorithm.
        jobs: Processes.
        events_per_shard: Events per shard, what a kill can lose per process; changes the jets.
        folder: Where finished shards are kept; `_build/simulate/<sample>_seed<seed>` if None.
        overwrite: Replace `output` if it exists.

    Returns:
        The record.

    Raises:
        GenampError: An argument is out of range, the extra is missing, `output` exists, or the
            shards in `folder` are damaged or of other settings.
    """
    output = Path(output)
    _check_arguments(kind, n_jets, seed, radius, jobs, events_per_shard)
    if output.exists() and not overwrite:
        raise GenampError(f"{output}: exists; remove it or pass --overwrite")
    require_extra()
    name = sample_name(kind, radius)
    folder = Path(folder or project_root() / "_build" / "simulate" / f"{name}_seed{seed}")
    settings = chain_settings(kind, events_per_shard, radius=radius)
    shards = _run_until(n_jets, settings, seed=seed, folder=folder, jobs=jobs)
    arrays = merge_shards(shards)
    n_events = len(shards) * events_per_shard
    jets_per_event = len(arrays["jets"]) / n_events
    arrays = {name: array[:n_jets] for name, array in arrays.items()}
    rounded = {**arrays, "particles": round_mantissa(arrays["particles"])}
    provenance = {
        "name": name,
        "kind": kind,
        "seed": seed,
        "n_jets": n_jets,
        "n_shards": len(shards),
        "n_events": n_events,
        "jets_per_event": round(jets_per_event, 5),
        "mantissa_bits": MANTISSA_BITS,
        "settings": settings,
        "checks": summary(rounded, exact=arrays["particles"]),
    }
    write_jets(rounded, provenance, output)
    return write_record(output, shards, provenance, n_rows=n_jets, jobs=jobs)


def sample_name(kind: str, radius: float = RADIUS) -> str:
    """Return what a sample is called; the radius is named where it is not the usual one.

    >>> sample_name("gluon"), sample_name("gluon", 0.4)
    ('jets_gluon', 'jets_gluon_r04')
    """
    suffix = "" if radius == RADIUS else f"_r{f'{radius:g}'.replace('.', '')}"
    return f"jets_{kind}{suffix}"


def _run_until(
    n_jets: int, settings: Mapping[str, Any], *, seed: int, folder: Path, jobs: int
) -> list[Shard]:
    kind, n_events = settings["kind"], settings["events_per_shard"]
    make = partial(make_jets, kind=kind, n_events=n_events, radius=settings["jet_radius"])
    run = partial(run_shards, make, seed=seed, folder=folder, settings=settings, jobs=jobs)
    return run_until(
        n_jets,
        partial(run, label=f"{kind} jets"),
        lambda shard: shard.n_rows,
        guess=GUESSED_EFFICIENCY,
        events_per_shard=n_events,
    )


def round_mantissa(values: np.ndarray, bits: int = MANTISSA_BITS) -> np.ndarray:
    """Round float32 numbers to `bits` explicit mantissa bits, so that they compress well.

    The relative change is at most 2^-(bits + 1); zeros stay zeros and order is kept.

    >>> import numpy as np
    >>> round_mantissa(np.array([1.0, 1.3, -0.1], dtype=np.float32), bits=2)
    array([ 1.     ,  1.25   , -0.09375], dtype=float32)
    """
    if not 1 <= bits <= 22:
        raise ValueError(f"`bits` must be from 1 to 22, got {bits}.")
    dropped = 23 - bits
    pattern = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Half of the last kept bit, added to the magnitude: a carry goes into the exponent, as it must.
    pattern = (pattern + np.uint32(1 << (dropped - 1))) & np.uint32(
        0xFFFFFFFF << dropped & 0xFFFFFFFF
    )
    return pattern.view(np.float32)


def summary(arrays: Mapping[str, np.ndarray], *, exact: np.ndarray) -> dict[str, float]:
    """Return numbers to compare a sample with; `exact` are the particles before rounding."""
    mass, exact_mass = relative_mass(arrays["particles"]), relative_mass(exact)
    change = np.abs(mass - exact_mass)[exact_mass > 0] / exact_mass[exact_mass > 0]
    multiplicity = arrays["multiplicity"]
    values = {
        "mean_pt_gev": arrays["jets"][:, 0].mean(dtype=np.float64),
        "std_pt_gev": arrays["jets"][:, 0].std(dtype=np.float64),
        "mean_mass_gev": arrays["jets"][:, 2].mean(dtype=np.float64),
        "mean_multiplicity": multiplicity.mean(),
        "fraction_all_constituents_stored": (multiplicity <= N_PARTICLES).mean(),
        "mean_sum_pt_rel": arrays["particles"][..., 2].sum(axis=1, dtype=np.float64).mean(),
        "mean_relative_mass": mass.mean(),
        "relative_mass_q10": np.quantile(mass, 0.1),
        "relative_mass_q50": np.quantile(mass, 0.5),
        "relative_mass_q90": np.quantile(mass, 0.9),
        "rounding_max_change_of_relative_mass": change.max(),
        "rounding_rms_change_of_relative_mass": np.sqrt((change**2).mean()),
    }
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def write_jets(arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any], path: Path) -> None:
    """Write jets in JetNet's layout; the same arrays give the same bytes."""
    names = {
        "particles": "particle_features",
        "jets": "jet_features",
        "multiplicity": "multiplicity",
    }
    with sample_file(path, provenance) as write:
        for name, array in arrays.items():
            dataset = write(names.get(name, name), array)
            fields = {"particles": PARTICLE_FIELDS, "jets": JET_FIELDS}.get(name)
            if fields:
                dataset.attrs["fields"] = list(fields)


def _check_arguments(
    kind: str, n_jets: int, seed: int, radius: float, jobs: int, events_per_shard: int
) -> None:
    if kind not in KINDS:
        raise GenampError(f"`kind` must be one of {', '.join(KINDS)}, got `{kind}`")
    values = {"n_jets": n_jets, "jobs": jobs, "events_per_shard": events_per_shard}
    for name, value in values.items():
        if value < 1:
            raise GenampError(f"`{name}` must be positive, got {value}.")
    if not 0 < radius < math.pi / 2:
        raise GenampError(f"`radius` must be between 0 and pi/2, got {radius}.")
    if seed < 0:
        raise GenampError(f"`seed` must not be negative, got {seed}.")
