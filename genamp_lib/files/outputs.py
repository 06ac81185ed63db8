"""Refuse files that must not be written, before the work whose result they are for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from genamp_lib._project import GenampError

# Those of files.columns, without its imports.
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".parquet", ".root", ".csv", ".txt", ".tsv", ".dat")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Refuse outputs, by option, that cannot be written or replace an input or one another."""
    given = {option: path for option, path in outputs.items() if path is not None}
    read = {path.resolve() for path in inputs if path is not None}
    for option, path in given.items():
        problem = f"{path}: cannot be written"
        if path.suffix.lower() in SUFFIXES:  # `--json member_*.npy` takes the first of them
            raise GenampError(f"{path}: {option} must not end in {path.suffix}, as data do")
        if not path.parent.is_dir():
            raise GenampError(f"{problem}, {path.parent} is no folder; make it")
        with suppress(FileNotFoundError):
            path.stat()  # a loop of links ends here, with its name
        if path.is_dir():
            raise GenampError(f"{problem}, it is a folder; give a file")
        folder = str(path.parent.resolve())
        if (
            folder == "/dev"
            or folder.startswith("/proc/")
            or (path.exists() and not path.is_file())
        ):
            raise GenampError(f"{problem}, it is a device; give a file to {option}")
        if not os.access(path.parent, os.W_OK):
            raise GenampError(f"{problem}, {path.parent} is read-only; give another folder")
        if path.resolve() in read or (
            path.exists() and any(one.exists() and one.samefile(path) for one in read)
        ):
            raise GenampError(f"{path}: {option} must not be an input; give another file")
    places: dict[Path, str] = {}
    for option, path in given.items():
        first = places.setdefault(path.resolve(), option)
        if first != option:
            raise GenampError(f"{first} and {option} must be different files, got one twice")
