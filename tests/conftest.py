"""Fixtures that several test folders share: a tiny project that the real runner can work on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests_support import ROOT, TINY_CHAPTER

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core of its own: more threads would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY_NUMBERS = """\
- {id: A.answer, chapter: 01_tiny, result: answer, paper: A, where: Eq. (1), quantity: the answer,
   value: 5, source: printed, agreement: it is exact}
"""

# A script for a process of its own: see test_simulation_showers.
collect_ignore = ["geant4_ledger.py"]


@pytest.fixture
def needs_extra() -> None:
    for package in ("pythia8mc", "fastjet", "awkward"):
        pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[simulate]'")


@pytest.fixture
def tiny_project(tmp_path: Path) -> Path:
    """Return a project of one chapter that runs in two seconds, with the real site settings."""
    root = tmp_path / "project"
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
        "format: jb-book\nroot: index\nchapters:\n- file: chapters/01_tiny\n- file: data\n"
    )
    (root / "book" / "paper_numbers.yml").write_text(TINY_NUMBERS)
    (root / "book" / "benchmarks.json").write_text("[]")
    return root


Genamp = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def genamp() -> Genamp:
    """Return a function that runs the command `genamp` in a folder, as a user does."""

    def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(Path(sys.executable).with_name("genamp")), *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "160", "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture
def every_event_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop the cuts of top pairs: a little-trained generator makes few events within them."""
    for module in ("networks.top_pairs.flow_matching", "networks.top_pairs.fit"):
        monkeypatch.setattr(
            f"genamp_lib.{module}.passes_cuts",
            lambda x: np.isfinite(np.asarray(x)).all(axis=(1, 2)),
        )
