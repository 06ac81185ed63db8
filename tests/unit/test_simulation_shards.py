"""Shards: the same bits for any number of processes and after a kill; nothing wrong is reused."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.simulation.shards import (
    LARGEST_SEED,
    merge_shards,
    run_shards,
    shard_seed,
    total_counts,
)

SETTINGS = {"length": 5, "window": [1.0, 2.0]}


def toy():
    # Made in a function so that it travels to the processes by value.
    def make(index, seed):
        rng = np.random.default_rng(seed)
        n_rows = 3 + index % 3
        return {"x": rng.normal(size=(n_rows, 2)), "index": np.full(n_rows, index)}

    return make


def run(folder, n_shards=4, *, seed=7, jobs=1, settings=SETTINGS):
    return run_shards(toy(), n_shards, seed=seed, folder=folder, settings=settings, jobs=jobs)


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def test_merged_in_shard_order_with_one_seed_per_shard(tmp_path):
    shards = run(tmp_path)
    arrays = merge_shards(shards)
    assert [shard.n_rows for shard in shards] == [3, 4, 5, 3]
    assert np.array_equal(arrays["index"], np.repeat([0, 1, 2, 3], [3, 4, 5, 3]))
    expected = [toy()(index, shard_seed(7, index))["x"] for index in range(4)]
    assert np.array_equal(arrays["x"], np.concatenate(expected))


def test_two_processes_give_the_same_bits(tmp_path):
    one, two = run(tmp_path / "one", jobs=1), run(tmp_path / "two", jobs=2)
    assert same(merge_shards(one), merge_shards(two))


def test_seeds_are_in_range_and_differ():
    seeds = [shard_seed(seed, index) for seed in range(20) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1
    assert max(seeds) <= LARGEST_SEED


def test_finished_shards_are_not_made_again(tmp_path):
    run(tmp_path, 3)

    def refuse(index, seed):
        if index < 3:
            raise AssertionError("made again")
        return toy()(index, seed)

    shards = run_shards(refuse, 4, seed=7, folder=tmp_path, settings=SETTINGS)
    assert same(merge_shards(shards), merge_shards(run(tmp_path / "new", 4)))


def test_killed_run_continues_to_the_same_result(tmp_path):
    script = """
        import sys, time
        import numpy as np
        from genamp_lib.simulation.shards import run_shards

        def slow(index, seed):
            time.sleep(0.2)
            rng = np.random.default_rng(seed)
            n_rows = 3 + index % 3
            return {"x": rng.normal(size=(n_rows, 2)), "index": np.full(n_rows, index)}

        settings = {"length": 5, "window": [1.0, 2.0]}
        run_shards(slow, 30, seed=7, folder=sys.argv[1], settings=settings)
    """
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(folder)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("shard-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    n_finished = len(list(folder.glob("shard-*.json")))
    assert 2 <= n_finished < 30
    assert same(merge_shards(run(folder, 30)), merge_shards(run(tmp_path / "whole", 30)))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {**SETTINGS, "length": 6}},
        {"settings": {**SETTINGS, "extra": 1}},
        {"seed": 8},
    ],
)
def test_shards_of_other_settings_are_not_used(tmp_path, change):
    run(tmp_path)
    run(tmp_path, **change)
    assert len(list(tmp_path.glob("shard-*.json"))) == 8


def test_tuples_in_settings_are_the_lists_that_json_gives_back(tmp_path):
    run(tmp_path, settings={"window": (1.0, 2.0)})
    run(tmp_path, settings={"window": [1.0, 2.0]})
    assert len(list(tmp_path.glob("shard-*.json"))) == 4


def test_shards_with_one_seed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genamp_lib.simulation.shards.shard_seed", lambda seed, index: 5)
    with pytest.raises(GenampError, match="two shards the same seed"):
        run(tmp_path)


def test_arrays_of_different_lengths_are_refused(tmp_path):
    def uneven(index, seed):
        return {"x": np.zeros(2), "y": np.zeros(3)}

    with pytest.raises(ValueError, match="one length, got"):
        run_shards(uneven, 1, seed=1, folder=tmp_path, settings={})


def test_counts_are_kept_over_runs(tmp_path):
    def make(index, seed):
        return toy()(index, seed), {"events": 10, "kept": np.int64(3 + index % 3)}

    for _ in range(2):  # made, then read from the records
        shards = run_shards(make, 4, seed=7, folder=tmp_path, settings=SETTINGS)
        assert [shard.counts["kept"] for shard in shards] == [3, 4, 5, 3]
        assert total_counts(shards) == {"events": 40, "kept": 15}
    assert total_counts(run(tmp_path / "without")) == {}
