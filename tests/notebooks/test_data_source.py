"""A reader replaces the shipped sample by the public one with one parameter: tried with the runner.

The real files are out of reach here: a folder of the test stands for the place where fetched files
are kept, with a small file in JetNet's layout in it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests_support import ROOT, edit

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.book.catalog import load_chapters
from genamp_lib.book.run import open_book, plan_run, with_source
from genamp_lib.book.stale import fingerprint
from genamp_lib.datasets import sample_path
from genamp_lib.datasets.own import check_own

CODE = """\
from genamp_lib.book.results import Results
from genamp_lib.datasets import load_jets
"""


def write_jets(path: Path, n: int, name: str | None = None) -> None:
    """Write jets in JetNet's layout; a `name` says which they are, as in files of our own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    particles = np.tile([0.1, 0.0, 0.5, 1.0], (n, 30, 1))
    with h5py.File(path, "w") as file:
        file["particle_features"] = particles
        file["jet_features"] = np.tile([1000.0, 0.1, 90.0, 30.0], (n, 1))
        if name:
            file.attrs["provenance"] = json.dumps({"name": name})


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
    with pytest.raises(GenampError, match=r"own\.h5: not found; `source` must be shipped, public"):
        with_source(chapter, chapter.resolve({"source": "own.h5"}))
    assert with_source(chapter, chapter.resolve({})) == chapter.resolve({})


def test_other_files_are_other_folders(jets_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jets_project)
    book = open_book()

    def folder(source: str | Path) -> Path:
        return plan_run(book, book.find("1"), {"source": str(source)}).folder

    own = jets_project / "own.h5"
    write_jets(own, 1)
    first = folder("own.h5")
    assert folder(own) == first
    write_jets(own, 2)
    assert folder("own.h5") != first


SAMPLES = ["jets_gluon", "jets_gluon_r04", "jets_top_r04"]


def test_a_folder_holds_a_file_for_each_sample(jets_project: Path, genamp) -> None:
    edit(jets_project / "notebooks/01_tiny.md", "[jets_gluon]", f"[{', '.join(SAMPLES)}]")
    edit(
        jets_project / "notebooks/01_tiny.md",
        'results.add("answer", len(jets)',
        'top = load_jets("jets_top_r04", source=source)\n'
        'results.add("answer", 10 * len(jets) + len(top)',
    )
    own = jets_project / "own"
    names = ["jets_gluon.h5", "g.hdf5", "jets_top_r04.h5"]  # the second as JetNet calls it
    for n, name, sample in zip((4, 5, 6), names, SAMPLES, strict=True):
        write_jets(own / name, n, None if name == "g.hdf5" else sample)
    options = ("-p", "source", "own", "--no-page", "--json")
    done = genamp(jets_project, "run", "1", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["answer"]["value"] == 46
    write_jets(own / "jets_top_r04.h5", 9)
    assert '"value": 49.0' in genamp(jets_project, "run", "1", *options).stdout
    assert len(list((jets_project / "_build/runs/custom-default/01_tiny").glob("*/"))) == 2


@pytest.mark.parametrize(
    ("samples", "files", "source", "message"),
    [
        (
            ["jets_gluon"],
            {"own.h5": "jets_top_r04"},
            "own.h5",
            "must hold jets_gluon, got jets_top",
        ),
        (
            ["jets_gluon", "jets_gluon_r04"],
            {"own.h5": "jets_gluon"},
            "own.h5",
            "own.h5: must hold jets_gluon_r04, got jets_gluon",
        ),
        (
            SAMPLES,
            {"own.h5": None},
            "own.h5",
            "`source` must be a folder with jets_gluon.h5, jets_gluon_r04.h5, jets_top_r04.h5",
        ),
        (
            SAMPLES,
            {"own/jets_gluon.h5": None, "own/jets_gluon_r04.h5": None},
            "own",
            "own: must hold jets_top_r04.h5 or t.hdf5",
        ),
        (["showers_eplus"], {"own.h5": None}, "own.h5", "own.h5: must have the dataset"),
        (["z_jets_2j"], {"own.h5": None}, "own.h5", "own.h5: must have the dataset `momenta`"),
        (["top_pairs_4j"], {}, "own.h5", "own.h5: not found; `source` must be shipped, public"),
    ],
)
def test_files_of_other_samples_are_refused_before_the_run(
    jets_project: Path, genamp, samples: list, files: dict, source: str, message: str
) -> None:
    edit(jets_project / "notebooks/01_tiny.md", "[jets_gluon]", f"[{', '.join(samples)}]")
    for path, name in files.items():
        write_jets(jets_project / path, 2, name)
    done = genamp(jets_project, "run", "1", "-p", "source", source)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (jets_project / "_build/runs").exists()


DATASHEETS = ["data_showers", "data_z_jets", "data_top_pairs", "data_jets"]


@pytest.mark.parametrize("chapter", DATASHEETS)
def test_datasheets_name_the_versions_and_processes_of_their_files(chapter: str) -> None:
    page = load_chapters(ROOT)[chapter]
    text = page.path.read_text(encoding="utf-8")
    made = text[text.index("## How they are made") : text.index("## What they look like")]
    names = {"pythia8mc": "Pythia", "fastjet": "FastJet", "geant4-pybind": "geant4-pybind"}
    for sample in page.samples:
        record = sample_path(sample).with_suffix(".h5.json").read_text(encoding="utf-8")
        settings = json.loads(record)["provenance"]["settings"]
        said = re.findall(r"(?:Top|HardQCD|WeakBosonAndParton):(\w+) = on", record)
        said += settings.get("physics", [])
        said += [str(value) for key, value in settings.items() if key.startswith("chi2_")]
        for package in names.keys() & settings["versions"].keys():
            found = re.findall(rf"{names[package]} (\d[\d.]*\d)", made)
            assert found, package
            assert all(settings["versions"][package].startswith(one) for one in found), package
        assert said
        assert not [one for one in said if one not in text], sample


@pytest.mark.parametrize("chapter", DATASHEETS)
def test_the_shipped_files_are_what_the_datasheets_want(chapter: str, tmp_path: Path) -> None:
    samples = load_chapters(ROOT)[chapter].samples
    for sample in samples:
        (tmp_path / f"{sample}.h5").symlink_to(sample_path(sample))
    check_own(samples, tmp_path)
    first, last = (tmp_path / f"{sample}.h5" for sample in (samples[0], samples[-1]))
    first.unlink()
    first.symlink_to(last.resolve())  # another particle, radius or multiplicity
    with pytest.raises(GenampError, match=rf"{samples[0]}\.h5: must hold .* got "):
        check_own(samples, tmp_path)
