"""Share tasks over processes or machines: joblib splits the work, results come back in order.

Not for what the tasks compute; nor for keeping finished ones on disk: simulation.shards.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from genamp_lib._project import GenampError

if TYPE_CHECKING:
    from joblib import Parallel

Task = TypeVar("Task")
Result = TypeVar("Result")

# What `genamp run --jobs` and `--scheduler` tell the process of a chapter.
JOBS_VARIABLE = "GENAMP_JOBS"
SCHEDULER_VARIABLE = "GENAMP_SCHEDULER"
# Tasks whose workers die more often than that are themselves at fault, or too big.
RERUNS = 3
# Off a terminal a line of progress comes no sooner than this after the one before.
LINE_SECONDS = 10.0


def sharing(jobs: int | None, scheduler: str | None) -> dict[str, Any]:
    """Return `jobs` and `scheduler` for `map_tasks`; those of `genamp run` when both are None.

    >>> sharing(3, None)
    {'jobs': 3, 'scheduler': None}
    """
    if jobs is None and scheduler is None:
        jobs = int(os.environ.get(JOBS_VARIABLE, "1"))
        scheduler = os.environ.get(SCHEDULER_VARIABLE)
    return {"jobs": 1 if jobs is None else jobs, "scheduler": scheduler}


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    label: str = "",
    done: int = 0,
) -> list[Result]:
    """Return `[function(task) for task in tasks]`, computed here, by processes or by machines.

    The results are the same bits however the work is shared, if `function` depends on nothing but
    its task: give each task its own seed. Workers run one thread each (on Dask: as its nannies do).
    Work of a worker that died is done again: by joblib's loky at most three times, by Dask as often
    as its scheduler allows.

    Args:
        function: Pure and picklable. Its exceptions come through unchanged.
        tasks: Its arguments, picklable.
        jobs: Processes on this machine; not used with a scheduler.
        scheduler: Address of a Dask scheduler, as "tcp://host:8786", whose workers have genamp and
            see the files that `function` reads. Needs the extra `genamp[dask]`.
        label: What the progress line on stderr calls the work; no line when empty.
        done: Tasks finished earlier, to be counted in that line.

    Raises:
        GenampError: `jobs` is out of range, workers died too often, the scheduler cannot be
            reached or has no workers.
        TypeError: `function` or a task cannot be sent to another process.

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
    jobs: int = 1,
    scheduler: str | None = None,
    label: str = "",
    done: int = 0,
) -> Iterator[tuple[int, Result]]:
    """Yield (index of the task, result) as tasks finish: for results too large to keep them all.

    Arguments and errors are those of `map_tasks`; the order is by chance where work is shared.

    >>> sorted(finished_tasks(abs, [-3, 2, -1]))
    [(0, 3), (1, 2), (2, 1)]
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise GenampError(f"`jobs` must be a whole number of at least 1, got {jobs!r}")
    todo = dict(enumerate(tasks))
    if not todo:
        return
    if scheduler is not None or jobs > 1:
        _check_picklable(function, todo[0])
    with ExitStack() as stack:
        make = partial(_local, jobs) if scheduler is None else stack.enter_context(_dask(scheduler))
        advance = stack.enter_context(progress(label, len(todo), done)) if label else lambda: None
        for index, result in stack.enter_context(closing(_finished(function, todo, make))):
            advance()
            yield index, result


def _finished(
    function: Callable[[Task], Result], todo: dict[int, Task], make: Callable[[], Parallel]
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) as they come; run again what a dead worker leaves in `todo`."""
    from joblib import delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    for attempt in range(1 + RERUNS):
        calls = [delayed(_numbered)(function, *item) for item in todo.items()]
        try:
            with _closing(make()(calls)) as finished:
                for index, result in finished:
                    del todo[index]
                    yield index, result
            return
        except TerminatedWorkerError as error:
            if attempt == RERUNS:
                raise GenampError(
                    f"worker processes died {1 + RERUNS} times (unfinished tasks: {len(todo)}), "
                    "killed by the system or out of memory; use fewer jobs or smaller tasks"
                ) from error


@contextmanager
def _closing(finished: Iterator[Result]) -> Iterator[Iterator[Result]]:
    try:
        yield finished
    finally:
        with warnings.catch_warnings():
            # Who stops early knows that tasks are left.
            warnings.filterwarnings("ignore", ".* tasks ", UserWarning, "joblib")
            finished.close()


def _numbered(function: Callable[[Task], Result], index: int, task: Task) -> tuple[int, Result]:
    return index, function(task)


def _check_picklable(*objects: Any) -> None:
    # Found out later, joblib with Dask would wait for ever.
    from joblib.externals.loky.backend.reduction import dumps

    for name, value in zip(("function", "tasks"), objects, strict=True):
        try:
            dumps(value)
        except Exception as error:  # whatever the __reduce__ of the object raises
            raise TypeError(f"`{name}` must be picklable for other processes: {error}") from error


def _local(jobs: int) -> Parallel:
    from joblib import Parallel, parallel_config

    if jobs == 1:
        return Parallel(n_jobs=1, return_as="generator_unordered")
    # Keeps the backend that it is made under.
    with parallel_config("loky", inner_max_num_threads=1):
        return Parallel(n_jobs=jobs, return_as="generator_unordered")


def _dask(scheduler: str) -> AbstractContextManager[Callable[[], Parallel]]:
    try:
        from genamp_lib.sharing_dask import cluster
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise GenampError(
            "a Dask scheduler needs the extra `dask`; run `pip install 'genamp[dask]'`"
        ) from None
    return cluster(scheduler)


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show on stderr how far the work is and how long it will take; yield what advances it.

    On a terminal a bar; else a line for every tenth of the work, at least ten seconds apart, so
    that short work says nothing.

    Args:
        label: What the work is called.
        total: Tasks still to do.
        done: Tasks finished earlier.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, label, total, done) as advance:
            yield advance
        return

    start = last = time.monotonic()
    made = 0

    def advance() -> None:
        nonlocal made, last
        made += 1
        now = time.monotonic()
        is_tenth = made * 10 // total > (made - 1) * 10 // total
        if is_tenth and now - last >= LINE_SECONDS:
            last = now
            elapsed = now - start
            left = elapsed / made * (total - made)
            text = f"{label}: {done + made} of {done + total}, {elapsed:.0f} s"
            print(f"{text}, about {left:.0f} s left", file=console.file, flush=True)

    yield advance


@contextmanager
def _bar(console: Any, label: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total + done, completed=done)
        yield partial(bar.advance, task)
