"""Showers in the CaloGAN calorimeter, layer by layer: reading them, and their observables.

Three layers of cells behind each other within +-240 mm. `phi` is the first axis of cells, `eta` the
second, both in mm across the beam; deposits are in MeV, of lead and argon together, and the
particle's kinetic energy is in GeV, as in CaloGAN's files.

Observables are those of paper B, sec. 4 and App. B. With E the deposits of the cells in MeV, E_l
the sum of layer l, E_tot that of the three, and (phi, eta) the place of a cell's centre in mm, all
in float64:

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

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError
from genamp_lib.datasets.rows import Rows, check_finite, check_shapes, load_rows, provenance_of
from genamp_lib.datasets.sources import DataSource

PARTICLES = ("eplus", "gamma", "piplus")
LAYER_SHAPES = ((3, 96), (12, 12), (12, 6))  # cells in phi and eta
CORE_WIDTH = 480.0  # mm that the cells cover in phi and in eta
N_VOXELS = sum(n_phi * n_eta for n_phi, n_eta in LAYER_SHAPES)
LAYERS = tuple(f"layer_{index}" for index in range(len(LAYER_SHAPES)))


@dataclass(frozen=True)
class Showers(Rows):
    """Showers of one kind of particle in the CaloGAN calorimeter.

    Slicing gives the showers of the slice: `showers[:100]`, `showers[selection]`. Observables:
    `genamp_lib.datasets.showers`.

    Attributes:
        energy: Shape (n,), float32: kinetic energy of the particle in GeV.
        layer_0: Shape (n, 3, 96), float32: deposits in MeV.
        layer_1: Shape (n, 12, 12), float32: deposits in MeV.
        layer_2: Shape (n, 12, 6), float32: deposits in MeV.
        overflow: Shape (n, 3), float32: deposits in each layer beside its cells, in MeV.
        particle: "eplus", "gamma" or "piplus".
        provenance: Making of the file, as written in it; empty when it does not say.
        source: Where they came from; `str(showers.source)` is a phrase to print.
    """

    energy: np.ndarray
    layer_0: np.ndarray
    layer_1: np.ndarray
    layer_2: np.ndarray
    overflow: np.ndarray
    particle: str
    provenance: dict[str, Any] = field(default_factory=dict)
    source: DataSource | None = None

    def __repr__(self) -> str:
        return f"Showers(n={len(self)}, particle={self.particle!r})"

    @property
    def layers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three layers, front to back."""
        return self.layer_0, self.layer_1, self.layer_2

    @property
    def voxels(self) -> np.ndarray:
        """All cells side by side, shape (n, 504): layer after layer, phi before eta."""
        return np.concatenate([layer.reshape(len(self), -1) for layer in self.layers], axis=1)


def layers_of_voxels(voxels: np.ndarray) -> list[np.ndarray]:
    """Return the three layers of cells side by side, shape (n, 504): the inverse of `voxels`."""
    voxels = np.asarray(voxels)
    if voxels.ndim != 2 or voxels.shape[1] != N_VOXELS:
        raise ValueError(f"`voxels` must have shape (n, {N_VOXELS}), got {voxels.shape}.")
    ends = np.cumsum([n_phi * n_eta for n_phi, n_eta in LAYER_SHAPES])
    parts = np.split(voxels, ends[:-1], axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, LAYER_SHAPES, strict=True)]


def load_showers(
    particle: str = "eplus", *, source: Path | str = "shipped", n_showers: int | None = None
) -> Showers:
    """Read calorimeter showers: the data of sec. 4 of paper B.

    Args:
        particle: "eplus", "gamma" or "piplus".
        source: "shipped", its checksum is verified; "public" for CaloGAN's file of this particle,
            fetched if need be; or the path of a file of `genamp data simulate showers` or in
            CaloGAN's layout: `energy` (n, 1) in GeV, `layer_0` (n, 3, 96), `layer_1` (n, 12, 12),
            `layer_2` (n, 12, 6) and, if there, `overflow` (n, 3) in MeV. Files in that layout
            do not say which particle they hold.
        n_showers: The first showers; all of them when None.

    Raises:
        GenampError: No such sample or file, the file is damaged, of another particle or layout, it
            cannot be fetched, or it has fewer than `n_showers` showers.

    Example:
        showers = load_showers("gamma")
        showers.layer_1[showers.energy > 50]
    """
    if particle not in PARTICLES:
        raise GenampError(f"`particle` must be one of {', '.join(PARTICLES)}, got {particle!r}.")
    read = partial(_read, particle)
    return load_rows(read, f"showers_{particle}", source, "n_showers", n_showers)


def _read(particle: str, path: Path, file: Any, n_showers: int | None) -> Showers:
    made = provenance_of(file)
    if made.get("particle", particle) != particle:
        raise GenampError(f"{path}: must hold {particle} showers, got those of {made['particle']}")
    arrays = (_read_own if "voxels" in file else _read_public)(path, file, n_showers)
    arrays = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
    check_finite(path, arrays, positive=True)
    _check_units(path, arrays)
    return Showers(**arrays, particle=particle, provenance=made)


def _check_units(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse files in which the particles leave far more, or far less, than they have."""
    if not len(arrays["energy"]):
        return
    deposits = sum(arrays[name].sum(axis=(1, 2), dtype=np.float64) for name in LAYERS)
    deposits = deposits + arrays["overflow"].sum(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        response = np.nanmedian(deposits / (1e3 * arrays["energy"].astype(np.float64)))
    # Pions leave a quarter of their energy in the middle, electrons and photons all of it.
    if not 0.01 < response < 10:
        raise GenampError(
            f"{path}: `energy` must be in GeV and deposits in MeV, got deposits of {response:.2g} "
            "times the energy; convert the units"
        )


def _read_own(path: Path, file: Any, n_showers: int | None) -> dict[str, np.ndarray]:
    per_shower = {"energy": ("n",), "overflow": ("n", len(LAYERS)), "n_voxels": ("n",)}
    check_shapes(path, file, {**per_shower, "voxels": ("hits",), "deposits": ("hits",)})
    n_voxels = file["n_voxels"][:].astype(np.int64)
    lengths = {len(file[name]) for name in per_shower}
    n_deposits = {len(file["voxels"]), len(file["deposits"]), int(n_voxels.sum())}
    if len(lengths) != 1 or len(n_deposits) != 1:
        raise GenampError(f"{path}: datasets must belong together, their lengths do not")
    n_voxels = n_voxels[:n_showers]
    n = int(n_voxels.sum())
    where = file["voxels"][:n].astype(np.int64)
    if n and where.max() >= N_VOXELS:
        raise GenampError(f"{path}: `voxels` must be below {N_VOXELS}, got {where.max()}")
    voxels = np.zeros((len(n_voxels), N_VOXELS), dtype=np.float32)
    voxels[np.repeat(np.arange(len(n_voxels)), n_voxels), where] = file["deposits"][:n]
    arrays = {name: file[name][:n_showers] for name in ("energy", "overflow")}
    return arrays | dict(zip(LAYERS, layers_of_voxels(voxels), strict=True))


def _read_public(path: Path, file: Any, n_showers: int | None) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int | str, ...]] = {"energy": ("n", 1)}
    shapes |= {name: ("n", *shape) for name, shape in zip(LAYERS, LAYER_SHAPES, strict=True)}
    shapes |= {"overflow": ("n", len(LAYERS))} if "overflow" in file else {}
    check_shapes(path, file, shapes)
    if len({len(file[name]) for name in shapes}) != 1:
        raise GenampError(f"{path}: {', '.join(shapes)} must have as many rows, they have not")
    arrays = {name: file[name][:n_showers] for name in shapes}
    arrays["energy"] = arrays["energy"][:, 0]
    return {"overflow": np.zeros((len(arrays["energy"]), len(LAYERS))), **arrays}


_OF_A_SHOWER = ("total_energy", "response", "overflow_fraction", "depth")
_OF_A_LAYER = ("energy", "fraction", "brightest", "sparsity")
_OF_A_LAYER += ("eta_centroid", "phi_centroid", "eta_width", "phi_width")
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
    """Return the centres of `n_cells` cells across the calorimeter in mm."""
    edges = np.linspace(-CORE_WIDTH / 2, CORE_WIDTH / 2, n_cells + 1)
    return (edges[1:] + edges[:-1]) / 2


def _over(numerator: np.ndarray, denominator: np.ndarray) -> NDArray[np.float64]:
    """Divide; 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator > 0)
