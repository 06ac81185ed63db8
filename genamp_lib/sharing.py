"""Share tasks over processes (joblib's loky) or machines (Dask): the same results however shared.

Not for keeping what the tasks computed: genamp_lib.store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from genamp_lib._project import GenampError, install_hint
from genamp_lib.dry_run import first_tasks, is_dry

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

# What `genamp run --jobs` and `--scheduler` tell the process of a chapter.
JOBS_VARIABLE = "GENAMP_JOBS"
SCHEDULER_VARIABLE = "GENAMP_SCHEDULER"
# File for its lines of progress, which the runner passes on: they do not belong on the page.
PROGRESS_VARIABLE = "GENAMP_PROGRESS"
# Tasks whose workers die more often than that are themselves at fault, or too big.
RERUNS = 3
# Off a terminal a line of progress comes no sooner than this after the one before.
LINE_SECONDS = 10.0
CONNECT_SECONDS = 5.0
# Dask starts a worker again within seconds; a batch system that does not in a minute, will not.
NO_WORKERS_SECONDS = 60.0


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    label: str | None = None,
    done: int = 0,
) -> list[Result]:
    """Return `[function(task) for task in tasks]`, computed here, by processes or by machines.

    The results are the same bits however the work is shared, if `function` depends on nothing but
    its task: give each task its own seed. Function and tasks must be picklable; exceptions come
    through unchanged. Processes run one thread each; a worker shares nothing on. Work of a worker
    that died is done again, at most three times.

    A Dask scheduler, as "tcp://host:8786", is used in place of `jobs` processes; its workers have
    genamp and see the files that `function` reads. If both are None they are what `genamp run` was
    given. Without a label, or for a single task, there is no line of progress; `done` tasks that
    were finished earlier count in it.

    >>> map_tasks(abs, [-3, 2, -1])
    [3, 2, 1]
    """
    results = dict(
        finished_tasks(function, tasks, jobs=jobs, scheduler=scheduler, label=label, done=done)
    )
    return [results[index] for index in range(len(results))]


def finished_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    label: str | None = None,
    done: int = 0,
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the task, result) as tasks finish: for results too large to keep them all.

    As `map_tasks`; the order is by chance where work is shared.
    """
    if jobs is None and scheduler is None:
        given, scheduler = os.environ.get(JOBS_VARIABLE, "1"), os.environ.get(SCHEDULER_VARIABLE)
        jobs = int(given) if given.isdecimal() else given
    jobs = 1 if jobs is None else jobs
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise GenampError(f"`jobs` must be a whole number of at least 1, got {jobs!r}")
    todo = list(enumerate(tasks))
    if not todo:
        return
    if is_dry():
        finished = first_tasks(function, todo)
    elif scheduler is None and min(jobs, len(todo)) == 1:
        finished = ((index, function(task)) for index, task in todo)
    else:
        _check_picklable(function=function, tasks=todo[0][1])
        if scheduler is None:
            finished = _by_processes(jobs, function, dict(todo))
        else:
            finished = _by_machines(scheduler, function, todo)
    is_shown = label and len(todo) + done > 1
    advancing = progress(label, len(todo), done) if is_shown else nullcontext(lambda: None)
    with advancing as advance, closing(finished):
        for index, result in finished:
            advance()
            yield index, result


def _check_picklable(**objects: Any) -> None:
    from cloudpickle import dumps

    for name, value in objects.items():
        try:
            dumps(value)
        except Exception as error:  # whatever the __reduce__ of the object raises
            raise TypeError(f"`{name}` must be picklable for other processes: {error}") from error


def _by_processes(
    jobs: int, function: Callable[[Task], Result], todo: dict[int, Task]
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as they come; run again what a dead worker leaves in `todo`."""
    from joblib import Parallel, delayed, parallel_config

    ending = {"initializer": _end_with, "initargs": [os.getpid()]}
    for attempt in range(1 + RERUNS):
        # Kept by what is made under it.
        with parallel_config("loky", inner_max_num_threads=1, **ending):
            parallel = Parallel(n_jobs=min(jobs, len(todo)), return_as="generator_unordered")
        finished = parallel(delayed(_numbered)(function, *item) for item in list(todo.items()))
        try:
            for index, result in finished:
                del todo[index]
                yield index, result
            return
        except BrokenProcessPool as error:
            if attempt == RERUNS:
                raise GenampError(
                    f"worker processes died {1 + RERUNS} times (unfinished tasks: {len(todo)}), "
                    "killed by the system or out of memory; use fewer jobs or smaller tasks"
                ) from error
        finally:
            with warnings.catch_warnings():
                # Who stops early knows that tasks are left.
                warnings.filterwarnings("ignore", ".* tasks ", UserWarning, "joblib")
                finished.close()


def _end_with(parent: int) -> None:
    """Let this worker end within a second of its parent, however that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _numbered(function: Callable[[Task], Result], index: int, task: Task) -> tuple[int, Result]:
    """Do a task in a worker, which must not share it on."""
    os.environ[JOBS_VARIABLE] = "1"
    os.environ.pop(SCHEDULER_VARIABLE, None)
    return index, function(task)


def _by_machines(
    scheduler: str, function: Callable[[Task], Result], tasks: list[tuple[int, Task]]
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as they come; Dask runs again what a dead worker was doing."""
    with _connected(scheduler) as client:
        from distributed import as_completed

        waiting, finished = iter(tasks), as_completed(loop=client.loop)
        left, n_threads, checked, seen = len(tasks), 0, -1.0, time.monotonic()
        while left:
            now = time.monotonic()
            if now > checked + 1.0:
                with _in_one_line(scheduler):
                    n_threads, checked = sum(client.nthreads().values()), now
                seen = now if n_threads else seen
                if now - seen > NO_WORKERS_SECONDS:
                    raise GenampError("Dask workers are all gone; start some and run again")
            for item in islice(waiting, max(0, 2 * n_threads - finished.count())):
                finished.add(client.submit(_attempt, function, *item, pure=False))
            if not finished.has_ready():
                time.sleep(0.005)
                continue
            with _in_one_line(scheduler):
                outcome, error = next(finished).result()
            if error is not None:
                raise error
            left -= 1
            yield outcome


def _attempt(
    function: Callable[[Task], Result], index: int, task: Task
) -> tuple[Any, Exception | None]:
    """Return the task's exception as a result, so that one of Dask itself is told from it."""
    try:
        return _numbered(function, index, task), None
    except Exception as error:  # passed on
        error.add_note("On a Dask worker:\n" + traceback.format_exc())
        return None, error


@contextmanager
def _in_one_line(scheduler: str) -> Iterator[None]:
    """Say what befell Dask, not a task."""
    from distributed import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise GenampError(
            f"Dask workers died {error.allowed_failures + 1} times in the same task, killed "
            "by the system or out of memory; use smaller tasks or larger workers"
        ) from error
    except (CancelledError, OSError) as error:
        raise GenampError(
            f"Dask scheduler {scheduler}: lost in mid-run; start it and its workers again"
        ) from error
    except Exception as error:  # modules that workers lack, results that cannot be sent
        raise GenampError(
            f"Dask could not run a task ({_one_line(error)}); workers need the same versions of "
            "genamp and of its dependencies"
        ) from error


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    """Connect with a Dask scheduler that has workers; what goes wrong is said in one line."""
    try:
        from distributed import Client, Security
        from distributed.core import rpc
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise GenampError(
            f"a Dask scheduler needs the extra `dask`; {install_hint('dask')}"
        ) from None
    # Loggers would print a traceback of what is raised here in one line.
    for name in ("tornado.application", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    async def ask() -> Any:
        options = Security().get_connection_args("client")
        async with rpc(scheduler, timeout=CONNECT_SECONDS, connection_args=options) as remote:
            return await remote.identity()

    try:
        # A client waits forever for what takes connections and is no scheduler: ask first, in a
        # thread because a notebook runs a loop of its own.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, asyncio.wait_for(ask(), CONNECT_SECONDS)).result()
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # OSError, ValueError, ...: by the way in which the address is wrong
        raise GenampError(
            f"Dask scheduler {scheduler}: cannot be reached ({_one_line(error)}); "
            "give the address that `dask scheduler` prints, as in tcp://127.0.0.1:8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise GenampError(
                f"Dask scheduler {scheduler}: has no workers; start some with "
                f"`dask worker {scheduler} --nthreads 1`"
            ) from error
        yield client


def check_scheduler(scheduler: str) -> None:
    """Refuse an address that is no Dask scheduler with workers, before the work."""
    with _connected(scheduler):
        pass


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show on stderr how far the work is and how long it will take; yield what advances it.

    On a terminal a bar; else a line for every tenth of the work, at least ten seconds apart, so
    that short work says nothing.
    """
    from rich import progress as rich
    from rich.console import Console

    console, told = Console(stderr=True), os.environ.get(PROGRESS_VARIABLE)
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    times = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn())
    bar = rich.Progress(
        *columns, *times, console=console, transient=True, disable=not console.is_terminal
    )
    start = last = time.monotonic()
    made, task = 0, bar.add_task(label, total=total + done, completed=done)

    def advance() -> None:
        nonlocal made, last
        made += 1
        bar.advance(task)
        now = time.monotonic()
        is_tenth = made * 10 // total > (made - 1) * 10 // total
        if bar.disable and is_tenth and now - last >= LINE_SECONDS:
            last, elapsed = now, now - start
            left = elapsed / made * (total - made)
            text = f"{label}: {done + made} of {done + total}, {elapsed:.0f} s"
            with open(told, "a", encoding="utf-8") if told else nullcontext(console.file) as file:
                print(f"{text}, about {left:.0f} s left", file=file, flush=True)

    with bar:
        yield advance
