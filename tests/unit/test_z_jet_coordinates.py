"""Coordinates, classifier inputs and observables of Z + jets."""

import numpy as np
import pytest

from genamp_lib.datasets import load_z_jets
from genamp_lib.datasets.kinematics import delta_r, mass_of_sum
from genamp_lib.datasets.z_jets import (
    CHAIN,
    z_jet_coordinates,
    z_jet_inputs,
    z_jet_momenta,
    z_jet_observables,
)


@pytest.mark.parametrize("n_jets", [1, 2, 3])
def test_coordinates_and_back_keep_masses_and_distances(n_jets: int) -> None:
    momenta = load_z_jets(n_jets, n_events=3000).momenta.astype(np.float64)
    again = z_jet_momenta(z_jet_coordinates(momenta))
    # Muons get one mass, that of a jet below 1 MeV is raised to it, an angle of pi moves by 3e-6.
    assert again[..., :2] == pytest.approx(momenta[..., :2], rel=1e-6, abs=1e-6)
    assert again[..., 3] == pytest.approx(np.maximum(momenta[..., 3], 1e-3), rel=1e-4)
    for pair in ([0, 1], [0, 2], [1, n_jets + 1]):
        before, after = (mass_of_sum(x[:, pair]) for x in (momenta, again))
        assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("n_jets", [1, 2, 3])
def test_columns(n_jets: int) -> None:
    momenta = load_z_jets(n_jets, n_events=500).momenta
    assert z_jet_coordinates(momenta).shape[1] == CHAIN[n_jets - 1].stop
    assert z_jet_inputs(momenta).shape[1] == {1: 10, 2: 15, 3: 21}[n_jets]
    found = z_jet_observables(momenta)
    assert found["m_mumu"] == pytest.approx(mass_of_sum(momenta[:, :2]))
    assert ("dr_min" in found) == (n_jets > 1)
    if n_jets == 3:
        pairs = [delta_r(momenta[:, i], momenta[:, k]) for i, k in ((2, 3), (2, 4), (3, 4))]
        assert found["dr_min"] == pytest.approx(np.min(pairs, axis=0))
        assert found["eta_j3"] == pytest.approx(momenta[:, 4, 1])


def test_edges_stay_finite() -> None:
    event = [[30, 2.5, 3.0, 0.10566], [20, 0, 3.0 - np.pi, 0.10566], [20, 4.5, -3.0, 0.0]]
    coordinates = z_jet_coordinates([event])
    assert np.isfinite(coordinates).all()
    assert np.isfinite(z_jet_inputs([event])).all()
    assert z_jet_momenta(coordinates)[0, 2, 0] == pytest.approx(20.0)


@pytest.mark.parametrize("shape", [(4, 2, 4), (4, 6, 4), (4, 3, 3), (4, 12)])
def test_other_events_are_refused(shape: tuple[int, ...]) -> None:
    for function in (z_jet_coordinates, z_jet_inputs, z_jet_observables):
        with pytest.raises(ValueError, match=r"`momenta` must have shape \(n, 3 to 5, 4\)"):
            function(np.ones(shape))
