"""Download one file over HTTP so that a cut connection or a kill loses nothing."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genamp_lib._project import GenampError, read_json, write_json

Progress = Callable[[int, int | None], None]

CHUNK = 1 << 20
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
PAUSE = 1.0  # seconds before a cut connection is taken up again
# Some servers refuse the names that HTTP libraries give themselves.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; genamp)", "Accept-Encoding": "identity"}


def download(
    url: str, output_file: str, pooch: Any = None, *, part: Path, progress: Progress | None = None
) -> None:
    """Download a file as pooch asks for it; keep what has come in `part`, ask for the rest only.

    A connection that is cut is taken up again, as long as each attempt brings something. `progress`
    gets the bytes that are there and the size, None if that is not known.
    """
    import requests

    while True:
        before = _n_bytes(part)
        try:
            if _receive(url, part, progress or (lambda done, total: None)):
                break
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            if _n_bytes(part) <= before:
                raise
            time.sleep(PAUSE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise GenampError(
                f"{part.parent}: the disk is full; free some space and run the same command "
                f"again, or give another folder; {part.name} is kept and continued"
            ) from error
    _version(part).unlink(missing_ok=True)
    os.replace(part, output_file)


def _n_bytes(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _version(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _receive(url: str, part: Path, progress: Progress) -> bool:
    """Ask once; return whether all is there, or else that it must be asked for from scratch."""
    import requests

    offset, headers = _n_bytes(part), dict(HEADERS)
    if offset:
        # The rest only of the version that the piece is of, or else all of the new one.
        headers["Range"] = f"bytes={offset}-"
        version = read_json(_version(part))["version"] if _version(part).is_file() else None
        headers |= {"If-Range": version} if version else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing beyond what is there: not a piece of this file
            part.unlink()
            return False
        answer.raise_for_status()
        start = f"bytes {offset}-"
        goes_on = answer.status_code == 206 and answer.headers.get(
            "Content-Range", start
        ).startswith(start)
        done = offset if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if version and not version.startswith("W/"):
            write_json(_version(part), {"version": version})
        else:
            _version(part).unlink(missing_ok=True)
        with open(part, "ab" if goes_on else "wb") as file:
            progress(done, total)
            for piece in answer.iter_content(CHUNK):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if total is not None and done < total:
        raise requests.ConnectionError(f"{url} ended after {done} of {total} bytes")
    return True
