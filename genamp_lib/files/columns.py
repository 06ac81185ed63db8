"""Numbers per event from the files that physicists have, a block at a time.

The format is told by the suffix:

    .npy                      one array
    .npz                      several; `column` is the key
    .h5, .hdf5                several; `column` is the path of the dataset
    .csv, .txt, .tsv, .dat    `column` is a name in the first line, or an index from 0; also .gz
    .parquet, or a folder     `column` is a name; a folder of .parquet files is one table
    .root                     `column` is a branch, or TREE:BRANCH

Where there is one array or column only, none need be named. A column of a 2D array is KEY:INDEX, a
field of a record KEY:FIELD; INDEX or FIELD alone in a .npy file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError, install_hint
from genamp_lib.files import hdf5, text

BLOCK_EVENTS = 1 << 18
BLOCK_BYTES = 1 << 24
_WEIGHT = re.compile(r".*weight.*|w|wt|wgt", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What decides how a file is read where it does not say so itself; None is found by looking."""

    column: str | None = None
    separator: str | None = None  # "space" is any white space, "tab" one tabulator
    decimal: str | None = None  # "." or ","; the other one groups digits
    header: bool | None = None  # whether the first line of a text holds names
    features: tuple[str, ...] = ()  # all when empty
    drop: tuple[str, ...] = ()
    missing: tuple[float, ...] = ()  # numbers that are read as NaN
    weights: str | None = None  # column of the events' weights, in files that have it

    def __post_init__(self) -> None:
        mark = {"space": " ", "tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)
        object.__setattr__(self, "separator", mark)
        if self.decimal not in (None, ".", ","):
            raise GenampError(f"--decimal must be '.' or ',', got {self.decimal!r}")
        if self.separator is not None and len(self.separator) != 1:
            raise GenampError(f"--separator must be one character, got {self.separator!r}")
        if self.separator is not None and self.separator == self.decimal:
            raise GenampError(f"--separator must not be the decimal mark, got {self.separator!r}")


class NoColumnError(GenampError):
    """A file has no column, array or field of a name."""


# What the functions below take for `column`: its name, or all that decides.
Column = str | Reading | None


def read_column(
    path: Path | str,
    column: Column = None,
    *,
    start: int = 0,
    stop: int | None = None,
    block_events: int = BLOCK_EVENTS,
) -> Iterator[NDArray]:
    """Read one number per event in 1D blocks of the file's type; memory does not grow with it.

    Events are `start` to `stop`, as in a slice. Those before `start` are skipped unread only where
    `n_rows` knows the number of rows. A wide row makes blocks shorter than `block_events`.
    """
    path, reading, stop = Path(path), _reading(column), sys.maxsize if stop is None else stop
    if not 0 <= start <= stop:
        raise ValueError(f"`start` must be from 0 to `stop`, got {start} and {stop}.")
    with _opened(path, reading) as table:
        for block in _blocks(path, table, reading, start, stop, block_events):
            if block.ndim != 1:
                raise GenampError(
                    f"{path}: must hold one number per event, got rows of shape {block.shape[1:]}; "
                    "name a column by its index, as in KEY:0 (0 alone for .npy)"
                )
            yield block


def n_rows(path: Path | str, column: Column = None) -> int | None:
    """Return the number of rows without reading them, where they can also be read from any on.

    None for texts and .npz, and for a .npy that is stored by columns.
    """
    path, reading = Path(path), _reading(column)
    with _opened(path, reading) as table:
        return table.n_rows(*_position_and_selectors(path, reading.column, table))


def count_rows(path: Path | str, column: Column = None) -> int:
    """Return the number of rows, by reading them where there is no other way."""
    rows = n_rows(path, column)
    return sum(map(len, read_column(path, column))) if rows is None else rows


def load_column(path: Path | str, column: Column = None) -> NDArray:
    """Return one number per event as a 1D array."""
    return _joined(read_column(path, column), 0)


def read_events(
    path: Path | str, column: Column = None, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[NDArray, NDArray | None, int]]:
    """Read blocks of one number per event, their weights, and how many missing ones were left out.

    Weights are None for files without the column `Reading.weights`.
    """
    path, reading = Path(path), _reading(column)
    weights: Iterator[NDArray | None] = repeat(None)
    values = read_column(path, reading, start=start, stop=stop)
    if has_weights(path, reading):
        weights = read_column(path, _of_weights(reading), start=start, stop=stop)
    for block in values:
        own = next(weights, ())
        if own is not None and len(own) != len(block):
            raise GenampError(
                f"{path}: `{reading.weights}` must have one weight per event; name another column"
            )
        known = ~np.isnan(block) if reading.missing else np.ones(len(block), dtype=bool)
        if known.all():
            yield block, own, 0
        else:
            yield block[known], own if own is None else own[known], int((~known).sum())


def load_events(path: Path | str, column: Column = None) -> tuple[NDArray, NDArray | None, int]:
    """Return what `read_events` reads, as whole arrays."""
    blocks = list(read_events(path, column))
    values = _joined((one for one, *_ in blocks), 0)
    weights = [own for _, own, _ in blocks]
    is_weighted = bool(weights) and weights[0] is not None
    return values, np.concatenate(weights) if is_weighted else None, sum(n for *_, n in blocks)


def has_weights(path: Path | str, column: Column = None) -> bool:
    """Tell whether a file has the column `Reading.weights`."""
    reading = _reading(column)
    if reading.weights is None:
        return False
    try:
        next(read_column(path, _of_weights(reading), stop=1), None)
    except NoColumnError:
        return False
    return True


def weight_like(path: Path | str, column: Column = None) -> str | None:
    """Return the name of a column that may be the weights of the events and was not named."""
    path, reading = Path(path), _reading(column)
    with _opened(path, reading) as table:
        named = (reading.column, reading.weights)
        return next((x for x in table.names if is_weight_like(x) and x not in named), None)


def is_weight_like(name: str) -> bool:
    """Tell whether a column is named as weights of events are."""
    return bool(_WEIGHT.fullmatch(name))


def _of_weights(reading: Reading) -> Reading:
    return replace(reading, column=reading.weights, missing=())


def load_table(path: Path | str, column: Column = None) -> NDArray:
    """Return a whole array of any shape."""
    path, reading = Path(path), _reading(column)
    with _opened(path, reading) as table:
        if reading.column is None and table.is_columns:
            return _stacked(path, table, range(len(table.names)), reading)
        return _joined(_blocks(path, table, reading), 0)


def load_features(
    path: Path | str, column: Column = None
) -> tuple[list[str], NDArray, NDArray | None]:
    """Return names and values, (n_events, n_features), of the features of events, and weights.

    They are the columns of a text, .parquet or .root, or else those of one 2D array, named by their
    index, or, where there are several arrays and none is named, these, named by their keys.
    """
    path, reading = Path(path), _reading(column)
    with _opened(path, reading) as table:
        if reading.column is None and (table.is_columns or len(table.names) > 1):
            names = _wanted(path, table.names, reading)
            weights = (
                load_column(path, _of_weights(reading)) if has_weights(path, reading) else None
            )
            places = [table.names.index(name) for name in names]
            values = _stacked(path, table, places, reading)
        else:
            place, selectors = _position_and_selectors(path, reading.column, table)
            blocks = list(table.blocks([place], selectors, 0, sys.maxsize, BLOCK_EVENTS))
            every, columns = _flattened(path, blocks)
            names = _wanted(path, every, reading)

            def take(wanted: list[str], how: Reading) -> NDArray:
                chosen = [[part[every.index(name)] for name in wanted] for part in columns]
                return _joined(_checked(path, map(np.column_stack, chosen), how), 0, len(wanted))

            values, weights = take(names, reading), None
            if reading.weights in every:
                weights = take([reading.weights], _of_weights(reading))[:, 0]
            elif has_weights(path, reading):
                weights = load_column(path, _of_weights(reading))
    for name, feature in zip(names, values.T, strict=True):
        counts = len(feature) > 2 and (np.diff(feature) == 1).all()
        if name not in reading.features and (counts or is_weight_like(name)):
            what, remedy = "counts the events", ""
            if not counts:
                what, remedy = "may be a weight of the events", f"give --weights {name}, or "
            raise GenampError(
                f"{path}: column `{name}` {what}; {remedy}leave it out with --drop {name}, or name "
                "the features with --features"
            )
    if weights is not None and len(weights) != len(values):
        raise GenampError(
            f"{path}: `{reading.weights}` must have one weight per event, got {len(weights)} for "
            f"{len(values)}; name another column"
        )
    return names, values, weights


def _reading(column: Column) -> Reading:
    return column if isinstance(column, Reading) else Reading(column)


def _joined(blocks: Iterable[NDArray], *shape: int) -> NDArray:
    return np.concatenate([*blocks] or [np.empty(shape)])


def _wanted(path: Path, names: Sequence[str], reading: Reading) -> list[str]:
    """Apply --features and --drop."""
    if reading.weights in reading.features:
        raise GenampError(f"--weights {reading.weights} must not be one of --features")
    for name in (*reading.features, *reading.drop):
        if name not in names:
            raise NoColumnError(f"{path}: no column `{name}`; there is {some(names)}")
    left_out = (*reading.drop, reading.weights)
    wanted = [name for name in (reading.features or names) if name not in left_out]
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise GenampError(
            f"{path}: names of features must differ, got `{twice}` twice; rename one, or leave "
            f"both out with --drop {twice}"
        )
    if not wanted:
        raise GenampError(f"{path}: a feature must be left, got none of {some(names)}")
    return wanted


def _flattened(path: Path, blocks: list[NDArray]) -> tuple[list[str], list[list[NDArray]]]:
    """Return names of the columns of 1D or 2D arrays or of records, and the columns by block."""
    first = blocks[0] if blocks else np.empty((0, 1))
    if first.ndim > 2:
        raise GenampError(
            f"{path}: must hold one row of features per event, got shape {first.shape}"
        )
    fields = first.dtype.names or ("",)
    names, columns = [], [[] for _ in blocks]
    for field in fields:
        parts = [(block[field] if field else block).reshape(len(block), -1) for block in blocks]
        width = parts[0].shape[1] if parts else 1
        single = [field] if field and width == 1 else None
        names += single or [f"{field}:{k}".lstrip(":") for k in range(width)]
        for block, part in zip(columns, parts, strict=True):
            block.extend(part.T)
    return names, columns


def _stacked(path: Path, table: Table, places: Sequence[int], reading: Reading) -> NDArray:
    """Read several columns or arrays of one length side by side, shape (n, n_places)."""
    parts = {}
    for group in [list(places)] if table.is_columns else [[place] for place in places]:
        blocks = table.blocks(group, (), 0, sys.maxsize, BLOCK_EVENTS)
        where = path if table.is_columns else f"{path}: `{table.names[group[0]]}`"
        parts[table.names[group[0]]] = _joined(_checked(where, blocks, reading), 0, len(group))
    shapes = {name: part.shape for name, part in parts.items()}
    is_flat = table.is_columns or all(shape[1:] in ((), (1,)) for shape in shapes.values())
    if not is_flat or len({shape[0] for shape in shapes.values()}) > 1:
        raise GenampError(
            f"{path}: columns must be 1D and have one length, got {shapes}; name one array"
        )
    return np.column_stack(list(parts.values()))


@dataclass(frozen=True)
class Table:
    """An open file; `blocks` gives one array, or several columns, (n, n_places)."""

    names: list[str]
    n_rows: Callable[[int, tuple[str, ...]], int | None]  # place, selectors; None if unknown
    # Of places, selectors, start, stop and the most rows in a block.
    blocks: Callable[[Sequence[int], tuple[str, ...], int, int, int], Iterator[NDArray]]
    is_columns: bool = False  # whether the names are columns of one table
    can_find: Callable[[str], bool] = lambda name: False  # names that are not in `names`


@contextmanager
def _opened(path: Path, reading: Reading) -> Iterator[Table]:
    """Open a file of any format; turn whatever is stumbled over into one line that names it."""
    is_table = path.is_dir() and any(path.rglob("*.parquet"))
    opener = FORMATS.get(".parquet" if is_table else path.suffix.lower())
    if text.is_text(path):
        opener = partial(_text, reading=reading)
    elif opener is None and path.is_dir():
        raise GenampError(f"{path}: must be a file or a folder with .parquet files, got neither")
    elif opener is None:
        known = ", ".join([*FORMATS, *text.SUFFIXES])
        raise GenampError(f"{path}: must be one of {known}, got `{path.suffix or path.name}`")
    if not path.is_file() and not (path.is_dir() and opener is FORMATS[".parquet"]):
        raise GenampError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; give a file")
    try:
        with opener(path) as table:
            yield table
    except GenampError:
        raise
    except MemoryError as error:
        raise GenampError(
            f"{path}: too large for the memory of this machine; name fewer columns"
        ) from error
    except Exception as error:  # zipfile, h5py, pandas, pyarrow and uproot each raise their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GenampError(f"{path}: not a whole {path.suffix} file: {reason}") from error


def _blocks(
    path: Path,
    table: Table,
    reading: Reading,
    start: int = 0,
    stop: int = sys.maxsize,
    block: int = BLOCK_EVENTS,
) -> Iterator[NDArray]:
    """Read one array or column, down to the selected index or field."""
    place, selectors = _position_and_selectors(path, reading.column, table)
    for values in _checked(path, table.blocks([place], selectors, start, stop, block), reading):
        is_single = values.ndim == 2 and values.shape[1] == 1
        yield values[:, 0] if is_single else values


def _checked(where: Path | str, blocks: Iterable[NDArray], reading: Reading) -> Iterator[NDArray]:
    """Refuse what is not real numbers; mask what stands for a missing value."""
    for values in blocks:
        if values.dtype.names is not None:
            raise GenampError(f"{where}: a field must be named, one of {some(values.dtype.names)}")
        if values.dtype.kind not in "biuf":
            raise GenampError(f"{where}: must hold real numbers, got {values.dtype}")
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if reading.missing and values.dtype.kind in "iuf":
            # In the precision of the file: -999.9 of 32 bits is not that of 64.
            marks = np.asarray(reading.missing)
            marks = marks.astype(values.dtype) if values.dtype.kind == "f" else marks
            values = np.where(np.isin(values, marks), np.nan, values)
        yield values


def _position_and_selectors(
    path: Path, column: str | None, table: Table
) -> tuple[int, tuple[str, ...]]:
    """Split KEY:INDEX or KEY:FIELD; find the only key where none is given."""
    names = table.names
    if not names:
        raise GenampError(f"{path}: must hold an array, got none")
    if column is None:
        if len(names) > 1:
            raise GenampError(f"{path}: a column must be named, one of {some(names)}")
        return 0, ()
    if names == [""]:  # .npy
        return 0, tuple(column.strip(":").split(":"))
    if names.count(column) > 1:
        places = " or ".join(str(k) for k, name in enumerate(names) if name == column)
        raise GenampError(
            f"{path}: `{column}` must be one column, got {names.count(column)} of that name; give "
            f"the index, {places}"
        )
    words = column.split(":")
    for n in range(len(words), 0, -1):
        key = ":".join(words[:n])
        if key not in names and table.can_find(key):
            names.append(key)
        if key in names:
            return names.index(key), tuple(words[n:])
    if table.is_columns and column.isdigit():
        return _index(path, column, len(names)), ()
    if not words[0] and len(names) == 1:
        return 0, tuple(words[1:])
    raise NoColumnError(f"{path}: no column `{words[0]}`; there is {some(names)}")


def _select(path: Path, values: NDArray, selectors: tuple[str, ...]) -> NDArray:
    """Take a field of records, or a column of a 2D array."""
    for selector in selectors:
        fields = values.dtype.names
        if fields is not None:
            if selector not in fields:
                raise NoColumnError(f"{path}: no field `{selector}`; there is {some(fields)}")
            values = values[selector]
        elif values.ndim == 2:
            values = values[:, _index(path, selector, values.shape[1])]
        else:
            raise NoColumnError(
                f"{path}: no column `{selector}` in an array of {values.ndim} dimension"
            )
    # A view would keep the whole rows.
    return np.ascontiguousarray(values) if selectors else values


def _index(path: Path, index: str, n_columns: int) -> int:
    if not index.isdigit() or int(index) >= n_columns:
        raise GenampError(
            f"{path}: a column index must be between 0 and {n_columns - 1}, got `{index}`"
        )
    return int(index)


def some(names: Sequence[str]) -> str:
    """Return the first names in code marks, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def _cuts(start: int, stop: int, block: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks that are neither too long nor too large."""
    step = max(1, min(block, BLOCK_BYTES // max(row_bytes, 1)))
    return ((first, min(first + step, stop)) for first in range(start, stop, step))


@contextmanager
def _npy(path: Path) -> Iterator[Table]:
    with path.open("rb") as handle:
        shape, is_by_columns, dtype = _npy_header(path, handle)
        if path.stat().st_size - handle.tell() < np.prod(shape) * dtype.itemsize:
            raise GenampError(f"{path}: truncated, the header promises {shape[0]} rows")
        handle.seek(0)
        yield Table(
            [""],
            lambda place, selectors: shape[0] if selectors or not is_by_columns else None,
            lambda places, *how: _npy_blocks(path, handle, *how),
        )


@contextmanager
def _npz(path: Path) -> Iterator[Table]:
    from zipfile import ZipFile

    with ZipFile(path) as archive:

        def blocks(places: Sequence[int], *how: Any) -> Iterator[NDArray]:
            with archive.open(f"{names[places[0]]}.npy") as handle:
                yield from _npy_blocks(path, handle, *how)

        names = [name.removesuffix(".npy") for name in archive.namelist()]
        yield Table(names, lambda place, selectors: None, blocks)


def _npy_blocks(
    path: Path, handle: IO[bytes], selectors: tuple[str, ...], start: int, stop: int, block: int
) -> Iterator[NDArray]:
    """Read an .npy array in blocks of rows; a memory map would count as memory of the process."""
    shape, is_by_columns, dtype = _npy_header(path, handle)
    rows, stop = shape[0], min(stop, shape[0])
    if is_by_columns and len(shape) == 2 and selectors:  # a column lies in one piece
        handle.seek(_index(path, selectors[0], shape[1]) * rows * dtype.itemsize, os.SEEK_CUR)
        shape, selectors, is_by_columns = shape[:1], selectors[1:], False
    if is_by_columns:  # no rows without the whole
        data = _read(path, handle, int(np.prod(shape)) * dtype.itemsize, rows)
        whole = _select(path, np.frombuffer(data, dtype).reshape(shape, order="F"), selectors)
        yield from (whole[first:last] for first, last in _cuts(start, stop, block, 0))
        return
    row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
    if start < stop:
        handle.seek(start * row_bytes, os.SEEK_CUR)
    for first, last in _cuts(start, stop, block, row_bytes):
        data = _read(path, handle, (last - first) * row_bytes, rows)
        yield _select(path, np.frombuffer(data, dtype).reshape(-1, *shape[1:]), selectors)


def _read(path: Path, handle: IO[bytes], size: int, rows: int) -> bytes:
    data = handle.read(size)
    if len(data) != size:
        raise GenampError(f"{path}: truncated, the header promises {rows} rows")
    return data


def _npy_header(path: Path, handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether 2D and stored by columns, dtype); the array begins where it stops."""
    version = np.lib.format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise GenampError(f"{path}: must be .npy format 1 or 2, got {version}")
    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, is_fortran, dtype = read_header(handle)
    if dtype.hasobject:
        raise GenampError(f"{path}: must hold real numbers, got Python objects (pickles)")
    if not shape:
        raise GenampError(f"{path}: must hold an array, got a single number")
    return shape, is_fortran and len(shape) > 1, dtype


@contextmanager
def _hdf5(path: Path) -> Iterator[Table]:
    with hdf5.open_hdf5(path) as file:
        names = hdf5.dataset_names(file)

        def data_at(place: int) -> Any:
            data = hdf5.find_dataset(path, file, names[place])
            if not data.shape:
                raise GenampError(
                    f"{path}: `{names[place]}` must hold an array, got a single number"
                )
            return data

        def blocks(
            places: Sequence[int], selectors: tuple[str, ...], start: int, stop: int, block: int
        ) -> Iterator[NDArray]:
            data, column = data_at(places[0]), ()
            if selectors and data.ndim == 2 and data.dtype.names is None:
                column = (_index(path, selectors[0], data.shape[1]),)
                selectors = selectors[1:]
            row_bytes = data.dtype.itemsize * (1 if column else int(np.prod(data.shape[1:])))
            for first, last in _cuts(start, min(stop, len(data)), block, row_bytes):
                yield _select(path, data[(slice(first, last), *column)], selectors)

        yield Table(
            names,
            lambda place, selectors: len(data_at(place)),
            blocks,
            can_find=lambda key: hdf5.find_dataset(path, file, key) is not None,
        )


@contextmanager
def _text(path: Path, reading: Reading) -> Iterator[Table]:
    layout = text.layout_of(path, reading)

    def blocks(
        places: Sequence[int], selectors: tuple[str, ...], start: int, stop: int, block: int
    ) -> Iterator[NDArray]:
        row = 0
        for values in text.text_blocks(path, layout, places, block, stop):
            kept = values[max(start - row, 0) :]
            row += len(values)
            if len(kept):
                yield kept

    names = layout.kept_names()
    yield Table(names, lambda place, selectors: None, blocks, is_columns=True)


@contextmanager
def _parquet(path: Path) -> Iterator[Table]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise GenampError(f"{path}: needs pyarrow; {install_hint('parquet')}") from None
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    files = [ParquetFile(one) for one in paths]
    try:
        schema = files[0].schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", [])
        names = [name for name in schema.names if name not in index]
        for one, file in zip(paths, files, strict=True):
            if set(names) - set(file.schema_arrow.names):
                raise GenampError(f"{one}: must have the columns of {paths[0]}, {some(names)}")

        def blocks(
            places: Sequence[int], selectors: tuple[str, ...], start: int, stop: int, block: int
        ) -> Iterator[NDArray]:
            wanted, end = [names[place] for place in places], 0
            for file in files:
                sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
                ends = end + np.cumsum([0, *sizes])
                end = int(ends[-1])
                groups = [k for k in range(len(sizes)) if ends[k + 1] > start and ends[k] < stop]
                row = int(ends[groups[0]]) if groups else end
                for batch in file.iter_batches(block, row_groups=groups, columns=wanted):
                    kept = slice(max(start - row, 0), max(stop - row, 0))
                    row += batch.num_rows
                    columns = [batch[name].to_numpy(zero_copy_only=False) for name in wanted]
                    for name, values in zip(wanted, columns, strict=True):
                        if values.dtype.kind not in "biuf":
                            raise GenampError(
                                f"{path}: `{name}` must hold real numbers, got "
                                f"{batch[name].type}; leave it out with --drop"
                            )
                    if len(columns[0][kept]):
                        yield np.column_stack([column[kept] for column in columns])

        n_events = sum(file.metadata.num_rows for file in files)
        yield Table(names, lambda place, selectors: n_events, blocks, is_columns=True)
    finally:
        for file in files:
            file.close()


@contextmanager
def _root(path: Path) -> Iterator[Table]:
    try:
        import uproot
    except ImportError:
        raise GenampError(f"{path}: needs uproot; {install_hint('root')}") from None
    with uproot.open(path) as file:
        trees = {
            name: file[name]
            for name in file.keys(cycle=False, filter_classname=["TTree", "TNtuple*", "*RNTuple"])
        }
        names = [
            branch if len(trees) == 1 else f"{name}:{branch}"
            for name, tree in trees.items()
            for branch in tree.keys()  # noqa: SIM118  # a tree has no iterator of names
        ]

        def branch_at(place: int) -> tuple[Any, str]:
            tree, _, branch = names[place].rpartition(":")
            return trees[tree] if tree in trees else next(iter(trees.values())), branch

        def can_find(name: str) -> bool:
            tree, _, branch = name.rpartition(":")
            return tree in trees and branch in trees[tree].keys()  # noqa: SIM118

        def blocks(
            places: Sequence[int], selectors: tuple[str, ...], start: int, stop: int, block: int
        ) -> Iterator[NDArray]:
            branches = [branch_at(place) for place in places]
            stop = min(stop, *(tree.num_entries for tree, _ in branches))
            for first, last in _cuts(start, stop, block, 8 * len(places)):
                columns = []
                for tree, branch in branches:
                    values = tree[branch].array(entry_start=first, entry_stop=last, library="np")
                    if values.dtype.kind == "O":
                        raise GenampError(
                            f"{path}: `{branch}` must hold one number per event, got lists; write "
                            "that of the hardest jet, for instance, or leave it out with --drop"
                        )
                    columns.append(_select(path, values, selectors))
                yield columns[0] if len(columns) == 1 else np.column_stack(columns)

        yield Table(
            names,
            lambda place, selectors: branch_at(place)[0].num_entries,
            blocks,
            is_columns=len(trees) == 1,
            can_find=can_find,
        )


FORMATS: dict[str, Callable[[Path], AbstractContextManager[Table]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
    ".root": _root,
}
