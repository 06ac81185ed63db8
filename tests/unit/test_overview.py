"""What the front page and the dot plot say comes from results, and lists that cannot be wrong."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from tests_support import PAPER_NUMBER, ROOT, edit

from genamp_lib._project import GenampError
from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.overview import (
    Cases,
    cards,
    dots,
    draw_pairs,
    pairs,
    paper_figures,
)
from genamp_lib.book.results import Result, Run
from genamp_lib.book.scoreboard import PaperNumber, compare, load_entries

CHAPTERS = load_chapters(ROOT)
LISTED = {
    "case": "jets",
    "estimator": "ensemble",
    "chapter": "01_tiny",
    "estimated": "est_{kind}_{n}",
    "truth": "true_{n}",
    "of": {"kind": ["a", "b"], "n": ["1", "2"]},
}


def results(**values: float) -> dict[str, Result]:
    return {name: Result(name, value, None, None, "", "") for name, value in values.items()}


ALL = results(est_a_1=1.0, est_a_2=2.0, est_b_1=3.0, est_b_2=4.0, true_1=5.0, true_2=6.0)


def runs(**known: Result) -> dict[str, Run]:
    return {"01_tiny": Run(Path(), {"preset": "default"}, known)}


def write(project: Path, *entries: dict) -> None:
    (project / "book" / "amplification.yml").write_text(yaml.safe_dump(list(entries)))


def test_pairs_are_the_results_of_the_chapters(tiny_project: Path) -> None:
    write(tiny_project, LISTED)
    found = pairs(tiny_project, runs(**ALL))
    values = [(pair.estimated.value, pair.truth.value) for pair in found]
    assert values == [(1.0, 5.0), (2.0, 6.0), (3.0, 5.0), (4.0, 6.0)]
    assert pairs(tiny_project, {}) == []


def test_a_missing_result_is_named(tiny_project: Path) -> None:
    write(tiny_project, LISTED)
    less = {name: result for name, result in ALL.items() if name != "est_b_2"}
    with pytest.raises(GenampError, match="needs a result `est_b_2` of 01_tiny; did you mean"):
        pairs(tiny_project, runs(**less))
    changed = Run(Path(), {"preset": "default", "changed": {"n": 5}}, less)
    assert len(pairs(tiny_project, {"01_tiny": changed})) == 3


def test_a_wrong_entry_is_named(tiny_project: Path) -> None:
    write(tiny_project, LISTED, {**LISTED, "surprise": 1})
    with pytest.raises(GenampError, match=r"amplification\.yml: entry 2: surprise"):
        pairs(tiny_project, {})


def test_the_picture_follows_the_results(tiny_project: Path, tmp_path: Path) -> None:
    write(tiny_project, LISTED)

    def drawn(name: str, known: dict[str, Result]) -> str:
        draw_pairs(tmp_path / name, pairs(tiny_project, runs(**known)))
        return (tmp_path / name).read_text()

    first = drawn("a.svg", ALL)
    assert drawn("b.svg", ALL) == first
    assert drawn("c.svg", ALL | results(est_b_2=4.1)) != first


def test_every_listed_case_is_of_a_chapter_that_stands() -> None:
    listed = load_entries(ROOT / "book" / "amplification.yml", Cases)
    assert {cases.chapter for cases in listed} <= CHAPTERS.keys()
    assert {cases.case for cases in listed} == {"Gaussian in 1D", "rings", "top pairs", "jets"}


def test_the_papers_have_34_figures_and_none_is_forgotten() -> None:
    found = paper_figures(ROOT, CHAPTERS)
    assert [(one.paper, one.number) for one in found] == [
        *(("A", number) for number in range(1, 16)),
        *(("B", number) for number in range(1, 20)),
    ]
    standing = {name[:2] for name in CHAPTERS}
    for one in found:
        assert one.places or one.missing
        # A part that waits for a chapter gets its label when the chapter stands.
        assert not standing & set(re.findall(r"chapter (\d\d)", " ".join(one.missing))), one


def test_a_label_that_no_chapter_draws_is_refused(tiny_project: Path) -> None:
    path = tiny_project / "book" / "paper_figures.yml"
    path.write_text("A: {1: [01_gaussian_1d/fig-idea, the rest], 2: [all of it]}")
    first, second = paper_figures(tiny_project, CHAPTERS)
    assert (first.places, first.missing) == (("01_gaussian_1d/fig-idea",), ("the rest",))
    assert (second.places, second.missing) == ((), ("all of it",))
    for wrong in ("fig-idee", "tab-definitions"):  # a table is no figure
        path.write_text(f"A: {{1: [01_gaussian_1d/{wrong}]}}")
        with pytest.raises(GenampError, match=f"A, Fig. 1: `{wrong}` must be a figure of"):
            paper_figures(tiny_project, CHAPTERS)
    path.write_text("A: {1: [99_new/fig-idea]}")
    with pytest.raises(GenampError, match="must be a figure of `99_new`"):
        paper_figures(tiny_project, CHAPTERS)


def test_cards_quote_the_first_finding(tiny_project: Path) -> None:
    notebook = tiny_project / "notebooks" / "01_tiny.md"
    text = "\n".join(cards(load_chapters(tiny_project), {}))
    assert "{doc}`1 A tiny chapter </chapters/01_tiny>`\nIt counts.\n\nNot run." in text
    findings = "- **Five.** It is\n  {result}`answer`.\n- **Six.**\n\nThe answer"
    edit(notebook, "The answer", findings)
    text = "\n".join(cards(load_chapters(tiny_project), {}))
    assert "**Five.** It is\n  {result}`01_tiny/answer`.\n\nNot run." in text
    assert "Six" not in text


def test_every_chapter_has_a_finding() -> None:
    numbered = [chapter for name, chapter in CHAPTERS.items() if name[:2].isdigit()]
    assert all(chapter.finding.startswith("**") for chapter in numbered)


def test_dots_lie_where_ours_over_the_papers_number_lies() -> None:
    printed = {**PAPER_NUMBER, "value": None, "range": (5, 15)}  # centre 10
    words = {**printed, "source": "stated in words", "words": "about ten"}
    about = {**PAPER_NUMBER, "source": "stated in words", "words": "about ten"}
    entries = [PAPER_NUMBER, printed, words, about, {**PAPER_NUMBER, "value": 0}]
    numbers = [PaperNumber(**{**entry, "id": str(n)}) for n, entry in enumerate(entries)]
    answer = Result("answer", 1.0, (0.1, math.inf), 0.6827, "", "")
    drawn = dots(compare(numbers, runs(answer=answer)))
    assert drawn["ticks"] == {"0.1": 0.0, "1": 100.0}
    rows = drawn["chapters"]["01_tiny"]
    assert [dot.row.paper.id for dot in rows] == ["0", "1", "3"]  # no statement, nothing over 0
    assert {(dot.ratio, dot.place, dot.low, dot.high) for dot in rows} == {("0.1", 0.0, 0.0, 100.0)}
    below = round(100 * (1 + math.log10(0.95)), 2)
    assert rows[0].paper == (below, 100.0)  # half a unit of 10, cut at the end of the axis


def test_an_infinite_number_stands_at_the_end_of_the_axis() -> None:
    numbers = [PaperNumber(**PAPER_NUMBER, id="A.x")]
    answer = Result("answer", math.inf, (10.0, math.inf), 0.6827, "", "")
    [dot] = dots(compare(numbers, runs(answer=answer)))["chapters"]["01_tiny"]
    assert (dot.ratio, dot.place, dot.high) == ("∞", 100.0, 100.0)
    assert dots(compare(numbers, {}))["chapters"] == {}
