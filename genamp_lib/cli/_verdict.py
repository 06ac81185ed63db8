"""Print, write and draw estimates for `genamp estimate`. Not for reading files: _count."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from genamp_lib._project import GenampError, replace_file, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genamp_lib.amplification import (
        AveragingEstimate,
        DifferentialEstimate,
        KolmogorovAccumulator,
    )

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_outputs(json_path: Path | None, plot_path: Path | None) -> None:
    """Refuse files that cannot be written, before the work."""
    if plot_path is not None and plot_path.suffix.lower() not in PLOT_SUFFIXES:
        raise GenampError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {plot_path.name}")
    for path in (json_path, plot_path):
        if path is not None and not path.parent.is_dir():
            raise GenampError(f"{path}: cannot be written, {path.parent} is no folder; make it")
        if path is not None and path.is_dir():
            raise GenampError(f"{path}: cannot be written, it is a folder; give a file")
    if plot_path is not None and json_path == plot_path:
        raise GenampError("--json and --plot must be different files, got one twice")


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
    low, high = (_about(edge * estimate.n_train) for edge in estimate.interval)
    claim = {
        "amplifies": "The generator amplifies: ",
        "does not amplify": "The generator does not amplify: ",
        "undecided": "Undecided: ",
    }[estimate.verdict]
    # Where the status speaks against the interval, the interval is no statement about the truth.
    is_sound = estimate.status in ("measured", "lower limit")
    worth = "it is worth" if is_sound else "by this measure alone it would be worth"
    events = f"{low} true events at least" if high == "inf" else f"{low} to {high} true events"
    typer.echo(
        f"{claim}trained on {estimate.n_train:,} events, {worth} {events} here "
        f"({100 * estimate.confidence:g} % confidence, {basis})."
    )
    if estimate.note:
        typer.echo(f"Note: {estimate.note}.")


def _about(number: float) -> str:
    """Return three significant digits without a power of ten.

    >>> _about(2033912668.0), _about(0.27), _about(float("inf"))
    ('2,030,000,000', '0.27', 'inf')
    """
    if not isfinite(number) or abs(number) < 100:
        return f"{number:.3g}"
    return f"{float(f'{number:.3g}'):,.0f}"


def write_estimate(path: Path | None, estimate: Any, record: dict[str, Any]) -> None:
    """Write an estimate and a record of its inputs as JSON, whole or not at all."""
    if path is None:
        return
    try:
        write_json(path, estimate.to_dict() | record)
    except OSError as error:
        raise GenampError(f"{path}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"Written to {path}.")


def plot_averaging(path: Path | None, estimate: AveragingEstimate) -> None:
    """Draw the uncertainties of the combination over n_generated."""
    if path is None:
        return
    import numpy as np

    from genamp_lib.plotting import plot_estimate

    marks = [estimate.n_train, estimate.n_generated, estimate.n_equiv]
    marks = [n for n in marks if isfinite(n)]
    n_generated = np.geomspace(min(marks) / 10, max(marks) * 10, 200)
    _write_plot(path, estimate, lambda ax: plot_estimate(estimate, n_generated, ax=ax))


def plot_differential(
    path: Path | None, estimate: DifferentialEstimate, accumulator: KolmogorovAccumulator
) -> None:
    """Draw the distance over n_generated, from the snapshots of the accumulator."""
    if path is None:
        return
    from genamp_lib.plotting import plot_distance_curve

    curve = accumulator.curve()
    _write_plot(path, estimate, lambda ax: plot_distance_curve(*curve, estimate, ax=ax))


def _write_plot(path: Path, estimate: Any, draw: Callable[[Axes], Any]) -> None:
    import matplotlib
    from matplotlib.figure import Figure  # draws without a screen

    from genamp_lib.plotting import use_style

    with matplotlib.rc_context():
        use_style()
        matplotlib.rcParams["savefig.facecolor"] = "white"  # for viewers with a dark background
        figure = Figure()
        ax = figure.subplots()
        draw(ax)
        amplification, interval = _numbers(estimate)
        level = f"{100 * estimate.confidence:g} %"
        title = f"{estimate.verdict}: $G$ = {amplification}, {level} interval {interval}"
        ax.set_title(title, loc="left", fontsize="small")
        try:
            with replace_file(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata=_undated(path))
        except OSError as error:
            raise GenampError(f"{path}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"Drawn in {path}.")


def _undated(path: Path) -> dict[str, None]:
    """The same estimate is the same file."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
