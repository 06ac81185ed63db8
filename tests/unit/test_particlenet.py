"""ParticleNet-Lite: neighbours, masks, order of particles, and a training that can be killed."""

import numpy as np
import pytest
import torch

from genamp_lib.datasets import load_jets
from genamp_lib.networks import particlenet as training
from genamp_lib.networks.particlenet import (
    ParticleNetLite,
    ParticleNetSettings,
    Particles,
    fit_particlenet,
    nearest_neighbours,
    particle_inputs,
    particlenet_logits,
)


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def random_jets(n_jets=6, n_particles=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n_jets, n_particles, generator=generator) < 0.8
    mask[:, 0] = True
    mask[0, 3:] = False  # fewer particles than neighbours
    return Particles(
        torch.randn(n_jets, n_particles, 2, generator=generator),
        torch.randn(n_jets, n_particles, 7, generator=generator),
        mask,
    )


def network(seed=0):
    torch.manual_seed(seed)
    return ParticleNetLite(n_neighbours=4, widths=((8, 8), (6, 6)), n_hidden=5)


def test_neighbours_are_the_nearest_real_particles_of_the_jet():
    jets, k = random_jets(), 4
    found = nearest_neighbours(jets.coordinates, jets.mask, k)
    place = np.cumsum(jets.mask.flatten().numpy()) - 1
    row = 0
    for jet, mask in enumerate(jets.mask.numpy()):
        real = np.flatnonzero(mask)
        for i in real:
            others = [j for j in real if j != i]
            away = ((jets.coordinates[jet, others] - jets.coordinates[jet, i]) ** 2).sum(-1).numpy()
            nearest = [others[n] for n in np.argsort(away)[:k]]
            nearest += [i] * (k - len(nearest))
            expected = [place[jet * len(mask) + j] for j in nearest]
            assert found[row].tolist() == expected
            row += 1


def test_order_of_particles_does_not_matter():
    jets, order = random_jets(), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = Particles(*(x[:, order] for x in (jets.coordinates, jets.features, jets.mask)))
    for mode in (True, False):
        net = network().train(mode)
        net.head[2].p = 0.0  # dropout is drawn per jet, not per particle
        torch.testing.assert_close(net(jets), net(moved), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_padding_does_not_matter(mode):
    jets = random_jets()
    padded = Particles(
        torch.where(jets.mask[..., None], jets.coordinates, 99.0),
        torch.where(jets.mask[..., None], jets.features, -99.0),
        jets.mask,
    )
    net = network().train(mode)
    net.head[2].p = 0.0
    torch.testing.assert_close(net(jets), net(padded))
    # A particle more does matter: the test can fail.
    more = Particles(padded.coordinates, padded.features, torch.ones_like(jets.mask))
    assert not torch.allclose(net(jets), net(more))


def test_gradients_reach_every_parameter():
    net = network()
    net(random_jets()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_inputs_are_finite_and_relative_to_the_jet():
    jets = load_jets(n_jets=50)
    inputs = particle_inputs(jets.particles, jets.jets)
    assert torch.isfinite(inputs.features).all()
    real = inputs.features[inputs.mask]
    pt = jets.jets[:, 0][np.nonzero(inputs.mask.numpy())[0]]
    np.testing.assert_allclose(real[:, 0] - real[:, 5], np.log(pt), rtol=1e-5)


def test_bad_inputs():
    with pytest.raises(ValueError, match="got none in jet 0"):
        particle_inputs(np.zeros((2, 3, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="`n_neighbours` must be less than the 4 particles"):
        network()(random_jets(n_particles=4))
    with pytest.raises(ValueError, match="`n_best` must be at most `n_epochs` = 2, got 3"):
        ParticleNetSettings(n_epochs=2, n_best=3)


SETTINGS = ParticleNetSettings(
    n_trainings=1, n_best=2, n_epochs=3, batch_size=20, chunk_size=12, patience=1
)


def samples(seed):
    truth, generated = random_jets(30, 9, seed), random_jets(24, 9, seed + 1)
    return truth, Particles(generated.coordinates, generated.features + 0.5, generated.mask)


def fit(folder):
    return fit_particlenet(
        samples(1), samples(3), settings=SETTINGS, seed=[1, 0], checkpoint=folder / "training"
    )


def test_a_killed_training_ends_with_the_same_numbers(tmp_path, monkeypatch):
    whole, score, epochs = fit(tmp_path / "a"), training._scores, []

    def dies_in_the_second_epoch(*arguments):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    (tmp_path / "a" / "training").unlink()
    monkeypatch.setattr(training, "_scores", dies_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "a")
    resumed = fit(tmp_path / "a")
    assert len(epochs) == 2 + 2  # one epoch was done
    np.testing.assert_array_equal(whole.validation_loss, resumed.validation_loss)
    jets = samples(5)[0]
    logits = particlenet_logits(whole.networks, jets)
    assert logits.shape == (SETTINGS.n_best, len(jets))
    np.testing.assert_array_equal(logits, particlenet_logits(resumed.networks, jets))


def test_the_best_epochs_are_kept(tmp_path):
    one = fit(tmp_path)
    jets, (signs, weights) = training._joined(samples(3))
    logits = torch.from_numpy(particlenet_logits(one.networks, jets))
    losses = (weights * torch.nn.functional.softplus(-signs * logits)).mean(1)
    np.testing.assert_allclose(losses, np.sort(one.validation_loss)[:2], rtol=1e-5)
