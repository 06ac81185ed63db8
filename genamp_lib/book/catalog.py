"""What chapters there are, which parameters they take, and which presets override them.

Reads the MyST notebooks as text; runs nothing. Wrong names, types and ranges end here, before any
work.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import yaml
from nbformat import NotebookNode
from pydantic import FiniteFloat, TypeAdapter

from genamp_lib._project import GenampError

# The types that a parameters cell may use; anything else could not come from a command line.
PARAMETER_TYPES: dict[str, Any] = {
    "int": int,
    "float": FiniteFloat,
    "str": str,
    "bool": bool,
    "list[int]": list[int],
    "list[float]": list[FiniteFloat],
    "list[str]": list[str],
}
# What a comment may end with: an interval as [0, 1), or the values that can be chosen, as {a, b}.
_RANGE = re.compile(r",? ?([\[(][^][()]*,[^][()]*[])]|\{[^{}]*\})$")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name: annotation = default  # help, range`.

    A range is an interval, whose edges are numbers or other parameters, or a set of values. Numbers
    are positive where the comment gives none. The items of a list are each in the range.
    """

    name: str
    annotation: str
    default: Any
    help: str
    range: str = ""

    @classmethod
    def commented(cls, name: str, annotation: str, default: Any, comment: str) -> Parameter:
        """Return a parameter with the range that its comment, or else its type, gives."""
        found = _RANGE.search(comment)
        numbers = "[1, inf)" if "int" in annotation else "(0, inf)" if "float" in annotation else ""
        allowed = found[1] if found else numbers
        return cls(name, annotation, default, _RANGE.sub("", comment), allowed)

    @property
    def _is_list(self) -> bool:
        return self.annotation.startswith("list")

    def parse(self, value: Any) -> Any:
        """Return `value` (a text of a command line or a preset, or a value) as this type."""
        typed = value
        if isinstance(value, str) and self._is_list:
            typed = [item.strip() for item in value.strip("[] ").split(",")]
        try:
            for text in typed if isinstance(typed, list) else [typed]:
                if "str" not in self.annotation and re.match(r"[+-]?0\d", str(text)):
                    raise ValueError("octal or decimal?")
            return TypeAdapter(PARAMETER_TYPES[self.annotation]).validate_python(typed)
        except ValueError as error:  # pydantic's own are some
            raise GenampError(self._refusal(self.annotation, value)) from error

    def check(self, value: Any, values: Mapping[str, Any]) -> None:
        """Refuse a typed value outside the range; `values` are those of all parameters."""
        items = value if self._is_list else [value]
        words = [word.strip() for word in self.range[1:-1].split(",")]
        if self.range.startswith("{"):
            is_good = all(str(item) in words for item in items)
        elif self.range:
            low, high = (values[edge] if edge in values else float(edge) for edge in words)
            is_good = all(low <= item <= high for item in items) and not (
                (low in items and self.range[0] == "(") or (high in items and self.range[-1] == ")")
            )
        else:
            is_good = True
        if not items or not is_good:
            edges = "".join(f", {word} = {values[word]}" for word in words if word in values)
            raise GenampError(self._refusal(f"in {self.range}{edges}", value))

    def _refusal(self, requirement: str, value: Any) -> str:
        default = f"its default is {shown(self.default)}"
        return f"parameter `{self.name}` must be {requirement}, got {value!r}; {default}"


@dataclass(frozen=True)
class Chapter:
    """One notebook: what it says of itself, and its cells."""

    name: str  # file name without extension, e.g. "01_gaussian_1d"
    path: Path  # the MyST text notebook
    title: str  # first heading
    summary: str  # from the front matter, as are the samples
    samples: tuple[str, ...]
    parameters: Mapping[str, Parameter]  # in the order of the cell
    notebook: NotebookNode  # without outputs

    @property
    def code(self) -> str:
        """All code cells as one text: what the numbers depend on, prose left out."""
        return "\n# cell\n".join(c.source for c in self.notebook.cells if c.cell_type == "code")

    @property
    def figures(self) -> set[str]:
        """Labels of the figures."""
        of_cells = (
            cell.metadata.get("mystnb", {}).get("figure", {}) for cell in self.notebook.cells
        )
        return {figure["name"] for figure in of_cells if "name" in figure}

    @property
    def finding(self) -> str:
        """The first finding of the opening list, in MyST; empty where the page has none."""
        prose = "\n\n".join(c.source for c in self.notebook.cells if c.cell_type == "markdown")
        found = re.search(r"^- (\*\*.*?)(?=\n- |\n\n|\Z)", prose, re.DOTALL | re.MULTILINE)
        return found[1] if found else ""

    def resolve(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters, defaults replaced by `overrides`; all are in their ranges."""
        for name in overrides:
            if name not in self.parameters:
                hint = choices(name, self.parameters)
                raise GenampError(f"unknown parameter `{name}` of chapter `{self.name}`; {hint}")
        values = {
            name: parameter.parse(overrides[name]) if name in overrides else parameter.default
            for name, parameter in self.parameters.items()
        }
        for name, parameter in self.parameters.items():
            parameter.check(values[name], values)
        return values


def shown(value: Any) -> str:
    """Return a parameter's value as it would be typed at the command line."""
    return ",".join(map(str, value if isinstance(value, list) else [value]))


def choices(got: str, names: Iterable[str]) -> str:
    """Say which names are right, the nearest first."""
    names = list(names)
    near = difflib.get_close_matches(got, names, n=1)
    return (f"did you mean `{near[0]}`? " if near else "") + f"choose from {', '.join(names)}"


def load_chapters(root: Path, problems: dict[str, str] | None = None) -> dict[str, Chapter]:
    """Read all notebooks of the project, in the order of their names: chapters, then datasheets.

    A broken notebook is an error; if `problems` is given, it is left out and noted there by name.
    """
    patterns = ("[0-9][0-9]_*.md", "data_*.md")
    chapters = {}
    for path in [path for one in patterns for path in sorted((root / "notebooks").glob(one))]:
        try:
            chapters[path.stem] = read_chapter(path)
        except GenampError as error:
            if problems is None:
                raise
            problems[path.stem] = str(error)
    return chapters


def find_chapter(chapters: Mapping[str, Chapter], name: str) -> Chapter:
    """Return the chapter with this name, or with this number ("01", "1")."""
    for chapter in chapters.values():
        if name == chapter.name or (name.isdigit() and name.zfill(2) == chapter.name[:2]):
            return chapter
    raise GenampError(f"unknown chapter `{name}`; {choices(name, chapters)}")


def read_chapter(path: Path) -> Chapter:
    """Read one MyST notebook with a title and a cell of typed parameters."""
    try:
        chapter = _read_chapter(path)
        chapter.resolve({})
    except Exception as error:  # of YAML, of Python: whatever a notebook can have wrong
        raise GenampError(f"{path.name}: {' '.join(str(error).split())}; mend it") from error
    return chapter


def _read_chapter(path: Path) -> Chapter:
    notebook = jupytext.read(path)
    about = notebook.metadata.get("genamp", {})
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    lines = [line for source in prose for line in source.splitlines()]
    titles = [line.removeprefix("# ").strip() for line in lines if line.startswith("# ")]
    tagged = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if not titles or len(tagged) != 1:
        raise GenampError(
            "must have a title and one code cell tagged `parameters`, "
            f"got {len(titles)} titles and {len(tagged)} cells"
        )
    return Chapter(
        name=path.stem,
        path=path,
        title=titles[0],
        summary=about.get("summary", ""),
        samples=tuple(about.get("samples", [])),
        parameters=_read_parameters(tagged[0].source),
        notebook=notebook,
    )


def _read_parameters(source: str) -> dict[str, Parameter]:
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters = {}
    for statement in ast.parse(source).body:
        annotation = ast.unparse(getattr(statement, "annotation", None) or ast.Constant(None))
        if not isinstance(statement, ast.AnnAssign) or annotation not in PARAMETER_TYPES:
            raise GenampError(
                "each line of the parameters cell must read `name: type = value` with a "
                f"type of {', '.join(PARAMETER_TYPES)}, got `{ast.unparse(statement)}`"
            )
        name = ast.unparse(statement.target)
        default = ast.literal_eval(statement.value) if statement.value else None
        line = comments.get(statement.end_lineno or statement.lineno, "")
        parameter = Parameter.commented(name, annotation, default, line)
        if parameter.parse(default) != default:
            raise GenampError(f"default of `{name}` must be {annotation}, got {default!r}")
        parameters[name] = parameter
    return parameters


def load_preset(
    root: Path, name: str, chapters: Mapping[str, Chapter], broken: Iterable[str] = ()
) -> dict[str, dict]:
    """Return all parameters of every chapter under a preset; its own where the preset has none."""
    paths = {path.stem: path for path in sorted((root / "notebooks" / "presets").glob("*.yml"))}
    if name not in paths:
        raise GenampError(f"unknown preset `{name}`; {choices(name, paths)}")
    try:
        # Texts, which the notebook's types read: YAML would take 010 for 8 and 1:30 for 90.
        overrides = yaml.load(paths[name].read_text(encoding="utf-8"), yaml.BaseLoader) or {}
        sections = {key: value or {} for key, value in dict(overrides).items()}
        if not all(isinstance(section, dict) for section in sections.values()):
            raise GenampError("must hold one `parameter: value` a line below each chapter")
        for chapter in sections.keys() - set(broken):
            find_chapter(chapters, chapter)
        return {key: c.resolve(sections.get(key, {})) for key, c in chapters.items()}
    except (GenampError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise GenampError(f"preset {paths[name].name}: {problem}") from error
