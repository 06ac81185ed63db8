"""`genamp train`: the long trainings. No work of its own, no heavy imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Train generators in the background; a stopped run continues when called again.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Keep `genamp train NAME` a group while it has one command."""


@app.command("top-pairs")
def train_top_pairs_command(
    architecture: Annotated[
        str, typer.Option("--architecture", "--arch", help="transformer, lgatr-slim, lgatr, lloca.")
    ] = "transformer",
    members: Annotated[int, typer.Option(help="Generators of the ensemble.")] = 10,
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap/--same-data", help="Each member's own draw of events, or the same for all."
        ),
    ] = True,
    extra_jets: Annotated[int, typer.Option(help="Jets besides those of the top quarks.")] = 0,
    n_train: Annotated[
        int | None, typer.Option(help="The first events of the sample; all when not given.")
    ] = None,
    n_steps: Annotated[int, typer.Option(help="Steps of the optimiser.")] = 20_000,
    batch_size: Annotated[int, typer.Option(help="Events per step.")] = 512,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls to zero.")] = 4e-3,
    optimiser: Annotated[
        str, typer.Option(help="muon, for the matrices of the network's blocks, or adamw for all.")
    ] = "muon",
    base: Annotated[
        str, typer.Option(help="normal, correlated, or momentum: that of paper A's code.")
    ] = "normal",
    skip: Annotated[
        str,
        typer.Option(
            help="What is not learned: observables, normal, or none, which momentum needs."
        ),
    ] = "observables",
    coupling: Annotated[str, typer.Option(help="independent, rotated or optimal.")] = "rotated",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile", help="Faster steps; needs a C++ compiler and half a minute."
        ),
    ] = True,
    source: Annotated[str, typer.Option(help="shipped, public, or a file of events.")] = "shipped",
    seed: Annotated[int, typer.Option(help="Of everything.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes of one thread each.")] = 2,
    output: Annotated[
        Path | None, typer.Option(help="Folder; _build/generators by default.")
    ] = None,
) -> None:
    """Train flow-matching generators of top pairs, sec. 5 of paper A.

    Members advance by turns, and the state of each is written every 500 steps: Ctrl-C loses at
    most that, and the same command continues, to the same numbers bit for bit. A step of 512 events
    takes a core 0.05 s with the transformer, 0.09 s with lgatr-slim, 0.13 s with lloca.

    Read a generator with genamp_lib.networks.top_pairs.members.read_generator(FILE).
    """
    from genamp_lib._project import GenampError, project_root

    try:
        from genamp_lib.datasets import load_top_pairs
        from genamp_lib.networks.top_pairs.architectures import VelocitySettings
        from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining
        from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
        from genamp_lib.networks.top_pairs.members import fit_members, member_tasks

        flow = FlowMatchingSettings(
            n_particles=6 + extra_jets,
            base=base,
            skip=skip,
            coupling=coupling,
            velocity=VelocitySettings(architecture=architecture),
        )
        training = FlowMatchingTraining(
            n_steps=n_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimiser=optimiser,
            compile=compile_,
        )
        events = load_top_pairs(extra_jets, source=source, n_events=n_train)
        tasks = member_tasks(
            events.momenta, flow, training, n_members=members, seed=seed, bootstrap=bootstrap
        )
    except ValueError as error:
        raise GenampError(str(error)) from error
    typer.echo(f"{len(events):,} events of {events.source}")
    folder = output or project_root() / "_build" / "generators"
    for file in fit_members(tasks, folder, jobs=jobs, label=f"{architecture} x {members}"):
        typer.echo(file)
