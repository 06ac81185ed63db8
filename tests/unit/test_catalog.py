"""Chapters, parameters, presets: wrong input ends before anything runs, and names what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import edit

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
    assert chapter.parameters["n_train"] == Parameter("n_train", "int", 10, "training events")
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
        ("list[float]", "[1, 2.5]", [1.0, 2.5]),
    ],
)
def test_texts_become_typed_values(annotation: str, text: str, value: object) -> None:
    parsed = Parameter("p", annotation, None, "").parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [("int", "2.5"), ("int", "many"), ("float", "x"), ("bool", "2"), ("list[int]", "5")],
)
def test_wrong_types_are_named(annotation: str, text: str) -> None:
    with pytest.raises(GenampError) as caught:
        Parameter("p", annotation, 1, "").parse(text)
    assert str(caught.value).startswith(f"parameter `p` must be {annotation}, got ")


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
    ("old", "new", "message"),
    [
        ("seed: int = 1", "seed = 1", "must read `name: type = value`"),
        ("seed: int = 1", "seed: complex = 1", "must read `name: type = value`"),
        ("seed: int = 1", "seed: int = 1.5", "parameter `seed` must be int"),
        ("# A tiny chapter", "A tiny chapter", "must have a title"),
        (":tags: [parameters]", ":tags: [other]", "one code cell tagged `parameters`"),
    ],
)
def test_a_notebook_must_keep_the_rules(
    tiny_project: Path, old: str, new: str, message: str
) -> None:
    path = tiny_project / "notebooks" / "01_tiny.md"
    edit(path, old, new)
    with pytest.raises(GenampError, match=message):
        read_chapter(path)
