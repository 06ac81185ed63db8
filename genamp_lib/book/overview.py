"""What the whole book found: its estimates beside the truth, its chapters, its share of figures.

Every number comes from the chapters' results.json; lists in `book` say only which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from genamp_lib._project import GenampError
from genamp_lib.book.catalog import Chapter, choices
from genamp_lib.book.results import Result, Run
from genamp_lib.book.scoreboard import Row, load_entries


class Cases(BaseModel):
    """Estimates of one kind beside the truth, as in book/amplification.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str
    estimator: str
    chapter: str
    estimated: str
    truth: str
    of: dict[str, list[str]] = {}


@dataclass(frozen=True)
class Pair:
    """One point of the front page's picture."""

    cases: Cases
    estimated: Result
    truth: Result


def pairs(root: Path, runs: Mapping[str, Run]) -> list[Pair]:
    """Return an estimate and the truth of every case of the book whose chapter has been run.

    Raises:
        GenampError: A chapter that ran with its own parameters lacks a result.
    """
    found = []
    for cases in load_entries(root / "book" / "amplification.yml", Cases):
        run = runs.get(cases.chapter)
        for values in product(*cases.of.values()) if run else ():
            names = dict(zip(cases.of, values, strict=True))
            both = [name.format(**names) for name in (cases.estimated, cases.truth)]
            missing = [name for name in both if name not in run.results]
            if not missing:
                found.append(Pair(cases, *(run.results[name] for name in both)))
            elif not run.record.get("changed"):
                raise GenampError(
                    f"amplification.yml: needs a result `{missing[0]}` of {cases.chapter}; "
                    f"{choices(missing[0], run.results)}"
                )
    return found


def draw_pairs(path: Path, found: Sequence[Pair]) -> None:
    """Draw estimated over true amplification factors into an SVG file."""
    import matplotlib
    import matplotlib.pyplot as plt

    from genamp_lib.plotting import plot_estimated_over_true, use_style

    columns = [[(r.value, *_edges(r)) for r in (p.truth, p.estimated)] for p in found]
    with matplotlib.rc_context():
        use_style()
        figure, ax = plt.subplots(figsize=(5.8, 5.0))
        plot_estimated_over_true(
            [true for true, _ in columns],
            [estimated for _, estimated in columns],
            estimators=[pair.cases.estimator for pair in found],
            cases=[pair.cases.case for pair in found],
            ax=ax,
        )
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper: the places that compute its parts, and in words what is missing."""

    paper: str
    number: int
    places: tuple[str, ...]  # chapter/label
    missing: tuple[str, ...]


def paper_figures(root: Path, chapters: Mapping[str, Chapter]) -> list[PaperFigure]:
    """Read book/paper_figures.yml; every label must be that of a figure of its chapter."""
    path = root / "book" / "paper_figures.yml"
    found = []
    for paper, figures in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
        for number, parts in figures.items():
            places = tuple(part for part in parts if "/" in part)
            for chapter, label in (place.split("/") for place in places):
                known = chapters[chapter].figures if chapter in chapters else ()
                if label not in known:
                    raise GenampError(
                        f"{path.name}: {paper}, Fig. {number}: `{label}` must be a figure of "
                        f"`{chapter}`; {choices(label, known)}"
                    )
            missing = tuple(part for part in parts if "/" not in part)
            found.append(PaperFigure(paper, number, places, missing))
    return found


def cards(chapters: Mapping[str, Chapter], runs: Mapping[str, Run]) -> list[str]:
    """Return the chapters as cards with number, title and finding, and the other pages as a list.

    The lines are MyST.
    """
    numbered = {name: one for name, one in chapters.items() if name[:2].isdigit()}
    lines = ["::::{grid} 1 2 2 2", ":gutter: 2", ""]
    for name, chapter in numbered.items():
        finding = re.sub(r"(\{result\}`)(?=\w+`)", rf"\g<1>{name}/", chapter.finding)
        run = runs.get(name)
        lines += [
            f":::{{grid-item-card}} {{doc}}`{int(name[:2])} {chapter.title} </chapters/{name}>`",
            *(finding or chapter.summary).splitlines(),
            "",
            f"Made in {run.record['wall_seconds']:.0f} s." if run else "Not run.",
            ":::",
        ]
    lines += ["::::", ""]
    others = (chapter for name, chapter in chapters.items() if name not in numbered)
    return lines + [f"- {{doc}}`{c.title} </chapters/{c.name}>`: {c.summary}" for c in others]


@dataclass(frozen=True)
class Dot:
    """One row of the scoreboard's dot plot; places along its logarithmic axis in per cent."""

    row: Row
    ratio: str
    place: float
    low: float
    high: float
    paper: tuple[float, float]


def dots(rows: Iterable[Row]) -> dict[str, Any]:
    """Return where ours over the paper's number lies, for every row with a positive number.

    Returns:
        `chapters`, the dots of each chapter by its name, and `ticks`, places of the axis by name.
    """
    chosen = []
    for row in rows:
        edges = row.paper.edges
        number = row.paper.value if row.paper.value is not None else sum(edges) / 2
        is_number = row.paper.value is not None or row.paper.source == "printed"
        if row.ours is not None and is_number and number > 0:
            ours = [x / number for x in (row.ours.value, *_edges(row.ours))]
            chosen.append((row, ours, [x / number for x in edges]))
    ratios = [ours[0] for _, ours, _ in chosen if 0 < ours[0] < math.inf]
    first = math.floor(math.log10(min(ratios, default=1.0)))
    last = max(math.ceil(math.log10(max(ratios, default=1.0))), first + 1)

    def place(ratio: float) -> float:
        power = math.log10(ratio) if 0 < ratio < math.inf else math.copysign(math.inf, ratio - 1)
        return round(100 * (min(max(power, first), last) - first) / (last - first), 2)

    chapters: dict[str, list[Dot]] = {}
    for row, ours, paper in chosen:
        ratio = "∞" if math.isinf(ours[0]) else f"{ours[0]:.3g}"
        edges = tuple(place(edge) for edge in paper)
        dot = Dot(row, ratio, *(place(x) for x in ours), edges)
        chapters.setdefault(row.paper.chapter, []).append(dot)
    ticks = {f"{10.0**power:g}": place(10.0**power) for power in range(first, last + 1)}
    return {"chapters": chapters, "ticks": ticks}


def _edges(result: Result) -> tuple[float, float]:
    return result.interval or (result.value, result.value)
