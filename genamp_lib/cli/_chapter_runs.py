"""Run chapters with progress on the terminal. Not for choosing which ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:  # these imports cost a second; the commands load them when they run
    from genamp_lib.chapters.plan import Job


def run_or_exit(
    root: Path, todo: list[Job], n_parallel: int, sharing: Mapping[str, str] | None = None
) -> None:
    """Run jobs with progress; print failures and exit with 1 when there are any."""
    from genamp_lib.chapters import plan, runs

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
        seconds = plan.read_record(job.folder)["wall_seconds"]
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

    from genamp_lib.chapters import plan

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
            record = plan.read_record(plan.run_folder(root, job.preset, job.chapter.name))
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
