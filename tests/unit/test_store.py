"""The artefact store: what it finds, what it refuses, and what a kill leaves behind."""

import hashlib
import json
import os
import re
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from genamp_lib import store as artefacts
from genamp_lib._project import GenampError
from genamp_lib.sharing import map_tasks
from genamp_lib.store import FRESH_VARIABLE, ArtefactStore, Stage

STAGE = Stage("demo", version=1, configuration={"seed": 3, "rates": [0.1, 0.2]}, inputs={"a": "00"})
ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "n": np.array([1, 2], dtype=np.int64)}


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


def never():
    raise AssertionError("was computed although it is there")


def compute(store, stage, function):
    return store.compute(stage, lambda _: function(), None)


def path_of(store, stage=STAGE, folder="local"):
    return getattr(store, folder) / f"{stage.name}-{stage.key}.safetensors"


class TestStage:
    def test_key_is_stable(self):
        # Published artefacts are found by this key: a change of the format loses all of them.
        text = (
            '{"configuration": {"rates": [0.1, 0.2], "seed": 3}, "inputs": {"a": "00"}, '
            '"name": "demo", "version": 1}'
        )
        assert STAGE.key == hashlib.sha256(text.encode()).hexdigest()[:16]

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"version": 2},
            {"configuration": {"seed": 4, "rates": [0.1, 0.2]}},
            {"configuration": {"seed": 3, "rates": [0.2, 0.1]}},
            {"configuration": {}},
            {"inputs": {"a": "01"}},
            {"inputs": {}},
        ],
    )
    def test_any_change_changes_the_key(self, change):
        assert replace(STAGE, **change).key != STAGE.key

    def test_order_of_the_configuration_does_not(self):
        turned = {"rates": [0.1, 0.2], "seed": 3}
        assert replace(STAGE, configuration=turned).key == STAGE.key

    def test_nan_has_no_key(self):
        with pytest.raises(ValueError, match="not JSON compliant"):
            replace(STAGE, configuration={"x": float("nan")}).key  # noqa: B018


class TestStore:
    def test_computes_once(self, store):
        first = compute(store, STAGE, lambda: ARRAYS)
        second = compute(store, STAGE, never)
        for arrays in (first, second):
            assert arrays.keys() == ARRAYS.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, ARRAYS[name])
                assert array.dtype == ARRAYS[name].dtype
        assert [used["origin"] for used in store.used] == ["computed", "local"]
        assert store.used[0]["sha256"] == store.used[1]["sha256"]
        assert store.used[0]["artefact"] == f"demo-{STAGE.key}"

    def test_published_comes_first(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        store.local.rename(store.published)
        compute(store, STAGE, never)
        assert store.used[-1]["origin"] == "published"

    def test_strided_arrays_are_kept_as_they_look(self, store):
        array = np.arange(12.0).reshape(3, 4).T[::2]
        compute(store, STAGE, lambda: {"x": array})
        np.testing.assert_array_equal(compute(store, STAGE, never)["x"], array)

    def test_other_key_is_computed(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        other = compute(store, replace(STAGE, version=2), lambda: {"x": np.zeros(1)})
        assert other["x"].tolist() == [0.0]

    def test_fresh_computes_again_and_replaces(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        fresh = ArtefactStore(published=store.published, local=store.local, fresh=True)
        compute(fresh, STAGE, lambda: {"x": np.ones(2)})
        assert fresh.used[0]["origin"] == "computed"
        assert compute(store, STAGE, never)["x"].tolist() == [1.0, 1.0]

    def test_fresh_does_not_compute_its_own_again(self, store):
        fresh = ArtefactStore(published=store.published, local=store.local, fresh=True)
        compute(fresh, STAGE, lambda: ARRAYS)
        compute(fresh, STAGE, never)
        assert [used["origin"] for used in fresh.used] == ["computed", "computed"]

    @pytest.mark.parametrize(("value", "fresh"), [("1", True), ("", False), ("0", False)])
    def test_fresh_from_the_environment(self, tmp_path, monkeypatch, value, fresh):
        monkeypatch.setenv(FRESH_VARIABLE, value)
        assert ArtefactStore(published=tmp_path, local=tmp_path).fresh is fresh

    def test_record_says_what_it_is(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        record = json.loads(path_of(store).with_suffix(".json").read_text())
        assert record["key"] == STAGE.key
        assert record["configuration"] == STAGE.configuration
        assert record["inputs"] == STAGE.inputs
        assert record["version"] == 1
        assert record["sha256"] == store.used[0]["sha256"]
        assert record["wall_seconds"] >= 0.0

    def test_failed_computation_leaves_nothing(self, store):
        def fails():
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            compute(store, STAGE, fails)
        assert not list(store.local.glob("*")) if store.local.exists() else True
        assert store.used == []


class TestDamage:
    @pytest.mark.parametrize("folder", ["local", "published"])
    def test_changed_byte(self, store, folder):
        compute(store, STAGE, lambda: ARRAYS)
        if folder == "published":
            store.local.rename(store.published)
        path = path_of(store, folder=folder)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(GenampError, match=r"damaged, its checksum differs .* --fresh"):
            compute(store, STAGE, never)

    def test_truncated_file(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        path = path_of(store)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(GenampError, match="damaged"):
            compute(store, STAGE, never)

    def test_record_without_file(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        path_of(store).unlink()
        with pytest.raises(GenampError, match=r"has a record but no \.safetensors; remove demo-"):
            compute(store, STAGE, never)

    def test_damaged_record(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        path_of(store).with_suffix(".json").write_text("{")
        with pytest.raises(GenampError, match=r"must be JSON, got .*; remove the file"):
            compute(store, STAGE, never)

    @pytest.mark.parametrize("record", ["[]", "{}", '{"key": "0123456789abcdef"}'])
    def test_foreign_record(self, store, record):
        compute(store, STAGE, lambda: ARRAYS)
        path_of(store).with_suffix(".json").write_text(record)
        with pytest.raises(GenampError, match=f"record must have key {STAGE.key}; remove"):
            compute(store, STAGE, never)

    def test_artefact_of_another_stage_under_this_name(self, store):
        other = replace(STAGE, version=2)
        compute(store, other, lambda: ARRAYS)
        for suffix in (".safetensors", ".json"):
            old, new = path_of(store, other), path_of(store)
            old.with_suffix(suffix).rename(new.with_suffix(suffix))
        with pytest.raises(GenampError, match=f"record must have key {STAGE.key}"):
            compute(store, STAGE, never)

    def test_not_a_safetensors_file(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        path = path_of(store)
        path.write_bytes(b"something else")
        record = json.loads(path.with_suffix(".json").read_text())
        record["sha256"] = artefacts.sha256_of_file(path)
        path.with_suffix(".json").write_text(json.dumps(record))
        with pytest.raises(GenampError, match="not a safetensors file"):
            compute(store, STAGE, never)

    def test_message_names_what_to_remove(self, store):
        compute(store, STAGE, lambda: ARRAYS)
        path_of(store).unlink()
        with pytest.raises(GenampError, match=re.escape(str(store.local))):
            compute(store, STAGE, never)


class TestInterruption:
    def test_kill_while_computing(self, store):
        def killed():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compute(store, STAGE, killed)
        assert compute(store, STAGE, lambda: ARRAYS).keys() == ARRAYS.keys()

    def test_kill_while_writing_the_arrays(self, store, monkeypatch):
        def half(arrays, path):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(artefacts, "save_file", half)
            with pytest.raises(KeyboardInterrupt):
                compute(store, STAGE, lambda: ARRAYS)
        assert list(store.local.iterdir()) == []
        compute(store, STAGE, lambda: ARRAYS)
        compute(store, STAGE, never)

    @pytest.mark.parametrize("computed_before", [False, True])
    def test_kill_between_arrays_and_record(self, store, monkeypatch, computed_before):
        if computed_before:
            compute(store, STAGE, lambda: {"x": np.zeros(3)})
            store = ArtefactStore(published=store.published, local=store.local, fresh=True)

        def killed(path, content):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(artefacts, "write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                compute(store, STAGE, lambda: ARRAYS)
        assert path_of(store).exists()
        store = ArtefactStore(published=store.published, local=store.local, fresh=False)
        # Without a record it does not count: computed again, then found.
        arrays = compute(store, STAGE, lambda: {"x": np.ones(1)})
        assert arrays["x"].tolist() == [1.0]
        compute(store, STAGE, never)


def square(folder, number):
    """Compute, and tell how often and where; fail once where a file says so."""
    with (folder / "calls").open("a") as handle:
        handle.write(f"{number} {os.getpid()}\n")
    trap = folder / f"trap-{number}"
    if trap.exists():
        trap.unlink()
        raise KeyboardInterrupt
    time.sleep(0.05)
    return {"x": np.array(number**2)}


def calls(folder):
    return [line.split() for line in (folder / "calls").read_text().splitlines()]


STAGES = [Stage("square", 1, {"number": number}) for number in range(6)]


def stack(parts):
    return {"x": np.stack([part["x"] for part in parts])}


def combined_by_two(folder, number):
    """Combine parts once another process is about to do so."""
    (folder / f"here-{number}").touch()
    while len(list(folder.glob("here-*"))) < 2:
        time.sleep(0.01)
    store = ArtefactStore(published=folder / "none", local=folder / "local", fresh=False)
    found = store.combine(STAGE, partial(square, folder), range(6), stack)
    return found["x"].tolist(), store.used[0]["origin"]


class TestMany:
    def test_of_two_runs_one_waits_for_the_other(self, tmp_path):
        found = map_tasks(partial(combined_by_two, tmp_path), range(2), jobs=2)
        assert [numbers for numbers, _ in found] == [[0, 1, 4, 9, 16, 25]] * 2
        assert sorted(origin for _, origin in found) == ["computed", "local"]
        assert [number for number, _ in calls(tmp_path)] == list("012345")
        kept = sorted(path.suffix for path in (tmp_path / "local").iterdir())
        assert kept == [".json", ".safetensors"]

    def test_computes_what_is_missing_in_order(self, store, tmp_path):
        function = partial(square, tmp_path)
        assert store.compute(STAGES[2], function, 2)["x"] == 4
        found = store.map(STAGES, function, range(6))
        assert [arrays["x"].tolist() for arrays in found] == [0, 1, 4, 9, 16, 25]
        assert [number for number, _ in calls(tmp_path)] == list("201345")
        origins = ["local" if k == 2 else "computed" for k in range(6)]
        assert [used["origin"] for used in store.used[1:]] == origins
        assert [used["artefact"][-16:] for used in store.used[1:]] == [s.key for s in STAGES]
        record = json.loads(path_of(store, STAGES[3]).with_suffix(".json").read_text())
        assert record["wall_seconds"] >= 0.0

    @pytest.mark.parametrize("parts", [False, True])
    def test_a_killed_run_continues_and_shares_as_the_run_says(
        self, store, tmp_path, monkeypatch, parts
    ):
        def run():
            function = partial(square, tmp_path)
            if parts:
                return store.combine(STAGE, function, range(6), stack)["x"].tolist()
            return [int(arrays["x"]) for arrays in store.map(STAGES, function, range(6))]

        (tmp_path / "trap-4").touch()
        with pytest.raises(KeyboardInterrupt):
            run()
        assert store.used == []
        monkeypatch.setenv("GENAMP_JOBS", "2")
        assert run() == [0, 1, 4, 9, 16, 25]
        assert run() == [0, 1, 4, 9, 16, 25]
        assert sorted(number for number, _ in calls(tmp_path)) == list("0123445")
        assert os.getpid() not in {int(pid) for _, pid in calls(tmp_path)[5:]}
        kept = {path.name for path in store.local.iterdir()}
        assert len(kept) == (2 if parts else 12)  # nothing of the parts is left
        assert len(store.used) == (2 if parts else 12)

    def test_fresh_makes_all_parts_again(self, store, tmp_path):
        (tmp_path / "trap-2").touch()
        with pytest.raises(KeyboardInterrupt):
            store.combine(STAGE, partial(square, tmp_path), range(4), stack)
        fresh = ArtefactStore(published=store.published, local=store.local, fresh=True)
        fresh.combine(STAGE, partial(square, tmp_path), range(4), stack)
        assert [number for number, _ in calls(tmp_path)] == list("0120123")

    def test_checkpoints_are_gone_when_the_stage_is_kept(self, store):
        def checkpointed():
            store.unfinished(STAGE).mkdir(parents=True)
            return ARRAYS

        compute(store, STAGE, checkpointed)
        assert not store.unfinished(STAGE).exists()
        assert path_of(store).exists()
