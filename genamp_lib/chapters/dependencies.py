"""Which modules of the library a chapter's numbers can depend on. Reads sources; imports nothing.

The closure of the imports in its code cells, those inside functions included. A name imported from
a package counts as the module that defines it, so that a package's other modules do not. A string
that starts with "genamp " is a command, whose module of `cli` counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = "genamp_lib"
ROOT = Path(__file__).resolve().parents[1]


def library_files(code: str) -> set[str]:
    """Return the library's files that `code` depends on, relative to the package's folder.

    Args:
        code: Python source, for instance the code cells of a notebook.

    Raises:
        SyntaxError: The code is not Python.

    >>> files = library_files("from genamp_lib import averaging_amplification")
    >>> "amplification/averaging.py" in files, "amplification/differential.py" in files
    (True, False)
    """
    todo, found = set(_modules(ast.parse(code))), set()
    while todo:
        module = todo.pop()
        path = _file(module)
        if path is None or path in found:
            continue
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
    """Yield the modules of the library that a source imports or takes names from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_ours(node.module):
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
    path = _file(module)
    if path is None or not path.endswith("__init__.py"):
        yield module
        return
    passed_on = _passed_on(path)
    if name in passed_on:
        yield from _defining(passed_on[name], name)
    else:
        yield module
        if name == "*":
            yield from passed_on.values()


@lru_cache(maxsize=64)
def _passed_on(path: str) -> dict[str, str]:
    """Return name -> module for what a package's __init__ imports, or lists to load lazily."""
    found = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and not node.level and _is_ours(node.module):
            found |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PUBLIC":
            found |= ast.literal_eval(node.value)
    return found


def _is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == PACKAGE


def _file(module: str) -> str | None:
    parts = module.split(".")[1:]
    for candidate in ("/".join([*parts, "__init__.py"]), "/".join(parts) + ".py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None
