"""`genamp data`: event samples and public data on the command line. No work of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genamp_lib.cli.simulate import app as simulate_app

if TYPE_CHECKING:
    from genamp_lib.datasets._download import Progress


@contextmanager
def download_progress(name: str) -> Iterator[Progress]:
    """Show a bar while something is downloaded; give what the download reports to."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None, visible=False)

        def report(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        yield report


def fetch_with_bar(name: str) -> None:
    """Download a public file, for `genamp run -p source public`."""
    from genamp_lib.datasets.public import fetch_public

    with download_progress(name) as progress:
        fetch_public(name, progress=progress)


app = typer.Typer(help="Event samples: list, fetch, verify, simulate.", no_args_is_help=True)
app.add_typer(simulate_app, name="simulate")

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
    from genamp_lib.datasets.public import PUBLIC_RECORDS, PublicFile, data_folder
    from genamp_lib.datasets.sources import list_samples

    # Lines, not a table: names and DOIs are copied whole from any terminal, or piped.
    typer.echo("Shipped samples: sample, rows, size, state")
    for sample in list_samples():
        size = f"{sample.bytes / 1e6:.1f} MB"
        typer.echo(f"{sample.name:16} {sample.rows:>9,} {size:>8}  {sample.state}")
        typer.echo(f"    {sample.description}")
    folder = folder or data_folder()
    typer.echo("\nPublic data, `genamp data fetch FILE`: file, state, DOI or address")
    for record in PUBLIC_RECORDS:
        where = record.doi or record.page
        for file in [PublicFile(record, name) for name in record.files]:
            typer.echo(f"{file.name:39} {file.state(folder):14} {where}")
        if not record.files:
            typer.echo(f"{record.name + '/...':54} {where}")
        typer.echo(f"    {record.what}")
    typer.echo(f"\nPublic files are kept in {folder}")


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
    from genamp_lib.datasets.sources import find_sample, list_samples, verify_sample

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
