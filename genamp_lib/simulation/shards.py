"""Generate events in shards over processes: resumable, the same bits for any number of them.

Not for what happens in a shard: that is a pure function of its index and its seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import GenampError
from genamp_lib.store import Arrays, ArtefactStore, Stage, named

Counts = dict[str, int]
MakeShard = Callable[[int, int], Arrays | tuple[Arrays, Counts]]

# The range that Pythia takes; enough for any other generator.
LARGEST_SEED = 900_000_000


@dataclass(frozen=True)
class Shard:
    """A finished shard."""

    arrays: Arrays = field(repr=False)  # of one length
    cpu_seconds: float  # of making it
    counts: Counts  # what `make` counted, e.g. a cut flow; empty if it counts nothing

    @property
    def n_rows(self) -> int:
        """Length of each array."""
        return len(next(iter(self.arrays.values())))


def shard_seed(seed: int, index: int) -> int:
    """Return the seed of shard `index`, from 1 to 900,000,000, of nothing but the arguments."""
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
    """Make the shards 0 to `n_shards` - 1, except those of these settings that `folder` holds.

    `make(index, shard_seed(seed, index))` returns arrays of one length, or those and a dictionary
    of counts; it is picklable and pure. `settings`, of JSON types, are everything else that the
    numbers depend on. Each shard is written when it is finished, so a killed run continues where it
    was; which process made which one leaves no trace in them.
    """
    seeds = [shard_seed(seed, index) for index in range(n_shards)]
    if len(set(seeds)) < n_shards:
        raise GenampError(f"`seed` {seed} gives two shards the same seed; take another one")
    store = ArtefactStore(published=Path(folder), local=Path(folder), fresh=False)
    stages = [
        Stage("shard", 1, {"settings": dict(settings), "seed": seed, "index": index})
        for index in range(n_shards)
    ]
    made = store.map(stages, partial(_made, make), list(enumerate(seeds)), jobs=jobs, label=label)
    return [
        Shard(
            named(arrays, "array."),
            float(arrays["cpu_seconds"]),
            {name: int(count) for name, count in named(arrays, "count.").items()},
        )
        for arrays in made
    ]


def merge_shards(shards: list[Shard]) -> Arrays:
    """Return the arrays of the shards, concatenated in the order given."""
    return {
        name: np.concatenate([shard.arrays[name] for shard in shards]) for name in shards[0].arrays
    }


def total_counts(shards: list[Shard]) -> Counts:
    """Return the sums of the shards' counts."""
    names = shards[0].counts if shards else {}
    return {name: sum(shard.counts[name] for shard in shards) for name in names}


def _made(make: MakeShard, task: tuple[int, int]) -> Arrays:
    start = _processor_seconds()
    made = make(*task)
    arrays, counts = made if isinstance(made, tuple) else (made, {})
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"`make` must return arrays of one length, got {lengths}.")
    return {
        **{f"array.{name}": array for name, array in arrays.items()},
        **{f"count.{name}": np.array(count) for name, count in counts.items()},
        "cpu_seconds": np.array(_processor_seconds() - start),
    }


def _processor_seconds() -> float:
    """Processor time of this process and of the ended ones that it started."""
    return sum(os.times()[:4])
