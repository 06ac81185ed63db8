"""The notebook that a page offers for download: its first cell gets what it needs, or says why not.

That cell's text is a function of this module, so that it is linted and tested like any other code.
"""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def prepare(repository: str) -> None:
    """Install genamp with its data from a git repository, where it is not installed."""
    import os
    import subprocess
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # as the book was computed, and the fastest
    if find_spec("genamp_lib") is not None:
        return
    clone = Path("genamp").resolve()
    try:
        if not repository:
            raise OSError("no address is set")
        if not clone.exists():
            subprocess.run(["git", "clone", "--depth", "1", repository, str(clone)], check=True)
        command = ["pip", "install", "--quiet", "--editable", f"{clone}[book]"]
        subprocess.run([sys.executable, "-m", *command], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"genamp is not installed and could not be ({error}). Set `repository` above to the "
            "address of its git repository or to a clone on this machine, and run this cell again."
        ) from None
    sys.path.insert(0, str(clone))


def repository_address(root: Path) -> str:
    """Return the address of the repository in pyproject.toml, empty where there is none."""
    path = root / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    return project.get("urls", {}).get("Repository", "")


def for_download(notebook: NotebookNode, repository: str) -> NotebookNode:
    """Put the cell that prepares everything before the first one; the notebook is changed."""
    source = (
        "# Where genamp comes from, if it is not installed: its git repository, or a clone here.\n"
        f"repository = {repository!r}\n\n\n{inspect.getsource(prepare)}\n\nprepare(repository)"
    )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(source, id="prepare"))
    return notebook
