"""Downloads as the command line shows them. No download of its own: datasets.public."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genamp_lib.chapters.catalog import Chapter
    from genamp_lib.datasets._download import Progress


@contextmanager
def download_progress(name: str) -> Iterator[Progress]:
    """Show a bar while something is downloaded; give what the download reports to."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None, visible=False)

        def report(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        yield report


def prepare_source(chapter: Chapter, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with `source` as a chapter can read it, before anything is run.

    Public files that stand for the chapter's samples are fetched; a path gets whole, because
    chapters run in another folder than the user.
    """
    from genamp_lib.datasets.public import fetch_public, public_counterpart

    source = parameters.get("source")
    if source == "public":
        for name in sorted({public_counterpart(sample).name for sample in chapter.samples}):
            with download_progress(name) as progress:
                fetch_public(name, progress=progress)
    elif source and Path(source).is_file():
        return {**parameters, "source": str(Path(source).resolve())}
    return dict(parameters)
