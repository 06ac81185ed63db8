"""Sharing tasks: the same results in the same order, also when workers die; errors of one line."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from genamp_lib import sharing
from genamp_lib._project import GenampError
from genamp_lib.sharing import (
    JOBS_VARIABLE,
    SCHEDULER_VARIABLE,
    finished_tasks,
    map_tasks,
    progress,
)


def draw(seed):
    return np.random.default_rng(seed).normal(size=100 + seed).cumsum()


def die_once(marker, task):
    """Kill the worker in the middle of the tasks, the first time."""
    time.sleep(0.02)
    if task == 30:
        try:
            Path(marker).touch(exist_ok=False)
        except FileExistsError:
            return task
        os.kill(os.getpid(), signal.SIGKILL)
    with open(f"{marker}.calls", "a") as handle:
        handle.write(f"{task}\n")
    return task


def die(task):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(task):
    if task == 3:
        raise KeyError("three", task)
    return task


def threads(task):
    return [os.environ.get(f"{name}_NUM_THREADS") for name in ("OMP", "OPENBLAS", "MKL")]


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_in_order_and_the_same_bits(jobs):
    results = map_tasks(draw, range(20), jobs=jobs)
    assert len(results) == 20
    for seed, result in enumerate(results):
        assert result.tobytes() == draw(seed).tobytes()


def test_work_is_done_in_other_processes_with_one_thread_each():
    pids = set(map_tasks(partial(sleep_and_tell, 0.05), range(8), jobs=2))
    assert os.getpid() not in pids
    assert map_tasks(threads, range(2), jobs=2) == [["1", "1", "1"]] * 2


def sleep_and_tell(seconds, _):
    time.sleep(seconds)
    return os.getpid()


def test_work_is_shared_as_the_run_says_and_not_shared_on(monkeypatch):
    tell = partial(sleep_and_tell, 0.05)
    monkeypatch.setenv(JOBS_VARIABLE, "2")
    assert os.getpid() not in set(map_tasks(tell, range(4)))
    assert set(map_tasks(tell, range(4), jobs=1)) == {os.getpid()}  # an argument comes first
    assert all(len(set(pids)) == 1 for pids in map_tasks(share_on, range(2)))
    monkeypatch.setenv(SCHEDULER_VARIABLE, "nonsense")
    with pytest.raises(GenampError, match="Dask scheduler nonsense: cannot be reached"):
        map_tasks(tell, range(4))
    monkeypatch.delenv(SCHEDULER_VARIABLE)
    monkeypatch.setenv(JOBS_VARIABLE, "two")
    with pytest.raises(GenampError, match="`jobs` must be a whole number of at least 1, got 'two'"):
        map_tasks(tell, range(4))


def share_on(_):
    return map_tasks(partial(sleep_and_tell, 0.0), range(4))


def test_no_tasks():
    assert map_tasks(draw, [], jobs=2) == []


def test_a_killed_worker_costs_only_the_unfinished_tasks(tmp_path):
    marker = tmp_path / "killed"
    assert map_tasks(partial(die_once, marker), range(40), jobs=2) == list(range(40))
    assert marker.exists()
    calls = (tmp_path / "killed.calls").read_text().split()
    assert set(calls) == {str(k) for k in range(40) if k != 30}
    # What both workers had begun or not yet handed back, no more.
    assert len(calls) < 50


def test_a_worker_that_always_dies_is_one_line():
    with pytest.raises(GenampError, match=r"died 4 times \(unfinished tasks: \d\)") as caught:
        map_tasks(die, range(2), jobs=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("jobs", [1, 2])
def test_exceptions_of_a_task_come_through(jobs):
    with pytest.raises(KeyError) as caught:
        map_tasks(fail, range(6), jobs=jobs)
    assert caught.value.args == ("three", 3)
    assert map_tasks(fail, range(3), jobs=jobs) == [0, 1, 2]


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_jobs_must_be_a_positive_number(jobs):
    with pytest.raises(GenampError, match="`jobs` must be a whole number of at least 1, got"):
        map_tasks(draw, range(2), jobs=jobs)


def test_what_cannot_travel_is_refused_by_name():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="`function` must be picklable"):
        map_tasks(lambda task: lock, range(2), jobs=2)
    with pytest.raises(TypeError, match="`tasks` must be picklable"):
        map_tasks(draw, [lock, lock], jobs=2)
    assert map_tasks(lambda task: lock, range(2)) == [lock, lock]


def test_without_distributed_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GenampError, match=r"run `pip install 'distributed"):
        map_tasks(draw, range(2), scheduler="tcp://127.0.0.1:8786")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    map_tasks(draw, range(3), label="members", done=2)
    assert "members" in sys.stderr.getvalue()
    assert "5/5" in sys.stderr.getvalue()


def test_progress_is_plain_lines_elsewhere_for_long_work_only(monkeypatch, capsys):
    map_tasks(draw, range(30), label="members")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sharing, "LINE_SECONDS", 0.0)
    map_tasks(draw, range(30), label="members", done=10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("members: 13 of 40, ")
    assert lines[-1].startswith("members: 40 of 40, ")
    assert lines[-1].endswith("about 0 s left")
    with progress("members", 3) as advance:
        advance()
    assert capsys.readouterr().err.startswith("members: 1 of 3, 0 s, about 0 s left")


def test_results_that_come_one_by_one_leave_no_setting_behind():
    """Work inside the loop is not drawn into the workers of the loop; stopping early is fine."""
    stream = finished_tasks(draw, range(20), jobs=2)
    index, result = next(stream)
    assert result.tobytes() == draw(index).tobytes()
    assert map_tasks(sleep_not, range(2)) == [os.getpid()] * 2
    stream.close()
    assert map_tasks(abs, [-1, 2], jobs=2) == [1, 2]


def sleep_not(_):
    return os.getpid()


SLEEPY = """
import os, subprocess, sys, time
from pathlib import Path
from genamp_lib.sharing import map_tasks

def work(task):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(120 if task == "sleep" else 0.3)

if __name__ == "__main__":
    map_tasks(work, [sys.argv[2]] * 2, jobs=4)
"""


def sleepy(folder: Path, task: str) -> subprocess.Popen:
    (folder / "workers").mkdir()
    (folder / "sleepy.py").write_text(SLEEPY)
    command = [sys.executable, str(folder / "sleepy.py"), str(folder / "workers"), task]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path: Path, which: signal.Signals) -> None:
    process = sleepy(tmp_path, "sleep")
    while len(list((tmp_path / "workers").iterdir())) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(which)
    process.communicate(timeout=30)  # the pipe closes when nobody holds it
    assert process.returncode == -which


def test_no_more_workers_than_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    asked = []
    real = joblib.Parallel

    def parallel(*, n_jobs, **options):
        asked.append(n_jobs)
        return real(n_jobs=n_jobs, **options)

    monkeypatch.setattr(joblib, "Parallel", parallel)
    assert map_tasks(abs, [-1, -2], jobs=16) == [1, 2]
    assert asked == [2]
