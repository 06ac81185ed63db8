"""One number per event from the files that physicists have, a block at a time. Not for jets.

Which function when: `read_column` for samples of any length, or a part of one; `n_rows` to plan the
parts; `load_column` for a whole training sample; `load_features` for all features of events;
`load_table` for a small table such as counts. The
format is told by the suffix:

    .npy               one array
    .npz               several; `column` is the key
    .h5, .hdf5         several; `column` is the path of the dataset
    .csv, .txt         `column` is a name in the first line, or an index from 0
    .parquet           `column` is a name; needs pyarrow

Where there is one array or column only, none need be named. A column of a 2D array is KEY:INDEX, or
INDEX alone in a .npy file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError
from genamp_lib.datasets._column_formats import (
    READERS,
    ROW_COUNTERS,
    Reader,
    column_names,
    csv_rows,
)

BLOCK_EVENTS = 1 << 18

Content = TypeVar("Content")


def read_column(
    path: Path | str,
    column: str | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    block_events: int = BLOCK_EVENTS,
) -> Iterator[NDArray]:
    """Read one number per event, a block at a time; memory does not grow with the file.

    Except for 2D arrays that are stored by columns (Fortran order) in .npy and .npz.

    Args:
        path: A .npy, .npz, .h5, .csv, .txt or .parquet file.
        column: Which array or column; see the head of this module.
        start: First event; those before it are not read where `n_rows` knows the number of rows,
            and read and skipped elsewhere.
        stop: Event before which to stop, as in a slice; the end of the file when None.
        block_events: Most events in a block.

    Yields:
        1D arrays of up to `block_events` numbers, in the type of the file.

    Raises:
        GenampError: The file is missing, damaged, of another format, has no such column or holds
            no numbers there.
        ValueError: `start` is negative, or `stop` is before `start`.
    """
    stop = sys.maxsize if stop is None else stop
    if not 0 <= start <= stop:
        raise ValueError(f"`start` must be from 0 to `stop`, got {start} and {stop}.")
    for block in _blocks(Path(path), column, block_events, start, stop):
        if block.ndim != 1:
            raise GenampError(
                f"{path}: must hold one number per event, got rows of shape {block.shape[1:]}; "
                "name a column by its index, as in KEY:0 (0 alone for .npy)"
            )
        yield block


def n_rows(path: Path | str, column: str | None = None) -> int | None:
    """Return the number of rows without reading them, where they can also be read from any on.

    That is in .npy, .h5 and .parquet. None for .csv, .txt and .npz, where to find a row is to read
    all before it, and for .npy that is stored by columns.

    Args:
        path: A file that `read_column` reads.
        column: Which array or column; see the head of this module.

    Raises:
        GenampError: As of `read_column`.
    """
    path = Path(path)
    _reader(path)
    count = ROW_COUNTERS.get(path.suffix.lower())
    return None if count is None else next(_guarded(path, lambda: iter([count(path, column)])))


def load_column(path: Path | str, column: str | None = None) -> NDArray:
    """Return one number per event as a 1D array; arguments and errors as of `read_column`."""
    blocks = list(read_column(path, column))
    return np.concatenate(blocks) if blocks else np.empty(0)


def load_table(path: Path | str, column: str | None = None) -> NDArray:
    """Return a whole array of any shape; arguments and errors as of `read_column`."""
    path = Path(path)
    if path.suffix.lower() in (".csv", ".txt") and column is None:
        blocks = list(_guarded(path, lambda: csv_rows(path, None, BLOCK_EVENTS, 0, sys.maxsize)))
    else:
        blocks = list(_blocks(path, column, BLOCK_EVENTS, 0, sys.maxsize))
    return np.concatenate(blocks) if blocks else np.empty(0)


def load_features(path: Path | str, column: str | None = None) -> tuple[list[str], NDArray]:
    """Return all features of events: their names and an array of shape (n_events, n_features).

    From .csv and .parquet all columns with their names; from the others one 2D array, whose
    columns are named by their index, or, where there are several arrays and none is named, the 1D
    ones, named by their keys.

    Args:
        path: A file that `read_column` reads.
        column: Of .npz and .h5, the array to read.

    Raises:
        GenampError: As of `read_column`, or columns differ in length.
    """
    path = Path(path)
    _reader(path)
    suffix = path.suffix.lower()
    if column is None:
        names = next(_guarded(path, lambda: iter([column_names(path)])))
        if suffix in (".csv", ".txt"):
            return names, load_table(path)
        if len(names) > 1:
            columns = [load_column(path, name) for name in names]
            lengths = {name: len(values) for name, values in zip(names, columns, strict=True)}
            if len(set(lengths.values())) > 1:
                raise GenampError(
                    f"{path}: columns must have one length, got {lengths}; name one array"
                )
            return names, np.stack(columns, axis=1)
    table = load_table(path, column)
    if table.ndim > 2:
        raise GenampError(
            f"{path}: must hold one row of features per event, got shape {table.shape}"
        )
    table = table[:, None] if table.ndim == 1 else table
    return [str(index) for index in range(table.shape[1])], table


def _blocks(path: Path, column: str | None, block: int, start: int, stop: int) -> Iterator[NDArray]:
    reader = _reader(path)
    for values in _guarded(path, lambda: reader(path, column, block, start, stop)):
        if values.dtype.kind not in "biuf":
            raise GenampError(f"{path}: must hold real numbers, got {values.dtype}")
        yield values


def _reader(path: Path) -> Reader:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise GenampError(
            f"{path}: must be one of {', '.join(READERS)}, got `{path.suffix or path.name}`"
        )
    return reader


def _guarded(path: Path, read: Callable[[], Iterator[Content]]) -> Iterator[Content]:
    """Turn whatever a reader stumbles over into one line that names the file."""
    if not path.is_file():
        raise GenampError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; give a file")
    try:
        yield from read()
    except GenampError:
        raise
    except Exception as error:  # zipfile, h5py, numpy and pyarrow each raise their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GenampError(f"{path}: not a whole {path.suffix} file: {reason}") from error
