"""Coordinates of top pairs, base densities in them, the velocity of normal events."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests_support import random_jets as jets

from genamp_lib.datasets.kinematics import to_cartesian
from genamp_lib.datasets.top_pairs import passes_cuts
from genamp_lib.networks.top_pairs.coordinates import (
    PHI,
    EventCoordinates,
    MomentumBase,
    NormalBase,
    NormalVelocity,
    wrapped,
)

N_PARTICLES = 6


def fitted(n_particles: int = N_PARTICLES) -> EventCoordinates:
    coordinates = EventCoordinates(n_particles)
    coordinates.fit(jets(500, n_particles=n_particles))
    return coordinates


class TestCoordinates:
    @pytest.mark.parametrize("n_particles", [6, 8])
    def test_round_trip(self, n_particles: int) -> None:
        coordinates = fitted(n_particles)
        events = jets(1000, seed=1, n_particles=n_particles)
        encoded = coordinates.encode(events)
        torch.testing.assert_close(coordinates.decode(encoded), events, rtol=1e-6, atol=1e-6)
        again = coordinates.encode(coordinates.decode(encoded))
        torch.testing.assert_close(again, encoded, rtol=1e-6, atol=1e-6)

    def test_the_jacobian_is_that_of_finite_differences(self) -> None:
        coordinates = fitted()
        event = jets(1, seed=3)
        size = event.numel()
        step = 1e-6 * torch.eye(size, dtype=torch.float64).reshape(size, *event.shape[1:])
        difference = coordinates.encode(event + step) - coordinates.encode(event - step)
        expected = torch.linalg.slogdet(difference.flatten(1) / 2e-6).logabsdet
        torch.testing.assert_close(
            coordinates.log_abs_det(event)[0], expected, rtol=1e-4, atol=1e-4
        )

    def test_four_momenta_are_those_of_the_event(self) -> None:
        coordinates = fitted()
        events = jets(50, seed=1)
        encoded = coordinates.encode(events)
        for x, precision in ((encoded, 1e-9), (encoded.float(), 2e-3)):
            four = 206.6 * coordinates.four_momenta(x)
            expected = torch.from_numpy(to_cartesian(events))
            error = (four - expected).abs().amax(-1) / expected[..., 0]
            # EPSILON SCALE^2 is the mass squared that a massless jet has here: (0.65 GeV)^2.
            assert error.max() < precision + 1e-3

    def test_a_rotation_about_the_beam_shifts_phi(self) -> None:
        coordinates = fitted()
        events = jets(50, seed=1)
        turned = events.clone()
        turned[..., 2] += 1.0
        change = coordinates.encode(turned) - coordinates.encode(events)
        change[..., PHI] = wrapped(change[..., PHI] - 1.0)
        assert change.abs().max() < 1e-6

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x[:, :2], r"`momenta` must be \(n, 6, 4\), got \(50, 2, 4\)"),
            (lambda x: x * torch.nan, "must be finite"),
            (lambda x: x - 20.0, "pt above 22 GeV, got"),
        ],
    )
    def test_bad_events(self, change, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EventCoordinates(N_PARTICLES).fit(change(jets(50)))


class TestNormalBase:
    def test_samples_follow_log_prob(self) -> None:
        base = NormalBase(fitted())
        sample = base.sample(20_000, generator=torch.Generator().manual_seed(1))
        log_prob = base.log_prob(sample)
        # The entropy of a normal density, and of the uniform angles.
        k = 3 * N_PARTICLES
        entropy = 0.5 * k * (1 + math.log(2 * math.pi)) + base.root.diag().log().sum()
        entropy = entropy + N_PARTICLES * math.log(2 * math.pi)
        error = log_prob.std() / math.sqrt(len(sample))
        assert abs(log_prob.mean() + entropy) < 5 * error  # 6e-7
        assert sample[..., PHI].abs().max() <= math.pi


def test_the_papers_base_keeps_the_cuts() -> None:
    """Of those within the cut on eta, which it has not, all pass the numpy ones."""
    coordinates = fitted()
    drawn = MomentumBase(coordinates).sample(500, generator=torch.Generator().manual_seed(1))
    momenta = coordinates.decode(drawn).numpy()
    small = np.abs(momenta[..., 1]).max(axis=1) < 5
    assert small.sum() > 100
    assert passes_cuts(momenta[small]).all()


class TestNormalVelocity:
    def test_it_is_the_conditional_mean_of_normal_events(self) -> None:
        """By the formula for the mean of one normal vector given another, with dense matrices."""
        coordinates = fitted()
        rng = np.random.default_rng(2)
        size = 3 * N_PARTICLES
        root = rng.normal(size=(size, size)) / math.sqrt(size)
        coordinates.covariance.copy_(torch.from_numpy(root @ root.T + np.eye(size)))
        events = coordinates.covariance.numpy()
        density = NormalBase(coordinates)
        base = (density.root @ density.root.T).numpy()
        velocity = NormalVelocity(coordinates, density)
        x = rng.normal(size=(1, size))
        for time in (0.05, 0.4, 0.9):
            between = time**2 * base + (1 - time) ** 2 * events
            expected = (time * base - (1 - time) * events) @ np.linalg.solve(between, x[0])
            given = torch.zeros(1, N_PARTICLES, 4)
            given[..., [0, 1, 3]] = torch.from_numpy(x).float().unflatten(1, (-1, 3))
            found = velocity(given, torch.tensor([time]))
            assert (found[..., 2] == 0).all()
            np.testing.assert_allclose(
                found[..., [0, 1, 3]].flatten(1)[0], expected, rtol=1e-3, atol=1e-4
            )
