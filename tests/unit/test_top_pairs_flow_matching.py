"""Flow matching: one contract over all velocity networks, exact densities, solvers, cuts."""

from __future__ import annotations

import math

import pytest
import torch
from tests_support import random_jets as jets
from tests_support import small_flow_matching as settings

from genamp_lib._project import GenampError
from genamp_lib.datasets.top_pairs import passes_cuts
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.architectures import (
    ARCHITECTURES,
    VelocitySettings,
    new_velocity,
)
from genamp_lib.networks.top_pairs.coordinates import PHI, EventCoordinates, wrapped
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
        model = flow(known_velocity="none")
        torch.nn.init.zeros_(model.velocity.linear_out.weight)
        torch.nn.init.zeros_(model.velocity.linear_out.bias)
        events = jets(40, seed=5)
        coordinates = model.coordinates.encode(events)
        expected = model.base.log_prob(coordinates) + model.coordinates.log_abs_det(events)
        found = model.log_prob(events, solving=Solving(n_steps=2))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)

    def test_density_is_normalised(self) -> None:
        model = flow(known_velocity="normal")
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
        with pytest.raises(ValueError, match='`base` must be "normal" for log_prob'):
            flow(base="momentum", known_velocity="none").log_prob(jets(2))


class TestSolvers:
    def test_they_agree_when_steps_are_short(self) -> None:
        model = flow(known_velocity="normal")
        base = model.base.sample(50, generator=torch.Generator().manual_seed(1))
        reference = model.transport(base, Solving(n_steps=40))
        for time_power in (1.0, 1.75):
            found = model.transport(base, Solving("midpoint", 40, time_power))
            assert (found - reference).abs().max() < 5e-3
        coarse = model.transport(base, Solving("midpoint", n_steps=1))
        assert (coarse - reference).abs().max() > 0.1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"solver": "euler"}, "`solver` must be one of rk4, midpoint, got 'euler'"),
            ({"n_steps": 0}, "`n_steps` must be positive, got 0"),
            ({"time_power": 0.0}, "`time_power` must be positive, got 0"),
        ],
    )
    def test_bad_arguments(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Solving(**arguments)

    def test_steps_are_where_they_should_be(self) -> None:
        """Midpoint steps of dx/dt = 3 t^2, from either end: the sum is known."""
        start, solving = torch.zeros(1), Solving("midpoint", 4, 2.0)
        ends = torch.tensor([0.0, 1 / 16, 4 / 16, 9 / 16, 1.0])
        middles = 0.5 * (ends[1:] + ends[:-1])
        expected = (3 * middles**2 * ends.diff()).sum().item()
        for to_events, sign in ((False, 1), (True, -1)):
            found = solve(lambda t, x: 3 * t.expand(1) ** 2, start, solving, to_events=to_events)
            assert found.item() == pytest.approx(sign * expected)


class TestCoupling:
    def test_it_keeps_the_events_of_the_base_and_brings_them_closer(self) -> None:
        model = flow(coupling="rotated")
        events = model.coordinates.encode(jets(200)).float()
        base = model.base.sample(200, generator=torch.Generator().manual_seed(1))
        paired = model.pair(events, base)
        assert torch.equal(paired[..., [0, 1, 3]], base[..., [0, 1, 3]])

        def apart(x: torch.Tensor) -> torch.Tensor:
            difference = events - x
            difference[..., PHI] = wrapped(difference[..., PHI])
            return difference.square().sum((1, 2)).mean()

        assert apart(paired) < 0.95 * apart(base)
        assert flow(coupling="independent").pair(events, base) is base

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
        new_velocity(VelocitySettings(**arguments), EventCoordinates(6))


class TestKnownVelocity:
    def test_without_a_network_it_makes_the_covariance_of_the_events(self) -> None:
        model = flow(known_velocity="normal")
        with torch.no_grad():
            for parameter in model.velocity.parameters():
                parameter.zero_()
        base = model.base.sample(5000, generator=torch.Generator().manual_seed(1))
        made = model.transport(base, Solving("midpoint", n_steps=20))[..., [0, 1, 3]].flatten(1)
        expected = model.coordinates.covariance.float()
        assert (torch.cov(made.T) - expected).abs().max() < 0.12  # six standard deviations
        assert flow(known_velocity="none").known_velocity is None
        assert flow(base="momentum", known_velocity="none").known_velocity is None


class TestCuts:
    def test_selected_events_pass_all_of_them(self) -> None:
        drawn, every = (
            flow().sample(
                200,
                generator=torch.Generator().manual_seed(1),
                solving=Solving(n_steps=2),
                selected=selected,
            )
            for selected in (True, False)
        )
        assert passes_cuts(drawn).all()
        assert 0 < passes_cuts(every).sum() < 200
        assert len(drawn) == len(every) == 200

    def test_nothing_within_the_cuts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = flow()
        monkeypatch.setattr("genamp_lib.datasets.top_pairs.ABS_ETA_MAX", 1e-9)
        with pytest.raises(GenampError, match="must make one event in 1000 within the cuts, got 0"):
            model.sample(1, generator=torch.Generator().manual_seed(1), solving=Solving(n_steps=1))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="`n_particles` must be at least 6, got 5"):
        settings(n_particles=5)
    with pytest.raises(ValueError, match='`known_velocity` must be "none" with the base'):
        settings(base="momentum")
    for name, options in (
        ("base", "momentum, normal"),
        ("known_velocity", "none, normal, observables"),
        ("coupling", "independent, rotated"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be one of {options}, got 'other'"):
            settings(**{name: "other"})
    with pytest.raises(ValueError, match="`arrays` must be of a flow with the same settings"):
        flow().load_arrays(flow("lgatr-slim").arrays())
