"""One number per event from the files that physicists have, a block at a time. Not for jets.

Which function when: `read_column` for samples of any length, `load_column` for a whole training
sample, `load_table` for a small table such as counts. The format is told by the suffix:

    .npy               one array
    .npz               several; `column` is the key
    .h5, .hdf5         several; `column` is the path of the dataset
    .csv, .txt         `column` is a name in the first line, or an index from 0
    .parquet           `column` is a name; needs pyarrow

Where there is one array or column only, none need be named. A column of a 2D array is KEY:INDEX, or
INDEX alone in a .npy file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError

BLOCK_EVENTS = 1 << 18


def read_column(
    path: Path | str, column: str | None = None, *, block_events: int = BLOCK_EVENTS
) -> Iterator[NDArray]:
    """Read one number per event, a block at a time; memory does not grow with the file.

    Except for 2D arrays that are stored by columns (Fortran order) in .npy and .npz.

    Args:
        path: A .npy, .npz, .h5, .csv, .txt or .parquet file.
        column: Which array or column; see the head of this module.
        block_events: Events in a block.

    Yields:
        1D arrays of up to `block_events` numbers, in the type of the file.

    Raises:
        GenampError: The file is missing, damaged, of another format, has no such column or holds
            no numbers there.
    """
    for block in _blocks(Path(path), column, block_events):
        if block.ndim != 1:
            raise GenampError(
                f"{path}: must hold one number per event, got rows of shape {block.shape[1:]}; "
                "name a column by its index, as in KEY:0 (0 alone for .npy)"
            )
        yield block


def load_column(path: Path | str, column: str | None = None) -> NDArray:
    """Return one number per event as a 1D array; arguments and errors as of `read_column`."""
    blocks = list(read_column(path, column))
    return np.concatenate(blocks) if blocks else np.empty(0)


def load_table(path: Path | str, column: str | None = None) -> NDArray:
    """Return a whole array of any shape; arguments and errors as of `read_column`."""
    path = Path(path)
    if path.suffix.lower() in (".csv", ".txt") and column is None:
        blocks = list(_guarded(path, _csv_rows, None, BLOCK_EVENTS))
    else:
        blocks = list(_blocks(path, column, BLOCK_EVENTS))
    return np.concatenate(blocks) if blocks else np.empty(0)


def _blocks(path: Path, column: str | None, block_events: int) -> Iterator[NDArray]:
    readers: dict[str, Callable[[Path, str | None, int], Iterator[NDArray]]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
        ".csv": _csv,
        ".txt": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise GenampError(
            f"{path}: must be one of {', '.join(readers)}, got `{path.suffix or path.name}`"
        )
    yield from _guarded(path, reader, column, block_events)


def _guarded(path: Path, reader: Callable, column: str | None, block: int) -> Iterator[NDArray]:
    """Turn whatever a reader stumbles over into one line that names the file."""
    if not path.is_file():
        raise GenampError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; give a file")
    try:
        for values in reader(path, column, block):
            if values.dtype.kind not in "biuf":
                raise GenampError(f"{path}: must hold real numbers, got {values.dtype}")
            yield values
    except GenampError:
        raise
    except Exception as error:  # zipfile, h5py, numpy and pyarrow each raise their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GenampError(f"{path}: not a whole {path.suffix} file: {reason}") from error


def _npy(path: Path, column: str | None, block: int) -> Iterator[NDArray]:
    with path.open("rb") as handle:
        yield from _select(path, _npy_blocks(path, handle, block), column)


def _npz(path: Path, column: str | None, block: int) -> Iterator[NDArray]:
    from zipfile import ZipFile

    with ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        key, index = _key_and_index(path, column, names)
        with archive.open(f"{key}.npy") as handle:
            yield from _select(path, _npy_blocks(path, handle, block), index)


def _npy_blocks(path: Path, handle: IO[bytes], block: int) -> Iterator[NDArray]:
    """Read an array of the .npy format in blocks of rows, without a memory map.

    Mapped pages count as memory of the process, and archives cannot be mapped.
    """
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
    if is_fortran and len(shape) > 1:
        # Stored by columns, as pandas does: no rows without the whole.
        data = handle.read()
        if len(data) != np.prod(shape) * dtype.itemsize:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
        whole = np.frombuffer(data, dtype=dtype).reshape(shape, order="F")
        yield from (whole[start : start + block] for start in range(0, shape[0], block))
        return
    row = int(np.prod(shape[1:]))
    for start in range(0, shape[0], block):
        size = min(block, shape[0] - start) * row
        data = handle.read(size * dtype.itemsize)
        if len(data) != size * dtype.itemsize:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
        yield np.frombuffer(data, dtype=dtype).reshape(-1, *shape[1:])


def _hdf5(path: Path, column: str | None, block: int) -> Iterator[NDArray]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        key, index = _key_and_index(path, column and column.strip("/"), names)
        data = file[key]
        if not data.shape:
            raise GenampError(f"{path}: `{key}` must hold an array, got a single number")
        rows = (data[start : start + block] for start in range(0, data.shape[0], block))
        yield from _select(path, rows, index)


def _csv(path: Path, column: str | None, block: int) -> Iterator[NDArray]:
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
    for rows in _csv_rows(path, position, block):
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


def _csv_rows(path: Path, position: int | None, block: int) -> Iterator[NDArray]:
    with path.open(encoding="utf-8-sig") as handle:
        lines = (line for line in handle if line.strip() and not line.startswith("#"))
        first = next(lines, "")
        if _are_numbers(first.split(",")):
            lines = chain([first], lines)
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


def _parquet(path: Path, column: str | None, block: int) -> Iterator[NDArray]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise GenampError(f"{path}: needs pyarrow; run `pip install pyarrow`") from None
    with ParquetFile(path) as file:
        names = list(file.schema_arrow.names)
        key, index = _key_and_index(path, column, names)
        if index is not None:
            raise GenampError(f"{path}: no column `{column}`; there is {_some(names)}")
        for batch in file.iter_batches(batch_size=block, columns=[key]):
            yield batch.column(0).to_numpy(zero_copy_only=False)


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
