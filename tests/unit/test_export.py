"""Chapters for a course: what students must not see, what instructors need, slides, paper."""

from __future__ import annotations

import doctest
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import pypdf
import pytest
from bs4 import BeautifulSoup
from tests_support import ROOT, browser_path

from genamp_lib.book.catalog import Chapter, load_preset
from genamp_lib.book.export import course_notebook, plain, resolver, slides
from genamp_lib.book.run import open_book
from genamp_lib.cli import main

BOOK = open_book()
CHAPTERS = BOOK.chapters
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)

EXERCISE = """
:::{admonition} In this chapter
:class: tip

- **It counts.** The answer is {result}`answer` ({numref}`fig-line`),
  as everybody knows.
- **It draws** $a<b$.

Prerequisites: none.
:::

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    name: fig-line
    caption: A line through {result}`answer` points.
  image:
    alt: A line that rises.
---
import matplotlib.pyplot as plt
plt.plot(range(5));
```

```{exercise}
:label: ex-tiny

What is twice the answer?
```

````{solution} ex-tiny
:class: dropdown

Twice the answer is ten, of course.

```python
secret = 10
```
````

```{code-cell} ipython3
:tags: [solution]

twice = 10  # only for the solution
```

## What to do

1. **Count twice.** See [the end](some-label).

```{code-cell} ipython3
results.write();
```
"""


def exported(chapter: Chapter, *, solutions: bool) -> nbformat.NotebookNode:
    return _exported(chapter.name, solutions)


@cache
def _exported(name: str, solutions: bool) -> nbformat.NotebookNode:
    notebook = jupytext.read(CHAPTERS[name].path)
    return course_notebook(notebook, resolver(BOOK, CHAPTERS[name], notebook), solutions=solutions)


def solutions_of(text: str) -> list[str]:
    """Return what the solutions of a notebook's source say, found line by line."""
    found, fence = [], ""
    for line in text.splitlines():
        if not fence and re.match(r"(:{3,}|`{3,})\{solution\}", line):
            fence = line.split("{")[0]
            found.append("")
        elif fence and line.rstrip() == fence:
            fence = ""
        elif fence and not line.startswith(":"):
            found[-1] += f"{line} "
    return found


def leaks(source: str, notebook: nbformat.NotebookNode) -> list[str]:
    """List five words in a row, and all code, that only solutions have and the notebook shows."""
    shown = " ".join(json.dumps(notebook.cells, ensure_ascii=False).replace("\\n", " ").split())
    outside = source
    found = []
    for solution in solutions_of(source):
        for piece in re.split(r"\{[\w:-]+\}`[^`]*`|\$[^$]*\$|\"|\\", solution):
            words = piece.split()
            rows = [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]
            found += [row for row in rows if row in shown and outside.count(row) < 2]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags or re.search(r"(?i)for the solution|\{solution", cell.source):
            found.append(cell.source)
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count):
            found.append("an output")
    return found


@each_chapter
def test_students_see_exercises_and_no_solution(chapter: Chapter) -> None:
    source = chapter.path.read_text(encoding="utf-8")
    notebook = exported(chapter, solutions=False)
    assert not leaks(source, notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert text.count("**Exercise") == len(re.findall(r"^\W{3,4}exercise\}", source, re.MULTILINE))
    assert text.count("**Solution**") == 0
    assert len(solutions_of(source)) == source.count("{solution}")


@each_chapter
def test_the_search_for_leaks_finds_the_solutions_of_instructors(chapter: Chapter) -> None:
    source = chapter.path.read_text(encoding="utf-8")
    if "{solution}" in source:
        assert leaks(source, exported(chapter, solutions=True))


@each_chapter
def test_what_solutions_compute_is_what_they_print(chapter: Chapter) -> None:
    """Code in a solution is a session of Python; later ones know the names of those before."""
    text = chapter.path.read_text(encoding="utf-8")
    session = doctest.DocTestParser().get_doctest(text, {}, chapter.name, str(chapter.path), 0)
    assert len(session.examples) == sum(line.startswith(">>> ") for line in text.splitlines())
    said: list[str] = []
    failed = doctest.DocTestRunner().run(session, out=said.append).failed
    assert not failed, "".join(said)


MAIN = ("01", "02", "03", "04", "05", "06", "07", "08", "09", "10")


@pytest.mark.parametrize("number", MAIN)
def test_main_chapters_have_five_graded_exercises(number: str) -> None:
    (chapter,) = (one for name, one in CHAPTERS.items() if name.startswith(number))
    text = chapter.path.read_text(encoding="utf-8")
    grades = re.findall(r"\{exercise\} .*\((one line|ten lines|a project)\)$", text, re.MULTILINE)
    assert len(grades) == text.count("{exercise}") >= 5
    assert set(grades) == {"one line", "ten lines", "a project"}
    labels = re.findall(r"\{exercise\}.*\n:label: (\S+)", text)
    assert labels == re.findall(r"\{solution\} (\S+)", text)


@each_chapter
def test_exports_are_plain_markdown(chapter: Chapter) -> None:
    notebook = exported(chapter, solutions=True)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\{[\w:-]+\}`|^:::|^```\{|^\([\w-]+\)=", cell.source, re.M)
            assert not re.search(r"\b(fig|tab)-[a-z]", cell.source), cell.source
        assert "tab-" not in "".join(re.findall(r'name="(.*?)"', cell.source))
    nbformat.validate(notebook)


def test_a_student_runs_the_notebook_in_any_folder(tmp_path: Path) -> None:
    chapter = CHAPTERS["01_gaussian_1d"]
    notebook, done = tmp_path / "student.ipynb", tmp_path / "done.ipynb"
    nbformat.write(exported(chapter, solutions=False), notebook)
    smoke = load_preset(ROOT, "smoke", CHAPTERS)[chapter.name]
    command = [sys.executable, "-m", "papermill", str(notebook), str(done), "--no-progress-bar"]
    subprocess.run(
        [*command, "--parameters_yaml", json.dumps(smoke)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=600,
    )
    cells = [c for c in nbformat.read(done, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source)
    pictures = [o for c in cells for o in c.outputs if "image/svg+xml" in o.get("data", {})]
    assert len(pictures) == sum("figure" in c.metadata.get("mystnb", {}) for c in cells) > 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":::{warning}\nBeware.\n:::", "> **Warning**\n>\n> Beware."),
        (":::{admonition} Two\n:class: tip\n\na\n\nb\n:::", "> **Two**\n>\n> a\n>\n> b"),
        ("```{exercise}\n:label: x\n\nWhy?\n```", "> **Exercise**\n>\n> Why?"),
        (":::{exercise} Ask\nWhy?\n:::", "> **Exercise: Ask**\n>\n> Why?"),
        (
            "a\n\n:::{solution} x\n:class: dropdown\n\nSo.\n:::\n\nb",
            "a\n\n> **Solution**\n>\n> So.\n\nb",
        ),
        (":::{table} All.\n:name: tab-x\n\n| a |\n:::", "**{numref}`tab-x`.** All.\n\n| a |"),
        (":::{list-table} All.\n:widths: 1 2\n\n* - a\n:::", "**All.**\n\n* - a"),
        ("::::{note}\n:::{tip}\nIn.\n:::\n::::", "> **Note**\n>\n> > **Tip**\n> >\n> > In."),
        ("(a-label)=\n## Title", "## Title"),
        ("```python\nx = 1\n```", "```python\nx = 1\n```"),
    ],
)
def test_directives_become_plain_markdown(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.fixture
def course(tiny_project: Path, genamp) -> Path:
    """Return the tiny project with an exercise, a figure and notes, after one run."""
    path = tiny_project / "notebooks" / "01_tiny.md"
    path.write_text(path.read_text() + EXERCISE)
    (tiny_project / "book" / "teaching").mkdir()
    notes = tiny_project / "book" / "teaching" / "01_tiny.md"
    notes.write_text("## For the instructor\n\nAsk for {result}`answer` first.\n")
    done = genamp(tiny_project, "run", "01_tiny")
    assert done.returncode == 0, done.stderr
    return tiny_project


@pytest.fixture
def export(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that calls `genamp export` in a folder: exit code, output, errors."""

    def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as end:
            main(["export", *arguments])
        return end.value.code or 0, *capsys.readouterr()

    return call


def text_of(path: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def test_the_four_kinds(course: Path, export) -> None:
    code, out, errors = export(course, "1", "--student")
    assert (code, out) == (0, "01_tiny-student.ipynb\n"), errors
    student = text_of(course / "01_tiny-student.ipynb")
    assert "prepare(repository)" in student
    assert "n_train: int = 10" in student
    assert "The answer is 5 (Fig. 1.1)" in student
    assert "**Fig. 1.1.** A line through 5 points." in student
    assert "twice the answer?" in student
    for secret in ("is ten", "secret", "only for the solution", "Ask for", "results.write();"):
        assert secret not in student

    code, out, errors = export(course, "01", "--instructor", "--output", "all.ipynb")
    assert code == 0, errors
    instructor = text_of(course / "all.ipynb")
    for wanted in ("Ask for 5 first.", "Twice the answer is ten", "only for the solution"):
        assert wanted in instructor
    assert (
        "image/svg+xml" in (course / "all.ipynb").read_text()
        or "image/png" in (course / "all.ipynb").read_text()
    )

    code, _, errors = export(course, "01_tiny", "--slides")
    assert code == 0, errors
    page = (course / "01_tiny-slides.html").read_text()
    soup = BeautifulSoup(page.split("<script>")[0], "html.parser")
    titles = [title.text for title in soup.select("h1, h2")]
    assert titles == ["A tiny chapter", "Findings", "A tiny chapter", "What to do"]
    assert "The answer is 5 (Fig. 1.1), as everybody knows." in " ".join(soup.text.split())
    assert "$a<b$" in soup.text
    assert "Prerequisites" not in soup.text
    assert soup.img["alt"] == "A line that rises."
    assert soup.img["src"].startswith("data:image/")
    assert not re.search(r"(src|href)=\"(?!data:|#)", str(soup))

    code, _, errors = export(course, "01_tiny", "--slides")
    assert code == 2
    assert "01_tiny-slides.html: exists; remove it, or give --overwrite" in errors
    assert export(course, "01_tiny", "--slides", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["99", "--student"], "unknown chapter `99`"),
        (
            ["01_tiny"],
            "exactly one of --student, --instructor, --slides, --pdf must be given, got none",
        ),
        (["01_tiny", "--student", "--pdf"], "got --student --pdf"),
        (["01_tiny", "--student"], "run `genamp run 01_tiny --preset default` first"),
        (["01_tiny", "--pdf"], "no page to print; run `genamp build --preset default` first"),
        (["book", "--pdf"], "no page to print; run `genamp build --preset default` first"),
        (["book", "--slides"], "the whole `book` must be given with --pdf, got --slides"),
        (["01_tiny", "--slides", "-o", "no/x.html"], "no is no folder; make it"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tiny_project: Path, export, arguments: list[str], problem: str
) -> None:
    before = set(tiny_project.iterdir())
    code, _, errors = export(tiny_project, *arguments)
    assert code == 2
    assert problem in errors
    assert len(errors.strip().splitlines()) == 1
    assert set(tiny_project.iterdir()) - before <= {tiny_project / "_build"}


def test_a_changed_chapter_is_run_again_first(course: Path, export) -> None:
    path = course / "notebooks" / "01_tiny.md"
    path.write_text(path.read_text().replace("range(5)", "range(6)"))
    code, _, errors = export(course, "01_tiny", "--slides")
    assert code == 2
    assert "the code of `01_tiny` changed since its last run" in errors


@pytest.mark.parametrize("prints", [True, False])
def test_paper_is_left_to_a_browser(
    tiny_project: Path, export, monkeypatch: pytest.MonkeyPatch, prints: bool
) -> None:
    page = tiny_project / "_build" / "site" / "chapters" / "01_tiny.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>A page</p>")
    monkeypatch.setenv("PATH", str(tiny_project))
    code, _, errors = export(tiny_project, "01_tiny", "--pdf")
    assert code == 2
    assert "no Chromium or Chrome on the PATH; install one" in errors
    browser = tiny_project / "chromium"
    write = 'case "$a" in --print-to-pdf=*) echo %PDF "$@" > "${a#*=}";; esac'
    body = f'for a in "$@"; do {write}; done' if prints else "echo out of memory >&2"
    browser.write_text(f"#!/bin/sh\n{body}\n")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    code, _, errors = export(tiny_project, "01_tiny", "--pdf")
    target = tiny_project / "01_tiny.pdf"
    if prints:
        assert code == 0, errors
        assert page.as_uri() in target.read_text()
    else:
        assert code == 2
        assert "out of memory" in errors
        assert not target.exists()


def test_a_book_of_two_pages(tiny_project: Path, export) -> None:
    browser_path()
    site = tiny_project / "_build" / "site"
    (site / "chapters").mkdir(parents=True)
    links = {
        "a": "chapters/01_tiny.html",
        "b": "chapters/01_tiny.html#end",
        "c": "https://example.org/",
        "d": "x.zip",
    }
    anchors = "".join(f"<p><a href='{goal}'>{name}</a>" for name, goal in links.items())
    end = "<a href='#end'>down</a><p style='break-before: page' id='end'><a href='#top'>up</a>"
    for name, title, body in (
        ("index", "Tiny &amp; all", anchors),
        ("chapters/01_tiny", "<span>1. </span>A chapter<a class='headerlink'>#</a>", end),
        ("data", "Data", "<p id='end'><a href='#end'>here</a>"),
    ):
        text = f"<article><h1 id='top'>{title}</h1>{body}</article>".replace("'", '"')
        (site / f"{name}.html").write_text(text)
    code, out, errors = export(tiny_project, "book", "--pdf")
    assert (code, out) == (0, "book.pdf\n"), errors
    assert errors.splitlines() == ["Tiny & all", "1. A chapter", "Data"]
    book = pypdf.PdfReader(tiny_project / "book.pdf", strict=True)
    assert book.page_labels == ["i", "1", "2", "3", "4"]
    titles = [(one.title, book.get_destination_page_number(one)) for one in book.outline]
    assert titles == [("Tiny & all", 1), ("1. A chapter", 2), ("Data", 4)]
    contents, *pages = (" ".join(page.extract_text().split()) for page in book.pages)
    assert contents.endswith("Tiny & all 1 1. A chapter 2 Data 4")
    assert [text.split()[-1] for text in pages] == ["1", "2", "3", "4"]
    assert goals_of(book) == [[1, 2, 4], [2, 3, "https://example.org/"], [3], [2], [4]]


def goals_of(book) -> list[list[int | str]]:
    """Return for each page of a PDF where its links lead: the index of a page, or an address."""
    numbers = {page.indirect_reference.idnum: k for k, page in enumerate(book.pages)}
    links = [[link.get_object() for link in page.get("/Annots", [])] for page in book.pages]
    return [
        [numbers[x["/Dest"][0].idnum] if "/Dest" in x else x["/A"]["/URI"] for x in found]
        for found in links
    ]


def test_notes_belong_to_chapters_and_quote_numbers_that_exist() -> None:
    for path in sorted((ROOT / "book" / "teaching").glob("*.md")):
        notes = path.read_text(encoding="utf-8")
        chapter = BOOK.find(path.stem)
        for wanted in (
            "## Goals",
            "## 45 minutes",
            "## 90 minutes",
            "## Questions to ask",
            "## What students get wrong",
        ):
            assert wanted in notes, f"{path.name}: {wanted}"
        assert notes.count("*Answer:*") >= 4
        text = resolver(BOOK, chapter, jupytext.read(chapter.path))(notes)
        assert not re.search(r"\b(fig|tab)-[a-z]", text)


def test_the_course_names_exercises_and_chapters_that_exist() -> None:
    course = (ROOT / "book" / "course.md").read_text(encoding="utf-8")
    sources = "".join(chapter.path.read_text(encoding="utf-8") for chapter in CHAPTERS.values())
    labels = re.findall(r"\{ref\}`([\w-]+)`", course)
    assert len(labels) > 10
    assert not [label for label in labels if f"}} {label}\n" not in sources]
    assert {f"chapters/{name}" for name in CHAPTERS} >= set(re.findall(r"\{doc\}`(.*?)`", course))


def test_slides_of_a_chapter_without_findings_have_figures_only() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title\n\nText.")])
    page = slides("Title", notebook, lambda text: text)
    assert page.count("<section") == 1
