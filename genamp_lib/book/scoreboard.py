"""Set every number of the papers beside ours and compute a verdict. Draws no page and no figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genamp_lib._project import GenampError, replace_file
from genamp_lib.book.catalog import Chapter, choices
from genamp_lib.book.results import Result, Run

# Of numbers; of statements in words; of either.
Verdict = Literal[
    "agrees", "differs", "holds", "does not hold", "inconclusive", "not comparable", "not run"
]
Number = Annotated[float, Field(allow_inf_nan=False)]
Entry = TypeVar("Entry", bound=BaseModel)

README_MARKS = {
    name: (
        f"<!-- {name}: begin (written by `genamp scoreboard --readme`) -->",
        f"<!-- {name}: end -->",
    )
    for name in ("chapters", "scoreboard")
}


class PaperNumber(BaseModel):
    """One number of a paper, as in book/paper_numbers.yml; the header there explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    chapter: str
    result: str
    paper: Literal["A", "B"]
    where: str
    quantity: str
    value: Number | None = None
    range: tuple[Number, Number] | None = None
    source: Literal["printed", "read off a figure", "stated in words"]
    words: str = ""
    tolerance: Number = 0.0
    unit: str = ""
    agreement: str
    differs: str = ""
    not_comparable: str = ""
    headline: bool = False

    @model_validator(mode="after")
    def _one_number(self) -> PaperNumber:
        if (self.value is None) == (self.range is None):
            raise ValueError("needs either `value` or `range`")
        if (self.source == "stated in words") != bool(self.words):
            raise ValueError("needs `words` if `source` is stated in words, and only then")
        return self

    @property
    def edges(self) -> tuple[float, float]:
        """What the paper's number can mean: (low, high)."""
        if self.range is not None:
            return self.range
        return self.value - self.tolerance, self.value + self.tolerance

    @property
    def text(self) -> str:
        """The number or the words, as the paper gives them."""
        if self.words:
            return f"\u201c{self.words}\u201d"
        unit = f" {self.unit}" if self.unit else ""
        if self.range is not None:
            return f"{self.range[0]:g} to {self.range[1]:g}{unit}"
        return f"{self.value:g}{unit}"


@dataclass(frozen=True)
class Row:
    """A paper's number, ours (None when the chapter has not been run), and what follows."""

    paper: PaperNumber
    verdict: Verdict
    reason: str
    ours: Result | None = None
    preset: str = ""

    @property
    def command(self) -> str:
        """The command that computes our number from scratch."""
        preset = f" --preset {self.preset}" if self.preset not in ("", "default") else ""
        return f"genamp run {self.paper.chapter} --fresh{preset}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for `genamp scoreboard --json`."""
        ours = None if self.ours is None else {"name": self.ours.name, "text": self.ours.text}
        return {
            "id": self.paper.id,
            "quantity": self.paper.quantity,
            "paper": self.paper.text,
            "where": f"{self.paper.paper}, {self.paper.where}",
            "ours": ours,
            "preset": self.preset,
            "verdict": self.verdict,
            "reason": self.reason,
            "command": self.command,
        }


def load_paper_numbers(root: Path) -> list[PaperNumber]:
    """Read book/paper_numbers.yml."""
    path = root / "book" / "paper_numbers.yml"
    numbers = load_entries(path, PaperNumber)
    for name, count in Counter(number.id for number in numbers).items():
        if count > 1:
            raise GenampError(f"{path.name}: `id` must be unique, got {name!r} more than once")
    return numbers


def load_entries(path: Path, model: type[Entry]) -> list[Entry]:
    """Read a YAML list as models; the first wrong entry is named."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise GenampError(f"{path.name}: must be YAML, got {problem}") from error
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(model.model_validate(entry))
        except ValidationError as error:
            name = entry.get("id", number) if isinstance(entry, dict) else entry
            first = error.errors()[0]
            what = ".".join(map(str, first["loc"]))
            raise GenampError(f"{path.name}: entry {name!r}: {what} {first['msg']}") from error
    return found


def verdict(paper: PaperNumber, ours: Result) -> tuple[Verdict, str]:
    """Compare a paper's number with ours.

    Our interval is the 95.45 % one, taken as the 68.27 % interval with both half-widths doubled; of
    an infinite number, those of its inverse. A number agrees if what it can mean overlaps our
    interval, unless that reaches from below a third to above three times of it, which says nothing.
    A statement holds if our interval lies where it is true.
    """
    if paper.not_comparable:
        return "not comparable", paper.not_comparable
    low, high = ours.interval or (ours.value, ours.value)
    if math.isinf(ours.value):
        low = low / 2  # the interval of 1/value, which starts at 0, with its width doubled
    else:
        low, high = ours.value - 2 * (ours.value - low), ours.value + 2 * (high - ours.value)
    first, last = paper.edges
    if low > last or high < first:
        outcome = "does not hold" if paper.words else "differs"
        return outcome, paper.differs or "no reason recorded"
    if paper.words:
        holds = first <= low and high <= last
        return ("holds", paper.agreement) if holds else ("inconclusive", _SAYS_NEITHER)
    if low < first / 3 and high > 3 * last:
        return "inconclusive", _SAYS_NOTHING
    return "agrees", paper.agreement


_SAYS_NEITHER = "our interval lies on both sides of where the statement begins to be true"
_SAYS_NOTHING = "our interval is so wide that it says nothing"


def compare(numbers: Iterable[PaperNumber], runs: Mapping[str, Run]) -> list[Row]:
    """Compare all papers' numbers with ours; chapters that have not been run are not in `runs`."""
    return [_compare(number, runs.get(number.chapter)) for number in numbers]


def _compare(number: PaperNumber, run: Run | None) -> Row:
    if run is None:
        return Row(number, "not run", "run its chapter")
    changed = bool(run.record.get("changed"))
    if number.result not in run.results and changed:
        return Row(number, "not comparable", "not computed with these parameters")
    if number.result not in run.results:
        raise GenampError(
            f"paper_numbers.yml: `{number.id}` needs a result `{number.result}` of "
            f"{number.chapter}; {choices(number.result, run.results)}"
        )
    ours = run.results[number.result]
    outcome, reason = verdict(number, ours)
    if changed:
        outcome, reason = "not comparable", "rerun with other parameters"
    return Row(number, outcome, reason, ours, run.record["preset"])


def tally(rows: Iterable[Row]) -> dict[str, int]:
    """Return how often each verdict stands in the rows, in the order of `Verdict`."""
    counts = Counter(row.verdict for row in rows)
    return {name: counts[name] for name in get_args(Verdict) if counts[name]}


def update_readme(path: Path, rows: Sequence[Row], chapters: Iterable[Chapter]) -> bool:
    """Write chapters and headline numbers between a README's marks; return if it changed."""
    missing = [row.paper.id for row in rows if row.paper.headline and row.ours is None]
    if missing:
        raise GenampError(f"`{missing[0]}` has not been run; run `genamp build` first")
    numbers = ["| Quantity | Paper | Ours | Verdict |", "|---|---|---|---|"]
    for row in rows:
        if row.paper.headline:
            where = f"{row.paper.text} ({row.paper.paper}, {row.paper.where})"
            numbers.append(f"| {row.paper.quantity} | {where} | {row.ours.text} | {row.verdict} |")
    pages = ["| | Chapter | What it does |", "|---|---|---|"]
    for chapter in chapters:
        if chapter.name[:2].isdigit():
            link = f"[{chapter.title}](notebooks/{chapter.path.name})"
            pages.append(f"| {chapter.name[:2]} | {link} | {chapter.summary} |")
    old = new = path.read_text(encoding="utf-8")
    for name, lines in (("chapters", pages), ("scoreboard", numbers)):
        begin, end = README_MARKS[name]
        before, mark, rest = new.partition(begin)
        _, other_mark, after = rest.partition(end)
        if not (mark and other_mark):
            raise GenampError(f"{path.name}: must hold the lines {begin} and {end}")
        new = "\n".join([before + begin, *lines, end + after])
    if new != old:
        with replace_file(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return new != old
