"""`genamp data simulate`: samples from first principles. No work of its own, no heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Make samples from first principles.", no_args_is_help=True)

Seed = Annotated[int, typer.Option(help="Base seed of all shards.")]
Jobs = Annotated[int, typer.Option(help="Processes; the events do not depend on it.")]
ShardEvents = Annotated[
    int, typer.Option(help="Collisions per shard, what a kill loses; changes the events.")
]
Output = Annotated[
    Path | None, typer.Option(help="File to write; _build/simulate/SAMPLE_seedSEED.h5 by default.")
]
Work = Annotated[
    Path | None, typer.Option(help="Folder for finished shards; in _build by default.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace the output if it exists.")]


@app.command("jets")
def simulate_jets_command(
    kind: Annotated[str, typer.Option(help="gluon, light or top.")] = "gluon",
    n_jets: Annotated[int, typer.Option(help="Number of jets.")] = 60_000,
    seed: Seed = 1,
    radius: Annotated[float, typer.Option(help="R of anti-kT; JetNet's is 0.4.")] = 0.8,
    jobs: Jobs = 1,
    shard_events: ShardEvents = 2000,
    output: Output = None,
    work: Work = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate jets with Pythia and FastJet. A killed run continues when called again.

    Needs the packages of the extra `simulate`; without them it says what to install.
    """
    from genamp_lib.simulation.samples import sample_name, simulate_jets

    output = output or _default_output(sample_name(kind, radius), seed)
    record = simulate_jets(
        output,
        kind=kind,
        n_jets=n_jets,
        seed=seed,
        radius=radius,
        jobs=jobs,
        events_per_shard=shard_events,
        folder=work,
        overwrite=overwrite,
    )
    made = record["provenance"]
    checks = made["checks"]
    typer.echo(f"{output}: {n_jets:,} {kind} jets, {record['bytes'] / 1e6:.1f} MB")
    typer.echo(
        f"{made['jets_per_event']:.3f} jets per event, mean pt {checks['mean_pt_gev']:.0f} GeV, "
        f"mean mass {checks['mean_mass_gev']:.1f} GeV, "
        f"mean multiplicity {checks['mean_multiplicity']:.1f}"
    )
    typer.echo(f"SHA-256 {record['sha256']}, {record['cpu_seconds']:.0f} s of processor time")


@app.command("top-pairs")
def simulate_top_pairs_command(
    extra_jets: Annotated[
        int, typer.Option(help="Jets besides the six of the top quarks: 0 or 4.")
    ] = 0,
    n_events: Annotated[int, typer.Option(help="Events that pass the cuts.")] = 80_000,
    seed: Seed = 1,
    mpi: Annotated[
        bool, typer.Option(help="Multiparton interactions; off is four times as fast.")
    ] = True,
    jobs: Jobs = 1,
    shard_events: ShardEvents = 30_000,
    output: Output = None,
    work: Work = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate all-hadronic top pairs as a detector sees them: sec. 5 of paper A.

    Pythia 8 at 13 TeV, the response of the Delphes ATLAS card, anti-kT jets of R = 0.4, the cuts
    of Eq. (38) (pt > 22 GeV, |eta| < 5, all jets 0.5 apart, two b-tags), and the assignment of
    jets to W and top quarks with the smallest chi^2.

    One collision in 12 has exactly six jets and passes, one in 150 has exactly ten. A core makes
    about 9 events per second with --extra-jets 0, and 0.7 with --extra-jets 4. Both come from the
    same shards: after one, the other is made from what is there. A killed run continues when
    called again. Read the file with genamp_lib.load_top_pairs(source=FILE).

    Needs the packages of the extra `simulate`; without them it says what to install.
    """
    settings = {"n_events": n_events, "seed": seed, "mpi": mpi, "overwrite": overwrite}
    settings |= {"jobs": jobs, "events_per_shard": shard_events, "folder": work}
    _simulate_events("top_pairs", extra_jets, output, settings)


@app.command("z-jets")
def simulate_z_jets_command(
    n_jets: Annotated[int, typer.Option(help="Exactly so many jets: 1, 2 or 3.")] = 1,
    n_events: Annotated[int, typer.Option(help="Events that pass the cuts.")] = 80_000,
    seed: Seed = 1,
    mpi: Annotated[
        bool, typer.Option(help="Multiparton interactions; a few times as slow.")
    ] = False,
    jobs: Jobs = 1,
    shard_events: ShardEvents = 50_000,
    output: Output = None,
    work: Work = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate Z bosons to two muons with jets as a detector sees them: sec. 5 of paper B.

    Pythia 8 at 13 TeV (Z or photon with a parton, and its shower), muon efficiency and resolution
    and calorimeter response of the Delphes ATLAS card, anti-kT jets of R = 0.4, pt > 20 GeV,
    |eta| < 4.5.

    Without multiparton interactions a core makes about 280, 70 and 18 events per second with one,
    two and three jets. All come from the same shards: start with --n-jets 3, the others are then
    made from what is there. A killed run continues when called again. Read the file with
    genamp_lib.load_z_jets(N, source=FILE).

    Needs the packages of the extra `simulate`; without them it says what to install.
    """
    settings = {"n_events": n_events, "seed": seed, "mpi": mpi, "overwrite": overwrite}
    settings |= {"jobs": jobs, "events_per_shard": shard_events, "folder": work}
    _simulate_events("z_jets", n_jets, output, settings)


@app.command("showers")
def simulate_showers_command(
    particle: Annotated[str, typer.Option(help="eplus, gamma or piplus.")] = "eplus",
    n_showers: Annotated[int, typer.Option(help="Number of showers.")] = 8000,
    seed: Seed = 1,
    energy_min: Annotated[float, typer.Option(help="Least kinetic energy, GeV.")] = 1.0,
    energy_max: Annotated[float, typer.Option(help="Largest kinetic energy, GeV.")] = 100.0,
    layout: Annotated[
        str, typer.Option(help="sparse, or calogan for the layout of CaloGAN's files.")
    ] = "sparse",
    jobs: Jobs = 1,
    shard_showers: Annotated[
        int, typer.Option(help="Showers per shard, what a kill loses; changes the showers.")
    ] = 100,
    output: Output = None,
    work: Work = None,
    overwrite: Overwrite = False,
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
    from genamp_lib.simulation.samples import simulate_showers

    output = output or _default_output(f"showers_{particle}", seed)
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


def _simulate_events(
    process: str, n_jets: int, output: Path | None, settings: dict[str, Any]
) -> None:
    from genamp_lib.simulation.samples import simulate_events

    output = output or _default_output(f"{process}_{n_jets}j", settings["seed"])
    record = simulate_events(output, process, n_jets, **settings)
    made = record["provenance"]
    n_collisions = made["cut_flow"]["events"]
    typer.echo(
        f"{output}: {record['rows']:,} events of {n_collisions:,} collisions, "
        f"{record['bytes'] / 1e6:.1f} MB"
    )
    medians = (
        f"{name.removesuffix('_q50_gev')} {value:.1f} GeV"
        for name, value in made["checks"].items()
        if name.endswith("_q50_gev")
    )
    typer.echo(f"Medians: {', '.join(medians)}")
    typer.echo(f"SHA-256 {record['sha256']}, {record['cpu_seconds']:.0f} s of processor time")


def _default_output(sample: str, seed: int) -> Path:
    from genamp_lib._project import project_root

    return project_root() / "_build" / "simulate" / f"{sample}_seed{seed}.h5"
