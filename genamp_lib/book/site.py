"""Turn finished runs into the site: its sources, and what the pages set, for jupyter-book to draw.

Runs no chapter. The site is put in place whole or not at all.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jinja2 import Environment
from markupsafe import escape
from nbformat import NotebookNode

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_file,
    replace_folder,
    sha256_of_file,
    write_json,
)
from genamp_lib.book.catalog import Chapter
from genamp_lib.book.download import for_download, repository_address
from genamp_lib.book.overview import cards, dots, draw_pairs, pairs, paper_figures
from genamp_lib.book.results import Run
from genamp_lib.book.scoreboard import compare, load_paper_numbers, tally
from genamp_lib.book.stale import installed_versions

COMPUTED = "computed.json"  # in the sources: what the pages ask for, see extension
_STAMP = ".genamp.json"


class SiteError(GenampError):
    """The site could not be rendered; the message lists jupyter-book's warnings."""

    exit_code = 1


def site_folder(root: Path, preset: str) -> Path:
    """Return where the site of a preset stands; the published one is _build/site."""
    return root / "_build" / ("site" if preset == "default" else f"site-{preset}")


def build_site(
    root: Path,
    chapters: Mapping[str, Chapter],
    runs: Mapping[str, Run],
    target: Path,
    *,
    strict: bool = True,
    share_with: Path | None = None,
) -> bool:
    """Stage and render the site; return False if its sources are those of the site that is there.

    `target` is replaced as a whole, or stays when a page is wrong; `strict` makes every warning of
    jupyter-book an error. Files that the site `share_with` has too are links to its own.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.stage-"
    for leftover in target.parent.glob(f"{prefix}*"):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
        sources = Path(folder) / "book"
        stage_sources(root, chapters, runs, sources)
        checksum = _checksum_of_sources(sources)
        recover_folder(target)
        if _checksum_of_site(target) == checksum:
            return False
        rendered = _render(sources, Path(folder) / "out", strict=strict)
        write_json(rendered / _STAMP, {"sources": checksum})
        if share_with is not None:
            _share_files(rendered, share_with)
        replace_folder(rendered, target)
    return True


def _share_files(pages: Path, other: Path) -> None:
    """Let scripts, styles and fonts that another site has too take no room a second time."""
    for path in pages.glob("_static/**/*"):
        twin = other / path.relative_to(pages)
        if path.is_file() and twin.is_file() and filecmp.cmp(path, twin, shallow=False):
            with suppress(OSError), replace_file(path) as temporary:  # not on every disk
                temporary.unlink()
                temporary.hardlink_to(twin)


def stage_sources(
    root: Path, chapters: Mapping[str, Chapter], runs: Mapping[str, Run], target: Path
) -> None:
    """Write the sources of the whole site, and what its pages set, into a new folder.

    Args:
        root: Folder of the project.
        chapters: Chapters by name, as `load_chapters` gives them.
        runs: Runs by the name of their chapter; the page of another shows no outputs.
        target: Folder that does not exist yet.
    """
    rows = compare(load_paper_numbers(root), runs)
    shutil.copytree(root / "book", target)
    data = (root / "data" / "README.md").read_text(encoding="utf-8")
    data = re.sub(r"\]\(\.\./notebooks/(\w+)\.md\)", r"](chapters/\1.ipynb)", data)
    (target / "data.md").write_text(data, encoding="utf-8")
    (target / "downloads").mkdir()
    (target / "chapters").mkdir()
    cases = pairs(root, runs)
    draw_pairs(target / "assets" / "amplification.svg", cases)
    html, presets = _html(), {run.record["preset"] for run in runs.values()}
    # The pages around the chapters carry the banner of a site that is nothing but smoke.
    banner = html.banner({"record": {"preset": "smoke"}}) if presets == {"smoke"} else ""
    blocks = {
        "": {
            "scoreboard": html.scoreboard(rows, link=True),
            "tallies": html.tallies(tally(rows)),
            "dots": html.dots(**dots(rows), titles={name: c.title for name, c in chapters.items()}),
            "headline": html.scoreboard([row for row in rows if row.paper.headline], link=True),
            "chapters": cards(chapters, runs),
            "cases": html.cases(Counter(pair.cases.chapter for pair in cases)),
            "figures": html.figures(paper_figures(root, chapters)),
            "benchmarks": html.benchmarks(read_json(root / "book" / "benchmarks.json")),
            "power": html.power(read_json(root / "book" / "power.json")),
            "banner": banner,
        }
    }
    for name, chapter in chapters.items():
        run = runs.get(name)
        if run:
            executed = for_download(_executed(run), repository_address(root))
            nbformat.write(executed, target / "downloads" / f"{name}.ipynb")
            shutil.copy(run.folder / "source.md", target / "downloads" / f"{name}.md")
        nbformat.write(_notebook(chapter, run), target / "chapters" / f"{name}.ipynb")
        blocks[name] = {
            "scoreboard": html.scoreboard([row for row in rows if row.paper.chapter == name]),
            "banner": html.banner(run),
            "provenance": _provenance(run.record) if run else "",
        }
    results = {
        name: {r.name: (r.text, r.meaning) for r in runs[name].results.values()}
        if name in runs
        else None
        for name in chapters
    }
    changed = [name for name, run in runs.items() if run.record["changed"]]
    write_json(target / COMPUTED, {"results": results, "changed": changed, "blocks": blocks})
    _copy_scripts(target / "assets")


def _notebook(chapter: Chapter, run: Run | None) -> NotebookNode:
    """Return the notebook of a page: the prose of today with the outputs of the run."""
    notebook = with_outputs(chapter, run) if run else jupytext.read(chapter.path)
    provenance = "Not run."
    if run:
        provenance = (
            f"Download: {{download}}`the executed notebook <../downloads/{chapter.name}.ipynb>` "
            f"and {{download}}`its source <../downloads/{chapter.name}.md>`.\n\n"
            ":::{genamp} provenance\n:::"
        )
    first = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    banner = r"\g<0>\n\n:::{genamp} banner\n:::\n"
    first.source = re.sub(r"^# .*$", banner, first.source, count=1, flags=re.MULTILINE)
    notebook.cells.append(nbformat.v4.new_markdown_cell(f"## Provenance\n\n{provenance}"))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("hide-input")
            cell.metadata["mystnb"] = dict.fromkeys(
                ("code_prompt_show", "code_prompt_hide"), "Parameters"
            )
    return notebook


def with_outputs(chapter: Chapter, run: Run) -> NotebookNode:
    """Return the notebook of today with the outputs of a run of the same code."""
    notebook = jupytext.read(chapter.path)
    _take_outputs(notebook, _executed(run))
    return notebook


def _executed(run: Run) -> NotebookNode:
    path = run.folder / "notebook.ipynb"
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:  # of JSON, of the format
        again = f"run `genamp run {run.record['chapter']}` again"
        raise GenampError(f"{path}: damaged; {again}") from error


def _take_outputs(notebook: NotebookNode, run: NotebookNode) -> None:
    """Move the outputs of a run into the notebook, its cell of changed parameters included."""
    position = 0
    for cell in (cell for cell in run.cells if cell.cell_type == "code"):
        if "injected-parameters" in cell.metadata.get("tags", []):
            notebook.cells.insert(position, cell)
        else:
            while notebook.cells[position].cell_type != "code":
                position += 1
            notebook.cells[position].outputs = cell.outputs
            notebook.cells[position].execution_count = cell.execution_count
        position += 1


def result_tag(chapter: str, name: str, meaning: str) -> str:
    """Return the HTML that opens a number on a page; the site's tests read it."""
    return (
        f'<span class="genamp-result" data-chapter="{chapter}" data-result="{name}" '
        f'title="{escape(meaning)}">'
    )


def _provenance(record: Mapping[str, Any]) -> str:
    # A run may have used an artefact more than once.
    used = {f"{a['artefact']} ({a['origin']})": a["sha256"] for a in record["artefacts"]}
    stages = Counter(name.split(" ")[0].rpartition("-")[0] for name in used)
    return _html().provenance(record, used, stages)


@cache
def _html() -> Any:
    """Return the macros of blocks.html."""
    template = Path(__file__).with_name("blocks.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True)
    environment.globals["result_tag"] = result_tag
    return environment.from_string(template).module


def _copy_scripts(assets: Path) -> None:
    """Copy MathJax and plotly from the installed packages, so that no page needs a network."""
    shutil.copy(files("plotly") / "package_data" / "plotly.min.js", assets)
    mathjax = files("mathjax") / "static" / "mathjax" / "es5"
    (assets / "mathjax").mkdir(parents=True)
    shutil.copy(mathjax / "tex-chtml-full.js", assets / "mathjax")
    fonts = Path("output") / "chtml" / "fonts" / "woff-v2"
    shutil.copytree(mathjax / fonts, assets / "mathjax" / fonts)


def _render(sources: Path, output: Path, *, strict: bool) -> Path:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(sources), "--path-output", str(output), "--all", "-n"]
    command += ["-W", "--keep-going"] if strict else []
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    pages = output / "_build" / "html"
    if process.returncode == 0 and (pages / "index.html").exists():
        return pages
    log = (process.stdout + process.stderr).replace(str(sources), "book")
    if ours := re.search(r"GenampError: (.*)", log):
        raise GenampError(ours.group(1))
    lines = [line for line in log.splitlines() if re.search("WARNING|[Ee]rror:|ERROR:", line)]
    raise SiteError("the site was not rendered; jupyter-book says:\n" + "\n".join(lines or [log]))


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
