"""Count the events of files in parts that workers share; the counts do not depend on the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genamp_lib._project import GenampError

if TYPE_CHECKING:
    from genamp_lib.amplification import KolmogorovAccumulator, RegionCounter
    from genamp_lib.files.columns import Reading

# Parts are large beside the cost of handing one out, and few enough to show how far the work is.
PART_EVENTS = 1 << 21
MOST_PARTS = 100
# Below so many events one process is done before others have started.
WORTH_SHARING = 2 * 10**8
BYTES_PER_EVENT = 2  # of files that are read through to count their rows: as slow to read
# Points of a curve over n_generated. Memory grows with their number times the reference.
N_SNAPSHOTS = 16
FIRST_SNAPSHOT = 100


@dataclass(frozen=True)
class Sharing:
    """Who counts: processes on this machine, or the workers of a Dask scheduler."""

    jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise GenampError(f"--jobs must be at least 1, got {self.jobs}")
        if self.jobs > 1 and self.scheduler is not None:
            raise GenampError("--jobs must not be given together with --scheduler")


@dataclass(frozen=True)
class _Part:
    file: int
    path: Path
    reading: Reading
    start: int
    stop: int | None


def count_regions(
    files: Sequence[tuple[Path, int | None]],
    edges: Sequence[Any],
    reading: Reading,
    sharing: Sharing,
) -> list[list[RegionCounter]]:
    """Return counters, one for each of `edges`, for each (path, most events or None for all)."""
    make = partial(_region_counters, edges)
    with one_line("--regions"):
        make(0)
    return _count(files, reading, make, sharing)


def accumulate(
    path: Path,
    references: dict[Path, tuple[Any, Any]],
    reading: Reading,
    sharing: Sharing,
    *,
    with_curve: bool = False,
) -> list[KolmogorovAccumulator]:
    """Return an accumulator of a file for each reference, and for two references a `RepeatCounter`.

    A reference is a pair of its values and its weights, or None.

    `with_curve` asks for snapshots, at numbers of events in equal steps of their logarithm.
    """
    for name, reference in references.items():
        with one_line(str(name)):
            _accumulators([reference], (), 0)
    with one_line("samples"):
        _accumulators(list(references.values()), (), 0)
    sizes = _snapshots(path, reading) if with_curve else ()
    make = partial(_accumulators, list(references.values()), sizes)
    (accumulators,) = _count([(path, None)], reading, make, sharing)
    return accumulators


def _snapshots(path: Path, reading: Reading) -> list[int]:
    from genamp_lib.files.columns import count_rows, read_events

    n_events = count_rows(path, reading)
    if reading.missing:
        n_events = sum(len(values) for values, *_ in read_events(path, reading))
    if n_events < FIRST_SNAPSHOT:
        return [n_events] if n_events else []
    step = log(n_events / FIRST_SNAPSHOT) / (N_SNAPSHOTS - 1)
    sizes = {round(FIRST_SNAPSHOT * exp(step * k)) for k in range(N_SNAPSHOTS - 1)}
    return sorted(sizes | {n_events})


def _region_counters(edges: Sequence[Any], start: int) -> list[RegionCounter]:
    from genamp_lib.amplification import RegionCounter

    return [RegionCounter(one, start=start) for one in edges]


def _accumulators(
    references: Sequence[Any], snapshots: Sequence[int], start: int
) -> list[KolmogorovAccumulator]:
    from genamp_lib.amplification import KolmogorovAccumulator, RepeatCounter

    made = [
        KolmogorovAccumulator(one, weights=weights, snapshots=snapshots, start=start)
        for one, weights in references
    ]
    if len(references) == 1:
        return made
    return [*made, RepeatCounter(*(one for one, _ in references))]


def _count(
    files: Sequence[tuple[Path, int | None]],
    reading: Reading,
    make: Callable[[int], list[Any]],
    sharing: Sharing,
) -> list[list[Any]]:
    from genamp_lib.sharing import finished_tasks

    parts = _parts(files, reading)
    if sharing.jobs > 1 and _n_events(parts) < WORTH_SHARING:
        sharing = Sharing()
    if sharing != Sharing():  # workers have working folders of their own
        parts = [replace(part, path=part.path.resolve()) for part in parts]
    totals: dict[int, list[Any]] = {}
    for index, counters in finished_tasks(
        partial(_count_part, make),
        parts,
        jobs=sharing.jobs,
        scheduler=sharing.scheduler,
        label="counting",
    ):
        ours = totals.setdefault(parts[index].file, counters)
        if ours is not counters:
            for total, counter in zip(ours, counters, strict=True):
                total.merge(counter)
    return [totals[file] for file in range(len(files))]


def _parts(files: Sequence[tuple[Path, int | None]], reading: Reading) -> list[_Part]:
    """Cut the files that can be read from any event on; the others are one part each."""
    from genamp_lib.files.columns import n_rows

    sizes = []
    for path, most in files:
        # How many are missing before an event is not known: such a file is one part.
        rows = None if reading.missing else n_rows(path, reading)
        sizes.append(rows if rows is None or most is None else min(rows, most))
    step = max(PART_EVENTS, sum(size or 0 for size in sizes) // MOST_PARTS)
    parts = []
    for file, ((path, most), size) in enumerate(zip(files, sizes, strict=True)):
        if size is None:
            parts.append(_Part(file, path, reading, 0, most))
        else:
            starts = range(0, max(size, 1), step)  # an empty file is a part as well
            parts += [_Part(file, path, reading, k, min(k + step, size)) for k in starts]
    return parts


def _n_events(parts: Sequence[_Part]) -> int:
    """Return how many events there are, by the sizes of the files where rows are not known."""
    return sum(
        part.path.stat().st_size // BYTES_PER_EVENT if part.stop is None else part.stop - part.start
        for part in parts
    )


def _count_part(make: Callable[[int], list[Any]], part: _Part) -> list[Any]:
    from genamp_lib.files.columns import read_events

    counters = make(part.start)
    with one_line(str(part.path)):
        for values, weights, _ in read_events(
            part.path, part.reading, start=part.start, stop=part.stop
        ):
            for counter in counters:
                counter.update(values, weights)
    return counters


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Say which input the library complains about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise GenampError(f"{what}: {error}") from error
