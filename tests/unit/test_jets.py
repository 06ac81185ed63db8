"""Jets in JetNet's layout: masses in closed form, slices, files that are refused."""

import h5py
import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.datasets import Jets, load_jets, relative_mass


def make_file(path, *, particles=None, jets=None, **others):
    rng = np.random.default_rng(3)
    if particles is None:
        particles = np.concatenate(
            [
                rng.normal(scale=0.2, size=(5, 30, 2)),
                rng.uniform(size=(5, 30, 1)),
                np.ones((5, 30, 1)),
            ],
            axis=2,
        )
    if jets is None:
        jets = rng.uniform(size=(len(particles), 4))
    with h5py.File(path, "w") as file:
        arrays = {"particle_features": particles, "jet_features": jets, **others}
        for name, array in arrays.items():
            file[name] = array
    return particles, jets


def test_mass_of_two_massless_particles():
    rng = np.random.default_rng(0)
    eta, phi = rng.uniform(-0.8, 0.8, size=(2, 100, 2))
    pt = rng.uniform(0.1, 0.9, size=(100, 2))
    particles = np.stack([eta, phi, pt, np.ones_like(pt)], axis=-1)
    closed = 2 * pt.prod(axis=1) * (np.cosh(np.diff(eta)) - np.cos(np.diff(phi)))[:, 0]
    assert relative_mass(particles) == pytest.approx(np.sqrt(closed), rel=1e-12)


def test_mass_of_four_vectors_and_back():
    """Relative coordinates about the jet: mass/pt of the summed four-momenta, exactly."""
    rng = np.random.default_rng(1)
    pt = rng.exponential(30.0, size=(50, 30))
    eta = 1.3 + rng.normal(scale=0.2, size=(50, 30))
    phi = 3.1 + rng.normal(scale=0.2, size=(50, 30))
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2)
    jet = np.stack([px, py, pz, energy]).sum(axis=-1)
    jet_pt = np.hypot(jet[0], jet[1])
    mass = np.sqrt(jet[3] ** 2 - (jet[:3] ** 2).sum(axis=0))
    eta_rel = eta - np.arcsinh(jet[2] / jet_pt)[:, None]
    phi_rel = phi - np.arctan2(jet[1], jet[0])[:, None]
    particles = np.stack([eta_rel, phi_rel, pt / jet_pt[:, None]], axis=-1)
    assert relative_mass(particles) * jet_pt == pytest.approx(mass, rel=1e-9)


def test_padding_and_a_single_particle_have_no_mass():
    particles = np.zeros((2, 30, 4))
    particles[:, 0] = [0.01, -0.02, 1.0, 1.0]
    particles[1, 1] = [0.5, 0.5, 0.7, 0.0]  # masked, so it must not count
    assert relative_mass(particles) == pytest.approx([0, 0], abs=1e-7)
    assert relative_mass(particles[:, :, :3])[1] > 0.1


@pytest.mark.parametrize("shape", [(30, 4), (5, 30, 2), (5, 30, 5)])
def test_mass_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="`particles` must have shape"):
        relative_mass(np.zeros(shape))


def test_own_file_is_read_as_it_is(tmp_path):
    particles, features = make_file(tmp_path / "g.hdf5")
    jets = load_jets(source=tmp_path / "g.hdf5")
    assert len(jets) == 5
    assert jets.particles.dtype == jets.jets.dtype == np.float32
    assert np.array_equal(jets.particles, particles.astype(np.float32))
    assert np.array_equal(jets.jets, features.astype(np.float32))
    assert jets.multiplicity is None
    assert jets.provenance == {}
    assert repr(jets) == "Jets(n=5, n_particles=30, kind='unnamed')"


def test_first_jets_only(tmp_path):
    particles, _ = make_file(tmp_path / "g.hdf5", multiplicity=np.arange(5))
    jets = load_jets(source=tmp_path / "g.hdf5", n_jets=np.int64(2))
    assert np.array_equal(jets.particles, particles[:2].astype(np.float32))
    assert jets.multiplicity.tolist() == [0, 1]


def test_slices_keep_rows_together():
    n = 10
    jets = Jets(
        particles=np.arange(n * 12.0).reshape(n, 3, 4),
        jets=np.arange(n * 4.0).reshape(n, 4),
        multiplicity=np.arange(n),
        provenance={"kind": "top"},
    )
    for index in (slice(2, 7, 2), np.array([4, 1]), np.arange(n) > 6):
        part = jets[index]
        assert np.array_equal(part.particles[:, 0, 0] / 12, part.multiplicity)
        assert np.array_equal(part.jets[:, 0] / 4, part.multiplicity)
        assert part.provenance == {"kind": "top"}
    assert len(jets[:3]) == 3
    with pytest.raises(TypeError, match="take a slice or an array, got 3"):
        jets[3]


@pytest.mark.parametrize(
    ("n_jets", "message"),
    [
        (0, "`n_jets` must be positive, got 0"),
        (-3, "`n_jets` must be positive, got -3"),
        (2.5, "`n_jets` must be an integer, got 2.5"),
        (6, "`n_jets` must be at most 5 for g.hdf5, got 6"),
    ],
)
def test_wrong_number_of_jets(tmp_path, n_jets, message):
    make_file(tmp_path / "g.hdf5")
    with pytest.raises(GenampError, match=message):
        load_jets(source=tmp_path / "g.hdf5", n_jets=n_jets)


def with_value(array, value):
    array = np.array(array)
    array[2, ..., 0] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"particles": np.zeros((5, 30, 3))}, "`particle_features` must have shape"),
        ({"particles": np.zeros((5, 120))}, "`particle_features` must have shape"),
        ({"jets": np.zeros((5, 5))}, "`jet_features` must have shape"),
        ({"particles": np.zeros((0, 30, 4))}, "must have shape"),
        ({"jets": np.zeros((4, 4))}, r"as many rows, got \[4, 5\]"),
        ({"jets": with_value(np.ones((5, 4)), np.nan)}, "`jet_features` must be finite, got 1"),
        (
            {"particles": with_value(np.ones((5, 30, 4)), np.inf)},
            "`particle_features` must be finite, got 30",
        ),
        ({"particles": np.full((5, 30, 4), 0.5)}, "mask .* must be 0 or 1, got values from 0.5"),
        ({"particles": np.ones((5, 30, 4)) * [1, 1, -1, 1]}, "pt_rel must not be negative, got -1"),
    ],
)
def test_wrong_content_is_refused(tmp_path, change, message):
    make_file(tmp_path / "g.hdf5", **change)
    with pytest.raises(GenampError, match=message):
        load_jets(source=tmp_path / "g.hdf5")


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(GenampError, match=r"no\.h5: not found"):
        load_jets(source=tmp_path / "no.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(GenampError, match=r"text\.h5: must be an HDF5 file"):
        load_jets(source=tmp_path / "text.h5")
    make_file(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GenampError, match=r"half\.h5: must be an HDF5 file .*truncated"):
        load_jets(source=tmp_path / "half.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["events"] = np.zeros(3)
    with pytest.raises(GenampError, match="must have the dataset `particle_features`, has events"):
        load_jets(source=tmp_path / "other.h5")
    with pytest.raises(GenampError, match="did you mean `jets_gluon`"):
        load_jets("jets_glun")
