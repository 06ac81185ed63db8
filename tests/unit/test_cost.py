"""What a run is expected to take, by made-up records of earlier ones."""

import json

import pytest

from genamp_lib.book.cost import ChapterCost, StageCost, expected_seconds, total
from genamp_lib.book.results import RECORD_FIELDS
from genamp_lib.book.run import open_book, plan_run
from genamp_lib.cli.book import _foretell


@pytest.fixture
def plan(tiny_project, monkeypatch):
    """Return what plans a run of the chapter of a tiny project."""
    monkeypatch.chdir(tiny_project)

    def of(*, fresh=False, **parameters):
        book = open_book()
        return plan_run(book, book.find("01"), parameters, fresh=fresh)

    return of


def keep_record(job, seconds, *, fresh=False, artefacts=()):
    job.folder.mkdir(parents=True)
    found = [{"artefact": name, "origin": "local", "sha256": ""} for name in artefacts]
    record = {"wall_seconds": seconds, "fresh": fresh, "artefacts": found}
    record = dict.fromkeys(RECORD_FIELDS) | record
    (job.folder / "record.json").write_text(json.dumps(record))


def keep_artefact(folder, name, seconds):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"wall_seconds": seconds}))


def test_a_chapter_that_never_ran(plan, capsys):
    assert expected_seconds(plan()) is None
    _foretell(plan())
    assert capsys.readouterr().out == "01_tiny: never run here\n"


def test_a_run_takes_as_long_as_the_last_one(plan, capsys):
    keep_record(plan(), 4000.0)
    assert expected_seconds(plan()) == 4000.0
    _foretell(plan())
    assert capsys.readouterr().out == "01_tiny: about 67 min, by its last run\n"


def test_own_parameters_go_by_their_own_run_and_else_by_the_presets(plan):
    keep_record(plan(), 20.0)
    assert expected_seconds(plan(n_train="5")) == 20.0
    keep_record(plan(n_train="5"), 3.0)
    assert expected_seconds(plan(n_train="5")) == 3.0
    assert expected_seconds(plan(n_train="6")) == 20.0


def test_a_fresh_run_computes_what_the_last_one_read(plan, tiny_project):
    keep_record(plan(), 20.0, artefacts=["a-0", "b-0", "gone-0"])
    keep_artefact(tiny_project / "data" / "artefacts", "a-0", 100.0)
    keep_artefact(tiny_project / "_build" / "artefacts", "b-0", 1000.0)
    assert expected_seconds(plan()) == 20.0
    assert expected_seconds(plan(fresh=True)) == 1120.0


def test_a_fresh_run_after_a_fresh_one(plan, tiny_project):
    keep_record(plan(), 500.0, fresh=True, artefacts=["a-0"])
    keep_artefact(tiny_project / "_build" / "artefacts", "a-0", 480.0)
    assert expected_seconds(plan(fresh=True)) == 500.0


def test_chapters_one_after_the_other():
    first = StageCost("fits", tasks=4, seconds=10.0, measured=0.0, peak=300, bytes=7)
    second = StageCost("scan", tasks=1, seconds=5.0, measured=5.0, peak=200, bytes=1)
    whole = total([ChapterCost([first], []), ChapterCost([second], [])])
    assert whole == StageCost("total", tasks=5, seconds=15.0, measured=5.0, peak=300, bytes=8)
