"""Set every number of the papers beside ours and compute a verdict. Draws no page and no figure."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genamp_lib._project import GenampError, replace_file
from genamp_lib.book.catalog import choices
from genamp_lib.book.results import Result

Verdict = Literal["agrees", "differs", "not comparable", "not run"]
Number = Annotated[float, Field(allow_inf_nan=False)]

README_BEGIN = "<!-- scoreboard: begin (written by `genamp scoreboard --readme`) -->"
README_END = "<!-- scoreboard: end -->"


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
        return self

    @property
    def edges(self) -> tuple[float, float]:
        """What the paper's number can mean: (low, high)."""
        if self.range is not None:
            return self.range
        return self.value - self.tolerance, self.value + self.tolerance

    @property
    def text(self) -> str:
        """The number as the paper gives it."""
        unit = f" {self.unit}" if self.unit else ""
        if self.range is not None:
            return f"{self.range[0]:g} to {self.range[1]:g}{unit}"
        return f"{self.value:g}{unit}"


@dataclass(frozen=True)
class Row:
    """A paper's number, ours (None when the chapter has not been run), and what follows."""

    paper: PaperNumber
    ours: Result | None
    preset: str
    verdict: Verdict
    reason: str

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
        }


def load_paper_numbers(root: Path) -> list[PaperNumber]:
    """Read book/paper_numbers.yml.

    Raises:
        GenampError: An entry does not keep the schema, or an id occurs twice.
    """
    path = root / "book" / "paper_numbers.yml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except yaml.YAMLError as error:
        raise GenampError(f"{path.name}: must be YAML, got {error}") from error
    numbers = []
    for entry in entries:
        try:
            numbers.append(PaperNumber.model_validate(entry))
        except ValidationError as error:
            name = entry.get("id") if isinstance(entry, dict) else entry
            first = error.errors()[0]
            what = ".".join(map(str, first["loc"]))
            raise GenampError(f"{path.name}: entry {name!r}: {what} {first['msg']}") from error
    ids = [number.id for number in numbers]
    for name in ids:
        if ids.count(name) > 1:
            raise GenampError(f"{path.name}: `id` must be unique, got {name!r} more than once")
    return numbers


def verdict(paper: PaperNumber, ours: Result) -> tuple[Verdict, str]:
    """Compare a paper's number with ours.

    Agreement means that what the paper's number can mean overlaps our 95.45 % interval, taken as
    our 68.27 % interval with both half-widths doubled; of an infinite number, those of its inverse.

    >>> paper = PaperNumber(id="x", chapter="c", result="r", paper="A", where="", quantity="",
    ...                     value=70, source="printed", tolerance=0.5, agreement="two digits")
    >>> verdict(paper, Result("r", 71.0, (70.6, 71.4), 0.6827, "", ""))[0]
    'agrees'
    >>> verdict(paper, Result("r", 71.0, None, None, "", ""))[0]
    'differs'
    """
    if paper.not_comparable:
        return "not comparable", paper.not_comparable
    low, high = ours.interval or (ours.value, ours.value)
    if math.isinf(ours.value):
        low = low / 2  # the interval of 1/value, which starts at 0, with its width doubled
    else:
        low, high = ours.value - 2 * (ours.value - low), ours.value + 2 * (high - ours.value)
    if low <= paper.edges[1] and high >= paper.edges[0]:
        return "agrees", paper.agreement
    return "differs", paper.differs or "no reason recorded"


def compare(
    numbers: Iterable[PaperNumber], results: Mapping[str, tuple[str, Mapping[str, Result]]]
) -> list[Row]:
    """Compare all papers' numbers with ours.

    Args:
        numbers: As from `load_paper_numbers`.
        results: Chapter -> (preset, its results); chapters that have not been run are left out.

    Raises:
        GenampError: A number refers to a result that its chapter does not write.
    """
    rows = []
    for number in numbers:
        preset, chapter_results = results.get(number.chapter, ("", None))
        if chapter_results is None:
            row = Row(
                paper=number, ours=None, preset="", verdict="not run", reason="run its chapter"
            )
        elif number.result not in chapter_results:
            hint = choices(number.result, chapter_results)
            raise GenampError(
                f"paper_numbers.yml: `{number.id}` needs a result `{number.result}` of "
                f"{number.chapter}; {hint}"
            )
        else:
            ours = chapter_results[number.result]
            outcome, reason = verdict(number, ours)
            row = Row(paper=number, ours=ours, preset=preset, verdict=outcome, reason=reason)
        rows.append(row)
    return rows


def result_span(chapter: str, result: Result) -> str:
    """Return the HTML of a number on a page; the site's tests hold it against results.json."""
    return (
        f'<span class="genamp-result" data-chapter="{chapter}" data-result="{result.name}" '
        f'title="{html.escape(result.meaning)}">{html.escape(result.text)}</span>'
    )


def table_html(rows: Iterable[Row], *, with_chapter: bool = False) -> str:
    """Return the rows as an HTML table for a page of the book, one line per row."""
    head = ["Quantity", "Paper", "Ours", "Verdict", "Why"]
    lines = ['<div class="genamp-table"><table class="table genamp-scoreboard"><thead><tr>']
    lines += [f'<th scope="col">{name}</th>' for name in head] + ["</tr></thead><tbody>"]
    for row in rows:
        paper = row.paper
        ours = "" if row.ours is None else result_span(paper.chapter, row.ours)
        quantity = html.escape(paper.quantity)
        if with_chapter:
            quantity = f'<a href="chapters/{paper.chapter}.html">{quantity}</a>'
        where = f"{paper.paper}, {html.escape(paper.where)}, {paper.source}"
        slug = row.verdict.replace(" ", "-")
        lines.append(
            f'<tr data-id="{paper.id}"><td>{quantity}</td>'
            f"<td>{html.escape(paper.text)}<br><small>{where}</small></td><td>{ours}</td>"
            f'<td><span class="genamp-verdict genamp-{slug}">{row.verdict}</span></td>'
            f"<td>{html.escape(row.reason)}</td></tr>"
        )
    return "\n".join([*lines, "</tbody></table></div>"])


def table_markdown(rows: Iterable[Row]) -> str:
    """Return the headline rows as a Markdown table, for the README."""
    lines = ["| Quantity | Paper | Ours | Verdict |", "|---|---|---|---|"]
    for row in rows:
        if row.paper.headline:
            ours = "" if row.ours is None else row.ours.text
            where = f"{row.paper.text} ({row.paper.paper}, {row.paper.where})"
            lines.append(f"| {row.paper.quantity} | {where} | {ours} | {row.verdict} |")
    return "\n".join(lines)


def update_readme(path: Path, rows: Iterable[Row]) -> bool:
    """Write the headline table between the markers of a README; return whether it changed.

    Raises:
        GenampError: The markers are missing.
    """
    text = path.read_text(encoding="utf-8")
    if README_BEGIN not in text or README_END not in text:
        raise GenampError(f"{path.name}: must hold the lines {README_BEGIN} and {README_END}")
    before, rest = text.split(README_BEGIN, 1)
    after = rest.split(README_END, 1)[1]
    new = f"{before}{README_BEGIN}\n{table_markdown(rows)}\n{README_END}{after}"
    if new != text:
        with replace_file(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return new != text
