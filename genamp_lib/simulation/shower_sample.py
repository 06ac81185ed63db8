"""Make a whole sample of showers: shards, merged, sparse, written with provenance and checksum.

Not for the physics: simulation.showers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import GenampError, project_root
from genamp_lib.datasets.showers import (
    LAYERS,
    PARTICLES,
    Showers,
    layers_of_voxels,
    shower_observables,
)
from genamp_lib.simulation.jet_sample import round_mantissa
from genamp_lib.simulation.sample_file import sample_file, write_record
from genamp_lib.simulation.shards import merge_shards, run_shards
from genamp_lib.simulation.showers import (
    ENERGY_RANGE,
    chain_settings,
    make_showers,
    require_extra,
)

# Explicit mantissa bits of the stored deposits, of float32's 23.
MANTISSA_BITS = 10
LAYOUTS = ("sparse", "calogan")


def simulate_showers(
    output: Path | str,
    *,
    particle: str = "eplus",
    n_showers: int = 8000,
    seed: int = 1,
    energy_range: Sequence[float] = ENERGY_RANGE,
    layout: str = "sparse",
    jobs: int = 1,
    showers_per_shard: int = 100,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Simulate showers and write them to an HDF5 file, and a record beside it.

    The file holds the first `n_showers` showers in the order of the shards: the same bytes for any
    number of processes, also after a kill and a rerun of the same call.

    Args:
        output: File to write. Beside it goes `output` + ".json" with checksum and timing.
        particle: "eplus", "gamma" or "piplus".
        n_showers: Number of showers.
        seed: Base seed, not negative.
        energy_range: Kinetic energies in GeV between which the particles are uniform.
        layout: "sparse", or "calogan" for the layout of CaloGAN's files, not rounded.
        jobs: Processes.
        showers_per_shard: What a kill can lose per process; changes the showers.
        folder: Where finished shards are kept; `_build/simulate/<sample>_seed<seed>` if None.
        overwrite: Replace `output` if it exists.

    Returns:
        The record.

    Raises:
        GenampError: An argument is out of range, the extra is missing, `output` exists, Geant4
            cannot go on, or the shards in `folder` are damaged or of other settings.
    """
    output = Path(output)
    _check_arguments(particle, n_showers, seed, energy_range, layout, jobs, showers_per_shard)
    if output.exists() and not overwrite:
        raise GenampError(f"{output}: exists; remove it or pass --overwrite")
    require_extra()
    name = f"showers_{particle}"
    folder = Path(folder or project_root() / "_build" / "simulate" / f"{name}_seed{seed}")
    make = partial(
        make_showers,
        particle=particle,
        n_showers=showers_per_shard,
        energy_range=tuple(energy_range),
    )
    settings = chain_settings(particle, showers_per_shard, energy_range=energy_range)
    n_shards = math.ceil(n_showers / showers_per_shard)
    shards = run_shards(
        make,
        n_shards,
        seed=seed,
        folder=folder,
        settings=settings,
        jobs=jobs,
        label=f"{particle} showers, shards of {showers_per_shard}",
    )
    arrays = {array: values[:n_showers] for array, values in merge_shards(shards).items()}
    exact = Showers(**arrays, particle=particle)
    showers = rounded(exact) if layout == "sparse" else exact
    provenance = {
        "name": name,
        "particle": particle,
        "seed": seed,
        "n_showers": n_showers,
        "n_shards": n_shards,
        "mantissa_bits": MANTISSA_BITS if layout == "sparse" else 23,
        "units": {"energy": "GeV", "deposits": "MeV"},
        "settings": settings,
        "checks": summary(showers, exact=exact),
    }
    write = write_showers if layout == "sparse" else write_calogan
    write(showers, provenance, output)
    return write_record(output, shards, provenance, n_rows=n_showers, jobs=jobs)


def rounded(showers: Showers, bits: int = MANTISSA_BITS) -> Showers:
    """Return the showers with deposits rounded to `bits` explicit mantissa bits."""
    layers = layers_of_voxels(round_mantissa(showers.voxels, bits))
    overflow = round_mantissa(showers.overflow, bits)
    return Showers(showers.energy, *layers, overflow=overflow, particle=showers.particle)


def summary(showers: Showers, *, exact: Showers) -> dict[str, float]:
    """Return numbers to compare a sample with; `exact` are the showers before rounding."""
    values, before = shower_observables(showers), shower_observables(exact)
    change = np.abs(values["total_energy"] / np.maximum(before["total_energy"], 1e-9) - 1)
    checks = {
        "mean_energy_gev": showers.energy.mean(dtype=np.float64),
        "mean_response": values["response"].mean(),
        "std_response": values["response"].std(),
        "mean_overflow_fraction": values["overflow_fraction"].mean(),
        "mean_depth": values["depth"].mean(),
        "rounding_max_change_of_total_energy": change.max(),
        "rounding_rms_change_of_total_energy": np.sqrt((change**2).mean()),
    }
    for layer in range(len(LAYERS)):
        for name in ("fraction", "sparsity", "brightest", "eta_width"):
            checks[f"mean_{name}_{layer}"] = values[f"{name}_{layer}"].mean()
        checks[f"fraction_without_layer_{layer}"] = (values[f"energy_{layer}"] == 0).mean()
    return {name: float(f"{value:.6g}") for name, value in checks.items()}


def write_showers(showers: Showers, provenance: Mapping[str, Any], path: Path) -> None:
    """Write showers without their empty cells; the same showers give the same bytes.

    Datasets: `energy` (n,); `overflow` (n, 3); `n_voxels` (n,), the cells with a deposit in each
    shower; `voxels` and `deposits` of all of them, shower after shower: the index of the cell
    among all 504, layer after layer and phi before eta, and the deposit.
    """
    voxels = showers.voxels
    is_hit = voxels > 0
    arrays = {
        "energy": showers.energy,
        "overflow": showers.overflow,
        "n_voxels": is_hit.sum(axis=1).astype(np.uint16),
        "voxels": np.nonzero(is_hit)[1].astype(np.uint16),
        "deposits": voxels[is_hit],
    }
    _write(arrays, provenance, path)


def write_calogan(showers: Showers, provenance: Mapping[str, Any], path: Path) -> None:
    """Write showers in the layout of CaloGAN's files; the same showers give the same bytes."""
    arrays = {"energy": showers.energy[:, None], "overflow": showers.overflow}
    arrays |= dict(zip(LAYERS, showers.layers, strict=True))
    _write(arrays, provenance, path)


def _write(arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any], path: Path) -> None:
    units = {"energy": "GeV", "n_voxels": "1", "voxels": "1"}
    with sample_file(path, provenance) as write:
        for name, array in arrays.items():
            write(name, array).attrs["units"] = units.get(name, "MeV")


def _check_arguments(
    particle: str,
    n_showers: int,
    seed: int,
    energy_range: Sequence[float],
    layout: str,
    jobs: int,
    showers_per_shard: int,
) -> None:
    for name, value, choices in (("particle", particle, PARTICLES), ("layout", layout, LAYOUTS)):
        if value not in choices:
            raise GenampError(f"`{name}` must be one of {', '.join(choices)}, got `{value}`")
    values = {"n_showers": n_showers, "jobs": jobs, "showers_per_shard": showers_per_shard}
    for name, number in values.items():
        if number < 1:
            raise GenampError(f"`{name}` must be positive, got {number}.")
    if seed < 0:
        raise GenampError(f"`seed` must not be negative, got {seed}.")
    if len(energy_range) != 2 or not 0 < energy_range[0] < energy_range[1] < 1e4:
        raise GenampError(
            "`energy_range` must be two rising energies between 0 and 10,000 GeV, got "
            f"{list(energy_range)}"
        )
