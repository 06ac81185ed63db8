"""One chapter on a grid of parameters: a table of all results, and a figure of any of them.

Each point is a run of its own, kept like one with `genamp run -p`; what was run is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from genamp_lib._project import GenampError, replace_file, sha256_of_text
from genamp_lib.book.catalog import choices, shown
from genamp_lib.book.results import read_run
from genamp_lib.book.run import (
    ChapterFailed,
    Job,
    locked,
    open_book,
    plan_run,
    run_jobs,
    sharing_variables,
)
from genamp_lib.datasets.public import fetch_public


@dataclass(frozen=True)
class Grid:
    """The points of a sweep, all checked, and where its table goes."""

    names: tuple[str, ...]  # of the parameters that are given
    jobs: tuple[Job, ...]  # one per point, also of those that are there
    table: Path

    @property
    def todo(self) -> list[Job]:
        """The points that have not been run, or whose runs no longer hold."""
        return [job for job in self.jobs if job.reasons]


def sweep(
    name: str,
    values: Mapping[str, Any],
    *,
    preset: str = "default",
    jobs: int = 1,
    scheduler: str | None = None,
) -> Path:
    """Run a chapter on a grid and return the path of its table of results (CSV, a row for each).

    Args:
        name: Name or number of the chapter.
        values: Values of each parameter: a list, or a text as the command line takes it.
        preset: Preset that the other parameters are from.
        jobs: Points that are run at a time.
        scheduler: Address of a Dask scheduler with which the points share their work.

    Raises:
        ChapterFailed: Some points failed; the others are kept and are in the table.
    """
    return run_sweep(plan_sweep(name, values, preset=preset), jobs=jobs, scheduler=scheduler)


def plan_sweep(
    name: str,
    values: Mapping[str, Any],
    *,
    preset: str = "default",
    fetch: Callable[[str], Any] = fetch_public,
) -> Grid:
    """Check a grid, all of its points, and return it."""
    book = open_book(preset)
    chapter = book.find(name)
    chapter.resolve(dict.fromkeys(values.keys() - chapter.parameters.keys()))  # names them
    lists = [_split(text, chapter.parameters[key].annotation) for key, text in values.items()]
    jobs: dict[Path, Job] = {}
    for point in product(*lists):
        given = dict(zip(values, point, strict=True))
        job = plan_run(book, chapter, given, fetch=fetch)
        jobs[job.folder] = job
    if not values or not jobs:
        raise GenampError("a sweep needs values of a parameter, as in -p n_train 100,1000")
    label = sha256_of_text(repr([str(folder) for folder in jobs]))[:8]
    table = book.root / "_build" / "sweeps" / preset / chapter.name
    return Grid(tuple(values), tuple(jobs.values()), table / f"{'_'.join(values)}-{label}.csv")


def _split(values: Any, annotation: str) -> list[Any]:
    if not isinstance(values, str):
        values = values.tolist() if hasattr(values, "tolist") else values  # of numpy
        return list(values) if isinstance(values, Sequence) else [values]
    return [text.strip() for text in values.split(";" if annotation.startswith("list") else ",")]


def run_sweep(
    grid: Grid,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    ended: Callable[[Job, str | None], Any] = lambda job, failure: None,
) -> Path:
    """Run what is left of a grid, write the table of all results and return its path."""
    with ExitStack() as locks:
        for job in grid.todo:
            locks.enter_context(locked(job.folder))
        sharing = sharing_variables(1, scheduler)
        failures = run_jobs(grid.todo, n_parallel=jobs, sharing=sharing, ended=ended)
        _write_table(grid)
    if failures:
        raise ChapterFailed("\n".join([*failures.values(), f"table of the others: {grid.table}"]))
    return grid.table


def _write_table(grid: Grid) -> None:
    import pandas as pd

    rows = []
    base = grid.jobs[0].book.root / "_build" / "runs"
    for job in grid.jobs:
        run = read_run(job.folder)
        point = {name: shown(job.parameters[name]) for name in grid.names}
        for result in run.results.values() if run else ():
            low, high = result.interval or (None, None)
            about = {"confidence": result.confidence, "unit": result.unit}
            about |= {"meaning": result.meaning, "run": f"{job.folder.relative_to(base)}"}
            rows.append(
                {**point, "result": result.name, "value": result.value, "low": low, "high": high}
                | about
            )
    with replace_file(grid.table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def draw(table: Path, result: str, over: str) -> Path:
    """Draw a result of a sweep over one of its parameters, with intervals; return the figure."""
    import pandas as pd

    from genamp_lib.plotting.sweep import plot_sweep

    rows = pd.read_csv(table)
    names = list(rows.columns[: rows.columns.get_loc("result")])
    if result not in set(rows["result"]):
        known = choices(result, rows["result"].unique())
        raise GenampError(f"no result `{result}` in {table.name}; {known}")
    rows = rows[rows["result"] == result]
    others = [name for name in names if name != over]
    axes = None
    for point, line in rows.groupby(others) if others else [((), rows)]:
        label = ", ".join(f"{key} = {value}" for key, value in zip(others, point, strict=True))
        columns = (line[key].to_numpy() for key in (over, "value", "low", "high"))
        axes = plot_sweep(*columns, label=label, xlabel=over, ylabel=result, ax=axes)
    path = table.with_name(f"{table.stem}-{result}-over-{over}.svg")
    with replace_file(path) as temporary:
        axes.figure.savefig(temporary)
    return path
