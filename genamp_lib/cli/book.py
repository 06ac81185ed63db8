"""`genamp chapters | run | build | export | ...`: the commands around the book."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError, install_hint, project_root, write_json

if TYPE_CHECKING:
    from genamp_lib.book.cost import StageCost
    from genamp_lib.book.run import Job


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
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        metavar="KEY VALUE",
        help="Change a parameter of the chapter; may be given more than once.",
        autocompletion=_complete_parameter,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Dask scheduler to share trainings with, as tcp://host:8786."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Keep nothing; say what all costs, from the first steps of every heavy stage.",
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
        if preset != "default" and book.parameters[key] == chapter.resolve({}):
            state += f"; {preset} changes none of its parameters"
        typer.echo(f"{key}: {state}{last}\n    {chapter.summary}")
    for problem in book.problems.values():
        typer.echo(problem, err=True)
    typer.echo("\nParameters of a chapter: genamp chapters NAME")


def run(
    name: Name,
    preset: Preset = "default",
    parameter: Parameters = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all; read no artefact.")] = False,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Draw the page of a run with -p.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Copy the artefacts that it computed to data/artefacts."),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, help="Processes that share trainings; same numbers."),
    ] = 1,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
) -> None:
    """Run one chapter, with other parameters if you like.

    Without -p the published run of the preset is replaced. With -p the run gets a folder and a page
    of its own and the published one stays as it is.

    Example: genamp run 01_gaussian_1d -p n_train 2000 -p upper 1.0

    Chapters that read event samples have the parameter `source`: shipped, public (fetched if need
    be), or the path of a file, or of a folder with one per sample, as jets_gluon.h5.
    """
    from genamp_lib._project import read_json
    from genamp_lib.book.results import read_results
    from genamp_lib.book.run import open_book, plan_run, publish_artefacts, rerun
    from genamp_lib.cli.data import fetch_with_bar

    given = _pairs(parameter)
    if dry_run:
        others = {"--publish": publish, "--json": json_output, "--jobs": jobs > 1}
        for option, is_given in {**others, "--scheduler": scheduler}.items():
            if is_given:
                raise GenampError(f"--dry-run must not be given together with {option}")
        book = open_book(preset)
        job = plan_run(book, book.find(name), given, fresh=fresh, fetch=fetch_with_bar)
        _print_costs([job])
        return
    options = {"jobs": jobs, "scheduler": scheduler, "fetch": fetch_with_bar, "page": page}
    if not json_output:
        options["begin"] = _foretell
    with _stoppable():
        folder = rerun(name, given, preset=preset, fresh=fresh, **options)
    for path in publish_artefacts(folder) if publish else ():
        typer.echo(f"artefact: {path.name}", err=json_output)
    if json_output:
        content = {"folder": str(folder), **read_json(folder / "results.json")}
        typer.echo(json.dumps(content, indent=2))
        return
    results = read_results(folder / "results.json").values()
    _print_table(
        ("Result", "Value [interval]", "Meaning"), ((r.name, r.text, r.meaning) for r in results)
    )
    typer.echo(f"run: {folder}")
    html = folder / "site" / "chapters" / f"{folder.parent.name}.html"
    if not given:
        typer.echo("The site shows it after `genamp build`.")
    elif page:
        typer.echo(f"page: {html}")


def sweep(
    name: Name,
    parameter: Parameters = None,
    preset: Preset = "default",
    plot: Annotated[
        str | None, typer.Option(metavar="RESULT", help="Draw this result over a parameter.")
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(metavar="PARAMETER", help="Parameter on the axis; by default the first."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Points at a time.")] = CORES,
    scheduler: Scheduler = None,
) -> None:
    """Run a chapter on a grid of parameters: one table of all results with their intervals.

    Values of a parameter are separated by commas, those that are lists by semicolons. A killed
    sweep continues when called again, and what was run before is not run again.

    Example: genamp sweep 01_gaussian_1d -p n_train 100,1000,10000 -p upper 0.5,1 --plot g_linear
    """
    from genamp_lib.book.sweep import draw, plan_sweep, run_sweep
    from genamp_lib.cli.data import fetch_with_bar

    grid = plan_sweep(name, _pairs(parameter), preset=preset, fetch=fetch_with_bar)
    if over is not None and over not in grid.names:
        raise GenampError(f"--over must be a parameter of -p, got {over}; {', '.join(grid.names)}")
    typer.echo(f"{len(grid.jobs)} points, {len(grid.todo)} to run")
    with _stoppable():
        table = run_sweep(grid, jobs=jobs, scheduler=scheduler, ended=_say)
    typer.echo(f"table: {table}")
    if plot is not None:
        typer.echo(f"figure: {draw(table, plot, over or grid.names[0])}")


runs = typer.Typer(help="Your own runs: list, compare, remove.", invoke_without_command=True)
OwnRun = Annotated[list[str], typer.Argument(help="Runs, as `genamp runs` lists them.")]


@runs.callback()
def list_command(context: typer.Context) -> None:
    """List your own runs: those with -p, and the points of sweeps."""
    if context.invoked_subcommand is None:
        from genamp_lib.book.results import list_runs

        for key, one in list_runs(project_root()).items():
            started, seconds = one.record["started"], one.record["wall_seconds"]
            typer.echo(f"{key}: {started}, {seconds} s, {len(one.results)} results")


@runs.command("compare")
def compare_command(names: OwnRun) -> None:
    """Set the results of runs side by side; default/CHAPTER is the published one."""
    from genamp_lib.book.results import find_run

    found = [find_run(project_root(), name) for name in names]
    keys = dict.fromkeys(key for one in found for key in one.results)
    rows = (
        (key, *(one.results[key].text if key in one.results else "-" for one in found))
        for key in keys
    )
    _print_table(("Result", *names), rows)


@runs.command("remove")
def remove_command(names: OwnRun) -> None:
    """Remove runs of your own, with their pages."""
    from genamp_lib.book.results import find_run
    from genamp_lib.book.run import locked, remove_run

    folders = [find_run(project_root(), name, own=True).folder for name in names]
    for name, folder in zip(names, folders, strict=True):
        with locked(folder):
            remove_run(folder)
        typer.echo(f"{name}: removed")


def build(
    preset: Preset = "default",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Chapters at a time; one thread each.")
    ] = CORES,
    dry_run: DryRun = False,
    sources: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the site's sources there for another builder; draw nothing.",
        ),
    ] = None,
) -> None:
    """Run the chapters that are stale, then write the site.

    A chapter is stale when its code cells, its parameters, the library, its event samples or the
    installed versions changed; not when its prose changed.
    """
    from genamp_lib.book.cost import duration, expected_seconds
    from genamp_lib.book.run import ChapterFailed, open_book, plan_jobs, plan_run, run_jobs
    from genamp_lib.book.site import build_site, site_folder, stage_sources

    if sources is not None and sources.exists():
        raise GenampError(f"{sources}: exists; remove it, or give another folder as --sources")
    if sources is not None and not sources.parent.is_dir():
        raise GenampError(f"{sources.parent}: is no folder; make it")
    book = open_book(preset)
    if dry_run:
        planned, problems = [], [*book.problems.values()]
        for name, chapter in book.chapters.items():
            try:
                planned.append(plan_run(book, chapter, {}))
            except GenampError as error:  # a missing sample
                problems.append(f"{name}: {error}")
        _print_costs(planned, problems)
        return
    with book.lock():
        todo = {job.chapter.name: job for job in plan_jobs(book)}
        for name in book.chapters:
            reasons = "; ".join(todo[name].reasons) if name in todo else ""
            seconds = expected_seconds(todo[name]) if reasons else None
            before = f"; about {duration(seconds)}, as last time" if seconds else ""
            typer.echo(f"{name}: to run, {reasons}{before}" if reasons else f"{name}: up to date")
        runnable = [job for job in todo.values() if not job.problem]
        known = [seconds for job in runnable if (seconds := expected_seconds(job))]
        if known:
            others = len(runnable) - len(known)
            more = f", and {others} that never ran" if others else ""
            longest = max(max(known), sum(known) / jobs)
            typer.echo(f"chapters: about {duration(longest)}{more}; then the site is drawn")
        with _stoppable():
            failures = run_jobs(runnable, n_parallel=jobs, ended=_say)
        problems = [*book.problems.values(), *(j.problem for j in todo.values() if j.problem)]
        if problems or failures:
            kind = ChapterFailed if failures else GenampError
            raise kind("\n".join([*problems, *failures.values()]))
        if sources is not None:
            stage_sources(book.root, book.chapters, book.runs(), sources)
            typer.echo(f"sources: {sources}")
            return
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


def lab(name: Name) -> None:
    """Open a chapter in JupyterLab, as a notebook, with one thread as the book was computed.

    What is saved there stays a text file with its header. Ctrl-C ends it.

    Example: genamp lab 01_gaussian_1d
    """
    from importlib.util import find_spec

    from genamp_lib.book.run import ONE_THREAD, open_book

    path = open_book().find(name).path
    if find_spec("jupyterlab") is None:
        raise GenampError(f"`jupyterlab` is not installed; {install_hint('book', 'jupyterlab')}")
    root = project_root()
    page = f"/lab/tree/{path.relative_to(root).as_posix()}"
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    with TemporaryDirectory() as folder:  # of settings: text notebooks open as notebooks
        viewers = dict.fromkeys(("markdown", "myst"), "Jupytext Notebook")
        settings = {"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": viewers}}
        write_json(Path(folder) / "labconfig" / "default_setting_overrides.json", settings)
        where = os.pathsep.join(filter(None, (folder, os.environ.get("JUPYTER_CONFIG_PATH"))))
        environment = {**os.environ, **ONE_THREAD, "JUPYTER_CONFIG_PATH": where}
        done = subprocess.run([*command, f"--LabApp.default_url={page}"], env=environment)
    raise typer.Exit(done.returncode)


def export(
    name: Annotated[
        str,
        typer.Argument(
            help="Chapter, by name or number; or `book`, with --pdf.",
            autocompletion=_complete_chapter,
        ),
    ],
    student: Annotated[
        bool, typer.Option("--student", help="Notebook without solutions and outputs.")
    ] = False,
    instructor: Annotated[
        bool, typer.Option("--instructor", help="Notebook with solutions, outputs and notes.")
    ] = False,
    slides: Annotated[
        bool, typer.Option("--slides", help="Findings and figures, one HTML file.")
    ] = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="The page, or the whole book, on paper.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; NAME-KIND by default.")
    ] = None,
    preset: Preset = "default",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Take a chapter into a course: give exactly one of the four kinds.

    A student's notebook runs from top to bottom in any folder, once `pip install -e
    'CLONE[book]'` is done; its cell of parameters can be changed. The instructor's begins with
    plans for 45 and 90 minutes and questions with answers, where book/teaching has them. Slides
    need no network; arrow keys turn them.

    Numbers and figures are those of the last run: call `genamp run NAME` first. A PDF, without
    code and solutions, is printed by Chromium from the site: call `genamp build` first. That of
    `book` has all pages, with a table of contents, and takes a few minutes.

    Examples: genamp export 01 --student; genamp export 6 --slides -o monday.html;
    genamp export book --pdf
    """
    from genamp_lib.book.export import export as write
    from genamp_lib.book.run import open_book
    from genamp_lib.files.outputs import check_outputs

    kinds = {"student": student, "instructor": instructor, "slides": slides, "pdf": pdf}
    given = [kind for kind, is_given in kinds.items() if is_given]
    if len(given) != 1:
        got = " ".join(f"--{kind}" for kind in given) or "none"
        raise GenampError(f"export: exactly one of --{', --'.join(kinds)} must be given, got {got}")
    book = open_book(preset)
    suffix = {"slides": "-slides.html", "pdf": ".pdf"}.get(given[0], f"-{given[0]}.ipynb")
    whole = name == "book"
    if whole and not pdf:
        raise GenampError(f"export: the whole `book` must be given with --pdf, got --{given[0]}")
    name = name if whole else book.find(name).name
    path = output or Path(f"{name}{suffix}")
    check_outputs({"--output": path})
    if path.exists() and not overwrite:
        raise GenampError(f"{path}: exists; remove it, or give --overwrite or another --output")
    if pdf:
        from genamp_lib.book.paper import print_book, print_chapter

        if whole:
            print_book(book.root, preset, path, printed=lambda title: typer.echo(title, err=True))
        else:
            print_chapter(book.root, preset, name, path)
    else:
        write(book, name, given[0], path)
    typer.echo(path)


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


def _pairs(parameters: list[str] | None) -> dict[str, str]:
    for text in parameters or []:
        if "=" not in text:
            raise GenampError(f"`-p` needs a name and a value, got `{text}`; -p n_train 2000")
    return dict(text.split("=", 1) for text in parameters or [])


def _foretell(job: Job) -> None:
    """Say how long a run will take."""
    from genamp_lib.book.cost import duration, expected_seconds

    seconds = expected_seconds(job)
    known = f"about {duration(seconds)}, by its last run" if seconds else "never run here"
    typer.echo(f"{job.chapter.name}: {known}")


def _print_costs(jobs: Sequence[Job], problems: Iterable[str] = ()) -> None:
    """Do dry runs; print a table of each, what all cost, and what stands in the way of a run."""
    from genamp_lib.book import cost

    heads = ("Stage", "Tasks", "Time", "of it measured", "Memory, GB", "Disk, MB")
    found, problems = [], list(problems)
    for job in jobs:
        name, preset = job.chapter.name, job.book.preset
        own = job.chapter.resolve({})
        is_same = preset != "default" and job.book.parameters[name] == own
        typer.echo(f"{name}{': the preset changes nothing, none is needed' if is_same else ''}")
        found.append(cost.dry_run(job))
        stages = found[-1].stages
        rows = [*stages, cost.total(found[-1:])] if len(stages) > 1 else stages
        _print_table(heads, map(_cells, rows))
        if failed := found[-1].failed:
            typer.echo(
                f"{len(failed)} code cells failed, as they may with unfinished results; what needs "
                f"them is not counted. The first: {failed[0]}"
            )
            problems += [f"{name}, {one}" for one in failed if "GenampError" in one]
    if len(found) > 1:
        typer.echo("all chapters")
        _print_table(heads, [_cells(cost.total(found))])
    typer.echo(
        "Time of one core of this machine; --jobs and --scheduler divide that of tasks. Memory is"
        " that of one process."
    )
    if problems:
        raise GenampError("\n".join(problems))


def _cells(stage: StageCost) -> tuple[str, ...]:
    from genamp_lib.book.cost import duration

    times = duration(stage.seconds), duration(stage.measured) if stage.measured else "-"
    sizes = f"{stage.peak / 1e9:.1f}", f"{stage.bytes / 1e6:.1f}"
    return (stage.stage, str(stage.tasks), *times, *sizes)


def _say(job: Job, failure: str | None) -> None:
    """Print a line as a chapter ends, also where the output is redirected."""
    from genamp_lib.book.results import read_record

    changed = " ".join(f"{key}={value}" for key, value in job.changed.items())
    record = None if failure else read_record(job.folder)
    how = f"done in {record['wall_seconds']} s" if record else "failed"
    typer.echo(f"{job.chapter.name}{' ' * bool(changed)}{changed}: {how}")


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
