"""Keep what a benchmark measured, for the site: book/benchmarks.json and book/power.json."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

from genamp_lib._project import project_root, read_json, write_json


def keep(task: str, peer: str, theirs: float, ours: float, unit: str = "s") -> None:
    """Replace the entry of a task; what was measured is of one run."""
    path = project_root() / "book" / "benchmarks.json"
    rows = {row["task"]: row for row in read_json(path)} if path.exists() else {}
    rows[task] = {
        "task": task,
        "peer": peer,
        "theirs": float(f"{theirs:.3g}"),
        "ours": float(f"{ours:.3g}"),
        "unit": unit,
        "ratio": float(f"{theirs / ours:.3g}"),
        "machine": machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    write_json(path, list(rows.values()))


def keep_power(found: dict[str, dict[str, int]], seconds: dict[str, float], n_pairs: int) -> None:
    """Replace what each test found: flaw -> test -> pairs of `n_pairs`; CPU seconds of a pair."""
    write_json(
        project_root() / "book" / "power.json",
        {
            "found": found,
            "seconds": {name: float(f"{one:.2g}") for name, one in seconds.items()},
            "n_pairs": n_pairs,
            "machine": machine(),
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
        },
    )


def machine() -> str:
    """Name the processor, or what is known of it."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
