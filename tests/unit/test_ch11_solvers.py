"""Solvers beside the reference: themselves, better with more steps, kept, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.members import TopPairGenerator
from genamp_lib.networks.top_pairs.solver import Solving
from genamp_lib.store import ArtefactStore
from genamp_lib.studies.ch11_solvers import compare_solvers, measure_solvers


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
    settings = FlowMatchingSettings(
        known_velocity="normal", velocity=VelocitySettings(n_blocks=1, width=16)
    )
    made = FlowMatching(settings, torch.from_numpy(momenta))
    with torch.no_grad():  # a flow that bends, as an untrained one does not
        for parameter in made.velocity.parameters():
            parameter.mul_(2.0)
    return made.eval()


def of(flow: FlowMatching, key: str = "") -> TopPairGenerator:
    arrays = {name: array.detach().numpy() for name, array in flow.arrays().items()}
    return TopPairGenerator(flow.settings, key, arrays)


def test_more_steps_are_closer_and_the_reference_is_itself(flow: FlowMatching) -> None:
    fine = Solving("rk4", 20)
    solvers = [fine, fine, Solving("midpoint", 2), Solving("midpoint", 12)]
    arrays = compare_solvers((of(flow), solvers, 1500, 2))
    largest = arrays["ks"].max(axis=1)
    assert largest[0] == largest[1] == 0.0
    assert largest[2] > 2 * largest[3] > 0.0
    assert (arrays["events_per_second"] > 0.0).all()


def test_solvers_are_measured_once(flow: FlowMatching, tmp_path) -> None:
    generators = [of(flow, "one"), of(flow, "two")]
    store = ArtefactStore(published=tmp_path, local=tmp_path, fresh=False)

    def measured(n_events: int = 40):
        solvers = [Solving("midpoint", 3)]
        return measure_solvers(generators, solvers, n_events=n_events, seed=2, store=store)

    found = measured()
    assert measured() == found  # the rates too, as they were kept
    assert [used["origin"] for used in store.used] == 2 * ["computed"] + 2 * ["published"]
    assert [check.solving.n_calls for check in found[0]] == [200, 6]
    assert found[0][0].ks["m_w"] == 0.0
    with pytest.raises(ValueError, match="`n_events` must be positive, got 0"):
        measured(n_events=0)
