"""Diagnose generators from samples: tables in, what is wrong out. Statistics: diagnostics."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.diagnostics import (
    Diagnosis,
    auc_difference,
    cheap_looks,
    likelihood_ratio_weights,
    normal_scores,
)
from genamp_lib.diagnostics import diagnose as of_weights
from genamp_lib.diagnostics._json import plain
from genamp_lib.files.columns import is_weight_like, some
from genamp_lib.networks.tabular import (
    N_EPOCHS,
    N_FOLDS,
    boosted_logits,
    fold_numbers_of_groups,
    network_logits,
    one_thread_each,
)

FEWEST = 100  # events of a sample: twelve in a fold
# Of truth and generated events, None for unweighted ones; or the name of a column of both tables.
Weights = tuple[ArrayLike | None, ArrayLike | None] | str | None
Array = NDArray[np.float64]


@dataclass(frozen=True)
class SampleDiagnosis(Diagnosis):
    """A diagnosis with the events it is of: a notebook shows findings and a figure.

    Attributes:
        features: Names of the features, constant ones left out.
        samples: Features of the truth and of the generated events, (n_events, n_features) each;
            generated events that repeat others once.
        weights: Classifier weights of both.
        event_weights: Weights of the events themselves; None where all are equal.
        record: Numbers of events, of folds and of epochs, the seed, and notes on the input.
    """

    features: tuple[str, ...]
    samples: tuple[Array, Array] = field(repr=False)
    weights: tuple[Array, Array] = field(repr=False)
    event_weights: tuple[Array | None, Array | None] | None = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis and the record as plain JSON types, without the events."""
        content = super().to_dict()
        left_out = ("samples", "weights", "event_weights", "record")
        return plain(self.record) | {k: v for k, v in content.items() if k not in left_out}

    def save(self, path: Path | str) -> None:
        """Write the whole report as one HTML file."""
        from genamp_lib.report.page import write_report

        write_report(Path(path), self)

    def _repr_html_(self) -> str:
        from genamp_lib.report.page import figures_of, summary

        first, *lines = [html.escape(line) for line in summary(self)]
        figure = figures_of(self, "observables")["observables"]
        return (
            f"<p><b>{first}</b></p><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
            '<img alt="Distributions of the most telling observables in both samples; solid: '
            f'truth, dashed: generated." src="data:image/svg+xml;base64,{figure}">'
        )


def diagnose(
    truth: Any,
    generated: Any,
    *,
    names: Sequence[str] | None = None,
    weights: Weights = None,
    seed: int = 1,
    epochs: int = N_EPOCHS,
    progress: Callable[[], None] | None = None,
) -> SampleDiagnosis:
    """Say where generated events differ from true ones, as `genamp diagnose` does.

    Cheap looks find copies, repeated events, spikes, events out of range and wrong correlations;
    classifiers weigh every event by networks that never saw it. See `diagnostics.diagnose`.

    Args:
        truth: Features of true events that the generator was not trained on, a pandas DataFrame or
            shape (n_truth, n_features).
        generated: The same features of generated events.
        names: Names of the features, by default those of the DataFrame's columns, or 0, 1, ...
        weights: Weights of the truth and of the generated events, of any sign, or None for one of
            them; or the name of the DataFrames' column of weights.
        seed: Seed of the folds and the trainings.
        epochs: Most passes over the training events.
        progress: Called after each of the eight trainings.

    Raises:
        ValueError: A table is no table of finite numbers, has fewer than 100 events, or features
            and names do not fit; a column may be a weight and is not named as one.
        GenampError: A loss is not finite.

    >>> rng = np.random.default_rng(1)
    >>> truth, generated = rng.normal(size=(2, 500, 2))
    >>> generated[:50, 1] = 7.0
    >>> result = diagnose(truth, generated, names=["pt", "eta"], epochs=2)
    >>> result.findings[0].text
    'spike: 10 % of the generated events have exactly `eta` = 7; of the truth 0 % do.'
    """
    first, second, columns, event_weights = _tables(truth, generated, weights)
    chosen = list(columns if names is None else names)
    if len(set(chosen)) < first.shape[1] or len(chosen) != first.shape[1]:
        raise ValueError(f"`names` must be {first.shape[1]} different names, got {some(chosen)}.")
    n_given = len(first), len(second)
    both = np.concatenate([first, second])
    varies = both.max(axis=0) > both.min(axis=0)
    if not varies.any():
        raise ValueError("`truth` must have a feature that varies, got constant ones only.")
    notes = [
        f"`{name}` has one value in both samples and was left out."
        for name, varied in zip(chosen, varies, strict=True)
        if not varied
    ]
    features = [name for name, varied in zip(chosen, varies, strict=True) if varied]
    samples = [np.ascontiguousarray(one[:, varies]) for one in (first, second)]

    looks = cheap_looks(*samples, features, event_weights=event_weights)
    notes += [
        f"{len(own):,} weighted {label} events say as much as "
        f"{own.sum() ** 2 / (own**2).sum():,.0f} unweighted ones."
        for label, own in zip(("truth", "generated"), event_weights or (), strict=False)
        if own is not None and own.min() < own.max()
    ]
    groups = looks.copies
    if groups is not None:
        groups = np.concatenate([groups[: n_given[0]], groups[n_given[0] :][looks.distinct]])
    samples[1] = samples[1][looks.distinct]
    if event_weights is not None and event_weights[1] is not None:
        event_weights = event_weights[0], event_weights[1][looks.distinct]
    # The truth's folds come first: they are the same for any generator without copies.
    folds = fold_numbers_of_groups([len(one) for one in samples], groups, seed=seed)
    scores, own = normal_scores(*samples), {"event_weights": event_weights}
    with one_thread_each():
        fit = network_logits(*scores, folds, seed=seed, n_epochs=epochs, progress=progress, **own)
        trees = boosted_logits(*scores, folds, seed=seed, **own)
    of_events = tuple(likelihood_ratio_weights(logits) for logits in fit)
    second_opinion = None if trees is None else [likelihood_ratio_weights(one) for one in trees]
    if trees is None:
        notes.append("No second opinion: scikit-learn is not installed.")
    tables = [dict(zip(features, one.T, strict=True)) for one in samples]
    found = of_weights(*of_events, *tables, second=second_opinion, looks=looks, **own)
    return SampleDiagnosis(
        **vars(found),
        features=tuple(features),
        samples=tuple(samples),
        weights=of_events,
        event_weights=event_weights,
        record={
            "n_truth": n_given[0],
            "n_generated": n_given[1],
            "seed": seed,
            "epochs": epochs,
            "n_folds": N_FOLDS,
            "input_notes": notes,
        },
    )


@dataclass(frozen=True)
class Comparison:
    """Several generators against the same truth.

    Attributes:
        diagnoses: Generator -> its diagnosis.
        differences: Two generators -> AUC of the first less that of the second, and its interval,
            which covers at least 68.27 %.
    """

    diagnoses: dict[str, SampleDiagnosis]
    differences: dict[tuple[str, str], tuple[float, tuple[float, float]]]

    @property
    def best(self) -> str:
        """The generator with the smallest AUC."""
        return min(self.diagnoses, key=lambda name: self.diagnoses[name].auc)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "best": self.best,
            "generators": {name: one.to_dict() for name, one in self.diagnoses.items()},
            "differences": [
                {"first": a, "second": b, "auc": value, "interval": list(interval)}
                for (a, b), (value, interval) in self.differences.items()
            ],
        }

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the table, the smallest AUC first: columns and rows of text."""
        columns = ("generator", "AUC", "trees", f"AUC less that of {self.best}", "verdict", "first")
        rows = []
        for name in sorted(self.diagnoses, key=lambda name: self.diagnoses[name].auc):
            one, difference = self.diagnoses[name], ""
            if name != self.best:
                value, (low, high) = self.differences[name, self.best]
                difference = f"{value:.4f} [{low:.4f}, {high:.4f}]"
            low, high = one.auc_interval
            auc = f"{one.auc:.4f} [{low:.4f}, {high:.4f}]"
            trees = "" if one.second_auc is None else f"{one.second_auc:.4f}"
            first = one.findings[0] if one.findings else None
            found = f"{first.mode} {first.where.replace('`', '')}".strip() if first else ""
            rows.append((name, auc, trees, difference, one.verdict, found))
        return columns, rows

    def _repr_html_(self) -> str:
        columns, rows = self.rows()
        lines = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            for tag, cells in [("th", columns), *(("td", row) for row in rows)]
        ]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def compare(
    truth: Any,
    generated: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    weights: tuple[ArrayLike | None, Mapping[str, ArrayLike | None]] | str | None = None,
    seed: int = 1,
    epochs: int = N_EPOCHS,
    progress: Callable[[], None] | None = None,
) -> Comparison:
    """Diagnose several generators against the same truth, with the same folds of it.

    Args:
        truth: Features of true events, as for `diagnose`.
        generated: Name of a generator -> features of its events; at least two.
        names: Names of the features.
        weights: Weights of the truth events and, by generator, of the generated ones, or None; or
            the name of the DataFrames' column of weights.
        seed: Seed of the folds and the trainings.
        epochs: Most passes over the training events.
        progress: Called after each training, eight per generator.

    Raises:
        ValueError: There are fewer than two generators, or as for `diagnose`.

    >>> rng = np.random.default_rng(1)
    >>> truth, good, bad = rng.normal(size=(3, 400, 2))
    >>> result = compare(truth, {"bad": bad + [0.0, 1.0], "good": good}, epochs=2)
    >>> result.best, result.differences["bad", "good"][0] > 0.1
    ('good', True)
    """
    if len(generated) < 2:
        raise ValueError(f"`generated` must be at least two generators, got {len(generated)}.")
    found = {}
    for name, sample in generated.items():
        own = weights
        if isinstance(weights, tuple):
            own = weights[0], weights[1].get(name)
        with _named(name):
            found[name] = diagnose(
                truth, sample, names=names, weights=own, seed=seed, epochs=epochs, progress=progress
            )
    differences = {}
    for a, b in combinations(found, 2):
        pair = [found[name] for name in (a, b)]
        value, (low, high) = auc_difference(
            *(one.weights for one in pair),
            cross_fitted=True,
            event_weights=tuple(one.event_weights for one in pair),
        )
        differences[a, b] = value, (low, high)
        differences[b, a] = -value, (-high, -low)
    return Comparison(found, differences)


@contextmanager
def _named(generator: str) -> Iterator[None]:
    """Say which generator is complained about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{generator}: {error}") from error


def _tables(
    truth: Any, generated: Any, weights: Weights
) -> tuple[Array, Array, list[str], tuple[Array | None, Array | None] | None]:
    """Return both tables, the names of their columns, and the weights of the events."""
    tables, names, found = [], [], []
    for number, (label, given) in enumerate((("truth", truth), ("generated", generated))):
        own = weights[number] if isinstance(weights, tuple | list) else None
        columns = [str(name) for name in getattr(given, "columns", [])]
        if isinstance(weights, str) and weights in columns:
            own = given[weights]
            given = given.drop(columns=weights)
            columns.remove(weights)
        for name in columns:
            if is_weight_like(name):
                raise ValueError(
                    f"`{label}` has a column `{name}`, which may be a weight of the events; give "
                    f"weights='{name}', or drop it."
                )
        table = np.asarray(given)
        if table.ndim == 1:
            table = table[:, np.newaxis]
        if table.ndim != 2 or table.dtype.kind not in "biuf" or not table.shape[1]:
            raise ValueError(
                f"`{label}` must be numbers, (n_events, n_features), got {table.dtype} of shape "
                f"{table.shape}."
            )
        if len(table) < FEWEST:
            raise ValueError(f"`{label}` must hold at least {FEWEST} events, got {len(table)}.")
        columns = columns or [str(k) for k in range(table.shape[1])]
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(table.astype(np.float32))  # which the networks run in
        if bad.any():
            where = [columns[k] for k in np.flatnonzero(bad.any(axis=0))]
            raise ValueError(
                f"`{label}` must be finite and below 3e38, got others in "
                f"{int(bad.any(axis=1).sum())} events, {some(where)}; remove them."
            )
        tables.append(table)
        names.append(columns)
        found.append(None if own is None else np.asarray(own, dtype=np.float64))
    if isinstance(weights, str) and all(own is None for own in found):
        raise ValueError(f"`weights` must be a column of a table, got '{weights}'.")
    if names[0] != names[1]:
        raise ValueError(
            f"`generated` must have the features of `truth`, {some(names[0])}, got "
            f"{some(names[1])}."
        )
    # Equal numbers stay equal: 0.1 in single precision is not that in double.
    kinds = [table.dtype for table in tables if table.dtype.kind == "f"]
    precision = min(kinds, key=lambda one: one.itemsize, default=np.dtype(np.float64))
    first, second = (
        np.ascontiguousarray(table.astype(precision), dtype=np.float64) for table in tables
    )
    is_weighted = any(own is not None for own in found)
    return first, second, names[0], tuple(found) if is_weighted else None
