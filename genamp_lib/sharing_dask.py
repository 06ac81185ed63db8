"""joblib on the workers of a Dask scheduler, failing in one line. Not for use alone: _parallel.

Imports `distributed`, of the extra `genamp[dask]`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread
from typing import Any

from distributed import Client
from distributed.scheduler import KilledWorker
from joblib import Parallel
from joblib._dask import DaskDistributedBackend

from genamp_lib._project import GenampError

CONNECT_SECONDS = 5.0
# A nanny starts a worker again within seconds; a batch system that does not in a minute, will not.
NO_WORKERS_SECONDS = 60.0


@contextmanager
def cluster(scheduler: str) -> Iterator[Callable[[], Parallel]]:
    """Give what makes joblib's `Parallel` on the workers of a scheduler.

    Args:
        scheduler: Its address, as "tcp://host:8786".

    Raises:
        GenampError: The scheduler cannot be reached or is lost, or has no workers, or Dask cannot
            run a task. What a task raises comes through as it is.
    """
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # OSError, ValueError, ...: by the way in which the address is wrong
        raise GenampError(
            f"Dask scheduler {scheduler}: cannot be reached ({_one_line(error)}); "
            "give the address that `dask scheduler` prints, as in tcp://127.0.0.1:8786"
        ) from error
    with _quiet("tornado.application", "distributed.client"), client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise GenampError(
                f"Dask scheduler {scheduler}: has no workers; start some with "
                f"`dask worker {scheduler} --nthreads 1`"
            ) from error
        backend = _Backend(client=client)
        try:
            with _watched(client, backend):
                yield partial(Parallel, n_jobs=-1, backend=backend, return_as="generator_unordered")
        except CancelledError as error:
            raise GenampError(
                f"Dask scheduler {scheduler}: lost in mid-run; start it and its workers again"
            ) from error


class _Backend(DaskDistributedBackend):
    """joblib's own, which waits for ever where Dask cannot run a task.

    To Dask an exception of the task is a result, and joblib raises it. One of Dask itself (workers
    that keep dying, modules that workers lack) sets the future only: here joblib is told of it. And
    where a cluster has one thread, joblib would rather work here, on the user's machine.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pending: set[Future] = set()

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of threads that the workers have, or 2: joblib takes 1 for none."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Any = None) -> Future:
        """Send a batch of tasks; `callback` is called when it succeeds or fails."""
        future = super().submit(func, callback)
        self._pending = {one for one in self._pending if not one.done()} | {future}
        future.add_done_callback(lambda done: callback(done) if done.exception() else None)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch, or raise what the task raised or what befell Dask."""
        if not isinstance(out, Future):
            return super().retrieve_result_callback(out)
        error = out.exception()
        if isinstance(error, KilledWorker):
            raise GenampError(
                f"Dask workers died {error.allowed_failures + 1} times in the same task, killed "
                "by the system or out of memory; use smaller tasks or larger workers"
            ) from error
        if isinstance(error, GenampError | CancelledError):
            raise error
        raise GenampError(
            f"Dask could not run a task ({_one_line(error)}); workers need the same versions of "
            "genamp and of its dependencies"
        ) from error

    def fail(self, error: GenampError) -> None:
        """Give up what is not finished."""
        for future in list(self._pending):
            with suppress(InvalidStateError):  # finished meanwhile
                future.set_exception(error)


@contextmanager
def _watched(client: Client, backend: _Backend) -> Iterator[None]:
    """Give up when all workers are gone and stay away: the scheduler would wait for ever."""
    stop = Event()

    def watch() -> None:
        seen = time.monotonic()
        while not stop.wait(1.0):
            try:
                is_there = bool(client.scheduler_info()["workers"])
            except OSError:  # the scheduler is lost, which Dask tells joblib itself
                return
            if is_there:
                seen = time.monotonic()
            elif time.monotonic() - seen > NO_WORKERS_SECONDS:
                backend.fail(GenampError("Dask workers are all gone; start some and run again"))
                return

    thread = Thread(target=watch, name="watch for Dask workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep the tracebacks of loggers off the screen: what goes wrong is raised, in one line."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _one_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
