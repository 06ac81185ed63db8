"""Four-momenta in one convention, safe at any rapidity. Not for events (datasets.events).

The last axis of an array holds one particle, in one of two forms:

    cartesian     energy, px, py, pz      in GeV
    cylindrical   pt, eta, phi, mass      in GeV, pseudorapidity, radian in [-pi, pi), GeV

All functions compute in float64. The mass of (energy, px, py, pz) is known to
sqrt(eps) = 1.5e-8 of the energy only, because energy and momentum are then nearly the same number:
keep the cylindrical form where light particles matter, and use `mass_of_sum` for several of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CYLINDRICAL_FIELDS = ("pt", "eta", "phi", "mass")


def to_cartesian(momenta: ArrayLike) -> NDArray[np.float64]:
    """Return (energy, px, py, pz) of (pt, eta, phi, mass), both of shape (..., 4).

    >>> import numpy as np
    >>> to_cartesian([3.0, 0.0, np.pi, 4.0]).round(12)
    array([ 5., -3.,  0.,  0.])
    """
    pt, eta, phi, mass = _columns(momenta)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.hypot(pt * np.cosh(eta), mass)
    return np.stack([energy, px, py, pz], axis=-1)


def to_cylindrical(momenta: ArrayLike) -> NDArray[np.float64]:
    """Return (pt, eta, phi, mass) of (energy, px, py, pz), both of shape (..., 4).

    A momentum along the beam has eta of plus or minus infinity, none at all has eta 0. The mass of
    a momentum that is larger than the energy, as rounding makes it, is 0.

    >>> to_cylindrical([5.0, 3.0, 0.0, 0.0])
    array([3., 0., 0., 4.])
    """
    energy, px, py, pz = _columns(momenta)
    pt = np.hypot(px, py)
    momentum = np.hypot(pt, pz)
    mass = np.sqrt(np.maximum((energy - momentum) * (energy + momentum), 0.0))
    return np.stack([pt, pseudorapidity(pt, pz), _wrapped(np.arctan2(py, px)), mass], axis=-1)


def pseudorapidity(pt: ArrayLike, pz: ArrayLike) -> NDArray[np.float64]:
    """Return eta = arsinh(pz / pt); infinite along the beam, 0 for no momentum."""
    pt, pz = np.asarray(pt, dtype=np.float64), np.asarray(pz, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(pz == 0, 0.0, np.arcsinh(pz / pt))


def delta_phi(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the azimuthal angle from `second` to `first`, in [-pi, pi)."""
    return _wrapped(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


def delta_r(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the distance sqrt(delta_eta^2 + delta_phi^2) of cylindrical momenta, broadcast."""
    _, eta_1, phi_1, _ = _columns(first)
    _, eta_2, phi_2, _ = _columns(second)
    return np.hypot(eta_1 - eta_2, delta_phi(phi_1, phi_2))


def mass_of_sum(momenta: ArrayLike) -> NDArray[np.float64]:
    """Return the invariant mass of the sum of cylindrical momenta over the last axis but one.

    m^2 = (sum of E + pz)(sum of E - pz) - (sum of px)^2 - (sum of py)^2, where each E - pz is
    taken as (m^2 + pt^2) / (E + pz) for pz > 0, so that a boost along the beam costs no precision.

    Two massless particles have m^2 = 2 pt1 pt2 (cosh(delta eta) - cos(delta phi)):

    >>> mass_of_sum([[30.0, 17.5, 0.0, 0.0], [40.0, 17.0, 0.0, 0.0]]).round(9)
    np.float64(17.501494693)
    >>> np.sqrt(2 * 30 * 40 * (np.cosh(0.5) - 1)).round(9)
    np.float64(17.501494693)
    """
    pt, eta, phi, mass = _columns(momenta)
    large = np.hypot(pt * np.cosh(eta), mass) + np.abs(pt * np.sinh(eta))
    transverse = np.hypot(pt, mass)
    with np.errstate(invalid="ignore"):
        small = np.where(large > 0, transverse * (transverse / large), 0.0)
    plus = np.where(eta >= 0, large, small).sum(axis=-1)
    minus = np.where(eta >= 0, small, large).sum(axis=-1)
    px, py = (pt * np.cos(phi)).sum(axis=-1), (pt * np.sin(phi)).sum(axis=-1)
    return np.sqrt(np.maximum(plus * minus - px**2 - py**2, 0.0))


def _wrapped(angle: NDArray) -> NDArray[np.float64]:
    # Angles inside the range are left as they are, to the last bit.
    wrapped = np.mod(angle + np.pi, 2 * np.pi) - np.pi
    return np.where((angle >= -np.pi) & (angle < np.pi), angle, np.minimum(wrapped, _BELOW_PI))[()]


_BELOW_PI = np.nextafter(np.pi, 0.0)


def _columns(momenta: ArrayLike) -> Sequence[NDArray[np.float64]]:
    momenta = np.asarray(momenta, dtype=np.float64)
    if momenta.ndim == 0 or momenta.shape[-1] != 4:
        raise ValueError(f"`momenta` must have shape (..., 4), got {momenta.shape}.")
    return np.moveaxis(momenta, -1, 0)
