"""Generate events in shards over processes: resumable, the same bits for any number of them.

Not for what happens in a shard: that is a pure function of its index and its seed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from genamp_lib._project import (
    GenampError,
    read_json,
    replace_file,
    sha256_of_file,
    write_json,
)
from genamp_lib.sharing import map_tasks

Arrays = dict[str, np.ndarray]
Counts = dict[str, int]
MakeShard = Callable[[int, int], Arrays | tuple[Arrays, Counts]]

# The range that Pythia takes; enough for any other generator.
LARGEST_SEED = 900_000_000


@dataclass(frozen=True)
class Shard:
    """A finished shard on disk: a safetensors file, and beside it a JSON record written last.

    Attributes:
        index: Place in the merged result.
        path: The arrays.
        n_rows: Length of each array.
        cpu_seconds: Processor time that making it took.
        counts: What `make` counted, e.g. a cut flow; empty if it counts nothing.
    """

    index: int
    path: Path
    n_rows: int
    cpu_seconds: float
    counts: Counts = field(default_factory=dict)


def shard_seed(seed: int, index: int) -> int:
    """Return the seed of shard `index`, from 1 to 900,000,000, of nothing but the arguments.

    >>> shard_seed(1, 0), shard_seed(1, 1), shard_seed(2, 0)
    (792716032, 292610478, 349538956)
    """
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return 1 + int(state[0] % LARGEST_SEED)


def run_shards(
    make: MakeShard,
    n_shards: int,
    *,
    seed: int,
    folder: Path | str,
    settings: Mapping[str, Any],
    jobs: int = 1,
    label: str = "shards",
) -> list[Shard]:
    """Make the shards 0 to `n_shards` - 1 that `folder` does not hold yet.

    Each one is written when it is finished, so a killed run continues where it was. Shards that
    are there are verified first.

    Args:
        make: `make(index, seed)` returns arrays of one length, or those and a dictionary of
            counts; picklable, pure.
        n_shards: Number of shards.
        seed: Base seed, not negative; shard `index` gets `shard_seed(seed, index)`.
        folder: Where the shards live; made when missing.
        settings: All that the numbers depend on besides the seed, JSON types only.
        jobs: Processes.
        label: What the progress line calls the work.

    Returns:
        The shards in order. Which process made which one leaves no trace in them.

    Raises:
        GenampError: An argument is out of range, or `folder` holds a damaged shard or shards of
            other settings.
    """
    for name, value, least in (("n_shards", n_shards, 1), ("seed", seed, 0), ("jobs", jobs, 1)):
        if value < least:
            raise GenampError(f"`{name}` must be at least {least}, got {value}.")
    if len({shard_seed(seed, index) for index in range(n_shards)}) < n_shards:
        raise GenampError(f"`seed` {seed} gives two shards the same seed; take another one")
    settings = json.loads(json.dumps({**settings, "seed": seed}))  # as it comes back from a record
    paths = [Path(folder) / f"shard-{index:05d}.safetensors" for index in range(n_shards)]
    # The record is written last: without one a file is what a kill left behind.
    done = {i: _verify(i, p, settings) for i, p in enumerate(paths) if _record(p).exists()}
    missing = [index for index in range(n_shards) if index not in done]
    if missing:
        work = partial(_make_one, make, settings=settings)
        tasks = [(index, paths[index]) for index in missing]
        for shard in map_tasks(work, tasks, jobs=jobs, label=label, done=len(done)):
            done[shard.index] = shard
    return [done[index] for index in range(n_shards)]


def merge_shards(shards: list[Shard]) -> Arrays:
    """Return the arrays of the shards, concatenated in the order given."""
    parts = [load_file(shard.path) for shard in shards]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def total_counts(shards: list[Shard]) -> Counts:
    """Return the sums of the shards' counts.

    >>> from pathlib import Path
    >>> total_counts([Shard(i, Path("x"), 2, 0.1, {"events": 5, "kept": i}) for i in range(3)])
    {'events': 15, 'kept': 3}
    """
    names = shards[0].counts if shards else {}
    return {name: sum(shard.counts[name] for shard in shards) for name in names}


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _make_one(make: MakeShard, task: tuple[int, Path], *, settings: Mapping[str, Any]) -> Shard:
    index, path = task
    start = _processor_seconds()
    made = make(index, shard_seed(settings["seed"], index))
    arrays, counts = made if isinstance(made, tuple) else (made, {})
    cpu_seconds = _processor_seconds() - start
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"`make` must return arrays of one length, got {lengths}.")
    with replace_file(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
        checksum = sha256_of_file(temporary)
    n_rows = next(iter(lengths.values()))
    record = {
        "index": index,
        "settings": dict(settings),
        "sha256": checksum,
        "n_rows": n_rows,
        "cpu_seconds": round(cpu_seconds, 3),
        "counts": {name: int(count) for name, count in counts.items()},
    }
    write_json(_record(path), record)
    return Shard(index, path, n_rows, cpu_seconds, record["counts"])


def _processor_seconds() -> float:
    """Processor time of this process and of the ended ones that it started."""
    return sum(os.times()[:4])


def _verify(index: int, path: Path, settings: Mapping[str, Any]) -> Shard:
    remedy = f"remove {path.parent} and run again"
    record = read_json(_record(path))
    if not isinstance(record, dict) or not {"settings", "sha256", "n_rows"} <= record.keys():
        raise GenampError(f"{_record(path)}: not the record of a shard; {remedy}")
    if record["settings"] != settings:
        changed = sorted(
            key
            for key in {*record["settings"], *settings}
            if record["settings"].get(key) != settings.get(key)
        )
        raise GenampError(f"{path}: made with other settings ({', '.join(changed)}); {remedy}")
    if not path.exists() or sha256_of_file(path) != record["sha256"]:
        raise GenampError(
            f"{path}: damaged, its checksum differs from its record; remove "
            f"{path.stem}.* in {path.parent} and run again"
        )
    counts = record.get("counts", {})
    return Shard(index, path, record["n_rows"], record["cpu_seconds"], counts)
