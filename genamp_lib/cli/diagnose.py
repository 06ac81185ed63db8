"""`genamp diagnose` and `genamp compare`: where generators are wrong, from files. Work: report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError, write_json
from genamp_lib.cli.gate import FailOn, check_condition, end, gate
from genamp_lib.cli.output import Json
from genamp_lib.cli.reading import (
    Decimal,
    Drop,
    Features,
    Header,
    Missing,
    Separator,
    Weights,
    split,
    split_numbers,
    weighted_files,
)
from genamp_lib.files.counting import one_line
from genamp_lib.files.outputs import check_outputs

if TYPE_CHECKING:
    import numpy as np

    from genamp_lib.files.columns import Reading
    from genamp_lib.report import SampleDiagnosis

HELP = (
    "Where is a generator wrong? True and generated events in, a report out.",
    "Cheap looks find copies, repeated events, spikes, events out of range and wrong correlations. "
    "Classifiers learn to tell the samples apart, and every event is weighed by networks that "
    "never saw it. The report opens with the findings in words; the weights, their calibration, "
    "how well reweighted events agree with the truth, and which observables tell the events of "
    "extreme weight apart follow. A flaw is called found where it is significant after allowing "
    "for all that was looked at.",
    "Files are .npy, .npz, .h5, .root, .parquet or tables as text with one row of features per "
    "event, the same features in both; --features and --drop choose among them. --weights names a "
    "column of event weights, negative ones included. The truth must be events that the generator "
    "was not trained on.",
)
EXAMPLES = (
    "Examples:",
    "genamp diagnose truth.npy generated.npy",
    "genamp diagnose truth.csv generated.csv --output report.html --json diagnosis.json --seed 3",
    "genamp diagnose truth.root generated.root --drop event_number --weights w --missing -999",
    "genamp diagnose truth.npy generated.npy --fail-on 'auc>0.55'",
)
COMPARE_HELP = (
    "Which of several generators is closest to the truth? One table, the best first.",
    "Each generator is diagnosed as by `genamp diagnose`, with the same folds of the truth. What "
    "chance does to the truth it does to all, so the differences of their AUC are paired and have "
    "shorter intervals than the AUC themselves. --fail-on ends with exit code 3 if its condition "
    "holds for any generator.",
)
COMPARE_EXAMPLES = (
    "Examples:",
    "genamp compare truth.npy flow.npy gan.npy diffusion.npy --json comparison.json",
)
BREAK = "\n\n"
NUMBERS = ("auc", "auc_low", "auc_high", "second_auc", "significance")
WORDS = ("difference", "no difference")
Truth = Annotated[Path, typer.Argument(help="True events, not the training sample.")]
Column = Annotated[
    str | None, typer.Option(help="Which array of .npz and .h5 files holds the features.")
]
Names = Annotated[str | None, typer.Option(help="Names of the features, as in pt,eta,mass.")]
NEvents = Annotated[int | None, typer.Option(help="Use the first N events of each file.")]
Seed = Annotated[int, typer.Option(help="Seed of the folds and the trainings.")]
Epochs = Annotated[int, typer.Option(help="Most passes over the training events.")]


def diagnose(
    truth: Truth,
    generated: Annotated[Path, typer.Argument(help="Generated events.")],
    output: Annotated[
        Path | None, typer.Option(help="The report; diagnosis.html, where there is none yet.")
    ] = None,
    json_path: Json = None,
    column: Column = None,
    names: Names = None,
    features: Features = None,
    drop: Drop = None,
    missing: Missing = None,
    weights: Weights = None,
    separator: Separator = None,
    decimal: Decimal = None,
    header: Header = None,
    n_events: NEvents = None,
    seed: Seed = 1,
    epochs: Epochs = 40,
    fail_on: FailOn = None,
) -> None:
    """Train classifiers on two files and write the report."""
    if output is None:
        output = Path("diagnosis.html")
        if output.exists():
            raise GenampError(
                f"{output}: exists; give --output with another name, or with this one"
            )
    if output.suffix.lower() not in (".html", ".htm"):
        raise GenampError(f"--output must end in .html, got {output.name}")
    _check(truth, [generated], {"--output": output, "--json": json_path}, seed, epochs, n_events)
    check_condition(fail_on, NUMBERS, WORDS)
    how = (column, separator, decimal, header, split(features), split(drop))
    reading = _reading(how, missing, weights)
    chosen, samples, own, notes = _load([truth, generated], reading, names, n_events)
    from genamp_lib.networks.tabular import N_FOLDS
    from genamp_lib.report import diagnose as of_samples
    from genamp_lib.report.page import summary
    from genamp_lib.sharing import progress

    with one_line(f"{truth}, {generated}"), progress("classifiers", N_FOLDS) as advance:
        found = of_samples(
            *samples, names=chosen, weights=tuple(own), seed=seed, epochs=epochs, progress=advance
        )
    _add(found, {"truth": str(truth), "generated": str(generated)}, notes)
    found.save(output)
    if json_path is not None:
        write_json(json_path, found.to_dict())
    for line in [*summary(found), *found.notes, *found.record["input_notes"]]:
        typer.echo(line)
    typer.echo(f"Report: {output}")
    end(_gate(fail_on, found))


def compare(
    truth: Truth,
    generated: Annotated[list[Path], typer.Argument(help="Events of each generator.")],
    json_path: Json = None,
    column: Column = None,
    names: Names = None,
    features: Features = None,
    drop: Drop = None,
    missing: Missing = None,
    weights: Weights = None,
    separator: Separator = None,
    decimal: Decimal = None,
    header: Header = None,
    n_events: NEvents = None,
    seed: Seed = 1,
    epochs: Epochs = 40,
    fail_on: FailOn = None,
) -> None:
    """Diagnose several generators against the same truth and print one table."""
    if len(generated) < 2:
        raise GenampError(f"GENERATED must be at least two files, got {len(generated)}")
    _check(truth, generated, {"--json": json_path}, seed, epochs, n_events)
    check_condition(fail_on, NUMBERS, WORDS)
    how = (column, separator, decimal, header, split(features), split(drop))
    reading = _reading(how, missing, weights)
    chosen, samples, own, notes = _load([truth, *generated], reading, names, n_events)
    from genamp_lib.cli.estimate import print_table
    from genamp_lib.networks.tabular import N_FOLDS
    from genamp_lib.report import compare as of_samples
    from genamp_lib.sharing import progress

    labels = [str(path) for path in generated]
    with one_line(str(truth)), progress("classifiers", N_FOLDS * len(labels)) as advance:
        found = of_samples(
            samples[0],
            dict(zip(labels, samples[1:], strict=True)),
            names=chosen,
            weights=(own[0], dict(zip(labels, own[1:], strict=True))),
            seed=seed,
            epochs=epochs,
            progress=advance,
        )
    for label, one in found.diagnoses.items():
        _add(one, {"truth": str(truth), "generated": label}, notes)
    print_table(*found.rows(), left=("generator", "verdict", "first"))
    said = [f"{label}: {note}" for label, one in found.diagnoses.items() for note in one.notes]
    for line in [*notes, *said]:
        typer.echo(f"Note: {line}")
    if json_path is not None:
        write_json(json_path, found.to_dict())
        typer.echo(f"Written to {json_path}.")
    held = [_gate(fail_on, one, f"{name}: ") for name, one in found.diagnoses.items()]
    end(any(held))


def _gate(condition: str | None, found: SampleDiagnosis, what: str = "") -> bool:
    low, high = found.auc_interval
    numbers = {"auc": found.auc, "auc_low": low, "auc_high": high, "second_auc": found.second_auc}
    numbers["significance"] = max(found.significance.values())
    differs = found.verdict != "no difference found"
    return gate(condition, numbers, dict(zip(WORDS, (differs, not differs), strict=True)), what)


def _add(found: SampleDiagnosis, files: dict[str, str], notes: list[str]) -> None:
    found.record["files"] = files
    found.record["input_notes"] = [*notes, *found.record["input_notes"]]


def _reading(how: tuple[Any, ...], missing: str | None, weights: str | None) -> Reading:
    from genamp_lib.files.columns import Reading

    return Reading(*how, split_numbers("--missing", missing), weights)


def _load(
    paths: list[Path], reading: Reading, names: str | None, n_events: int | None
) -> tuple[list[str], list[np.ndarray], list[np.ndarray | None], list[str]]:
    """Return the names of the features, the samples, their weights, and what was left out."""
    import numpy as np

    from genamp_lib.files.columns import load_features, some

    notes = [] if reading.weights is None else weighted_files(paths, reading)
    loaded = [load_features(path, reading) for path in paths]
    features = loaded[0][0]
    samples, weights = [], []
    for path, (others, table, own) in zip(paths, loaded, strict=True):
        if len(table) < FEWEST:
            raise GenampError(f"{path}: must hold at least {FEWEST} events, got {len(table)}")
        if features != others:
            order = ",".join(features)
            raise GenampError(
                f"{path}: must have the features of {paths[0]}, {some(features)}, got "
                f"{some(others)}" + f"; give --features {order}" * (set(others) == set(features))
            )
        if reading.missing:
            known = ~np.isnan(table).any(axis=1)
            notes.append(
                f"{len(table) - known.sum():,} of {len(table):,} events of {path} have a missing "
                "value and were left out."
            )
            table, own = table[known], own if own is None else own[known]
            if len(table) < FEWEST:
                raise GenampError(
                    f"{path}: must hold at least {FEWEST} events without a missing value, got "
                    f"{len(table)}; leave out the features that miss most with --drop"
                )
        if n_events is not None and len(table) < n_events:
            raise GenampError(
                f"{path}: must hold at least --n-events {n_events} events, got {len(table)}"
            )
        samples.append(table[:n_events])
        weights.append(own if own is None else own[:n_events])
    if names is not None:
        features = [name.strip() for name in names.split(",")]
        n_features = samples[0].shape[1]
        if len(set(features)) < n_features or len(features) != n_features:
            raise GenampError(f"--names must be {n_features} different names, got {some(features)}")
    return features, samples, weights, notes


FEWEST = 100  # that of `report`, without its imports


def _check(
    truth: Path,
    generated: list[Path],
    outputs: dict[str, Path | None],
    seed: int,
    epochs: int,
    n_events: int | None,
) -> None:
    """Refuse what cannot work, before the work."""
    if len({path.resolve() for path in (truth, *generated)}) <= len(generated):
        raise GenampError("TRUTH and GENERATED must be different files, got one twice")
    check_outputs(outputs, [truth, *generated])
    for name, value, least in (("--epochs", epochs, 1), ("--n-events", n_events, FEWEST)):
        if value is not None and value < least:
            raise GenampError(f"{name} must be at least {least}, got {value}")
    if seed < 0:
        raise GenampError(f"--seed must not be negative, got {seed}")
