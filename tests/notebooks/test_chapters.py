"""Every chapter: the rules that its text keeps, and a run from scratch at the smallest preset."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from tests_support import ROOT, build_book

from genamp_lib._project import read_json
from genamp_lib.book.catalog import Chapter, load_chapters, load_preset
from genamp_lib.book.results import read_results
from genamp_lib.book.scoreboard import README_MARKS, load_paper_numbers

CHAPTERS = load_chapters(ROOT)
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)


def code_cells(chapter: Chapter) -> list:
    return [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]


def prose(chapter: Chapter) -> str:
    return "\n".join(c.source for c in chapter.notebook.cells if c.cell_type == "markdown")


def is_beyond_papers(chapter: Chapter) -> bool:
    """Whether the front matter says that the chapter reproduces nothing of a paper."""
    return chapter.notebook.metadata["genamp"].get("beyond_papers", False)


def is_datasheet(chapter: Chapter) -> bool:
    """Whether the front matter says that the page describes data and teaches nothing."""
    return chapter.notebook.metadata["genamp"].get("datasheet", False)


def problems_of_definitions(cells: list, elsewhere: str = "") -> list[str]:
    """List what the code cells of a page define against the rule for functions.

    Short functions stand in cells tagged `functions`, at most 15 lines each cell, and no other page
    defines the same: what two pages need belongs into the library, as all classes do.
    """
    problems = []
    for cell in cells:
        tree = ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.AsyncFunctionDef):
                problems.append(f"{node.name} belongs into the library")
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                problems.append(f"{ast.unparse(node)} must be a function with a name")
            elif isinstance(node, ast.FunctionDef):
                if "functions" not in cell.metadata.get("tags", []):
                    problems.append(f"{node.name} must stand in a cell tagged `functions`")
                if len(cell.source.splitlines()) > 15:
                    problems.append(f"the cell of {node.name} has more than 15 lines")
                if f"def {node.name}(" in elsewhere:
                    problems.append(f"{node.name} is defined on another page too")
    return problems


@each_chapter
def test_sources_hold_no_outputs_and_define_short_functions_only(chapter: Chapter) -> None:
    cells = code_cells(chapter)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    elsewhere = "\n".join(c.code for c in CHAPTERS.values() if c.name != chapter.name)
    assert not problems_of_definitions(cells, elsewhere)


@pytest.mark.parametrize(
    ("source", "tags", "problem"),
    [
        ("def f():\n    return 1", ["functions"], None),
        ("def f():\n    return 1", [], "f must stand in a cell tagged `functions`"),
        ("def f():\n" + 15 * "    x = 1\n", ["functions"], "f has more than 15 lines"),
        ("def g():\n    return 1", ["functions"], "g is defined on another page too"),
        ("class C:\n    pass", ["functions"], "C belongs into the library"),
        ("f = lambda: 1", ["functions"], "must be a function with a name"),
    ],
)
def test_the_rule_for_functions(source: str, tags: list[str], problem: str | None) -> None:
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags})
    problems = problems_of_definitions([cell], elsewhere="def g(x):\n    return x")
    assert (len(problems) == 1 and problem in problems[0]) if problem else not problems


@each_chapter
def test_bookkeeping_is_folded(chapter: Chapter) -> None:
    for cell in code_cells(chapter):
        if "results.add" in cell.source and len(cell.source.splitlines()) > 15:
            assert {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", [])), cell.source


@each_chapter
def test_lines_of_code_fit_the_page(chapter: Chapter) -> None:
    wide = [line for line in chapter.code.splitlines() if len(line) > 80]
    assert not wide


@each_chapter
def test_parameters_have_a_type_and_a_meaning(chapter: Chapter) -> None:
    assert "seed" in chapter.parameters
    assert all(parameter.help for parameter in chapter.parameters.values())


@each_chapter
def test_every_figure_has_caption_alt_text_and_label(chapter: Chapter) -> None:
    text = prose(chapter)
    for cell in code_cells(chapter):
        if re.search(r"\b(subplots|figure)\(", cell.source):
            figure = cell.metadata["mystnb"]["figure"]
            assert len(figure["caption"]) > 40
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40
            assert f"{{numref}}`{figure['name']}`" in text, f"{figure['name']} is never mentioned"


@each_chapter
def test_a_chapter_has_what_a_lecturer_needs(chapter: Chapter) -> None:
    text = prose(chapter)
    assert chapter.summary
    assert (":::{genamp} scoreboard" in text) != is_beyond_papers(chapter)
    if is_datasheet(chapter):
        assert "How they are made" in text
        assert "When a comparison is not fair" in text
        assert ":::{warning}" in text
        assert chapter.parameters["source"].default == "shipped"
        return
    assert "In this chapter" in text
    assert "## What to do\n" in text
    assert text.count("{exercise") >= 2
    assert text.count("{solution") >= 2


@each_chapter
def test_samples_are_declared(chapter: Chapter) -> None:
    named = set(re.findall(r"[\"'](jets_\w+)[\"']", chapter.code))
    assert named <= set(chapter.samples)
    loads = r"\bload_(jets|top_pairs|z_jets|showers)\("
    assert not (re.search(loads, chapter.code) and not chapter.samples)


def test_presets_name_existing_parameters() -> None:
    for path in sorted((ROOT / "notebooks" / "presets").glob("*.yml")):
        assert set(load_preset(ROOT, path.stem, CHAPTERS)) == set(CHAPTERS)


def test_every_chapter_is_in_the_table_of_contents() -> None:
    parts = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())["parts"]
    files = [entry["file"] for part in parts for entry in part["chapters"]]
    pages = [Path(file).name for file in files if file.startswith("chapters/")]
    assert sorted(pages) == sorted(CHAPTERS)
    numbers = [name for name in pages if name[0].isdigit()]
    assert numbers == sorted(numbers)
    for part in parts:
        holds_chapters = any(entry["file"].startswith("chapters/0") for entry in part["chapters"])
        holds_chapters |= part["caption"] == "Appendix"
        assert part.get("numbered", 0) == int(holds_chapters)
    assert [entry["file"] for entry in parts[-1]["chapters"]] == [
        "chapters/11_top_pair_generators",
        "settings",
    ]


def test_every_chapter_is_compared_with_its_paper() -> None:
    compared = {name for name, chapter in CHAPTERS.items() if not is_beyond_papers(chapter)}
    assert {number.chapter for number in load_paper_numbers(ROOT)} == compared


@pytest.fixture(scope="module")
def smoke() -> Path:
    """Run all chapters at the preset smoke, which ignores artefacts, and return their folder."""
    build_book("smoke")
    return ROOT / "_build" / "runs" / "smoke"


@each_chapter
def test_smoke_writes_the_results_that_the_papers_are_compared_with(
    chapter: Chapter, smoke: Path
) -> None:
    results = read_results(smoke / chapter.name / "results.json")
    wanted = {n.result for n in load_paper_numbers(ROOT) if n.chapter == chapter.name}
    assert wanted <= set(results)


@each_chapter
def test_no_computed_number_is_typed_into_the_prose(chapter: Chapter, smoke: Path) -> None:
    """A number with three or more digits after the point stands in results.json, not in prose."""
    results = read_results(smoke / chapter.name / "results.json")
    exact = {result.text for result in results.values() if result.interval is None}
    typed = set(re.findall(r"\d+\.\d{3,}", prose(chapter)))
    assert not {number for number in typed if number in exact}


def test_the_readme_shows_the_numbers_of_the_published_runs(tmp_path: Path) -> None:
    build_book("default")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    readme, emptied = tmp_path / "README.md", text
    for begin, end in README_MARKS.values():
        before, after = emptied.split(begin)[0], emptied.split(end)[1]
        emptied = f"{before}{begin}\n{end}{after}"
    readme.write_text(emptied, encoding="utf-8")
    genamp = str(Path(sys.executable).with_name("genamp"))
    command = [genamp, "scoreboard", "--readme", str(readme)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_published_artefacts_are_all_found_and_spare_all_computing() -> None:
    build_book("default")
    runs = (ROOT / "_build" / "runs" / "default" / name / "results.json" for name in CHAPTERS)
    used = [used for run in runs for used in read_json(run)["artefacts"]]
    assert {one["origin"] for one in used} == {"published"}
    published = {path.stem for path in (ROOT / "data" / "artefacts").glob("*.safetensors")}
    assert {one["artefact"] for one in used} == published
