"""`--json FILE` of the commands for users' files, and `--json -`. Writes nothing by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer


@contextmanager
def _printed() -> Iterator[Path]:
    """Give a file whose text is printed in the end; what else is printed goes to stderr."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stdout"
        with redirect_stdout(sys.stderr):
            yield path
        if path.exists():
            print(path.read_text(encoding="utf-8"), end="", flush=True)


def _path(context: typer.Context, path: Path | None) -> Path | None:
    return context.with_resource(_printed()) if path == Path("-") else path


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        callback=_path,
        help="Write the numbers to this file as well; - prints them, and words to stderr.",
    ),
]
