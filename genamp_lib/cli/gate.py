"""`--fail-on`: a condition on a result that ends a command with exit code 3, for a team's CI."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from genamp_lib._project import GenampError

EXIT_CODE = 3
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on", help="End with exit code 3 if this holds, as in 'auc>0.55'; any result's name."
    ),
]
_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_CONDITION = re.compile(r"(\w+) *(>=|<=|>|<) *([-+.\deE]+|-?inf)")


def check_condition(condition: str | None, numbers: Sequence[str], words: Sequence[str]) -> None:
    """Refuse a condition that is none of `words` and does not compare one of `numbers`."""
    if condition is None or condition.strip() in words:
        return
    said = _CONDITION.fullmatch(condition.strip())
    try:
        if said and said[1] in numbers:
            float(said[3])
            return
    except ValueError:
        pass
    raise GenampError(
        f"--fail-on must be {', '.join(words)} or compare one of {', '.join(numbers)} with a "
        f"number, as in '{numbers[0]}>0.55', got {condition!r}"
    )


def gate(
    condition: str | None,
    numbers: Mapping[str, float | None],
    words: Mapping[str, bool],
    what: str = "",
) -> bool:
    """Tell whether the condition holds, and say so in one line."""
    if condition is None:
        return False
    condition, found = condition.strip(), ""
    if condition in words:
        holds = words[condition]
    else:
        name, sign, limit = _CONDITION.fullmatch(condition).groups()
        number = numbers[name]
        holds = number is not None and _COMPARE[sign](number, float(limit))
        found = f", {name} is {number:.4g}" if holds else ""
    if holds:
        typer.echo(f"failed: {what}--fail-on {condition!r} holds{found}", err=True)
    return holds


def end(failed: bool) -> None:
    """End the command with exit code 3 where a condition held."""
    if failed:
        raise typer.Exit(EXIT_CODE)
