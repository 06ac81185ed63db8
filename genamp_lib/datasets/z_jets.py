"""Z + jets as numbers for networks and figures: coordinates, classifier inputs, observables.

Momenta have shape (n, 2 + n_jets, 4): two muons and one to three jets, each pt (GeV), eta, phi,
mass (GeV). Not for reading events: datasets.events.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.kinematics import delta_phi, delta_r, mass_of_sum

Array = NDArray[np.float64]

MUON_MASS = 0.10566  # GeV
JET_PT_MIN = 20.0  # GeV, of the jets in the samples
# Columns of the coordinates that each part of a chain makes: muons and first jet, second, third.
CHAIN = (slice(0, 9), slice(9, 13), slice(13, 17))
# What keeps logarithms and inverse hyperbolic tangents finite.
_PT_OFFSET, _SMALLEST_MASS, _SMALLEST_ANGLE = 0.01, 1e-3, 1e-6
_LARGEST_INVERSE_DISTANCE = 20.0


def z_jet_coordinates(momenta: ArrayLike) -> Array:
    """Return what a flow learns: unbounded numbers, smooth but for the peak, shape (n, 5 + 4 jets).

    log pt and eta of both muons and artanh(delta phi / pi) of the second; for each jet log(pt - 20
    GeV), eta, artanh(delta phi / pi) and log mass. All angles are from the first muon.

    Raises:
        ValueError: The events are not of two muons and one to three jets.
    """
    momenta = _checked(momenta)
    first, second = momenta[:, 0], momenta[:, 1]
    columns = [np.log(first[:, 0]), first[:, 1], np.log(second[:, 0]), second[:, 1]]
    columns.append(_unbounded(delta_phi(second[:, 2], first[:, 2])))
    for jet in np.moveaxis(momenta[:, 2:], 1, 0):
        columns += [
            np.log(np.maximum(jet[:, 0] - JET_PT_MIN, 0.0) + _PT_OFFSET),
            jet[:, 1],
            _unbounded(delta_phi(jet[:, 2], first[:, 2])),
            np.log(np.maximum(jet[:, 3], _SMALLEST_MASS)),
        ]
    return np.stack(columns, axis=1)


def z_jet_momenta(coordinates: ArrayLike) -> Array:
    """Return momenta (n, 2 + jets, 4) of coordinates (n, 5 + 4 jets); the first muon has phi 0.

    >>> momenta = np.array([[[60, 0.1, 0, 0.10566], [35, -1, 2, 0.10566], [40, 1, -2, 5]]])
    >>> np.allclose(z_jet_momenta(z_jet_coordinates(momenta)), momenta)
    True
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    muons, jets = coordinates[:, :5], coordinates[:, 5:].reshape(len(coordinates), -1, 4)
    momenta = np.zeros((len(coordinates), 2 + jets.shape[1], 4))
    momenta[:, 0, :2], momenta[:, 1, :2] = muons[:, :2], muons[:, 2:4]
    momenta[:, :2, 0] = np.exp(momenta[:, :2, 0])
    momenta[:, 1, 2] = np.pi * np.tanh(muons[:, 4])
    momenta[:, :2, 3] = MUON_MASS
    momenta[:, 2:, 0] = np.exp(jets[..., 0]) - _PT_OFFSET + JET_PT_MIN
    momenta[:, 2:, 1] = jets[..., 1]
    momenta[:, 2:, 2] = np.pi * np.tanh(jets[..., 2])
    momenta[:, 2:, 3] = np.exp(jets[..., 3])
    return momenta


def z_jet_inputs(momenta: ArrayLike, *, robust: bool = True) -> Array:
    """Return the inputs of paper B's classifier, Eq. (8), shape (n, 10), (n, 15) or (n, 21).

    pt and eta of the muons and the angle between them; pt, eta, the angle to the particle before
    and the mass of each jet; the mass of the muon pair; min(1 / delta R, 20) of each pair of jets.

    Args:
        momenta: Events, shape (n, 2 + jets, 4).
        robust: Whether pt and masses of jets enter by their logarithms, and the mass of the muon
            pair as arsinh((m - 91 GeV) / 2 GeV). Plainly standardised, the peak is a spike that a
            network of this size passes by.

    Raises:
        ValueError: As `z_jet_coordinates`.
    """
    momenta = _checked(momenta)
    first, second, mass = momenta[:, 0], momenta[:, 1], mass_of_sum(momenta[:, :2])
    spread = np.log if robust else np.asarray
    columns = [spread(first[:, 0]), first[:, 1], spread(second[:, 0]), second[:, 1]]
    columns.append(delta_phi(second[:, 2], first[:, 2]))
    for k in range(2, momenta.shape[1]):
        jet, before = momenta[:, k], momenta[:, k - 1]
        columns += [spread(jet[:, 0]), jet[:, 1], delta_phi(jet[:, 2], before[:, 2])]
        columns.append(spread(np.maximum(jet[:, 3], _SMALLEST_MASS)))
    columns.append(np.arcsinh((mass - 91.0) / 2.0) if robust else mass)
    for i, k in combinations(range(2, momenta.shape[1]), 2):
        distance = delta_r(momenta[:, i], momenta[:, k])
        columns.append(np.minimum(1.0 / (distance + 1e-7), _LARGEST_INVERSE_DISTANCE))
    return np.stack(columns, axis=1)


def z_jet_observables(momenta: ArrayLike) -> dict[str, Array]:
    """Return what figures show, each of shape (n,): pt and mass in GeV, eta, distances.

    "m_mumu" and "pt_z" of the muon pair; "pt_mu1", "eta_mu1" and so on; "pt_j1", "eta_j1", "m_j1"
    and so on; "dr_j1j2" and so on; "dr_min", the smallest distance of two jets.

    Raises:
        ValueError: As `z_jet_coordinates`.

    >>> sorted(z_jet_observables(np.ones((1, 3, 4))))[:4]
    ['eta_j1', 'eta_mu1', 'eta_mu2', 'm_j1']
    """
    momenta = _checked(momenta)
    muons = momenta[:, :2]
    px, py = ((muons[..., 0] * f(muons[..., 2])).sum(axis=1) for f in (np.cos, np.sin))
    found = {"m_mumu": mass_of_sum(muons), "pt_z": np.hypot(px, py)}
    for k in range(2):
        found |= {f"pt_mu{k + 1}": muons[:, k, 0], f"eta_mu{k + 1}": muons[:, k, 1]}
    jets = momenta[:, 2:]
    for k in range(jets.shape[1]):
        name = f"j{k + 1}"
        found |= {f"pt_{name}": jets[:, k, 0], f"eta_{name}": jets[:, k, 1]}
        found[f"m_{name}"] = jets[:, k, 3]
    pairs = {
        f"dr_j{i + 1}j{k + 1}": delta_r(jets[:, i], jets[:, k])
        for i, k in combinations(range(jets.shape[1]), 2)
    }
    if pairs:
        pairs["dr_min"] = np.min(list(pairs.values()), axis=0)
    return found | pairs


def _checked(momenta: ArrayLike) -> Array:
    momenta = np.asarray(momenta, dtype=np.float64)
    if momenta.ndim != 3 or momenta.shape[1] not in (3, 4, 5) or momenta.shape[2] != 4:
        raise ValueError(
            "`momenta` must have shape (n, 3 to 5, 4), two muons and one to three jets, got "
            f"{momenta.shape}."
        )
    return momenta


def _unbounded(angle: Array) -> Array:
    return np.arctanh(np.clip(angle / np.pi, _SMALLEST_ANGLE - 1, 1 - _SMALLEST_ANGLE))
