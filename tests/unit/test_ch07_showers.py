"""Showers as the flows of chapter 07 see them, the generators, and what weighs them."""

from pathlib import Path

import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.datasets import Showers, load_showers, sample_path, shower_observables
from genamp_lib.datasets.rows import unrounded
from genamp_lib.datasets.showers import THRESHOLD
from genamp_lib.diagnostics import auc_from_weights
from genamp_lib.networks.classifier import ClassifierSettings, RawClassifierSettings
from genamp_lib.networks.conditional_flow import (
    ConditionalFlowSettings,
    fitted_conditional_flows,
)
from genamp_lib.simulation.samples import round_mantissa
from genamp_lib.store import ArtefactStore
from genamp_lib.studies import ch07_showers
from genamp_lib.studies.ch07_coordinates import (
    above_threshold,
    layer_coordinates,
    layer_energies,
    layers_of_coordinates,
    one_step_coordinates,
    one_step_voxels,
    two_step_voxels,
    voxel_coordinates,
)
from genamp_lib.studies.ch07_showers import (
    KEPT,
    OBSERVABLES,
    ShowerClassifiers,
    ShowerGenerator,
    ShowerTraining,
    flow_tasks,
    generate_showers,
    held_out_showers,
    null_showers,
    observable_inputs,
    overfitted_showers,
    scaled_generators,
    table_1_inputs,
    weighed_showers,
)

FLOW = ConditionalFlowSettings(
    n_transforms=2, n_layers=1, n_hidden=8, n_bins=4, n_epochs=1, batch_size=50
)
GENERATORS = {"one": ShowerGenerator(FLOW), "two": ShowerGenerator(FLOW, FLOW)}
CLASSIFIERS = ShowerClassifiers(
    RawClassifierSettings(n_layers=1, n_hidden=8, n_epochs=1),
    ClassifierSettings(n_layers=1, n_hidden=8, n_epochs=1),
)
TRAINING = ShowerTraining("gamma", 120, simulated=False)


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


def cells(particle: str, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    showers = load_showers(particle, n_showers=n)
    return above_threshold(showers.voxels), showers.energy.astype(np.float64)


@pytest.mark.parametrize("particle", ["eplus", "gamma", "piplus"])
def test_one_step_is_inverted_up_to_its_noise(particle: str) -> None:
    voxels, energy = cells(particle)
    features, conditions = one_step_coordinates(voxels, energy, seed=1)
    assert features.shape == (200, 507)
    assert conditions[:, 0] == pytest.approx(np.log(energy))
    back = one_step_voxels(features, energy)
    # Noise of up to a tenth of the threshold in each cell.
    assert np.abs(back - voxels).max() < THRESHOLD
    assert np.abs(back - voxels)[voxels > 2 * THRESHOLD].max() < 1.1e-3


@pytest.mark.parametrize("particle", ["eplus", "gamma", "piplus"])
def test_two_steps_are_inverted(particle: str) -> None:
    voxels, energy = cells(particle)
    first = layer_coordinates(voxels, energy, seed=1)
    layers, counts = layers_of_coordinates(first, energy)
    true = layer_energies(voxels)
    assert layers[true > 0] == pytest.approx(true[true > 0], rel=1e-5)
    assert layers[true == 0].max(initial=0) < THRESHOLD  # noise in the place of nothing
    ends = np.split(voxels > 0, [288, 432], axis=1)
    assert np.array_equal(counts, np.stack([part.sum(axis=1) for part in ends], axis=1))
    back = two_step_voxels(voxel_coordinates(voxels, seed=2), layers, counts)
    # A cell at the threshold can be lost by rounding.
    assert np.abs(back - voxels).max() < 1.1 * THRESHOLD + 1e-4
    assert ((back > 0) != (voxels > 0)).mean() < 1e-3


@pytest.mark.parametrize("energy_per_cell", [1.5 * THRESHOLD, 100.0])
def test_the_second_step_keeps_what_the_first_one_says(energy_per_cell: float) -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 60, (50, 3))
    # Also where the layer's energy is little more than that many cells need.
    layers = energy_per_cell * counts
    made = two_step_voxels(rng.normal(5, 1, (50, 504)), layers, counts)
    ends = np.split(made, [288, 432], axis=1)
    assert np.array_equal(np.stack([(e > 0).sum(axis=1) for e in ends], axis=1), counts)
    assert layer_energies(made) == pytest.approx(layers)
    assert not ((made > 0) & (made <= THRESHOLD)).any()


def test_counts_beyond_what_is_possible_are_cut() -> None:
    first = np.array([[0.0, 0.0, 0.0, 20.0, -5.0, 20.0], [-20.0, 0.0, 0.0, 3.0, 3.0, 3.0]])
    layers, counts = layers_of_coordinates(first, np.array([50.0, 1.0]))
    assert counts[0].tolist() == [288, 0, 72]
    # A layer cannot hold more cells above the threshold than its energy allows.
    assert (counts[1] <= layers[1] / THRESHOLD).all()


def test_generators_make_showers_above_the_threshold(store: ArtefactStore) -> None:
    energy = np.linspace(1, 100, 40)
    for generator in GENERATORS.values():
        tasks = flow_tasks(generator, TRAINING, seed=1)
        flows = [fit.flow for fit in fitted_conditional_flows(tasks, store=store)]
        made = generate_showers(flows, energy, seed=2)
        assert made.shape == (40, 504)
        assert np.isfinite(made).all()
        assert not ((made > 0) & (made <= THRESHOLD)).any()
        assert np.array_equal(made, generate_showers(flows, energy, seed=2))


def test_weighed_showers_keep_what_the_classifiers_saw(store: ArtefactStore) -> None:
    how = {"classifiers": CLASSIFIERS, "seed": 1, "store": store}
    found = weighed_showers(GENERATORS["two"], TRAINING, 60, **how)
    for by in ("table_1", "observables"):
        assert found[f"{by}.truth"].shape == found[f"{by}.generated"].shape == (60,)
    assert found["energy"].min() >= 1
    assert found["energy"].max() <= 100
    # Twelve showers to look at, in the order of their weights, with their observables.
    order = np.argsort(found["observables.generated"])
    assert np.array_equal(found["shown"], np.r_[order[:4], order[30:34], order[-4:]])
    made = ch07_showers.showers_of("gamma", found["voxels"], found["energy"][found["shown"]])
    again = shower_observables(made)
    for name in KEPT:
        values = again[name]
        assert values == pytest.approx(found[name][found["shown"]], rel=1e-5), name


def test_inputs_of_both_classifiers() -> None:
    showers = held_out_showers("piplus", 50)
    voxels = showers.voxels
    assert not ((voxels > 0) & (voxels <= THRESHOLD)).any()
    raw = table_1_inputs(showers)
    assert raw.shape == (50, 508)
    assert raw[:, :504] == pytest.approx(voxels / 1e5)
    own = observable_inputs(shower_observables(showers), showers.energy)
    assert own.shape == (50, 13)
    assert np.isfinite(own).all()
    place = OBSERVABLES.index("energy_1")
    assert 10 ** own[:, place] == pytest.approx(showers.layer_1.sum(axis=(1, 2)) + 1e-3, rel=1e-4)


def test_null_runs_say_nothing(store: ArtefactStore) -> None:
    training = ShowerTraining("piplus", 900, simulated=False)
    found = null_showers(training, 450, classifiers=CLASSIFIERS, seed=1, store=store)
    for by in ("table_1", "observables"):
        pair = [np.exp(found[f"{by}.{k}"].astype(float)) for k in ("truth", "generated")]
        # Five standard deviations of the AUC of 450 against 450, twice the variance.
        assert abs(auc_from_weights(*pair) - 0.5) < 0.14


def test_a_classifier_of_two_true_samples_learns_them_by_heart(
    store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(showers: Showers) -> np.ndarray:
        inputs = observable_inputs(shower_observables(showers), showers.energy)
        return (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)

    monkeypatch.setattr(ch07_showers, "table_1_inputs", scaled)
    training = ShowerTraining("piplus", 900, simulated=False)
    loud = RawClassifierSettings(n_layers=2, n_hidden=64, n_epochs=60, patience=60, batch_size=100)
    heart = overfitted_showers(training, settings=loud, epochs=(1, 60), seed=2, store=store)
    assert heart["truth.1"].shape == heart["generated.60"].shape == (75,)
    assert len(heart["train_loss"]) == 60
    # It moves away from weights of one although nothing distinguishes the samples.
    assert heart["truth.60"].std() > 2 * heart["truth.1"].std()


def test_missing_training_showers_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ch07_showers, "project_root", lambda: tmp_path)
    with pytest.raises(GenampError, match=r"showers_gamma_seed21.h5: .*genamp data simulate show"):
        ShowerTraining("gamma", 12_000).showers()


def test_other_training_showers_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "_build/simulate"
    folder.mkdir(parents=True)
    (folder / "showers_gamma_seed21.h5").symlink_to(sample_path("showers_gamma"))
    monkeypatch.setattr(ch07_showers, "project_root", lambda: tmp_path)
    with pytest.raises(GenampError, match=r"showers_gamma_seed21.h5: .*has others; remove it"):
        ShowerTraining("gamma", 3_000).showers()


def test_fewer_showers_than_folds(store: ArtefactStore) -> None:
    with pytest.raises(ValueError, match="must have at least 5 events, one per fold"):
        null_showers(TRAINING, 3, classifiers=CLASSIFIERS, seed=1, store=store)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_of_epochs_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match="`epoch_share` must be in"):
        scaled_generators(share)


def test_rounding_is_undone_within_its_steps() -> None:
    showers = load_showers("gamma", n_showers=100)
    hit = showers.voxels > 0
    spread = np.where(hit, unrounded(showers.voxels, 10, seed=1), 0.0)
    assert np.array_equal(spread > 0, hit)
    again = round_mantissa(spread.astype(np.float32), 10)
    # Below a power of two the step is half as wide: some of them are rounded down.
    power = np.frexp(showers.voxels)[0] == 0.5
    assert np.array_equal(again[hit & ~power], showers.voxels[hit & ~power])
    assert len(np.unique(spread[hit])) == hit.sum()
