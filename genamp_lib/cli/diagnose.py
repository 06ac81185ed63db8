"""`genamp diagnose`: where a generator is wrong, from two files. Statistics: diagnostics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genamp_lib._project import GenampError, write_json
from genamp_lib.cli.reading import (
    Decimal,
    Drop,
    Features,
    Header,
    Missing,
    Separator,
    split,
    split_numbers,
)
from genamp_lib.files.counting import one_line
from genamp_lib.files.outputs import check_outputs

if TYPE_CHECKING:
    import numpy as np

    from genamp_lib.diagnostics import Diagnosis
    from genamp_lib.files.columns import Reading

HELP = (
    "Where is a generator wrong? True and generated events in, a report out.",
    "Cheap looks find copies, repeated events, spikes, events out of range and wrong correlations. "
    "Classifiers learn to tell the samples apart, and every event is weighed by networks that "
    "never saw it. The report opens with the findings in words; the weights, their calibration, "
    "how well reweighted events agree with the truth, and which observables tell the events of "
    "extreme weight apart follow. A flaw is called found where it is significant after allowing "
    "for all that was looked at.",
    "Files are .npy, .npz, .h5, .root, .parquet or tables as text with one row of features per "
    "event, the same features in both; --features and --drop choose among them. The truth must be "
    "events that the generator was not trained on.",
)
EXAMPLES = (
    "Examples:",
    "genamp diagnose truth.npy generated.npy",
    "genamp diagnose truth.csv generated.csv --output report.html --json diagnosis.json --seed 3",
    "genamp diagnose truth.root generated.root --drop event_number,weight --missing -999",
)
BREAK = "\n\n"
FEWEST = 100  # events of a sample: twelve in a fold


def diagnose(
    truth: Annotated[Path, typer.Argument(help="True events, not the training sample.")],
    generated: Annotated[Path, typer.Argument(help="Generated events.")],
    output: Annotated[Path, typer.Option(help="The report.")] = Path("diagnosis.html"),
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers to this file as well.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Which array of .npz and .h5 files holds the features.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of the features, as in pt,eta,mass.")
    ] = None,
    features: Features = None,
    drop: Drop = None,
    missing: Missing = None,
    separator: Separator = None,
    decimal: Decimal = None,
    header: Header = None,
    n_events: Annotated[
        int | None, typer.Option(help="Use the first N events of each file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds and the trainings.")] = 1,
    epochs: Annotated[int, typer.Option(help="Most passes over the training events.")] = 40,
) -> None:
    """Train classifiers on two files and write the report."""
    _check_outputs(output, json_path, truth, generated)
    for name, value, least in (("--epochs", epochs, 1), ("--n-events", n_events, FEWEST)):
        if value is not None and value < least:
            raise GenampError(f"{name} must be at least {least}, got {value}")
    if seed < 0:
        raise GenampError(f"--seed must not be negative, got {seed}")
    from genamp_lib.files.columns import Reading

    marks = split_numbers("--missing", missing)
    reading = Reading(column, separator, decimal, header, split(features), split(drop), marks)
    chosen, samples, notes = _load(truth, generated, reading, names, n_events)
    n_given = [len(sample) for sample in samples]
    diagnosis, weights, samples, more = _diagnosis(chosen, samples, seed, epochs)
    from genamp_lib.cli.report import print_diagnosis, write_report
    from genamp_lib.networks.classifier_batch import N_FOLDS

    notes += more
    record: dict[str, Any] = {
        "files": {"truth": str(truth), "generated": str(generated)},
        "n_truth": n_given[0],
        "n_generated": n_given[1],
        "seed": seed,
        "epochs": epochs,
        "n_folds": N_FOLDS,
        "input_notes": notes,
    }
    write_report(output, diagnosis, weights, chosen, samples, record)
    if json_path is not None:
        write_json(json_path, {**record, **diagnosis.to_dict()})
    print_diagnosis(diagnosis, notes, output)


def _diagnosis(
    features: list[str], samples: list[np.ndarray], seed: int, epochs: int
) -> tuple[Diagnosis, list[np.ndarray], list[np.ndarray], list[str]]:
    """Look, weigh all events and say what both tell; also the events that were weighed, notes."""
    import numpy as np

    from genamp_lib.diagnostics import cheap_looks, likelihood_ratio_weights, normal_scores
    from genamp_lib.diagnostics import diagnose as of_weights
    from genamp_lib.networks.classifier_batch import (
        boosted_logits,
        cross_fitted_logits_at_once,
        fold_numbers_of_groups,
    )
    from genamp_lib.sharing import progress

    with one_line("samples"), progress("classifiers", epochs) as advance:
        looks = cheap_looks(*samples, features)
        n_truth, groups = len(samples[0]), looks.copies
        if groups is not None:
            groups = np.concatenate([groups[:n_truth], groups[n_truth:][looks.distinct]])
        samples = [samples[0], samples[1][looks.distinct]]
        sizes = [len(sample) for sample in samples]
        folds = fold_numbers_of_groups(sizes, groups, seed=seed)
        scores = normal_scores(*samples)
        fit = cross_fitted_logits_at_once(
            *scores, folds, seed=seed, n_epochs=epochs, progress=advance
        )
        trees = boosted_logits(*scores, folds, seed=seed)
        weights = [likelihood_ratio_weights(logits) for logits in fit]
        second = None if trees is None else [likelihood_ratio_weights(one) for one in trees]
        tables = [dict(zip(features, sample.T, strict=True)) for sample in samples]
        diagnosis = of_weights(*weights, *tables, second=second, looks=looks)
    notes = [] if trees is not None else ["No second opinion: scikit-learn is not installed."]
    return diagnosis, weights, samples, notes


def _load(
    truth: Path, generated: Path, reading: Reading, names: str | None, n_events: int | None
) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Return the names of the features, both samples, and what was left out."""
    import numpy as np

    from genamp_lib.files.columns import load_features

    loaded = [load_features(path, reading) for path in (truth, generated)]
    (features, first), (others, second) = loaded
    for path, table in ((truth, first), (generated, second)):
        if len(table) < FEWEST:
            raise GenampError(f"{path}: must hold at least {FEWEST} events, got {len(table)}")
    if features != others:
        order = ",".join(features)
        raise GenampError(
            f"{generated}: must have the features of {truth}, {_some(features)}, got "
            f"{_some(others)}" + f"; give --features {order}" * (set(others) == set(features))
        )
    if names is not None:
        features = [name.strip() for name in names.split(",")]
        if len(set(features)) < first.shape[1] or len(features) != first.shape[1]:
            raise GenampError(
                f"--names must be {first.shape[1]} different names, got {_some(features)}"
            )
    samples, notes = [], []
    # Equal numbers stay equal: 0.1 in single precision is not that in double.
    kinds = [table.dtype for table in (first, second) if table.dtype.kind == "f"]
    precision = min(kinds, key=lambda one: one.itemsize, default=np.dtype(np.float64))
    for path, table in ((truth, first), (generated, second)):
        if reading.missing:
            known = ~np.isnan(table).any(axis=1)
            notes.append(
                f"{len(table) - known.sum():,} of {len(table):,} events of {path} have a missing "
                "value and were left out."
            )
            table = table[known]
            if len(table) < FEWEST:
                raise GenampError(
                    f"{path}: must hold at least {FEWEST} events without a missing value, got "
                    f"{len(table)}; leave out the features that miss most with --drop"
                )
        if n_events is not None and len(table) < n_events:
            raise GenampError(
                f"{path}: must hold at least --n-events {n_events} events, got {len(table)}"
            )
        with np.errstate(over="ignore"):
            table = np.ascontiguousarray(table[:n_events].astype(precision), dtype=np.float64)
            bad = ~np.isfinite(table.astype(np.float32))  # which the networks run in
        if bad.any():
            where = [features[i] for i in np.flatnonzero(bad.any(axis=0))]
            raise GenampError(
                f"{path}: must be finite and below 3e38, got others in "
                f"{int(bad.any(axis=1).sum())} events, {_some(where)}; remove them"
            )
        samples.append(table)
    both = np.concatenate(samples)
    varies = both.max(axis=0) > both.min(axis=0)
    notes += [
        f"`{features[i]}` has one value in both samples and was left out."
        for i in np.flatnonzero(~varies)
    ]
    if not varies.any():
        raise GenampError(f"{truth}: must have a feature that varies, got constant ones only")
    kept = [name for name, varied in zip(features, varies, strict=True) if varied]
    return kept, [np.ascontiguousarray(sample[:, varies]) for sample in samples], notes


def _check_outputs(output: Path, json_path: Path | None, truth: Path, generated: Path) -> None:
    """Refuse what cannot work, before the work."""
    if truth.resolve() == generated.resolve():
        raise GenampError("TRUTH and GENERATED must be different files, got one twice")
    if output.suffix.lower() not in (".html", ".htm"):
        raise GenampError(f"--output must end in .html, got {output.name}")
    check_outputs({"--output": output, "--json": json_path}, [truth, generated])


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
