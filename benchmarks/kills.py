"""Kill six commands with -9 at random moments: nothing half written, no process left, same numbers.

    python benchmarks/kills.py            # 20 kills, five minutes of a core
    python benchmarks/kills.py --seed 2   # other moments

Each command runs once undisturbed. In a folder of its own it is then started and killed a few
times, at a moment between its start and the time that it took, and at last runs to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from tests_support import make_tiny_project, processes_in

# As `genamp`, but small counts are shared too.
GENAMP = """
from genamp_lib.cli import main
from genamp_lib.files import counting
if __name__ == "__main__":
    counting.WORTH_SHARING, counting.PART_EVENTS = 0, 200_000
    main()
"""
RUNS = "_build/runs"
# Command -> (how often it is killed, its words, what it writes).
COMMANDS = {
    "build": (3, "build --preset smoke", f"{RUNS}/smoke/01_tiny/results.json"),
    "run": (
        4,
        "run 1 -p n_train 4 --no-page",
        f"{RUNS}/custom-default/01_tiny/n_train-4/results.json",
    ),
    "sweep": (4, "sweep 1 -p n_train 4,8 -j 2", "_build/sweeps/default/01_tiny/*.csv"),
    "diagnose": (3, "diagnose a.npy b.npy --epochs 2 --json out.json --output o.html", "out.json"),
    "estimate": (3, "estimate differential train.npy b.npy --jobs 2 --json out.json", "out.json"),
    "simulate": (
        3,
        "data simulate jets --n-jets 60 --shard-events 20 --output jets.h5",
        "jets.h5",
    ),
}


def make_folder(name: str, base: Path) -> Path:
    folder = make_tiny_project(base)
    rng = np.random.default_rng(1)
    if name == "diagnose":
        for file in ("a", "b"):
            np.save(folder / f"{file}.npy", rng.normal(size=(300, 2)))
    if name == "estimate":
        np.save(folder / "train.npy", rng.normal(size=1000))
        np.save(folder / "b.npy", rng.normal(size=3_000_000))
    (folder / "genamp.py").write_text(GENAMP)
    return folder


def start(folder: Path, words: str) -> subprocess.Popen:
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "genamp.py", *words.split()], cwd=folder, **silent)


def finish(folder: Path, words: str) -> float:
    begin, process = time.monotonic(), start(folder, words)
    error = process.communicate()[1].decode()
    assert process.returncode == 0, error
    return time.monotonic() - begin


def written(folder: Path, pattern: str) -> str | None:
    """Hash what a command wrote, times and folders left out; None where there is nothing."""
    found = list(folder.glob(pattern))
    if not found:
        return None
    content = found[0].read_bytes()
    if found[0].suffix == ".json":  # raises where it is half a file
        parsed = json.loads(content)
        parsed.pop("record", None)
        content = json.dumps(parsed, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def check_whole(folder: Path) -> None:
    """Refuse anything half written that a user or a later command would take for whole."""
    for path in folder.glob(f"{RUNS}/**/results.json"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            assert json.loads(path.read_text())["results"], path
            record = json.loads((path.parent / "record.json").read_text())
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert record["results_sha256"] == digest, path
    for site in folder.glob("_build/site*"):
        assert (site / "index.html").exists(), site
        assert json.loads((site / ".genamp.json").read_text())["sources"], site
    for report in folder.glob("o.html"):
        assert "</html>" in report.read_text(), report


def kill_series(name: str, moments: random.Random) -> None:
    n_kills, words, pattern = COMMANDS[name]
    with tempfile.TemporaryDirectory() as base:
        undisturbed = make_folder(name, Path(base) / "a")
        seconds = finish(undisturbed, words)
        expected = written(undisturbed, pattern)
        folder = make_folder(name, Path(base) / "b")
        when = []
        for _ in range(n_kills):
            process = start(folder, words)
            when.append(moments.uniform(0, seconds))
            time.sleep(when[-1])
            process.kill()
            process.communicate()
            deadline = time.monotonic() + 60
            while left := processes_in(folder):
                assert time.monotonic() < deadline, f"{name}: processes {left} outlived it"
                time.sleep(0.2)
            check_whole(folder)
            assert written(folder, pattern) in (None, expected), f"{name}: other numbers"
        finish(folder, words)
        check_whole(folder)
        assert written(folder, pattern) == expected, f"{name}: other numbers in the end"
        left = [path for path in folder.rglob("*.partial-*") if path.exists()]
        assert not left, f"{name}: {left}"
    shown = ", ".join(f"{moment:.1f}" for moment in when)
    print(
        f"{name}: killed after {shown} of {seconds:.1f} s; whole, alone, same numbers", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=COMMANDS, action="append")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    moments = random.Random(options.seed)
    for name in options.only or COMMANDS:
        kill_series(name, moments)


if __name__ == "__main__":
    main()
