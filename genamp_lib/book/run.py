"""Run chapters: which and why, each in a kernel of its own, kept whole or not at all.

A run is a folder: source.md, notebook.ipynb, results.json, ro-crate-metadata.json, log.txt and,
written last, record.json.
It is made under a temporary name and renamed when the chapter succeeded.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from filelock import FileLock, Timeout
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.translators import PythonTranslator

from genamp_lib._project import (
    PRESET_VARIABLE,
    GenampError,
    project_root,
    read_json,
    replace_file,
    replace_folder,
    sha256_of_file,
    sha256_of_text,
    write_json,
)
from genamp_lib.book.catalog import Chapter, find_chapter, load_chapters, load_preset, shown
from genamp_lib.book.results import (
    RUN_FOLDER_VARIABLE,
    Run,
    is_as_written,
    read_record,
    read_run,
)
from genamp_lib.book.site import SiteError, build_site, site_folder
from genamp_lib.book.stale import changes, fingerprint
from genamp_lib.datasets.own import check_own
from genamp_lib.datasets.public import fetch_public, public_counterpart
from genamp_lib.sharing import (
    JOBS_VARIABLE,
    PROGRESS_VARIABLE,
    SCHEDULER_VARIABLE,
    check_scheduler,
    progress,
)
from genamp_lib.store import FRESH_VARIABLE

# Presets that compute everything from scratch.
FRESH_PRESETS = ("smoke",)
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


class ChapterFailed(GenampError):
    """A chapter did not run to its end; the message says which cell, what error, where to look."""

    exit_code = 1


@dataclass(frozen=True)
class Book:
    """The chapters of a project, by name, with the parameters of one preset.

    `problems` holds what is wrong with the notebooks that are none.
    """

    root: Path
    preset: str
    chapters: Mapping[str, Chapter]
    parameters: Mapping[str, Mapping[str, Any]]
    problems: Mapping[str, str]

    def find(self, name: str) -> Chapter:
        """Return the chapter with this name or number; its notebook must not be broken."""
        for broken, problem in self.problems.items():
            if name == broken or (name.isdigit() and name.zfill(2) == broken[:2]):
                raise GenampError(problem)
        return find_chapter(self.chapters, name)

    def folder(self, name: str) -> Path:
        """Return where the last good run of a chapter is kept."""
        return self.root / "_build" / "runs" / self.preset / name

    def runs(self) -> dict[str, Run]:
        """Return the last good runs, stale ones too."""
        found = {name: read_run(self.folder(name)) for name in self.chapters}
        return {name: run for name, run in found.items() if run}

    def lock(self) -> AbstractContextManager[None]:
        """Return a context that keeps other processes from running chapters of this preset."""
        return _lock(self.root / "_build" / f"build-{self.preset}.lock")


@dataclass(frozen=True)
class Job:
    """One chapter that is to be run, with all its parameters."""

    book: Book
    chapter: Chapter
    parameters: Mapping[str, Any]
    folder: Path  # where the run goes
    reasons: Sequence[str]  # in words
    fresh: bool  # whether artefacts are ignored
    changed: Mapping[str, Any] = field(default_factory=dict)  # by a user, against the preset
    problem: str = ""  # why it cannot be run

    @property
    def overrides(self) -> dict[str, Any]:
        """Return the parameters that are not the notebook's own."""
        own = self.chapter.parameters
        return {key: value for key, value in self.parameters.items() if value != own[key].default}


def open_book(preset: str = "default") -> Book:
    """Read the chapters of the project around the working folder."""
    root, problems = project_root(), {}
    chapters = load_chapters(root, problems)
    parameters = load_preset(root, preset, chapters, problems)
    return Book(root, preset, chapters, parameters, problems)


def rerun(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    preset: str = "default",
    fresh: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    fetch: Callable[[str], Any] = fetch_public,
    page: bool = True,
    begin: Callable[[Job], Any] = lambda job: None,
) -> Path:
    """Run one chapter, with other parameters if given, and return the folder of the run.

    Without parameters the run replaces the published one of the preset. With parameters it gets a
    folder of its own, named after them, with a page at site/chapters/NAME.html in it unless `page`
    is false. A path given as `source` may be relative to the working folder. `fetch` downloads a
    public file by name. `begin` is called before the chapter starts.
    """
    if jobs > 1 and scheduler is not None:
        raise GenampError("--jobs must not be given together with --scheduler")
    book = open_book(preset)
    chapter = book.find(name)
    job = plan_run(book, chapter, parameters or {}, fresh=fresh, fetch=fetch)
    folder = job.folder
    with locked(folder) if job.changed else book.lock():
        sharing = sharing_variables(jobs, scheduler)
        begin(job)
        for failure in run_jobs([job], n_parallel=1, sharing=sharing).values():
            raise ChapterFailed(failure)
        if job.changed and page:
            stale = {job.chapter.name for job in plan_jobs(book)}
            runs = {key: run for key, run in book.runs().items() if key not in stale}
            runs[chapter.name] = read_run(folder)
            site = site_folder(book.root, preset)
            options = {"strict": False, "share_with": site}
            try:
                build_site(book.root, book.chapters, runs, folder / "site", **options)
            except SiteError as error:
                problem = " ".join(str(error).split())
                raise GenampError(
                    f"{folder}: the run is whole, but its page was not drawn; give --no-page, or "
                    f"mend the book: {problem}"
                ) from error
    return folder


def plan_run(
    book: Book,
    chapter: Chapter,
    parameters: Mapping[str, Any],
    *,
    fresh: bool = False,
    fetch: Callable[[str], Any] = fetch_public,
) -> Job:
    """Return the job of running a chapter with other parameters, if any; checks all of it."""
    resolved = chapter.resolve({**book.parameters[chapter.name], **parameters})
    resolved = with_source(chapter, resolved, fetch)
    changed = {key: resolved[key] for key in parameters}
    now = fingerprint(chapter, resolved)  # a missing sample ends here
    folder = book.folder(chapter.name)
    if changed:
        folder = _custom_folder(book, chapter, changed, now["samples"])
    reasons = reasons_to_run(book.root, folder, now)
    fresh = fresh or book.preset in FRESH_PRESETS
    return Job(book, chapter, resolved, folder, reasons, fresh, changed)


def sharing_variables(jobs: int, scheduler: str | None) -> dict[str, str]:
    """Return the environment variables that tell a chapter with whom to share its work."""
    found = {JOBS_VARIABLE: str(jobs)}
    if scheduler is not None:
        check_scheduler(scheduler)
        found[SCHEDULER_VARIABLE] = scheduler
    return found


def with_source(
    chapter: Chapter, parameters: Mapping[str, Any], fetch: Callable[[str], Any] = fetch_public
) -> dict[str, Any]:
    """Return the parameters with `source` as a chapter can read it.

    Public files that stand for the chapter's samples are fetched; files of the user's own must be
    what the samples are, and their path gets whole, because chapters run in another folder than
    the user.
    """
    source = parameters.get("source", "shipped")
    if source == "public":
        for name in sorted({public_counterpart(sample).name for sample in chapter.samples}):
            fetch(name)
    elif source != "shipped" and chapter.samples:
        check_own(chapter.samples, source)
        return {**parameters, "source": str(Path(source).resolve())}
    return dict(parameters)


def _custom_folder(
    book: Book, chapter: Chapter, changed: Mapping[str, Any], samples: Mapping[str, str]
) -> Path:
    """Return a folder of its own for a run with changed parameters, named after them."""
    told = {key: shown(value) for key, value in sorted(changed.items())}
    if told.get("source", "shipped") not in ("shipped", "public"):
        told["source"] += f" {samples}"  # another file under the same name is another run
    whole = "_".join(f"{key}-{value}" for key, value in told.items())
    label = re.sub(r"[^\w.,-]", "", whole)
    if label != whole or len(label) > 60:
        label = f"{label[:50]}-{sha256_of_text(repr(told))[:8]}"
    return book.root / "_build" / "runs" / f"custom-{book.preset}" / chapter.name / label


def locked(folder: Path) -> AbstractContextManager[None]:
    """Return a context that keeps other processes from making the run in `folder`."""
    return _lock(folder.with_name(f"{folder.name}.lock"))


def remove_run(folder: Path) -> None:
    """Remove a run, with what is beside it: a failed attempt and the lock, which is held."""
    for path in (folder, folder.with_name(f"{folder.name}.failed")):
        if path.exists():
            gone = path.with_name(f".{path.name}.partial-removed")
            path.rename(gone)  # at once: never half a run
            shutil.rmtree(gone)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise GenampError(
            f"another genamp is at work here ({path.name}); wait for it or stop it"
        ) from error


def plan_jobs(book: Book) -> list[Job]:
    """Return the chapters that must be run, with the reasons; the runs of the others still hold."""
    jobs, fresh = [], book.preset in FRESH_PRESETS
    for name, chapter in book.chapters.items():
        parameters, folder = book.parameters[name], book.folder(name)
        try:
            now, problem = fingerprint(chapter, parameters), ""
            reasons = reasons_to_run(book.root, folder, now)
        except GenampError as error:  # a missing sample
            reasons, problem = [f"cannot be run, {error}"], f"{name}: {error}"
        if reasons:
            job = Job(book, chapter, parameters, folder, reasons, fresh, problem=problem)
            jobs.append(job)
    return jobs


def reasons_to_run(root: Path, folder: Path, now: Mapping[str, Any]) -> list[str]:
    """Say why the run in `folder` no longer holds; `now` is the fingerprint of today."""
    record = read_record(folder)
    if record is None:
        return ["never run"]
    if not all((folder / name).exists() for name in ("notebook.ipynb", "results.json")):
        return ["its last run is incomplete"]
    if not is_as_written(folder, record):
        return ["its results.json was changed by hand"]
    reasons = changes(record.get("fingerprint", {}), now)
    for artefact in record.get("artefacts", []):
        path = root / "data" / "artefacts" / f"{artefact['artefact']}.safetensors"
        if artefact["origin"] == "published" and not (
            path.exists() and sha256_of_file(path) == artefact["sha256"]
        ):
            reasons.append(f"artefact {artefact['artefact']} changed")
    return reasons


def publish_artefacts(folder: Path) -> list[Path]:
    """Copy the artefacts that the run in `folder` computed into data/artefacts; return them."""
    root, published = project_root(), []
    for artefact in read_json(folder / "record.json")["artefacts"]:
        for suffix in (".safetensors", ".json") if artefact["origin"] != "published" else ():
            source = root / "_build" / "artefacts" / f"{artefact['artefact']}{suffix}"
            target = root / "data" / "artefacts" / source.name
            with replace_file(target) as temporary:
                shutil.copyfile(source, temporary)
            published.append(target)
    return published


def run_jobs(
    jobs: Sequence[Job],
    *,
    n_parallel: int,
    sharing: Mapping[str, str] | None = None,
    ended: Callable[[Job, str | None], Any] = lambda job, failure: None,
) -> dict[Path, str]:
    """Run jobs, `n_parallel` at a time with one thread each; keep each as soon as it is done.

    Returns folder -> what went wrong, for those that failed. `sharing` holds environment variables
    that tell the chapters with whom to share their work. `ended` is called as each job ends, with
    what went wrong or None. On Ctrl-C the kernels are ended first.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one of the user's
    kernels: list[NotebookClient] = []
    stopped = threading.Event()
    label = jobs[0].chapter.name if len(jobs) == 1 else f"{len(jobs)} runs"
    n_cells = sum(_is_code(cell) for job in jobs for cell in job.chapter.notebook.cells)
    pool = ThreadPoolExecutor(max(1, min(n_parallel, len(jobs))))
    with progress(f"{label}, cells", n_cells) as advance:

        def begin(cell: NotebookNode, **_: Any) -> None:
            if stopped.is_set():
                raise DeadKernelError("stopped")
            if _is_code(cell):
                advance()

        def run(job: Job) -> str | None:
            try:
                failure = _run(sharing or {}, kernels, begin, stopped, job)
            except GenampError as error:  # as a sample that is gone: the others go on
                failure = f"{job.chapter.name}: {error}"
            if not stopped.is_set():
                ended(job, failure)
            return failure

        try:
            found = zip(jobs, pool.map(run, jobs), strict=True)
            return {job.folder: failure for job, failure in found if failure}
        except BaseException:
            stopped.set()
            for client in kernels:
                if pid := getattr(getattr(client.km, "provisioner", None), "pid", None):
                    os.killpg(pid, signal.SIGKILL)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _is_code(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])


def _run(
    sharing: Mapping[str, str],
    kernels: list[NotebookClient],
    begin: Callable[..., None],
    stopped: threading.Event,
    job: Job,
) -> str | None:
    """Run one job in a kernel; return what went wrong."""
    root, name = job.book.root, job.folder.name
    now, overrides = fingerprint(job.chapter, job.parameters), job.overrides
    # A killed run may still be writing for a moment: never work in a folder that was its own.
    for leftover in job.folder.parent.glob(f".{name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = job.folder.with_name(f".{name}.partial-{os.getpid()}")
    folder.mkdir(parents=True)
    shutil.copyfile(job.chapter.path, folder / "source.md")
    environment = kernel_environment(job, folder, **sharing)
    notebook = jupytext.read(folder / "source.md")
    if overrides:
        change_parameters(notebook, overrides)
    started, start = time.gmtime(), time.perf_counter()
    progress_of = _passing_on(folder / "progress.txt", job.chapter.name)
    with open(folder / "log.txt", "w", encoding="utf-8") as log, progress_of:
        options = {"cwd": root, "env": environment, "stdout": log, "stderr": log}
        failure = _execute(notebook, kernels, begin, options)
    seconds = round(time.perf_counter() - start, 1)
    if stopped.is_set():  # ended by us: neither a success nor a failure of the chapter
        shutil.rmtree(folder, ignore_errors=True)
        return None
    shutil.rmtree(folder / "ipython", ignore_errors=True)
    nbformat.write(notebook, folder / "notebook.ipynb")
    if failure is None and not (folder / "results.json").exists():
        failure = ": the chapter wrote no results: its last cell must call results.write()", ""
    kept = job.folder.with_name(f"{name}.failed")
    if failure:
        (folder / "traceback.txt").write_text(failure[1], encoding="utf-8")
        replace_folder(folder, kept)
        where = f"the whole notebook and its traceback: {kept}"
        return f"{job.chapter.name}{failure[0]}\n  {where}"
    results = read_json(folder / "results.json")
    record = {
        "chapter": job.chapter.name,
        "preset": job.book.preset,
        "overrides": overrides,
        "changed": dict(job.changed),
        "fresh": job.fresh,
        "seed": results["seed"],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        "wall_seconds": seconds,
        "revision": _revision(root),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "artefacts": results["artefacts"],
        "fingerprint": now,
        "results_sha256": sha256_of_file(folder / "results.json"),
    }
    from genamp_lib.book.crate import write_crate  # only here: it is slow to import

    write_crate(folder, record)
    write_json(folder / "record.json", record)
    replace_folder(folder, job.folder)
    shutil.rmtree(kept, ignore_errors=True)
    return None


def kernel_environment(job: Job, folder: Path, **sharing: str) -> dict[str, str]:
    """Return the environment of the kernel that runs a job in a folder."""
    return {
        **os.environ,
        **ONE_THREAD,
        **sharing,
        RUN_FOLDER_VARIABLE: str(folder),
        PRESET_VARIABLE: job.book.preset,
        PROGRESS_VARIABLE: str(folder / "progress.txt"),
        FRESH_VARIABLE: "1" if job.fresh else "0",
        "IPYTHONDIR": str(folder / "ipython"),  # nobody's own IPython settings
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures go into the notebook
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@contextmanager
def _passing_on(path: Path, name: str) -> Iterator[None]:
    """Pass on the lines of progress that a chapter writes into a file, while the block runs."""
    path.touch()
    ended = threading.Event()

    def follow() -> None:
        with path.open(encoding="utf-8") as lines:
            is_last = False
            while not is_last:
                is_last = ended.wait(0.5)
                for line in lines:
                    print(f"{name}, {line}", end="", file=sys.stderr, flush=True)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
        path.unlink(missing_ok=True)


def change_parameters(notebook: NotebookNode, overrides: Mapping[str, Any]) -> None:
    """Insert a cell that sets the parameters after the one that declares them."""
    source = PythonTranslator.codify(overrides, "Changed for this run")
    changed = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    notebook.cells.insert(next(i for i, t in enumerate(tags) if "parameters" in t) + 1, changed)


def _execute(
    notebook: NotebookNode,
    kernels: list[NotebookClient],
    begin: Callable[..., None],
    options: Mapping[str, Any],
) -> tuple[str, str] | None:
    """Execute all cells in place; return where and how it failed, and the traceback."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same in every run
    quiet = {"record_timing": False, "store_widget_state": False}
    quiet["shutdown_kernel"] = "immediate"  # all is written; asking politely takes two seconds
    client = NotebookClient(notebook, kernel_name="python3", on_cell_start=begin, **quiet)
    kernels.append(client)
    try:
        asyncio.run(client.async_execute(**options))
    except CellExecutionError as error:
        number = client.code_cells_executed
        failed = [cell for cell in notebook.cells if cell.cell_type == "code"][number - 1]
        shown = "\n".join(f"    {line}" for line in failed.source.strip().splitlines()[:12])
        trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
        if error.ename == "GenampError":  # says all in one line
            return f": {error.evalue}", trace
        return f", code cell {number}: {error.ename}: {error.evalue}\n{shown}", trace
    except DeadKernelError as error:
        return f": the kernel died ({error}); out of memory?", ""
    return None


def _revision(root: Path) -> str:
    """Return the git revision of the sources, marked when they differ from it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=, changed", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
