"""What chapters there are, which parameters they take, and which presets override them.

Reads the MyST notebooks as text; runs nothing. Wrong names and types end here, before any work.
"""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import yaml
from nbformat import NotebookNode
from pydantic import TypeAdapter, ValidationError

from genamp_lib._project import GenampError

# The types that a parameters cell may use; anything else could not come from a command line.
PARAMETER_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list[int]": list[int],
    "list[float]": list[float],
    "list[str]": list[str],
}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name: annotation = default  # help`."""

    name: str
    annotation: str
    default: Any
    help: str

    def parse(self, value: Any) -> Any:
        """Return `value` (a command-line text or a YAML value) as this parameter's type."""
        if isinstance(value, str) and self.annotation.startswith("list"):
            value = yaml.safe_load(value)
        try:
            return TypeAdapter(PARAMETER_TYPES[self.annotation]).validate_python(value)
        except ValidationError as error:
            raise GenampError(
                f"parameter `{self.name}` must be {self.annotation}, got {value!r}; "
                f"its default is {self.default!r}"
            ) from error


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

    def resolve(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters, defaults replaced by `overrides`."""
        for name in overrides:
            if name not in self.parameters:
                hint = choices(name, self.parameters)
                raise GenampError(f"unknown parameter `{name}` of chapter `{self.name}`; {hint}")
        return {
            name: parameter.parse(overrides[name]) if name in overrides else parameter.default
            for name, parameter in self.parameters.items()
        }


def choices(got: str, names: Iterable[str]) -> str:
    """Say which names are right, the nearest first."""
    names = list(names)
    near = difflib.get_close_matches(got, names, n=1)
    return (f"did you mean `{near[0]}`? " if near else "") + f"choose from {', '.join(names)}"


def load_chapters(root: Path) -> dict[str, Chapter]:
    """Read all notebooks of the project, in the order of their names: chapters, then datasheets."""
    patterns = ("[0-9][0-9]_*.md", "data_*.md")
    paths = [path for one in patterns for path in sorted((root / "notebooks").glob(one))]
    return {path.stem: read_chapter(path) for path in paths}


def find_chapter(chapters: Mapping[str, Chapter], name: str) -> Chapter:
    """Return the chapter with this name, or with this number ("01", "1")."""
    for chapter in chapters.values():
        if name == chapter.name or (name.isdigit() and name.zfill(2) == chapter.name[:2]):
            return chapter
    raise GenampError(f"unknown chapter `{name}`; {choices(name, chapters)}")


def read_chapter(path: Path) -> Chapter:
    """Read one MyST notebook with a title and a cell of typed parameters."""
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
            f"{path.name}: must have a title and one code cell tagged `parameters`, "
            f"got {len(titles)} titles and {len(tagged)} cells"
        )
    return Chapter(
        name=path.stem,
        path=path,
        title=titles[0],
        summary=about.get("summary", ""),
        samples=tuple(about.get("samples", [])),
        parameters=_read_parameters(tagged[0].source, path.name),
        notebook=notebook,
    )


def _read_parameters(source: str, where: str) -> dict[str, Parameter]:
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
                f"{where}: each line of the parameters cell must read `name: type = value` with a "
                f"type of {', '.join(PARAMETER_TYPES)}, got `{ast.unparse(statement)}`"
            )
        name = ast.unparse(statement.target)
        default = ast.literal_eval(statement.value) if statement.value else None
        line = comments.get(statement.end_lineno or statement.lineno, "")
        parameter = Parameter(name, annotation, default, line)
        if parameter.parse(default) != default:
            raise GenampError(f"{where}: default of `{name}` must be {annotation}, got {default!r}")
        parameters[name] = parameter
    return parameters


def load_preset(root: Path, name: str, chapters: Mapping[str, Chapter]) -> dict[str, dict]:
    """Return all parameters of every chapter under a preset; its own where the preset has none."""
    paths = {path.stem: path for path in sorted((root / "notebooks" / "presets").glob("*.yml"))}
    if name not in paths:
        raise GenampError(f"unknown preset `{name}`; {choices(name, paths)}")
    overrides = yaml.safe_load(paths[name].read_text(encoding="utf-8")) or {}
    try:
        for chapter in overrides:
            find_chapter(chapters, chapter)
        return {key: c.resolve(overrides.get(key) or {}) for key, c in chapters.items()}
    except GenampError as error:
        raise GenampError(f"preset {paths[name].name}: {error}") from error
