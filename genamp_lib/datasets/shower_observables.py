"""Observables of whole showers: those of paper B, sec. 4 and App. B. Not for reading showers.

With E the deposits of the cells in MeV, E_l the sum of layer l, E_tot that of the three, and (phi,
eta) the place of a cell's centre in mm, all in float64:

| name | formula |
|---|---|
| total_energy | E_tot in MeV, without what lies beside the cells |
| response | E_tot over the kinetic energy of the particle |
| overflow_fraction | deposits beside the cells, over all deposits |
| depth | sum_l l E_l / E_tot, from 0 to 2: the mean layer |
| energy_l | E_l in MeV |
| fraction_l | E_l / E_tot |
| brightest_l | largest deposit of a cell over E_l |
| sparsity_l | 1 - fraction of cells with a deposit above the threshold |
| eta_centroid_l, phi_centroid_l | sum E eta / E_l, sum E phi / E_l in mm |
| eta_width_l, phi_width_l | (sum E eta^2 / E_l - centroid^2)^(1/2) in mm |

A layer without energy has fraction, brightest cell, centroid and width 0 and sparsity 1. High
sparsity means few cells, as in paper B; earlier papers call one minus that so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.showers import CORE_WIDTH, LAYER_SHAPES, Showers

_OF_A_SHOWER = ("total_energy", "response", "overflow_fraction", "depth")
_OF_A_LAYER = (
    "energy",
    "fraction",
    "brightest",
    "sparsity",
    "eta_centroid",
    "phi_centroid",
    "eta_width",
    "phi_width",
)
SHOWER_OBSERVABLES = (
    *_OF_A_SHOWER,
    *(f"{name}_{layer}" for name in _OF_A_LAYER for layer in range(len(LAYER_SHAPES))),
)
# Paper B's generator leaves no cells below 10 keV.
THRESHOLD = 0.01  # MeV


def shower_observables(
    showers: Showers, *, threshold: float = THRESHOLD
) -> dict[str, NDArray[np.float64]]:
    """Compute the observables named in `SHOWER_OBSERVABLES`, in that order.

    Args:
        showers: n of them.
        threshold: Deposit in MeV above which a cell counts as active; not used otherwise.

    Returns:
        Arrays of shape (n,).

    Raises:
        ValueError: `threshold` is negative.

    A shower of 10 GeV with two cells, 3 MeV and 1 MeV, in the middle layer:

    >>> layer = np.zeros((1, 12, 12))
    >>> layer[0, 6, 5], layer[0, 6, 6] = 3, 1
    >>> shower = Showers(np.array([10.0]), np.zeros((1, 3, 96)), layer, np.zeros((1, 12, 6)),
    ...                  np.zeros((1, 3)), "gamma")
    >>> values = shower_observables(shower)
    >>> [float(values[name][0]) for name in ("total_energy", "depth", "brightest_1")]
    [4.0, 1.0, 0.75]
    >>> [float(values[f"{name}_1"][0]) for name in ("eta_centroid", "phi_centroid")]
    [-10.0, 20.0]
    """
    if threshold < 0:
        raise ValueError(f"`threshold` must not be negative, got {threshold}.")
    layers = [layer.astype(np.float64) for layer in showers.layers]
    sums = np.stack([layer.sum(axis=(1, 2)) for layer in layers], axis=1)
    total = sums.sum(axis=1)
    overflow = showers.overflow.sum(axis=1, dtype=np.float64)
    values = {
        "total_energy": total,
        "response": total / (1e3 * showers.energy.astype(np.float64)),
        "overflow_fraction": _over(overflow, total + overflow),
        "depth": _over(sums @ np.arange(len(layers)), total),
    }
    for index, layer in enumerate(layers):
        energy = sums[:, index]
        values |= {
            f"energy_{index}": energy,
            f"fraction_{index}": _over(energy, total),
            f"brightest_{index}": _over(layer.max(axis=(1, 2)), energy),
            f"sparsity_{index}": 1 - (layer > threshold).mean(axis=(1, 2)),
        }
        for name, axis in (("eta", 1), ("phi", 2)):
            profile = layer.sum(axis=axis)
            place = cell_centres(profile.shape[1])
            mean = _over(profile @ place, energy)
            # About the centroid: no difference of large numbers.
            variance = _over((profile * (place - mean[:, None]) ** 2).sum(axis=1), energy)
            values[f"{name}_centroid_{index}"] = mean
            values[f"{name}_width_{index}"] = np.sqrt(variance)
    return {name: values[name] for name in SHOWER_OBSERVABLES}


def cell_centres(n_cells: int) -> NDArray[np.float64]:
    """Return the centres of `n_cells` cells across the calorimeter in mm.

    >>> cell_centres(3)
    array([-160.,    0.,  160.])
    """
    edges = np.linspace(-CORE_WIDTH / 2, CORE_WIDTH / 2, n_cells + 1)
    return (edges[1:] + edges[:-1]) / 2


def _over(numerator: np.ndarray, denominator: np.ndarray) -> NDArray[np.float64]:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator > 0)
