"""The numbers of one chapter: collected in the notebook, written to results.json, set in tables."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genamp_lib._project import (
    PRESET_VARIABLE,
    GenampError,
    project_root,
    read_json,
    recover_folder,
    sha256_of_file,
    write_json,
)

if TYPE_CHECKING:
    from IPython.display import Markdown
    from numpy.typing import ArrayLike

# How the runner tells a notebook where its results go; one opened by hand is not told.
RUN_FOLDER_VARIABLE = "GENAMP_RUN_FOLDER"
CONFIDENCE = 0.6827
# What a record must hold to be one.
RECORD_FIELDS = {
    *("chapter", "preset", "overrides", "changed", "fresh", "seed", "started", "wall_seconds"),
    *("revision", "machine", "artefacts", "fingerprint", "results_sha256"),
}


@dataclass(frozen=True)
class Result:
    """One number of a chapter."""

    name: str  # unique in the chapter, snake_case
    value: float  # may be infinite
    interval: tuple[float, float] | None  # None where the number is exact
    confidence: float | None  # of the interval
    unit: str  # empty for a pure number
    meaning: str  # one phrase

    @property
    def text(self) -> str:
        """The number as a page prints it: two significant digits of its uncertainty.

        >>> Result("g", 71.234, (58.1, 88.34), 0.6827, "", "G").text
        '71 [58, 88]'
        >>> Result("g", 16.1, (0.31, math.inf), 0.6827, "", "G").text
        '16 [0.31, ∞]'
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.interval is None:
            return format_number(self.value, None) + unit
        low, high = self.interval
        widths = [abs(edge - self.value) for edge in (low, high) if math.isfinite(edge)]
        # An interval of infinite or no width says nothing on digits: fall back to three.
        half = max(widths, default=0.0) if math.isfinite(self.value) else 0.0
        scale = half or max(abs(low), 1e-300) * 0.01
        scales = [scale] * 3
        positive = [width for width in widths if width > 0]
        if low > 0 and (math.isinf(high) or half > 10 * min(positive, default=half)):
            # So lopsided that digits of the wider side would leave nothing of a small number.
            scales = [min(scale, number) for number in (self.value, low, high)]
        number, *edges = map(format_number, (self.value, low, high), scales)
        return f"{number} [{edges[0]}, {edges[1]}]{unit}"


def format_number(number: float, scale: float | None) -> str:
    """Format a number with two significant digits of `scale`, or with five if it is None."""
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if scale is None:
        return f"{number:.5g}"
    decimals = 1 - math.floor(math.log10(scale))
    rounded = round(number, decimals) + 0.0  # no "-0"
    plain = abs(rounded) >= 1e-4 or rounded == 0
    return f"{rounded:.{max(decimals, 0)}f}" if plain else f"{rounded:.2g}"


class Results:
    """Collect the numbers of a chapter; `write` puts them into the run folder at once.

    Args:
        chapter: Name of the notebook without extension.
        seed: Seed that the chapter's random numbers follow from.

    >>> results = Results(chapter="01_gaussian_1d", seed=1)
    >>> results.add("mean", 0.5, "a mean", error=0.1).text
    '0.50 [0.40, 0.60]'
    """

    def __init__(self, *, chapter: str, seed: int) -> None:
        self.chapter = chapter
        self.seed = seed
        self._results: dict[str, Result] = {}

    def __getitem__(self, name: str) -> Result:
        return self._results[name]

    def add(
        self,
        name: str,
        value: float,
        meaning: str,
        *,
        interval: tuple[float, float] | None = None,
        error: float | None = None,
        within: tuple[float, float] = (-math.inf, math.inf),
        confidence: float = CONFIDENCE,
        unit: str = "",
    ) -> Result:
        """Add one number and return it.

        Args:
            name: Identifier, unique in the chapter.
            value: The number; not NaN.
            meaning: What it is, one phrase.
            interval: (low, high) at `confidence`; None where the number is exact or has an `error`.
            error: Half-width of the interval around `value`, in place of `interval`.
            within: Smallest and largest possible number, where an interval from `error` ends.
            confidence: Confidence level of the interval.
            unit: Unit symbol.

        Raises:
            ValueError: The name is taken or no identifier, a number is NaN, or the interval is
                not ordered.
        """
        if not name.isidentifier() or name in self._results:
            raise ValueError(f"`name` must be a new identifier, got {name!r}.")
        value = float(value)
        if error is not None:
            interval = max(value - error, within[0]), min(value + error, within[1])
        edges = None if interval is None else (float(interval[0]), float(interval[1]))
        if math.isnan(value) or (edges is not None and not edges[0] <= edges[1]):
            raise ValueError(
                f"`{name}` must be a number with an ordered interval, got {value}, {edges}."
            )
        result = Result(name, value, edges, None if edges is None else confidence, unit, meaning)
        self._results[name] = result
        return result

    def add_estimate(self, name: str, estimate: Any, meaning: str) -> Result:
        """Add the amplification factor of any estimate of this library with its interval."""
        interval, confidence = estimate.interval, estimate.confidence
        return self.add(
            name, estimate.amplification, meaning, interval=interval, confidence=confidence
        )

    def add_spread(self, name: str, values: ArrayLike, meaning: str) -> Result:
        """Add the median of repeated values with the interval of their central 68.27 %."""
        middle = 0.5, 0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2
        median, low, high = np.quantile(values, middle)
        return self.add(name, median, meaning, interval=(low, high))

    def add_mean(self, name: str, values: ArrayLike, meaning: str, *, unit: str = "") -> Result:
        """Add the mean of values with its standard error."""
        values = np.asarray(values)
        error = values.std() / np.sqrt(len(values))
        return self.add(name, values.mean(), meaning, error=error, unit=unit)

    def add_fraction(self, name: str, count: int, total: int, meaning: str) -> Result:
        """Add the fraction `count` of `total` with Wilson's interval."""
        from genamp_lib.diagnostics import binomial_interval

        return self.add(name, count / total, meaning, interval=binomial_interval(count, total))

    def write(self, *, artefacts: list[dict[str, str]] | None = None) -> None:
        """Write results.json into the run's folder, with `ArtefactStore.used`."""
        folder = Path(
            os.environ.get(RUN_FOLDER_VARIABLE)
            or project_root() / "_build" / "interactive" / self.chapter
        )
        content = {
            "chapter": self.chapter,
            "preset": os.environ.get(PRESET_VARIABLE, "interactive"),
            "seed": self.seed,
            "results": {r.name: _to_json(r) for r in self._results.values()},
            "artefacts": artefacts or [],
        }
        write_json(folder / "results.json", content)


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, name: str = "", caption: str = ""
) -> Markdown:
    """Return a table that a notebook shows as the output of a cell.

    Args:
        header: Heads of the columns.
        rows: Cells of each row: texts, numbers, or results, which show their interval.
        name: Label that the page can refer to with `numref`; it needs a caption. Where no page is
            made it stands before the caption; exported notebooks have the table's number there.
        caption: Title of the table.
    """
    from IPython.display import Markdown

    head, *body = (f"| {' | '.join(map(_cell, row))} |" for row in (header, *rows))
    text = "\n".join([head, "|---" * len(header) + "|", *body])
    if caption and _on_a_page():
        text = f":::{{table}} {caption}\n:name: {name}\n\n{text}\n:::"
    elif caption:
        text = f"**{name}.** {caption}\n\n{text}"
    return Markdown(text)


def _on_a_page() -> bool:
    """Whether the book runs the notebook, whose pages know MyST; plain Jupyter does not."""
    return RUN_FOLDER_VARIABLE in os.environ


def _cell(cell: object) -> str:
    if not isinstance(cell, Result):
        return str(cell)
    # On a page of the book the role keeps its link to results.json; elsewhere nobody knows it.
    return f"{{result}}`{cell.name}`" if _on_a_page() else cell.text


def read_results(path: Path | str) -> dict[str, Result]:
    """Read a results.json as a mapping from name to `Result`."""
    content = read_json(path)
    try:
        return {name: _from_json(entry) for name, entry in content["results"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenampError(
            f"{path}: must be a chapter's results.json, got {error!r}; rerun the chapter"
        ) from error


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its record.json (provenance) and its numbers by name."""

    folder: Path
    record: Mapping[str, Any]
    results: Mapping[str, Result]


def read_run(folder: Path) -> Run | None:
    """Return the run in `folder`; None when there is none, or its results are not what it wrote."""
    record = read_record(folder)
    if record is None or not is_as_written(folder, record):
        return None
    return Run(folder, record, read_results(folder / "results.json"))


def is_as_written(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether nobody changed the results.json of a run since; `record` is that of the run."""
    path = folder / "results.json"
    return path.is_file() and sha256_of_file(path) == record["results_sha256"]


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run in `folder`, or None when there is no whole run."""
    recover_folder(folder)
    try:
        record = read_json(folder / "record.json")
    except (GenampError, OSError):
        return None
    return record if isinstance(record, dict) and record.keys() >= RECORD_FIELDS else None


def list_runs(root: Path) -> dict[str, Run]:
    """Return a user's own runs, by their folders as seen from _build/runs."""
    base = root / "_build" / "runs"
    found = (path.parent for path in sorted(base.glob("custom-*/*/*/record.json")))
    runs = {str(folder.relative_to(base)): read_run(folder) for folder in found}
    return {name: run for name, run in runs.items() if run}


def find_run(root: Path, name: str, *, own: bool = False) -> Run:
    """Return the run of this name below _build/runs; only a user's own if `own` is set."""
    known = list_runs(root)
    run = known.get(name) or (None if own else read_run(root / "_build" / "runs" / name))
    if run is None:
        raise GenampError(f"no run `{name}`; there is {', '.join(known) or 'none of your own'}")
    return run


def _to_json(result: Result) -> dict[str, Any]:
    # JSON has no infinity: it is written as a string, which float() reads back.
    edges = None if result.interval is None else [_number(x) for x in result.interval]
    return asdict(result) | {"value": _number(result.value), "interval": edges, "text": result.text}


def _from_json(entry: dict[str, Any]) -> Result:
    edges = None if entry["interval"] is None else tuple(map(float, entry["interval"]))
    numbers = {"value": float(entry["value"]), "interval": edges}
    return Result(**{key: value for key, value in entry.items() if key != "text"} | numbers)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
