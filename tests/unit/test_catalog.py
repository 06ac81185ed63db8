"""Chapters, parameters, presets: wrong input ends before anything runs, and names what is right."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from jupytext.config import load_jupytext_config
from tests_support import ROOT, edit

from genamp_lib._project import GenampError
from genamp_lib.book.catalog import (
    Parameter,
    find_chapter,
    load_chapters,
    load_preset,
    read_chapter,
)


def test_a_chapter_says_what_it_is(tiny_project: Path) -> None:
    chapter = load_chapters(tiny_project)["01_tiny"]
    assert (chapter.title, chapter.summary, chapter.samples) == ("A tiny chapter", "It counts.", ())
    expected = Parameter("n_train", "int", 10, "training events", "[1, inf)")
    assert chapter.parameters["n_train"] == expected
    assert "The answer is" not in chapter.code


def test_presets_override_defaults(tiny_project: Path) -> None:
    chapters = load_chapters(tiny_project)
    assert load_preset(tiny_project, "default", chapters)["01_tiny"]["n_train"] == 10
    assert load_preset(tiny_project, "smoke", chapters)["01_tiny"]["n_train"] == 2


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("int", "2000", 2000),
        ("float", "1", 1.0),
        ("float", "1e-3", 1e-3),
        ("str", "12", "12"),
        ("bool", "false", False),
        ("list[int]", "[5, 10]", [5, 10]),
        ("list[int]", "5,10", [5, 10]),
        ("list[str]", "2020-01-01, yes", ["2020-01-01", "yes"]),
        ("list[float]", "[1, 2.5]", [1.0, 2.5]),
    ],
)
def test_texts_become_typed_values(annotation: str, text: str, value: object) -> None:
    parsed = Parameter("p", annotation, None, "").parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("int", "2.5"),
        ("int", "many"),
        ("int", "010"),
        ("float", "x"),
        ("float", "nan"),
        ("float", "inf"),
        ("bool", "2"),
        ("list[int]", "5;6"),
        ("list[int]", "5,010"),
        ("list[int]", "1:30"),
        ("list[float]", "1,nan"),
        ("list[float]", "2020-01-01"),
    ],
)
def test_wrong_types_are_named(annotation: str, text: str) -> None:
    with pytest.raises(GenampError) as caught:
        Parameter("p", annotation, 1, "").parse(text)
    assert str(caught.value).startswith(f"parameter `p` must be {annotation}, got ")


@pytest.mark.parametrize(
    ("comment", "value", "message"),
    [
        ("events", -5, "must be in [1, inf), got -5; its default is 4"),
        ("events, [2, 9)", 9, "must be in [2, 9), got 9"),
        ("events, (2, 9]", 2, "must be in (2, 9], got 2"),
        ("events, [other, inf)", 6, "must be in [other, inf), other = 7, got 6"),
        ("events, {4, 8}", 5, "must be in {4, 8}, got 5"),
    ],
)
def test_ranges_stand_in_the_comment(comment: str, value: int, message: str) -> None:
    annotation = "str" if "{" in comment else "int"
    kind = str if "{" in comment else int
    parameter = Parameter.commented("n", annotation, kind(4), comment)
    assert parameter.help == "events"
    with pytest.raises(GenampError) as caught:
        parameter.check(kind(value), {"n": kind(value), "other": 7})
    assert message.replace("got 5", "got '5'") in str(caught.value)
    parameter.check(kind(8), {"n": kind(8), "other": 7})


def test_numbers_that_can_be_chosen_are_taken() -> None:
    Parameter.commented("n", "list[int]", [4], "events, {4, 8}").check([4, 8], {})


def test_items_of_a_list_are_each_in_the_range() -> None:
    parameter = Parameter.commented("p", "list[float]", [1.0], "numbers")
    parameter.check([0.1, 2.0], {})
    for wrong in ([0.1, 0.0], []):
        with pytest.raises(GenampError, match=r"must be in \(0, inf\)"):
            parameter.check(wrong, {})


def test_a_parameter_whose_range_names_another_is_checked_against_its_value(
    tiny_project: Path,
) -> None:
    path = tiny_project / "notebooks" / "01_tiny.md"
    edit(path, "upper edge", "upper edge, (n_train, inf)")
    with pytest.raises(GenampError, match=r"01_tiny\.md: parameter `upper` must be in"):
        read_chapter(path)
    edit(path, "float = 0.5", "float = 50.5")
    chapter = read_chapter(path)
    assert chapter.resolve({"n_train": 50})["n_train"] == 50
    with pytest.raises(GenampError, match=r"n_train = 60, got 50\.5"):
        chapter.resolve({"n_train": 60})


def test_unknown_names_are_answered_with_the_right_ones(tiny_project: Path) -> None:
    chapters = load_chapters(tiny_project)
    with pytest.raises(GenampError, match="unknown chapter `01_tinny`; did you mean `01_tiny`"):
        find_chapter(chapters, "01_tinny")
    with pytest.raises(GenampError, match="did you mean `n_train`"):
        chapters["01_tiny"].resolve({"n_trian": 5})
    with pytest.raises(GenampError, match="unknown preset `smok`; did you mean `smoke`"):
        load_preset(tiny_project, "smok", chapters)
    assert find_chapter(chapters, "1") is find_chapter(chapters, "01_tiny")
    assert find_chapter(chapters, "01") is find_chapter(chapters, "01_tiny")
    with pytest.raises(GenampError, match="unknown chapter `0`"):
        find_chapter(chapters, "0")


def test_a_preset_with_a_mistake_is_refused(tiny_project: Path) -> None:
    preset = tiny_project / "notebooks" / "presets" / "smoke.yml"
    chapters = load_chapters(tiny_project)
    preset.write_text("01_tiny: {n_train: many}\n")
    with pytest.raises(GenampError, match=r"preset smoke\.yml: parameter `n_train` must be int"):
        load_preset(tiny_project, "smoke", chapters)
    preset.write_text("02_tiny: {n_train: 1}\n")
    with pytest.raises(GenampError, match=r"preset smoke\.yml: unknown chapter `02_tiny`"):
        load_preset(tiny_project, "smoke", chapters)


@pytest.mark.parametrize(
    "text", ["01_tiny: {n_train: 010}", "01_tiny: {n_train: -1}", "01_tiny: [", "01_tiny", "- 5"]
)
def test_a_preset_that_is_no_preset_is_named_in_one_line(tiny_project: Path, text: str) -> None:
    preset = tiny_project / "notebooks" / "presets" / "smoke.yml"
    preset.write_text(text)
    with pytest.raises(GenampError, match=r"^preset smoke\.yml: [^\n]*$"):
        load_preset(tiny_project, "smoke", load_chapters(tiny_project))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.md")), ids=lambda p: p.stem)
def test_a_chapter_saved_by_jupyter_stays_what_it_was(path: Path, tmp_path: Path) -> None:
    """With the settings that JupyterLab finds for a notebook of this project."""
    settings = load_jupytext_config(str(path))
    notebook = jupytext.read(path, config=settings)
    style = notebook.metadata["jupytext"]["text_representation"]
    jupytext.write(notebook, tmp_path / path.name, fmt=dict(style), config=settings)
    before, after = read_chapter(path), read_chapter(tmp_path / path.name)
    for field in ("name", "title", "summary", "samples", "parameters", "code"):
        assert getattr(after, field) == getattr(before, field), field
    kept = [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in before.notebook.cells]
    assert [(c.cell_type, c.source, dict(c.metadata)) for c in after.notebook.cells] == kept
    assert after.notebook.metadata["genamp"] == before.notebook.metadata["genamp"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: int = 1", "seed = 1", "must read `name: type = value`"),
        ("seed: int = 1", "seed: complex = 1", "must read `name: type = value`"),
        ("seed: int = 1", "seed: int = 1.5", "parameter `seed` must be int"),
        ("# A tiny chapter", "A tiny chapter", "must have a title"),
        (":tags: [parameters]", ":tags: [other]", "one code cell tagged `parameters`"),
        ("samples: []", "samples: [", r"01_tiny\.md: "),
        ("# training events", "# training events, [20, inf)", "`n_train` must be in"),
        ("# training events", "# training events, [no, inf)", "01_tiny"),
    ],
)
def test_a_notebook_must_keep_the_rules(
    tiny_project: Path, old: str, new: str, message: str
) -> None:
    path = tiny_project / "notebooks" / "01_tiny.md"
    edit(path, old, new)
    with pytest.raises(GenampError, match=message):
        read_chapter(path)
