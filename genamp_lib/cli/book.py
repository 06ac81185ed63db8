"""`genamp chapters | run | build | serve | scoreboard`: the commands around the book.

Run chapters with progress on the terminal. Not for choosing which ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError, project_root

if TYPE_CHECKING:
    from genamp_lib.book.catalog import Chapter
    from genamp_lib.book.run import Job
    from genamp_lib.book.scoreboard import Row
    from genamp_lib.book.site import Page


def run_or_exit(
    root: Path, todo: list[Job], n_parallel: int, sharing: Mapping[str, str] | None = None
) -> None:
    """Run jobs with progress; print failures and exit with 1 when there are any."""
    from genamp_lib.book import run as runs

    if not todo:
        return
    try:
        with _progress(root, todo) as report:
            done, failures = runs.run_jobs(
                root, todo, n_parallel=n_parallel, report=report, sharing=sharing
            )
    except KeyboardInterrupt as stop:
        typer.echo("stopped; finished chapters are kept, the next build continues", err=True)
        raise typer.Exit(130) from stop
    for job in done:
        seconds = runs.read_record(job.folder)["wall_seconds"]
        typer.echo(f"{job.chapter.name}: done in {seconds} s")
    for failure in failures:
        typer.echo(f"failed: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


@contextmanager
def _progress(root: Path, todo: list[Job]) -> Iterator[Any]:
    """Show cells and the time left where there is a terminal, a line per chapter elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from genamp_lib.book import run as runs

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("cell {task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[estimate]}"),
    )
    console = Console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}
        for job in todo:
            record = runs.read_record(runs.run_folder(root, job.preset, job.chapter.name))
            estimate = f"last run: {record['wall_seconds']:.0f} s" if record else ""
            tasks[job.chapter.name] = bars.add_task(
                job.chapter.name, total=None, start=False, estimate=estimate
            )
            if bars.disable:
                typer.echo(f"{time.strftime('%H:%M:%S')} {job.chapter.name} queued {estimate}")

        def report(job: Job, cell: int, cells: int) -> None:
            task = tasks[job.chapter.name]
            bars.start_task(task)
            bars.update(task, completed=cell, total=cells)

        yield report


Preset = Annotated[
    str,
    typer.Option(
        help="smoke: small, from scratch; default: what is published; paper: the papers' sizes."
    ),
]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", min=1, help="Chapters at a time; one thread each."),
]
CORES = os.cpu_count() or 1


def chapters(preset: Preset = "default") -> None:
    """List the chapters: what they do, their parameters, and how fresh their last run is."""
    from rich.table import Table

    from genamp_lib.book import run as runs

    root, known, parameters = _load(preset)
    jobs, records = runs.plan_jobs(root, known, parameters, preset)
    stale = {job.chapter.name: "; ".join(job.reasons) for job in jobs}
    table = Table("Chapter", "What it does", "Parameters", "Last run", "State")
    for name, chapter in known.items():
        record = records.get(name) or runs.read_record(runs.run_folder(root, preset, name))
        last = f"{record['started'][:10]}, {record['wall_seconds']} s" if record else "-"
        state = f"stale: {stale[name]}" if record and name in stale else stale.get(name, "fresh")
        names = ", ".join(chapter.parameters)
        table.add_row(name, chapter.summary, names, last, state)
    _console().print(table)


def run(
    name: Annotated[str, typer.Argument(help="Chapter, by name or number; see `genamp chapters`.")],
    preset: Preset = "default",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="KEY VALUE",
            help="Change a parameter of the chapter; may be given more than once.",
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
    from genamp_lib.book import catalog, site, stale
    from genamp_lib.book import run as runs
    from genamp_lib.book.site import Page
    from genamp_lib.sharing import JOBS_VARIABLE, SCHEDULER_VARIABLE

    if jobs > 1 and scheduler is not None:
        raise GenampError("--jobs must not be given together with --scheduler")
    sharing = {JOBS_VARIABLE: str(jobs)}
    if scheduler is not None:
        sharing[SCHEDULER_VARIABLE] = scheduler
    from genamp_lib.cli.data import prepare_source

    root, known, parameters = _load(preset)
    chapter = catalog.find_chapter(known, name)
    given = _pairs(parameter or [])
    resolved = prepare_source(chapter, chapter.resolve({**parameters[chapter.name], **given}))
    changed = {name: resolved[name] for name in given}
    if changed:
        folder = runs.custom_folder(root, preset, chapter, changed)
        lock = folder.with_name(f"{folder.name}.lock")
    else:
        folder = runs.run_folder(root, preset, chapter.name)
        lock = _build_lock(root, preset)
    stale.fingerprint(chapter, resolved)  # a missing sample ends here
    job = runs.Job(
        chapter=chapter,
        parameters=resolved,
        preset=preset,
        folder=folder,
        fresh=fresh or preset in runs.FRESH_PRESETS,
        reasons=("asked for",),
        changed=changed,
    )
    with _lock(lock):
        run_or_exit(root, [job], 1, sharing)
        if publish:
            for path in runs.publish_artefacts(root, folder):
                typer.echo(f"artefact: {path.relative_to(root)}")
        _print_results(folder)
        if not changed:
            typer.echo("The site shows it after `genamp build`.")
            return
        jobs, records = runs.plan_jobs(root, known, parameters, preset)
        pages = _pages(root, preset, {n: c for n, c in known.items() if n in records})
        pages |= {j.chapter.name: Page(j.chapter, None) for j in jobs}
        pages[chapter.name] = Page(chapter, folder)
        site.build_site(root, dict(sorted(pages.items())), folder / "site", strict=False)
        page = folder / "site" / "chapters" / f"{chapter.name}.html"
        typer.echo(f"page: {page.relative_to(root)}")


def build(preset: Preset = "default", jobs: Jobs = CORES) -> None:
    """Run the chapters that are stale, then write the site.

    A chapter is stale when its code cells, its parameters, the library, its event samples or the
    installed versions changed; not when its prose changed.
    """
    from genamp_lib.book import run as runs
    from genamp_lib.book import site

    root, known, parameters = _load(preset)
    with _lock(_build_lock(root, preset)):
        todo, records = runs.plan_jobs(root, known, parameters, preset)
        for name in records:
            typer.echo(f"{name}: up to date")
        for job in todo:
            typer.echo(f"{job.chapter.name}: to run, {'; '.join(job.reasons)}")
        run_or_exit(root, todo, jobs)
        try:
            rendered = site.build_site(
                root, _pages(root, preset, known), site.site_folder(root, preset)
            )
        except site.SiteError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
    index = site.site_folder(root, preset) / "index.html"
    typer.echo(f"site{'' if rendered else ' (unchanged)'}: {index.relative_to(root)}")


def serve(
    preset: Preset = "default",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
) -> None:
    """Serve the built site on this machine, so that its search works too."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from genamp_lib.book import site

    folder = site.site_folder(project_root(), preset)
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
        Path | None, typer.Option(help="Write the headline table into this README.")
    ] = None,
) -> None:
    """Print every number of the papers beside ours, with a computed verdict."""
    from rich.table import Table

    from genamp_lib.book import scoreboard as board
    from genamp_lib.book import site as pages_module

    root, known, _ = _load(preset)
    results = pages_module.all_results(_pages(root, preset, known))
    rows: list[Row] = board.compare(board.load_paper_numbers(root), results)
    if readme is not None:
        missing = [row.paper.id for row in rows if row.paper.headline and row.ours is None]
        if missing:
            raise GenampError(f"`{missing[0]}` has not been run; run `genamp build` first")
        changed = board.update_readme(readme, rows)
        typer.echo(f"{readme}: {'updated' if changed else 'up to date'}")
        return
    if json_output:
        typer.echo(json.dumps([row.to_dict() for row in rows], indent=2))
        return
    table = Table("Quantity", "Paper", "Ours", "Verdict", "Why")
    for row in rows:
        ours = "" if row.ours is None else row.ours.text
        where = f"{row.paper.text}\n{row.paper.paper}, {row.paper.where}"
        table.add_row(row.paper.quantity, where, ours, row.verdict, row.reason)
    _console().print(table)


def _load(preset: str) -> tuple[Path, dict[str, Chapter], dict[str, dict[str, Any]]]:
    from genamp_lib.book import catalog

    root = project_root()
    known = catalog.load_chapters(root)
    return root, known, catalog.load_preset(root, preset, known)


def _pages(root: Path, preset: str, known: Mapping[str, Chapter]) -> dict[str, Page]:
    from genamp_lib.book import run as runs
    from genamp_lib.book.site import Page

    folders = {name: runs.run_folder(root, preset, name) for name in known}
    return {
        name: Page(chapter, folders[name] if runs.read_record(folders[name]) else None)
        for name, chapter in known.items()
    }


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise GenampError(f"`-p` needs a name and a value, got `{text}`; -p n_train 2000")
    return dict(text.split("=", 1) for text in texts)


def _print_results(folder: Path) -> None:
    from rich.table import Table

    from genamp_lib.book.results import read_results

    table = Table("Result", "Value [interval]", "Meaning")
    for result in read_results(folder / "results.json").values():
        table.add_row(result.name, result.text, result.meaning)
    _console().print(table)
    typer.echo(f"run: {folder}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise GenampError(
            f"another genamp is at work here ({path.name}); wait for it or stop it"
        ) from error


def _build_lock(root: Path, preset: str) -> Path:
    return root / "_build" / f"build-{preset}.lock"


def _console() -> Any:
    from rich.console import Console

    return Console()
