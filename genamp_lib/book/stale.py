"""What a chapter's numbers depend on, and what of it has changed since the last run.

Prose is not part of it: editing a sentence never reruns anything. Of the library the modules count
that the code cells reach: the closure of their imports, those inside functions included. A name
imported from a package counts as the module that defines it, so that the package's other modules do
not; a string that starts with "genamp " is a command, whose module of `cli` counts.
"""

from __future__ import annotations

import ast
import platform
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from genamp_lib._project import extras, sha256_of_file, sha256_of_text
from genamp_lib.book.catalog import Chapter
from genamp_lib.datasets import sample_path
from genamp_lib.datasets.public import public_counterpart, public_path
from genamp_lib.datasets.sources import own_file

PACKAGE = "genamp_lib"
ROOT = Path(__file__).resolve().parents[1]


def library_files(code: str) -> set[str]:
    """Return the library's files that `code` depends on, relative to the package's folder.

    >>> files = library_files("from genamp_lib import averaging_amplification")
    >>> "amplification/averaging.py" in files, "amplification/differential.py" in files
    (True, False)
    """
    todo, found = set(_modules(ast.parse(code))), set()
    while todo:
        path = _file(todo.pop())
        if path is not None and path not in found:
            found.add(path)
            todo |= _imports_of(path)
    return found


@lru_cache(maxsize=256)
def _imports_of(path: str) -> frozenset[str]:
    if path.endswith("__init__.py") and path != "__init__.py":
        # What a package imports for others to find counts where they ask for it by name.
        return frozenset()
    return frozenset(_modules(_tree(path)))


@lru_cache(maxsize=256)
def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _modules(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that a source imports or takes names from, ours and others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield from _defining(node.module, alias.name)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("genamp "):
            words = str(node.value).split()
            yield from (f"{PACKAGE}.cli.{word}" for word in words if word.isidentifier())


def _defining(module: str, name: str) -> Iterator[str]:
    """Yield where `from module import name` finds the name, through packages that pass it on."""
    if _file(f"{module}.{name}"):
        yield f"{module}.{name}"
        return
    path = _file(module) or ""
    passed_on = _passed_on(path) if path.endswith("__init__.py") else {}
    if name in passed_on:
        yield from _defining(passed_on[name], name)
    else:
        yield from (module, *(passed_on.values() if name == "*" else ()))


@lru_cache(maxsize=64)
def _passed_on(path: str) -> dict[str, str]:
    """Return name -> module for what a package's __init__ imports, or lists to load lazily."""
    found = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PUBLIC":
            found |= ast.literal_eval(node.value)
    return found


def _file(module: str) -> str | None:
    package, *parts = module.split(".")
    names = ("/".join([*parts, "__init__.py"]), "/".join(parts) + ".py")
    return next((n for n in names if package == PACKAGE and (ROOT / n).is_file()), None)


def fingerprint(chapter: Chapter, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that can change a chapter's numbers, as plain JSON types that can be compared.

    Checksums of the code, of library modules and of samples, the parameters, and versions.
    """
    modules = library_files(chapter.code)
    texts = {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in modules}
    # A page that a module fills counts as the module does.
    pages = {
        page for path in texts for page in path.parent.glob("*.html") if page.name in texts[path]
    }
    files = sorted([*modules, *(str(page.relative_to(ROOT)) for page in pages)])
    return {
        "code": sha256_of_text(chapter.code),
        "parameters": dict(parameters),
        "library": {name: sha256_of_file(ROOT / name)[:16] for name in files},
        "samples": _sample_checksums(chapter, parameters),
        "versions": installed_versions(),
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in plain words what differs between two fingerprints, one phrase per kind of change."""
    reasons = [] if old.get("code") == new["code"] else ["its code cells changed"]
    for field, label in (
        ("parameters", "parameter"),
        ("library", "library"),
        ("samples", "sample"),
        ("versions", "version of"),
    ):
        before, after = old.get(field, {}), new[field]
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        if names:
            first = names[0]
            if field in ("parameters", "versions"):
                first += f": {before.get(first)} -> {after.get(first)}"
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            reasons.append(f"{label} {first}{more}")
    return reasons


@lru_cache(maxsize=1)
def installed_versions() -> dict[str, str]:
    """Return the installed versions of what the chapters need, and Python's."""
    required = extras()[""] + extras().get("book", [])
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in required]
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in sorted(names)}}


def _sample_checksums(chapter: Chapter, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of what the chapter reads: its samples, or what its parameter `source` says."""
    source = parameters.get("source", "shipped")
    if source == "shipped" or not chapter.samples:
        paths = {name: sample_path(name) for name in chapter.samples}
    elif source == "public":
        names = [public_counterpart(name).name for name in chapter.samples]
        paths = {name: public_path(name) for name in names}
    else:
        paths = {path.name: path for path in (own_file(name, source) for name in chapter.samples)}
    states = {name: path.stat() for name, path in paths.items()}
    return {n: _checksum(paths[n], s.st_mtime_ns, s.st_size) for n, s in states.items()}


@lru_cache(maxsize=64)
def _checksum(path: Path, mtime_ns: int, size: int) -> str:
    return sha256_of_file(path)
