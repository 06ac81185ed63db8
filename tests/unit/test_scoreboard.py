"""Verdicts are computed from two intervals, and the tables show what was computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests_support import PAPER_NUMBER, ROOT

from genamp_lib._project import GenampError
from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.results import Result, Run
from genamp_lib.book.scoreboard import (
    README_MARKS,
    PaperNumber,
    compare,
    load_paper_numbers,
    tally,
    update_readme,
    verdict,
)

CHAPTERS = {path.stem for path in (ROOT / "notebooks").glob("*.md")}
ENTRY = {"id": "A.x", **PAPER_NUMBER, "headline": True}


def ours(value: float, interval: tuple[float, float] | None = None) -> Result:
    return Result("answer", value, interval, None, "", "")


def runs(**results: Result) -> dict[str, Run]:
    return {"01_tiny": Run(Path(), {"preset": "default"}, results)}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ours(10.4), "agrees"),
        (ours(10.6), "differs"),
        (ours(9.4), "differs"),
        (
            ours(12.0, (11.3, 12.7)),
            "differs",
        ),  # doubled it begins at 10.6, the paper's ends at 10.5
        (ours(12.0, (11.2, 12.7)), "agrees"),
        (ours(8.0, (7.0, 8.7)), "differs"),
        (ours(8.0, (7.0, 8.8)), "agrees"),
        (ours(3.0, (1.0, float("inf"))), "inconclusive"),  # from below 3.2 to above 31.5
        (ours(7.0, (5.0, float("inf"))), "inconclusive"),  # doubled it begins at 3
        (ours(9.0, (6.5, float("inf"))), "agrees"),  # at 4
        (ours(float("inf"), (20.0, float("inf"))), "agrees"),  # down to 10
        (ours(float("inf"), (22.0, float("inf"))), "differs"),  # down to 11, the paper ends at 10.5
    ],
)
def test_verdict(result: Result, expected: str) -> None:
    assert verdict(PaperNumber(**ENTRY), result)[0] == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ours(0.51), "holds"),
        (ours(0.51, (0.505, 0.515)), "holds"),  # doubled it begins at 0.5
        (ours(0.51, (0.504, 0.515)), "inconclusive"),
        (ours(0.6), "does not hold"),
        (ours(0.6, (0.58, 0.62)), "inconclusive"),  # doubled it begins at 0.56
        (ours(0.6, (0.595, 0.62)), "does not hold"),
    ],
)
def test_a_statement_in_words(result: Result, expected: str) -> None:
    entry = {key: ENTRY[key] for key in ENTRY if key not in ("value", "tolerance")}
    stated = {"range": (0.5, 0.58), "source": "stated in words", "words": "close to 0.5"}
    number = PaperNumber(**entry | stated)
    assert verdict(number, result)[0] == expected
    assert number.text == "\u201cclose to 0.5\u201d"


def test_not_comparable_and_tallies() -> None:
    other = PaperNumber(**ENTRY, not_comparable="another question")
    assert verdict(other, ours(10.0)) == ("not comparable", "another question")
    rows = compare([other, PaperNumber(**ENTRY), other], runs(answer=ours(10.0)))
    assert tally(rows) == {"agrees": 1, "not comparable": 2}


def test_every_row_says_how_to_compute_it_again() -> None:
    [row] = compare([PaperNumber(**ENTRY)], runs(answer=ours(1.0)))
    assert row.to_dict()["command"] == row.command == "genamp run 01_tiny --fresh"
    smoke = {"01_tiny": Run(Path(), {"preset": "smoke"}, {"answer": ours(1.0)})}
    assert compare([PaperNumber(**ENTRY)], smoke)[0].command.endswith("--fresh --preset smoke")
    for row in compare(load_paper_numbers(ROOT), {}):
        assert row.paper.chapter in CHAPTERS, row.paper.id


def test_a_result_that_a_parameter_renames_is_not_comparable() -> None:
    changed = {"preset": "default", "changed": {"n_train": 5}}
    [row] = compare([PaperNumber(**ENTRY)], {"01_tiny": Run(Path(), changed, {})})
    assert (row.verdict, row.reason) == ("not comparable", "not computed with these parameters")


def test_compare_names_a_missing_result() -> None:
    numbers = [PaperNumber(**ENTRY)]
    with pytest.raises(
        GenampError, match=r"`A\.x` needs a result `answer` of 01_tiny; did you mean"
    ):
        compare(numbers, runs(answers=ours(1.0)))
    assert compare(numbers, {})[0].verdict == "not run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": None}, "needs either `value` or `range`"),
        ({"range": [1, 2]}, "needs either `value` or `range`"),
        ({"source": "guessed"}, "source"),
        ({"source": "stated in words"}, "needs `words`"),
        ({"words": "close to ten"}, "needs `words`"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_entries_are_named(tiny_project: Path, change: dict, message: str) -> None:
    path = tiny_project / "book" / "paper_numbers.yml"
    path.write_text(yaml.safe_dump([{**ENTRY, **change}]))
    with pytest.raises(GenampError, match=message) as caught:
        load_paper_numbers(tiny_project)
    assert "'A.x'" in str(caught.value)
    path.write_text(yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(GenampError, match="`id` must be unique"):
        load_paper_numbers(tiny_project)


def test_readme_tables_are_written_once(tiny_project: Path) -> None:
    rows = compare([PaperNumber(**ENTRY)], runs(answer=ours(10.25)))
    chapters = load_chapters(tiny_project).values()
    readme = tiny_project / "README.md"
    readme.write_text(
        "a\n" + "\n".join(f"{begin}\nold\n{end}" for begin, end in README_MARKS.values()) + "\nb\n"
    )
    assert update_readme(readme, rows, chapters)
    assert not update_readme(readme, rows, chapters)
    text = readme.read_text()
    assert "| x | 10 (A, Eq. (1)) | 10.25 | agrees |" in text
    assert "| 01 | [A tiny chapter](notebooks/01_tiny.md) | It counts. |" in text
    assert "old" not in text
    assert text.startswith("a\n")
    assert text.endswith("\nb\n")
    with pytest.raises(GenampError, match=r"`A\.x` has not been run; run `genamp build` first"):
        update_readme(readme, compare([PaperNumber(**ENTRY)], {}), chapters)
    readme.write_text("no marks")
    with pytest.raises(GenampError, match=r"README\.md: must hold the lines"):
        update_readme(readme, rows, chapters)
