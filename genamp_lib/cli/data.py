"""`genamp data`: event samples and public data on the command line. No work of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib.cli.data_showers import simulate_showers_command

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(help="Event samples: list, fetch, verify, simulate.", no_args_is_help=True)
simulate_app = typer.Typer(help="Make samples from first principles.", no_args_is_help=True)
app.add_typer(simulate_app, name="simulate")
simulate_app.command("showers")(simulate_showers_command)


Seed = Annotated[int, typer.Option(help="Base seed of all shards.")]
Jobs = Annotated[int, typer.Option(help="Processes; the events do not depend on it.")]
ShardEvents = Annotated[
    int, typer.Option(help="Collisions per shard, what a kill loses; changes the events.")
]
Output = Annotated[
    Path | None,
    typer.Option(help="File to write; _build/simulate/SAMPLE_seedSEED.h5 by default."),
]
Work = Annotated[
    Path | None, typer.Option(help="Folder for finished shards; in _build by default.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace the output if it exists.")]


Folder = Annotated[
    Path | None,
    typer.Option(help="Where public files are kept; GENAMP_DATA, or a folder in your cache."),
]
Mirror = Annotated[
    str | None,
    typer.Option(help="Ask MIRROR/HOST/PATH instead of https://HOST/PATH; GENAMP_MIRROR."),
]


@app.command("list")
def list_command(folder: Folder = None) -> None:
    """List the shipped samples and the public files. Quick: looks at sizes, not at checksums."""
    from rich.console import Console
    from rich.table import Table

    from genamp_lib.datasets.public import data_folder, list_public
    from genamp_lib.datasets.public_records import PUBLIC_RECORDS
    from genamp_lib.datasets.samples import list_samples

    console = Console()
    table = Table(title="Shipped samples", title_justify="left")
    table.add_column("sample", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("what")
    for sample in list_samples():
        size = f"{sample.bytes / 1e6:.1f} MB"
        table.add_row(sample.name, f"{sample.rows:,}", size, sample.state, sample.description)
    console.print(table)

    folder = folder or data_folder()
    table = Table(title="Public data: genamp data fetch FILE", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("what")
    table.add_column("DOI or address", overflow="fold")
    for record in PUBLIC_RECORDS:
        files = [public for public in list_public() if public.record is record]
        names = "\n".join(public.name for public in files) or f"{record.name}/..."
        states = "\n".join(public.state(folder) for public in files)
        table.add_row(names, states, record.what, record.doi or record.page)
        table.add_section()
    console.print(table)
    typer.echo(f"Public files are kept in {folder}")


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="RECORD/FILE as `genamp data list` shows it.")],
    folder: Folder = None,
    mirror: Mirror = None,
) -> None:
    """Download a public file and verify its checksum.

    What has come of a broken download is kept: call it again and it continues.

    Example: genamp data fetch jetnet/g.hdf5, then load_jets("jets_gluon", source="public").
    """
    from genamp_lib.cli._download import download_progress
    from genamp_lib.datasets.public import fetch_public, find_public, verify_public

    public = find_public(name)
    typer.echo(f"{public.name}: {public.record.what}")
    typer.echo(f"{public.record.page}; please cite it if you use it.")
    with download_progress(public.name) as progress:
        path = fetch_public(public.name, folder=folder, mirror=mirror, progress=progress)
    checksum, published = verify_public(public.name, folder=folder, mirror=mirror)
    meaning = "as published" if published else "noted, there is no published one"
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {checksum} ({meaning})")


@app.command("verify")
def verify_command(
    name: Annotated[
        str | None, typer.Argument(help="A sample or a public file; all that are there if none.")
    ] = None,
    folder: Folder = None,
    mirror: Mirror = None,
) -> None:
    """Compare shipped samples and fetched public files with their checksums.

    Exit code 1 if one is not as it was.
    """
    from genamp_lib._project import GenampError
    from genamp_lib.datasets.public import list_public, verify_public
    from genamp_lib.datasets.samples import find_sample, list_samples, verify_sample

    def sample_text(sample: str) -> str:
        verify_sample(sample)
        return f"{sample}: as published, SHA-256 {find_sample(sample).sha256}"

    def public_text(public: str) -> str:
        checksum, published = verify_public(public, folder=folder, mirror=mirror)
        return f"{public}: as {'published' if published else 'first seen'}, {checksum}"

    if name is None:
        checks = [partial(sample_text, sample.name) for sample in list_samples()]
        here = [public for public in list_public() if public.path(folder).is_file()]
        checks += [partial(public_text, public.name) for public in here]
    elif "/" in name:
        checks = [partial(public_text, name)]
    else:
        checks = [partial(sample_text, find_sample(name).name)]
    n_bad = 0
    for check in checks:
        try:
            typer.echo(check())
        except GenampError as error:
            n_bad += 1
            typer.echo(f"error: {error}", err=True)
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

    Needs the packages of the extra `simulate`; without them it says what to install.
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


@simulate_app.command("top-pairs")
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

    One collision in 12 has exactly six jets and passes, one in 140 has exactly ten. A core makes
    about 9 events per second with --extra-jets 0, and 0.8 with --extra-jets 4. Both come from the
    same shards: after one, the other is made from what is there. A killed run continues when
    called again. Read the file with genamp_lib.load_top_pairs(source=FILE).

    Needs the packages of the extra `simulate`; without them it says what to install.
    """
    from genamp_lib.simulation.event_sample import simulate_top_pairs

    settings = {"n_extra_jets": extra_jets, "n_events": n_events, "seed": seed, "mpi": mpi}
    settings |= {"jobs": jobs, "events_per_shard": shard_events, "folder": work}
    sample = f"top_pairs_{extra_jets}j"
    _simulate_events(simulate_top_pairs, output, sample, settings, overwrite)


@simulate_app.command("z-jets")
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
    from genamp_lib.simulation.event_sample import simulate_z_jets

    settings = {"n_jets": n_jets, "n_events": n_events, "seed": seed, "mpi": mpi}
    settings |= {"jobs": jobs, "events_per_shard": shard_events, "folder": work}
    _simulate_events(simulate_z_jets, output, f"z_jets_{n_jets}j", settings, overwrite)


def _simulate_events(
    simulate: Callable[..., dict[str, Any]],
    output: Path | None,
    sample: str,
    settings: dict[str, Any],
    overwrite: bool,
) -> None:
    from genamp_lib._project import project_root

    if output is None:
        file = f"{sample}_seed{settings['seed']}.h5"
        output = project_root() / "_build" / "simulate" / file
    record = simulate(output, overwrite=overwrite, **settings)
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
