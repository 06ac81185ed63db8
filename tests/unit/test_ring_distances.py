"""Scans of distances: the same numbers as sampling and scipy give, and resumable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from genamp_lib.datasets import Ring, radius
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.mixture.transformer import (
    MixtureTransformer,
    MixtureTransformerSettings,
    starting_parameters,
)
from genamp_lib.store import ArtefactStore
from genamp_lib.studies.ch03_rings import (
    COUNTS,
    ScanSettings,
    ScanTask,
    distance_scan,
    distance_scans,
    fit_ring_classifiers,
    log_ratio_to_truth,
    score,
    within,
)

RING = Ring(2)
NETWORK = MixtureTransformerSettings(2)
MODEL = MixtureTransformer(NETWORK, starting_parameters(NETWORK, seeds=[5]))
CLASSIFIER = ClassifierSettings(n_layers=1, n_hidden=8, dropout=0.0, n_epochs=2, batch_size=50)
SETTINGS = ScanSettings(
    window=(0.85, 1.15),
    sizes=(50, 400),
    classifier=CLASSIFIER,
    n_classifier=1500,
    n_folds=3,
    n_holdout=700,
    holdout_seed=8,
)
TRAIN = RING.sample(300, seed=1)


@pytest.fixture(scope="module")
def scan():
    return distance_scan(ScanTask(RING, TRAIN, seed=3, model=MODEL), settings=SETTINGS)


def test_distances_are_those_of_the_sampled_events(scan):
    seed = int(np.random.SeedSequence(3).generate_state(2)[0])
    generator = torch.Generator().manual_seed(seed)
    parts = [MODEL.sample(500, generator=generator)[0].double().numpy() for _ in range(20)]
    events = np.concatenate([part[within(part, SETTINGS.window)] for part in parts])
    holdout = RING.sample(700, seed=8)
    references = {"train": TRAIN, "holdout": holdout}
    for name, reference in references.items():
        reference = reference[within(reference, SETTINGS.window)]
        for statistic in ("radius", "truth"):
            for size, ours in zip(SETTINGS.sizes, scan[f"full/{statistic}/{name}"], strict=True):
                pair = reference, events[:size]
                if statistic == "radius":
                    values = [radius(x) for x in pair]
                else:
                    values = [log_ratio_to_truth(MODEL, RING, x, SETTINGS.window)[0] for x in pair]
                # Networks compute in float32, and not in the same chunks.
                assert ours == pytest.approx(ks_2samp(*values).statistic, abs=2e-3)


def test_counts_are_in_order(scan):
    counts = dict(zip(COUNTS, scan["counts"], strict=True))
    n_train = int(within(TRAIN, SETTINGS.window).sum())
    assert counts["train"] == n_train
    assert counts["split"] == n_train - n_train // 2
    assert 400 <= counts["generated"] <= counts["drawn"]
    assert 0 <= counts["generated_cut"] <= counts["generated"]
    assert (
        counts["holdout_cut"]
        <= counts["holdout"]
        == within(RING.sample(700, seed=8), SETTINGS.window).sum()
    )


def test_a_refined_sample_that_is_too_small_ends_in_nan(scan):
    n_cut = dict(zip(COUNTS, scan["counts"], strict=True))["generated_cut"]
    reached = np.array(SETTINGS.sizes) <= n_cut
    assert (np.isfinite(scan["cut/radius/train"]) == reached).all()


def test_a_null_run_has_no_ratio_to_the_truth():
    names = list(distance_scan(ScanTask(RING, TRAIN, seed=4), settings=SETTINGS))
    assert not [name for name in names if "truth" in name]
    assert {"full/crossed/train", "full/own/train", "full/half/train"} <= set(names)


def test_new_events_are_scored_by_all_folds_in_turn():
    train, generated = (RING.sample(n, seed=n) for n in (200, 210))
    classifiers = fit_ring_classifiers(train, generated, settings=CLASSIFIER, n_folds=3, seed=1)
    events = RING.sample(30, seed=2)
    scores = classifiers.crossed(events)
    for k, classifier in enumerate(classifiers.folds):
        own = score(classifier, events)
        np.testing.assert_allclose(scores[k::3], own[k::3], rtol=1e-5, atol=1e-7)
    assert classifiers.crossed_train.shape == (200,)
    assert classifiers.half_train.shape == (100,)


def test_scores_are_larger_where_more_is_generated():
    """Sign: p_generated/p_train. The generated ring is shifted; 3 sigma of the radius apart."""
    train, generated = RING.sample(600, seed=1), 1.3 * RING.sample(600, seed=2)
    kind = replace(CLASSIFIER, n_hidden=16, n_epochs=60, learning_rate=1e-2)
    classifiers = fit_ring_classifiers(train, generated, settings=kind, n_folds=3, seed=1)
    new = classifiers.crossed(1.3 * RING.sample(600, seed=3))
    assert new.mean() > 1 > -1 > classifiers.crossed_train.mean()


def test_scans_are_stacked_and_kept(tmp_path):
    settings = replace(SETTINGS, classifier=None)
    tasks = [ScanTask(RING, TRAIN, seed=seed, model=MODEL) for seed in (1, 2)]
    store = ArtefactStore(published=tmp_path / "none", local=tmp_path / "local", fresh=False)
    for _ in range(2):
        scans = distance_scans(tasks, settings=settings, store=store, name="scan")
        for name, array in distance_scan(tasks[1], settings=settings).items():
            np.testing.assert_array_equal(scans[name][1], array)
    assert [used["origin"] for used in store.used] == ["computed", "local"]


def test_there_must_be_tasks(tmp_path):
    store = ArtefactStore(published=tmp_path, local=tmp_path, fresh=False)
    with pytest.raises(ValueError, match="tasks"):
        distance_scans([], settings=SETTINGS, store=store, name="scan")
