"""Showers as data: files and back, files that are refused, observables by hand."""

import json
import time

import h5py
import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.datasets.showers import (
    LAYER_SHAPES,
    LAYERS,
    SHOWER_OBSERVABLES,
    Showers,
    cell_centres,
    load_showers,
    shower_observables,
)
from genamp_lib.simulation.samples import round_showers, shower_datasets, write_sample


def write_showers(showers, provenance, path, layout="sparse"):
    write_sample(path, shower_datasets(showers, layout), provenance)


def random_showers(n, particle="gamma", seed=0):
    """A quarter of the cells hit; the second shower has nothing in layer 2, the third nothing."""
    rng = np.random.default_rng(seed)
    layers = []
    for shape in LAYER_SHAPES:
        hit = rng.random((n, *shape)) < 0.25
        layers.append((hit * rng.lognormal(0, 3, (n, *shape))).astype(np.float32))
    layers[2][1] = 0
    for layer in layers:
        layer[2] = 0
    energy = rng.uniform(1, 100, n).astype(np.float32)
    overflow = rng.exponential(1, (n, 3)).astype(np.float32)
    return Showers(energy, *layers, overflow, particle)


def assert_equal(one, two):
    for name in ("energy", *LAYERS, "overflow"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize("layout", ["sparse", "calogan"])
def test_written_showers_are_read_back_and_have_the_same_bytes_later(tmp_path, layout):
    showers = random_showers(7)
    write_showers(showers, {"particle": "gamma", "seed": 3}, tmp_path / "first.h5", layout)
    time.sleep(1.1)  # HDF5's time stamps count seconds
    write_showers(showers, {"particle": "gamma", "seed": 3}, tmp_path / "second.h5", layout)
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()
    read = load_showers("gamma", source=tmp_path / "first.h5")
    assert_equal(read, showers)
    assert read.provenance == {"particle": "gamma", "seed": 3}
    assert str(read.source).endswith("first.h5")
    assert_equal(load_showers("gamma", source=tmp_path / "first.h5", n_showers=4), showers[:4])


def test_rounding_keeps_what_is_hit_and_eleven_bits():
    showers = random_showers(9)
    short = round_showers(showers)
    assert np.array_equal(short.voxels > 0, showers.voxels > 0)
    assert short.voxels == pytest.approx(showers.voxels, rel=2**-11)
    assert not np.array_equal(short.voxels, showers.voxels)
    assert np.array_equal(short.energy, showers.energy)


def test_public_layout_without_overflow(tmp_path):
    """CaloGAN's files as they are: doubles, energy with a second axis, nothing that says what."""
    showers = random_showers(5)
    with h5py.File(tmp_path / "gamma.hdf5", "w") as file:
        file["energy"] = showers.energy[:, None].astype(np.float64)
        for name, layer in zip(LAYERS, showers.layers, strict=True):
            file[name] = layer.astype(np.float64)
    read = load_showers("gamma", source=tmp_path / "gamma.hdf5")
    assert np.array_equal(read.voxels, showers.voxels)
    assert read.voxels.dtype == read.energy.dtype == np.float32
    assert not read.overflow.any()
    assert read.provenance == {}


def test_public_source_is_calogans_file(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAMP_DATA", str(tmp_path))
    monkeypatch.setenv("GENAMP_MIRROR", "http://127.0.0.1:9")  # nobody answers
    (tmp_path / "calogan").mkdir()
    showers = random_showers(5, "piplus")
    write_showers(showers, {}, tmp_path / "calogan" / "piplus.hdf5", "calogan")
    read = load_showers("piplus", source="public")
    assert_equal(read, showers)
    assert str(read.source) == "the public file calogan/piplus.hdf5 (doi:10.17632/pvn3xc3wy5.1)"
    with pytest.raises(GenampError, match=r"calogan/eplus\.hdf5"):
        load_showers("eplus", source="public")


def test_slices_keep_rows_together():
    showers = random_showers(10)
    for index in (slice(2, 7, 2), np.array([4, 1]), showers.energy > 50):
        part = showers[index]
        assert np.array_equal(part.energy, showers.energy[index])
        assert np.array_equal(part.voxels, showers.voxels[index])
        assert np.array_equal(part.overflow, showers.overflow[index])
    with pytest.raises(TypeError, match="take a slice or an array, got 3"):
        showers[3]
    assert repr(showers[:2]) == "Showers(n=2, particle='gamma')"


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(GenampError, match=r"no\.h5: not found"):
        load_showers(source=tmp_path / "no.h5")
    write_showers(random_showers(200), {"particle": "gamma"}, tmp_path / "gamma.h5")
    for particle in ("eplus", "piplus"):
        with pytest.raises(GenampError, match=f"must hold {particle} showers, got those of gamma"):
            load_showers(particle, source=tmp_path / "gamma.h5")
    whole = (tmp_path / "gamma.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GenampError, match=r"half\.h5: must be an HDF5 file"):
        load_showers("gamma", source=tmp_path / "half.h5")
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file["particle_features"] = np.zeros((3, 30, 4))
    with pytest.raises(GenampError, match=r"have the dataset `energy`, has particle_features"):
        load_showers("gamma", source=tmp_path / "jets.h5")
    with h5py.File(tmp_path / "calo.h5", "w") as file:
        file["energy"] = np.ones((3, 1))
        file["layer_0"] = np.zeros((3, 96, 3))
    with pytest.raises(GenampError, match=r"`layer_0` must have shape \(n, 3, 96\), got \(3, 96"):
        load_showers("gamma", source=tmp_path / "calo.h5")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("voxels", lambda values: values + 504, r"`voxels` must be below 504, got \d+"),
        ("deposits", lambda values: -values, "`layer_0` must be finite and not negative"),
        ("energy", lambda values: values * np.inf, "`energy` must be finite"),
        ("n_voxels", lambda values: values + 1, "datasets must belong together"),
        ("overflow", lambda values: values[:-1], "datasets must belong together"),
        ("overflow", lambda values: values[:, :2], r"`overflow` must have shape \(n, 3\)"),
    ],
)
def test_wrong_content_is_refused(tmp_path, name, change, message):
    path = tmp_path / "gamma.h5"
    write_showers(random_showers(6), {"particle": "gamma"}, path)
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        file[name] = change(values)
    with pytest.raises(GenampError, match=message):
        load_showers("gamma", source=path)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_other_units_are_refused(tmp_path, factor):
    showers = load_showers("gamma", n_showers=20)
    path = tmp_path / "gamma.h5"
    with h5py.File(path, "w") as file:
        file["energy"] = showers.energy[:, None]
        for name in ("layer_0", "layer_1", "layer_2"):
            file[name] = factor * getattr(showers, name)
    with pytest.raises(GenampError, match="`energy` must be in GeV and deposits in MeV, got depos"):
        load_showers("gamma", source=path)


def test_rows_of_the_public_layout_must_agree(tmp_path):
    path = tmp_path / "gamma.h5"
    write_showers(random_showers(6), {}, path, "calogan")
    with h5py.File(path, "r+") as file:
        del file["layer_1"]
        file["layer_1"] = np.zeros((5, 12, 12))
    with pytest.raises(GenampError, match="must have as many rows, they have not"):
        load_showers("gamma", source=path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: load_showers("muon", source=path), "must be one of eplus, gamma, piplus"),
        (lambda path: load_showers("gamma", source=path, n_showers=0), "must be positive, got 0"),
        (lambda path: load_showers("gamma", source=path, n_showers=2.5), "must be an integer"),
        (lambda path: load_showers("gamma", source=path, n_showers=7), "at most 6 for gamma.h5"),
    ],
)
def test_wrong_arguments_of_the_loader(tmp_path, call, message):
    write_showers(random_showers(6), {}, tmp_path / "gamma.h5")
    with pytest.raises(GenampError, match=message):
        call(tmp_path / "gamma.h5")


def test_observables_are_the_sums_of_their_definitions():
    showers = random_showers(5)
    values = shower_observables(showers, threshold=0.5)
    assert tuple(values) == SHOWER_OBSERVABLES
    for row in range(5):
        total, depth = 0.0, 0.0
        for index, layer in enumerate(showers.layers):
            cells = [
                (float(e), cell_centres(layer.shape[1])[i], cell_centres(layer.shape[2])[j])
                for (i, j), e in np.ndenumerate(layer[row])
            ]
            energy = sum(e for e, _, _ in cells)
            total, depth = total + energy, depth + index * energy
            expected = {
                "energy": energy,
                "sparsity": 1 - sum(e > 0.5 for e, _, _ in cells) / len(cells),
                "brightest": max(e for e, _, _ in cells) / energy if energy else 0,
            }
            for axis, name in ((1, "phi"), (2, "eta")):
                mean = sum(c[0] * c[axis] for c in cells) / energy if energy else 0
                square = sum(c[0] * c[axis] ** 2 for c in cells) / energy if energy else 0
                expected |= {f"{name}_centroid": mean, f"{name}_width": (square - mean**2) ** 0.5}
            for name, value in expected.items():
                assert values[f"{name}_{index}"][row] == pytest.approx(value, rel=1e-9), name
        assert values["total_energy"][row] == pytest.approx(total)
        assert values["depth"][row] == pytest.approx(depth / total if total else 0)
        assert values["response"][row] == pytest.approx(total / 1e3 / showers.energy[row])
        beside = showers.overflow[row].sum()
        assert values["overflow_fraction"][row] == pytest.approx(beside / (beside + total))
        fractions = [values[f"fraction_{index}"][row] for index in range(3)]
        assert sum(fractions) == pytest.approx(1.0 if total else 0.0)
    assert all(np.isfinite(value).all() for value in values.values())
    with pytest.raises(ValueError, match="`threshold` must not be negative, got -1"):
        shower_observables(showers, threshold=-1)


def test_cells_cover_the_calorimeter():
    assert cell_centres(96)[[0, -1]] == pytest.approx([-237.5, 237.5])
    assert cell_centres(6)[0] == pytest.approx(-200)
    assert json.dumps(LAYER_SHAPES) == "[[3, 96], [12, 12], [12, 6]]"
