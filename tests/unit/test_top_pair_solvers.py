"""Solvers beside the reference: themselves, better with more steps, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.solver import Solving
from genamp_lib.studies.ch11_solvers import check_solvers


@pytest.fixture(scope="module")
def flow() -> FlowMatching:
    rng = np.random.default_rng(1)
    momenta = np.stack(
        [
            25.0 + rng.exponential(40.0, (300, 6)),
            rng.normal(0.0, 1.2, (300, 6)),
            rng.uniform(-np.pi, np.pi, (300, 6)),
            3.0 + rng.gamma(3.0, 2.0, (300, 6)),
        ],
        axis=-1,
    )
    torch.manual_seed(1)
    settings = FlowMatchingSettings(skip="normal", velocity=VelocitySettings(n_blocks=1, width=16))
    made = FlowMatching(settings, torch.from_numpy(momenta))
    with torch.no_grad():  # a flow that bends, as an untrained one does not
        for parameter in made.velocity.parameters():
            parameter.mul_(2.0)
    return made.eval()


def test_more_steps_are_closer_and_the_reference_is_itself(flow: FlowMatching) -> None:
    fine = Solving("rk4", 20)
    solvers = [fine, Solving("euler", 4), Solving("midpoint", 4), Solving("midpoint", 12)]
    checks = check_solvers(flow, solvers, n_events=1500, seed=2, reference=fine)
    assert [check.solving.n_calls for check in checks] == [80, 80, 4, 8, 24]
    largest = [max(check.ks.values()) for check in checks]
    assert largest[0] == largest[1] == 0.0
    assert largest[2] > 2 * largest[4] > 0.0
    assert largest[3] > 2 * largest[4]
    assert all(check.events_per_second > 0.0 for check in checks)


def test_wrong_input(flow: FlowMatching) -> None:
    with pytest.raises(ValueError, match="`solvers` must have a number of steps, got 'dopri5'"):
        check_solvers(flow, [Solving("dopri5")], n_events=10, seed=1)
    with pytest.raises(ValueError, match="`n_events` must be positive, got 0"):
        check_solvers(flow, [], n_events=0, seed=1)
