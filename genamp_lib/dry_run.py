"""What long work would cost, from its first steps: how `genamp run --dry-run` looks at a chapter.

In a dry run loops and series of tasks do their first steps, and the time of the others is counted
as if it had passed. Results have the right shapes and mean nothing; nobody keeps them. In any other
run nothing here changes anything.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, TypeVar

# File that a dry run writes what stages cost to, one line of JSON each.
VARIABLE = "GENAMP_DRY_RUN"
# A loop ends once it took that long, and two steps: the first alone may be the slowest.
LOOK_SECONDS = 1.0
# A single step says enough if it takes that long, with what was passed over in it.
LONG_SECONDS = 5.0

Step = TypeVar("Step")
Result = TypeVar("Result")
_passed_over = _measured = _of_stages = 0.0
_row: dict[str, Any] | None = None  # of the stage that is at work


def is_dry() -> bool:
    """Return whether this is a dry run."""
    return VARIABLE in os.environ


def clock() -> float:
    """Return the time that this process computed, in seconds, with all that was passed over.

    That of the processor: others that are at work on the machine do not count.
    """
    return time.process_time() + _passed_over


def pass_over(seconds: float, *, measured: bool = False) -> None:
    """Count work that a dry run does not do; `measured` when an earlier run took its time."""
    global _passed_over, _measured
    _passed_over += seconds
    _measured += seconds if measured else 0.0


def first_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield all steps; in a dry run the first ones, and count the others as long as these."""
    if not is_dry():
        yield from steps
        return
    began, start = time.process_time(), clock()
    for done, step in enumerate(steps, start=1):
        yield step
        now = clock()
        if done == 1:
            start, first = now, now - start
        looked = time.process_time() - began >= LOOK_SECONDS
        if first >= LONG_SECONDS if done == 1 else looked:
            each = first if done == 1 else (now - start) / (done - 1)
            pass_over(each * (len(steps) - done))
            return


def first_tasks(
    function: Callable[[Any], Result], tasks: Sequence[tuple[int, Any]]
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) of numbered tasks: the first of each kind are done, as `first_steps`.

    The last result of a kind stands for those of the tasks that are passed over.
    """
    kinds: dict[Any, list[tuple[int, Any]]] = {}
    for index, task in tasks:
        kinds.setdefault(repr(_kind(task)), []).append((index, task))
    for alike in kinds.values():
        left = iter(alike)
        for _, task in first_steps(alike):
            result = function(task)
            yield next(left)[0], result
        yield from ((index, result) for index, _ in left)


def _kind(task: Any) -> Any:
    """Return what the cost of a task follows from: shapes, texts, how many digits numbers have."""
    if hasattr(task, "shape"):
        return tuple(task.shape)
    if isinstance(task, range):
        return len(task)
    if isinstance(task, int):
        return len(str(task))
    if isinstance(task, str):
        return task
    if isinstance(task, Mapping):
        return [(name, _kind(value)) for name, value in task.items()]
    if isinstance(task, list | tuple):
        return [_kind(value) for value in task]
    if is_dataclass(task):
        return _kind(vars(task))
    return type(task).__name__


@contextmanager
def stage(name: str, n_tasks: int) -> Iterator[dict[str, Any]]:
    """Note what a stage costs in a dry run; stages within are part of it.

    Yields a row; the caller raises its entry "bytes" by the size of what would be kept.
    """
    global _row, _of_stages
    if _row is not None or not is_dry():
        yield _row or {"bytes": 0}
        return
    start, measured = clock(), _measured
    _row = row = {"stage": name, "tasks": n_tasks, "bytes": 0}
    try:
        yield row
    finally:
        _row = None
    seconds = clock() - start
    _of_stages += seconds
    _write(row, seconds, _measured - measured)


def note_rest() -> None:
    """Note what all outside of stages costs, since the start of this process."""
    row = {"stage": "rest of the chapter", "tasks": 1, "bytes": 0}
    _write(row, clock() - _of_stages, 0.0)


def _write(row: Mapping[str, Any], seconds: float, measured: float) -> None:
    import resource  # not on every system

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = {**row, "seconds": seconds, "measured": measured, "peak": peak}
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as file:
        print(json.dumps(line), file=file)
