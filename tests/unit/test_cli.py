"""The command line: help that teaches, and nothing heavy imported to show it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import genamp_lib
from genamp_lib.cli import join_pairs, main

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


@pytest.mark.parametrize(
    "command", ["chapters", "run", "build", "serve", "export", "scoreboard", "data"]
)
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
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has"):
        _ = genamp_lib.nothing


def test_the_version(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "--version").stdout == f"genamp {genamp_lib.__version__}\n"


def test_the_chapters_are_whole_at_any_width(
    tiny_project: Path, genamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = "It counts, " + "and counts, " * 20
    notebook = tiny_project / "notebooks" / "01_tiny.md"
    notebook.write_text(notebook.read_text().replace("It counts.", summary.strip(", ")))
    monkeypatch.setenv("COLUMNS", "40")
    listed = genamp(tiny_project, "chapters").stdout
    assert "01_tiny: never run\n" in listed
    assert summary.strip(", ") in listed


def test_a_preset_that_changes_nothing_is_said(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_project)
    (tiny_project / "notebooks" / "presets" / "paper.yml").write_text("01_tiny: {n_train: 10}\n")
    for preset, is_same in (("default", False), ("smoke", False), ("paper", True)):
        with pytest.raises(SystemExit):
            main(["chapters", "--preset", preset])
        listed = capsys.readouterr().out
        assert ("; paper changes none of its parameters" in listed) == is_same


def test_a_chapter_shows_all_its_parameters(tiny_project: Path, genamp) -> None:
    shown = genamp(tiny_project, "chapters", "1").stdout
    assert [re.split(" {2,}", line) for line in shown.splitlines()] == [
        ["parameter", "type", "default", "allowed", "meaning"],
        ["seed", "int", "1", "[1, inf)", "seed of the random numbers"],
        ["n_train", "int", "10", "[1, inf)", "training events"],
        ["upper", "float", "0.5", "(0, inf)", "upper edge"],
    ]
    smoke = genamp(tiny_project, "chapters", "01_tiny", "--preset", "smoke").stdout
    assert re.search(r"^n_train +int +2 ", smoke, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("genamp run 01_", "01_tiny"),
        ("genamp chapters 01_", "01_tiny"),
        ("genamp run 01_tiny -p n_", "n_train"),
        ("genamp run 01_tiny -p n_train 20 -p up", "upper"),
        ("genamp run -p n_", ""),
    ],
)
def test_a_shell_completes_chapters_and_parameters(
    tiny_project: Path, genamp, monkeypatch: pytest.MonkeyPatch, typed: str, offered: str
) -> None:
    monkeypatch.setenv("_GENAMP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert genamp(tiny_project).stdout.strip() == offered


def test_a_chapter_opens_in_jupyterlab_with_one_thread(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_project)
    started = []

    def run(command: list[str], env: dict[str, str]) -> SimpleNamespace:
        started.append((command, env["OMP_NUM_THREADS"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("genamp_lib.cli.book.subprocess.run", run)
    for found, code in ((object(), 0), (None, 2)):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        with pytest.raises(SystemExit) as ended:
            main(["lab", "1"])
        assert (ended.value.code or 0) == code
    [(command, threads)] = started
    assert command[1:3] == ["-m", "jupyterlab"]
    assert command[-1].endswith("/lab/tree/notebooks/01_tiny.md")
    assert threads == "1"
    error = capsys.readouterr().err
    assert error.startswith("error: `jupyterlab` is not installed")
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["-5", "0", "nan", "1e3", "2.5", "0100", "2020-01-01", "1:30"])
def test_a_value_that_cannot_be_is_refused_before_anything_runs(
    tiny_project: Path, genamp, value: str
) -> None:
    done = genamp(tiny_project, "run", "01_tiny", "-p", "n_train", value)
    assert done.returncode == 2
    assert done.stderr.startswith("error: parameter `n_train` must be ")
    assert f"got {value!r}" in done.stderr or f"got {value}; its default is 10" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tiny_project / "_build").exists()
