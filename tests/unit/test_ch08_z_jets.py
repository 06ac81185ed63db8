"""The chain of flows of chapter 08, its weights and the gate of its classifier."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genamp_lib._project import GenampError
from genamp_lib.datasets.z_jets import z_jet_momenta, z_jet_observables
from genamp_lib.diagnostics import auc_from_weights
from genamp_lib.networks.bayesian_flow import PosteriorSettings
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.conditional_flow import ConditionalFlowSettings
from genamp_lib.store import ArtefactStore
from genamp_lib.studies import ch08_z_jets
from genamp_lib.studies.ch08_posterior import BINS, bin_pulls, measure_posterior
from genamp_lib.studies.ch08_z_jets import (
    GENERATORS,
    ZJetGenerator,
    ZJetTraining,
    auc_gap,
    binned_logits,
    chain_conditions,
    chain_events,
    chain_tasks,
    generate_z_jets,
    null_weights,
    scaled_generators,
    trained_flows,
    weighed_events,
)

SMALL = ZJetTraining({1: 300, 2: 200, 3: 100}, simulated=False)
FLOW = ConditionalFlowSettings(n_transforms=2, n_layers=1, n_hidden=16, batch_size=100)
GENERATOR = ZJetGenerator(False, (2, 2, 2), FLOW)
CLASSIFIER = ClassifierSettings(n_layers=1, n_hidden=8, n_epochs=1)


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(published=tmp_path / "published", local=tmp_path / "local", fresh=False)


def test_each_flow_sees_the_events_that_have_its_jet() -> None:
    sizes = [(600, 9, 3), (300, 4, 10), (100, 4, 13)]
    for part, (n, n_features, n_conditions) in enumerate(sizes):
        features, conditions = chain_events(SMALL, part)
        assert features.shape == (n, n_features)
        assert conditions.shape == (n, n_conditions)
    assert chain_events(SMALL, 0)[1].sum(axis=0).tolist() == [300, 200, 100]
    assert chain_events(SMALL, 1)[1][:, -1].sum() == 100  # have a third jet
    # What a flow is given in generation is what it was given in training.
    for part, n_jets in ((0, 2), (1, 3), (2, 3)):
        before = np.zeros((5, (0, 9, 13)[part]))
        assert chain_conditions(before, n_jets, part).shape == (5, sizes[part][2])


def test_a_chain_makes_events_of_each_multiplicity(store: ArtefactStore) -> None:
    flows = trained_flows(chain_tasks(GENERATOR, SMALL, seed=1), store)
    for n_jets in (1, 2, 3):
        made = generate_z_jets(flows, n_jets, 50, seed=3)
        assert made.shape == (50, 5 + 4 * n_jets)
        assert np.isfinite(z_jet_momenta(made)).all()
        assert np.array_equal(made, generate_z_jets(flows, n_jets, 50, seed=3))
    again = trained_flows(chain_tasks(GENERATOR, SMALL, 1, seed=1), store)
    assert len(again) == 1
    assert {one["origin"] for one in store.used[3:]} == {"local"}


def test_weighed_events_keep_what_the_classifier_saw(store: ArtefactStore) -> None:
    how = {"training": SMALL, "classifier": CLASSIFIER, "seed": 1, "store": store}
    found = weighed_events(GENERATOR, 2, 60, keep=True, **how)
    assert found["truth"].shape == found["generated"].shape == (60,)
    observables = z_jet_observables(z_jet_momenta(found["coordinates"]))
    assert found["m_mumu"] == pytest.approx(observables["m_mumu"], rel=1e-6)
    assert "coordinates" not in weighed_events(GENERATOR, 2, 60, **how)


def test_a_null_run_says_nothing(store: ArtefactStore) -> None:
    found = null_weights(1, 500, classifier=CLASSIFIER, seed=1, store=store)
    # Five standard deviations of the AUC of 500 against 500 events, twice the variance.
    assert abs(auc_from_weights(*(np.exp(found[k]) for k in ("truth", "generated"))) - 0.5) < 0.14


def test_the_histogram_of_one_observable_finds_what_it_can() -> None:
    rng = np.random.default_rng(1)
    same = binned_logits(*rng.normal(size=(2, 20_000)))
    # Scored by the other half: noise does not look like power. Five standard deviations.
    assert abs(auc_from_weights(*map(np.exp, same)) - 0.5) < 0.015
    moved = binned_logits(rng.normal(1.0, 1.0, 20_000), rng.normal(size=20_000))
    # Phi(1 / sqrt 2) for the exact ratio.
    assert auc_from_weights(*map(np.exp, moved)) == pytest.approx(0.7602, abs=0.012)


def test_the_error_of_a_gap_is_its_spread() -> None:
    rng = np.random.default_rng(2)
    gaps, errors = [], []
    for _ in range(400):
        truth, generated = rng.normal(0.5, 1, 200), rng.normal(0, 1, 300)
        blurred = [x + rng.normal(0, 1, len(x)) for x in (truth, generated)]
        gap, error = auc_gap((truth, generated), tuple(blurred))
        gaps.append(gap)
        errors.append(error)
    # Cross-fitting: twice the variance is stated; here the scores are fixed.
    assert np.mean(errors) / np.std(gaps) == pytest.approx(np.sqrt(2), rel=0.2)
    expected = 0.6382 - 0.5987  # Phi(0.5 / sqrt 2) and Phi(0.5 / 2)
    assert np.mean(gaps) == pytest.approx(expected, abs=5 * np.std(gaps) / 20)


def test_missing_training_events_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ch08_z_jets, "project_root", lambda: tmp_path)
    with pytest.raises(GenampError, match=r"z_jets_2j_seed21.h5: .*genamp data simulate z-jets"):
        ZJetTraining().events(2)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_of_epochs_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"`epoch_share` must be in \(0, 1\]"):
        scaled_generators(share)


def test_equal_budget_means_equal() -> None:
    long = replace(GENERATORS["state of the art"], whitening=True)
    short = replace(GENERATORS["standard"], whitening=False)
    assert GENERATORS["whitened, trained longer"] == long
    assert GENERATORS["plain, trained shorter"] == short
    assert scaled_generators(1.0) == GENERATORS


def test_a_posterior_is_measured_draw_by_draw(store: ArtefactStore) -> None:
    how = {"training": SMALL, "settings": PosteriorSettings(n_steps=5), "n_draws": 3}
    how |= {"seed": 1, "posterior_seed": 2, "store": store}
    with pytest.warns(UserWarning, match="collapsed: the variances are those at the start"):
        found = measure_posterior(GENERATOR, {1: 40, 3: 30}, **how)
    assert found["relative.1"].shape == (40,)
    assert found["counts.3.eta_j3"].shape == (3, len(BINS["eta_j3"]) - 1)
    assert "counts.1.dr_min" not in found
    with pytest.raises(ValueError, match="`n_draws` must be at least 2, got 1"):
        measure_posterior(GENERATOR, {1: 40}, **how | {"n_draws": 1})


def test_pulls_of_bins_are_normal_if_the_posterior_holds() -> None:
    rng = np.random.default_rng(5)
    rates = rng.uniform(50, 500, size=2000)
    # The truth is one more draw of expected counts that scatter by 10 %.
    draws = rates * (1 + 0.1 * rng.normal(size=(41, 2000)))
    counts = rng.poisson(draws)
    pulls = bin_pulls(counts[1:], counts[0], 10_000, 10_000)
    assert (np.abs(pulls) < 1).mean() == pytest.approx(0.683, abs=0.06)
    # Without the posterior's width the same truth is far off: a case that must fail.
    assert (np.abs(bin_pulls(rng.poisson(rates, (40, 2000)), counts[0], 1, 1)) < 1).mean() < 0.6
