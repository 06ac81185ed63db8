"""Collider events on disk: samples made twice are the same bytes, files that are refused."""

import errno
import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError

import h5py
import numpy as np
import pytest
from tests_support import simulate_and_kill

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.datasets.events import Events, load_top_pairs, load_z_jets
from genamp_lib.datasets.kinematics import to_cartesian
from genamp_lib.simulation import collisions, samples, z_jets
from genamp_lib.simulation import jets as jet_chain
from genamp_lib.simulation.samples import (
    event_datasets,
    simulate_events,
    write_sample,
)


def write_events(events, provenance, path):
    write_sample(path, event_datasets(events), provenance)


def random_events(n, particles, process="z_jets", seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, len(particles))
    columns = 20 + rng.exponential(30, shape), rng.normal(size=shape), rng.uniform(-3, 3, shape)
    momenta = np.stack([*columns, rng.exponential(5, shape)], axis=-1).astype(np.float32)
    chi2 = rng.exponential(size=n).astype(np.float32) if process == "top_pairs" else None
    return Events(momenta, particles, process, chi2=chi2)


TOP_PARTICLES = ("b1", "q1", "q2", "b2", "q3", "q4")


def test_particles_by_name():
    events = random_events(50, ("mu1", "mu2", "j1"))
    assert np.array_equal(events.of("j1", "mu1"), events.momenta[:, [2, 0]])
    energy, px, py, pz = to_cartesian(events.momenta[:, :2]).sum(axis=1).T
    mass = np.sqrt(energy**2 - px**2 - py**2 - pz**2)
    assert events.mass_of("mu1", "mu2") == pytest.approx(mass)
    total = events.sum_of("mu1", "mu2")
    assert total[:, 0] == pytest.approx(np.hypot(px, py))
    assert total[:, 1] == pytest.approx(np.arcsinh(pz / np.hypot(px, py)))
    assert total[:, 2] == pytest.approx(np.arctan2(py, px))
    assert total[:, 3] == pytest.approx(mass)
    with pytest.raises(ValueError, match="must be of mu1, mu2, j1, got j2"):
        events.of("mu1", "j2")
    with pytest.raises(ValueError, match="`names` must be of"):
        events.mass_of()


def test_slices_keep_rows_together():
    events = random_events(10, TOP_PARTICLES, "top_pairs")
    for index in (slice(2, 7, 2), np.array([4, 1]), np.arange(10) > 6):
        part = events[index]
        assert np.array_equal(part.momenta, events.momenta[index])
        assert np.array_equal(part.chi2, events.chi2[index])
        assert part.particles == TOP_PARTICLES
    with pytest.raises(TypeError, match="take a slice or an array, got 3"):
        events[3]
    assert repr(events[:2]) == (
        "Events(n=2, process='top_pairs', particles=(b1, q1, q2, b2, q3, q4))"
    )


def test_written_file_is_read_back_and_has_the_same_bytes_later(tmp_path):
    events = random_events(7, TOP_PARTICLES, "top_pairs")
    write_events(events, {"process": "top_pairs"}, tmp_path / "first.h5")
    time.sleep(1.1)  # HDF5's time stamps count seconds
    write_events(events, {"process": "top_pairs"}, tmp_path / "second.h5")
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()
    read = load_top_pairs(source=tmp_path / "first.h5", n_events=5)
    assert np.array_equal(read.momenta, events.momenta[:5])
    assert read.chi2 == pytest.approx(events.chi2[:5], rel=2**-16)
    assert read.provenance == {"process": "top_pairs"}
    assert read.particles == events.particles


@pytest.mark.parametrize("n_extra_jets", [0, 2])
def test_top_pairs_in_the_public_layout(tmp_path, n_extra_jets):
    particles = (*TOP_PARTICLES, "j1", "j2")[: 6 + n_extra_jets]
    events = random_events(9, particles, "top_pairs")
    with h5py.File(tmp_path / "public.hdf5", "w") as file:
        file[f"ttbar+{n_extra_jets}jet"] = to_cartesian(events.momenta).reshape(9, -1)
        file["ttbar+3jet"] = np.zeros((2, 36))
    read = load_top_pairs(n_extra_jets, source=tmp_path / "public.hdf5")
    assert read.particles == particles
    assert read.momenta == pytest.approx(events.momenta, rel=1e-5)
    with pytest.raises(GenampError, match=r"`momenta`, or `ttbar\+4jet` as the public file"):
        load_top_pairs(4, source=tmp_path / "public.hdf5")


@pytest.mark.parametrize("layout", ["fixed", "table"])
def test_z_jets_in_the_public_layout(tmp_path, layout):
    """Rows of 20 as pandas keeps them in HDF5, several multiplicities in one table."""
    rows = np.zeros((12, 5, 4))
    for n_jets in (1, 2, 3):
        particles = ("mu1", "mu2", "j1", "j2", "j3")[: 2 + n_jets]
        events = random_events(4, particles, seed=n_jets)
        rows[n_jets - 1 :: 3, : 2 + n_jets] = to_cartesian(events.momenta)
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        if layout == "fixed":
            file["data/block0_values"] = rows.reshape(12, 20)
            file["data/axis0"] = np.arange(20)
        else:
            table = np.zeros(12, dtype=[("index", "i8"), ("values_block_0", "f8", (20,))])
            table["values_block_0"] = rows.reshape(12, 20)
            file["data/table"] = table
    for n_jets in (1, 2, 3):
        expected = random_events(4, ("mu1", "mu2", "j1", "j2", "j3")[: 2 + n_jets], seed=n_jets)
        read = load_z_jets(n_jets, source=tmp_path / "truth.h5")
        assert read.momenta == pytest.approx(expected.momenta, rel=1e-4, abs=1e-5)


def test_compressed_top_pairs_of_paper_a(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="missing: pip install hdf5plugin")
    events = random_events(9, TOP_PARTICLES, "top_pairs")
    rows = to_cartesian(events.momenta).reshape(9, -1)
    with h5py.File(tmp_path / "public.hdf5", "w") as file:
        file.create_dataset("ttbar+0jet", data=rows, chunks=(9, 24), **hdf5plugin.Bitshuffle())
    code = (
        "import sys; from genamp_lib.datasets import load_top_pairs\n"
        "print(len(load_top_pairs(source=sys.argv[1], n_events=4)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "public.hdf5")]
    fresh = subprocess.run(command, capture_output=True, text=True)  # nobody imported the plugin
    assert fresh.stdout.strip() == "4", fresh.stderr
    block = "import sys; sys.modules['hdf5plugin'] = None; "
    without = subprocess.run(
        [*command[:2], block + code, command[3]], capture_output=True, text=True
    )
    assert "run `pip install hdf5plugin`" in without.stderr


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(GenampError, match=r"no\.h5: not found; `source` must be shipped, public"):
        load_z_jets(source=tmp_path / "no.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(GenampError, match=r"text\.h5: must be an HDF5 file"):
        load_top_pairs(source=tmp_path / "text.h5")
    write_events(random_events(9, TOP_PARTICLES), {"process": "top_pairs"}, tmp_path / "top.h5")
    with pytest.raises(GenampError, match="must hold z_jets with mu1, mu2, j1, got top_pairs with"):
        load_z_jets(source=tmp_path / "top.h5")
    with pytest.raises(GenampError, match=r"must hold top_pairs with .* j4, got top_pairs with"):
        load_top_pairs(4, source=tmp_path / "top.h5")
    whole = (tmp_path / "top.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GenampError, match=r"half\.h5: must be an HDF5 file"):
        load_top_pairs(source=tmp_path / "half.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["particle_features"] = np.zeros((3, 30, 4))
        file["data/block0_values"] = np.zeros((3, 24))
    with pytest.raises(GenampError, match=r"has data, particle_features"):
        load_top_pairs(source=tmp_path / "other.h5")
    with pytest.raises(GenampError, match=r"must have shape \(n, 20\), got \(3, 24\)"):
        load_z_jets(source=tmp_path / "other.h5")
    bad = random_events(9, ("mu1", "mu2", "j1"))
    bad.momenta[2, 0, 0] = np.nan
    write_events(bad, {"process": "z_jets"}, tmp_path / "nan.h5")
    with pytest.raises(GenampError, match="`momenta` must be finite, got 1 values that are not"):
        load_z_jets(source=tmp_path / "nan.h5")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: load_top_pairs(5, source=path), "`n_extra_jets` must be from 0 to 4, got 5"),
        (lambda path: load_z_jets(0, source=path), "`n_jets` must be 1, 2 or 3, got 0"),
        (lambda path: load_z_jets(source=path, n_events=0), "`n_events` must be positive, got 0"),
        (lambda path: load_z_jets(source=path, n_events=2.5), "`n_events` must be an integer"),
        (lambda path: load_z_jets(source=path, n_events=10), "at most 9 for z.h5, got 10"),
    ],
)
def test_wrong_arguments_of_loaders(tmp_path, call, message):
    write_events(random_events(9, ("mu1", "mu2", "j1")), {}, tmp_path / "z.h5")
    with pytest.raises(GenampError, match=message):
        call(tmp_path / "z.h5")


USUAL = {"seed": 11, "mpi": False, "jobs": 1, "n_events": 40, "events_per_shard": 80}
SMALL = {
    ("top_pairs", 0): {**USUAL, "n_events": 12, "events_per_shard": 60},
    ("z_jets", 1): USUAL,
}


@pytest.mark.simulate
@pytest.mark.parametrize("kind", SMALL)
def test_sample_is_the_same_bytes_for_two_processes_and_after_a_kill(needs_extra, kind, tmp_path):
    settings = SMALL[kind]
    one = simulate_events(tmp_path / "one.h5", *kind, folder=tmp_path / "one", **settings)
    assert one["provenance"]["n_shards"] >= 2
    folder = tmp_path / "two"
    arguments = f"*{kind}, **{settings | {'jobs': 2}}"
    simulate_and_kill("simulate_events", arguments, tmp_path / "two.h5", folder)
    settings = {**settings, "folder": folder}
    again = {**settings, "jobs": 2, "overwrite": True}
    two = simulate_events(tmp_path / "two.h5", *kind, **again)
    assert two["sha256"] == one["sha256"] == sha256_of_file(tmp_path / "two.h5")
    assert json.loads((tmp_path / "two.h5.json").read_text()) == two
    assert two["rows"] == settings["n_events"]

    with pytest.raises(GenampError, match=r"two\.h5: exists; remove it or pass --overwrite"):
        simulate_events(tmp_path / "two.h5", *kind, **settings)
    damaged = next(folder.glob("shard-*.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(GenampError, match=r"artefact `shard-\w+`: damaged"):
        simulate_events(tmp_path / "new.h5", *kind, **settings)
    assert not (tmp_path / "new.h5").exists()


def toy_shard(index, seed, *, n_events, mpi):
    """Events without a generator: 20, 10 and 5 of the multiplicities, the seed in them."""
    n_jets = np.repeat([1, 2, 3], [20, 10, 5])
    momenta = np.full((35, 5, 4), [30.0, 0.5, 1.0, 2.0], dtype=np.float32)
    momenta[:, 0, 0] = seed % 1000 + np.arange(35)
    momenta[np.arange(5) >= 2 + n_jets[:, None]] = 0
    counts = {f"selected_{n}": int((n_jets == n).sum()) for n in (1, 2, 3)}
    return {"momenta": momenta, "n_jets": n_jets}, {"events": n_events, **counts}


@pytest.fixture
def toy_chain(monkeypatch):
    for module in (jet_chain, collisions):
        monkeypatch.setattr(module, "version", lambda package: "1.0")
    monkeypatch.setattr(z_jets, "make_events", toy_shard)


def test_guessed_number_of_shards_leaves_no_trace(tmp_path, toy_chain, monkeypatch):
    files = []
    for guess in (0.01, 0.2, 50.0):  # far too many shards at once, right, one after the other
        monkeypatch.setitem(samples.GUESSED_EFFICIENCY, "z_jets_1j", guess)
        settings = {"n_events": 50, "events_per_shard": 100, "folder": tmp_path / f"{guess}"}
        record = simulate_events(tmp_path / f"{guess}.h5", "z_jets", 1, **USUAL | settings)
        assert record["provenance"]["n_shards"] == 3
        assert record["provenance"]["cut_flow"]["events"] == 300
        files.append((tmp_path / f"{guess}.h5").read_bytes())
    assert files[0] == files[1] == files[2]
    assert len(list((tmp_path / "0.01").glob("*.json"))) > 3


def test_multiplicities_share_their_shards(tmp_path, toy_chain, monkeypatch):
    monkeypatch.setitem(samples.GUESSED_EFFICIENCY, "z_jets_3j", 0.05)
    settings = {"n_events": 9, "events_per_shard": 100, "folder": tmp_path / "work"}
    for n_jets in (3, 1, 2):
        simulate_events(tmp_path / f"{n_jets}.h5", "z_jets", n_jets, **USUAL | settings)
        made = {path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.safetensors")}
        assert len(made) == 2  # as many as three jets need
        events = load_z_jets(n_jets, source=tmp_path / f"{n_jets}.h5")
        assert len(events) == 9
        assert events.of("j1")[:, 0] == pytest.approx(np.tile([30, 0.5, 1, 2], (9, 1)))


def test_full_disk_leaves_nothing_half_written(tmp_path, toy_chain, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    settings = {"n_events": 9, "events_per_shard": 100, "folder": tmp_path / "work"}
    with pytest.raises(OSError, match="No space left"):
        simulate_events(tmp_path / "z.h5", "z_jets", 1, **USUAL | settings)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    monkeypatch.undo()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_events": -5}, "`n_events` must be positive, got -5"),
        ({"jobs": 0}, "`jobs` must be positive, got 0"),
        ({"events_per_shard": 0}, "`events_per_shard` must be positive, got 0"),
        ({"seed": -1}, "`seed` must not be negative, got -1"),
    ],
)
def test_arguments_are_checked_before_work(tmp_path, kind, change, message):
    with pytest.raises(GenampError, match=message):
        simulate_events(tmp_path / "e.h5", *kind, folder=tmp_path / "work", **USUAL | change)
    assert not list(tmp_path.iterdir())


def test_number_of_jets_is_checked_before_work(tmp_path):
    with pytest.raises(GenampError, match="`n_extra_jets` must be 0 or 4, got 2"):
        simulate_events(tmp_path / "events.h5", "top_pairs", 2, **USUAL)
    with pytest.raises(GenampError, match="`n_jets` must be 1, 2 or 3, got 4"):
        simulate_events(tmp_path / "events.h5", "z_jets", 4, **USUAL)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("missing", jet_chain.PACKAGES)
def test_missing_extra_is_one_line_with_the_remedy(tmp_path, monkeypatch, kind, missing):
    def version(package):
        if package == missing:
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(jet_chain, "version", version)
    with pytest.raises(GenampError, match=rf"`{missing}` is needed .*run `pip install 'pythia8mc"):
        simulate_events(tmp_path / "e.h5", *kind, folder=tmp_path / "work", **USUAL)
    assert not list(tmp_path.iterdir())
