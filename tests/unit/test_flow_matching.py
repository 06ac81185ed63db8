"""Flow matching: one contract over all velocity networks, exact densities, solvers, cuts."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from genamp_lib.networks.top_pairs.order import exchanges, in_order, reconstructed
from tests_support import random_jets as jets
from tests_support import small_flow_matching as settings

from genamp_lib._project import GenampError
from genamp_lib.datasets.kinematics import mass_of_sum, to_cartesian
from genamp_lib.datasets.top_pairs import assignment_chi2, assignments
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.architectures import (
    ARCHITECTURES,
    VelocitySettings,
    new_velocity,
)
from genamp_lib.networks.top_pairs.coordinates import (
    PHI,
    EventCoordinates,
    NormalBase,
    NormalVelocity,
    wrapped,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching
from genamp_lib.networks.top_pairs.solver import Solving, solve

N_PARTICLES = 6


@pytest.fixture(autouse=True)
def on_one_thread():
    """A training sets one thread itself; here its parts are called alone."""
    with one_thread():
        yield


def flow(architecture: str = "transformer", **changes) -> FlowMatching:
    torch.manual_seed(1)
    return FlowMatching(settings(architecture, **changes), jets(500))


def fitted(n_particles: int = N_PARTICLES) -> EventCoordinates:
    coordinates = EventCoordinates(n_particles, pt_min=22.0)
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

    def test_a_mirror(self) -> None:
        coordinates = fitted()
        events = jets(50, seed=1)
        mirrored = events * torch.tensor([1.0, -1.0, 1.0, 1.0])
        change = coordinates.mirrored(coordinates.encode(events)) - coordinates.encode(mirrored)
        change[..., PHI] = wrapped(change[..., PHI])
        assert change.abs().max() < 1e-6

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x[:, :2], r"`momenta` must be \(n, 6, 4\), got \(50, 2, 4\)"),
            (lambda x: x * torch.nan, "must be finite"),
            (lambda x: x - 20.0, "pt above `pt_min` = 22 GeV, got"),
        ],
    )
    def test_bad_events(self, change, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            type(fitted())(N_PARTICLES, pt_min=22.0).fit(change(jets(50)))


def test_what_is_identical_may_be_exchanged() -> None:
    events = in_order(jets(100, n_particles=8))
    orders = exchanges(8)
    assert len({tuple(order) for order in orders}) == 8
    for order in orders:
        assert torch.equal(in_order(events[:, order]), events)
    top_pt = np.hypot(
        *(to_cartesian(events[:, :6]).reshape(-1, 2, 3, 4).sum(2)[..., k] for k in (1, 2))
    )
    assert (top_pt[:, 0] >= top_pt[:, 1]).all()
    assert (events[:, 6, 0] >= events[:, 7, 0]).all()


def test_jets_are_assigned_by_the_smallest_chi2() -> None:
    """Against the formula, one assignment at a time."""
    events = jets(60, seed=2, n_particles=7)
    chi2 = assignment_chi2(events)
    orders = assignments(7)
    assert len(orders) == 30 == len({tuple(order) for order in orders.tolist()})
    for column, order in zip(chi2.T, orders, strict=True):
        x = events.numpy()[:, order]
        tops = [mass_of_sum(x[:, [0, 1, 2]]), mass_of_sum(x[:, [3, 4, 5]])]
        ws = [mass_of_sum(x[:, [1, 2]]), mass_of_sum(x[:, [4, 5]])]
        expected = (tops[0] - tops[1]) ** 2 / (2 * 10.7**2)
        expected += sum((w - 80.4) ** 2 for w in ws) / 5.9**2
        np.testing.assert_allclose(column, expected, rtol=1e-9)
    found = reconstructed(events)
    np.testing.assert_allclose(assignment_chi2(found).min(1), chi2.min(1), rtol=1e-9)
    # What is in order of pt does not change which is smallest.
    np.testing.assert_allclose(assignment_chi2(found)[:, 0], chi2.min(1), rtol=1e-9)
    with pytest.raises(ValueError, match="`n_particles` must be at least 6, got 5"):
        assignments(5)


class TestBase:
    @pytest.mark.parametrize("correlated", [False, True])
    def test_samples_follow_log_prob(self, correlated: bool) -> None:
        coordinates = fitted()
        base = NormalBase(coordinates, correlated=correlated)
        sample = base.sample(20_000, generator=torch.Generator().manual_seed(1))
        log_prob = base.log_prob(sample)
        # The entropy of a normal density, and of the uniform angles.
        k = 3 * N_PARTICLES
        entropy = 0.5 * k * (1 + math.log(2 * math.pi)) + base.root.diag().log().sum()
        entropy = entropy + N_PARTICLES * math.log(2 * math.pi)
        error = log_prob.std() / math.sqrt(len(sample))
        assert abs(log_prob.mean() + entropy) < 5 * error  # 6e-7
        assert sample[..., PHI].abs().max() <= math.pi

    def test_the_papers_base_keeps_the_cuts(self) -> None:
        model = flow(base="momentum", skip="none")
        drawn = model.base.sample(500, generator=torch.Generator().manual_seed(1))
        momenta = model.coordinates.decode(drawn)
        assert momenta[..., 0].min() > 22.0
        eta, phi = momenta[..., 1], momenta[..., 2]
        for i, j in combinations(range(N_PARTICLES), 2):
            distance = torch.hypot(eta[:, i] - eta[:, j], wrapped(phi[:, i] - phi[:, j]))
            assert distance.min() > 0.5 - 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryNetwork:
    def test_shape_and_gradients_reach_every_parameter(self, architecture: str) -> None:
        model = flow(architecture)
        events = model.coordinates.encode(jets(30)).float()
        base = model.base.sample(30, generator=torch.Generator().manual_seed(1))
        model.loss(events, base, torch.rand(30)).backward()
        dead = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
            and (parameter.grad is None or not (parameter.grad != 0).any())
        ]
        if architecture == "lgatr":
            # Vectors have no scalar parts to mix at its ends.
            dead = [name for name in dead if "linear_in" not in name and "linear_out" not in name]
        assert dead == []

    def test_rotations_about_the_beam(self, architecture: str) -> None:
        model = flow(architecture)
        events = model.coordinates.encode(jets(200)).float()
        turned = events.clone()
        turned[..., PHI] = wrapped(turned[..., PHI] + 2.0)
        time = torch.rand(200)
        with torch.no_grad():
            change = (model._velocity(turned, time) - model._velocity(events, time)).abs()
        if architecture == "transformer":  # it has to learn this; the check can fail
            assert change.max() > 0.01
        else:
            # The turned phi is rounded too; boosts along the beam enlarge that in few events, and
            # the gains of observables in all.
            assert change.quantile(0.99) < 5e-5
            assert change.max() < 1e-3

    def test_samples_are_events_and_follow_the_seed(self, architecture: str) -> None:
        model = flow(architecture)
        first, second = (
            model.sample(20, generator=torch.Generator().manual_seed(3), solving=Solving(n_steps=3))
            for _ in range(2)
        )
        assert torch.equal(first, second)
        assert first.shape == (20, N_PARTICLES, 4)
        assert torch.isfinite(first).all()
        assert first[..., 0].min() >= 22.0
        assert first[..., 3].min() >= 0.0

    def test_arrays_make_the_same_flow(self, architecture: str) -> None:
        model = flow(architecture)
        other = FlowMatching(settings(architecture), None)
        other.load_arrays(model.arrays())
        one, two = (
            one.sample(5, generator=torch.Generator().manual_seed(3), solving=Solving(n_steps=2))
            for one in (model, other)
        )
        assert torch.equal(one, two)


class TestDensity:
    def test_a_flow_that_stands_still_has_the_density_of_its_base(self) -> None:
        model = flow(skip="none")
        torch.nn.init.zeros_(model.velocity.linear_out.weight)
        torch.nn.init.zeros_(model.velocity.linear_out.bias)
        events = jets(40, seed=5)
        coordinates = model.coordinates.encode(events)
        expected = model.base.log_prob(coordinates) + model.coordinates.log_abs_det(events)
        found = model.log_prob(events, solving=Solving(n_steps=2))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)

    def test_density_is_normalised(self) -> None:
        model = flow(base="correlated", skip="normal")
        with torch.no_grad():  # so close to the base density that its events are a good sample
            for parameter in model.velocity.parameters():
                parameter *= 0.7
        drawn = model.base.sample(100, generator=torch.Generator().manual_seed(1))
        events = model.coordinates.decode(drawn)
        at_base = model.base.log_prob(drawn) + model.coordinates.log_abs_det(events)
        ratio = (model.log_prob(events, solving=Solving(n_steps=4)) - at_base).exp()
        error = ratio.std() / math.sqrt(len(ratio))
        assert ratio.std() > 0.01  # it does move
        assert abs(ratio.mean() - 1) < 5 * error  # 6e-7

    def test_the_papers_base_has_no_density(self) -> None:
        with pytest.raises(ValueError, match='`base` must be "normal" or "correlated"'):
            flow(base="momentum", skip="none").log_prob(jets(2))


class TestSolvers:
    def test_they_agree_when_steps_are_short(self) -> None:
        model = flow(skip="normal")
        base = model.base.sample(50, generator=torch.Generator().manual_seed(1))
        reference = model.transport(base, Solving(n_steps=40))
        for solver, n_steps in (("midpoint", 40), ("heun2", 40), ("dopri5", 1)):
            for time_power in (1.0, 1.75):
                found = model.transport(base, Solving(solver, n_steps, time_power))
                assert (found - reference).abs().max() < 5e-3
        coarse = model.transport(base, Solving("euler", n_steps=4))
        assert (coarse - reference).abs().max() > 0.1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"solver": "magic"}, "`solver` must be one of rk4, .*got 'magic'"),
            ({"n_steps": 0}, "`n_steps` must be positive, got 0"),
            ({"time_power": 0.0}, "`time_power` must be positive, got 0"),
        ],
    )
    def test_bad_arguments(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Solving(**arguments)

    def test_steps_are_where_they_should_be(self) -> None:
        """Euler steps of dx/dt = 2 t, from either end: the sums are known."""
        start, solving = torch.zeros(1), Solving("euler", 4, 2.0)
        ends = torch.tensor([0.0, 1 / 16, 4 / 16, 9 / 16, 1.0])
        up = solve(lambda t, x: 2 * t.expand(1), start, solving, to_events=False)
        assert up.item() == pytest.approx((2 * ends[:-1] * ends.diff()).sum().item())
        down = solve(lambda t, x: 2 * t.expand(1), start, solving, to_events=True)
        assert down.item() == pytest.approx(-(2 * ends[1:] * ends.diff()).sum().item())


class TestCoupling:
    @pytest.mark.parametrize("coupling", ["rotated", "optimal"])
    def test_it_keeps_the_events_of_the_base_and_brings_them_closer(self, coupling: str) -> None:
        model = flow(coupling=coupling)
        events = model.coordinates.encode(jets(200)).float()
        base = model.base.sample(200, generator=torch.Generator().manual_seed(1))
        paired = model.pair(events, base)
        assert torch.equal(paired[..., 0].flatten().sort()[0], base[..., 0].flatten().sort()[0])

        def apart(x: torch.Tensor) -> torch.Tensor:
            difference = events - x
            difference[..., PHI] = wrapped(difference[..., PHI])
            return difference.square().sum((1, 2)).mean()

        assert apart(paired) < 0.95 * apart(base)
        if coupling == "optimal":
            assert apart(paired) < 0.9 * apart(flow(coupling="rotated").pair(events, base))

    def test_a_turn_of_an_event_turns_its_partner(self) -> None:
        """So partners of events without a preferred direction have none: the base density."""
        model = flow(coupling="rotated")
        events = model.coordinates.encode(jets(50)).float()
        base = model.base.sample(50, generator=torch.Generator().manual_seed(1))
        turned = events.clone()
        turned[..., PHI] = wrapped(turned[..., PHI] + 1.0)
        difference = model.pair(turned, base)[..., PHI] - model.pair(events, base)[..., PHI]
        assert wrapped(difference - 1.0).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "lorentznet"}, "`architecture` must be one of transformer, .*lorentznet"),
        ({"n_blocks": 0}, "`n_blocks` must be positive, got 0"),
        ({"width": 50}, "`width` must be a multiple of `n_heads` = 4, got 50"),
        ({"architecture": "lloca", "width": 64}, "`width` must be 12 `n_heads` = 48"),
    ],
)
def test_bad_networks(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_velocity(VelocitySettings(**arguments), EventCoordinates(6, pt_min=22.0))


class TestNormalVelocity:
    def test_it_is_the_conditional_mean_of_normal_events(self) -> None:
        """By the formula for the mean of one normal vector given another, with dense matrices."""
        model = flow(base="correlated")
        rng = np.random.default_rng(2)
        size = 3 * N_PARTICLES
        root = rng.normal(size=(size, size)) / math.sqrt(size)
        model.coordinates.covariance.copy_(torch.from_numpy(root @ root.T + np.eye(size)))
        events = model.coordinates.covariance.numpy()
        base = (model.base.root @ model.base.root.T).numpy()
        velocity = NormalVelocity(model.coordinates, model.base)
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

    def test_without_a_network_it_makes_the_covariance_of_the_events(self) -> None:
        model = flow(skip="normal")
        with torch.no_grad():
            for parameter in model.velocity.parameters():
                parameter.zero_()
        base = model.base.sample(5000, generator=torch.Generator().manual_seed(1))
        made = model.transport(base, Solving("midpoint", n_steps=20))[..., [0, 1, 3]].flatten(1)
        expected = model.coordinates.covariance.float()
        assert (torch.cov(made.T) - expected).abs().max() < 0.12  # six standard deviations
        assert flow(skip="none").skip is None
        assert flow(base="momentum", skip="none").skip is None


class TestCuts:
    def test_selected_events_pass_all_of_them(self) -> None:
        model = flow()
        drawn, every = (
            model.sample(
                200,
                generator=torch.Generator().manual_seed(1),
                solving=Solving(n_steps=2),
                selected=selected,
            )
            for selected in (True, False)
        )
        assert model.settings.accepts(drawn).all()
        assert 0 < model.settings.accepts(every).sum() < 200
        assert len(drawn) == len(every) == 200

    @pytest.mark.parametrize(
        ("particle", "field", "value"),
        [(2, 0, 22.0), (5, 1, -5.0), (1, 3, math.nan), (0, 1, 0.3)],
    )
    def test_one_jet_fails_an_event(self, particle: int, field: int, value: float) -> None:
        event = torch.tensor([[40.0, 0.0, 0.0, 5.0]]).repeat(6, 1)
        event[:, 1] = torch.arange(6) * 0.6
        assert flow().settings.accepts(event[None]).all()
        event[particle, field] = value
        assert not flow().settings.accepts(event[None]).any()

    def test_nothing_within_the_cuts(self) -> None:
        with pytest.raises(GenampError, match="must make one event in 1000 within the cuts, got 0"):
            flow(eta_max=1e-9).sample(
                1, generator=torch.Generator().manual_seed(1), solving=Solving(n_steps=1)
            )


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="`n_particles` must be at least 6, got 5"):
        settings(n_particles=5)
    with pytest.raises(ValueError, match='`skip` must be "none" with the base "momentum", got'):
        settings(base="momentum")
    with pytest.raises(ValueError, match="`base` must be one of momentum, normal, correlated"):
        settings(base="uniform")
    with pytest.raises(ValueError, match="`arrays` must be of a flow with the same settings"):
        flow().load_arrays(flow("lgatr-slim").arrays())
