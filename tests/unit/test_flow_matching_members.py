"""Ensembles of flow-matching generators: turns, a kill, files, and the command that trains them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tests_support import ROOT, random_jets

from genamp_lib._project import GenampError
from genamp_lib.datasets.kinematics import to_cartesian
from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining, fit_flow_matching
from genamp_lib.networks.top_pairs.flow_matching import FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import (
    _checkpoint,
    fit_members,
    member_tasks,
    read_generator,
    write_generator,
)

FLOW = FlowMatchingSettings(velocity=VelocitySettings(n_blocks=1, width=16))
TRAINING = FlowMatchingTraining(n_steps=8, batch_size=32, n_warmup=2, compile=False)


def tasks(n_members: int = 2, bootstrap: bool = True):
    return member_tasks(
        random_jets(200, seed=1).numpy(),
        FLOW,
        TRAINING,
        n_members=n_members,
        seed=3,
        bootstrap=bootstrap,
    )


class TestMembers:
    def test_they_do_not_depend_on_their_number(self) -> None:
        assert [task.key for task in tasks(3)][:2] == [task.key for task in tasks(2)]

    def test_the_same_events_are_divided_alike(self) -> None:
        first, second = tasks(bootstrap=False)
        assert first.split_seed == second.split_seed
        assert first.seed != second.seed
        one, two = tasks(bootstrap=True)
        assert one.split_seed != two.split_seed

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="`n_members` must be positive, got 0"):
            tasks(0)


class TestFitMembers:
    def test_turns_and_a_kill_change_nothing(self, tmp_path: Path) -> None:
        todo = tasks()
        whole = [fit_flow_matching(task).averaged_flow().arrays() for task in todo]
        # A kill in the middle of the first member's second turn.
        state = _checkpoint(tmp_path / f"generator-{todo[0].key}.safetensors")
        fit_flow_matching(todo[0], checkpoint=state, stop_at=4)
        files = fit_members(todo, tmp_path, steps_per_turn=3)
        for file, expected in zip(files, whole, strict=True):
            found = read_generator(file).flow.arrays()
            assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert sorted(tmp_path.iterdir()) == sorted(files)  # no checkpoint is left
        before = [file.stat().st_mtime_ns for file in files]
        assert fit_members(todo, tmp_path) == files
        assert [file.stat().st_mtime_ns for file in files] == before

    def test_a_kill_before_the_generator_was_written(self, tmp_path: Path) -> None:
        (task,) = tasks(1)
        file = tmp_path / f"generator-{task.key}.safetensors"
        fit_flow_matching(task, checkpoint=_checkpoint(file))
        assert not file.exists()
        assert fit_members([task], tmp_path, steps_per_turn=4) == [file]
        assert file.exists()

    def test_a_damaged_checkpoint(self, tmp_path: Path) -> None:
        (task,) = tasks(1)
        _checkpoint(tmp_path / f"generator-{task.key}.safetensors").write_bytes(b"half")
        with pytest.raises(GenampError, match="must be a safetensors file"):
            fit_members([task], tmp_path)


class TestGeneratorFiles:
    def test_what_is_read_says_what_it_is(self, tmp_path: Path) -> None:
        (task,) = tasks(1)
        write_generator(fit_flow_matching(task), tmp_path / "one.safetensors")
        read = read_generator(tmp_path / "one.safetensors")
        assert read.description["n_train"] == 200
        assert read.flow.settings == FLOW
        assert np.isfinite(read.train_loss).all()
        events = read.flow.sample(3, generator=torch.Generator().manual_seed(1))
        assert events.shape == (3, 6, 4)

    def test_bad_files(self, tmp_path: Path) -> None:
        path = tmp_path / "generator.safetensors"
        with pytest.raises(GenampError, match="not found; genamp train makes it"):
            read_generator(path)
        path.write_bytes(b"half")
        with pytest.raises(GenampError, match="must be a file of genamp train, got"):
            read_generator(path)
        path.unlink()
        (task,) = tasks(1)
        fit_flow_matching(task, checkpoint=path)
        with pytest.raises(GenampError, match="must be a file of genamp train, got 'generator'"):
            read_generator(path)


def write_sample(path: Path, events: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["ttbar+0jet"] = to_cartesian(events).reshape(len(events), -1)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write_sample(tmp_path / "events.h5", random_jets(200, seed=1).numpy())


class TestCommand:
    def test_it_trains_and_says_where(self, genamp, sample: Path, tmp_path: Path) -> None:
        options = ["--members", "2", "--n-steps", "3", "--batch-size", "16", "--jobs", "1"]
        options += ["--no-compile"]
        out = tmp_path / "out"
        done = genamp(
            ROOT, "train", "top-pairs", *options, "--source", str(sample), "--output", str(out)
        )
        assert done.returncode == 0, done.stderr
        assert "200 events of" in done.stdout
        files = sorted(out.iterdir())
        assert [file.name in done.stdout for file in files] == [True, True]
        assert read_generator(files[0]).description["bootstrap"] is True

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--arch", "lorentznet"], "`architecture` must be one of transformer, lgatr-slim"),
            (["--n-steps", "0"], "`n_steps` must be positive, got 0"),
            (["--extra-jets", "1"], "ttbar+1jet"),
            (["--base", "momentum"], '`skip` must be "none" with the base "momentum", got'),
        ],
    )
    def test_wrong_input(self, genamp, sample: Path, options: list[str], message: str) -> None:
        done = genamp(ROOT, "train", "top-pairs", "--source", str(sample), *options)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert message in done.stderr

    def test_events_of_other_cuts(self, genamp, tmp_path: Path) -> None:
        sample = write_sample(tmp_path / "other.h5", random_jets(200, seed=1, cuts=False).numpy())
        done = genamp(ROOT, "train", "top-pairs", "--source", str(sample))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "`train` must pass the cuts pt > 22 GeV, |eta| < 5, distance" in done.stderr
