"""Which library files a chapter depends on: all that its code reaches, no others."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests_support import ROOT

from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.stale import fingerprint, library_files

CHAPTERS = load_chapters(ROOT)


def test_names_count_as_the_module_that_defines_them() -> None:
    lazily = library_files("from genamp_lib import KolmogorovAccumulator")
    assert "amplification/streaming.py" in lazily
    assert "amplification/_segments.py" in lazily  # imported by it
    assert "amplification/averaging.py" not in lazily
    assert library_files("from genamp_lib.amplification import KolmogorovAccumulator") == lazily
    assert library_files("import genamp_lib.amplification.streaming") == lazily
    assert library_files("from genamp_lib.amplification import streaming") == lazily


def test_imports_inside_functions_and_all_names_count() -> None:
    code = "def f():\n    from genamp_lib.datasets import load_jets\n    return load_jets"
    assert "datasets/jets.py" in library_files(code)
    everything = library_files("from genamp_lib.datasets import *")
    assert {"datasets/jets.py", "datasets/gaussian.py"} <= everything


def test_other_packages_do_not_count() -> None:
    assert library_files("import numpy as np\nfrom scipy import stats\nx = 'genamp'") == set()


def test_a_command_counts_as_its_code() -> None:
    files = library_files("command = 'genamp estimate averaging *.npy'")
    assert {"cli/estimate.py", "files/counting.py", "amplification/averaging.py"} <= files
    assert "cli/data.py" not in files


def test_a_page_counts_as_the_module_that_fills_it() -> None:
    first, second = (fingerprint(CHAPTERS[name], {})["library"] for name in list(CHAPTERS)[:2])
    assert "plotting/explorer.html" in first
    assert "plotting/explorer.html" not in second


def test_code_must_be_python() -> None:
    with pytest.raises(SyntaxError):
        library_files("genamp estimate (")


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)
def test_every_module_that_defines_a_used_object_is_found(chapter) -> None:
    """Against Python itself: import what the chapter imports, and ask each object where it is."""
    imports = "\n".join(
        line for cell in chapter.code.split("# cell") for line in _import_lines(cell)
    )
    script = (
        f"before = set(globals())\n{imports}\n"
        "import types\n"
        "for name, one in list(globals().items()):\n"
        "    where = one.__name__ if isinstance(one, types.ModuleType) "
        "else getattr(one, '__module__', '')\n"
        "    if str(where).startswith('genamp_lib.'):\n"
        "        print(where)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    files = library_files(chapter.code)
    used = set(done.stdout.split())
    assert used
    for module in used:
        path = "/".join(module.split(".")[1:])
        assert f"{path}.py" in files or f"{path}/__init__.py" in files, module
    assert "book/results.py" in files
    assert not any(name.startswith("simulation/") for name in files)


def _import_lines(cell: str) -> list[str]:
    import ast

    nodes = [n for n in ast.parse(cell).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes]
