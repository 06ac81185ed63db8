"""What samples of jets, events and showers share: slices, files that are opened, refusals."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from genamp_lib._project import GenampError
from genamp_lib.datasets.sources import DataSource, find_source


class Rows:
    """Base of dataclasses whose arrays have one row per event; a slice cuts all of them."""

    source: DataSource | None

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index: slice | np.ndarray) -> Self:
        if isinstance(index, (int, np.integer)):
            raise TypeError(
                f"{type(self).__name__} take a slice or an array, got {index}; "
                f"use [{index}:{index}+1]"
            )
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        cut = {name: x[index] for name, x in arrays.items() if isinstance(x, np.ndarray)}
        return replace(self, **cut)


Sample = TypeVar("Sample", bound=Rows)


def load_rows(
    read: Callable[[Path, Any, int | None], Sample],
    sample: str,
    source: Path | str,
    argument: str,
    n_rows: int | None,
) -> Sample:
    """Find the file of a sample, let `read` read its first rows, and note where they came from.

    `read` takes the path, the open HDF5 file and the number of rows, None for all; `argument` is
    what the loader calls that number, for messages.
    """
    import h5py

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # the compression of paper A's file
    if n_rows is not None:
        try:
            n_rows = operator.index(n_rows)
        except TypeError:
            raise GenampError(f"`{argument}` must be an integer, got {n_rows!r}.") from None
        if n_rows < 1:
            raise GenampError(f"`{argument}` must be positive, got {n_rows}.")
    found = find_source(sample, source)
    try:
        with h5py.File(found.path, "r") as file:
            rows = replace(read(found.path, file, n_rows), source=found)
    except OSError as error:
        filtered = "filter" in str(error) or "plugin" in str(error)
        hint = "run `pip install hdf5plugin`" if filtered else "download or make it again"
        raise GenampError(f"{found.path}: must be an HDF5 file ({error}); {hint}") from error
    if n_rows is not None and len(rows) < n_rows:
        raise GenampError(
            f"`{argument}` must be at most {len(rows)} for {found.path.name}, got {n_rows}."
        )
    return rows[:n_rows]


def provenance_of(file: Any) -> dict[str, Any]:
    """Return how a file was made, as written in it; nothing where it does not say."""
    return json.loads(file.attrs.get("provenance", "{}"))


def check_shapes(path: Path, file: Any, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Refuse a file without these datasets, or with other shapes; a name stands for any length."""
    import h5py

    for name, shape in shapes.items():
        if not isinstance(file.get(name), h5py.Dataset):
            raise GenampError(
                f"{path}: must have the dataset `{name}`, has {', '.join(file) or 'none'}"
            )
        got = file[name].shape
        wanted = [isinstance(n, str) or n == m for n, m in zip(shape, got, strict=False)]
        if len(got) != len(shape) or not all(wanted) or 0 in got:
            raise GenampError(
                f"{path}: `{name}` must have shape ({', '.join(map(str, shape))}), got {got}"
            )


def check_finite(path: Path, arrays: Mapping[str, np.ndarray], *, positive: bool = False) -> None:
    """Refuse arrays with values that are not finite or, if asked for, negative."""
    for name, values in arrays.items():
        n_bad = values.size - int((np.isfinite(values) & ~(positive & (values < 0))).sum())
        if n_bad:
            raise GenampError(
                f"{path}: `{name}` must be finite{' and not negative' if positive else ''}, got "
                f"{n_bad} values that are not; remove those rows"
            )


def unrounded(values: np.ndarray, bits: int, *, seed: int) -> np.ndarray:
    """Spread numbers evenly over the steps to which they were rounded, in float64.

    Args:
        values: Numbers of any shape and sign; a zero is spread as a number of one half would be.
        bits: Explicit mantissa bits that were kept.
        seed: Seed of the places within the steps.
    """
    values = values.astype(np.float64)
    step = np.ldexp(1.0, np.frexp(values)[1] - bits - 1)
    return values + step * np.random.default_rng(seed).uniform(-0.5, 0.5, values.shape)
