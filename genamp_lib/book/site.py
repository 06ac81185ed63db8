"""Render staged sources with jupyter-book and put the site in place, whole or not at all.

Turn finished runs into the sources of the site: numbers, tables, provenance go into the pages.

Reads result files and notebooks, writes a folder that jupyter-book renders. Runs nothing.
"""

from __future__ import annotations

import hashlib
import html
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_folder,
    sha256_of_file,
    write_json,
)
from genamp_lib.book.catalog import Chapter, choices
from genamp_lib.book.results import Result, read_results
from genamp_lib.book.scoreboard import (
    PaperNumber,
    Row,
    compare,
    load_paper_numbers,
    result_span,
    table_html,
)
from genamp_lib.book.stale import installed_versions

_ROLE = re.compile(r"\{result\}`([^`]+)`")
_MARK = re.compile(r"^% genamp:(\w+)[ \t]*$", flags=re.MULTILINE)
_BANNERS = {
    "smoke": (
        "This page was computed with the preset `smoke`: small samples, from scratch, to prove "
        "that the machinery works. Its numbers and figures are not the published ones."
    ),
}
# More than these are folded away in the provenance of a page.
_MANY_ARTEFACTS = 6


@dataclass(frozen=True)
class Page:
    """A chapter as the site shows it: its notebook and, where it has been run, what came out.

    Attributes:
        chapter: The chapter.
        folder: Folder of its run, None when it has not been run.
    """

    chapter: Chapter
    folder: Path | None

    @property
    def record(self) -> Mapping[str, Any]:
        """The run's record; empty when it has not been run."""
        return read_json(self.folder / "record.json") if self.folder else {}

    @property
    def results(self) -> dict[str, Result]:
        """The run's results; empty when it has not been run."""
        return read_results(self.folder / "results.json") if self.folder else {}


def all_results(pages: Mapping[str, Page]) -> dict[str, tuple[str, dict[str, Result]]]:
    """Return chapter -> (preset, results) for the pages that have been run."""
    return {n: (p.record["preset"], p.results) for n, p in pages.items() if p.folder}


def stage(root: Path, pages: Mapping[str, Page], numbers: list[PaperNumber], target: Path) -> None:
    """Write the sources of the whole site into a new folder.

    Args:
        root: Project folder.
        pages: Chapter name -> page.
        numbers: The papers' numbers.
        target: Folder that does not exist yet.

    Raises:
        GenampError: A page quotes a result that its chapter does not write.
    """
    results = all_results(pages)
    rows = [_as_shown(row, pages.get(row.paper.chapter)) for row in compare(numbers, results)]
    shutil.copytree(root / "book", target)
    data = (root / "data" / "README.md").read_text(encoding="utf-8")
    data = re.sub(r"\]\(\.\./notebooks/(\w+)\.md\)", r"](chapters/\1.ipynb)", data)
    (target / "data.md").write_text(data, encoding="utf-8")
    (target / "downloads").mkdir()
    (target / "chapters").mkdir()
    for name, page in pages.items():
        if page.folder:
            shutil.copy(page.folder / "notebook.ipynb", target / "downloads" / f"{name}.ipynb")
            shutil.copy(page.folder / "source.md", target / "downloads" / f"{name}.md")
        notebook = _chapter_notebook(page, [row for row in rows if row.paper.chapter == name])
        nbformat.write(notebook, target / "chapters" / f"{name}.ipynb")
    blocks = {
        "scoreboard": lambda: table_html(rows, with_chapter=True),
        "headline": lambda: table_html([r for r in rows if r.paper.headline], with_chapter=True),
        "chapters": lambda: _chapter_list(pages),
        "presets": lambda: _preset_note(pages),
    }
    for path in sorted(target.glob("*.md")):
        text = _insert(path.read_text(encoding="utf-8"), path.name, results, None, blocks)
        path.write_text(text, encoding="utf-8")
    _copy_scripts(target / "assets")


def _chapter_notebook(page: Page, rows: list[Row]) -> NotebookNode:
    """Return the notebook of a page with numbers, banner, tables and provenance in place.

    The prose is the notebook's of today, the outputs are the run's: editing a sentence shows
    without a rerun. Their code cells are the same, or the chapter would have been rerun.
    """
    name = page.chapter.name
    notebook = jupytext.read(page.chapter.path)
    if page.folder:
        _take_outputs(notebook, nbformat.read(page.folder / "notebook.ipynb", as_version=4))
    results = {name: (page.record["preset"], page.results)} if page.folder else {}
    blocks = {"scoreboard": lambda: table_html(rows)}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _insert(cell.source, name, results, name, blocks)
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "caption" in figure:
            figure["caption"] = _insert(figure["caption"], name, results, name, {})
    first = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    first.source = _after_title(first.source, _banner(page))
    notebook.cells.append(nbformat.v4.new_markdown_cell(_provenance(page), id="provenance"))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def _as_shown(row: Row, page: Page | None) -> Row:
    """Return the row; without a verdict where a user's parameters are not those of the paper."""
    if page is None or not page.record.get("changed"):
        return row
    return replace(row, verdict="not comparable", reason="rerun with other parameters")


def _take_outputs(notebook: NotebookNode, run: NotebookNode) -> None:
    """Move the outputs of a run into the notebook, its cell of changed parameters included."""
    position = 0
    outputs = [cell for cell in run.cells if cell.cell_type == "code"]
    for cell in outputs:
        if "injected-parameters" in cell.metadata.get("tags", []):
            notebook.cells.insert(position, cell)
            position += 1
            continue
        while notebook.cells[position].cell_type != "code":
            position += 1
        notebook.cells[position].outputs = cell.outputs
        notebook.cells[position].execution_count = cell.execution_count
        position += 1


def _insert(
    text: str,
    where: str,
    results: Mapping[str, tuple[str, Mapping[str, Result]]],
    chapter: str | None,
    blocks: Mapping[str, Callable[[], str]],
) -> str:
    def number(match: re.Match) -> str:
        path, _, name = match.group(1).rpartition("/")
        owner = path or chapter or ""
        if owner not in results:
            return "(not run)"
        if name not in results[owner][1]:
            raise GenampError(
                f"{where}: quotes the result `{match.group(1)}`; {choices(name, results[owner][1])}"
            )
        return result_span(owner, results[owner][1][name])

    def block(match: re.Match) -> str:
        if match.group(1) not in blocks:
            raise GenampError(f"{where}: `{match.group()}`; {choices(match.group(1), blocks)}")
        return blocks[match.group(1)]()

    return _ROLE.sub(number, _MARK.sub(block, text))


def _banner(page: Page) -> str:
    record = page.record
    if not record:
        text = "This chapter has not been run here; the page shows its text and code only."
    elif record.get("changed"):
        changed = ", ".join(f"`{k} = {v}`" for k, v in record["changed"].items())
        text = f"This page was rerun with {changed}. Its numbers are not the published ones."
    else:
        text = _BANNERS.get(record["preset"], "")
    return f":::{{warning}}\n:class: genamp-banner\n{text}\n:::" if text else ""


def _after_title(source: str, block: str) -> str:
    lines = source.splitlines()
    position = next(i for i, line in enumerate(lines) if line.startswith("# ")) + 1
    return "\n".join([*lines[:position], "", block, "", *lines[position:]]) if block else source


def _provenance(page: Page) -> str:
    record, name = page.record, page.chapter.name
    if not record:
        return "## Provenance\n\nNot run."
    print_versions = record["fingerprint"]["versions"]
    rows = {
        "Preset": record["preset"],
        "Seed": record["seed"],
        "Changed parameters": ", ".join(f"{k} = {v}" for k, v in record["overrides"].items())
        or "none",
        "Source revision": record["revision"],
        "Started": record["started"],
        "Wall time": f"{record['wall_seconds']} s on {record['machine']}",
        "Event samples": _checksums(record["fingerprint"]["samples"]) or "none",
        "Versions": ", ".join(f"{k} {v}" for k, v in print_versions.items()),
    }
    cells = {key: html.escape(str(value)) for key, value in rows.items()}
    cells["Artefacts"] = _artefacts(record["artefacts"])
    lines = [f'<tr><th scope="row">{key}</th><td>{cell}</td></tr>' for key, cell in cells.items()]
    table = "\n".join(
        [
            '<div class="genamp-table"><table class="table genamp-provenance">',
            *lines,
            "</table></div>",
        ]
    )
    return (
        "## Provenance\n\n"
        f"Download: {{download}}`the executed notebook <../downloads/{name}.ipynb>` and "
        f"{{download}}`its source <../downloads/{name}.md>`.\n\n{table}\n"
    )


def _artefacts(used: Sequence[Mapping[str, str]]) -> str:
    """Return HTML that lists artefacts, folded away below their numbers where they are many."""
    # A run may have used one more than once.
    named = {f"{a['artefact']} ({a['origin']})": a["sha256"] for a in used}
    listed = html.escape(_checksums(named) or "none")
    if len(named) <= _MANY_ARTEFACTS:
        return listed
    stages = Counter(name.split(" ")[0].rpartition("-")[0] for name in named)
    summary = html.escape(", ".join(f"{stage}: {number}" for stage, number in stages.items()))
    return f"<details><summary>{summary}</summary>{listed}</details>"


def _checksums(files: Mapping[str, str]) -> str:
    return ", ".join(f"{name} sha256 {checksum[:12]}…" for name, checksum in files.items())


def _chapter_list(pages: Mapping[str, Page]) -> str:
    lines = ['<div class="genamp-table"><table class="table"><thead><tr>']
    lines += ["<th>Chapter</th><th>What it does</th><th>Run time</th></tr></thead><tbody>"]
    for name, page in pages.items():
        time = f"{page.record['wall_seconds']:.0f} s" if page.folder else "not run"
        lines.append(
            f'<tr><td><a href="chapters/{name}.html">{html.escape(page.chapter.title)}</a></td>'
            f"<td>{html.escape(page.chapter.summary)}</td><td>{time}</td></tr>"
        )
    return "\n".join([*lines, "</tbody></table></div>"])


def _preset_note(pages: Mapping[str, Page]) -> str:
    presets = sorted({page.record["preset"] for page in pages.values() if page.folder})
    if presets == ["smoke"]:
        return f":::{{warning}}\n:class: genamp-banner\n{_BANNERS['smoke']}\n:::"
    return ""


def _copy_scripts(assets: Path) -> None:
    """Copy MathJax and plotly from the installed packages, so that no page needs a network."""
    plotly = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    mathjax = importlib.resources.files("mathjax") / "static" / "mathjax" / "es5"
    fonts = Path("output") / "chtml" / "fonts" / "woff-v2"
    with (
        importlib.resources.as_file(plotly) as script,
        importlib.resources.as_file(mathjax) as folder,
    ):
        shutil.copy(script, assets / "plotly.min.js")
        (assets / "mathjax").mkdir(parents=True)
        shutil.copy(folder / "tex-chtml-full.js", assets / "mathjax")
        shutil.copytree(folder / fonts, assets / "mathjax" / fonts)


_STAMP = ".genamp.json"


class SiteError(Exception):
    """The site could not be rendered; the message lists jupyter-book's warnings."""


def site_folder(root: Path, preset: str) -> Path:
    """Return where the site of a preset stands; the published one is _build/site."""
    return root / "_build" / ("site" if preset == "default" else f"site-{preset}")


def build_site(root: Path, pages: Mapping[str, Page], target: Path, *, strict: bool = True) -> bool:
    """Stage and render the site, unless its sources are those of the site that is there.

    Args:
        root: Project folder.
        pages: Chapter name -> page.
        target: Folder of the site; replaced as a whole.
        strict: Treat every warning as an error.

    Returns:
        Whether anything was rendered.

    Raises:
        SiteError: jupyter-book failed or warned; the site that was there stays.
        GenampError: A page is wrong.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.stage-"
    for leftover in target.parent.glob(f"{prefix}*"):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
        sources = Path(folder) / "book"
        stage(root, pages, load_paper_numbers(root), sources)
        checksum = _checksum_of_sources(sources)
        recover_folder(target)
        if _checksum_of_site(target) == checksum:
            return False
        rendered = _render(sources, Path(folder) / "out", strict=strict)
        write_json(rendered / _STAMP, {"sources": checksum})
        replace_folder(rendered, target)
    return True


def _render(sources: Path, output: Path, *, strict: bool) -> Path:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(sources), "--path-output", str(output), "--all", "-n"]
    command += ["-W", "--keep-going"] if strict else []
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    html = output / "_build" / "html"
    if process.returncode != 0 or not (html / "index.html").exists():
        log = (process.stdout + process.stderr).replace(str(sources), "book")
        lines = [line for line in log.splitlines() if re.search("WARNING|[Ee]rror:|ERROR:", line)]
        raise SiteError(
            "the site was not rendered; jupyter-book says:\n" + "\n".join(lines or [log])
        )
    return html


def _checksum_of_sources(sources: Path) -> str:
    """Hash everything that the site is made from: pages, docstrings, and the renderer's version."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(repr(sorted(installed_versions().items())).encode())
    for base in (sources, package):
        for path in sorted(base.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(base)} {sha256_of_file(path)}".encode())
    return digest.hexdigest()


def _checksum_of_site(target: Path) -> str | None:
    try:
        return read_json(target / _STAMP)["sources"]
    except (OSError, GenampError, KeyError, TypeError):
        return None
