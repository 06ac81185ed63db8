"""Which chapters must be run, why, and where their runs are kept. Runs nothing: runs.

A run is a folder: source.md, notebook.ipynb, results.json, log.txt and, written last, record.json.

Execute one chapter in a process of its own: `python -m genamp_lib.book.run FOLDER`.

The folder holds source.md and request.json; it receives notebook.ipynb, the chapter's results.json
and outcome.json. Prints a line of JSON per cell for the parent's progress. Not for deciding what to
run: runs.

Run chapters in parallel and keep what came out, whole or not at all.

A run is made under a temporary name and renamed when the chapter succeeded. Not for deciding what
to run (plan), nor for drawing pages (pages, site).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_file,
    replace_folder,
    sha256_of_file,
    write_json,
)
from genamp_lib.book.catalog import Chapter
from genamp_lib.book.results import PRESET_VARIABLE, RUN_FOLDER_VARIABLE
from genamp_lib.book.stale import Fingerprint, changes, fingerprint
from genamp_lib.store import FRESH_VARIABLE

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Failure:
    """A chapter that did not run to its end: which cell, what error, where to look."""

    job: Job
    error: str
    cell: int | None
    source: str
    folder: Path

    def __str__(self) -> str:
        where = "" if self.cell is None else f", code cell {self.cell}"
        lines = [f"{self.job.chapter.name}{where}: {self.error}"]
        lines += [f"    {line}" for line in self.source.strip().splitlines()[:12]]
        lines.append(f"  the whole notebook and its traceback: {self.folder}")
        return "\n".join(lines)


def run_jobs(
    root: Path,
    jobs: Sequence[Job],
    *,
    n_parallel: int,
    report: Report,
    sharing: Mapping[str, str] | None = None,
) -> tuple[list[Job], list[Failure]]:
    """Run jobs, `n_parallel` at a time with one thread each; keep each as soon as it is done.

    Args:
        root: Project folder.
        jobs: What to run.
        n_parallel: Processes at a time.
        report: Called with (job, cells begun, cells) from several threads.
        sharing: Environment variables that tell the jobs with whom to share their own work.

    Returns:
        The jobs that succeeded and the failures. On Ctrl-C the children are ended first.
    """
    processes: list[subprocess.Popen] = []
    stopped = threading.Event()
    done, failures = [], []
    pool = ThreadPoolExecutor(max(1, n_parallel))
    try:
        run = partial(_run, root, report, processes, stopped, sharing or {})
        futures = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(futures):
            failure = future.result()
            done.append(futures[future]) if failure is None else failures.append(failure)
    except BaseException:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return done, failures


def _run(
    root: Path,
    report: Report,
    processes: list,
    stopped: threading.Event,
    sharing: Mapping[str, str],
    job: Job,
) -> Failure | None:
    """Run one job in a child process; return what went wrong."""
    now = fingerprint(job.chapter, job.parameters)
    # A killed run may still be writing for a moment: never work in a folder that was its own.
    for leftover in job.folder.parent.glob(f".{job.folder.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = job.folder.with_name(f".{job.folder.name}.partial-{os.getpid()}")
    folder.mkdir(parents=True)
    shutil.copyfile(job.chapter.path, folder / "source.md")
    write_json(folder / "request.json", {"root": str(root), "overrides": job.overrides})
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    environment = {
        **os.environ,
        **dict.fromkeys(_THREADS, "1"),
        **sharing,
        RUN_FOLDER_VARIABLE: str(folder),
        PRESET_VARIABLE: job.preset,
        FRESH_VARIABLE: "1" if job.fresh else "0",
        "IPYTHONDIR": str(folder / "ipython"),  # nobody's own IPython settings
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures go into the notebook
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "genamp_lib.book.run", str(folder)],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its children
        )
        processes.append(process)
        for line in process.stdout or ():
            event = _event(line)
            if event:
                report(job, event["cell"], event["cells"])
        process.wait()
    if stopped.is_set():  # ended by us: neither a success nor a failure of the chapter
        shutil.rmtree(folder, ignore_errors=True)
        return None
    failure = _failure(job, folder, process.returncode)
    if failure is None:
        _write_record(root, job, folder, started, now)
        for leftover in ("request.json", "outcome.json"):
            (folder / leftover).unlink()
        shutil.rmtree(folder / "ipython", ignore_errors=True)
        replace_folder(folder, job.folder)
        shutil.rmtree(_failed(job), ignore_errors=True)
    return failure


def _event(line: str) -> dict[str, int] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "cell" in event else None


def _failure(job: Job, folder: Path, returncode: int) -> Failure | None:
    if (folder / "outcome.json").exists():
        outcome = read_json(folder / "outcome.json")["failure"]
    else:
        outcome = {"error": f"its process ended with exit code {returncode}; see log.txt"}
    if outcome is None:
        return None
    kept = _failed(job)
    replace_folder(folder, kept)
    if "traceback" in outcome:
        (kept / "traceback.txt").write_text("\n".join(outcome["traceback"]), encoding="utf-8")
    return Failure(job, outcome["error"], outcome.get("cell"), outcome.get("source", ""), kept)


def _failed(job: Job) -> Path:
    return job.folder.with_name(f"{job.folder.name}.failed")


def _write_record(root: Path, job: Job, folder: Path, started: str, now: Fingerprint) -> None:
    results = read_json(folder / "results.json")
    record = {
        "chapter": job.chapter.name,
        "preset": job.preset,
        "overrides": job.overrides,
        "changed": dict(job.changed),
        "fresh": job.fresh,
        "seed": results["seed"],
        "started": started,
        "wall_seconds": read_json(folder / "outcome.json")["wall_seconds"],
        "revision": source_revision(root),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "artefacts": results["artefacts"],
        "fingerprint": now.to_dict(),
    }
    write_json(folder / "record.json", record)


def source_revision(root: Path) -> str:
    """Return the git revision of the sources, marked when they differ from it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=, changed", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(folder: Path) -> int:
    """Execute the chapter in `folder`; return 0, or 1 with the failure in outcome.json."""
    _end_with_parent()
    request = read_json(folder / "request.json")
    notebook = jupytext.read(folder / "source.md")
    _report_cells(sum(cell.cell_type == "code" for cell in notebook.cells))
    start = time.perf_counter()
    failure = _execute(notebook, folder / "notebook.ipynb", request)
    if failure is None and not (folder / "results.json").exists():
        failure = {"error": "the chapter wrote no results: its last cell must call results.write()"}
    if (folder / "notebook.ipynb").exists():
        _clean(folder / "notebook.ipynb")
    seconds = round(time.perf_counter() - start, 1)
    write_json(folder / "outcome.json", {"failure": failure, "wall_seconds": seconds})
    return 0 if failure is None else 1


def _execute(notebook: NotebookNode, path: Path, request: dict[str, Any]) -> dict | None:
    try:
        papermill.execute_notebook(
            notebook,
            path,
            parameters=request["overrides"],
            kernel_name="python3",
            cwd=request["root"],
            progress_bar=False,
            log_output=True,
            request_save_on_cell_execute=False,
        )
    except papermill.PapermillExecutionError as error:
        return {
            "cell": error.exec_count,
            "source": error.source,
            "error": f"{error.ename}: {error.evalue}",
            "traceback": [_plain(line) for line in error.traceback],
        }
    except DeadKernelError as error:
        return {"error": f"the kernel died ({error}); out of memory?"}
    return None


def _clean(path: Path) -> None:
    """Drop what differs between two runs of the same numbers."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"\A# Parameters\n", "# Changed for this run\n", cell.source)
    with replace_file(path) as temporary:
        nbformat.write(notebook, temporary)


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def _report_cells(total: int) -> None:
    """Turn papermill's log into one line of JSON per executed code cell."""

    class Reporter(logging.Handler):
        done = 0

        def emit(self, record: logging.LogRecord) -> None:
            if "Executing Cell" in record.getMessage():
                Reporter.done += 1
                print(json.dumps({"cell": Reporter.done, "cells": total}), flush=True)

    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.addHandler(Reporter())
    logger.propagate = False


def _end_with_parent() -> None:
    """End this process, and by nbclient's handler its kernel, when the parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))


# Presets that compute everything from scratch.
FRESH_PRESETS = ("smoke",)


@dataclass(frozen=True)
class Job:
    """One chapter that is to be run.

    Attributes:
        chapter: What to run.
        parameters: All its parameters.
        preset: Name of the preset that they started from.
        folder: Where the run goes.
        fresh: Ignore artefacts.
        reasons: Why it is run.
        changed: What a user changed against the preset, by name; empty for a preset's own run.
    """

    chapter: Chapter
    parameters: Mapping[str, Any]
    preset: str
    folder: Path
    fresh: bool
    reasons: tuple[str, ...]
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters that differ from the notebook's own."""
        defaults = self.chapter.parameters
        return {k: v for k, v in self.parameters.items() if v != defaults[k].default}


Report = Callable[[Job, int, int], None]


def run_folder(root: Path, preset: str, chapter: str) -> Path:
    """Return the folder of the last good run of a chapter under a preset."""
    return root / "_build" / "runs" / preset / chapter


def custom_folder(root: Path, preset: str, chapter: Chapter, overrides: Mapping[str, Any]) -> Path:
    """Return a folder of its own for a run with changed parameters, named after them."""
    label = "_".join(f"{key}-{value}" for key, value in sorted(overrides.items()))
    label = re.sub(r"[^\w.,-]", "", label)
    if len(label) > 60:
        label = f"{label[:50]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return root / "_build" / "runs" / f"custom-{preset}" / chapter.name / label


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run in `folder`, or None when there is no whole run."""
    recover_folder(folder)
    if not (folder / "record.json").exists():
        return None
    try:
        return read_json(folder / "record.json")
    except GenampError:
        return None


def plan_jobs(
    root: Path, chapters: Mapping[str, Chapter], parameters: Mapping[str, dict], preset: str
) -> tuple[list[Job], dict[str, dict[str, Any]]]:
    """Split the chapters into those that must be run and those whose last run still holds.

    Args:
        root: Project folder.
        chapters: As from `load_chapters`.
        parameters: As from `load_preset`.
        preset: Name of the preset.

    Returns:
        The jobs with their reasons, and the records of the runs that hold, by chapter.

    Raises:
        GenampError: A sample is missing.
    """
    jobs, fresh_records = [], {}
    for name, chapter in chapters.items():
        folder = run_folder(root, preset, name)
        now = fingerprint(chapter, parameters[name])
        record = read_record(folder)
        reasons = ["never run"] if record is None else _reasons(root, record, now, folder)
        if record is not None and not reasons:
            fresh_records[name] = record
        else:
            job = Job(
                chapter, parameters[name], preset, folder, preset in FRESH_PRESETS, tuple(reasons)
            )
            jobs.append(job)
    return jobs, fresh_records


def _reasons(root: Path, record: Mapping[str, Any], now: Fingerprint, folder: Path) -> list[str]:
    if not all((folder / name).exists() for name in ("notebook.ipynb", "results.json")):
        return ["its last run is incomplete"]
    return changes(record.get("fingerprint", {}), now) + [
        f"artefact {artefact['artefact']} changed"
        for artefact in record.get("artefacts", [])
        if artefact["origin"] == "published" and not _is_published(root, artefact)
    ]


def _is_published(root: Path, artefact: Mapping[str, str]) -> bool:
    path = root / "data" / "artefacts" / f"{artefact['artefact']}.safetensors"
    return path.exists() and sha256_of_file(path) == artefact["sha256"]


def publish_artefacts(root: Path, folder: Path) -> list[Path]:
    """Copy the artefacts that a run computed into data/artefacts and return their paths.

    Args:
        root: Project folder.
        folder: The run.
    """
    published = []
    for artefact in read_json(folder / "record.json")["artefacts"]:
        if artefact["origin"] == "published":
            continue
        for suffix in (".safetensors", ".json"):
            source = root / "_build" / "artefacts" / f"{artefact['artefact']}{suffix}"
            target = root / "data" / "artefacts" / source.name
            with replace_file(target) as temporary:
                shutil.copyfile(source, temporary)
            published.append(target)
    return published
