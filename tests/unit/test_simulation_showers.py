"""Geant4 in a process of its own: energy, geometry, crashes, samples made twice."""

import errno
import json
import subprocess
from importlib.metadata import PackageNotFoundError

import h5py
import numpy as np
import pytest
from tests_support import ROOT, simulate_and_kill
from typer.testing import CliRunner

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.cli.data import app
from genamp_lib.datasets.showers import load_showers
from genamp_lib.simulation import jets, showers
from genamp_lib.simulation.geant4_tables import write_tables
from genamp_lib.simulation.samples import simulate_showers

SMALL = {"particle": "gamma", "n_showers": 3, "seed": 5, "energy_range": (0.05, 0.2)}


@pytest.fixture
def needs_extra(monkeypatch):
    try:
        jets.require_extra(showers.PACKAGES)
    except GenampError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("CI", "true")  # with which Geant4's binding would download its data


def test_the_calorimeter_is_calogans():
    """90, 347 and 43 mm; 80 plates of lead of 2 mm, 80 gaps of 4 mm."""
    depths, lead = [0.0, 0.0, 0.0], 0.0
    for section in showers.SECTIONS:
        pitch = section["lead_mm"] + section["argon_mm"]
        depths[section["layer"]] += section["n_plates"] * pitch
        lead += section["n_plates"] * section["lead_mm"]
    assert depths == [90.0, 347.0, 43.0]
    assert sum(depths) == showers.DEPTH == 480.0
    assert lead == 160.0


@pytest.mark.simulate
@pytest.mark.parametrize(("particle", "energy"), [("gamma", 0.3), ("eplus", 0.3), ("piplus", 1.5)])
def test_deposits_and_escape_balance_and_cells_are_where_they_should_be(
    needs_extra, monkeypatch, particle, energy
):
    """Every step once more, by its position: the same cells, and no energy is lost or made."""
    energies = np.array([energy, 2 * energy])
    monkeypatch.setattr(showers, "PROCESS", (str(ROOT / "tests/geant4_ledger.py"),))
    arrays = showers.run_geant4(particle, energies, seed=5)
    total = arrays["overflow"].sum(axis=1)
    for name in ("layer_0", "layer_1", "layer_2", "overflow"):
        # Deposits are summed in another order, and a step may end on an edge.
        assert arrays[name] == pytest.approx(arrays[f"steps_{name}"], abs=1e-6)
        total += arrays[name].sum(axis=tuple(range(1, arrays[name].ndim)))
    total -= arrays["overflow"].sum(axis=1)
    deposited, escaped, unannihilated = arrays["ledger"].T
    assert total == pytest.approx(deposited, rel=1e-9)
    if particle != "piplus":  # whose nuclei take and give binding energy
        mass = 2 * 0.51099891 if particle == "eplus" else 0.0  # of the pair that annihilates
        balance = deposited + escaped - unannihilated
        assert balance == pytest.approx(energies * 1e3 + mass, rel=1e-6)
        # Electromagnetic showers of that energy stay inside: 480 mm are 27 radiation lengths.
        assert (deposited > 0.9 * energies * 1e3).all()
    else:
        assert (deposited + escaped < energies * 1e3 + 140).all()


@pytest.mark.simulate
def test_sample_is_the_same_bytes_in_any_sharding_and_after_a_kill(needs_extra, tmp_path):
    settings = {**SMALL, "showers_per_shard": 1}
    one = simulate_showers(tmp_path / "one.h5", folder=tmp_path / "one", **settings)
    folder = tmp_path / "two"
    simulate_and_kill("simulate_showers", f"**{settings}", tmp_path / "two.h5", folder)
    two = simulate_showers(tmp_path / "two.h5", folder=folder, jobs=2, overwrite=True, **settings)
    assert two["sha256"] == one["sha256"] == sha256_of_file(tmp_path / "two.h5")
    assert json.loads((tmp_path / "two.h5.json").read_text()) == two
    assert one["cpu_seconds"] > 0.3  # the child's, without which it would be near zero
    read = load_showers("gamma", source=tmp_path / "two.h5")
    assert len(read) == two["rows"] == 3
    assert (read.energy >= 0.05).all()
    assert (read.energy <= 0.2).all()
    sums = read.voxels.sum(axis=1) + read.overflow.sum(axis=1)
    assert sums == pytest.approx(1e3 * read.energy, rel=0.1)
    with pytest.raises(GenampError, match=r"two\.h5: exists; remove it or pass --overwrite"):
        simulate_showers(tmp_path / "two.h5", folder=folder, **settings)


@pytest.mark.simulate
def test_fatal_error_of_geant4_is_one_line(needs_extra, tmp_path, monkeypatch):
    def without_lead(folder):
        environment = write_tables(folder)
        (folder / "low_energy/brem_SB/br82").unlink()
        return environment

    monkeypatch.setattr(showers, "write_tables", without_lead)
    with pytest.raises(GenampError, match=r"^Geant4 stopped with code -6 .*br82.*em0003") as error:
        simulate_showers(tmp_path / "x.h5", folder=tmp_path / "work", **SMALL)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.h5").exists()
    assert not list((tmp_path / "work").glob("*.safetensors"))


def test_answer_that_is_no_answer_is_one_line(monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=b"PK half", stderr=b"first\nlast\n")

    monkeypatch.setattr(showers.subprocess, "run", run)
    with pytest.raises(GenampError, match=r"code 0 at gamma showers of seed 3: last$"):
        showers.run_geant4("gamma", np.ones(1), 3)


def toy_shard(index, seed, *, particle, n_showers, energy_range):
    rng = np.random.default_rng(seed)
    shapes = {"layer_0": (3, 96), "layer_1": (12, 12), "layer_2": (12, 6), "overflow": (3,)}
    # MeV: some GeV in all, as particles of that energy leave.
    arrays = {name: 100 * rng.random((n_showers, *shape)) for name, shape in shapes.items()}
    return {"energy": rng.uniform(*energy_range, n_showers)} | arrays


@pytest.fixture
def toy_chain(monkeypatch):
    for module in (jets, showers):
        monkeypatch.setattr(module, "version", lambda package: "1.0")
    monkeypatch.setattr(
        showers,
        "make_showers",
        lambda index, seed, **settings: {
            name: array.astype(np.float32)
            for name, array in toy_shard(index, seed, **settings).items()
        },
    )


def test_a_longer_sample_begins_with_the_shorter_one(tmp_path, toy_chain):
    for n in (25, 40):
        record = simulate_showers(
            tmp_path / f"{n}.h5",
            particle="piplus",
            n_showers=n,
            showers_per_shard=20,
            folder=tmp_path / "work",
            layout="calogan",
        )
        assert record["provenance"]["n_shards"] == 2
    short, long = (load_showers("piplus", source=tmp_path / f"{n}.h5") for n in (25, 40))
    assert np.array_equal(short.voxels, long.voxels[:25])
    assert np.array_equal(short.energy, long.energy[:25])
    assert len(np.unique(long.energy)) == 40  # shards do not repeat each other


def test_full_disk_leaves_nothing_half_written(tmp_path, toy_chain, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(OSError, match="No space left"):
        simulate_showers(tmp_path / "x.h5", n_showers=5, folder=tmp_path / "work")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_damaged_shard_is_refused(tmp_path, toy_chain):
    settings = {"n_showers": 5, "folder": tmp_path / "work"}
    simulate_showers(tmp_path / "x.h5", **settings)
    (shard,) = (tmp_path / "work").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(GenampError, match=r"artefact `shard-\w+`: damaged"):
        simulate_showers(tmp_path / "new.h5", **settings)
    assert not (tmp_path / "new.h5").exists()


def test_command(tmp_path, toy_chain):
    path = tmp_path / "own.h5"
    arguments = ["simulate", "showers", "--particle", "piplus", "--n-showers", "8"]
    arguments += ["--energy-min", "2", "--energy-max", "3", "--shard-showers", "5"]
    arguments += ["--output", str(path), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert "8 piplus showers" in result.stdout
    assert f"SHA-256 {sha256_of_file(path)}" in result.stdout
    read = load_showers("piplus", source=path)
    assert read.provenance["settings"]["energy_gev"] == [2.0, 3.0]
    assert (np.abs(read.energy - 2.5) <= 0.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"particle": "muon"}, "`particle` must be one of eplus, gamma, piplus, got `muon`"),
        ({"layout": "dense"}, "`layout` must be one of sparse, calogan, got `dense`"),
        ({"n_showers": 0}, "`n_showers` must be positive, got 0"),
        ({"jobs": 0}, "`jobs` must be positive, got 0"),
        ({"showers_per_shard": -1}, "`showers_per_shard` must be positive, got -1"),
        ({"seed": -1}, "`seed` must not be negative, got -1"),
        ({"energy_range": (5.0, 1.0)}, r"`energy_range` must be two rising .* got \[5.0, 1.0\]"),
    ],
)
def test_arguments_are_checked_before_work(tmp_path, change, message):
    with pytest.raises(GenampError, match=message):
        simulate_showers(tmp_path / "x.h5", folder=tmp_path / "work", **change)
    assert not list(tmp_path.iterdir())


def test_missing_extra_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    def version(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(jets, "version", version)
    with pytest.raises(GenampError, match=r"`geant4-pybind` is needed .*install 'pythia8mc"):
        simulate_showers(tmp_path / "x.h5", folder=tmp_path / "work")
    assert not list(tmp_path.iterdir())
