"""Options of the commands that read a user's files: what decides where a file does not say."""

from __future__ import annotations

from typing import Annotated

import typer

from genamp_lib._project import GenampError

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


def split(names: str | None) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def split_numbers(option: str, numbers: str | None) -> tuple[float, ...]:
    """Split numbers at commas; `option` is named where they are none."""
    try:
        return tuple(float(number) for number in split(numbers))
    except ValueError:
        raise GenampError(f"{option} must be numbers, as in -999,-9999, got {numbers}") from None
