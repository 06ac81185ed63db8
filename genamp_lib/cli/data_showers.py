"""`genamp data simulate showers`. No work of its own, no heavy imports; cli.data registers it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate_showers_command(
    particle: Annotated[str, typer.Option(help="eplus, gamma or piplus.")] = "eplus",
    n_showers: Annotated[int, typer.Option(help="Number of showers.")] = 8000,
    seed: Annotated[int, typer.Option(help="Base seed of all shards.")] = 1,
    energy_min: Annotated[float, typer.Option(help="Least kinetic energy, GeV.")] = 1.0,
    energy_max: Annotated[float, typer.Option(help="Largest kinetic energy, GeV.")] = 100.0,
    layout: Annotated[
        str, typer.Option(help="sparse, or calogan for the layout of CaloGAN's files.")
    ] = "sparse",
    jobs: Annotated[int, typer.Option(help="Processes; the showers do not depend on it.")] = 1,
    shard_showers: Annotated[
        int, typer.Option(help="Showers per shard, what a kill loses; changes the showers.")
    ] = 100,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; _build/simulate/SAMPLE_seedSEED.h5 by default."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for finished shards; in _build by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the output if it exists.")] = False,
) -> None:
    """Simulate showers in the CaloGAN calorimeter with Geant4: sec. 4 of paper B.

    Lead and liquid argon in three layers of cells, kinetic energies uniform between two values.
    Geant4 11.4, with analytic low-energy tables in place of its data files, which are a download
    of gigabytes: data/README.md says what differs. Nothing is downloaded.

    Between 1 and 100 GeV a core makes about 3 showers of eplus or gamma per second, 8 of piplus. A
    killed run continues when called again, also with more showers. Read the file with
    genamp_lib.load_showers(PARTICLE, source=FILE).

    Needs the packages of the extra `simulate`; without them it says what to install.
    """
    from genamp_lib._project import project_root
    from genamp_lib.simulation.shower_sample import simulate_showers

    if output is None:
        file = f"showers_{particle}_seed{seed}.h5"
        output = project_root() / "_build" / "simulate" / file
    record = simulate_showers(
        output,
        particle=particle,
        n_showers=n_showers,
        seed=seed,
        energy_range=(energy_min, energy_max),
        layout=layout,
        jobs=jobs,
        showers_per_shard=shard_showers,
        folder=work,
        overwrite=overwrite,
    )
    checks = record["provenance"]["checks"]
    typer.echo(f"{output}: {n_showers:,} {particle} showers, {record['bytes'] / 1e6:.1f} MB")
    typer.echo(
        f"Mean response {checks['mean_response']:.3f}, fractions of the layers "
        + ", ".join(f"{checks[f'mean_fraction_{layer}']:.3f}" for layer in range(3))
    )
    typer.echo(f"SHA-256 {record['sha256']}, {record['cpu_seconds']:.0f} s of processor time")
