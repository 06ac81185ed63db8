"""Cost of sharing a count: one process, two of joblib's loky, two workers of a Dask cluster.

Run by run.py. The job is that of `genamp estimate differential`: Kolmogorov-Smirnov counts of a
.npy file against a reference, read and counted part by part.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from kept import keep
from ks_speed import N_REFERENCE, timed
from rich.console import Console
from rich.table import Table

from genamp_lib.files import counting
from genamp_lib.files.columns import Reading
from genamp_lib.files.counting import Sharing, accumulate
from genamp_lib.sharing import map_tasks

REPEATS = 3
N_EMPTY_TASKS = 2000


@contextmanager
def cluster() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs="ERROR",
    ) as local:
        yield local.scheduler_address


def compare(n: int) -> None:
    rng = np.random.default_rng(1)
    reference = rng.standard_normal(N_REFERENCE)
    with tempfile.TemporaryDirectory() as folder, cluster() as scheduler:
        path = Path(folder) / "generated.npy"
        np.save(path, rng.standard_normal(n))
        n_parts = len(counting._parts([(path, None)], Reading()))
        counting.WORTH_SHARING = 0  # so that it is shared whatever it costs
        table = Table(title=f"counting {n:,} events from a file, in {n_parts} parts")
        for name in ("who", "start-up, s", "per empty task, ms", "the job, s", "ratio"):
            table.add_column(name, justify="left" if name == "who" else "right")
        alone = expected = None
        for name, sharing in (
            ("one process", Sharing()),
            ("loky, 2 processes", Sharing(jobs=2)),
            ("Dask, 2 workers", Sharing(scheduler=scheduler)),
        ):
            options = {"jobs": sharing.jobs, "scheduler": sharing.scheduler}
            first, _ = timed(lambda o=options: map_tasks(abs, [-1, -2], **o))
            again, _ = timed(lambda o=options: map_tasks(abs, [-1, -2], **o))
            empty, _ = timed(lambda o=options: map_tasks(abs, range(N_EMPTY_TASKS), **o))
            runs = [
                timed(
                    lambda s=sharing: accumulate(path, {path: (reference, None)}, Reading(), s)[0]
                )
                for _ in range(1 + REPEATS)  # the first one imports what workers need
            ]
            seconds = min(run[0] for run in runs[1:])
            counts = runs[-1][1].cumulative_counts()[1]
            if alone is None:
                alone, expected = seconds, counts
            if not np.array_equal(counts, expected):
                sys.exit("error: counts differ from those of one process")
            per_task = 1e3 * max(empty - again, 0.0) / N_EMPTY_TASKS
            start_up = max(first - again, 0.0) + max(runs[0][0] - seconds, 0.0)
            row = (f"{start_up:.2f}", f"{per_task:.2f}", f"{seconds:.2f}")
            table.add_row(name, *row, f"{alone / seconds:.2f}")
            if n == 4 * 10**7 and seconds != alone:
                keep(f"Count of {n:,} events by {name}", "one process", alone, seconds)
    Console(width=110).print(table)
