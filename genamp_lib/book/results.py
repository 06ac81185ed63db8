"""The numbers of one chapter: collected in the notebook, written to results.json.

Notebooks import this of the layer, and what computes their own stages (ring_distances). Not for
comparing with the papers: scoreboard.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genamp_lib._project import GenampError, project_root, read_json, write_json

# How the runner tells a notebook what it is part of; a notebook opened by hand has none of them.
RUN_FOLDER_VARIABLE = "GENAMP_RUN_FOLDER"
PRESET_VARIABLE = "GENAMP_PRESET"


@dataclass(frozen=True)
class Result:
    """One number of a chapter.

    Attributes:
        name: Unique in the chapter, snake_case.
        value: The number; may be infinite.
        interval: (low, high), or None where the number is exact up to floating point.
        confidence: Confidence level of `interval`; None where there is none.
        unit: Unit symbol, empty for a pure number.
        meaning: What it is, one phrase.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    confidence: float | None
    unit: str
    meaning: str

    @property
    def text(self) -> str:
        """The number as a page prints it: two significant digits of its uncertainty.

        >>> Result("g", 71.234, (58.1, 88.34), 0.6827, "", "G").text
        '71 [58, 88]'
        >>> Result("i", 0.19146246, None, None, "", "I").text
        '0.19146'
        >>> Result("g", 16.1, (0.31, math.inf), 0.6827, "", "G").text
        '16 [0.31, ∞]'
        >>> Result("g", 0.45, (0.21, 470.0), 0.6827, "", "G").text
        '0.45 [0.21, 470]'
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
        numbers = [
            format_number(*pair) for pair in zip((self.value, low, high), scales, strict=True)
        ]
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]{unit}"


def format_number(number: float, scale: float | None) -> str:
    """Format a number with two significant digits of `scale`, or with five digits when it is None.

    >>> format_number(0.50734, 0.0021), format_number(math.inf, 1.0), format_number(123456.0, 900.0)
    ('0.5073', '∞', '123460')
    """
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if scale is None:
        return f"{number:.5g}"
    decimals = 1 - math.floor(math.log10(scale))
    rounded = round(number, decimals) + 0.0  # no "-0"
    return (
        f"{rounded:.{max(decimals, 0)}f}"
        if abs(rounded) >= 1e-4 or rounded == 0
        else f"{rounded:.2g}"
    )


class Results:
    """Collect the numbers of a chapter; `write` puts them into the run folder at once.

    Args:
        chapter: Name of the notebook without extension.
        seed: The seed that the chapter's random numbers follow from.

    >>> results = Results(chapter="01_gaussian_1d", seed=1)
    >>> results.add("half", 0.5, meaning="a half").text
    '0.5'
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
        *,
        meaning: str,
        interval: tuple[float, float] | None = None,
        confidence: float = 0.6827,
        unit: str = "",
    ) -> Result:
        """Add one number and return it.

        Args:
            name: Unique in the chapter, a Python identifier.
            value: The number; not NaN.
            meaning: What it is, one phrase.
            interval: (low, high) at `confidence`; None where the number is exact.
            confidence: Confidence level of `interval`.
            unit: Unit symbol.

        Raises:
            ValueError: The name is taken or no identifier, a number is NaN, or the interval is
                not ordered.
        """
        if not name.isidentifier() or name in self._results:
            raise ValueError(f"`name` must be a new identifier, got {name!r}.")
        value = float(value)
        edges = None if interval is None else (float(interval[0]), float(interval[1]))
        if math.isnan(value) or (edges is not None and not edges[0] <= edges[1]):
            raise ValueError(
                f"`{name}` must be a number with an ordered interval, got {value}, {edges}."
            )
        result = Result(name, value, edges, None if edges is None else confidence, unit, meaning)
        self._results[name] = result
        return result

    def write(self, *, artefacts: list[dict[str, str]] | None = None) -> None:
        """Write results.json into the run's folder.

        Args:
            artefacts: What `ArtefactStore.used` lists, for the chapter's provenance.
        """
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


def read_results(path: Path | str) -> dict[str, Result]:
    """Read a results.json as a mapping from name to `Result`."""
    content = read_json(path)
    try:
        return {name: _from_json(entry) for name, entry in content["results"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenampError(
            f"{path}: must be a chapter's results.json, got {error!r}; rerun the chapter"
        ) from error


def _to_json(result: Result) -> dict[str, Any]:
    # JSON has no infinity: it is written as a string, which float() reads back.
    entry = asdict(result)
    entry["value"] = _number(result.value)
    entry["interval"] = None if result.interval is None else [_number(x) for x in result.interval]
    entry["text"] = result.text
    return entry


def _from_json(entry: dict[str, Any]) -> Result:
    fields = {key: entry[key] for key in ("name", "confidence", "unit", "meaning")}
    interval = entry["interval"]
    edges = None if interval is None else (float(interval[0]), float(interval[1]))
    return Result(value=float(entry["value"]), interval=edges, **fields)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
