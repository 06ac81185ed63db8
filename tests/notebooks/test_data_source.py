"""A reader replaces the shipped sample by the public one with one parameter: tried with the runner.

The real files are out of reach here: a folder of the test stands for the place where fetched files
are kept, with a small file in JetNet's layout in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests_support import edit

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.run import with_source
from genamp_lib.book.stale import fingerprint

CODE = """\
from genamp_lib.book.results import Results
from genamp_lib.datasets import load_jets
"""


def write_jets(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    particles = np.tile([0.1, 0.0, 0.5, 1.0], (n, 30, 1))
    with h5py.File(path, "w") as file:
        file["particle_features"] = particles
        file["jet_features"] = np.tile([1000.0, 0.1, 90.0, 30.0], (n, 1))


@pytest.fixture
def jets_project(tiny_project: Path) -> Path:
    """Return the tiny project with a chapter that counts jets of a shipped sample of three."""
    notebook = tiny_project / "notebooks/01_tiny.md"
    edit(notebook, "samples: []", "samples: [jets_gluon]")
    edit(notebook, "from genamp_lib.book.results import Results\n", CODE)
    edit(notebook, "upper: float", 'source: str = "shipped"  # or public, or a file\nupper: float')
    edit(
        notebook,
        'results.add("answer", n_train * upper, meaning="a product")',
        'jets = load_jets("jets_gluon", source=source)\nprint("Read from", jets.source)\n'
        'results.add("answer", len(jets), meaning="number of jets")',
    )
    path = tiny_project / "data/samples/jets_gluon.h5"
    write_jets(path, 3)
    entry = {"file": "data/samples/jets_gluon.h5", "sha256": sha256_of_file(path), "rows": 3}
    entry |= {"bytes": path.stat().st_size, "units": "GeV", "description": "Three jets."}
    entry |= {"licence": "CC0-1.0", "command": "genamp data simulate jets"}
    registry = {"samples": {"jets_gluon": entry}}
    (tiny_project / "data/registry.json").write_text(json.dumps(registry))
    return tiny_project


def test_one_parameter_replaces_the_sample_and_the_page_says_so(
    jets_project: Path, genamp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GENAMP_DATA", str(tmp_path / "public"))
    monkeypatch.setenv("GENAMP_MIRROR", "http://127.0.0.1:9")  # nobody answers
    refused = genamp(jets_project, "run", "01_tiny", "-p", "source", "public")
    assert refused.returncode == 2
    assert "cannot be reached" in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
    assert not (jets_project / "_build/runs").exists()

    public = tmp_path / "public/jetnet/g.hdf5"
    write_jets(public, 5)
    run = genamp(jets_project, "run", "01_tiny", "-p", "source", "public")
    assert run.returncode == 0, run.stderr
    folder = jets_project / "_build/runs/custom-default/01_tiny/source-public"
    assert json.loads((folder / "results.json").read_text())["results"]["answer"]["value"] == 5
    page = (folder / "site/chapters/01_tiny.html").read_text()
    assert "Read from the public file jetnet/g.hdf5 (doi:10.5281/zenodo.6975118)" in page
    assert f"jetnet/g.hdf5 sha256 {sha256_of_file(public)[:12]}" in page
    assert "source = public" in page
    assert "not the published ones" in page


def test_a_path_is_meant_as_the_user_sees_it(
    jets_project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_jets(tmp_path / "elsewhere/own.h5", 7)
    chapter = load_chapters(jets_project)["01_tiny"]
    monkeypatch.chdir(jets_project / "notebooks")  # the user's folder; chapters run in another
    given = chapter.resolve({"source": "../../elsewhere/own.h5"})
    prepared = with_source(chapter, given)
    assert prepared == {**given, "source": str(tmp_path / "elsewhere/own.h5")}
    checksum = sha256_of_file(tmp_path / "elsewhere/own.h5")
    assert fingerprint(chapter, prepared)["samples"] == {"own.h5": checksum}
    missing = with_source(chapter, chapter.resolve({"source": "own.h5"}))
    with pytest.raises(GenampError, match=r"must be shipped, public or a file, got own\.h5: not"):
        fingerprint(chapter, missing)
    assert with_source(chapter, chapter.resolve({})) == chapter.resolve({})
