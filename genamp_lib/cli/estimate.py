"""`genamp estimate`: a verdict on somebody's own samples. No statistics here: amplification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError
from genamp_lib.cli._verdict import (
    check_outputs,
    plot_averaging,
    plot_differential,
    print_averaging,
    print_differential,
    write_estimate,
)
from genamp_lib.files.counting import Sharing, accumulate, count_regions, one_line

if TYPE_CHECKING:
    from genamp_lib.amplification import RegionCounter

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
    "much; G is n_equiv over the number of training events. If all of the interval of G is above "
    "1, the generator amplifies its training sample.",
    "Name the regions with --regions, or let --quantiles make them. Events that are counted "
    "already go in as one table, (n_members, n_regions), with --n-generated. What all members get "
    "wrong alike their agreement cannot show: give --train as well, and members that contradict "
    "the training sample are reported.",
)
DIFFERENTIAL = (
    "How many true events is a generator worth, by the distribution of one statistic?",
    "Give one number per event, an observable or the score of a classifier, for the training and "
    "the generated sample, and with --holdout for true events that the generator has not seen: "
    "only they can show amplification, and the more the better. The Kolmogorov-Smirnov distance "
    "of true events to the holdout shrinks with their number. The answer, n_equiv, is how many "
    "would be expected as far away as the generated sample is; G is n_equiv over the number of "
    "training events. If all of the interval of G is above 1, the generator amplifies.",
    "The generated sample may be of any size: it is read once, block by block.",
)
FILES = (
    "Files are .npy, .npz, .h5, .csv or .parquet with one number per event. Where a file has "
    "several columns, name one with --column: a key, a dataset, a column name, an index, or "
    "KEY:INDEX.",
)
AVERAGING_EXAMPLES = (
    "Examples:",
    "genamp estimate averaging member_*.npy --train train.npy --regions 0,0.5,1",
    "genamp estimate averaging member_*.h5 --column jets/mass --train train.h5 --quantiles 20",
    "genamp estimate averaging counts.npy --n-train 10000 --n-generated 1000000",
)
DIFFERENTIAL_EXAMPLES = (
    "Examples:",
    "genamp estimate differential train.npy generated.npy --holdout test.npy --plot curve.png",
    "genamp estimate differential train.h5 generated.h5 --column jets/mass --json verdict.json",
)
BREAK = "\n\n"
Column = Annotated[str | None, typer.Option(help="Which array or column of the files.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the interval.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result to this file as well.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw it over n_generated: .png, .svg or .pdf.")
]
Jobs = Annotated[int, typer.Option(help="Processes on this machine that count; same result.")]
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
    n_generated: Annotated[
        int | None,
        typer.Option(help="Use the first N events of each member; for counts, events per member."),
    ] = None,
    column: Column = None,
    confidence: Confidence = 0.68,
    json_path: Json = None,
    plot_path: Plot = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Estimate the averaging amplification of an ensemble's files."""
    from genamp_lib.amplification import averaging_amplification

    check_outputs(json_path, plot_path)
    sharing = Sharing(jobs, scheduler)
    sharing.check()
    if regions is None and quantiles is None:
        n_train = _n_train(n_train, train, column)
        counts, n_generated = _table_of_counts(members, n_generated, column)
        names = train_counts = None
    else:
        _check_members(members, n_train, train, n_generated)
        files = [(path, n_generated) for path in members]
        files += [] if train is None else [(train, None)]
        counters = count_regions(files, _edges(regions, quantiles, train, column), column, sharing)
        train_counts = None
        if train is not None:
            of_train = counters.pop()
            n_train, train_counts = _same_n_train(n_train, of_train.n_generated), of_train.counts
        n_generated = _same_n_generated(members, counters, n_generated)
        counts = [counter.counts for counter in counters]
        names = [f"[{low:.4g}, {high:.4g})" for low, high in counters[0].regions]
    with one_line("members"):
        estimate = averaging_amplification(
            counts,
            n_generated=n_generated,
            n_train=n_train,
            train_counts=train_counts,
            confidence=confidence,
        )
    print_averaging(estimate, names)
    paths = {"members": [str(path) for path in members], "train": train and str(train)}
    write_estimate(json_path, estimate, {"files": paths, "region_names": names})
    plot_averaging(plot_path, estimate)


@app.command(help=BREAK.join(DIFFERENTIAL + FILES), epilog=BREAK.join(DIFFERENTIAL_EXAMPLES))
def differential(
    train: Annotated[Path, typer.Argument(help="The statistic for the training sample.")],
    generated: Annotated[Path, typer.Argument(help="The statistic for the generated sample.")],
    holdout: Annotated[
        Path | None, typer.Option(help="True events that the generator has not seen.")
    ] = None,
    column: Column = None,
    confidence: Confidence = 0.68,
    json_path: Json = None,
    plot_path: Plot = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Estimate the differential amplification from two or three files."""
    from genamp_lib.amplification import differential_amplification
    from genamp_lib.files.columns import load_column

    check_outputs(json_path, plot_path)
    sharing = Sharing(jobs, scheduler)
    sharing.check()
    paths = {"train": train, "generated": generated, "holdout": holdout}
    if len({path.resolve() for path in paths.values() if path}) < 3 - (holdout is None):
        raise GenampError("train, generated and --holdout must be different files, got one twice")
    samples = {path: load_column(path, column) for path in (train, holdout) if path is not None}
    accumulators = accumulate(generated, samples, column, sharing, with_curve=plot_path is not None)
    with one_line("samples"):
        to_train = differential_amplification(
            samples[train], accumulators[train], confidence=confidence
        )
        estimate = to_train
        if holdout is not None:
            estimate = differential_amplification(
                len(samples[train]),
                accumulators[holdout],
                holdout=samples[holdout],
                confidence=confidence,
            )
    print_differential(estimate, to_train)
    record: dict[str, Any] = {"files": {key: path and str(path) for key, path in paths.items()}}
    if holdout is not None:
        record["against_train"] = to_train.to_dict()
    write_estimate(json_path, estimate, record)
    plot_differential(plot_path, estimate, accumulators[train if holdout is None else holdout])


def _n_train(n_train: int | None, train: Path | None, column: str | None) -> int:
    from genamp_lib.files.columns import n_rows, read_column

    _check_n_train(n_train, train)
    if train is None:
        return n_train
    rows = n_rows(train, column)
    if rows is None:
        rows = sum(len(block) for block in read_column(train, column))
    return _same_n_train(n_train, rows)


def _check_n_train(n_train: int | None, train: Path | None) -> None:
    if n_train is None and train is None:
        raise GenampError("--n-train must be given, or --train with the training sample")
    if n_train is not None and n_train <= 0:
        raise GenampError(f"--n-train must be positive, got {n_train}")


def _same_n_train(n_train: int | None, n_events: int) -> int:
    if n_train not in (None, n_events):
        raise GenampError(
            f"--n-train must be the number of events in --train, {n_events}, got {n_train}; "
            "leave one of them out"
        )
    return n_events


def _check_members(
    members: list[Path], n_train: int | None, train: Path | None, n_generated: int | None
) -> None:
    _check_n_train(n_train, train)
    if n_generated is not None and n_generated <= 0:
        raise GenampError(f"--n-generated must be positive, got {n_generated}")
    if len(members) < 2:
        raise GenampError(f"members must be at least two files, got {len(members)}")
    if len({path.resolve() for path in members}) < len(members):
        raise GenampError("members must be different files, got one twice")


def _same_n_generated(
    members: list[Path], counters: list[RegionCounter], n_generated: int | None
) -> int:
    sizes = {path: one.n_generated for path, one in zip(members, counters, strict=True)}
    few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
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


def _edges(
    regions: str | None, quantiles: int | None, train: Path | None, column: str | None
) -> Any:
    from genamp_lib.amplification import quantile_regions
    from genamp_lib.files.columns import load_column

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
        return quantile_regions(load_column(train, column), quantiles)


def _table_of_counts(
    members: list[Path], n_generated: int | None, column: str | None
) -> tuple[Any, int]:
    from genamp_lib.files.columns import load_table

    if len(members) != 1 or n_generated is None:
        raise GenampError(
            "--regions or --quantiles must be given for files with events, or --n-generated for "
            "one table of counts"
        )
    return load_table(members[0], column), n_generated
