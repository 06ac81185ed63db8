"""What chapters cost: a dry run of one, and what to expect of the next run from the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from genamp_lib._project import read_json
from genamp_lib.book.results import read_record
from genamp_lib.book.run import ChapterFailed, Job, change_parameters, kernel_environment
from genamp_lib.dry_run import VARIABLE


@dataclass(frozen=True)
class StageCost:
    """What one heavy stage of a chapter costs on one core of this machine.

    Attributes:
        stage: Name of the stage.
        tasks: Number of tasks that processes or machines can share.
        seconds: Time of all tasks.
        measured: Part of `seconds` that is in the records of kept artefacts, not estimated.
        peak: Memory of the process at most, up to the end of this stage, in bytes.
        bytes: Size of what is kept.
    """

    stage: str
    tasks: int
    seconds: float
    measured: float
    peak: int
    bytes: int


@dataclass(frozen=True)
class ChapterCost:
    """Cost of a chapter, and the code cells that failed, as they may with unfinished results."""

    stages: Sequence[StageCost]
    failed: Sequence[str]


def dry_run(job: Job) -> ChapterCost:
    """Take the first steps of all stages of a chapter and say what the whole costs.

    Args:
        job: Chapter and parameters, as `plan_run` gives them.

    Returns:
        Costs in the order in which the stages begin. Stages of one name are one row; the last row
        is the rest of the chapter. Nothing is written but in a temporary folder.

    Raises:
        ChapterFailed: The kernel died.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one of the user's
    notebook = jupytext.read(job.chapter.path)
    if job.overrides:
        change_parameters(notebook, job.overrides)
    last = "from genamp_lib.dry_run import note_rest\n\nnote_rest()"
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    with TemporaryDirectory() as name, open(os.devnull, "w") as nowhere:
        folder = Path(name)
        rows = folder / "stages.jsonl"
        environment = kernel_environment(job, folder, **{VARIABLE: str(rows)})
        options = {"cwd": job.book.root, "env": environment, "stdout": nowhere, "stderr": nowhere}
        client = NotebookClient(notebook, kernel_name="python3", allow_errors=True)
        try:
            client.execute(**options)
        except DeadKernelError as error:
            raise ChapterFailed(
                f"{job.chapter.name}: the kernel died in its dry run ({error}); out of memory?"
            ) from error
        lines = rows.read_text(encoding="utf-8").splitlines()
    merged: dict[str, StageCost] = {}
    for one in (StageCost(**json.loads(line)) for line in lines):
        merged[one.stage] = (
            _sum(one.stage, [merged[one.stage], one]) if one.stage in merged else one
        )
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [
        f"code cell {number}: {output.ename}: {' '.join(output.evalue.split())}"
        for number, cell in enumerate(cells, start=1)
        for output in cell.outputs
        if output.output_type == "error"
    ]
    return ChapterCost(list(merged.values()), errors)


def expected_seconds(job: Job) -> float | None:
    """Return how long a run will take, by the last one; None where there was none.

    Args:
        job: Chapter and parameters; a run with parameters of its own that is the first of its kind
            goes by that of the preset. A fresh run computes what the last one read, and takes the
            time that is in the records of these artefacts besides.
    """
    record = read_record(job.folder) or read_record(job.book.folder(job.chapter.name))
    if record is None:
        return None
    seconds = record["wall_seconds"]
    if job.fresh and not record["fresh"]:
        folders = [job.book.root / "data" / "artefacts", job.book.root / "_build" / "artefacts"]
        names = [f"{one['artefact']}.json" for one in record["artefacts"]]
        paths = [folder / name for name in names for folder in folders]
        seconds += sum(read_json(path).get("wall_seconds", 0.0) for path in paths if path.exists())
    return seconds


def total(costs: Sequence[ChapterCost]) -> StageCost:
    """Return the cost of chapters that run one after the other."""
    return _sum("total", [stage for cost in costs for stage in cost.stages])


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> [duration(seconds) for seconds in (12.3, 300, 9000)]
    ['12 s', '5 min', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _sum(name: str, stages: Sequence[StageCost]) -> StageCost:
    added = (
        sum(getattr(one, field) for one in stages) for field in ("tasks", "seconds", "measured")
    )
    return StageCost(
        name, *added, max((one.peak for one in stages), default=0), sum(one.bytes for one in stages)
    )
