"""`genamp data`: the event samples on the command line. No work of its own, no heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Event samples: list, verify, simulate.", no_args_is_help=True)
simulate_app = typer.Typer(help="Make samples from first principles.", no_args_is_help=True)
app.add_typer(simulate_app, name="simulate")


@app.command("list")
def list_command() -> None:
    """List the shipped samples. Quick: looks at sizes, not at checksums."""
    from rich.console import Console
    from rich.table import Table

    from genamp_lib.datasets.samples import list_samples

    table = Table()
    table.add_column("sample", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("what")
    for sample in list_samples():
        size = f"{sample.bytes / 1e6:.1f} MB"
        table.add_row(sample.name, f"{sample.rows:,}", size, sample.state, sample.description)
    Console().print(table)


@app.command("verify")
def verify_command(
    name: Annotated[str | None, typer.Argument(help="One sample; all of them if none.")] = None,
) -> None:
    """Compare the shipped samples with their checksums; exit code 1 if one is not as it was."""
    from genamp_lib._project import GenampError
    from genamp_lib.datasets.samples import find_sample, list_samples, verify_sample

    samples = list_samples() if name is None else [find_sample(name)]
    n_bad = 0
    for sample in samples:
        try:
            verify_sample(sample.name)
        except GenampError as error:
            n_bad += 1
            typer.echo(f"error: {error}", err=True)
        else:
            typer.echo(f"{sample.name}: as published, SHA-256 {sample.sha256}")
    if n_bad:
        raise typer.Exit(1)


@simulate_app.command("jets")
def simulate_jets_command(
    kind: Annotated[str, typer.Option(help="gluon, light or top.")] = "gluon",
    n_jets: Annotated[int, typer.Option(help="Number of jets.")] = 60_000,
    seed: Annotated[int, typer.Option(help="Base seed of all shards.")] = 1,
    radius: Annotated[float, typer.Option(help="R of anti-kT; JetNet's is 0.4.")] = 0.8,
    jobs: Annotated[int, typer.Option(help="Processes; the jets do not depend on it.")] = 1,
    shard_events: Annotated[int, typer.Option(help="Events per shard; changes the jets.")] = 2000,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; _build/simulate/SAMPLE_seedSEED.h5 by default."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for finished shards; in _build by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the output if it exists.")] = False,
) -> None:
    """Generate jets with Pythia and FastJet. A killed run continues when called again.

    Needs the extra: pip install -e '.[simulate]'.
    """
    from genamp_lib._project import project_root
    from genamp_lib.simulation.jet_sample import sample_name, simulate_jets

    if output is None:
        file = f"{sample_name(kind, radius)}_seed{seed}.h5"
        output = project_root() / "_build" / "simulate" / file
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
