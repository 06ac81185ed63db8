"""The jet chain against a plain loop over particles, and samples that survive a kill."""

import json
import time
from importlib.metadata import PackageNotFoundError

import h5py
import numpy as np
import pytest
from tests_support import simulate_and_kill

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.datasets import load_jets, relative_mass
from genamp_lib.datasets.jets import JET_FIELDS, PARTICLE_FIELDS
from genamp_lib.simulation import jets as chain
from genamp_lib.simulation import samples
from genamp_lib.simulation.samples import (
    jet_datasets,
    round_mantissa,
    simulate_jets,
    write_sample,
)


def jets_by_a_plain_loop(seed, kind, n_events, radius):
    """The same jets from one event at a time and one particle at a time: (jet, constituents)."""
    import fastjet
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in ("Print:quiet = on", "Random:setSeed = on", f"Random:seed = {seed}"):
        pythia.readString(line)
    for line in (*chain.PYTHIA_SETTINGS, *chain.KINDS[kind]):
        pythia.readString(line)
    pythia.init()
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    chosen = []
    for event in range(n_events):
        assert pythia.next()
        inputs = [
            fastjet.PseudoJet(p.px(), p.py(), p.pz(), p.e())
            for p in pythia.event
            if p.isFinal() and p.isVisible()
        ]
        sequence = fastjet.ClusterSequence(inputs, definition)
        jet = fastjet.sorted_by_pt(sequence.inclusive_jets())[event % 2]
        if 800 < jet.pt() < 1600 and abs(jet.eta()) < 2.5:
            parts = fastjet.sorted_by_pt(jet.constituents())
            rows = [[p.eta() - jet.eta(), jet.delta_phi_to(p), p.pt() / jet.pt()] for p in parts]
            values = [jet.pt(), jet.eta(), jet.m(), min(len(rows), 30)]
            chosen.append((values, rows))
    return chosen


@pytest.mark.simulate
@pytest.mark.parametrize(
    ("kind", "radius"), [("gluon", 0.8), ("gluon", 0.4), ("light", 0.8), ("top", 0.8)]
)
def test_vectorised_chain_is_the_plain_loop(needs_extra, kind, radius, monkeypatch):
    n_events, seed = 10, 4321
    expected = jets_by_a_plain_loop(seed, kind, n_events, radius)
    assert 5 <= len(expected) <= n_events
    monkeypatch.setattr(chain, "EVENTS_PER_BATCH", 4)  # three batches, the last one not full
    made = chain.make_jets(0, seed, kind=kind, n_events=n_events, radius=radius)
    assert made["particles"].shape == (len(expected), 30, 4)
    assert made["particles"].dtype == made["jets"].dtype == np.float32
    assert made["jets"] == pytest.approx(np.array([jet for jet, _ in expected]), rel=1e-6)
    assert made["multiplicity"].tolist() == [len(rows) for _, rows in expected]
    for particles, (_, rows) in zip(made["particles"], expected, strict=True):
        rows = np.array(rows[:30])
        assert particles[: len(rows), :3] == pytest.approx(rows, rel=1e-5, abs=1e-6)
        assert particles[:, 3].tolist() == [1.0] * len(rows) + [0.0] * (30 - len(rows))
        assert not particles[len(rows) :].any()


@pytest.mark.simulate
def test_constituents_add_up_to_the_jet(needs_extra, monkeypatch):
    """Transverse momentum balances about the axis; massless constituents give a smaller mass."""
    monkeypatch.setattr(chain, "N_PARTICLES", 400)  # more than any jet has: nothing cut away
    made = chain.make_jets(0, 17, kind="gluon", n_events=40)
    assert made["multiplicity"].max() < 400
    _, phi, pt, mask = np.moveaxis(made["particles"].astype(np.float64), -1, 0)
    assert mask.sum(axis=1) == pytest.approx(made["multiplicity"])
    # float32 coordinates: relative error 6e-8 each, some hundred terms.
    assert (pt * np.cos(phi)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (pt * np.sin(phi)).sum(axis=1) == pytest.approx(0, abs=1e-5)
    ratio = relative_mass(made["particles"]) * made["jets"][:, 0] / made["jets"][:, 2]
    assert ratio.max() < 1
    # The masses of the hadrons matter for narrow jets only.
    assert np.median(ratio) > 0.9


@pytest.mark.simulate
def test_sample_is_the_same_bytes_for_two_processes_and_after_a_kill(needs_extra, tmp_path):
    settings = {"n_jets": 25, "seed": 11, "events_per_shard": 6}
    one = simulate_jets(tmp_path / "one.h5", folder=tmp_path / "one", jobs=1, **settings)

    arguments = f"**{settings}, jobs=2"
    simulate_and_kill("simulate_jets", arguments, tmp_path / "two.h5", tmp_path / "two")
    assert len(list((tmp_path / "two").glob("shard-*.json"))) < one["provenance"]["n_shards"]

    two = simulate_jets(tmp_path / "two.h5", folder=tmp_path / "two", jobs=2, **settings)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert one["sha256"] == two["sha256"] == sha256_of_file(tmp_path / "one.h5")

    # Fewer jets from the same shards are the first ones, and the provenance says what they took.
    few = simulate_jets(tmp_path / "few.h5", folder=tmp_path / "one", **{**settings, "n_jets": 8})
    whole, part = load_jets(source=tmp_path / "one.h5"), load_jets(source=tmp_path / "few.h5")
    assert len(whole) == 25
    assert np.array_equal(whole.particles[:8], part.particles)
    assert np.array_equal(whole.multiplicity[:8], part.multiplicity)
    assert part.provenance["n_shards"] < whole.provenance["n_shards"]
    assert json.loads((tmp_path / "few.h5.json").read_text()) == few
    assert few["provenance"] == part.provenance
    assert few["rows"] == 8

    with pytest.raises(GenampError, match=r"one\.h5: exists; remove it"):
        simulate_jets(tmp_path / "one.h5", folder=tmp_path / "one", **settings)


def test_guessed_number_of_shards_leaves_no_trace(tmp_path, monkeypatch):
    def toy_jets(index, seed, *, kind, n_events, radius):
        n = n_events // 2 + index % 2
        particles = np.full((n, 30, 4), [0.1, -0.1, 1 / 30, 1], dtype=np.float32)
        particles[:, ::2, :2] *= -1
        jets = np.full((n, 4), seed, dtype=np.float32)
        return {"particles": particles, "jets": jets, "multiplicity": np.full(n, 30)}

    monkeypatch.setattr(chain, "version", lambda package: "1.0")
    monkeypatch.setattr(chain, "make_jets", toy_jets)
    files = []
    for guess in (0.01, 0.5, 50.0):  # far too many shards at once, about right, one after the other
        monkeypatch.setitem(samples.GUESSED_EFFICIENCY, "jets", guess)
        path = tmp_path / f"{guess}.h5"
        record = simulate_jets(
            path, n_jets=50, seed=1, events_per_shard=20, folder=tmp_path / f"{guess}"
        )
        # 10 + 11 + 10 + 11 + 10 jets of 20 events each
        assert record["provenance"]["n_shards"] == 5
        assert record["provenance"]["n_events"] == 100
        assert record["provenance"]["jets_per_event"] == 0.52
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
    assert len(list((tmp_path / "0.01").glob("*.json"))) > 5


@pytest.mark.simulate
def test_pythia_refuses_a_setting_that_it_does_not_know(needs_extra, monkeypatch):
    monkeypatch.setitem(chain.KINDS, "gluon", ("HardQCD:gg2gluons = on",))
    with pytest.raises(GenampError, match="refuses the setting `HardQCD:gg2gluons = on`"):
        chain.make_jets(0, 1, kind="gluon", n_events=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "higgs"}, "`kind` must be one of gluon, light, top, got `higgs`"),
        ({"n_jets": -5}, "`n_jets` must be positive, got -5"),
        ({"jobs": 0}, "`jobs` must be positive, got 0"),
        ({"events_per_shard": 0}, "`events_per_shard` must be positive, got 0"),
        ({"seed": -1}, "`seed` must not be negative, got -1"),
        ({"radius": 2.0}, "`radius` must be between 0 and pi/2, got 2.0"),
    ],
)
def test_arguments_are_checked_before_work(tmp_path, change, message):
    with pytest.raises(GenampError, match=message):
        simulate_jets(tmp_path / "jets.h5", folder=tmp_path / "work", **change)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", chain.PACKAGES)
def test_missing_extra_is_one_line_with_the_remedy(tmp_path, monkeypatch, missing):
    def version(package):
        if package == missing:
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(chain, "version", version)
    with pytest.raises(GenampError, match=rf"`{missing}` is needed .*run `pip install 'pythia8mc"):
        simulate_jets(tmp_path / "jets.h5", folder=tmp_path / "work")


@pytest.mark.parametrize("bits", [4, 11, 22])
def test_rounding_keeps_order_zeros_and_precision(bits):
    values = np.random.default_rng(2).normal(size=20_000).astype(np.float32)
    values[:3] = [0.0, 1.0, np.nextafter(np.float32(2), np.float32(0))]
    rounded = round_mantissa(values, bits)
    assert rounded.dtype == np.float32
    assert (rounded.view(np.uint32) & (2 ** (23 - bits) - 1) == 0).all()
    assert rounded[:3].tolist() == [0.0, 1.0, 2.0]
    nonzero = values != 0
    change = np.abs(rounded[nonzero].astype(float) / values[nonzero].astype(float) - 1)
    assert 2.0 ** -(bits + 2) < change.max() <= 2.0 ** -(bits + 1)
    assert (np.diff(rounded[np.argsort(values)]) >= 0).all()
    assert np.array_equal(round_mantissa(rounded, bits), rounded)


def test_rounding_refuses_other_widths():
    for bits in (0, 23):
        with pytest.raises(ValueError, match=f"`bits` must be from 1 to 22, got {bits}"):
            round_mantissa(np.zeros(1, dtype=np.float32), bits)


def test_written_file_is_read_back_and_has_the_same_bytes_later(tmp_path):
    rng = np.random.default_rng(5)
    particles = rng.uniform(size=(7, 30, 4)).astype(np.float32)
    particles[..., 3] = 1
    arrays = {
        "particles": particles,
        "jets": rng.uniform(size=(7, 4)).astype(np.float32),
        "multiplicity": np.arange(7, dtype=np.uint16),
    }
    # The order in which the shipped samples, whose checksums are in the registry, were written.
    assert list(jet_datasets(arrays)) == ["jet_features", "particle_features", "multiplicity"]
    write_sample(tmp_path / "first.h5", jet_datasets(arrays), {"kind": "gluon"})
    time.sleep(1.1)  # HDF5's time stamps count seconds
    write_sample(tmp_path / "second.h5", jet_datasets(arrays), {"kind": "gluon"})
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()
    jets = load_jets(source=tmp_path / "first.h5")
    assert np.array_equal(jets.particles, particles)
    assert np.array_equal(jets.jets, arrays["jets"])
    assert np.array_equal(jets.multiplicity, arrays["multiplicity"])
    assert jets.provenance == {"kind": "gluon"}
    with h5py.File(tmp_path / "first.h5") as file:
        assert list(file["particle_features"].attrs["fields"]) == list(PARTICLE_FIELDS)
        assert list(file["jet_features"].attrs["fields"]) == list(JET_FIELDS)
