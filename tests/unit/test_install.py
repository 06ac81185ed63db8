"""The base install: what works without the extras, and how a missing one is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from tests_support import ROOT

from genamp_lib import _project
from genamp_lib._project import install_hint, missing_module

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Runs code in an interpreter where nothing can be imported but what `pip install genamp` brings.
BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def packages_of(*requirements: str) -> set[str]:
    """Return what the base dependencies and others need, they and theirs, by name."""
    found: set[str] = set()
    todo = [name_of(requirement) for requirement in (*PROJECT["dependencies"], *requirements)]
    while todo:
        package = todo.pop()
        if package not in found:
            found.add(package)
            required = metadata.requires(package) or []
            todo += [name_of(one) for one in required if "extra ==" not in one]
            todo = [one for one in todo if is_installed(one)]
    return found | {"genamp", "pip", "setuptools"}


def is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def blocking(*requirements: str) -> str:
    """Return code that lets nothing be imported but the base and further requirements."""
    allowed = packages_of(*requirements)
    modules = {
        module
        for module, packages in metadata.packages_distributions().items()
        if not allowed & {name_of(package) for package in packages}
    }
    assert {"torch", "papermill", "distributed"} <= modules
    assert not {"numpy", "scipy", "pandas", "h5py", "typer", "rich", "joblib"} & modules
    return f"BLOCKED_MODULES = {modules}\n{BLOCKED}"


@pytest.fixture(scope="module")
def blocked() -> str:
    return blocking()


def test_the_extra_simulate_is_enough_to_simulate(tmp_path: Path) -> None:
    code = "import genamp_lib.simulation.samples, genamp_lib.simulation.showers"
    done = run(blocking(*PROJECT["optional-dependencies"]["simulate"]), code, tmp_path)
    assert done.stderr == ""


def test_the_extra_diagnose_is_enough_to_draw_an_estimate(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.random.default_rng(1).normal(size=200))
    np.save(tmp_path / "generated.npy", np.random.default_rng(2).normal(size=2000))
    files = ["train.npy", "generated.npy", "--plot", "curve.svg"]
    code = genamp("estimate", "differential", *files)
    done = run(blocking(*PROJECT["optional-dependencies"]["diagnose"]), code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_the_extra_diagnose_is_enough_for_networks_and_trees(tmp_path: Path) -> None:
    """Without torch and all else that it does not name."""
    truth, generated = np.random.default_rng(3).normal(size=(2, 400, 2))
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "generated.npy", generated + np.array([0, 1]))
    code = genamp("diagnose", "truth.npy", "generated.npy", "--epochs", "2")
    done = run(blocking(*PROJECT["optional-dependencies"]["diagnose"]), code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The generator differs from the truth." in done.stdout
    assert re.search(
        r"AUC of the networks 0\.\d+ .*, of gradient-boosted trees 0\.\d+", done.stdout
    )


def run(blocked: str, code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", f"{blocked}\nif __name__ == '__main__':\n    {code}"]
    options = {"capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, **options)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a wheel installs; it is made from an unpacked source distribution."""
    folder = tmp_path_factory.mktemp("install")
    clone = folder / "clone"
    shutil.copytree(ROOT / "genamp_lib", clone / "genamp_lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    build = "from setuptools import build_meta; build_meta.build_"
    quiet = {"check": True, "capture_output": True}
    subprocess.run([sys.executable, "-c", f"{build}sdist('..')"], cwd=clone, **quiet)
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), folder / "sdist", filter="data")
    source = next((folder / "sdist").iterdir())
    subprocess.run([sys.executable, "-c", f"{build}wheel('../..')"], cwd=source, **quiet)
    shutil.unpack_archive(next(folder.glob("*.whl")), folder / "site", "zip")
    return folder / "site"


def test_a_wheel_from_the_source_distribution_is_whole(installed: Path) -> None:
    def files(base: Path) -> set[str]:
        found = (path for path in base.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {str(path.relative_to(base)) for path in found}

    assert files(installed / "genamp_lib") == files(ROOT / "genamp_lib")


def test_the_wheel_estimates_and_names_missing_extras(
    installed: Path, tmp_path: Path, blocked: str
) -> None:
    np.save(tmp_path / "counts.npy", np.full((3, 2), 50))
    numbers = ["--n-train", "100", "--n-generated", "1000"]
    for arguments, code, said in (
        (["estimate", "averaging", "counts.npy", *numbers], 0, "trained on 100 events"),
        (
            ["chapters"],
            2,
            r"the extra `book` needs it; run `pip install '(jupytext|pyyaml)>=[\d.]+'`\n$",
        ),
        (["estimate", "averaging", "counts.parquet", *numbers], 2, "'pyarrow>=15'`\n$"),
    ):
        (tmp_path / "counts.parquet").touch()
        done = run(blocked, genamp(*arguments), tmp_path, PYTHONPATH=str(installed))
        assert done.returncode == code, done.stderr
        assert re.search(said, done.stdout + done.stderr)
    where = run(
        blocked, "import genamp_lib as g; print(g.__file__)", tmp_path, PYTHONPATH=str(installed)
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)


def genamp(*arguments: str) -> str:
    return f"from genamp_lib.cli import main; main({list(arguments)!r})"


def test_estimates_need_nothing_but_the_base(tmp_path: Path, blocked: str) -> None:
    rng = np.random.default_rng(1)
    for name, n in (("train", 100), ("holdout", 5000), ("generated", 10_000)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=n))
    done = run(
        blocked,
        genamp(
            *("estimate", "differential", "train.npy", "generated.npy", "--holdout"),
            *("holdout.npy", "--jobs", "2", "--json", "verdict.json"),
        ),
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "verdict.json").read_text())["n_train"] == 100
    members = [f"member_{i}.npy" for i in range(3)]
    for member in members:
        np.save(tmp_path / member, rng.normal(rng.normal(0, 0.1), size=1000))
    quantiles = ["--train", "train.npy", "--quantiles", "4"]
    done = run(blocked, genamp("estimate", "averaging", *members, *quantiles), tmp_path)
    assert done.returncode == 0, done.stderr


def test_all_public_names_of_the_statistics_need_nothing_but_the_base(
    tmp_path: Path, blocked: str
) -> None:
    code = "import genamp_lib; [getattr(genamp_lib, name) for name in genamp_lib.__all__]"
    assert run(blocked, code, tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "module"), [(["chapters"], "jupytext|yaml"), (["build"], "filelock|jupytext")]
)
def test_a_missing_extra_is_one_line_with_a_command(
    tiny_project: Path, blocked: str, arguments: list[str], module: str
) -> None:
    done = run(blocked, genamp(*arguments), tiny_project)
    assert done.returncode == 2
    assert re.match(rf"error: `({module})` is not installed", done.stderr)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("sklearn.ensemble", "diagnose"),
        ("pyarrow.parquet", "parquet"),
        ("distributed", "dask"),
        ("pypdf", "pdf"),
        ("fastjet", "simulate"),
        ("geant4_pybind", "simulate"),
    ],
)
def test_every_missing_module_leads_to_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    found = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    monkeypatch.setattr(_project, "extras", lambda: found)
    error = missing_module(ModuleNotFoundError(f"No module named {module!r}", name=module))
    for requirement in PROJECT["optional-dependencies"][extra]:
        assert f"'{requirement}'" in str(error)
    assert f"the extra `{extra}`" in str(error)
    assert "genamp[" not in install_hint(extra)  # no index has it
    book = missing_module(ModuleNotFoundError("No module named 'yaml'", name="yaml"))
    assert str(book).endswith(f"run `pip install -e '{ROOT}[book]'`")
    assert missing_module(ModuleNotFoundError("No module named 'nose'", name="nose")) is None
