"""Tables as text: how the columns are divided, what they are called. pandas reads the numbers.

The head of a file is read in all ways that its marks allow. One way is taken where one fits, or
where all that fit give the same numbers; else the file is refused with the option that decides.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from genamp_lib._project import GenampError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from genamp_lib.files.columns import Reading

SUFFIXES = (".csv", ".txt", ".tsv", ".dat")
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
SEPARATORS = (",", ";", "\t", "|", " ")  # the last stands for any white space
HEAD_LINES = 200
COMMENTS = ("#", "%", "!", "//")
# Thousands are grouped by the mark that is not the decimal one, and need a digit before the first.
_NUMBER = r"[+-]?(\d+|[1-9]\d{{0,2}}(\{thousands}\d{{3}})+)?(\{decimal}\d*)?([eE][+-]?\d+)?"
_NUMBERS = {
    decimal: re.compile(_NUMBER.format(decimal=decimal, thousands=thousands))
    for decimal, thousands in ((".", ","), (",", "."))
}
# Numbers that other programs write and pandas does not read: what is wrong, and what to do.
_GROUPED = re.compile(r"(?<!\d)\d{1,3}(['’\u00a0\u202f ])\d{3}(?!\d)")
_FORTRAN = re.compile(r"[+-]?\d*\.?\d+[dD][+-]?\d+")
_NO_NUMBERS = ("", "nan", "na", "inf", "+inf", "-inf", "infinity", "-infinity")
_WHOLE = re.compile(r"\d+")
# A name of a column in a comment: one word, and a unit in brackets if need be.
_NAME = re.compile(r"[^\s=:]+( ?[\[(][^\])]*[\])])?")


@dataclass(frozen=True)
class Layout:
    """One way to read a table: marks, and the names of the columns from the first on.

    `names` has None for columns that only count the rows or are empty; `n_skipped` lines come
    before the first row; `has_groups` tells whether the mark that is not decimal groups digits.
    """

    separator: str
    decimal: str
    names: tuple[str | None, ...]
    n_skipped: int
    has_groups: bool = False
    has_doubtful_header: bool = False

    def kept_names(self) -> list[str]:
        """Names of the columns that are data."""
        return [name for name in self.names if name is not None]


def is_text(path: Path) -> bool:
    """Tell whether the suffix is that of a table as text, compressed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return bool(suffixes) and (
        suffixes[-1] in SUFFIXES
        or (len(suffixes) > 1 and suffixes[-1] in OPENERS and suffixes[-2] in SUFFIXES)
    )


def text_blocks(
    path: Path, layout: Layout, places: Sequence[int], block: int, stop: int
) -> Iterator[NDArray]:
    """Read columns, by their places in `kept_names`, of the rows before `stop`, in blocks."""
    import pandas as pd

    kept = [k for k, name in enumerate(layout.names) if name is not None]
    positions = [kept[place] for place in places]
    how = {
        "sep": r"\s+" if layout.separator == " " else layout.separator,
        "decimal": layout.decimal,
        # Only where groups were seen: pandas would read 1,5 as 15.
        "thousands": {".": ",", ",": "."}[layout.decimal] if layout.has_groups else None,
        # All columns, also those not asked for: a row of another length is then an error.
        "names": range(len(layout.names)),
        "dtype": dict.fromkeys(positions, np.float64),
        "skiprows": layout.n_skipped,
        "chunksize": block,
        "nrows": stop,
    }
    fixed = {"header": None, "index_col": False, "comment": "#", "skipinitialspace": True}
    try:
        with _open(path) as handle, pd.read_csv(handle, **how, **fixed) as chunks:
            for chunk in chunks:
                yield chunk[positions].to_numpy()
    except pd.errors.ParserError as error:
        reason = str(error).strip().rpartition(": ")[2]
        raise GenampError(
            f"{path}: rows must have {len(layout.names)} columns between `{layout.separator}`, got "
            f"others ({reason}); give --separator or --decimal if these marks are in numbers"
        ) from error
    except ValueError as error:
        remedy = _remedy([str(error)]) or "name another one, or leave out this one with --drop"
        raise GenampError(f"{path}: columns must hold numbers ({error}); {remedy}") from error


def layout_of(path: Path, reading: Reading) -> Layout:
    """Find how a table is to be read; a file without a line is one column without a row."""
    comments, lines, n_skipped, separator = _head(path)
    if not lines:
        return Layout(",", ".", ("0",), n_skipped)
    grouped = next((found for line in lines if (found := _GROUPED.search(line))), None)
    if grouped and grouped[1] != " ":
        raise GenampError(f"{path}: must hold numbers, got `{grouped[0]}`; {_remedy([grouped[0]])}")
    separators = [reading.separator or separator] if reading.separator or separator else SEPARATORS
    decimals = [reading.decimal] if reading.decimal else [".", ","]
    fitting = [
        found
        for mark in separators
        for decimal in decimals
        if mark != decimal
        and (found := _fit(lines, comments, n_skipped, mark, decimal, reading.header))
    ]
    if not fitting:
        raise GenampError(f"{path}: {_why_nothing_fits(lines, separators)}")
    # More columns that are named or numbers are harder to find by chance.
    best = max(rank for rank, _, _ in fitting)
    (layout, values), *others = [(one, x) for rank, one, x in fitting if rank == best]
    for other, theirs in others:
        if values.shape != theirs.shape or not np.array_equal(values, theirs, equal_nan=True):
            option = "decimal" if other.decimal != layout.decimal else "separator"
            raise GenampError(
                f"{path}: `{lines[-1].strip()}` can be read in two ways; give --{option} "
                f"'{getattr(layout, option)}' or '{getattr(other, option)}'"
            )
    if reading.decimal:
        layout = replace(layout, has_groups=True)
    if layout.has_doubtful_header:
        raise GenampError(
            f"{path}: the first line, `{lines[0].strip()}`, may be names or an event; give "
            "--header or --no-header"
        )
    return layout


def _open(path: Path) -> TextIO:
    opener = OPENERS.get(path.suffix.lower(), open)
    with opener(path, "rb") as handle:
        mark = handle.read(2)
    encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return opener(path, "rt", encoding=encoding, newline="")


def _head(path: Path) -> tuple[list[str], list[str], int, str | None]:
    """Return comments, the first lines, lines before them, and the separator of Excel's `sep=;`."""
    comments, lines, n_skipped, separator = [], [], 0, None
    with _open(path) as handle:
        for line in islice(_decoded(path, handle), 10 * HEAD_LINES):
            if not lines and (said := re.fullmatch(r'"?sep=(.)"?\s*', line)):
                separator = said[1]
            elif not lines and line.startswith(COMMENTS):
                comments.append(line.lstrip("".join(COMMENTS)).strip())
            elif line.strip() and not line.startswith("#"):
                lines.append(line)
            n_skipped += not lines
            if len(lines) > HEAD_LINES:
                break
    return comments, lines, n_skipped, separator


def _decoded(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """Refuse what is no text in UTF-8, or in UTF-16 that says so."""
    try:
        for line in lines:
            if "\0" in line:
                raise UnicodeError("zeros between the characters, as in UTF-16")
            yield line
    except UnicodeError as error:
        raise GenampError(
            f"{path}: must be text in UTF-8 ({error}); save it so, as "
            f"`iconv -f LATIN1 -t UTF-8` does (-f UTF-16 for a text of that)"
        ) from error


def _fit(
    lines: list[str],
    comments: list[str],
    n_skipped: int,
    separator: str,
    decimal: str,
    header: bool | None,
) -> tuple[tuple[bool, int], Layout, NDArray] | None:
    """Read the lines in one way; return how good it is, the layout and the numbers, if it fits."""
    head, *rows = [_fields(line, separator) for line in lines]
    numeric = _are_numbers(head, decimal)
    is_indexed = len(head) > 1 and not head[0] and bool(rows) and _counts([r[0] for r in rows])
    has_names = (not numeric or is_indexed) if header is None else header
    table = rows if has_names else [head, *rows]
    heads = tuple(name or str(k) for k, name in enumerate(head))
    if not table:
        layout = Layout(separator, decimal, heads, n_skipped + 1)
        return (True, len(head)), layout, np.empty((0, len(head)))
    widths = {len(row) for row in table}
    if len(widths) > 1:
        return None
    columns = list(zip(*table, strict=True))
    names: list[str | None]
    is_said = has_names
    if has_names:
        names = list(heads)
        labels = columns[0]
        if len(names) == len(columns) - 1 and not any(columns[-1]):
            names = [*names, None]  # a separator at the end of each row
        elif len(names) == len(columns) - 1 and (
            _counts(labels) or not any(_are_numbers([label], decimal) for label in labels)
        ):
            names = [None, *names]  # as R writes names of rows
        if len(names) != len(columns):
            return None
        is_index = all(map(_WHOLE.fullmatch, labels)) or not _are_numbers(labels, decimal)
        if head[0] in ("", "Unnamed: 0") and is_index:
            names[0] = None  # as pandas writes its index
    else:
        written = [_fields(comment, separator) for comment in comments[-1:]]
        said = [w for w in written if len(w) == len(columns) and _can_be_names(w, decimal)]
        is_said = bool(said)
        names = list(said[0]) if said else [str(k) for k in range(len(columns))]
    names = [
        None if k and k == len(columns) - 1 and not any(column) else name
        for k, (name, column) in enumerate(zip(names, columns, strict=True))
    ]
    are_numbers = [_are_numbers(column, decimal) for column in columns]
    if not any(are_numbers):
        return None
    is_whole = all(are_numbers[k] for k, name in enumerate(names) if name is not None)
    values = np.array(
        [
            [_value(x, decimal) for x in column]
            for k, column in enumerate(columns)
            if are_numbers[k] and names[k] is not None
        ]
    )
    thousands = "," if decimal == "." else "."
    has_groups = any(
        thousands in word for k, column in enumerate(columns) if are_numbers[k] for word in column
    )
    layout = Layout(separator, decimal, tuple(names), n_skipped + has_names, has_groups)
    if header is None and rows and not is_said:
        layout = _with_header_judged(layout, head, columns)
    return (is_whole, len(head)), layout, values


def _with_header_judged(layout: Layout, head: list[str], columns: list[tuple]) -> Layout:
    """Take a first line 0, 1, 2, ... over other numbers for names; doubt integers like names."""
    below = [word for column in columns for word in column[1:]]
    if len(set(head)) < len(head) or not all(map(_WHOLE.fullmatch, head)):
        return layout
    numbers = [int(word) for word in head]
    steps = {b - a for a, b in pairwise(numbers)}
    is_even = len(steps) == 1 and (len(head) > 2 or steps == {1})
    is_other = not any(map(_WHOLE.fullmatch, below))
    if numbers == list(range(len(head))) and len(head) > 1 and is_other:
        names = tuple(None if name is None else head[k] for k, name in enumerate(layout.names))
        return replace(layout, names=names, n_skipped=layout.n_skipped + 1)
    are_years = _are_years(head) and not any(_are_years([word]) for word in below)
    return replace(layout, has_doubtful_header=is_even or is_other or are_years)


def _are_years(words: Sequence[str]) -> bool:
    return all(_WHOLE.fullmatch(word) and 1900 <= int(word) <= 2100 for word in words)


def _fields(line: str, separator: str) -> list[str]:
    if separator == " ":
        return [word.strip('"') for word in line.split()]
    (row,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    return [word.strip() for word in row]


def _are_numbers(words: Sequence[str], decimal: str) -> bool:
    return all(
        word.lower() in _NO_NUMBERS or (word != decimal and _NUMBERS[decimal].fullmatch(word))
        for word in words
    )


def _can_be_names(words: Sequence[str], decimal: str) -> bool:
    return len(set(words)) == len(words) and all(
        _NAME.fullmatch(word) and not _are_numbers([word], decimal) for word in words
    )


def _counts(words: Sequence[str]) -> bool:
    """Tell whether these are consecutive integers, as of rows; one alone must be 0 or 1."""
    if not all(map(_WHOLE.fullmatch, words)):
        return False
    numbers = [int(word) for word in words]
    if len(numbers) == 1:
        return numbers[0] < 2
    return all(b - a == 1 for a, b in pairwise(numbers))


def _value(word: str, decimal: str) -> float:
    if word.lower() in ("", "na"):
        return np.nan
    thousands = "," if decimal == "." else "."
    return float(word.replace(thousands, "").replace(decimal, "."))


def _why_nothing_fits(lines: list[str], separators: Sequence[str]) -> str:
    mark = max(separators, key=lambda one: len(_fields(lines[0], one)))
    widths = [len(_fields(line, mark)) for line in lines]
    if len(set(widths[1:])) > 1:
        return (
            f"rows must have equally many columns, got {min(widths[1:])} to {max(widths[1:])} "
            f"between `{mark}`; give --separator, with --decimal if `{mark}` groups digits"
        )
    if widths[1:] and widths[0] != widths[1]:
        return (
            f"must have one name per column, got {widths[0]} over rows of {widths[1]}; name all "
            "columns, or give --separator, or --decimal if commas are in the numbers"
            f"{'; or remove spaces that group digits' * (mark == ' ')}"
        )
    odd = [
        line
        for line in lines[1:]
        if not any(_are_numbers(_fields(line, mark), decimal) for decimal in _NUMBERS)
    ]
    shown = (odd or lines)[-1].strip()[:60]
    if remedy := _remedy(_fields(shown, mark)):
        return f"must hold numbers in columns, got `{shown}`; {remedy}"
    if 0 < len(odd) < len(lines) - 1:
        return (
            f"must hold numbers below the names, got `{odd[0].strip()[:60]}`; remove that line, "
            "units or names for instance, or begin it with #"
        )
    return (
        f"must hold numbers in columns, got `{lines[-1].strip()[:60]}`; give --separator, "
        "--decimal, --header or --no-header if there are"
    )


def _remedy(words: Sequence[str]) -> str:
    """Say what to do about numbers that pandas does not read; empty for others."""
    for word in words:
        if grouped := _GROUPED.search(word):
            return f"remove the marks `{grouped[1]}` that group digits"
        if "\N{MINUS SIGN}" in word:
            return "write minus signs as -"
        if _FORTRAN.search(word):
            return "write exponents with E in the place of Fortran's D, as `sed s/[dD]/E/g` does"
    return ""
