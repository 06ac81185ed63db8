"""The first cell of a downloaded notebook: run as it stands, where genamp is missing or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from genamp_lib.book.download import for_download, repository_address

# Ends the process with what was run and found, where a module genamp_lib may be hidden.
HARNESS = """
import importlib.util, json, os, subprocess, sys
real, ran = importlib.util.find_spec, []
importlib.util.find_spec = lambda name: None if HIDDEN else real(name)
def run(command, check):
    ran.append(command[:4] + command[-1:])
    if FAILING and command[0] == FAILING:
        raise subprocess.CalledProcessError(1, command)
subprocess.run = run
"""


def call(folder: Path, repository: str, *, hidden: bool = True, failing: str = "") -> tuple:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    cell = for_download(notebook, repository).cells[0].source
    code = f"HIDDEN, FAILING = {hidden}, {failing!r}\n{HARNESS}\n{cell}\n"
    code += "print(json.dumps([ran, sys.path[0], os.environ['OMP_NUM_THREADS']]))"
    environment = {key: value for key, value in os.environ.items() if "THREADS" not in key}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done, json.loads(done.stdout) if done.returncode == 0 else None


def test_what_is_missing_is_cloned_and_installed(tmp_path: Path) -> None:
    clone = str(tmp_path / "genamp")
    _, (ran, path, threads) = call(tmp_path, "https://example.org/genamp.git")
    assert ran[0] == ["git", "clone", "--depth", "1", clone]
    assert ran[1] == [sys.executable, "-m", "pip", "install", f"{clone}[book]"]
    assert (path, threads) == (clone, "1")
    (tmp_path / "genamp").mkdir()
    assert [command[1] for command in call(tmp_path, "x")[1][0]] == ["-m"]  # cloned before
    assert call(tmp_path, "x", hidden=False)[1] == [[], "", "1"]


@pytest.mark.parametrize(
    ("repository", "failing", "why"),
    [
        ("", "", "no address is set"),
        ("x", "git", "returned non-zero exit status"),
        ("x", sys.executable, "returned non-zero exit status"),
    ],
)
def test_what_cannot_be_installed_is_said(
    tmp_path: Path, repository: str, failing: str, why: str
) -> None:
    done, _ = call(tmp_path, repository, failing=failing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "genamp is not installed and could not be" in done.stderr
    assert why in done.stderr
    assert "Set `repository` above" in done.stderr


def test_the_address_stands_in_one_place(tmp_path: Path) -> None:
    assert repository_address(tmp_path) == ""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert repository_address(tmp_path) == ""
    urls = "[project.urls]\nRepository = 'https://example.org/genamp'\n"
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'x'\n{urls}")
    assert repository_address(tmp_path) == "https://example.org/genamp"
