"""Rows of arrays in .npy, .npz, .h5, .csv and .parquet, each in its way. For `columns` alone.

A reader gives the rows start to stop - 1 in blocks; errors are those of the libraries below.

One number per event from the files that physicists have, a block at a time. Not for jets.

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

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError

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


# (path, column, events in a block, start, stop) -> blocks of rows.
Reader = Callable[[Path, str | None, int, int, int], Iterator[NDArray]]


def _npy(path: Path, column: str | None, block: int, start: int, stop: int) -> Iterator[NDArray]:
    with path.open("rb") as handle:
        yield from _select(path, _npy_blocks(path, handle, block, start, stop), column)


def _npz(path: Path, column: str | None, block: int, start: int, stop: int) -> Iterator[NDArray]:
    from zipfile import ZipFile

    with ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        key, index = _key_and_index(path, column, names)
        with archive.open(f"{key}.npy") as handle:
            yield from _select(path, _npy_blocks(path, handle, block, start, stop), index)


def _npy_blocks(
    path: Path, handle: IO[bytes], block: int, start: int, stop: int
) -> Iterator[NDArray]:
    """Read an array of the .npy format in blocks of rows, without a memory map.

    Mapped pages count as memory of the process, and archives cannot be mapped.
    """
    shape, is_by_columns, dtype = _npy_header(path, handle)
    stop = min(stop, shape[0])
    if is_by_columns:
        # As pandas stores: no rows without the whole.
        data = handle.read()
        if len(data) != np.prod(shape) * dtype.itemsize:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
        whole = np.frombuffer(data, dtype=dtype).reshape(shape, order="F")
        yield from (whole[first : min(first + block, stop)] for first in range(start, stop, block))
        return
    row = int(np.prod(shape[1:])) * dtype.itemsize
    if start < stop:
        handle.seek(start * row, os.SEEK_CUR)
    for first in range(start, stop, block):
        size = min(block, stop - first) * row
        data = handle.read(size)
        if len(data) != size:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
        yield np.frombuffer(data, dtype=dtype).reshape(-1, *shape[1:])


def _npy_header(path: Path, handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether 2D and stored by columns, dtype); the array begins where it stops."""
    version = np.lib.format.read_magic(handle)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise GenampError(f"{path}: must be .npy format 1 or 2, got {version}")
    shape, is_fortran, dtype = read_header(handle)
    if dtype.hasobject:
        raise GenampError(f"{path}: must hold real numbers, got Python objects (pickles)")
    if not shape:
        raise GenampError(f"{path}: must hold an array, got a single number")
    return shape, is_fortran and len(shape) > 1, dtype


def _npy_n_rows(path: Path, column: str | None) -> int | None:
    with path.open("rb") as handle:
        shape, is_by_columns, dtype = _npy_header(path, handle)
        if path.stat().st_size - handle.tell() < np.prod(shape) * dtype.itemsize:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
    return None if is_by_columns else shape[0]


def _hdf5(path: Path, column: str | None, block: int, start: int, stop: int) -> Iterator[NDArray]:
    with _hdf5_dataset(path, column) as (data, index):
        stop = min(stop, data.shape[0])
        rows = (data[first : min(first + block, stop)] for first in range(start, stop, block))
        yield from _select(path, rows, index)


def _hdf5_n_rows(path: Path, column: str | None) -> int | None:
    with _hdf5_dataset(path, column) as (data, _):
        return data.shape[0]


@contextmanager
def _hdf5_dataset(path: Path, column: str | None) -> Iterator[tuple[Any, str | None]]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        key, index = _key_and_index(path, column and column.strip("/"), names)
        if not file[key].shape:
            raise GenampError(f"{path}: `{key}` must hold an array, got a single number")
        yield file[key], index


def _csv(path: Path, column: str | None, block: int, start: int, stop: int) -> Iterator[NDArray]:
    names = _csv_names(path)
    if column is None and len(names) > 1:
        raise GenampError(f"{path}: a column must be named, one of {_some(names)}")
    if column is None:
        position = 0
    elif column in names:
        position = names.index(column)
    elif column.isdigit():
        position = _index(path, column, len(names))
    else:
        raise GenampError(f"{path}: no column `{column}`; there is {_some(names)}")
    for rows in csv_rows(path, position, block, start, stop):
        yield rows[:, 0]


def _csv_names(path: Path) -> list[str]:
    """Return the column names: the first line, or a comment of as many words, or numbers."""
    comments = []
    with path.open(encoding="utf-8-sig") as handle:
        for line in handle:
            words = [word.strip().strip('"') for word in line.lstrip("# ").split(",")]
            if line.startswith("#"):
                comments.append(words)
            elif line.strip():
                if not _are_numbers(words):
                    return words
                named = [comment for comment in comments if len(comment) == len(words) > 1]
                return named[-1] if named else [str(k) for k in range(len(words))]
    return []


def csv_rows(
    path: Path, position: int | None, block: int, start: int, stop: int
) -> Iterator[NDArray]:
    """Read rows of one column, or of all where `position` is None."""
    with path.open(encoding="utf-8-sig") as handle:
        lines = (line for line in handle if line.strip() and not line.startswith("#"))
        first = next(lines, "")
        if _are_numbers(first.split(",")):
            lines = chain([first], lines)
        lines = islice(lines, start, stop)
        # One line ahead, because loadtxt warns when there is none.
        while following := next(lines, ""):
            yield np.loadtxt(
                chain([following], islice(lines, block - 1)),
                delimiter=",",
                usecols=position,
                ndmin=2,
            )


def _are_numbers(words: list[str]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True


def _parquet(
    path: Path, column: str | None, block: int, start: int, stop: int
) -> Iterator[NDArray]:
    with _parquet_file(path, column) as (file, key):
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        groups = [k for k, end in enumerate(ends) if end > start and end - sizes[k] < stop]
        if not groups:
            return
        row = int(ends[groups[0]]) - sizes[groups[0]]
        for batch in file.iter_batches(batch_size=block, row_groups=groups, columns=[key]):
            values = batch.column(0).to_numpy(zero_copy_only=False)
            kept = values[max(start - row, 0) : max(stop - row, 0)]
            row += len(values)
            if len(kept):
                yield kept


def _parquet_n_rows(path: Path, column: str | None) -> int | None:
    with _parquet_file(path, column) as (file, _):
        return file.metadata.num_rows


@contextmanager
def _parquet_file(
    path: Path, column: str | None, *, named: bool = True
) -> Iterator[tuple[Any, str]]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise GenampError(f"{path}: needs pyarrow; run `pip install pyarrow`") from None
    with ParquetFile(path) as file:
        names = list(file.schema_arrow.names)
        if not named:
            yield file, ""
            return
        key, index = _key_and_index(path, column, names)
        if index is not None:
            raise GenampError(f"{path}: no column `{column}`; there is {_some(names)}")
        yield file, key


def column_names(path: Path) -> list[str]:
    """Return the names of all arrays or columns of a file; none for .npy, which has one array."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".txt"):
        return _csv_names(path)
    if suffix == ".npz":
        from zipfile import ZipFile

        with ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    if suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
            return names
    if suffix == ".parquet":
        with _parquet_file(path, None, named=False) as (file, _):
            return list(file.schema_arrow.names)
    return []


def _key_and_index(path: Path, column: str | None, names: list[str]) -> tuple[str, str | None]:
    """Split KEY:INDEX; find the only key where none is given."""
    if not names:
        raise GenampError(f"{path}: must hold an array, got none")
    if column in names:
        return str(column), None
    key, _, index = (column or "").rpartition(":") if ":" in (column or "") else (column, "", "")
    if not key and len(names) == 1:
        key = names[0]
    if not key:
        raise GenampError(f"{path}: a column must be named, one of {_some(names)}")
    if key not in names:
        raise GenampError(f"{path}: no column `{key}`; there is {_some(names)}")
    return key, index or None


def _select(path: Path, blocks: Iterator[NDArray], index: str | None) -> Iterator[NDArray]:
    """Take one column of 2D blocks; (n, 1) needs no index."""
    for block in blocks:
        if block.ndim == 2 and index is None and block.shape[1] == 1:
            yield block[:, 0]
        elif index is None:
            yield block
        elif block.ndim != 2:
            raise GenampError(f"{path}: no column `{index}` in an array of {block.ndim} dimension")
        else:
            yield block[:, _index(path, index, block.shape[1])]


def _index(path: Path, index: str, n_columns: int) -> int:
    if not index.lstrip(":").isdigit() or int(index.lstrip(":")) >= n_columns:
        raise GenampError(
            f"{path}: a column index must be between 0 and {n_columns - 1}, got `{index}`"
        )
    return int(index.lstrip(":"))


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


READERS: dict[str, Reader] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".csv": _csv,
    ".txt": _csv,
    ".parquet": _parquet,
}
ROW_COUNTERS: dict[str, Callable[[Path, str | None], int | None]] = {
    ".npy": _npy_n_rows,
    ".h5": _hdf5_n_rows,
    ".hdf5": _hdf5_n_rows,
    ".parquet": _parquet_n_rows,
}
