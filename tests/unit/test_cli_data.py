"""`genamp data`: exit codes, streams, and what is said when something is wrong."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from typer.testing import CliRunner

from genamp_lib._project import GenampError, project_root, sha256_of_text
from genamp_lib.cli.data import app
from genamp_lib.simulation import jets as chain


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def project(tmp_path, monkeypatch):
    for folder in ("book", "notebooks", "data/samples"):
        (tmp_path / folder).mkdir(parents=True)
    samples = {}
    for name in ("first", "second"):
        (tmp_path / f"data/samples/{name}.h5").write_text(name)
        samples[name] = {
            "file": f"data/samples/{name}.h5",
            "sha256": sha256_of_text(name),
            "bytes": len(name),
            "rows": 12345,
            "units": "GeV",
            "description": f"The {name} toy.",
            "licence": "CC0-1.0",
            "command": "genamp data simulate toy",
        }
    (tmp_path / "data/registry.json").write_text(json.dumps({"samples": samples}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_shows_every_sample_with_its_state(project):
    (project / "data/samples/second.h5").unlink()
    result = call("list")
    assert result.exit_code == 0
    first = "first               12,345   0.0 MB  present\n    The first toy.\n"
    assert first in result.stdout
    assert "second              12,345   0.0 MB  missing\n" in result.stdout


def test_list_of_the_repository_cuts_nothing_at_any_width():
    wide, narrow = (
        CliRunner().invoke(app, ["list"], env={"COLUMNS": width}) for width in ("200", "20")
    )
    assert wide.exit_code == 0
    assert wide.stdout == narrow.stdout
    assert "jets_gluon          60,000" in wide.stdout
    lines = wide.stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("ttbar/event_generation_ttbar.hdf5 ")]
    assert line.endswith(
        "https://www.thphys.uni-heidelberg.de/~plehn/data/event_generation_ttbar.hdf5"
    )


def test_verify_passes_what_is_as_published(project):
    result = call("verify")
    assert result.exit_code == 0
    assert result.stdout.count("as published") == 2
    assert call("verify", "second").stdout.startswith("second: as published")


def test_verify_tells_which_sample_is_damaged_and_goes_on(project):
    (project / "data/samples/first.h5").write_text("tsrif")
    result = call("verify")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: sample `first`: damaged")
    assert result.stderr.count("\n") == 1
    assert result.stdout.startswith("second: as published")
    assert call("verify", "second").exit_code == 0
    assert call("verify", "first").exit_code == 1


def test_verify_of_a_missing_sample_fails(project):
    (project / "data/samples/first.h5").unlink()
    result = call("verify", "first")
    assert result.exit_code == 1
    assert "not found; run `genamp data simulate toy`" in result.stderr


def test_verify_of_an_unknown_sample_is_a_mistake_of_the_user(project):
    result = call("verify", "frist")
    assert isinstance(result.exception, GenampError)
    assert "did you mean `first`?" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "higgs"], "`kind` must be one of gluon, light, top, got `higgs`"),
        (["--n-jets", "-3"], "`n_jets` must be positive, got -3."),
        (["--jobs", "0"], "`jobs` must be positive, got 0."),
        (["--shard-events", "0"], "`events_per_shard` must be positive, got 0."),
        (["--seed", "-1"], "`seed` must not be negative, got -1."),
    ],
)
def test_simulate_refuses_wrong_arguments_in_one_line(project, arguments, message):
    result = call("simulate", "jets", *arguments)
    assert isinstance(result.exception, GenampError)
    assert str(result.exception) == message
    assert not (project / "_build").exists()


def test_simulate_without_the_extra_says_how_to_get_it(project, monkeypatch):
    def version(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(chain, "version", version)
    result = call("simulate", "jets")
    assert isinstance(result.exception, GenampError)
    assert "run `pip install 'pythia8mc==" in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.simulate
def test_simulate_writes_into_build_and_never_over_a_file(project):
    for package in chain.PACKAGES:
        pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[simulate]'")
    arguments = ["simulate", "jets", "--kind", "light", "--n-jets", "4", "--shard-events", "6"]
    result = call(*arguments, "--seed", "3")
    assert result.exit_code == 0, result.exception
    path = project / "_build/simulate/jets_light_seed3.h5"
    assert f"{path}: 4 light jets" in result.stdout
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert f"SHA-256 {record['sha256']}" in result.stdout

    again = call(*arguments, "--seed", "3")
    assert isinstance(again.exception, GenampError)
    assert "exists; remove it" in str(again.exception)
    before = path.read_bytes()
    assert call(*arguments, "--seed", "3", "--overwrite").exit_code == 0
    assert path.read_bytes() == before
    assert call(*arguments, "--seed", "3", "--output", "own.h5").exit_code == 0
    assert (project / "own.h5").read_bytes() == before


def test_heavy_packages_are_not_imported_for_help():
    code = (
        "import sys; import genamp_lib.cli.data; "
        "print({'torch', 'h5py', 'pythia8mc', 'fastjet', 'awkward'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root()
    )
    assert run.stdout.strip() == "set()", run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["top-pairs", "--extra-jets", "2"], "`n_extra_jets` must be 0 or 4, got 2."),
        (["top-pairs", "--n-events", "0"], "`n_events` must be positive, got 0."),
        (["z-jets", "--n-jets", "4"], "`n_jets` must be 1, 2 or 3, got 4."),
        (["z-jets", "--jobs", "0"], "`jobs` must be positive, got 0."),
        (["z-jets", "--seed", "-1"], "`seed` must not be negative, got -1."),
    ],
)
def test_simulate_events_refuses_wrong_arguments_in_one_line(project, arguments, message):
    result = call("simulate", *arguments)
    assert isinstance(result.exception, GenampError)
    assert str(result.exception) == message
    assert not (project / "_build").exists()


@pytest.mark.simulate
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["top-pairs", "--no-mpi", "--n-events", "5", "--shard-events", "80"], "top_pairs_0j"),
        (["z-jets", "--n-jets", "2", "--n-events", "5", "--shard-events", "120"], "z_jets_2j"),
    ],
)
def test_simulate_events_writes_into_build(project, arguments, name):
    for package in chain.PACKAGES:
        pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[simulate]'")
    result = call("simulate", *arguments, "--seed", "3")
    assert result.exit_code == 0, result.exception
    path = project / f"_build/simulate/{name}_seed3.h5"
    assert f"{path}: 5 events of " in result.stdout
    assert "Medians: m" in result.stdout
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert f"SHA-256 {record['sha256']}" in result.stdout
    again = call("simulate", *arguments, "--seed", "3")
    assert "exists; remove it" in str(again.exception)


@pytest.mark.parametrize("command", ["jets", "top-pairs", "z-jets"])
def test_help_of_simulate_teaches(command):
    result = call("simulate", command, "--help")
    assert result.exit_code == 0
    for text in ("extra `simulate`", "killed run continues", "default"):
        assert text in " ".join(result.stdout.split())
