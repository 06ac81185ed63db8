"""Sweeps on a tiny project: what is run, what is kept, the table and the figure; own runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tests_support import edit

from genamp_lib._project import GenampError
from genamp_lib.book.run import ChapterFailed
from genamp_lib.book.sweep import plan_sweep, sweep
from genamp_lib.plotting.sweep import plot_sweep

NOTEBOOK = Path("notebooks") / "01_tiny.md"
RUNS = Path("_build") / "runs" / "custom-default" / "01_tiny"
GRID = ["-p", "n_train", "4,8", "-p", "upper", "0.5,2"]


def table_of(text: str) -> pd.DataFrame:
    path = next(line for line in text.splitlines() if line.startswith("table: "))
    return pd.read_csv(path.removeprefix("table: "))


def started(project: Path) -> dict[str, int]:
    records = {path.parent.name: path for path in (project / RUNS).glob("*/record.json")}
    return {name: path.stat().st_mtime_ns for name, path in records.items()}


def test_a_grid_becomes_one_table_and_a_figure(tiny_project: Path, genamp) -> None:
    done = genamp(tiny_project, "sweep", "1", *GRID, "--plot", "answer", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert "4 points, 4 to run" in done.stdout
    assert "01_tiny n_train=4 upper=0.5: done in" in done.stdout
    table = table_of(done.stdout)
    assert table["value"].tolist() == [2.0, 8.0, 4.0, 16.0]
    assert (table["n_train"] * table["upper"]).tolist() == table["value"].tolist()
    assert set(table["result"]) == {"answer"}
    figure = Path(done.stdout.strip().splitlines()[-1].removeprefix("figure: "))
    assert figure.name.endswith("answer-over-n_train.svg")
    assert "<svg" in figure.read_text()

    before = started(tiny_project)
    wider = genamp(tiny_project, "sweep", "1", "-p", "n_train", "4,8,9", "-p", "upper", "0.5,2")
    assert "6 points, 2 to run" in wider.stdout
    assert len(table_of(wider.stdout)) == 6
    assert {name: started(tiny_project)[name] for name in before} == before
    over = ["--plot", "answer", "--over", "upper"]
    again = genamp(tiny_project, "sweep", "1", *GRID, *over)
    assert "4 points, 0 to run" in again.stdout
    assert "answer-over-upper.svg" in again.stdout
    wrong = genamp(tiny_project, "sweep", "1", *GRID, "--plot", "anser")
    assert wrong.returncode == 2
    assert "no result `anser`" in wrong.stderr
    assert "did you mean `answer`?" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a sweep needs values of a parameter"),
        (["-p", "n_train", "4,-1"], "`n_train` must be in [1, inf), got -1"),
        (["-p", "n_trian", "4,5"], "did you mean `n_train`?"),
        (["-p", "n_train", "4,,5"], "`n_train` must be int, got ''"),
        (["-p", "n_train", "4", "--over", "upper"], "--over must be a parameter of -p"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(
    tiny_project: Path, genamp, arguments: list[str], message: str
) -> None:
    done = genamp(tiny_project, "sweep", "1", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tiny_project / "_build").exists()


def test_a_killed_sweep_continues(tiny_project: Path, genamp) -> None:
    edit(
        tiny_project / NOTEBOOK,
        "results = Results",
        "from pathlib import Path\nimport time\n"
        "time.sleep(120 if n_train == 8 and not Path('_build/quick').exists() else 0)\n"
        "results = Results",
    )
    command = [str(Path(sys.executable).with_name("genamp")), "sweep", "1", "-p", "n_train"]
    process = subprocess.Popen(
        [*command, "4,8,9", "-j", "1"], cwd=tiny_project, stdout=subprocess.PIPE, text=True
    )
    assert "3 points, 3 to run" in process.stdout.readline()
    assert "n_train=4: done" in process.stdout.readline()  # at once, though it is a pipe
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # nobody holds the pipe any more
    assert process.returncode == -signal.SIGKILL
    before = started(tiny_project)
    assert list(before) == ["n_train-4"]
    (tiny_project / "_build" / "quick").touch()
    done = genamp(tiny_project, "sweep", "1", "-p", "n_train", "4,8,9", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert "3 points, 2 to run" in done.stdout
    assert table_of(done.stdout)["value"].tolist() == [2.0, 4.0, 4.5]
    assert started(tiny_project)["n_train-4"] == before["n_train-4"]
    left = {path.name for path in (tiny_project / RUNS).iterdir()}
    assert {name for name in left if "partial" in name} == set()


def test_a_point_that_fails_stops_no_other(tiny_project: Path, genamp) -> None:
    edit(tiny_project / NOTEBOOK, "n_train * upper", "n_train / (n_train - 8)")
    done = genamp(tiny_project, "sweep", "1", "-p", "n_train", "4,8,9", "-j", "1")
    assert done.returncode == 1
    assert "n_train=8: failed" in done.stdout
    assert "ZeroDivisionError" in done.stderr
    table = pd.read_csv(done.stderr.strip().splitlines()[-1].partition(": ")[2])
    assert table["value"].tolist() == [-1.0, 9.0]


def test_a_sweep_from_python(tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_project)
    table = pd.read_csv(sweep("1", {"n_train": np.array([3, 5]), "upper": 2.0}))
    assert table["value"].tolist() == [6.0, 10.0]
    with pytest.raises(GenampError, match="must be in"):
        plan_sweep("1", {"n_train": [3, 0]})
    with pytest.raises(GenampError, match="needs values of a parameter"):
        plan_sweep("1", {"n_train": []})
    edit(tiny_project / NOTEBOOK, "n_train * upper", "n_train / 0")
    with pytest.raises(ChapterFailed, match="ZeroDivisionError"):
        sweep("1", {"n_train": [3]})


def test_lists_are_separated_by_semicolons(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(tiny_project / NOTEBOOK, "upper: float", "sizes: list[int] = [1]  # numbers\nupper: float")
    monkeypatch.chdir(tiny_project)
    grid = plan_sweep("1", {"sizes": "1,2;3", "n_train": 4})
    assert [job.changed for job in grid.jobs] == [
        {"sizes": [1, 2], "n_train": 4},
        {"sizes": [3], "n_train": 4},
    ]


def test_own_runs_are_listed_compared_and_removed(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "runs").stdout == ""
    for value in ("4", "8"):
        done = genamp(tiny_project, "run", "1", "-p", "n_train", value, "--no-page")
        assert done.returncode == 0, done.stderr
        assert "page:" not in done.stdout
    names = [f"custom-default/01_tiny/n_train-{value}" for value in (4, 8)]
    listed = genamp(tiny_project, "runs").stdout.splitlines()
    assert [line.partition(": ")[0] for line in listed] == names
    assert not (tiny_project / "_build/runs" / names[0] / "site").exists()
    compared = genamp(tiny_project, "runs", "compare", *names).stdout
    row = next(line for line in compared.splitlines() if "answer" in line)
    assert "2" in row
    assert "4" in row
    assert genamp(tiny_project, "runs", "remove", names[0]).returncode == 0
    assert len(genamp(tiny_project, "runs").stdout.splitlines()) == 1
    assert [path.name for path in (tiny_project / RUNS).glob("*4*")] == []
    refused = genamp(tiny_project, "runs", "remove", "default/01_tiny")
    assert refused.returncode == 2
    assert refused.stderr == f"error: no run `default/01_tiny`; there is {names[1]}\n"


def test_results_as_json_and_nothing_else(tiny_project: Path, genamp) -> None:
    done = genamp(tiny_project, "run", "1", "-p", "n_train", "4", "--no-page", "--json")
    content = json.loads(done.stdout)
    assert content["results"]["answer"]["value"] == 2.0
    assert os.path.samefile(content["folder"], tiny_project / RUNS / "n_train-4")


def test_a_figure_shows_endless_intervals_and_wide_ranges() -> None:
    inf, nan = np.inf, np.nan
    axes = plot_sweep([1, 30, 90], [2.0, 3.0, inf], [1.0, 2.0, 4.0], [3.0, inf, inf], label="a")
    triangles = [line for line in axes.lines if line.get_marker() == "^"]
    assert triangles[0].get_xydata().tolist() == [[30.0, 3.0]]
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == "linear"
    assert np.isfinite(axes.get_ylim()).all()
    again = plot_sweep([5, 6], [-1.0, 900.0], [nan, nan], [nan, nan], ax=axes)
    assert again is axes
    plt.close(axes.figure)
