"""Peak memory of one column of a wide HDF5 file: 60,000 events of 6,480 numbers, 1.6 GB.

    python benchmarks/wide_memory.py

The peer is h5py's `file["x"][:]`, which takes what the file holds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
from kept import keep

N_EVENTS, N_COLUMNS, N_CHUNK = 60_000, 6480, 1000
CODE = """
import resource, sys
from genamp_lib.cli import main
try:
    main(["estimate", "differential", "train.npz", "wide.h5", "--column", "x:17"])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def main() -> None:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "train.npz", x=rng.normal(size=(1000, 18)))
        with h5py.File(Path(folder) / "wide.h5", "w") as file:
            shape = (N_EVENTS, N_COLUMNS)
            wide = file.create_dataset("x", shape, "f4", chunks=(N_CHUNK, N_COLUMNS))
            for start in range(0, N_EVENTS, N_CHUNK):
                wide[start : start + N_CHUNK] = rng.normal(size=(N_CHUNK, N_COLUMNS))
        command = [sys.executable, "-c", CODE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    print(done.stdout)
    unit = 1024 if sys.platform == "linux" else 1  # kilobytes there, bytes on macOS
    peak = int(done.stderr.split()[-1]) * unit / 1e6
    whole = 4 * N_EVENTS * N_COLUMNS / 1e6
    print(f"peak memory {peak:.0f} MB of a file of {whole:.0f} MB")
    task = f"Memory for a column of {N_EVENTS:,} x {N_COLUMNS:,} numbers in HDF5"
    keep(task, "h5py, the whole data set", whole, peak, "MB")


if __name__ == "__main__":
    main()
