"""Which jets come from which top quark: all ways, and the chi^2 of each. Not for other events.

Observables of reconstructed top pairs, and what a classifier of them sees. Not for reading.

With (b1, q1, q2) the top candidate of more pt and (b2, q3, q4) the other, all in GeV and float64::

    m_tt         mass of both top candidates
    m_t          mass of the first top candidate
    m_w          mass of its W candidate
    pt_t         pt of the first top candidate
    pt_tt        pt of both
    eta_t        pseudorapidity of the first top candidate
    pt_b         pt of b1
    pt_q         pt of q4, the softer quark of the second W
    mass_b       mass of the jet b1
    delta_r_min  smallest distance of two of the jets
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.kinematics import (
    delta_phi,
    delta_r,
    mass_of_sum,
    to_cartesian,
    to_cylindrical,
)

TOP_PAIR_OBSERVABLES = (
    "m_tt",
    "m_t",
    "m_w",
    "pt_t",
    "pt_tt",
    "eta_t",
    "pt_b",
    "pt_q",
    "mass_b",
    "delta_r_min",
)
_TOPS = (slice(0, 3), slice(3, 6))
_WS = (slice(1, 3), slice(4, 6))


def top_pair_observables(momenta: ArrayLike) -> NDArray[np.float64]:
    """Compute the columns named in `TOP_PAIR_OBSERVABLES`.

    Args:
        momenta: Shape (n, n_particles, 4): pt (GeV), eta, phi, mass (GeV) of b1, q1, q2, b2, q3,
            q4, and of further jets, which count for `delta_r_min` only.

    Returns:
        Shape (n, 10).

    Raises:
        ValueError: Not of that shape with at least six particles.

    >>> event = [[90.0, 0.1, 0.0, 9.0], [60.0, 1.0, 1.0, 8.0], [30.0, 0.0, 2.0, 5.0],
    ...          [50.0, -1.0, 3.0, 9.0], [40.0, 0.2, -2.0, 6.0], [25.0, 0.9, -1.0, 4.0]]
    >>> dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables([event])[0].round(1)))["m_w"]
    np.float64(61.6)
    """
    momenta = _checked(momenta)
    pair = _sum(momenta[:, :6])
    top = _sum(momenta[:, _TOPS[0]])
    columns = (
        mass_of_sum(momenta[:, :6]),
        mass_of_sum(momenta[:, _TOPS[0]]),
        mass_of_sum(momenta[:, _WS[0]]),
        top[:, 0],
        pair[:, 0],
        top[:, 1],
        momenta[:, 0, 0],
        momenta[:, 5, 0],
        momenta[:, 0, 3],
        _distances(momenta).min(axis=1),
    )
    return np.stack(columns, axis=1)


def top_pair_features(momenta: ArrayLike) -> NDArray[np.float64]:
    """Compute what a classifier of top pairs sees; nothing changes in a rotation about the beam.

    log pt, eta, log mass of each particle, its azimuth relative to the first top candidate as sine
    and cosine, the distances of all pairs, and the logarithms of the masses of both W candidates,
    both top candidates, the pair, and of the pair's pt: shape (n, 5 n_particles + n_particles
    (n_particles - 1) / 2 + 6).

    Args:
        momenta: As of `top_pair_observables`.

    Raises:
        ValueError: As `top_pair_observables`.
    """
    momenta = _checked(momenta)
    pt, eta, phi, mass = np.moveaxis(momenta, -1, 0)
    angle = delta_phi(phi, _sum(momenta[:, _TOPS[0]])[:, 2, None])
    masses = [mass_of_sum(momenta[:, part]) for part in (*_WS, *_TOPS, slice(0, 6))]
    of_event = np.log(np.stack([*masses, _sum(momenta[:, :6])[:, 0]], axis=1))
    # Half a GeV: jets of one particle have almost no mass.
    of_jets = (np.log(pt), eta, np.log(mass + 0.5), np.sin(angle), np.cos(angle))
    return np.concatenate([*of_jets, _distances(momenta), of_event], axis=1)


def _checked(momenta: ArrayLike) -> NDArray[np.float64]:
    momenta = np.asarray(momenta, dtype=np.float64)
    if momenta.ndim != 3 or momenta.shape[1] < 6 or momenta.shape[2] != 4:
        raise ValueError(f"`momenta` must be (n, at least 6, 4), got {momenta.shape}.")
    return momenta


def _sum(momenta: NDArray[np.float64]) -> NDArray[np.float64]:
    return to_cylindrical(to_cartesian(momenta).sum(axis=1))


def _distances(momenta: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = np.triu_indices(momenta.shape[1], 1)
    return delta_r(momenta[:, first], momenta[:, second])


# The chi^2 of ref. [82] of paper A (ATLAS, JHEP 01 (2021) 033, 2006.09274), with the masses and
# resolutions of its public Rivet routine ATLAS_2020_I1801434, in GeV.
W_MASS = 80.4
SIGMA_W = 5.9
SIGMA_TOP = 10.7


def assignments(n_particles: int) -> NDArray[np.int64]:
    """Return all ways to give four of the jets that are no b to the two W.

    Args:
        n_particles: b1, q1, q2, b2, q3, q4 and other jets.

    Returns:
        Orders of the particles, shape (n_assignments, n_particles); the first changes nothing. The
        quarks of each W and the other jets keep their order.

    Raises:
        ValueError: Fewer than six particles.

    >>> assignments(6).shape, assignments(10).shape
    ((6, 6), (420, 10))
    >>> assignments(6)[1].tolist()
    [0, 1, 4, 3, 2, 5]
    """
    if n_particles < 6:
        raise ValueError(f"`n_particles` must be at least 6, got {n_particles}.")
    light = [1, 2, *range(4, n_particles)]
    orders = []
    for first in combinations(light, 2):
        rest = [jet for jet in light if jet not in first]
        for second in combinations(rest, 2):
            others = [jet for jet in rest if jet not in second]
            orders.append([0, *first, 3, *second, *others])
    return np.array(orders)


def assignment_chi2(momenta: ArrayLike) -> NDArray[np.float64]:
    """Compute how badly each assignment fits a top pair.

        chi^2 = (m(b1 q1 q2) - m(b2 q3 q4))^2 / (2 sigma_t^2)
              + (m(q1 q2) - m_W)^2 / sigma_W^2 + (m(q3 q4) - m_W)^2 / sigma_W^2

    It knows the mass of the W, not that of the top. Only the ratio of the resolutions matters for
    which is smallest.

    Args:
        momenta: Shape (n, n_particles, 4): pt (GeV), eta, phi, mass (GeV) of b1, q1, q2, b2, q3, q4
            and other jets; only that the first and the fourth are b matters.

    Returns:
        Shape (n, n_assignments), in the order of `assignments`.

    Raises:
        ValueError: Fewer than six particles.
    """
    momenta = to_cartesian(np.asarray(momenta, dtype=np.float64))
    orders = assignments(momenta.shape[1])
    # Each pair of quarks is in many assignments; its masses are computed once.
    pairs, which = np.unique(
        np.concatenate([orders[:, 1:3], orders[:, 4:6]]), axis=0, return_inverse=True
    )
    w = momenta[:, pairs[:, 0]] + momenta[:, pairs[:, 1]]
    first, second = which.reshape(2, -1)
    tops = [_mass(momenta[:, b, None] + w) for b in (0, 3)]
    w_term = ((_mass(w) - W_MASS) / SIGMA_W) ** 2
    chi2 = (tops[0][:, first] - tops[1][:, second]) ** 2 / (2 * SIGMA_TOP**2)
    chi2 += w_term[:, first] + w_term[:, second]
    return chi2


def _mass(momenta: NDArray[np.float64]) -> NDArray[np.float64]:
    energy, px, py, pz = np.moveaxis(momenta, -1, 0)
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))
