"""Options of the commands that read a user's files: what decides where a file does not say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genamp_lib._project import GenampError

if TYPE_CHECKING:
    from genamp_lib.files.columns import Reading

Separator = Annotated[
    str | None,
    typer.Option(
        help="Mark between the columns of a text: ';', tab, space, ...; found if not given."
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(help="Decimal mark of a text, '.' or ','; the other mark then groups digits."),
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line of a text holds names."),
]
Features = Annotated[
    str | None, typer.Option(help="Features to compare, as in pt,eta; all if not given.")
]
Drop = Annotated[
    str | None, typer.Option(help="Columns that are no features, as in event_number,weight.")
]
Missing = Annotated[
    str | None,
    typer.Option(help="Numbers that stand for a missing value, as in -999; leaves out the events."),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Column of the events' weights; events of files without it count one each."),
]


def split(names: str | None) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def split_numbers(option: str, numbers: str | None) -> tuple[float, ...]:
    """Split numbers at commas; `option` is named where they are none."""
    try:
        return tuple(float(number) for number in split(numbers))
    except ValueError:
        raise GenampError(f"{option} must be numbers, as in -999,-9999, got {numbers}") from None


def weighted_files(paths: Iterable[Path | None], reading: Reading) -> list[str]:
    """Say which files have no column of weights; refuse where none has it."""
    from genamp_lib.files.columns import has_weights, weight_like

    given = [path for path in paths if path is not None]
    if reading.weights is None:
        likely = {path: weight_like(path, reading) for path in given}
        return [
            f"{path} has a column `{name}`: give --weights {name} if these are event weights."
            for path, name in likely.items()
            if name is not None
        ]
    without = [path for path in given if not has_weights(path, reading)]
    if len(without) == len(given):
        names = ", ".join(map(str, given[:3])) + ", ..." * (len(given) > 3)
        raise GenampError(
            f"--weights {reading.weights} must be a column of a file, none of {names}"
        )
    return [f"{path} has no column `{reading.weights}`: its events count one." for path in without]
