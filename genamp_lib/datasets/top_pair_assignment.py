"""Which jets come from which top quark: all ways, and the chi^2 of each. Not for other events."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.kinematics import to_cartesian

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
