"""Small helpers for tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock

from genamp_lib.book.paper import BROWSERS

if TYPE_CHECKING:
    import torch

    from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings

ROOT = Path(__file__).resolve().parents[1]

TINY_CHAPTER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
genamp:
  samples: []
  summary: It counts.
---

# A tiny chapter

The answer is {result}`answer`.

```{code-cell} ipython3
from genamp_lib.book.results import Results
```

```{code-cell} ipython3
:tags: [parameters]

seed: int = 1  # seed of the random numbers
n_train: int = 10  # training events
upper: float = 0.5  # upper edge
```

```{code-cell} ipython3
results = Results(chapter="01_tiny", seed=seed)
results.add("answer", n_train * upper, meaning="a product")
results.write()
```

:::{genamp} scoreboard
:::
"""


TINY_NUMBERS = """\
- {id: A.answer, chapter: 01_tiny, result: answer, paper: A, where: Eq. (1), quantity: the answer,
   value: 5, source: printed, agreement: it is exact}
"""

TINY_CASES = "- {case: c, estimator: e, chapter: 01_tiny, estimated: answer, truth: answer}\n"

# One number of a paper, as in book/paper_numbers.yml.
PAPER_NUMBER = {
    "chapter": "01_tiny",
    "result": "answer",
    "paper": "A",
    "where": "Eq. (1)",
    "quantity": "x",
    "value": 10,
    "source": "printed",
    "tolerance": 0.5,
    "agreement": "rounding",
}


def browser_path() -> str:
    """Return where Chromium or Chrome is; skip the test, or fail where one is required."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        message = "NO BROWSER: nothing was drawn or printed; install chromium or google-chrome"
        if os.environ.get("GENAMP_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def make_tiny_project(root: Path) -> Path:
    """Make a project of one chapter that runs in two seconds, with the real site settings."""
    (root / "notebooks" / "presets").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data" / "README.md").write_text("# Data\n")
    (root / "notebooks" / "01_tiny.md").write_text(TINY_CHAPTER)
    for preset, text in {"default": "", "smoke": "01_tiny: {n_train: 2}\n"}.items():
        (root / "notebooks" / "presets" / f"{preset}.yml").write_text(text)
    shutil.copytree(ROOT / "book" / "assets", root / "book" / "assets")
    shutil.copy(ROOT / "book" / "_config.yml", root / "book")
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "index.md").write_text(
        "# Tiny\n\n"
        + "".join(f":::{{genamp}} {name}\n:::\n\n" for name in ("banner", "headline", "chapters"))
    )
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n- numbered: 1\n  chapters:\n"
        "  - file: chapters/01_tiny\n  - file: data\n"
    )
    (root / "book" / "paper_numbers.yml").write_text(TINY_NUMBERS)
    (root / "book" / "benchmarks.json").write_text("[]")
    (root / "book" / "power.json").write_text('{"found": {}, "seconds": {}}')
    (root / "book" / "amplification.yml").write_text(TINY_CASES)
    (root / "book" / "paper_figures.yml").write_text("A: {1: [chapter 07]}\n")
    return root


def processes_in(folder: Path) -> list[str]:
    """Processes of this machine whose working folder is within `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder.resolve()):
                found.append(entry.name)
        except OSError:
            continue
    return found


def build_book(preset: str) -> None:
    """Build the book of this project; tests in other processes wait, then find it up to date."""
    genamp = str(Path(sys.executable).with_name("genamp"))
    (ROOT / "_build").mkdir(exist_ok=True)
    with FileLock(ROOT / "_build" / "tests.lock"):
        done = subprocess.run(
            [genamp, "build", "--preset", preset],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=1800,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file; it must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def without_progress(stderr: str) -> list[str]:
    """Return the lines on stderr, less those that tell on a slow machine how far the work is."""
    return [line for line in stderr.splitlines() if not line.endswith(" s left")]


def separated_jets(n: int, seed: int) -> np.ndarray:
    """Return six jets far apart that pass the cuts of top pairs, shape (n, 6, 4)."""
    rng = np.random.default_rng(seed)
    events = np.stack(
        [
            30.0 + rng.exponential(40.0, (n, 6)),
            np.linspace(-2.5, 2.5, 6) + rng.uniform(-0.1, 0.1, (n, 6)),
            rng.uniform(-np.pi, np.pi, (n, 6)),
            3.0 + rng.gamma(3.0, 2.0, (n, 6)),
        ],
        axis=-1,
    )
    return events


def assign_by_a_plain_loop(jets: np.ndarray, tagged: np.ndarray) -> tuple[list[int], float]:
    """Try every assignment of one event; four-vectors and masses written out."""
    vectors = []
    for pt, eta, phi, mass in jets:
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        vectors.append(np.array([np.sqrt(mass**2 + px**2 + py**2 + pz**2), px, py, pz]))

    def mass(*indices):
        energy, px, py, pz = sum(vectors[index] for index in indices)
        return np.sqrt(energy**2 - px**2 - py**2 - pz**2)

    def pt(*indices):
        _, px, py, _ = sum(vectors[index] for index in indices)
        return np.hypot(px, py)

    best = (np.inf, None)
    others = [index for index in range(len(jets)) if not tagged[index]]
    for b1, b2 in permutations(np.flatnonzero(tagged), 2):
        for q1, q2, q3, q4 in permutations(others, 4):
            if q1 > q2 or q3 > q4:
                continue
            chi2 = (mass(b1, q1, q2) - mass(b2, q3, q4)) ** 2 / (2 * 10.7**2)
            chi2 += (mass(q1, q2) - 80.4) ** 2 / 5.9**2 + (mass(q3, q4) - 80.4) ** 2 / 5.9**2
            first, second = [b1, q1, q2], [b2, q3, q4]
            if pt(*first) < pt(*second):
                first, second = second, first
            if chi2 < best[0] - 1e-9:
                best = (chi2, first + second)
    chi2, used = best
    return [*used, *(index for index in others if index not in used)], chi2


def random_jets(n: int, seed: int = 0, n_particles: int = 6, cuts: bool = True) -> torch.Tensor:
    """Return jets without correlations, within the cuts of top pairs or not, as tensors."""
    import torch

    from genamp_lib.datasets.top_pairs import passes_cuts

    rng = np.random.default_rng(seed)
    shape = (20 * n, n_particles)
    columns = (
        22.5 + rng.exponential(40.0, shape),
        rng.normal(0.0, 1.2, shape),
        rng.uniform(-np.pi, np.pi, shape),
        3.0 + rng.gamma(3.0, 2.0, shape),
    )
    events = np.stack(columns, -1)
    return torch.from_numpy((events[passes_cuts(events)] if cuts else events)[:n])


def small_flow_matching(architecture: str = "transformer", **changes) -> FlowMatchingSettings:
    """Return a flow whose network is as small as can be."""
    from genamp_lib.networks.top_pairs.architectures import VelocitySettings
    from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings

    network = VelocitySettings(
        architecture=architecture, n_blocks=1, n_heads=2, width=24, n_vectors=4, frame_width=8
    )
    return FlowMatchingSettings(velocity=network, **changes)


def simulate_and_kill(function: str, arguments: str, output: Path, folder: Path) -> None:
    """Call a function of simulation.samples in a process of its own; kill it after one shard."""
    script = (
        f"import sys; from genamp_lib.simulation.samples import {function} as run\n"
        f"if __name__ == '__main__': run(sys.argv[1], {arguments}, folder=sys.argv[2])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(output), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("shard-*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(folder.glob("shard-*.json"))
    assert not output.exists()
