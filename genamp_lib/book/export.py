"""A chapter to take into a course, made from its notebook and its last run. Runs nothing.

For students a notebook without solutions, for instructors one with solutions, outputs and the
notes of book/teaching, and slides in one HTML file. Not for paper: paper.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import nbformat
from jinja2 import Environment
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from pybtex.database import parse_file

from genamp_lib._project import GenampError, replace_file
from genamp_lib.book.catalog import Chapter, read_chapter
from genamp_lib.book.download import for_download, repository_address
from genamp_lib.book.run import Book
from genamp_lib.book.site import with_outputs

# What MyST adds to Markdown: directives (fence, name, title, options, body), roles, labels; a list.
_DIRECTIVE = re.compile(
    r"^(:{3,}|`{3,})\{([\w-]+)\} *(.*)\n((?::[\w-]+:.*\n)*)((?:.*\n)*?)\1 *$", re.MULTILINE
)
_ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+)`")
_LINK = re.compile(r"\[([^][]+)\]\((?!\w+:)[^()\s]+\)")  # to a label or a page of the book
_LABEL = re.compile(r"^\(([\w-]+)\)=\n", re.MULTILINE)
_TABLE = re.compile(r"(?<=name=\")tab-[\w-]+(?=\")")
_ITEM = re.compile(r"^(?:-|\d+\.) .*(?:\n +.*)*", re.MULTILINE)


def export(book: Book, name: str, kind: str, target: Path) -> None:
    """Write a chapter to `target` as `kind`, which is student, instructor or slides.

    Raises:
        GenampError: The chapter is unknown, was never run or changed since.
    """
    chapter = book.find(name)
    run = book.runs().get(chapter.name)
    again = f"run `genamp run {chapter.name} --preset {book.preset}` first"
    if run is None:
        raise GenampError(f"chapter `{chapter.name}` was never run with this preset; {again}")
    if read_chapter(run.folder / "source.md").code != chapter.code:
        raise GenampError(f"the code of `{chapter.name}` changed since its last run; {again}")
    notebook = with_outputs(chapter, run)
    resolve = resolver(book, chapter, notebook)
    if kind == "slides":
        text = slides(chapter.title, notebook, resolve)
    else:
        notes = book.root / "book" / "teaching" / f"{chapter.name}.md"
        told = kind == "instructor" and notes.is_file()
        notebook = course_notebook(
            notebook,
            resolve,
            solutions=kind == "instructor",
            notes=notes.read_text(encoding="utf-8") if told else "",
        )
        text = nbformat.writes(for_download(notebook, repository_address(book.root)))
    with replace_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def course_notebook(
    notebook: NotebookNode, resolve: Callable[[str], str], *, solutions: bool, notes: str = ""
) -> NotebookNode:
    """Return a chapter's notebook in plain Markdown, with captions and without bookkeeping.

    Args:
        notebook: Notebook of the chapter with the outputs of its run; it is changed.
        resolve: Function that writes the roles of a text as plain Markdown, from `resolver`.
        solutions: Whether solutions and outputs stay.
        notes: Notes for the instructor, which come first.
    """

    def written(text: str, *, solutions: bool = True) -> str:
        return resolve(plain(resolve(text), solutions=solutions))  # again: for heads of tables

    cells = [nbformat.v4.new_markdown_cell(written(notes))] if notes else []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.source.startswith("results.write(") or ("solution" in tags and not solutions):
            continue
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = written(cell.source, solutions=solutions)
            continue
        # What `show_table` prints before a caption where no page is made.
        cell.source = _TABLE.sub(lambda name: resolve(f"{{numref}}`{name[0]}`"), cell.source)
        cell.metadata["jupyter"] = {"source_hidden": "hide-input" in tags}
        if not solutions:
            cell.outputs, cell.execution_count = [], None
        for output in cell.outputs:
            if text := output.get("data", {}).get("text/markdown"):
                output.data["text/markdown"] = written(text)
        if caption := _caption(cell, resolve):
            cells.append(nbformat.v4.new_markdown_cell(caption))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def slides(title: str, notebook: NotebookNode, resolve: Callable[[str], str]) -> str:
    """Return one HTML page of slides: a chapter's findings, its figures, and what to do."""
    shown, heading = [], title
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^##+ (.*)$", cell.source, re.MULTILINE)][-1]
        elif (picture := _picture(cell)) and (caption := _caption(cell, resolve)):
            alt = cell.metadata["mystnb"].get("image", {}).get("alt", "")
            shown.append({"title": heading, "picture": picture, "alt": alt, "text": caption})
    prose = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    boxes = [one[5] for one in _DIRECTIVE.finditer(prose) if one[2] == "admonition"]
    findings = _ITEM.findall("".join(boxes[:1]))
    advice = re.findall(r"^## What to do\n(.*?)(?=^## |\Z)", prose, re.MULTILINE | re.DOTALL)
    first = {"title": "Findings", "text": "\n".join(findings)}
    last = {"title": "What to do", "text": "\n".join(_ITEM.findall("".join(advice)))}
    shown = [slide for slide in (first, *shown, last) if slide["text"]]
    for slide in shown:
        slide["text"] = markdown2html(plain(resolve(slide["text"])))
    template = Path(__file__).with_name("slides.html").read_text(encoding="utf-8")
    mathjax = (files("mathjax") / "static/mathjax/es5/tex-svg-full.js").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    return page.render(title=title, slides=shown, mathjax=mathjax)


def plain(text: str, *, solutions: bool = True) -> str:
    r"""Return a text with MyST's directives as plain Markdown, without solutions if not wanted.

    >>> plain(":::{note}\nA *note*.\n:::\n\n:::{solution} x\n42\n:::", solutions=False)
    '> **Note**\n>\n> A *note*.\n\n'
    """

    def written(match: re.Match) -> str:
        kind, title, body = match[2], match[3], match[5]
        if kind == "genamp":
            return "*The page of this chapter has the table.*"
        if kind == "solution" and not solutions:
            return ""
        body = plain(body.strip(), solutions=solutions)
        if kind in ("list-table", "table"):  # the former is a list of lists, which Markdown shows
            label = re.search(r"^:name: (\S+)$", match[4], re.MULTILINE)
            head = f"**{{numref}}`{label[1]}`.** {title}" if label else f"**{title}**"
            return f"{head}\n\n{body}"
        told = "" if kind == "solution" else title  # a solution's is a label
        names = {"admonition": told, "exercise": f"Exercise{': ' * bool(told)}{told}"}
        head = f"**{names.get(kind, kind.capitalize())}**"
        return "\n".join(f"> {line}".rstrip() for line in f"{head}\n\n{body}".splitlines())

    return _DIRECTIVE.sub(written, _LABEL.sub("", text))


def resolver(book: Book, chapter: Chapter, notebook: NotebookNode) -> Callable[[str], str]:
    """Return a function that writes the roles of a text: numbers, references, citations."""
    runs, sources = book.runs(), [cell.source for cell in notebook.cells]
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in notebook.cells]
    tables = re.findall(r'name(?:: |=")(tab-[\w-]+)', "\n".join(sources))
    number = f"{int(chapter.name[:2])}." if chapter.name[:2].isdigit() else ""
    names = [figure["name"] for figure in figures if figure]
    told = {name: f"Fig. {number}{i}" for i, name in enumerate(names, 1)}
    told |= {name: f"Table {number}{i}" for i, name in enumerate(tables, 1)}
    for name, one in book.chapters.items():
        told[name] = one.title
        text = one.path.read_text(encoding="utf-8")
        told |= dict(re.findall(r"^\(([\w-]+)\)=\n+#+ (.*)$", text, re.MULTILINE))
    for key, entry in parse_file(str(book.root / "book" / "references.bib")).entries.items():
        people = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
        others = " et al." if len(people) > 2 else ""
        told[key] = f"{' and '.join(people[: 1 if others else 2])}{others} ({entry.fields['year']})"

    def written(match: re.Match) -> str:
        kind, text = match.groups()
        if kind == "result":
            where, _, name = text.rpartition("/")
            run = runs.get(where or chapter.name)
            return run.results[name].text if run and name in run.results else "(not computed)"
        shown, target = re.fullmatch(r"(?:(.*?)\s*<(.*)>|.*)", text, re.DOTALL).groups()
        keys = (target or text).split(",")
        return shown or ", ".join(told.get(key.strip().rpartition("/")[2], key) for key in keys)

    return lambda text: _ROLE.sub(written, _LINK.sub(r"\1", text))


def _caption(cell: NotebookNode, resolve: Callable[[str], str]) -> str:
    figure = cell.metadata.get("mystnb", {}).get("figure")
    return resolve(f"**{{numref}}`{figure['name']}`.** {figure['caption']}") if figure else ""


def _picture(cell: NotebookNode) -> str:
    """Return the figure of an executed cell as a data URI, empty where it has none."""
    for output in cell.outputs:
        for kind, content in output.get("data", {}).items():
            if kind == "image/svg+xml":
                content = base64.b64encode(content.encode()).decode()
            if kind.startswith("image/"):
                return f"data:{kind};base64,{content.strip()}"
    return ""
