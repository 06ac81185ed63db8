"""Flow matching: one contract over all velocity networks, exact densities, continued trainings."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genamp_lib._project import GenampError
from genamp_lib.models.event_coordinates import PHI, EventCoordinates, NormalBase, wrapped
from genamp_lib.models.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.models.velocity import ARCHITECTURES, VelocitySettings, new_velocity
from genamp_lib.training.flow_matching import (
    FlowMatchingState,
    FlowMatchingTask,
    FlowMatchingTraining,
    fit_flow_matching,
)

N_PARTICLES = 3


@pytest.fixture(autouse=True)
def one_thread():
    """A training sets one thread itself; here its parts are called alone."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def jets(n: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (n, N_PARTICLES)
    columns = (
        22.5 + rng.exponential(40.0, shape),
        rng.normal(0.0, 1.2, shape),
        rng.uniform(-math.pi, math.pi, shape),
        3.0 + rng.gamma(3.0, 2.0, shape),
    )
    return torch.from_numpy(np.stack(columns, -1))


def settings(architecture: str = "transformer", **changes) -> FlowMatchingSettings:
    network = VelocitySettings(
        architecture=architecture, n_blocks=1, n_heads=2, width=24, n_vectors=4, frame_width=8
    )
    return FlowMatchingSettings(n_particles=N_PARTICLES, velocity=network, **changes)


def flow(architecture: str = "transformer", **changes) -> FlowMatching:
    torch.manual_seed(1)
    return FlowMatching(settings(architecture, **changes), jets(500))


class TestCoordinates:
    def test_round_trip_to_rounding(self) -> None:
        coordinates = EventCoordinates(N_PARTICLES, pt_min=22.0)
        events = jets(1000)
        coordinates.fit(events)
        back = coordinates.decode(coordinates.encode(events))
        torch.testing.assert_close(back, events, rtol=1e-10, atol=1e-10)

    def test_the_jacobian_is_that_of_autograd(self) -> None:
        coordinates = EventCoordinates(N_PARTICLES, pt_min=22.0)
        coordinates.fit(jets(500))
        event = jets(1, seed=3)
        matrix = torch.autograd.functional.jacobian(
            lambda x: coordinates.encode(x[None])[0].flatten(), event[0]
        ).reshape(4 * N_PARTICLES, 4 * N_PARTICLES)
        expected = torch.linalg.slogdet(matrix).logabsdet
        torch.testing.assert_close(coordinates.log_abs_det(event)[0], expected)

    def test_four_momenta_are_those_of_the_event(self) -> None:
        coordinates = EventCoordinates(N_PARTICLES, pt_min=0.0)
        coordinates.fit(jets(500))
        events = jets(50, seed=1)
        energy, px, py, pz = (206.6 * coordinates.four_momenta(coordinates.encode(events))).unbind(
            -1
        )
        torch.testing.assert_close(torch.hypot(px, py), events[..., 0], rtol=1e-3, atol=0.01)
        torch.testing.assert_close(torch.asinh(pz / torch.hypot(px, py)), events[..., 1])
        mass = (energy**2 - px**2 - py**2 - pz**2).sqrt()
        # EPSILON SCALE^2 is the mass squared that a massless jet has here: (0.65 GeV)^2.
        torch.testing.assert_close(mass, events[..., 3], rtol=0.02, atol=0.01)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x[:, :2], r"`momenta` must be \(n, 3, 4\), got \(50, 2, 4\)"),
            (lambda x: x * torch.nan, "must be finite"),
            (lambda x: x - 20.0, "pt above `pt_min` = 22 GeV, got"),
            (lambda x: x[:1].expand(50, -1, -1), "must vary"),
        ],
    )
    def test_bad_events(self, change, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EventCoordinates(N_PARTICLES, pt_min=22.0).fit(change(jets(50)))


class TestBase:
    @pytest.mark.parametrize("correlated", [False, True])
    def test_samples_follow_log_prob(self, correlated: bool) -> None:
        coordinates = EventCoordinates(N_PARTICLES, pt_min=22.0)
        coordinates.fit(jets(500))
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
        model = flow(base="momentum")
        drawn = model.base.sample(500, generator=torch.Generator().manual_seed(1))
        momenta = model.coordinates.decode(drawn)
        assert momenta[..., 0].min() > 22.0
        eta, phi = momenta[..., 1], momenta[..., 2]
        for i, j in ((0, 1), (0, 2), (1, 2)):
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
            if parameter.requires_grad and not (parameter.grad != 0).any()
        ]
        # Vectors have neither scalar nor pseudoscalar part: full L-GATr mixes zeros at its ends.
        assert [n for n in dead if "mvs2s" not in n and "s2mvs" not in n] == []

    def test_rotations_about_the_beam(self, architecture: str) -> None:
        model = flow(architecture)
        events = model.coordinates.encode(jets(200)).float()
        turned = events.clone()
        turned[..., PHI] = wrapped(turned[..., PHI] + 2.0)
        time = torch.rand(200)
        with torch.no_grad():
            change = (model.velocity(turned, time) - model.velocity(events, time)).abs()
        if architecture == "transformer":  # it has to learn this; the check can fail
            assert change.max() > 0.01
        else:
            # The turned phi is rounded too; boosts along the beam enlarge that in few events.
            assert change.quantile(0.99) < 1e-5
            assert change.max() < 1e-3

    def test_samples_are_events_and_follow_the_seed(self, architecture: str) -> None:
        model = flow(architecture)
        first, second = (
            model.sample(20, generator=torch.Generator().manual_seed(3), n_steps=3)
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
            one.sample(5, generator=torch.Generator().manual_seed(3), n_steps=2)
            for one in (model, other)
        )
        assert torch.equal(one, two)


class TestDensity:
    def test_a_flow_that_stands_still_has_the_density_of_its_base(self) -> None:
        model = flow()
        torch.nn.init.zeros_(model.velocity.linear_out.weight)
        torch.nn.init.zeros_(model.velocity.linear_out.bias)
        events = jets(40, seed=5)
        coordinates = model.coordinates.encode(events)
        expected = model.base.log_prob(coordinates) + model.coordinates.log_abs_det(events)
        found = model.log_prob(events, n_steps=2)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("architecture", ["transformer", "lgatr-slim", "lloca"])
    def test_density_is_normalised(self, architecture: str) -> None:
        model = flow(architecture, base="correlated")
        with torch.no_grad():  # so close to the base density that its events are a good sample
            for parameter in model.velocity.parameters():
                parameter *= 0.7
        drawn = model.base.sample(200, generator=torch.Generator().manual_seed(1))
        events = model.coordinates.decode(drawn)
        at_base = model.base.log_prob(drawn) + model.coordinates.log_abs_det(events)
        ratio = (model.log_prob(events, n_steps=4) - at_base).exp()
        error = ratio.std() / math.sqrt(len(ratio))
        assert ratio.std() > 0.01  # it does move
        assert abs(ratio.mean() - 1) < 5 * error  # 6e-7

    def test_the_papers_base_has_no_density(self) -> None:
        with pytest.raises(ValueError, match='`base` must be "normal" or "correlated"'):
            flow(base="momentum").log_prob(jets(2))


class TestSolvers:
    def test_they_agree_when_steps_are_short(self) -> None:
        model = flow()
        base = model.base.sample(50, generator=torch.Generator().manual_seed(1))
        reference = model.transport(base, solver="rk4", n_steps=40)
        for solver, n_steps in (("midpoint", 40), ("heun2", 40), ("dopri5", 1)):
            found = model.transport(base, solver=solver, n_steps=n_steps)
            assert (found - reference).abs().max() < 2e-3
        coarse = model.transport(base, solver="euler", n_steps=4)
        assert (coarse - reference).abs().max() > 2e-3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"solver": "magic"}, "`solver` must be one of rk4, .*got 'magic'"),
            ({"n_steps": 0}, "`n_steps` must be positive, got 0"),
        ],
    )
    def test_bad_arguments(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            flow().sample(1, generator=torch.Generator(), **arguments)


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


def task(**changes) -> FlowMatchingTask:
    training = FlowMatchingTraining(n_steps=30, batch_size=32, n_warmup=5, average_steps=10)
    given = FlowMatchingTask(jets(300).numpy(), settings(), training, seed=4)
    return replace(given, **changes)


class TestTraining:
    def test_the_loss_falls(self) -> None:
        training = FlowMatchingTraining(n_steps=150, batch_size=64, n_warmup=20)
        state = fit_flow_matching(task(training=training))
        assert state.losses[-30:].mean() < 0.95 * state.losses[:10].mean()
        assert np.isfinite(state.loss_curve()[1]).all()

    @pytest.mark.parametrize("architecture", ["transformer", "lgatr-slim", "lloca"])
    def test_stopped_and_continued(self, architecture: str, tmp_path: Path) -> None:
        given = task(flow=settings(architecture), bootstrap=True)
        whole = fit_flow_matching(given)
        stopped = FlowMatchingState(given)
        for _ in range(17):
            stopped.advance()
        stopped.save(tmp_path / "state.safetensors")
        continued = fit_flow_matching(given, checkpoint=tmp_path / "state.safetensors")
        for name, value in whole.averaged_flow().arrays().items():
            assert torch.equal(value, continued.averaged_flow().arrays()[name]), name
        assert torch.equal(whole.losses, continued.losses)

    def test_other_seeds_and_draws_give_others(self) -> None:
        steps = replace(task().training, n_steps=2)
        keys = {task(training=steps).key}
        for other in ({"seed": 5}, {"bootstrap": True}):
            keys.add(task(training=steps, **other).key)
        assert len(keys) == 3

    def test_damaged_and_foreign_checkpoints(self, tmp_path: Path) -> None:
        path = tmp_path / "state.safetensors"
        FlowMatchingState(task()).save(path)
        with pytest.raises(GenampError, match="is of another task; remove it"):
            fit_flow_matching(task(seed=5), checkpoint=path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(GenampError, match="must be a safetensors file"):
            fit_flow_matching(task(), checkpoint=path)

    def test_a_sample_of_the_wrong_multiplicity(self) -> None:
        with pytest.raises(
            ValueError, match=r"`train` must be \(n_train, 6, 4\), got \(300, 3, 4\)"
        ):
            task(flow=FlowMatchingSettings())

    def test_a_loss_that_is_not_finite(self) -> None:
        training = FlowMatchingTraining(n_steps=30, n_warmup=1, learning_rate=1e30)
        with pytest.raises(GenampError, match="lower `learning_rate`"):
            fit_flow_matching(task(training=training))


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


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="`base` must be one of momentum, normal, correlated"):
        settings(base="uniform")
    with pytest.raises(ValueError, match="`arrays` must be of a flow with the same settings"):
        flow().load_arrays(flow("lgatr-slim").arrays())
