"""Observables that a generator of top pairs is told, and the velocity that follows from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genamp_lib.datasets.kinematics import delta_r, mass_of_sum, to_cartesian
from genamp_lib.networks.top_pairs.coordinates import (
    PHI,
    SCALE,
    EventCoordinates,
    NormalBase,
    NormalVelocity,
)
from genamp_lib.networks.top_pairs.known_velocity import (
    N_OBSERVABLES,
    EventObservables,
    ObservableVelocity,
)

N_PARTICLES = 8


def momenta(n: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (n, N_PARTICLES)
    pt = 22.1 + rng.exponential(60.0, shape)
    eta, phi = rng.normal(0.0, 1.3, shape), rng.uniform(-math.pi, math.pi, shape)
    return torch.from_numpy(np.stack([pt, eta, phi, rng.uniform(3.0, 20.0, shape)], -1))


@pytest.fixture(scope="module")
def coordinates() -> EventCoordinates:
    fitted = EventCoordinates(N_PARTICLES)
    fitted.fit(momenta(2000))
    return fitted


class TestObservables:
    def test_values(self, coordinates: EventCoordinates) -> None:
        events = momenta(200, seed=1)
        values, _ = EventObservables(coordinates).double()(coordinates.encode(events))
        mean, difference = values[:, 2], values[:, 3]
        masses = [values[:, 0], values[:, 1], mean + difference / 2, mean - difference / 2]
        masses.append(values[:, 4])
        for k, members in enumerate(([1, 2], [4, 5], [0, 1, 2], [3, 4, 5], range(6))):
            mass = torch.from_numpy(mass_of_sum(events.numpy()[:, list(members)]))
            typical = (80.0, 80.0, 180.0, 180.0, 500.0)[k]
            expected = ((mass / typical).log() / 0.4).clamp(-12, 12)
            # A mass squared has EPSILON SCALE^2 more in the coordinates, (0.65 GeV)^2.
            torch.testing.assert_close(masses[k], expected, rtol=1e-3, atol=1e-2)
        first, second = np.triu_indices(N_PARTICLES, 1)
        jets = events.numpy()
        closest = delta_r(jets[:, first], jets[:, second]).min(axis=1)
        difference = closest - 0.25 * values[:, 7].numpy()
        assert difference.min() > -1e-3
        assert np.median(difference) < 0.03
        four = torch.from_numpy(to_cartesian(events.numpy()))
        first, pair = four[:, :3].sum(1), four[:, :6].sum(1)
        length = (values[:, 5:7] * 40.0).norm(dim=1)
        inside = (values[:, 5:7].abs() < 12).all(1)
        expected = pair[:, 1:3].norm(dim=1)
        torch.testing.assert_close(length[inside], expected[inside], rtol=1e-4, atol=1e-2)
        along = (first[:, 1:3] * pair[:, 1:3]).sum(1) / first[:, 1:3].norm(dim=1)
        torch.testing.assert_close(
            values[:, 5] * 40.0, along.clamp(-480.0, 480.0), rtol=1e-4, atol=1e-2
        )

    def test_gradients_are_those_of_differentiation(self, coordinates: EventCoordinates) -> None:
        observables = EventObservables(coordinates).double()
        at = coordinates.encode(momenta(50, seed=2))
        values, gradients = observables(at)
        expected = torch.func.vmap(torch.func.jacrev(lambda x: observables(x[None])[0][0]))(at)
        # The axes of the pair's pt are held fixed, so that those are not compared.
        others = [0, 1, 2, 3, 4, 7]
        inside = values[:, others].abs() < 11.9
        difference = (gradients - expected)[:, others][inside]
        assert difference.abs().max() < 1e-9
        assert (gradients[:, :7, 6:] == 0).all()

    def test_values_alone_are_the_same_bits(self, coordinates: EventCoordinates) -> None:
        observables = EventObservables(coordinates)
        events = torch.randn(50, coordinates.n_particles, 4)
        values, nothing = observables(events, gradients=False)
        assert nothing is None
        assert torch.equal(values, observables(events)[0])

    def test_gradients_of_the_pairs_pt(self, coordinates: EventCoordinates) -> None:
        """In axes that do not move: the change of a sum of momenta."""
        observables = EventObservables(coordinates).double()
        at = coordinates.encode(momenta(20, seed=3))
        _, gradients = observables(at)
        step = 1e-6 * torch.randn(at.shape, generator=torch.Generator().manual_seed(1)).double()
        four = [coordinates.four_momenta(x)[:, :6].sum(1)[:, 1:3] for x in (at - step, at + step)]
        change = 0.5 * (four[1] - four[0]) * SCALE / 40.0
        first = coordinates.four_momenta(at)[:, :3].sum(1)[:, 1:3]
        along = first / first.norm(dim=1, keepdim=True)
        across = torch.stack([-along[:, 1], along[:, 0]], -1)
        for k, axis in ((5, along), (6, across)):
            found = (gradients[:, k] * step).sum((1, 2))
            torch.testing.assert_close(found, (change * axis).sum(1), rtol=1e-4, atol=1e-12)

    def test_a_rotation_about_the_beam(self, coordinates: EventCoordinates) -> None:
        observables = EventObservables(coordinates).double()
        at = coordinates.encode(momenta(50, seed=4))
        turned = at.clone()
        turned[..., PHI] += 1.0
        for one, other in zip(observables(at), observables(turned), strict=True):
            assert (one - other).abs().max() < 1e-9


class _FirstCoordinates(torch.nn.Module):
    """Observables that are coordinates themselves: log pt of the particles."""

    def forward(
        self, coordinates: torch.Tensor, *, gradients: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        by_coordinate = torch.zeros(len(coordinates), N_OBSERVABLES, N_PARTICLES, 4)
        for k in range(N_OBSERVABLES):
            by_coordinate[:, k, k, 0] = 1.0
        return coordinates[..., 0], by_coordinate


class TestVelocity:
    def test_normal_events_need_no_more_than_their_covariance(
        self, coordinates: EventCoordinates
    ) -> None:
        base = NormalBase(coordinates)
        velocity = ObservableVelocity(coordinates, base)
        velocity.fit(base.sample(200_000, generator=torch.Generator().manual_seed(9)))
        at = base.sample(500, generator=torch.Generator().manual_seed(2))
        time = torch.linspace(0.05, 0.95, 500)
        found, _, _ = velocity(at, time)
        difference = found - NormalVelocity(coordinates, base)(at, time)
        # Where both samples have few events their ratio is not quite one.
        assert difference.abs().mean() < 0.05
        assert difference.abs().quantile(0.99) < 1.0

    def test_it_is_the_conditional_mean(self, coordinates: EventCoordinates) -> None:
        """Closed form, for observables that are normal with another mean and width."""
        base = NormalBase(coordinates)
        velocity = ObservableVelocity(coordinates, base)
        velocity.observables = _FirstCoordinates()
        velocity.observables.coordinates = coordinates
        events = base.sample(400_000, generator=torch.Generator().manual_seed(5))
        variances = coordinates.covariance.diag().float().unflatten(0, (-1, 3))[:, 0]
        mean, width = 0.4, 0.5
        events[..., 0] = mean + width * events[..., 0] / variances.sqrt()
        velocity.fit(events)
        generator = torch.Generator().manual_seed(6)
        start = events[:2000]
        end = base.sample(2000, generator=generator)
        for time in (0.15, 0.5, 0.85):
            at = (1 - time) * start + time * end
            found, seen, directions = velocity(at, torch.full((2000,), time))
            # x_1 - x_0 given x_t, both normal.
            between = time**2 * variances + (1 - time) ** 2 * width**2
            slope = (time * variances - (1 - time) * width**2) / between
            expected = -mean + slope * (at[..., 0] - (1 - time) * mean)
            known, last = slice(0, N_OBSERVABLES - 1), N_OBSERVABLES - 1
            error = (found[..., 0] - expected)[:, known].square().mean().sqrt()
            assert error < 0.1
            normal = NormalVelocity(coordinates, base)(at, torch.full((2000,), time))
            assert error < 0.3 * (normal[..., 0] - expected)[:, known].square().mean().sqrt()
            # Of the last one, the smallest distance, nothing is taken for known.
            torch.testing.assert_close(found[:, last], normal[:, last])
            assert seen.shape == (2000, 3 * N_OBSERVABLES)
            assert directions.shape == (2000, N_OBSERVABLES, N_PARTICLES, 4)
