"""Make a whole sample: shards until there are enough rows, merged, rounded, written with a record.

The physics of a shard is in simulation.jets, .top_pairs, .z_jets and .showers. The file holds the
first rows in the order of the shards: the same bytes for any number of processes, also after a
kill and a rerun of the same call. All `simulate_...` functions share these arguments:

    output            file to write; the record, with checksum and timing, goes beside it, + ".json"
    seed              base seed, not negative
    jobs              number of processes
    events_per_shard  what a kill can lose per process; changes the events
    folder            where finished shards are kept; below `_build/simulate` when None
    overwrite         whether an existing `output` is replaced

They return the record, and raise `GenampError` when an argument is out of range, the extra is
missing, `output` exists, or a shard in `folder` is damaged.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import (
    GenampError,
    project_root,
    replace_file,
    sha256_of_file,
    write_json,
)
from genamp_lib.datasets.events import Events, particles_of
from genamp_lib.datasets.jets import JET_FIELDS, PARTICLE_FIELDS, relative_mass
from genamp_lib.datasets.kinematics import CYLINDRICAL_FIELDS
from genamp_lib.datasets.showers import (
    LAYERS,
    PARTICLES,
    Showers,
    layers_of_voxels,
    shower_observables,
)
from genamp_lib.simulation import jets, showers, top_pairs, z_jets
from genamp_lib.simulation.shards import Shard, merge_shards, run_shards, total_counts

# Explicit mantissa bits of what is stored, of float32's 23.
JET_BITS, EVENT_BITS, SHOWER_BITS = 11, 15, 10
# Rows per generated event, only to guess the number of shards; any value gives the same rows.
GUESSED_EFFICIENCY = {
    "jets": 0.9,
    "top_pairs_0j": 0.081,
    "top_pairs_4j": 0.007,
    "z_jets_1j": 0.189,
    "z_jets_2j": 0.046,
    "z_jets_3j": 0.0118,
}
# Process -> chain of a shard, name of the argument for jets, its values.
EVENT_CHAINS = {
    "top_pairs": (top_pairs, "n_extra_jets", (0, 4)),
    "z_jets": (z_jets, "n_jets", z_jets.N_JETS),
}
LAYOUTS = ("sparse", "calogan")
# Name of a dataset -> its array and its attributes.
Datasets = dict[str, tuple[np.ndarray, dict[str, Any]]]


def simulate_jets(
    output: Path | str,
    *,
    kind: str = "gluon",
    n_jets: int = 60_000,
    seed: int = 1,
    radius: float = jets.RADIUS,
    jobs: int = 1,
    events_per_shard: int = 2000,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate jets of a `kind`, gluon, light or top, and write them in JetNet's layout."""
    _check_choice("kind", kind, jets.KINDS)
    if not 0 < radius < math.pi / 2:
        raise GenampError(f"`radius` must be between 0 and pi/2, got {radius}.")
    counts = {"n_jets": n_jets, "jobs": jobs, "events_per_shard": events_per_shard}
    _check(output, counts, seed, overwrite)
    name = sample_name(kind, radius)
    settings = jets.chain_settings(kind, events_per_shard, radius=radius)
    make = partial(jets.make_jets, kind=kind, n_events=events_per_shard, radius=radius)
    where = {"seed": seed, "folder": _folder(folder, name, seed), "settings": settings}
    run = partial(run_shards, make, **where, jobs=jobs, label=f"{kind} jets")
    shards = _shards_for(n_jets, run, GUESSED_EFFICIENCY["jets"], events_per_shard)
    merged = merge_shards(shards)
    n_events = len(shards) * events_per_shard
    exact = {array: values[:n_jets] for array, values in merged.items()}
    rounded = {**exact, "particles": round_mantissa(exact["particles"], JET_BITS)}
    about = {"name": name, "kind": kind, "n_jets": n_jets, "n_events": n_events}
    about |= {"jets_per_event": round(len(merged["jets"]) / n_events, 5), "mantissa_bits": JET_BITS}
    about |= {"seed": seed, "settings": settings}
    checks = _jet_checks(rounded, exact["particles"])
    return _write(output, jet_datasets(rounded), about, checks, shards, n_rows=n_jets, jobs=jobs)


def sample_name(kind: str, radius: float = jets.RADIUS) -> str:
    """Return what a sample of jets is called; the radius is named where it is not the usual one.

    >>> sample_name("gluon"), sample_name("gluon", 0.4)
    ('jets_gluon', 'jets_gluon_r04')
    """
    suffix = "" if radius == jets.RADIUS else f"_r{f'{radius:g}'.replace('.', '')}"
    return f"jets_{kind}{suffix}"


def simulate_events(
    output: Path | str,
    process: str,
    n_jets: int,
    *,
    n_events: int,
    seed: int,
    mpi: bool,
    jobs: int,
    events_per_shard: int,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Generate all-hadronic "top_pairs" with extra jets, or Z bosons with jets, "z_jets".

    Without multiparton interactions, `mpi`, it is a few times as fast. Samples with other `n_jets`
    and the same seed come from the same shards, which are not made twice.
    """
    chain, argument, choices = EVENT_CHAINS[process]
    if n_jets not in choices:
        *others, last = choices
        wanted = f"{', '.join(map(str, others))} or {last}"
        raise GenampError(f"`{argument}` must be {wanted}, got {n_jets}.")
    name, particles = f"{process}_{n_jets}j", particles_of(process, n_jets)
    counts = {"n_events": n_events, "jobs": jobs, "events_per_shard": events_per_shard}
    _check(output, counts, seed, overwrite)
    n_selected = n_jets if process == "z_jets" else len(particles)
    suffix = "" if mpi == (process == "top_pairs") else f"_mpi_{'on' if mpi else 'off'}"
    settings = chain.chain_settings(events_per_shard, mpi=mpi)
    make = partial(chain.make_events, n_events=events_per_shard, mpi=mpi)
    where = {"seed": seed, "folder": _folder(folder, process + suffix, seed), "settings": settings}
    run = partial(run_shards, make, **where, jobs=jobs, label=process.replace("_", " "))
    guess = GUESSED_EFFICIENCY[name]
    shards = _shards_for(n_events, run, guess, events_per_shard, f"selected_{n_selected}")
    merged = merge_shards(shards)
    rows = np.flatnonzero(merged["n_jets"] == n_selected)[:n_events]
    momenta = round_mantissa(merged["momenta"][rows][:, : len(particles)], EVENT_BITS)
    chi2 = merged["chi2"][rows] if "chi2" in merged else None
    events = Events(momenta, particles, process, chi2=chi2)
    about = {"name": name, "process": process, "n_events": n_events, "mantissa_bits": EVENT_BITS}
    about |= {"cut_flow": total_counts(shards), "seed": seed, "settings": settings}
    data, checks = event_datasets(events), _event_checks(events)
    return _write(output, data, about, checks, shards, n_rows=n_events, jobs=jobs)


def simulate_showers(
    output: Path | str,
    *,
    particle: str = "eplus",
    n_showers: int = 8000,
    seed: int = 1,
    energy_range: Sequence[float] = showers.ENERGY_RANGE,
    layout: str = "sparse",
    jobs: int = 1,
    showers_per_shard: int = 100,
    folder: Path | str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Simulate showers of eplus, gamma or piplus of energies uniform in `energy_range`, in GeV.

    The `layout` is "sparse", or "calogan" for that of CaloGAN's files, not rounded.
    """
    _check_choice("particle", particle, PARTICLES)
    _check_choice("layout", layout, LAYOUTS)
    if len(energy_range) != 2 or not 0 < energy_range[0] < energy_range[1] < 1e4:
        raise GenampError(
            "`energy_range` must be two rising energies between 0 and 10,000 GeV, got "
            f"{list(energy_range)}"
        )
    counts = {"n_showers": n_showers, "jobs": jobs, "showers_per_shard": showers_per_shard}
    _check(output, counts, seed, overwrite, showers.PACKAGES)
    name = f"showers_{particle}"
    chosen = {"particle": particle, "energy_range": tuple(energy_range)}
    settings = showers.chain_settings(particle, showers_per_shard, energy_range=energy_range)
    make = partial(showers.make_showers, n_showers=showers_per_shard, **chosen)
    where = {"seed": seed, "folder": _folder(folder, name, seed), "settings": settings}
    n_shards = math.ceil(n_showers / showers_per_shard)
    label = f"{particle} showers, shards of {showers_per_shard}"
    shards = run_shards(make, n_shards, **where, jobs=jobs, label=label)
    merged = merge_shards(shards)
    exact = Showers(**{key: x[:n_showers] for key, x in merged.items()}, particle=particle)
    is_sparse = layout == "sparse"
    kept = round_showers(exact) if is_sparse else exact
    about = {"name": name, "particle": particle, "n_showers": n_showers}
    about |= {"mantissa_bits": SHOWER_BITS if is_sparse else 23, "seed": seed, "settings": settings}
    about["units"] = {"energy": "GeV", "deposits": "MeV"}
    data, checks = shower_datasets(kept, layout), _shower_checks(kept, exact)
    rows = {"n_rows": n_showers, "jobs": jobs}
    return _write(output, data, about, checks, shards, close_each=True, **rows)


def _check_choice(name: str, value: str, choices: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in choices:
        raise GenampError(f"`{name}` must be one of {', '.join(choices)}, got `{value}`")


def _check(
    output: Path | str,
    counts: Mapping[str, int],
    seed: int,
    overwrite: bool,
    packages: Sequence[str] = jets.PACKAGES,
) -> None:
    for name, number in counts.items():
        if number < 1:
            raise GenampError(f"`{name}` must be positive, got {number}.")
    if seed < 0:
        raise GenampError(f"`seed` must not be negative, got {seed}.")
    if Path(output).exists() and not overwrite:
        raise GenampError(f"{output}: exists; remove it or pass --overwrite")
    jets.require_extra(packages)


def _folder(folder: Path | str | None, name: str, seed: int) -> Path:
    return Path(folder or project_root() / "_build" / "simulate" / f"{name}_seed{seed}")


def _shards_for(
    n_wanted: int,
    run: Callable[[int], list[Shard]],
    guess: float,
    events_per_shard: int,
    counted: str | None = None,
) -> list[Shard]:
    """Return as many shards as `n_wanted` rows need, and none more, whatever the guess was.

    `run` returns the first n shards; rows are those of a shard, or what it counted as `counted`.
    """

    def rows_of(shard: Shard) -> int:
        return shard.counts[counted] if counted else shard.n_rows

    shards: list[Shard] = []
    while (n_rows := sum(map(rows_of, shards))) < n_wanted:
        efficiency = n_rows / (len(shards) * events_per_shard) if n_rows else guess
        missing = (n_wanted - n_rows) / (efficiency * events_per_shard)
        shards = run(len(shards) + math.ceil(missing))
    n_needed = np.searchsorted(np.cumsum([rows_of(shard) for shard in shards]), n_wanted) + 1
    return shards[:n_needed]


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 numbers to `bits` explicit mantissa bits, so that they compress well.

    The relative change is at most 2^-(bits + 1); zeros stay zeros and order is kept.
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


def round_showers(whole: Showers) -> Showers:
    """Return showers with their deposits rounded."""
    layers = layers_of_voxels(round_mantissa(whole.voxels, SHOWER_BITS))
    overflow = round_mantissa(whole.overflow, SHOWER_BITS)
    return replace(whole, **dict(zip(LAYERS, layers, strict=True)), overflow=overflow)


def _jet_checks(arrays: Mapping[str, np.ndarray], exact: np.ndarray) -> dict[str, float]:
    """Numbers to compare a sample with; `exact` are the particles before rounding."""
    mass, exact_mass = relative_mass(arrays["particles"]), relative_mass(exact)
    change = np.abs(mass - exact_mass)[exact_mass > 0] / exact_mass[exact_mass > 0]
    multiplicity = arrays["multiplicity"]
    pt, _, jet_mass, _ = arrays["jets"].T.astype(np.float64)
    return {
        "mean_pt_gev": pt.mean(),
        "std_pt_gev": pt.std(),
        "mean_mass_gev": jet_mass.mean(),
        "mean_multiplicity": multiplicity.mean(),
        "fraction_all_constituents_stored": (multiplicity <= jets.N_PARTICLES).mean(),
        "mean_sum_pt_rel": arrays["particles"][..., 2].sum(axis=1, dtype=np.float64).mean(),
        "mean_relative_mass": mass.mean(),
        **{f"relative_mass_q{q}": np.quantile(mass, q / 100) for q in (10, 50, 90)},
        "rounding_max_change_of_relative_mass": change.max(),
        "rounding_rms_change_of_relative_mass": np.sqrt((change**2).mean()),
    }


def _event_checks(events: Events) -> dict[str, float]:
    """Numbers to compare a sample with: peaks, their widths, momenta."""
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
    return {**quantiles, **fractions}


def _shower_checks(kept: Showers, exact: Showers) -> dict[str, float]:
    """Numbers to compare a sample with; `exact` are the showers before rounding."""
    values, before = shower_observables(kept), shower_observables(exact)
    change = np.abs(values["total_energy"] / np.maximum(before["total_energy"], 1e-9) - 1)
    checks = {
        "mean_energy_gev": kept.energy.mean(dtype=np.float64),
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
    return checks


def jet_datasets(arrays: Mapping[str, np.ndarray]) -> Datasets:
    """Return `particles`, `jets` and `multiplicity` of jets in JetNet's layout.

    The order is fixed, because it is in the bytes of the file.
    """
    return {
        "jet_features": (arrays["jets"], {"fields": list(JET_FIELDS)}),
        "particle_features": (arrays["particles"], {"fields": list(PARTICLE_FIELDS)}),
        "multiplicity": (arrays["multiplicity"], {}),
    }


def event_datasets(events: Events) -> Datasets:
    """Return the momenta of events, and chi^2 where there is one."""
    about = {
        "particles": list(events.particles),
        "fields": list(CYLINDRICAL_FIELDS),
        "units": ["GeV", "1", "rad", "GeV"],
    }
    chi2 = {} if events.chi2 is None else {"chi2": (round_mantissa(events.chi2, EVENT_BITS), {})}
    return {"momenta": (events.momenta, about), **chi2}


def shower_datasets(whole: Showers, layout: str) -> Datasets:
    """Return showers in the layout of CaloGAN's files, or without their empty cells.

    The latter are: `energy` (n,); `overflow` (n, 3); `n_voxels` (n,), the cells with a deposit in
    each shower; `voxels` and `deposits` of all of them, shower after shower: the index of the cell
    among all 504, layer after layer and phi before eta, and the deposit.
    """
    if layout == "calogan":
        arrays = {"energy": whole.energy[:, None], "overflow": whole.overflow}
        arrays |= dict(zip(LAYERS, whole.layers, strict=True))
    else:
        voxels = whole.voxels
        is_hit = voxels > 0
        arrays = {
            "energy": whole.energy,
            "overflow": whole.overflow,
            "n_voxels": is_hit.sum(axis=1).astype(np.uint16),
            "voxels": np.nonzero(is_hit)[1].astype(np.uint16),
            "deposits": voxels[is_hit],
        }
    units = {"energy": "GeV", "n_voxels": "1", "voxels": "1"}
    return {name: (array, {"units": units.get(name, "MeV")}) for name, array in arrays.items()}


def write_sample(
    path: Path, datasets: Datasets, provenance: Mapping[str, Any], *, close_each: bool = False
) -> None:
    """Write an HDF5 file whole or not at all; the same arrays give the same bytes.

    The bytes also say whether a dataset was closed before the next one was made: `close_each`.
    """
    import h5py

    # No time stamps and a fixed range of format versions, or else the bytes would change.
    with (
        replace_file(path) as temporary,
        h5py.File(temporary, "w", libver=("earliest", "v110")) as file,
    ):
        for name, (array, attributes) in datasets.items():
            dataset = file.create_dataset(
                name,
                data=array,
                chunks=(min(len(array), 5000), *array.shape[1:]),
                compression="gzip",
                compression_opts=9,
                shuffle=True,
                track_times=False,
            )
            dataset.attrs.update(attributes)
            if close_each:
                del dataset
        file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)


def _write(
    output: Path | str,
    datasets: Datasets,
    about: Mapping[str, Any],
    checks: Mapping[str, float],
    shards: list[Shard],
    *,
    n_rows: int,
    jobs: int,
    close_each: bool = False,
) -> dict[str, Any]:
    """Write a sample and its record, with six digits of each check."""
    output = Path(output)
    provenance = {**about, "n_shards": len(shards)}
    provenance["checks"] = {name: float(f"{value:.6g}") for name, value in checks.items()}
    write_sample(output, datasets, provenance, close_each=close_each)
    record = {
        "file": output.name,
        "sha256": sha256_of_file(output),
        "bytes": output.stat().st_size,
        "rows": n_rows,
        "jobs": jobs,
        "cpu_seconds": round(sum(shard.cpu_seconds for shard in shards), 1),
        "machine": f"{platform.system()} {platform.machine()}",
        "provenance": provenance,
    }
    write_json(output.with_name(output.name + ".json"), record)
    return record
