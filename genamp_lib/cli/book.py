"""`genamp chapters | run | build | serve | scoreboard`: the commands around the book."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from genamp_lib._project import GenampError, project_root


def _complete_chapter(incomplete: str) -> list[str]:
    notebooks = (project_root() / "notebooks").glob("*.md")
    return sorted(path.stem for path in notebooks if path.stem.startswith(incomplete))


def _complete_parameter(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    from genamp_lib.book.catalog import load_chapters

    # While a value of -p is typed click has parsed no argument: the chapter is among the rest.
    given = [context.params.get("name"), *context.args]
    found = [one for key, one in load_chapters(project_root(), {}).items() if key in given]
    parameters = found[0].parameters.values() if found else ()
    return [(p.name, p.help) for p in parameters if p.name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        help="Chapter, by name or number; see `genamp chapters`.",
        autocompletion=_complete_chapter,
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="smoke: small, from scratch; default: what is published; paper: the papers' sizes."
    ),
]
CORES = os.cpu_count() or 1


def chapters(
    name: Annotated[
        str | None,
        typer.Argument(
            help="List the parameters of this chapter.", autocompletion=_complete_chapter
        ),
    ] = None,
    preset: Preset = "default",
) -> None:
    """List the chapters and how fresh their last runs are, or the parameters of one of them.

    Example: genamp chapters 01_gaussian_1d
    """
    from genamp_lib.book.catalog import shown
    from genamp_lib.book.results import read_record
    from genamp_lib.book.run import open_book, plan_jobs

    book = open_book(preset)
    # Lines, not a table: nothing is cut at any width, or where it is piped.
    if name is not None:
        chapter = book.find(name)
        values = book.parameters[chapter.name]
        rows = [
            (p.name, p.annotation, shown(values[p.name]), p.range or "-", p.help)
            for p in chapter.parameters.values()
        ]
        heads = ("parameter", "type", "default", "allowed", "meaning")
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)][:-1]
        for *cells, meaning in (heads, *rows):
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            typer.echo("  ".join([*padded, meaning]))
        return
    stale = {job.chapter.name: "; ".join(job.reasons) for job in plan_jobs(book)}
    for key, chapter in book.chapters.items():
        record = read_record(book.folder(key))
        last = (
            f", last run {record['started'][:10]} in {record['wall_seconds']} s" if record else ""
        )
        state = f"stale: {stale[key]}" if record and key in stale else stale.get(key, "fresh")
        typer.echo(f"{key}: {state}{last}\n    {chapter.summary}")
    for problem in book.problems.values():
        typer.echo(problem, err=True)
    typer.echo("\nParameters of a chapter: genamp chapters NAME")


def run(
    name: Name,
    preset: Preset = "default",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="KEY VALUE",
            help="Change a parameter of the chapter; may be given more than once.",
            autocompletion=_complete_parameter,
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all; read no artefact.")] = False,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Copy the artefacts that it computed to data/artefacts."),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, help="Processes that share trainings; same numbers."),
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Dask scheduler to share trainings with, as tcp://host:8786."
        ),
    ] = None,
) -> None:
    """Run one chapter, with other parameters if you like.

    Without -p the published run of the preset is replaced. With -p the run gets a folder and a page
    of its own and the published one stays as it is.

    Example: genamp run 01_gaussian_1d -p n_train 2000 -p upper 1.0

    Chapters that read event samples have the parameter `source`: shipped, public (fetched if need
    be), or the path of a file.
    """
    from genamp_lib.book.results import read_results
    from genamp_lib.book.run import publish_artefacts, rerun
    from genamp_lib.cli.data import fetch_with_bar

    for text in parameter or []:
        if "=" not in text:
            raise GenampError(f"`-p` needs a name and a value, got `{text}`; -p n_train 2000")
    given = dict(text.split("=", 1) for text in parameter or [])
    options = {"jobs": jobs, "scheduler": scheduler, "fetch": fetch_with_bar}
    with _stoppable():
        folder = rerun(name, given, preset=preset, fresh=fresh, **options)
    for path in publish_artefacts(folder) if publish else ():
        typer.echo(f"artefact: {path.name}")
    results = read_results(folder / "results.json").values()
    _print_table(
        ("Result", "Value [interval]", "Meaning"), ((r.name, r.text, r.meaning) for r in results)
    )
    typer.echo(f"run: {folder}")
    page = folder / "site" / "chapters" / f"{folder.parent.name}.html"
    typer.echo(f"page: {page}" if given else "The site shows it after `genamp build`.")


def build(
    preset: Preset = "default",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Chapters at a time; one thread each.")
    ] = CORES,
) -> None:
    """Run the chapters that are stale, then write the site.

    A chapter is stale when its code cells, its parameters, the library, its event samples or the
    installed versions changed; not when its prose changed.
    """
    from genamp_lib.book.results import read_record
    from genamp_lib.book.run import ChapterFailed, open_book, plan_jobs, run_jobs
    from genamp_lib.book.site import build_site, site_folder

    book = open_book(preset)
    with book.lock():
        todo = {job.chapter.name: job for job in plan_jobs(book)}
        for name in book.chapters:
            reasons = "; ".join(todo[name].reasons) if name in todo else ""
            typer.echo(f"{name}: to run, {reasons}" if reasons else f"{name}: up to date")
        with _stoppable():
            failures = run_jobs(list(todo.values()), n_parallel=jobs)
        for name in todo:
            if name not in failures:
                typer.echo(f"{name}: done in {read_record(book.folder(name))['wall_seconds']} s")
        if failures:
            raise ChapterFailed("\n".join(failures.values()))
        folder = site_folder(book.root, preset)
        rendered = build_site(book.root, book.chapters, book.runs(), folder)
    index = (folder / "index.html").relative_to(book.root)
    typer.echo(f"site{'' if rendered else ' (unchanged)'}: {index}")


def serve(
    preset: Preset = "default",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
) -> None:
    """Serve the built site on this machine, so that its search works too."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from genamp_lib.book.site import site_folder

    folder = site_folder(project_root(), preset)
    if not (folder / "index.html").exists():
        raise GenampError(f"no site at {folder}; run `genamp build --preset {preset}` first")
    try:
        handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise GenampError(f"port {port} cannot be used ({error.strerror}); try --port 0") from error
    with server:
        typer.echo(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("")


def scoreboard(
    preset: Preset = "default",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    readme: Annotated[
        Path | None, typer.Option(help="Write chapters and headline numbers into this README.")
    ] = None,
) -> None:
    """Print every number of the papers beside ours, with a computed verdict."""
    from genamp_lib.book.run import open_book
    from genamp_lib.book.scoreboard import compare, load_paper_numbers, update_readme

    book = open_book(preset)
    rows = compare(load_paper_numbers(book.root), book.runs())
    if readme is not None:
        changed = update_readme(readme, rows, book.chapters.values())
        typer.echo(f"{readme}: {'updated' if changed else 'up to date'}")
    elif json_output:
        typer.echo(json.dumps([row.to_dict() for row in rows], indent=2))
    else:
        shown = []
        for row in rows:
            ours = "" if row.ours is None else row.ours.text
            where = f"{row.paper.text}\n{row.paper.paper}, {row.paper.where}"
            shown.append((row.paper.quantity, where, ours, row.verdict, row.reason))
        _print_table(("Quantity", "Paper", "Ours", "Verdict", "Why"), shown)


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        typer.echo("stopped; finished chapters are kept, the next build continues", err=True)
        raise typer.Exit(130) from stop


def _print_table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads)
    for row in rows:
        table.add_row(*map(str, row))
    # Where it is piped each row is one line, and nothing is cut.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
