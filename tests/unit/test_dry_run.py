"""A dry run: what it says of work whose cost is counted, and that it leaves nothing behind."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genamp_lib import dry_run
from genamp_lib.dry_run import first_steps
from genamp_lib.networks.fitting import LossCurves, fit_by_epochs, fit_by_steps
from genamp_lib.store import ArtefactStore, Stage


class Work:
    """A processor's time that goes on by what tests say, and by nothing else."""

    def __init__(self):
        self.seconds = 0.0
        self.n_done = 0

    def __call__(self, seconds):
        self.seconds += seconds
        self.n_done += 1


@pytest.fixture
def work(monkeypatch):
    work = Work()
    monkeypatch.setattr(dry_run, "time", SimpleNamespace(process_time=lambda: work.seconds))
    for name in ("_passed_over", "_measured", "_of_stages"):
        monkeypatch.setattr(dry_run, name, 0.0)
    return work


@pytest.fixture
def rows(work, monkeypatch, tmp_path):
    """Make this a dry run, and return what reads its notes."""
    path = tmp_path / "rows.jsonl"
    monkeypatch.setenv(dry_run.VARIABLE, str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


def stages(n):
    return [Stage("fits", version=1, configuration={"seed": seed}) for seed in range(n)]


@pytest.mark.usefixtures("rows")
class TestFirstSteps:
    @pytest.mark.parametrize(
        ("n", "seconds", "n_done"), [(1000, 0.3, 4), (1000, 0.01, 100), (3, 0.01, 3), (7, 60.0, 1)]
    )
    def test_equal_steps_are_counted_exactly(self, work, n, seconds, n_done):
        for _ in first_steps(range(n)):
            work(seconds)
        assert work.n_done == pytest.approx(n_done, abs=1)
        assert dry_run.clock() == pytest.approx(n * seconds)

    def test_a_slow_first_step_is_not_taken_for_the_others(self, work):
        for step in first_steps(range(500)):
            work(0.25 if step else 4.0)
        assert dry_run.clock() == pytest.approx(4.0 + 499 * 0.25)

    def test_loops_within_loops(self, work):
        for _ in first_steps(range(50)):
            for _ in first_steps(range(200)):
                work(0.2)
            work(3.0)
        assert work.n_done < 50
        assert dry_run.clock() == pytest.approx(50 * (200 * 0.2 + 3.0))


def test_elsewhere_all_steps_are_done(work):
    for _ in first_steps(range(20)):
        work(10.0)
    assert work.n_done == 20
    assert dry_run.clock() == 200.0


class TestStages:
    def test_the_whole_is_told_from_the_first_tasks(self, work, rows, store, tmp_path):
        # The cost of a task is that of its events, a tenth more or less.
        def fit(task):
            seed, events = task
            for _ in first_steps(range(1000)):
                work(1e-5 * len(events) * (1.0 + 0.1 * np.sin(seed)))
            return {"means": events.mean(0)}

        tasks = [(seed, np.ones((n, 4))) for n in (2000, 20_000) for seed in range(100)]
        found = store.map(stages(200), fit, tasks, label="fits")
        assert [one["means"].shape for one in found] == [(4,)] * 200
        whole = sum(1000 * 1e-5 * len(x) * (1.0 + 0.1 * np.sin(seed)) for seed, x in tasks)
        (row,) = rows()
        assert row["seconds"] == pytest.approx(whole, rel=0.15)
        assert row["seconds"] > 20 * work.seconds
        assert row | {"stage": "fits", "tasks": 200, "measured": 0.0, "bytes": 200 * 4 * 8} == row
        assert row["peak"] > 1e6
        assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}
        assert store.used == []

    def test_parts_of_a_whole(self, work, rows, store, tmp_path):
        def part(number):
            work(2.0)
            return {"x": np.array([number])}

        def merge(parts):
            return {"x": np.concatenate([one["x"] for one in parts])}

        found = store.combine(stages(1)[0], part, list(range(9)), merge)
        assert found["x"].shape == (9,)
        (row,) = rows()
        assert row | {"stage": "fits", "tasks": 9, "seconds": pytest.approx(18.0)} == row
        assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}

    def test_what_is_kept_costs_what_its_record_says(self, work, store, tmp_path, monkeypatch):
        first, second = stages(2)
        store.compute(first, lambda _: {"x": np.zeros(3)}, None)
        record = tmp_path / "local" / f"fits-{first.key}.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"wall_seconds": 700.0}))
        before = sorted(path.name for path in (tmp_path / "local").iterdir())
        rows = tmp_path / "rows.jsonl"
        monkeypatch.setenv(dry_run.VARIABLE, str(rows))
        store.map([first, second], lambda _: work(5.0) or {"x": np.zeros(3)}, [1, 2])
        row = json.loads(rows.read_text())
        assert row["seconds"] == pytest.approx(705.0)
        assert row["measured"] == pytest.approx(700.0)
        assert sorted(path.name for path in (tmp_path / "local").iterdir()) == before

    def test_a_stage_that_is_used_twice_costs_once(self, work, rows, store):
        for _ in range(2):
            store.map(stages(3), lambda _: work(6.0) or {"x": np.zeros(5)}, [1, 2, 3])
        assert [(row["seconds"], row["bytes"]) for row in rows()] == [(18.0, 120), (0.0, 0)]

    def test_the_rest_of_a_chapter(self, work, rows, store):
        work(3.0)
        store.compute(stages(1)[0], lambda _: work(7.0) or {"x": np.zeros(1)}, None)
        work(4.0)
        dry_run.note_rest()
        assert [row["seconds"] for row in rows()] == pytest.approx([7.0, 7.0])


@pytest.mark.usefixtures("rows")
class TestTrainings:
    def test_by_steps(self, work, tmp_path):
        x = torch.ones(1).requires_grad_()

        def gradients(step):
            work(0.5)
            loss = x.square().sum()
            loss.backward()
            return loss

        losses = fit_by_steps(
            gradients, [torch.optim.SGD([x], lr=0.1)], {"x": x}, name="fit", n_steps=2000,
            learning_rate=0.1, n_warmup=5, loss_steps=20, checkpoint=tmp_path / "state",
        )  # fmt: skip
        assert losses.shape == (2000,)
        assert work.n_done < 10
        assert dry_run.clock() == pytest.approx(1000.0)
        assert not list(tmp_path.iterdir())

    def test_by_epochs(self, work, tmp_path):
        network, watched = torch.nn.Linear(1, 1), []
        optimiser = torch.optim.SGD(network.parameters(), lr=0.0)

        def losses(batch):
            work(0.1)
            yield network(torch.ones(len(batch), 1)).square().mean()

        def validation_loss():
            work(2.0)
            return torch.ones(())

        best, curves = fit_by_epochs(
            network, losses, validation_loss, optimiser,
            torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser), name="fit", n_train=10_000,
            n_epochs=50, batch_size=10, checkpoint=tmp_path / "state", watch=watched.append,
        )  # fmt: skip
        assert len(best) == 1
        assert isinstance(curves, LossCurves)
        assert curves.train_loss.shape == curves.validation_loss.shape == (50,)
        assert watched == list(range(1, 51))
        assert dry_run.clock() == pytest.approx(50 * (1000 * 0.1 + 2.0))
        assert not list(tmp_path.iterdir())
