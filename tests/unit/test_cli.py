"""The command line: help that teaches, and nothing heavy imported to show it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from genamp_lib.cli import join_pairs

HEAVY = {"torch", "scipy", "matplotlib", "papermill", "jupytext", "sphinx", "h5py", "pandas"}


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules, sep=chr(10), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_importing_the_library_imports_nothing_heavy() -> None:
    assert not modules_after("import genamp_lib") & HEAVY


def test_help_imports_nothing_heavy() -> None:
    statement = (
        "from genamp_lib.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass"
    )
    assert not modules_after(statement) & HEAVY


def test_the_statistics_import_no_torch() -> None:
    statement = "import genamp_lib\nfor name in genamp_lib.__all__: getattr(genamp_lib, name)"
    assert "torch" not in modules_after(statement)


@pytest.mark.parametrize("command", ["chapters", "run", "build", "serve", "scoreboard", "data"])
def test_every_command_has_help(command: str) -> None:
    genamp = [sys.executable, "-c", "from genamp_lib.cli import main; main()", command, "--help"]
    done = subprocess.run(genamp, capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stdout) > 300


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["run", "x", "-p", "a", "1"], ["run", "x", "-p", "a=1"]),
        (["run", "x", "-p", "a=1", "--fresh"], ["run", "x", "-p", "a=1", "--fresh"]),
        (["run", "x", "--parameter", "a", "-1"], ["run", "x", "--parameter", "a=-1"]),
        (["run", "x", "-p", "a"], ["run", "x", "-p", "a"]),
        (["run", "x", "-p"], ["run", "x", "-p"]),
    ],
)
def test_pairs(given: list[str], joined: list[str]) -> None:
    assert join_pairs(given) == joined


def test_an_unknown_name_of_the_library_is_an_attribute_error() -> None:
    import genamp_lib

    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has"):
        _ = genamp_lib.nothing
