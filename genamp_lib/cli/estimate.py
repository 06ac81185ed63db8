"""`genamp estimate`: a verdict on somebody's own samples. No statistics here: amplification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError
from genamp_lib.cli._verdict import print_averaging, print_differential, write_estimate

if TYPE_CHECKING:
    from genamp_lib.amplification import RegionCounter

app = typer.Typer(
    help="How many true events is a generated sample worth? Your own files in, a verdict out.",
    no_args_is_help=True,
)

# Paragraphs of help: a line break inside one would be kept on the screen.
AVERAGING = (
    "Ask an ensemble: how well do its members agree on the fractions of events in regions?",
    "Train the same generator several times, best on bootstrapped training samples, and let each "
    "member generate equally many events. Give one file per member and the regions of one "
    "observable, with --regions or --quantiles; or one table of counts, (n_members, n_regions), "
    "with --n-generated. What all members get wrong alike, their agreement cannot show.",
)
DIFFERENTIAL = (
    "Ask one statistic: how far is its distribution from that of true events?",
    "Give one number per event, an observable or the score of a classifier, for the training and "
    "the generated sample. With --holdout the distance is that to true events the generator has "
    "not seen; only they can show amplification, and the more the better. The generated sample may "
    "be of any size: it is read once, block by block.",
)
FILES = (
    "Files are .npy, .npz, .h5, .csv or .parquet with one number per event. Where a file has "
    "several columns, name one with --column: a key, a dataset, a column name, an index, or "
    "KEY:INDEX.",
)
AVERAGING_EXAMPLES = (
    "genamp estimate averaging member_*.npy --n-train 10000 --regions 0,0.5,1",
    "genamp estimate averaging member_*.h5 --column jets/mass --quantiles 20 --train train.h5",
    "genamp estimate averaging counts.npy --n-train 10000 --n-generated 1000000",
)
DIFFERENTIAL_EXAMPLES = (
    "genamp estimate differential train.npy generated.npy --holdout test.npy",
    "genamp estimate differential train.h5 generated.h5 --column jets/mass --json verdict.json",
)
BREAK = "\n\n"
Column = Annotated[str | None, typer.Option(help="Array or column in the files.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the interval.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result to this file as well.")]


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
        Path | None, typer.Option(help="Training sample, for --quantiles and --n-train.")
    ] = None,
    n_generated: Annotated[
        int | None,
        typer.Option(help="Use the first N events of each member; for counts, events per member."),
    ] = None,
    column: Column = None,
    confidence: Confidence = 0.68,
    json_path: Json = None,
) -> None:
    """Estimate the averaging amplification of an ensemble's files."""
    from genamp_lib.amplification import averaging_amplification

    n_train = _n_train(n_train, train, column)
    if regions is None and quantiles is None:
        counts, n_generated = _table_of_counts(members, n_generated, column)
        names = None
    else:
        counters = _count(members, _edges(regions, quantiles, train, column), column, n_generated)
        sizes = {path: counter.n_generated for path, counter in counters}
        if len(set(sizes.values())) > 1:
            few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
            raise GenampError(
                f"members must hold equally many events, got {sizes[few]} in {few} and "
                f"{sizes[many]} in {many}; use --n-generated {sizes[few]}"
            )
        counts = [counter.counts for _, counter in counters]
        n_generated = counters[0][1].n_generated
        names = [f"[{low:.4g}, {high:.4g})" for low, high in counters[0][1].regions]
    with _one_line("members"):
        estimate = averaging_amplification(
            counts, n_generated=n_generated, n_train=n_train, confidence=confidence
        )
    print_averaging(estimate, names)
    files = {"members": [str(path) for path in members], "train": train and str(train)}
    write_estimate(json_path, estimate, {"files": files, "region_names": names})


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
) -> None:
    """Estimate the differential amplification from two or three files."""
    from genamp_lib.amplification import KolmogorovAccumulator, differential_amplification
    from genamp_lib.datasets.columns import load_column, read_column

    samples = {path: load_column(path, column) for path in (train, holdout) if path is not None}
    accumulators = {}
    for path, sample in samples.items():
        with _one_line(str(path)):
            accumulators[path] = KolmogorovAccumulator(sample)
    with _one_line(str(generated)):
        for block in read_column(generated, column):
            for accumulator in accumulators.values():
                accumulator.update(block)
    with _one_line("samples"):
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
    files = {"train": train, "generated": generated, "holdout": holdout}
    record: dict[str, Any] = {"files": {key: path and str(path) for key, path in files.items()}}
    if holdout is not None:
        record["against_train"] = to_train.to_dict()
    write_estimate(json_path, estimate, record)


def _n_train(n_train: int | None, train: Path | None, column: str | None) -> int:
    from genamp_lib.datasets.columns import read_column

    if n_train is None and train is None:
        raise GenampError("--n-train must be given, or --train with the training sample")
    if n_train is None:
        return sum(len(block) for block in read_column(train, column))
    if n_train <= 0:
        raise GenampError(f"--n-train must be positive, got {n_train}")
    return n_train


def _edges(
    regions: str | None, quantiles: int | None, train: Path | None, column: str | None
) -> Any:
    from genamp_lib.amplification import quantile_regions
    from genamp_lib.datasets.columns import load_column

    if regions is not None and quantiles is not None:
        raise GenampError("--regions must not be given together with --quantiles")
    if regions is not None:
        try:
            return [float(edge) for edge in regions.split(",")]
        except ValueError:
            raise GenampError(f"--regions must be numbers as in 0,0.5,1, got {regions}") from None
    if train is None:
        raise GenampError("--quantiles must be given together with --train")
    with _one_line(str(train)):
        return quantile_regions(load_column(train, column), quantiles)


def _count(
    members: list[Path], edges: Any, column: str | None, n_generated: int | None
) -> list[tuple[Path, RegionCounter]]:
    from rich.console import Console
    from rich.progress import Progress

    from genamp_lib.amplification import RegionCounter
    from genamp_lib.datasets.columns import read_column

    if n_generated is not None and n_generated <= 0:
        raise GenampError(f"--n-generated must be positive, got {n_generated}")
    if len(members) < 2:
        raise GenampError(f"members must be at least two files, got {len(members)}")
    if len({path.resolve() for path in members}) < len(members):
        raise GenampError("members must be different files, got one twice")
    counters = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for path in progress.track(members, description="members"):
            with _one_line("--regions"):
                counter = RegionCounter(edges)
            with _one_line(str(path)):
                for block in read_column(path, column):
                    room = n_generated and n_generated - counter.n_generated
                    counter.update(block[:room])
                    if counter.n_generated == n_generated:
                        break
            if n_generated is not None and counter.n_generated < n_generated:
                raise GenampError(
                    f"{path}: must hold at least --n-generated {n_generated} events, "
                    f"got {counter.n_generated}"
                )
            counters.append((path, counter))
    return counters


def _table_of_counts(
    members: list[Path], n_generated: int | None, column: str | None
) -> tuple[Any, int]:
    from genamp_lib.datasets.columns import load_table

    if len(members) != 1 or n_generated is None:
        raise GenampError(
            "--regions or --quantiles must be given for files with events, or --n-generated for "
            "one table of counts"
        )
    return load_table(members[0], column), n_generated


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Say which input the library complains about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise GenampError(f"{what}: {error}") from error
