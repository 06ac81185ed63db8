"""Options of the commands that read a user's files: what decides where a file does not say."""

from __future__ import annotations

from typing import Annotated

import typer

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
