"""Download one file over HTTP so that a cut connection or a kill loses nothing.

Not for checksums, names or folders: datasets.public, and pooch, which calls the class below.
"""

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


class ResumingDownload:
    """Downloader for pooch that keeps what has come in FILE.part and asks for the rest only.

    A connection that is cut is taken up again, as long as each attempt brings something.

    Args:
        part: Where the piece that has come is kept, in the folder of the file.
        progress: Called with the bytes that are there and the size, None if that is not known.
    """

    def __init__(self, part: Path, progress: Progress | None = None) -> None:
        self.part = part
        self.progress = progress or (lambda done, total: None)

    @property
    def _version(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def __call__(self, url: str, output_file: str, pooch: Any = None) -> None:
        """Download `url`, then rename what came to `output_file`.

        Raises:
            requests.RequestException: The server cannot be reached or refuses.
            GenampError: The disk is full.
        """
        import requests

        while True:
            before = self._n_bytes()
            try:
                if self._receive(requests, url):
                    break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if self._n_bytes() <= before:
                    raise
                time.sleep(PAUSE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise GenampError(
                    f"{self.part.parent}: the disk is full; free some space and run the same "
                    f"command again, or give another folder; {self.part.name} is kept and continued"
                ) from error
        self._version.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _n_bytes(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _receive(self, requests: Any, url: str) -> bool:
        """Ask once; return whether all is there, or else that it must be asked for from scratch."""
        offset = self._n_bytes()
        headers = dict(HEADERS)
        if offset:
            # The rest only of the version that the piece is of, or else all of the new one.
            headers["Range"] = f"bytes={offset}-"
            version = read_json(self._version).get("version") if self._version.is_file() else None
            headers |= {"If-Range": version} if version else {}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing beyond what is there: not a piece of this file
                self.part.unlink()
                return False
            answer.raise_for_status()
            start = f"bytes {offset}-"
            goes_on = answer.status_code == 206 and answer.headers.get(
                "Content-Range", start
            ).startswith(start)
            done = offset if goes_on else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            self._write_version(answer.headers)
            with open(self.part, "ab" if goes_on else "wb") as file:
                self.progress(done, total)
                for piece in answer.iter_content(CHUNK):
                    file.write(piece)
                    done += len(piece)
                    self.progress(done, total)
        if total is not None and done < total:
            raise requests.ConnectionError(f"{url} ended after {done} of {total} bytes")
        return True

    def _write_version(self, headers: Any) -> None:
        version = headers.get("ETag") or headers.get("Last-Modified")
        if version and not version.startswith("W/"):
            write_json(self._version, {"version": version})
        else:
            self._version.unlink(missing_ok=True)
