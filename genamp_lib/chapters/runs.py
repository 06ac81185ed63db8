"""Run chapters in parallel and keep what came out, whole or not at all.

A run is made under a temporary name and renamed when the chapter succeeded. Not for deciding what
to run (plan), nor for drawing pages (pages, site).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from genamp_lib._project import (
    read_json,
    replace_folder,
    write_json,
)
from genamp_lib.chapters.fingerprint import Fingerprint, fingerprint
from genamp_lib.chapters.plan import Job
from genamp_lib.chapters.results import PRESET_VARIABLE, RUN_FOLDER_VARIABLE
from genamp_lib.training.artefacts import FRESH_VARIABLE

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


Report = Callable[[Job, int, int], None]


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
