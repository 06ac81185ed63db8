"""`genamp estimate`: a verdict on somebody's own samples. No statistics here: amplification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from filecmp import cmp
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError, replace_file, write_json
from genamp_lib.cli.gate import FailOn, check_condition, end, gate
from genamp_lib.cli.output import Json
from genamp_lib.cli.reading import (
    Decimal,
    Header,
    Missing,
    Separator,
    Weights,
    split_numbers,
    weighted_files,
)
from genamp_lib.files.counting import Sharing, accumulate, count_regions, one_line
from genamp_lib.files.outputs import check_outputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genamp_lib.amplification import AveragingEstimate, DifferentialEstimate, RegionCounter
    from genamp_lib.files.columns import Reading

app = typer.Typer(
    help="How many true events is a generated sample worth? Your own files in, a verdict out.",
    no_args_is_help=True,
)

# Paragraphs of help: a line break inside one would be kept on the screen.
AVERAGING = (
    "How many true events is a generator worth, by the agreement of an ensemble?",
    "Train the same generator several times, best on bootstrapped training samples, let each "
    "member generate equally many events, and give one file per member. The fractions of events "
    "in regions of one observable scatter from member to member, as they do from one sample of "
    "true events to the next. The answer, n_equiv, is the size of a true sample that scatters as "
    "much; G is n_equiv over the number of training events. It is G of the members' mean, or of "
    "one member where --independent says that each has its own training sample.",
    "Name the regions with --regions, or let --quantiles make them. Events that are counted "
    "already go in as one table, (n_members, n_regions), with --n-generated. What all members get "
    "wrong alike their agreement cannot show, so an ensemble alone amplifies at best if its "
    "members share no bias. Give --train as well, and members that contradict the training sample "
    "are reported. Give --holdout, ten times as many true events as in --train, for a verdict "
    "without a condition.",
)
DIFFERENTIAL = (
    "How many true events is a generator worth, by the distribution of one statistic?",
    "Give one number per event, an observable or the score of a classifier, for the training and "
    "the generated sample, and with --holdout for true events that the generator has not seen: "
    "only they can show amplification, and the more the better. The Kolmogorov-Smirnov distance "
    "of true events to the holdout shrinks with their number. The answer, n_equiv, is how many "
    "would be expected as far away as the generated sample is; G is n_equiv over the number of "
    "training events. The generator amplifies if the lower limit of G, which errs in 2.3 % of "
    "cases, is above 1. The interval is a bound that holds the true G more often than it says.",
    "A generator that repeats its training events is not said to amplify: with a holdout, "
    "generated events that lie beside training events too often are reported.",
    "The generated sample may be of any size: it is read once, block by block.",
)
FILES = (
    "Files are .npy, .npz, .h5, .root, .parquet or tables as text, with one number per event. "
    "Where a file has several columns, name one with --column: a key, a dataset, a branch, a "
    "column name, an index, or KEY:INDEX. A text that can be read in several ways is refused, and "
    "--separator, --decimal or --header decides. --weights names a column of event weights, "
    "negative ones included: (sum w)^2 / sum w^2 then takes the place of a number of events.",
)
NUMBERS = ("amplification", "low", "high")
WORDS = ("amplification", "no amplification")
AVERAGING_EXAMPLES = (
    "Examples:",
    "genamp estimate averaging member_*.npy --train train.npy --regions 0,0.5,1",
    "genamp estimate averaging member_*.h5 --column mass --train train.h5 --quantiles 20 "
    "--holdout test.h5",
    "genamp estimate averaging counts.npy --n-train 10000 --n-generated 1000000",
)
DIFFERENTIAL_EXAMPLES = (
    "Examples:",
    "genamp estimate differential train.npy generated.npy --holdout test.npy --plot curve.png",
    "genamp estimate differential train.h5 generated.h5 --column jets/mass --json verdict.json",
)
BREAK = "\n\n"
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
Column = Annotated[str | None, typer.Option(help="Which array or column of the files.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the interval.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw it over n_generated: .png, .svg or .pdf.")
]
Jobs = Annotated[
    int,
    typer.Option(
        help="Processes on this machine that count, where events are many enough; same result."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Dask scheduler, as tcp://host:8786, whose workers count instead; they must see the "
        "files under the same paths."
    ),
]


@app.command(help=BREAK.join(AVERAGING + FILES), epilog=BREAK.join(AVERAGING_EXAMPLES))
def averaging(
    members: Annotated[
        list[Path],
        typer.Argument(help="One file per member of the ensemble, or one table of counts."),
    ],
    n_train: Annotated[
        int | None,
        typer.Option(help="Events each member was trained on; by default those in --train."),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(help="Edges of adjacent regions, as in 0,0.5,1; -inf and inf are edges too."),
    ] = None,
    quantiles: Annotated[
        int | None, typer.Option(help="This many regions with equal parts of the --train sample.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Training sample: checks the members, makes --quantiles.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="True events that no member has seen: they decide.")
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Each member has a training sample of its own.")
    ] = False,
    n_generated: Annotated[
        int | None,
        typer.Option(help="Use the first N events of each member; for counts, events per member."),
    ] = None,
    column: Column = None,
    separator: Separator = None,
    decimal: Decimal = None,
    header: Header = None,
    missing: Missing = None,
    weights: Weights = None,
    confidence: Confidence = 0.68,
    json_path: Json = None,
    plot_path: Plot = None,
    fail_on: FailOn = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Estimate the averaging amplification of an ensemble's files."""
    from genamp_lib.amplification import averaging_amplification
    from genamp_lib.files.columns import Reading, count_rows, load_table

    _check_outputs(json_path, plot_path, [*members, train, holdout])
    check_condition(fail_on, NUMBERS, WORDS)
    marks = split_numbers("--missing", missing)
    reading = Reading(column, separator, decimal, header, missing=marks, weights=weights)
    sharing = Sharing(jobs, scheduler)
    samples: dict[str, Any] = {}
    record: dict[str, Any] = {}
    is_table = regions is None and quantiles is None
    if is_table and holdout is not None:
        raise GenampError("--holdout must be given together with --regions or --quantiles")
    if n_train is None and train is None:
        raise GenampError("--n-train must be given, or --train with the training sample")
    if n_train is not None and n_train <= 0:
        raise GenampError(f"--n-train must be positive, got {n_train}")
    notes: list[str] = []
    if is_table:
        if weights is not None or marks:
            raise GenampError("--weights and --missing must be given with events, not with counts")
        if train is not None:
            n_train = _same_n_train(n_train, count_rows(train, reading))
        if len(members) != 1 or n_generated is None:
            raise GenampError(
                "--regions or --quantiles must be given for files with events, or --n-generated "
                "for one table of counts"
            )
        counts, names = load_table(members[0], reading), None
    else:
        _check_members(members, train, holdout, n_generated)
        notes += weighted_files([*members, train, holdout], reading)
        edges = [_edges(regions, quantiles, train, reading)]
        edges += [] if train is None else [_alarm_edges(train, holdout, reading)]
        files = [(path, n_generated) for path in members]
        files += [(path, None) for path in (train, holdout) if path is not None]
        counters = count_regions(files, edges, reading, sharing)
        record |= _record_of(files, [one[0] for one in counters], reading)
        with one_line(str(holdout)):
            if holdout is not None:
                found, n_holdout = counters.pop()[0].effective()
                samples |= {"holdout_counts": found, "n_holdout": n_holdout}
        with one_line(str(train)):
            if train is not None:
                found, in_bins = counters.pop()
                _same_n_train(n_train, found.n_generated)
                samples["train_counts"], n_train = found.effective()
                if len(in_bins.counts) > 1:
                    of_members = [in_bins_of.counts for _, in_bins_of in counters]
                    samples["alarm_counts"] = of_members, in_bins.effective()[0]
        in_regions = [one[0] for one in counters]
        if any(one.is_weighted for one in in_regions):
            sums = [one.totals() for one in in_regions]
            n_generated = [total for total, _ in sums]
            samples["squares"] = [one.squares for one in in_regions], [more for _, more in sums]
        elif marks:
            n_generated = [one.n_generated for one in in_regions]
        else:
            n_generated = _same_n_generated(members, in_regions, n_generated)
        counts = [counter.counts for counter in in_regions]
        names = [f"[{low:.4g}, {high:.4g})" for low, high in in_regions[0].regions]
    samples |= {"members": "independent" if independent else "bootstrap", "confidence": confidence}
    with one_line("members"):
        estimate = averaging_amplification(
            counts, n_generated=n_generated, n_train=n_train, **samples
        )
    _print_averaging(estimate, names)
    _print_notes([*notes, *_said(record)])
    paths = {"members": [str(path) for path in members]}
    paths |= {key: path and str(path) for key, path in (("train", train), ("holdout", holdout))}
    _write_estimate(json_path, estimate, {"files": paths, "region_names": names, **record})
    _write_plot(plot_path, estimate, _draw_averaging)
    _gate(fail_on, estimate)


@app.command(help=BREAK.join(DIFFERENTIAL + FILES), epilog=BREAK.join(DIFFERENTIAL_EXAMPLES))
def differential(
    train: Annotated[Path, typer.Argument(help="The statistic for the training sample.")],
    generated: Annotated[Path, typer.Argument(help="The statistic for the generated sample.")],
    holdout: Annotated[
        Path | None, typer.Option(help="True events that the generator has not seen.")
    ] = None,
    column: Column = None,
    separator: Separator = None,
    decimal: Decimal = None,
    header: Header = None,
    missing: Missing = None,
    weights: Weights = None,
    confidence: Confidence = 0.68,
    json_path: Json = None,
    plot_path: Plot = None,
    fail_on: FailOn = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Estimate the differential amplification from two or three files."""
    from genamp_lib.amplification import differential_amplification
    from genamp_lib.files.columns import Reading, load_events

    _check_outputs(json_path, plot_path, [train, generated, holdout])
    check_condition(fail_on, NUMBERS, WORDS)
    marks = split_numbers("--missing", missing)
    reading = Reading(column, separator, decimal, header, missing=marks, weights=weights)
    sharing = Sharing(jobs, scheduler)
    paths = {"train": train, "generated": generated, "holdout": holdout}
    if len({path.resolve() for path in paths.values() if path}) < 3 - (holdout is None):
        raise GenampError("train, generated and --holdout must be different files, got one twice")
    notes = weighted_files(paths.values(), reading)
    loaded = {p: load_events(p, reading) for p in (train, holdout) if p is not None}
    samples = {path: (values, own) for path, (values, own, _) in loaded.items()}
    counters = accumulate(generated, samples, reading, sharing, with_curve=plot_path is not None)
    of = {"train": samples[train][1]}
    if holdout is not None:
        of["holdout"] = samples[holdout][1]
    of = {name: own for name, own in of.items() if own is not None}
    with one_line("samples"):
        to_train = differential_amplification(
            samples[train][0],
            counters[0],
            weights={name: own for name, own in of.items() if name == "train"},
            confidence=confidence,
        )
        estimate = to_train
        if holdout is not None:
            estimate = differential_amplification(
                to_train.n_train,
                counters[1],
                holdout=samples[holdout][0],
                weights={name: own for name, own in of.items() if name == "holdout"},
                confidence=confidence,
            )
            repeats = counters[2].repeats()
            alike = ("train" in of) == ("holdout" in of)
            if not alike or (estimate.coarse and not repeats.found):
                repeats = None  # few values hide them, and so do weights of one sample
            sums = {**to_train.sums, **estimate.sums}
            estimate = replace(
                estimate, train_distance=to_train.distance, repeats=repeats, sums=sums
            )
            if to_train.limits[1] < 1 < estimate.limits[0]:
                notes.append(
                    f"By {train} the generator does not amplify, by {holdout} it does: both cannot "
                    "be right; check that all files hold the same observable in the same units."
                )
    _print_differential(estimate, to_train)
    more = _record_of(
        [(path, None) for path in (*loaded, generated)],
        [*(len(values) for values, *_ in loaded.values()), counters[0].n_generated],
        reading,
    )
    more["weights"] = {str(paths[name]): list(sums) for name, sums in estimate.sums.items()}
    _print_notes([*notes, *_said(more)])
    record: dict[str, Any] = {"files": {key: path and str(path) for key, path in paths.items()}}
    if holdout is not None:
        record["against_train"] = to_train.to_dict()
    _write_estimate(json_path, estimate, record | more)
    counter = counters[0 if holdout is None else 1]

    def draw(plotting: Any, estimate: DifferentialEstimate, ax: Axes) -> None:
        sizes, distances = counter.curve()
        if counter.is_weighted:
            sizes = sizes * (estimate.n_generated / counter.n_generated)
        plotting.plot_distance_curve(sizes, distances, estimate, ax=ax)

    _write_plot(plot_path, estimate, draw)
    _gate(fail_on, estimate)


def _record_of(
    files: list[tuple[Path, int | None]], counted: list[Any], reading: Reading
) -> dict[str, Any]:
    """Return how many events of each file have a missing value, and sums of weights."""
    from genamp_lib.files.columns import count_rows

    record: dict[str, Any] = {"missing": {}, "weights": {}}
    for (path, most), one in zip(files, counted, strict=True):
        n_events = getattr(one, "n_generated", one)
        if reading.missing:
            n_rows = count_rows(path, reading)
            record["missing"][str(path)] = [min(n_rows, most or n_rows) - n_events, n_rows]
        if getattr(one, "is_weighted", False):
            record["weights"][str(path)] = [n_events, *one.totals()]
    return record


def _said(record: dict[str, Any]) -> list[str]:
    """Say in words what `_record_of` found."""
    lines = [
        f"{n:,} of {n_rows:,} events of {path} have a missing value and were left out."
        for path, (n, n_rows) in record.get("missing", {}).items()
    ]
    for path, (n_events, total, squares) in record.get("weights", {}).items():
        worth = total**2 / squares if squares else 0.0
        lines.append(
            f"{path}: {n_events:,} weighted events say as much as {worth:,.0f} unweighted ones "
            f"(sum of weights {total:.6g}, of their squares {squares:.6g})."
        )
    return lines


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        typer.echo(f"Note: {note}")


def _gate(condition: str | None, estimate: Any) -> None:
    """End with exit code 3 where a condition on the estimate holds."""
    low, high = estimate.interval
    numbers = {"amplification": estimate.amplification, "low": low, "high": high}
    amplifies = estimate.verdict.startswith("amplifies")
    end(gate(condition, numbers, dict(zip(WORDS, (amplifies, not amplifies), strict=True))))


def _same_n_train(n_train: int | None, n_events: int) -> int:
    if n_train not in (None, n_events):
        raise GenampError(
            f"--n-train must be the number of events in --train, {n_events}, got {n_train}; "
            "leave one of them out"
        )
    return n_events


def _check_members(
    members: list[Path], train: Path | None, holdout: Path | None, n_generated: int | None
) -> None:
    if n_generated is not None and n_generated <= 0:
        raise GenampError(f"--n-generated must be positive, got {n_generated}")
    if len(members) < 2:
        raise GenampError(f"members must be at least two files, got {len(members)}")
    if len({path.resolve() for path in members}) < len(members):
        raise GenampError("members must be different files, got one twice")
    samples = [path for path in (train, holdout) if path is not None]
    for one, other in combinations([*members, *samples], 2):
        if one.is_file() and other.is_file() and cmp(one, other, shallow=False):
            names = "members" if other in members else "members, --train and --holdout"
            raise GenampError(f"{names} must differ, got equal bytes in {one} and {other}")


def _same_n_generated(
    members: list[Path], counters: list[RegionCounter], n_generated: int | None
) -> int:
    sizes = {path: one.n_generated for path, one in zip(members, counters, strict=True)}
    few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if not sizes[few]:
        raise GenampError(f"{few}: must hold events, got 0")
    if n_generated is not None and sizes[few] < n_generated:
        raise GenampError(
            f"{few}: must hold at least --n-generated {n_generated} events, got {sizes[few]}"
        )
    if sizes[few] < sizes[many]:
        raise GenampError(
            f"members must hold equally many events, got {sizes[few]} in {few} and "
            f"{sizes[many]} in {many}; use --n-generated {sizes[few]}"
        )
    return sizes[few]


def _edges(regions: str | None, quantiles: int | None, train: Path | None, reading: Reading) -> Any:
    from genamp_lib.amplification import quantile_regions
    from genamp_lib.files.columns import load_events

    if regions is not None and quantiles is not None:
        raise GenampError("--regions must not be given together with --quantiles")
    if regions is not None:
        try:
            return [float(edge) for edge in regions.split(",")]
        except ValueError:
            raise GenampError(f"--regions must be numbers as in 0,0.5,1, got {regions}") from None
    if train is None:
        raise GenampError("--quantiles must be given together with --train")
    with one_line(str(train)):
        return quantile_regions(load_events(train, reading)[0], quantiles)


def _alarm_edges(train: Path, holdout: Path | None, reading: Reading) -> Any:
    """Return the bins of the joint alarm; refuse a holdout that holds training events."""
    from genamp_lib.amplification import RepeatCounter, alarm_regions
    from genamp_lib.files.columns import load_events

    values, *_ = load_events(train, reading)
    if holdout is not None:
        with one_line(f"{train}, {holdout}"):
            RepeatCounter(values, load_events(holdout, reading)[0])  # refuses shared events
    with one_line(str(train)):
        return alarm_regions(values)


def _check_outputs(
    json_path: Path | None, plot_path: Path | None, inputs: list[Path | None]
) -> None:
    """Refuse files that cannot be written, before the work."""
    if plot_path is not None and plot_path.suffix.lower() not in PLOT_SUFFIXES:
        raise GenampError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {plot_path.name}")
    check_outputs({"--json": json_path, "--plot": plot_path}, inputs)


def _print_averaging(estimate: AveragingEstimate, names: list[str] | None) -> None:
    """Print one line per region, their combination, the verdict and what the holdout says."""
    from genamp_lib.amplification.averaging_estimate import AMPLIFIES_IF, TOO_FEW

    names = names or [f"column {k}" for k in range(len(estimate.regions))]
    rows = [
        (name, f"{region.integrals[0]:.4f}", region)
        for name, region in zip(names, estimate.regions, strict=True)
    ]
    if len(rows) > 1:
        rows.append(("all, combined", f"{sum(estimate.integrals):.4f}", estimate))
    short = {AMPLIFIES_IF: "amplifies *"}
    few = {TOO_FEW: "too few events", "identical members": "same members"}
    level = f"{100 * estimate.confidence:g} %"
    print_table(
        ("region", "fraction", "G", f"{level} interval", "verdict"),
        [
            (
                name,
                part,
                *(("", few[one.status]) if one.status in few else _numbers(one)),
                short.get(one.verdict, one.verdict),
            )
            for name, part, one in rows
        ],
    )
    if any(one.verdict == AMPLIFIES_IF for *_, one in rows):
        typer.echo("* if its members share no bias.")
    subject = f"{estimate.whose[0].upper()}{estimate.whose[1:]}"
    claim = "Undecided" if estimate.verdict == "undecided" else f"{subject} {estimate.verdict}"
    is_sound = estimate.status in ("measured", "lower limit")
    worth = "is worth" if is_sound else "by this measure alone would be worth"
    n_train = estimate.n_train
    if estimate.status in few:
        typer.echo(f"{claim}: trained on {n_train:,} events.")
    else:
        is_mean = estimate.members != "independent"
        other = (1 / 2, "one member") if is_mean else (estimate.n_members, "their mean")
        typer.echo(
            f"{claim}: trained on {n_train:,} events, {estimate.whose} {worth} "
            f"{_events(estimate.interval, n_train)} true events here ({level} confidence, "
            f"{estimate.n_members} members), {other[1]} "
            f"{_events(estimate.interval, other[0] * n_train)}."
        )
    if estimate.holdout is not None:
        true, interval = estimate.true_amplification
        least, most = estimate.holdout_edges
        bound = f"at most {most:.3g}" if most < 1 else f"at least {least:.3g}"
        typer.echo(
            f"By the {estimate.holdout.n_truth:,} events of the holdout G is {true:.3g}, and "
            f"{estimate.whose} is worth {_events(interval, n_train)} true events ({level} "
            "confidence). For training samples like this one, lucky or not, G is "
            f"{bound} (97.7 % confidence)."
        )
    if estimate.note:
        typer.echo(f"Note: {estimate.note}.")


def _events(interval: tuple[float, float], n_train: float) -> str:
    low, high = (_about(edge * n_train) for edge in interval)
    return f"at least {low}" if high == "inf" else f"{low} to {high}"


def _print_differential(estimate: DifferentialEstimate, to_train: DifferentialEstimate) -> None:
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
    print_table(columns, rows)
    is_claim = estimate.verdict.startswith(("amplifies", "does not amplify"))
    claim = f"{'The generator ' * is_claim}{estimate.verdict}"
    # Where the status speaks against the interval, the interval is no statement about the truth.
    is_sound = estimate.status in ("measured", "lower limit") and estimate.reference != "train"
    subject = "it" if is_claim else "the generator"
    worth = f"{subject} is worth"
    if not is_sound:
        worth = f"by this measure alone {subject} would be worth"
    typer.echo(
        f"{claim[0].upper()}{claim[1:]}: trained on {estimate.n_train:,} events, {worth} "
        f"{_events(estimate.interval, estimate.n_train)} true events here "
        f"({100 * estimate.confidence:g} % confidence, {estimate.n_generated:,} generated events "
        f"against {estimate.n_reference:,} events of the {estimate.reference} sample)."
    )
    if estimate.note:
        typer.echo(f"Note: {estimate.note}.")
    if companion is not None:
        typer.echo(
            "The mean square difference (Cramer-von Mises) is another quantity, with a G of its "
            f"own. It says: {estimate.mean_square_verdict}."
        )


def _numbers(estimate: Any) -> tuple[str, str]:
    low, high = estimate.interval
    return f"{estimate.amplification:.3g}", f"{low:.3g} to {high:.3g}"


def print_table(
    columns: tuple[str, ...], rows: list[tuple[str, ...]], left: tuple[str, ...] = ("verdict",)
) -> None:
    """Print rows of text as wide as they need; the first and `left` columns begin on the left."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for k, column in enumerate(columns):
        side = "left" if k == 0 or column in left else "right"
        table.add_column(column, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=10_000).print(table)  # as wide as it needs: nothing is cut


def _about(number: float) -> str:
    """Return three significant digits without a power of ten."""
    if not isfinite(number) or abs(number) < 100:
        return f"{number:.3g}"
    return f"{float(f'{number:.3g}'):,.0f}"


def _write_estimate(path: Path | None, estimate: Any, record: dict[str, Any]) -> None:
    """Write an estimate and a record of its inputs as JSON, whole or not at all."""
    if path is None:
        return
    try:
        write_json(path, estimate.to_dict() | record)
    except OSError as error:
        raise GenampError(f"{path}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"Written to {path}.")


def _draw_averaging(plotting: Any, estimate: AveragingEstimate, ax: Axes) -> None:
    import numpy as np

    marks = [estimate.n_train, estimate.n_generated, estimate.n_equiv]
    marks = [n for n in marks if isfinite(n)]
    n_generated = np.geomspace(min(marks) / 10, max(marks) * 10, 200)
    plotting.plot_estimate(estimate, n_generated, ax=ax)


def _write_plot(path: Path | None, estimate: Any, draw: Callable[..., None]) -> None:
    """Let `draw(plotting, estimate, ax)` draw over n_generated."""
    if path is None:
        return
    import matplotlib
    from matplotlib.figure import Figure  # draws without a screen

    from genamp_lib import plotting

    # The same estimate is the same file.
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    with matplotlib.rc_context():
        plotting.use_style()
        matplotlib.rcParams["savefig.facecolor"] = "white"  # for viewers with a dark background
        figure = Figure()
        ax = figure.subplots()
        draw(plotting, estimate, ax)
        amplification, interval = _numbers(estimate)
        level = f"{100 * estimate.confidence:g} %"
        title = f"{estimate.verdict}: $G$ = {amplification}, {level} interval {interval}"
        ax.set_title(title, loc="left", fontsize="small")
        try:
            with replace_file(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata=undated)
        except OSError as error:
            raise GenampError(f"{path}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"Drawn in {path}.")
