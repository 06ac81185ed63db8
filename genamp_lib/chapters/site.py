"""Render staged sources with jupyter-book and put the site in place, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_folder,
    sha256_of_file,
    write_json,
)
from genamp_lib.chapters.fingerprint import installed_versions
from genamp_lib.chapters.pages import Page, stage
from genamp_lib.chapters.scoreboard import load_paper_numbers

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
