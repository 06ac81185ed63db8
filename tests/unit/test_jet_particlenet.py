"""ParticleNet-Lite and the perceptron on halves of a pair: who trains, who is scored."""

import numpy as np
import pytest
from scipy.special import logit

from genamp_lib.datasets import load_jets, observables_from_particles
from genamp_lib.networks import classifier, particlenet
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.particlenet import ParticleNetSettings
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.studies import ch06_jets as module
from genamp_lib.studies.ch06_jets import JetPair, mlp_pair, particlenet_pair

SETTINGS = ParticleNetSettings(n_trainings=1, n_best=1, n_epochs=1, batch_size=64)
PERCEPTRON = ClassifierSettings(n_layers=1, n_hidden=4, n_epochs=2)
COMMON = {"seed": 3, "stage": Stage("halves", version=1, configuration={"n_jets": 120})}


@pytest.fixture(scope="module")
def jets():
    return load_jets(n_jets=120)


@pytest.fixture
def pair():
    rows = np.random.default_rng(1).permutation(120)
    return JetPair(rows[:60], rows[60:110], (None, None), (None, None))


def store(folder):
    return ArtefactStore(published=folder / "published", local=folder / "local", fresh=False)


def test_no_jet_is_scored_by_networks_that_saw_it(tmp_path, jets, pair, monkeypatch):
    seen, fits = [], []

    def watch_fit(train, validation, **more):
        seen.append([set(x[:, 0]) for x in (*train, *validation)])
        fits.append(fit(train, validation, **more))
        return fits[-1]

    fit = classifier.fit_classifier
    monkeypatch.setattr(module, "fit_classifier", watch_fit)
    observables = np.column_stack([np.arange(120.0), observables_from_particles(jets.particles)])
    out = mlp_pair(observables, pair, settings=PERCEPTRON, store=store(tmp_path), **COMMON)
    for parts, one in zip(seen, fits, strict=True):
        used = set().union(*parts)
        assert sum(map(len, parts)) == len(used) == 30 + 25  # a half, each jet once
        assert [len(x) for x in parts] == [24, 20, 6, 5]
        for rows, weights in zip((pair.truth, pair.generated), out.weights, strict=True):
            unseen = ~np.isin(rows, list(used))
            scores = classifier.ensemble_logits([one.classifier], observables[rows[unseen]])
            np.testing.assert_allclose(np.log(weights[unseen]), scores, rtol=1e-5, atol=1e-6)
    assert not set().union(*seen[0]) & set().union(*seen[1])
    np.testing.assert_array_equal(out.truth, pair.truth)


def test_both_classifiers_train_on_the_same_jets(tmp_path, jets, pair, monkeypatch):
    trained = {"particlenet": [], "perceptron": []}
    fit_particlenet, fit_classifier = particlenet.fit_particlenet, classifier.fit_classifier

    def watch_particlenet(train, validation, **more):
        trained["particlenet"].append([x.features[:, 0, 0].tolist() for x in train + validation])
        return fit_particlenet(train, validation, **more)

    def perceptron(train, validation, **more):
        trained["perceptron"].append([x[:, 0].tolist() for x in train + validation])
        return fit_classifier(train, validation, **more)

    monkeypatch.setattr(particlenet, "fit_particlenet", watch_particlenet)
    monkeypatch.setattr(module, "fit_classifier", perceptron)
    particlenet_pair(jets, pair, settings=SETTINGS, store=store(tmp_path), **COMMON)
    # What tells a jet: log pt of its first particle, as the network sees it.
    first = module.particle_inputs(jets.particles, jets.jets).features[:, 0, 0].double().numpy()
    observables = np.column_stack([first, np.arange(len(first))])
    mlp_pair(observables, pair, settings=PERCEPTRON, store=store(tmp_path), **COMMON)
    assert trained["particlenet"] == trained["perceptron"]
    assert len(trained["perceptron"]) == 2


def test_logits_are_kept_and_belong_to_their_jets(tmp_path, jets, pair, monkeypatch):
    kept = store(tmp_path)
    first = particlenet_pair(jets, pair, settings=SETTINGS, store=kept, **COMMON)
    assert [one["origin"] for one in kept.used] == ["computed"]  # the logits, not the networks
    assert all(np.isfinite(logit(w / (1 + w))).all() and len(set(w)) > 40 for w in first.weights)

    def fails(*arguments, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(particlenet, "fit_particlenet", fails)
    again = store(tmp_path)
    second = particlenet_pair(jets, pair, settings=SETTINGS, store=again, **COMMON)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [one["origin"] for one in again.used] == ["local"]
    others = JetPair(pair.truth[::-1], pair.generated, pair.weights, pair.true_weights)
    with pytest.raises(AssertionError, match="trained again"):
        particlenet_pair(jets, others, settings=SETTINGS, store=again, **COMMON)
