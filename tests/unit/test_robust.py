"""What a machine can have wrong: one line and exit code 2, no traceback, nothing half written."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import TINY_CHAPTER, edit, without_progress

from genamp_lib import sharing
from genamp_lib.book.run import open_book, plan_run
from genamp_lib.cli import main

RUN = Path("_build") / "runs" / "default" / "01_tiny"


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Return a function that calls `genamp` in the tiny project: exit code, stdout, stderr."""
    monkeypatch.chdir(tiny_project)

    def genamp(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return (ended.value.code or 0, *capsys.readouterr())

    return genamp


def is_one_line(code: int, error: str) -> bool:
    lines = without_progress(error)
    return code == 2 and len(lines) == 1 and lines[0].startswith("error: ")


def in_a_process(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("genamp")), *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.run(command, cwd=folder, timeout=300, **options)


def spoil(project: Path, how: str) -> None:
    build = project / "_build"
    if how == "a file":
        build.write_text("no folder")
    elif how == "a dangling link":
        build.symlink_to(project / "gone" / "too")
    elif how == "a loop":
        build.symlink_to(build)
    elif how == "read-only":
        build.symlink_to("/sys/kernel")  # for root too


@pytest.mark.parametrize("how", ["a file", "a dangling link", "a loop", "read-only"])
@pytest.mark.parametrize("command", [["run", "1"], ["sweep", "1", "-p", "n_train", "4"], ["build"]])
def test_a_build_folder_that_is_none(
    tiny_project: Path, call: Call, how: str, command: list[str]
) -> None:
    spoil(tiny_project, how)
    code, _, error = call(*command)
    assert is_one_line(code, error), error
    assert "_build" in error or "/sys/kernel" in error


@pytest.mark.parametrize("how", ["a file", "a dangling link", "a loop", "read-only"])
def test_listing_needs_no_build_folder(tiny_project: Path, call: Call, how: str) -> None:
    spoil(tiny_project, how)
    assert call("chapters")[1].startswith("01_tiny: never run")
    assert call("runs") == (0, "", "")


@pytest.mark.parametrize(
    "command",
    [
        ["estimate", "differential", "loop.npy", "none.npy"],
        ["estimate", "averaging", "loop.npy", "none.npy", "--n-train", "9", "--regions", "0,1"],
        ["diagnose", "loop.npy", "none.npy"],
        ["estimate", "differential", "a.npy", "none.npy", "--json", "loop.json"],
    ],
)
def test_a_loop_of_links_is_no_file(tiny_project: Path, call: Call, command: list[str]) -> None:
    for name in ("loop.npy", "loop.json"):
        (tiny_project / name).symlink_to(name)
    (tiny_project / "a.npy").touch()
    code, _, error = call(*command)
    assert is_one_line(code, error), error
    assert "loop" in error
    assert (tiny_project / "loop.json").is_symlink()


def test_a_full_disk(tiny_project: Path) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = in_a_process(tiny_project, "run", "1", preexec_fn=no_room)
    assert is_one_line(done.returncode, done.stderr), done.stderr
    assert not (tiny_project / RUN).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_to_a_full_disk(tiny_project: Path) -> None:
    with open("/dev/full", "w") as full:
        done = in_a_process(tiny_project, "chapters", stdout=full)
    assert is_one_line(done.returncode, done.stderr), done.stderr


def test_a_home_that_cannot_be_written(tiny_project: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "JUPYTER"))}
    done = in_a_process(tiny_project, "run", "1", env={**environment, "HOME": "/proc/none"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "∞"), ("latin-1", r"\u221e")])
def test_a_terminal_that_lacks_letters(tiny_project: Path, encoding: str, shown: str) -> None:
    edit(tiny_project / "notebooks" / "01_tiny.md", "It counts.", "It counts ∞.")
    plain = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = in_a_process(tiny_project, "chapters", env=plain, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert f"It counts {shown}." in done.stdout


def test_a_broken_notebook_stops_only_itself(tiny_project: Path, call: Call) -> None:
    (tiny_project / "notebooks" / "02_bad.md").write_text(
        TINY_CHAPTER.replace("samples: []", "samples: [")
    )
    code, listed, problems = call("chapters")
    assert code == 0
    assert "01_tiny: never run" in listed
    assert problems.startswith("02_bad.md: ")
    for name in ("02_bad", "2", "02"):
        code, _, error = call("run", name)
        assert is_one_line(code, error), error
        assert "02_bad.md: " in error
    code, said, error = call("build")
    assert is_one_line(code, error), error
    assert "01_tiny: done in" in said
    assert "02_bad.md: " in error
    assert (tiny_project / RUN / "record.json").exists()
    assert not (tiny_project / "_build" / "site").exists()


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '"text"', "{}", '{"started": 5}', '{"artefacts": 5}']
)
def test_a_damaged_record_is_no_run(tiny_project: Path, call: Call, damage: str) -> None:
    (tiny_project / RUN).mkdir(parents=True)
    for name in ("results.json", "notebook.ipynb"):
        (tiny_project / RUN / name).write_text("{}")
    (tiny_project / RUN / "record.json").write_text(damage)
    assert call("chapters")[1].startswith("01_tiny: never run")
    assert json.loads(call("scoreboard", "--json")[1])[0]["verdict"] == "not run"


def test_a_damaged_notebook_or_list_of_numbers_is_named(tiny_project: Path, call: Call) -> None:
    assert call("run", "1")[0] == 0
    (tiny_project / RUN / "notebook.ipynb").write_text("{")
    code, _, error = call("build")
    assert is_one_line(code, error), error
    assert "notebook.ipynb: damaged; run `genamp run 01_tiny` again" in error
    (tiny_project / "book" / "paper_numbers.yml").write_text("- {id: [\n- a: b: c")
    for command in ("build", "scoreboard"):
        code, _, error = call(command)
        assert is_one_line(code, error), error
        assert "paper_numbers.yml: must be YAML" in error


@pytest.mark.parametrize("command", [["run", "1"], ["sweep", "1", "-p", "n_train", "4"]])
def test_a_scheduler_that_is_none_is_refused_before_the_run(
    tiny_project: Path, call: Call, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("genamp_lib.sharing.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, says nothing
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        code, _, error = call(*command, "--scheduler", address)
    assert is_one_line(code, error), error
    assert f"Dask scheduler {address}: cannot be reached" in error
    assert not list(tiny_project.glob("_build/**/results.json"))


def test_connecting_takes_ten_seconds_at_most() -> None:
    assert 2 * sharing.CONNECT_SECONDS <= 10  # asked once, then connected


def test_results_changed_by_hand_are_not_shown(tiny_project: Path, call: Call) -> None:
    assert call("run", "1")[0] == 0
    assert "01_tiny: fresh" in call("chapters")[1]
    edit(tiny_project / RUN / "results.json", '"value": 5.0', '"value": 6.0')
    assert "stale: its results.json was changed by hand" in call("chapters")[1]
    assert json.loads(call("scoreboard", "--json")[1])[0]["verdict"] == "not run"


def test_other_parameters_are_other_folders(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = tiny_project / "notebooks" / "01_tiny.md"
    edit(notebook, "upper: float", 'label: str = "a"  # a name\nupper: float')
    monkeypatch.chdir(tiny_project)
    book = open_book()

    def folder(**parameters: str) -> Path:
        return plan_run(book, book.find("1"), parameters).folder

    labels = ["a b", "ab", "a/b", "a:b", "a-b", "a" * 70, "a" * 71, "∞", ""]
    assert len({folder(label=label) for label in labels}) == len(labels)
    assert folder(label="ab").name == "label-ab"


def test_a_page_that_cannot_be_drawn_loses_no_run(tiny_project: Path, call: Call) -> None:
    (tiny_project / "book" / "_toc.yml").write_text("format: jb-book\nroot: nowhere\n")
    code, _, error = call("run", "1", "-p", "n_train", "4")
    assert is_one_line(code, error), error
    assert "the run is whole, but its page was not drawn; give --no-page" in error
    run = tiny_project / "_build" / "runs" / "custom-default" / "01_tiny" / "n_train-4"
    assert json.loads((run / "results.json").read_text())["results"]["answer"]["value"] == 2.0
    assert call("run", "1", "-p", "n_train", "4", "--no-page")[0] == 0
