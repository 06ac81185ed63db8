"""Execute one chapter in a process of its own: `python -m genamp_lib.chapters.execute FOLDER`.

The folder holds source.md and request.json; it receives notebook.ipynb, the chapter's results.json
and outcome.json. Prints a line of JSON per cell for the parent's progress. Not for deciding what to
run: runs.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from genamp_lib._project import read_json, replace_file, write_json


def main(folder: Path) -> int:
    """Execute the chapter in `folder`; return 0, or 1 with the failure in outcome.json."""
    _end_with_parent()
    request = read_json(folder / "request.json")
    notebook = jupytext.read(folder / "source.md")
    _report_cells(sum(cell.cell_type == "code" for cell in notebook.cells))
    start = time.perf_counter()
    failure = _execute(notebook, folder / "notebook.ipynb", request)
    if failure is None and not (folder / "results.json").exists():
        failure = {"error": "the chapter wrote no results: its last cell must call results.write()"}
    if (folder / "notebook.ipynb").exists():
        _clean(folder / "notebook.ipynb")
    seconds = round(time.perf_counter() - start, 1)
    write_json(folder / "outcome.json", {"failure": failure, "wall_seconds": seconds})
    return 0 if failure is None else 1


def _execute(notebook: NotebookNode, path: Path, request: dict[str, Any]) -> dict | None:
    try:
        papermill.execute_notebook(
            notebook,
            path,
            parameters=request["overrides"],
            kernel_name="python3",
            cwd=request["root"],
            progress_bar=False,
            log_output=True,
            request_save_on_cell_execute=False,
        )
    except papermill.PapermillExecutionError as error:
        return {
            "cell": error.exec_count,
            "source": error.source,
            "error": f"{error.ename}: {error.evalue}",
            "traceback": [_plain(line) for line in error.traceback],
        }
    except DeadKernelError as error:
        return {"error": f"the kernel died ({error}); out of memory?"}
    return None


def _clean(path: Path) -> None:
    """Drop what differs between two runs of the same numbers."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"\A# Parameters\n", "# Changed for this run\n", cell.source)
    with replace_file(path) as temporary:
        nbformat.write(notebook, temporary)


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def _report_cells(total: int) -> None:
    """Turn papermill's log into one line of JSON per executed code cell."""

    class Reporter(logging.Handler):
        done = 0

        def emit(self, record: logging.LogRecord) -> None:
            if "Executing Cell" in record.getMessage():
                Reporter.done += 1
                print(json.dumps({"cell": Reporter.done, "cells": total}), flush=True)

    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.addHandler(Reporter())
    logger.propagate = False


def _end_with_parent() -> None:
    """End this process, and by nbclient's handler its kernel, when the parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
