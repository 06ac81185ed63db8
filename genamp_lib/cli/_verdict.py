"""Print and write estimates for `genamp estimate`. Not for reading files: estimate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from genamp_lib._project import GenampError, write_json

if TYPE_CHECKING:
    from genamp_lib.amplification import AveragingEstimate, DifferentialEstimate


def print_averaging(estimate: AveragingEstimate, names: list[str] | None) -> None:
    """Print one line per region, their combination and the verdict."""
    names = names or [f"column {k}" for k in range(len(estimate.regions))]
    rows = [
        (name, f"{region.integrals[0]:.4f}", region)
        for name, region in zip(names, estimate.regions, strict=True)
    ]
    if len(rows) > 1:
        rows.append(("all, combined", f"{sum(estimate.integrals):.4f}", estimate))
    columns = ("region", "fraction", "G", f"{100 * estimate.confidence:g} % interval", "verdict")
    _print_table(
        columns,
        [(name, part, *_numbers(region), region.verdict) for name, part, region in rows],
    )
    _print_verdict(estimate, f"{estimate.n_members} members")


def print_differential(estimate: DifferentialEstimate, to_train: DifferentialEstimate) -> None:
    """Print the distances and the verdict; `to_train` may be the same estimate."""

    def row(name: str, one: DifferentialEstimate) -> tuple[str, ...]:
        return name, f"{one.distance:.5f}", *_numbers(one)

    rows = [row(f"Kolmogorov-Smirnov to {estimate.reference}", estimate)]
    companion = estimate.cramer_von_mises
    if companion is not None:
        rows.append((f"Cramer-von Mises to {estimate.reference}", "", *_numbers(companion)))
    if estimate is not to_train:
        rows.append(row("Kolmogorov-Smirnov to train", to_train))
    columns = ("distance", "M", "G", f"{100 * estimate.confidence:g} % interval")
    _print_table(columns, rows)
    events = f"{estimate.n_reference:,} events of the {estimate.reference} sample"
    _print_verdict(estimate, f"{estimate.n_generated:,} generated events against {events}")
    if estimate is not to_train and to_train.status == "too close":
        typer.echo("Note: overfitting: closer to train than independent samples are.")


def _numbers(estimate: Any) -> tuple[str, str]:
    low, high = estimate.interval
    return f"{estimate.amplification:.3g}", f"{low:.3g} to {high:.3g}"


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for k, column in enumerate(columns):
        left = k == 0 or column == "verdict"
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _print_verdict(estimate: Any, basis: str) -> None:
    low, high = (edge * estimate.n_train for edge in estimate.interval)
    worth = (
        f"{low:,.0f} true events at least"
        if high == float("inf")
        else (f"{low:,.0f} to {high:,.0f} true events")
    )
    claim = {
        "amplifies": "The generator amplifies: ",
        "does not amplify": "The generator does not amplify: ",
        "undecided": "Undecided: ",
    }[estimate.verdict]
    typer.echo(
        f"{claim}trained on {estimate.n_train:,} events, it is worth {worth} here "
        f"({100 * estimate.confidence:g} % confidence, {basis})."
    )
    if estimate.note:
        typer.echo(f"Note: {estimate.note}.")


def write_estimate(path: Path | None, estimate: Any, record: dict[str, Any]) -> None:
    """Write an estimate and a record of its inputs as JSON, whole or not at all."""
    if path is None:
        return
    try:
        write_json(path, estimate.to_dict() | record)
    except OSError as error:
        raise GenampError(f"{path}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"Written to {path}.")
