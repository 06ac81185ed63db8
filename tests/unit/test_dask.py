"""A real Dask cluster of two processes: the integers of one process, also with a worker killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from genamp_lib import KolmogorovAccumulator, RegionCounter, sharing
from genamp_lib._project import GenampError
from genamp_lib.cli import main
from genamp_lib.files import counting as _count
from genamp_lib.files.columns import read_column
from genamp_lib.sharing import map_tasks

pytest.importorskip("distributed", reason="distributed is missing: pip install distributed")

EDGES = [-1.0, 0.0, 0.3, 2.0]
SNAPSHOTS = (10, 1000, 25_000, 60_000)
N_EVENTS, STEP = 60_000, 5000


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
    ) as cluster:
        yield cluster


@pytest.fixture
def scheduler(cluster):
    return cluster.scheduler_address


@pytest.fixture
def sample(tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "reference.npy", rng.normal(size=700).round(2))
    np.save(tmp_path / "generated.npy", rng.normal(size=N_EVENTS).round(2))
    return tmp_path


def tell(_):
    time.sleep(0.05)
    return os.getpid()


def test_both_workers_work(scheduler):
    pids = set(map_tasks(tell, range(40), scheduler=scheduler))
    assert os.getpid() not in pids
    assert len(pids) == 2


def count(folder, kill, start):
    """Count a part of the file; one worker is killed in mid-run, the first time."""
    time.sleep(0.05)
    if kill and start == 4 * STEP:
        try:
            (folder / kill).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    counter = RegionCounter(EDGES, snapshots=SNAPSHOTS, start=start)
    reference = np.load(folder / "reference.npy")
    accumulator = KolmogorovAccumulator(reference, snapshots=SNAPSHOTS, start=start)
    for block in read_column(folder / "generated.npy", start=start, stop=start + STEP):
        counter.update(block)
        accumulator.update(block)
    return counter, accumulator


def integers(parts):
    counter, accumulator = parts[0]
    for other_counter, other_accumulator in parts[1:]:
        counter.merge(other_counter)
        accumulator.merge(other_accumulator)
    assert counter.n_generated == accumulator.n_generated == N_EVENTS
    arrays = (
        counter.counts,
        *counter.curve(),
        *accumulator.cumulative_counts(),
        *accumulator.curve(),
    )
    assert len(counter.curve()[0]) == len(SNAPSHOTS)
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("kill", ["", "killed"])
@pytest.mark.parametrize("where", ["loky", "dask"])
def test_counts_are_the_same_alone_and_shared(sample, scheduler, where, kill):
    alone = integers(map_tasks(partial(count, sample, ""), range(0, N_EVENTS, STEP)))
    share = {"loky": {"jobs": 2}, "dask": {"scheduler": scheduler}}[where]
    shared = map_tasks(partial(count, sample, kill), range(0, N_EVENTS, STEP), **share)
    assert integers(shared) == alone
    assert (sample / "killed").exists() == bool(kill)
    values = np.load(sample / "generated.npy")
    assert alone[0] == np.histogram(values[values < EDGES[-1]], EDGES)[0].tobytes()


def test_a_scheduler_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(sharing, "CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense", "", "tcp://127.0.0.1:port"):
        with pytest.raises(GenampError, match=f"Dask scheduler {address}: cannot be reached"):
            map_tasks(abs, [1], scheduler=address)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_a_server_that_is_no_scheduler_is_not_waited_for(monkeypatch, answer):
    monkeypatch.setattr(sharing, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                while True:
                    served.append(server.accept()[0])
                    served[-1].sendall(answer)

        served = []
        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(GenampError, match=f"{address}: cannot be reached"):
            map_tasks(abs, [1], scheduler=address)
        assert served
        for connection in served:
            connection.close()


def test_clusters_without_workers_and_lost_schedulers(monkeypatch, tmp_path):
    """What no nanny repairs: no worker at all, the only worker killed, the scheduler killed."""
    monkeypatch.setattr(sharing, "CONNECT_SECONDS", 1.5)
    monkeypatch.setattr(sharing, "NO_WORKERS_SECONDS", 0.5)
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, *options, "--scheduler-file", str(address_file)], **quiet)
    workers = []
    try:
        address = wait_for_address(address_file)
        with pytest.raises(GenampError, match="has no workers; start some with `dask worker tcp"):
            map_tasks(abs, [1], scheduler=address)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
        command += ["--no-nanny", "--no-dashboard"]
        workers.append(subprocess.Popen(command, **quiet))
        monkeypatch.setattr(sharing, "CONNECT_SECONDS", 20.0)
        # One thread in all: also then it is the worker that works.
        assert map_tasks(os.path.abspath, ["."], scheduler=address) == [str(tmp_path)]
        with pytest.raises(GenampError, match="Dask workers are all gone; start some"):
            map_tasks(os._exit, [1], scheduler=address)
        workers.append(subprocess.Popen(command, **quiet))
        with pytest.raises(GenampError, match="lost in mid-run"):
            map_tasks(partial(os.kill, scheduler.pid), [signal.SIGKILL], scheduler=address)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def wait_for_address(path):
    import json

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return json.loads(path.read_text())["address"]
        except (OSError, ValueError, KeyError):
            time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


@pytest.mark.parametrize("where", [["--jobs", "2"], ["--scheduler"]])
def test_the_command_writes_the_same_file_byte_for_byte(
    sample, scheduler, where, monkeypatch, capsys
):
    monkeypatch.chdir(sample)
    monkeypatch.setattr(_count, "PART_EVENTS", 7000)
    monkeypatch.setattr(_count, "WORTH_SHARING", 0)
    rng = np.random.default_rng(2)
    for k in range(4):
        np.save(f"member_{k}.npy", rng.normal(0.02 * k, size=20_000))
    np.savetxt("holdout.csv", rng.normal(size=2000))
    where = [*where, scheduler] if where == ["--scheduler"] else where
    members = [f"member_{k}.npy" for k in range(4)]
    commands = {
        "averaging": [*members, "--n-train", "700", "--regions", "0,0.5,1"],
        "differential": ["reference.npy", "generated.npy", "--holdout", "holdout.csv"],
    }
    for command, arguments in commands.items():
        for output, how in (("alone.json", []), ("shared.json", where)):
            with pytest.raises(SystemExit) as caught:
                main(["estimate", command, *arguments, *how, "--json", output])
            assert not caught.value.code
        assert Path("alone.json").read_bytes() == Path("shared.json").read_bytes()
    outputs = capsys.readouterr().out.replace("shared.json", "alone.json").split("Written to")
    assert outputs[0] == outputs[1].partition("alone.json.\n")[2]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(task):
    raise KeyError("task", task)


class Unreadable:
    """Comes out of a pickle as an error, as what a worker has no module for."""

    def __reduce__(self):
        return _missing, ()


def _missing():
    raise ModuleNotFoundError("No module named 'elsewhere'")


def test_what_goes_wrong_is_said(scheduler):
    """The last test: it kills one worker after the other."""
    with pytest.raises(KeyError, match="task"):
        map_tasks(fail, range(3), scheduler=scheduler)
    with pytest.raises(GenampError, match="Dask could not run a task") as caught:
        map_tasks(abs, [Unreadable()], scheduler=scheduler)
    assert "\n" not in str(caught.value)
    with pytest.raises(GenampError, match="Dask workers died 4 times in the same task"):
        map_tasks(die, [1], scheduler=scheduler)
    assert map_tasks(abs, [-1], scheduler=scheduler) == [1]  # its nannies start new workers
