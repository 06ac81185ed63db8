"""Kolmogorov-Smirnov distances and region counts beside scipy and numpy; memory of a long stream.

Run by run.py.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from kept import keep
from rich.console import Console
from rich.table import Table
from scipy import __version__ as scipy_version
from scipy.stats import ks_2samp

from genamp_lib import KolmogorovAccumulator, RegionCounter

N_REFERENCE = 1000
BLOCK = 1 << 20

# In a process of its own, so that the peak is that of the stream.
STREAM = """
import resource, sys
import numpy as np
from genamp_lib import KolmogorovAccumulator
n, block = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(1)
accumulator = KolmogorovAccumulator(rng.normal(size=1000))
for done in range(0, n, block):
    accumulator.update(rng.normal(size=min(block, n - done)))
assert accumulator.n_generated == n
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def nested_distances(reference: np.ndarray, values: np.ndarray, sizes: list[int]) -> np.ndarray:
    accumulator = KolmogorovAccumulator(reference, snapshots=sizes)
    accumulator.update(values)
    return accumulator.curve()[1]


def scipy_distances(reference: np.ndarray, values: np.ndarray, sizes: list[int]) -> np.ndarray:
    return np.array([ks_2samp(reference, values[:n], method="asymp").statistic for n in sizes])


def region_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counter = RegionCounter(edges)
    counter.update(values)
    return counter.counts


def stream(n: int) -> None:
    """Before anything large is made here: a child's peak starts with what its parent holds."""
    command = [sys.executable, "-c", STREAM, str(n), str(BLOCK)]
    seconds, done = timed(
        lambda: subprocess.run(command, check=True, capture_output=True, text=True)
    )
    unit = 1024 if sys.platform == "linux" else 1  # kilobytes there, bytes on macOS
    peak = int(done.stdout) * unit / 1e6
    print(
        f"{n:,} events streamed in blocks of {BLOCK:,}: peak memory of the process {peak:.0f} MB; "
        f"{seconds:.0f} s with drawing them"
    )


def compare(n: int) -> None:
    rng = np.random.default_rng(1)
    sizes = np.unique(np.geomspace(100, n, 20).astype(int)).tolist()
    table = Table(title=f"{n:,} events, {platform.machine()}, scipy {scipy_version}")
    for column in ("task", "peer, s", "genamp, s", "ratio"):
        table.add_column(column, justify="left" if column == "task" else "right")

    for name, draw in (("normal", rng.standard_normal), ("Cauchy", rng.standard_cauchy)):
        for dtype in (np.float64, np.float32):
            reference, values = draw(N_REFERENCE).astype(dtype), draw(n).astype(dtype)
            ours, distances = timed(lambda r=reference, v=values: nested_distances(r, v, sizes))
            peer, expected = timed(lambda r=reference, v=values: scipy_distances(r, v, sizes))
            if not np.array_equal(distances, expected):
                sys.exit("error: distances differ from scipy's")
            task = f"KS at {len(sizes)} nested sizes, {name}, {np.dtype(dtype)}; scipy.ks_2samp"
            table.add_row(task, f"{peer:.2f}", f"{ours:.2f}", f"{peer / ours:.1f}")
            if n == 10**7:
                what = f"KS at {len(sizes)} nested sizes to {n:,}, {name}, {np.dtype(dtype)}"
                keep(what, "scipy.stats.ks_2samp in a loop", peer, ours)

    values = rng.standard_normal(n)
    for kind, edges in (
        ("20 equal", np.linspace(-3, 3, 21)),
        ("20 unequal", np.sort(rng.uniform(-3, 3, 21))),
    ):
        inside = values < edges[-1]  # numpy counts the last edge in
        ours, counts = timed(lambda e=edges: region_counts(values, e))
        peer, expected = timed(lambda e=edges: np.histogram(values, e)[0])
        if not np.array_equal(counts, np.histogram(values[inside], edges)[0]):
            sys.exit("error: counts differ from numpy's")
        task = f"{kind} regions; numpy.histogram"
        table.add_row(task, f"{peer:.2f}", f"{ours:.2f}", f"{peer / ours:.1f}")
        if n == 10**7:
            keep(f"Counts of {n:,} events in {kind} regions", "numpy.histogram", peer, ours)
    Console(width=110).print(table)
