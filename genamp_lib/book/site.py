"""Turn finished runs into the site: its sources, and what the pages set, for jupyter-book to draw.

Runs no chapter. The site is put in place whole or not at all.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.resources import files
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
from genamp_lib.book.catalog import Chapter
from genamp_lib.book.results import Run
from genamp_lib.book.scoreboard import Row, compare, load_paper_numbers
from genamp_lib.book.stale import installed_versions

COMPUTED = "computed.json"  # in the sources: what the pages ask for, see extension
_STAMP = ".genamp.json"
_SMOKE = (
    "This page was computed with the preset <code>smoke</code>: small samples, from scratch, to "
    "prove that the machinery works. Its numbers and figures are not the published ones."
)
# More than these are folded away in the provenance of a page.
_MANY_ARTEFACTS = 6


class SiteError(Exception):
    """The site could not be rendered; the message lists jupyter-book's warnings."""


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
) -> bool:
    """Stage and render the site, unless its sources are those of the site that is there.

    Args:
        root: Project folder.
        chapters: All chapters by name.
        runs: Runs of those that have been run.
        target: Folder of the site; replaced as a whole.
        strict: Whether every warning is an error.

    Returns:
        Whether anything was rendered.

    Raises:
        SiteError: jupyter-book failed or warned; the site that was there stays.
        GenampError: A page quotes a number, or asks for a table, that nothing computed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.stage-"
    for leftover in target.parent.glob(f"{prefix}*"):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as folder:
        sources = Path(folder) / "book"
        _stage(root, chapters, runs, sources)
        checksum = _checksum_of_sources(sources)
        recover_folder(target)
        if _checksum_of_site(target) == checksum:
            return False
        rendered = _render(sources, Path(folder) / "out", strict=strict)
        write_json(rendered / _STAMP, {"sources": checksum})
        replace_folder(rendered, target)
    return True


def _stage(
    root: Path, chapters: Mapping[str, Chapter], runs: Mapping[str, Run], target: Path
) -> None:
    """Write the sources of the whole site, and what its pages set, into a new folder."""
    rows = compare(load_paper_numbers(root), runs)
    shutil.copytree(root / "book", target)
    data = (root / "data" / "README.md").read_text(encoding="utf-8")
    data = re.sub(r"\]\(\.\./notebooks/(\w+)\.md\)", r"](chapters/\1.ipynb)", data)
    (target / "data.md").write_text(data, encoding="utf-8")
    (target / "downloads").mkdir()
    (target / "chapters").mkdir()
    smoke = bool(runs) and all(run.record["preset"] == "smoke" for run in runs.values())
    blocks = {
        "": {
            "scoreboard": _scoreboard(rows, link=True),
            "headline": _scoreboard([row for row in rows if row.paper.headline], link=True),
            "chapters": _chapter_list(chapters, runs),
            "banner": _warning(_SMOKE if smoke else ""),
        }
    }
    for name, chapter in chapters.items():
        run = runs.get(name)
        if run:
            shutil.copy(run.folder / "notebook.ipynb", target / "downloads" / f"{name}.ipynb")
            shutil.copy(run.folder / "source.md", target / "downloads" / f"{name}.md")
        nbformat.write(_notebook(chapter, run), target / "chapters" / f"{name}.ipynb")
        blocks[name] = {
            "scoreboard": _scoreboard([row for row in rows if row.paper.chapter == name]),
            "banner": _warning(_banner(run)),
            "provenance": _provenance(run.record) if run else "",
        }
    results = {
        name: {r.name: (r.text, r.meaning) for r in runs[name].results.values()}
        if name in runs
        else None
        for name in chapters
    }
    write_json(target / COMPUTED, {"results": results, "blocks": blocks})
    _copy_scripts(target / "assets")


def _notebook(chapter: Chapter, run: Run | None) -> NotebookNode:
    """Return the notebook of a page: the prose of today with the outputs of the run.

    Editing a sentence so shows without a rerun; the code cells are the same, or the chapter would
    have been rerun.
    """
    notebook = jupytext.read(chapter.path)
    provenance = "Not run."
    if run:
        _take_outputs(notebook, nbformat.read(run.folder / "notebook.ipynb", as_version=4))
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
    return notebook


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


def _banner(run: Run | None) -> str:
    if run is None:
        return "This chapter has not been run here; the page shows its text and code only."
    changed = [f"{k} = {v}" for k, v in run.record.get("changed", {}).items()]
    if changed:
        shown = ", ".join(f"<code>{html.escape(one)}</code>" for one in changed)
        return f"This page was rerun with {shown}. Its numbers are not the published ones."
    return _SMOKE if run.record["preset"] == "smoke" else ""


def _warning(text: str) -> str:
    if not text:
        return ""
    title = '<p class="admonition-title">Warning</p>'
    return f'<div class="genamp-banner admonition warning">{title}<p>{text}</p></div>'


def _scoreboard(rows: Iterable[Row], *, link: bool = False) -> str:
    """Return rows as an HTML table; `link` leads from each to its chapter."""
    heads = ("Quantity", "Paper", "Ours", "Verdict", "Why")
    lines = ["<thead><tr>", *(f'<th scope="col">{name}</th>' for name in heads), "</tr></thead>"]
    for row in rows:
        paper, ours = row.paper, ""
        if row.ours is not None:
            begin = result_tag(paper.chapter, row.ours.name, row.ours.meaning)
            ours = f"{begin}{html.escape(row.ours.text)}</span>"
        quantity = html.escape(paper.quantity)
        if link:
            quantity = f'<a href="chapters/{paper.chapter}.html">{quantity}</a>'
        where = f"{paper.paper}, {html.escape(paper.where)}, {paper.source}"
        slug = row.verdict.replace(" ", "-")
        lines.append(
            f'<tr data-id="{paper.id}"><td>{quantity}</td>'
            f"<td>{html.escape(paper.text)}<br><small>{where}</small></td><td>{ours}</td>"
            f'<td><span class="genamp-verdict genamp-{slug}">{row.verdict}</span></td>'
            f"<td>{html.escape(row.reason)}</td></tr>"
        )
    return _html_table(lines, "genamp-scoreboard")


def result_tag(chapter: str, name: str, meaning: str) -> str:
    """Return the HTML that opens a number on a page; the site's tests read it."""
    return (
        f'<span class="genamp-result" data-chapter="{chapter}" data-result="{name}" '
        f'title="{html.escape(meaning)}">'
    )


def _chapter_list(chapters: Mapping[str, Chapter], runs: Mapping[str, Run]) -> str:
    lines = ["<thead><tr><th>Chapter</th><th>What it does</th><th>Run time</th></tr></thead>"]
    for name, chapter in chapters.items():
        time = f"{runs[name].record['wall_seconds']:.0f} s" if name in runs else "not run"
        lines.append(
            f'<tr><td><a href="chapters/{name}.html">{html.escape(chapter.title)}</a></td>'
            f"<td>{html.escape(chapter.summary)}</td><td>{time}</td></tr>"
        )
    return _html_table(lines)


def _provenance(record: Mapping[str, Any]) -> str:
    rows = {
        "Preset": record["preset"],
        "Seed": record["seed"],
        "Changed parameters": ", ".join(f"{k} = {v}" for k, v in record["overrides"].items())
        or "none",
        "Source revision": record["revision"],
        "Started": record["started"],
        "Wall time": f"{record['wall_seconds']} s on {record['machine']}",
        "Event samples": _checksums(record["fingerprint"]["samples"]),
        "Versions": ", ".join(f"{k} {v}" for k, v in record["fingerprint"]["versions"].items()),
    }
    cells = {key: html.escape(str(value)) for key, value in rows.items()}
    cells["Artefacts"] = _artefacts(record["artefacts"])
    lines = [f'<tr><th scope="row">{key}</th><td>{cell}</td></tr>' for key, cell in cells.items()]
    return _html_table(lines, "genamp-provenance")


def _artefacts(used: Iterable[Mapping[str, str]]) -> str:
    """Return HTML that lists artefacts, folded away below their numbers where they are many."""
    # A run may have used one more than once.
    named = {f"{a['artefact']} ({a['origin']})": a["sha256"] for a in used}
    listed = html.escape(_checksums(named))
    if len(named) <= _MANY_ARTEFACTS:
        return listed
    stages = Counter(name.split(" ")[0].rpartition("-")[0] for name in named)
    summary = html.escape(", ".join(f"{stage}: {number}" for stage, number in stages.items()))
    return f"<details><summary>{summary}</summary>{listed}</details>"


def _checksums(files: Mapping[str, str]) -> str:
    return ", ".join(f"{name} sha256 {sha256[:12]}…" for name, sha256 in files.items()) or "none"


def _html_table(lines: Iterable[str], kind: str = "") -> str:
    table = "\n".join(lines)
    return f'<div class="genamp-table"><table class="table {kind}">\n{table}\n</table></div>'


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
