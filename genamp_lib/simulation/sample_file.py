"""From finished shards to a sample's file and its record. Not for what the events are."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genamp_lib._project import replace_file, sha256_of_file, write_json
from genamp_lib.simulation.shards import Shard

if TYPE_CHECKING:
    from h5py import Dataset


def run_until(
    n_wanted: int,
    run: Callable[[int], list[Shard]],
    count: Callable[[Shard], int],
    *,
    guess: float,
    events_per_shard: int,
) -> list[Shard]:
    """Return as many shards as `n_wanted` rows need, and none more, whatever the guess was.

    Args:
        n_wanted: Rows of the sample.
        run: Returns the first n shards; those that exist are not made again.
        count: Rows that a shard gives.
        guess: Rows per generated event, until some are known.
        events_per_shard: Generated events in each shard.
    """
    shards: list[Shard] = []
    while (n_rows := sum(map(count, shards))) < n_wanted:
        efficiency = n_rows / (len(shards) * events_per_shard) if n_rows else guess
        missing = (n_wanted - n_rows) / (efficiency * events_per_shard)
        shards = run(len(shards) + math.ceil(missing))
    n_needed = np.searchsorted(np.cumsum([count(shard) for shard in shards]), n_wanted) + 1
    return shards[:n_needed]


@contextmanager
def sample_file(
    path: Path, provenance: Mapping[str, Any]
) -> Iterator[Callable[[str, np.ndarray], Dataset]]:
    """Write an HDF5 file whole or not at all; the same arrays give the same bytes.

    Yields what writes a named array into it and returns the dataset, for its attributes.
    """
    import h5py

    # No time stamps and a fixed range of format versions, or else the bytes would change.
    with (
        replace_file(path) as temporary,
        h5py.File(temporary, "w", libver=("earliest", "v110")) as file,
    ):

        def write(name: str, array: np.ndarray) -> Dataset:
            return file.create_dataset(
                name,
                data=array,
                chunks=(min(len(array), 5000), *array.shape[1:]),
                compression="gzip",
                compression_opts=9,
                shuffle=True,
                track_times=False,
            )

        yield write
        file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)


def write_record(
    output: Path, shards: list[Shard], provenance: Mapping[str, Any], *, n_rows: int, jobs: int
) -> dict[str, Any]:
    """Write checksum, timing and provenance of a sample beside it, and return them."""
    record = {
        "file": output.name,
        "sha256": sha256_of_file(output),
        "bytes": output.stat().st_size,
        "rows": n_rows,
        "jobs": jobs,
        "cpu_seconds": round(sum(shard.cpu_seconds for shard in shards), 1),
        "machine": f"{platform.system()} {platform.machine()}",
        "provenance": provenance,
    }
    write_json(output.with_name(output.name + ".json"), record)
    return record
