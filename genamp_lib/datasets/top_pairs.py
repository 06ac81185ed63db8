"""All-hadronic top pairs: the cuts of Eq. (38) of paper A, which jet is which, and observables.

An event has pt (GeV), eta, phi and mass (GeV) of b1, q1, q2, b2, q3, q4, j1 ...: (b1, q1, q2) is
the top candidate of more pt, (b2, q3, q4) the other. The quarks of each W and the further jets fall
in pt. Arrays have shape (n, n_particles, 4).
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.datasets.kinematics import (
    delta_phi,
    delta_r,
    mass_of_sum,
    to_cartesian,
    to_cylindrical,
)

Array = NDArray[np.float64]

# Eq. (38): jets, the distance of any two of them, and b-tagged jets among them.
PT_MIN = 22.0  # GeV
ABS_ETA_MAX = 5.0
DELTA_R_MIN = 0.5
N_TAGS = 2
# The chi^2 of ref. [82] of paper A (ATLAS, JHEP 01 (2021) 033, 2006.09274), with the masses and
# resolutions of its public Rivet routine ATLAS_2020_I1801434, in GeV.
W_MASS = 80.4
SIGMA_W = 5.9
SIGMA_TOP = 10.7

_TOPS = (slice(0, 3), slice(3, 6))
_WS = (slice(1, 3), slice(4, 6))
TOP_PAIR_OBSERVABLES = (
    "m_tt",  # mass of both top candidates, GeV
    "m_t",  # mass of the first top candidate, GeV
    "m_w",  # mass of its W candidate, GeV
    "pt_t",  # pt of the first top candidate, GeV
    "pt_tt",  # pt of both, GeV
    "eta_t",  # pseudorapidity of the first top candidate
    "pt_b",  # pt of b1, GeV
    "pt_q",  # pt of q4, the softer quark of the second W, GeV
    "mass_b",  # mass of the jet b1, GeV
    "delta_r_min",  # smallest distance of two of the jets
)


def passes_cuts(momenta: ArrayLike) -> NDArray[np.bool_]:
    """Return whether events pass the cuts of Eq. (38), shape (n,); not those that are not finite.

    Args:
        momenta: Jets in any order, shape (n, n_particles, 4).

    >>> event = [[50.0, eta, 0.0, 5.0] for eta in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)]
    >>> passes_cuts([event, event[:5] + [[50.0, 1.9, 0.0, 5.0]]])
    array([ True, False])
    """
    momenta = np.asarray(momenta, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite
        jets = (momenta[..., 0] > PT_MIN) & (np.abs(momenta[..., 1]) < ABS_ETA_MAX)
        passed = jets.all(axis=1) & (_distances(momenta) > DELTA_R_MIN).all(axis=1)
    return passed & np.isfinite(momenta).all(axis=(1, 2))


def assignments(n_particles: int) -> NDArray[np.int64]:
    """Return all ways to give four of the jets that are no b to the two W.

    Args:
        n_particles: Number of jets: b1, q1, q2, b2, q3, q4 and others.

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


def assignment_chi2(momenta: ArrayLike) -> Array:
    """Compute how badly each assignment fits a top pair.

        chi^2 = (m(b1 q1 q2) - m(b2 q3 q4))^2 / (2 sigma_t^2)
              + (m(q1 q2) - m_W)^2 / sigma_W^2 + (m(q3 q4) - m_W)^2 / sigma_W^2

    It knows the mass of the W, not that of the top. Only the ratio of the resolutions matters for
    which is smallest.

    Args:
        momenta: Events whose first and fourth jet are the b, shape (n, n_particles, 4).

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


def exchanges(n_particles: int) -> NDArray[np.int64]:
    """Return the eight orders of the particles that are the same event, (8, n_particles).

    >>> exchanges(6)[[1, 4]].tolist()
    [[0, 1, 2, 3, 5, 4], [3, 4, 5, 0, 1, 2]]
    """
    orders = []
    for tops, first, second in product((False, True), repeat=3):
        one, two = [0, *((2, 1) if first else (1, 2))], [3, *((5, 4) if second else (4, 5))]
        orders.append([*(two + one if tops else one + two), *range(6, n_particles)])
    return np.array(orders)


def in_order(momenta: ArrayLike) -> Array:
    """Return events with identical particles in order of falling pt, assigned as they are.

    >>> event = np.zeros((1, 6, 4))
    >>> event[0, :, 0] = 30.0, 25.0, 26.0, 90.0, 24.0, 50.0
    >>> in_order(event)[0, :, 0].tolist()
    [90.0, 50.0, 24.0, 30.0, 26.0, 25.0]
    """
    momenta = np.asarray(momenta, dtype=np.float64)
    return _taken(momenta, _falling_pt(momenta))


def reconstructed(momenta: ArrayLike) -> Array:
    """Return events with the assignment of smallest chi^2, and `in_order`.

    Args:
        momenta: Finite events whose first and fourth jet are the b, shape (n, n_particles, 4).
    """
    momenta = np.asarray(momenta, dtype=np.float64)
    return _taken(momenta, _best_assignment(momenta)[0])


def assign_jets(jets: ArrayLike, tagged: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    """Find which jets come from which top quark: the assignment of smallest chi^2.

    Args:
        jets: Jets in order of falling pt, shape (n, n_jets, 4).
        tagged: Which of them have a b tag, shape (n, n_jets), two in each event.

    Returns:
        Indices into the jets, shape (n, n_jets), in the order b1, q1, q2, b2, q3, q4, j1 ...; and
        the chi^2, shape (n,).

    Raises:
        ValueError: An event does not have two tagged jets, or has fewer than six jets.
    """
    jets, tagged = np.asarray(jets, dtype=np.float64), np.asarray(tagged)
    n_jets = tagged.shape[1]
    if n_jets < 6 or not (tagged.sum(axis=1) == N_TAGS).all():
        raise ValueError("`tagged` must have six jets or more, two of them true, in each event.")
    # Tagged jets first; a stable sort keeps the order in pt otherwise. Then b1 and b2 in place.
    order = np.argsort(~tagged, axis=1, kind="stable")[:, [0, 2, 3, 1, *range(4, n_jets)]]
    best, chi2 = _best_assignment(_taken(jets, order))
    return np.take_along_axis(order, best, axis=1), chi2


def top_pair_observables(momenta: ArrayLike) -> Array:
    """Compute the columns named in `TOP_PAIR_OBSERVABLES`, shape (n, 10).

    Args:
        momenta: Events, shape (n, n_particles, 4); jets beyond the sixth count for `delta_r_min`
            only.

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


def top_pair_features(momenta: ArrayLike) -> Array:
    """Compute what a classifier of top pairs sees; nothing changes in a rotation about the beam.

    log pt, eta, log mass of each particle, its azimuth relative to the first top candidate as sine
    and cosine, the distances of all pairs, and the logarithms of the masses of both W candidates,
    both top candidates, the pair, and of the pair's pt: shape (n, 5 n_particles + n_particles
    (n_particles - 1) / 2 + 6).

    Args:
        momenta: Events, shape (n, n_particles, 4).

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


def _checked(momenta: ArrayLike) -> Array:
    momenta = np.asarray(momenta, dtype=np.float64)
    if momenta.ndim != 3 or momenta.shape[1] < 6 or momenta.shape[2] != 4:
        raise ValueError(f"`momenta` must be (n, at least 6, 4), got {momenta.shape}.")
    return momenta


def _sum(momenta: Array) -> Array:
    return to_cylindrical(to_cartesian(momenta).sum(axis=1))


def _distances(momenta: Array) -> Array:
    first, second = np.triu_indices(momenta.shape[1], 1)
    return delta_r(momenta[:, first], momenta[:, second])


def _mass(momenta: Array) -> Array:
    energy, px, py, pz = np.moveaxis(momenta, -1, 0)
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))


def _taken(momenta: Array, order: NDArray[np.int64]) -> Array:
    return np.take_along_axis(momenta, order[..., None], axis=1)


def _best_assignment(momenta: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the order of smallest chi^2 with identical particles in order of pt, and the chi^2."""
    chi2 = assignment_chi2(momenta)
    order = assignments(momenta.shape[1])[chi2.argmin(axis=1)]
    falling = _falling_pt(_taken(momenta, order))
    return np.take_along_axis(order, falling, axis=1), chi2.min(axis=1)


def _falling_pt(momenta: Array) -> NDArray[np.int64]:
    """Return the order that puts quarks of a W, both tops and further jets in order of pt."""
    n, n_particles = momenta.shape[:2]
    order = np.tile(np.arange(n_particles), (n, 1))
    pt = momenta[..., 0]
    for first in (1, 4):
        order[pt[:, first] < pt[:, first + 1], first : first + 2] = first + 1, first
    tops = to_cartesian(momenta[:, :6]).reshape(n, 2, 3, 4).sum(axis=2)
    top_pt = np.hypot(tops[..., 1], tops[..., 2])
    swapped = top_pt[:, 0] < top_pt[:, 1]
    order[swapped, :6] = order[swapped][:, [3, 4, 5, 0, 1, 2]]
    order[:, 6:] = 6 + np.argsort(-pt[:, 6:], axis=1, kind="stable")
    return order
