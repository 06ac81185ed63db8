"""Run chapters in parallel and keep what came out, whole or not at all.

A run is a folder: source.md, notebook.ipynb, results.json, log.txt and, written last, record.json.
It is made under a temporary name and renamed when the chapter succeeded. Not for drawing pages.
"""

from __future__ import annotations

import hashlib
import json
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_file,
    replace_folder,
    write_json,
)
from genamp_lib.chapters.catalog import Chapter
from genamp_lib.chapters.fingerprint import Fingerprint, changes, fingerprint
from genamp_lib.chapters.results import PRESET_VARIABLE, RUN_FOLDER_VARIABLE
from genamp_lib.training.artefacts import FRESH_VARIABLE

# Presets that compute everything from scratch.
FRESH_PRESETS = ("smoke",)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


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
    """

    chapter: Chapter
    parameters: Mapping[str, Any]
    preset: str
    folder: Path
    fresh: bool
    reasons: tuple[str, ...]

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters that differ from the notebook's own."""
        defaults = self.chapter.parameters
        return {k: v for k, v in self.parameters.items() if v != defaults[k].default}


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


def plan(
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
        reasons = ["never run"] if record is None else _reasons(record, now, folder)
        if record is not None and not reasons:
            fresh_records[name] = record
        else:
            job = Job(
                chapter, parameters[name], preset, folder, preset in FRESH_PRESETS, tuple(reasons)
            )
            jobs.append(job)
    return jobs, fresh_records


def _reasons(record: Mapping[str, Any], now: Fingerprint, folder: Path) -> list[str]:
    if not all((folder / name).exists() for name in ("notebook.ipynb", "results.json")):
        return ["its last run is incomplete"]
    return changes(record.get("fingerprint", {}), now)


def run_jobs(
    root: Path, jobs: Sequence[Job], *, n_parallel: int, report: Report
) -> tuple[list[Job], list[Failure]]:
    """Run jobs, `n_parallel` at a time with one thread each; keep each as soon as it is done.

    Args:
        root: Project folder.
        jobs: What to run.
        n_parallel: Processes at a time.
        report: Called with (job, cells begun, cells) from several threads.

    Returns:
        The jobs that succeeded and the failures. On Ctrl-C the children are ended first.
    """
    processes: list[subprocess.Popen] = []
    stopped = threading.Event()
    done, failures = [], []
    pool = ThreadPoolExecutor(max(1, n_parallel))
    try:
        futures = {pool.submit(_run, root, job, report, processes, stopped): job for job in jobs}
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
    root: Path, job: Job, report: Report, processes: list, stopped: threading.Event
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
        RUN_FOLDER_VARIABLE: str(folder),
        PRESET_VARIABLE: job.preset,
        FRESH_VARIABLE: "1" if job.fresh else "0",
        "IPYTHONDIR": str(folder / "ipython"),  # nobody's own IPython settings
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "genamp_lib.chapters.execute", str(folder)],
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
