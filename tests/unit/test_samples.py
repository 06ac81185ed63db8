"""The registry of shipped samples: what is there, what is damaged, what is unknown."""

import json

import pytest

from genamp_lib import datasets
from genamp_lib._project import GenampError, project_root, sha256_of_text
from genamp_lib.datasets.sources import find_sample, verify_sample


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one sample, the working folder in it."""
    for folder in ("book", "notebooks", "data/samples"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/samples/toy.h5").write_text("events")
    entry = {
        "file": "data/samples/toy.h5",
        "sha256": sha256_of_text("events"),
        "bytes": 6,
        "rows": 3,
        "units": "GeV",
        "description": "A toy.",
        "licence": "CC0-1.0",
        "command": "genamp data simulate toy",
    }
    registry = {"samples": {"toy": entry, "jets_other": {**entry, "file": "data/samples/no.h5"}}}
    (tmp_path / "data/registry.json").write_text(json.dumps(registry))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_samples_are_listed_with_their_state(project):
    samples = datasets.list_samples()
    assert [(s.name, s.state) for s in samples] == [("jets_other", "missing"), ("toy", "present")]
    assert samples[1].path == project / "data/samples/toy.h5"
    (project / "data/samples/toy.h5").write_text("event")
    assert datasets.list_samples()[1].state == "damaged"


def test_path_and_checksum(project):
    assert datasets.sample_path("toy") == project / "data/samples/toy.h5"
    assert verify_sample("toy") == project / "data/samples/toy.h5"
    assert datasets.sample_checksum("toy") == sha256_of_text("events")


def test_unknown_name_names_the_right_ones(project):
    with pytest.raises(
        GenampError, match=r"`jets_othr`: unknown; did you mean `jets_other`\? known samples: "
    ):
        datasets.sample_path("jets_othr")
    with pytest.raises(GenampError, match="`zzz`: unknown; known samples: jets_other, toy"):
        datasets.sample_checksum("zzz")


def test_missing_file_says_how_to_make_it(project):
    with pytest.raises(GenampError, match=r"no\.h5 not found; run `genamp data simulate toy`"):
        datasets.sample_path("jets_other")


def test_changed_file_of_the_same_size_is_damaged(project):
    (project / "data/samples/toy.h5").write_text("stneve")
    assert find_sample("toy").state == "present"
    with pytest.raises(GenampError, match=r"`toy`: damaged, .*must have SHA-256 .*got .*; remove"):
        verify_sample("toy")


def test_registry_that_is_missing_or_not_one(project):
    registry = project / "data/registry.json"
    for content in ("[]", "{}", '{"samples": {"toy": {"file": "x"}}}'):
        registry.write_text(content)
        with pytest.raises(GenampError, match=r"registry\.json: must hold"):
            datasets.list_samples()
    registry.unlink()
    with pytest.raises(GenampError, match=r"registry\.json: not found"):
        datasets.list_samples()


def test_every_shipped_sample_is_the_one_in_the_registry():
    samples = datasets.list_samples()
    assert samples
    for sample in samples:
        verify_sample(sample.name)
        assert sample.path.stat().st_size == sample.bytes < 15e6
        assert sample.rows > 0
        assert sample.command.startswith("genamp data ")


def test_the_readme_describes_every_sample():
    readme = (project_root() / "data/README.md").read_text()
    for sample in datasets.list_samples():
        assert f"`{sample.name}`" in readme
        assert sample.command in readme
