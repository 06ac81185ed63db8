"""Chapter 07: showers as the flows see them, and back.

Two ways. In one step, the preprocessing of paper B's generator: every cell's share of its layer's
energy and three ratios of energies, as logits. In two steps: first the energies of the layers and
the numbers of active cells, then the cells given these. The order of cells is that of
`Showers.voxels`, deposits are in MeV, kinetic energies in GeV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.showers import LAYER_SHAPES, N_VOXELS, THRESHOLD

Array = NDArray[np.float64]

_ENDS = np.cumsum([n_phi * n_eta for n_phi, n_eta in LAYER_SHAPES])
_PARTS = [slice(a, b) for a, b in zip([0, *_ENDS[:-1]], _ENDS, strict=True)]
_SIZES = np.array([part.stop - part.start for part in _PARTS])
# MeV: cells get up to this much by chance, a tenth of the threshold, so that none is exactly zero.
_NOISE = 1e-3
# Shares are squeezed to [_ALPHA, 1 - _ALPHA] before the logit. Paper B's code has 1e-6, which the
# share of an empty cell in a layer of 10 GeV lies below.
_ALPHA = 1e-8
# Deposits over the kinetic energy reach 1.01 in samples; a flow must be able to pass that.
_ONE_STEP_RESPONSE, _TWO_STEP_RESPONSE = 1.2, 1.02
# Logarithms of an empty cell over the threshold: a peak of its own, below the active cells.
_EMPTY_MEAN, _EMPTY_SPREAD = -2.0, 0.5
# Logarithm of a generated active cell over the threshold, at least.
_LEAST_EXCESS = 1e-3
# Decimal logarithms in MeV that an empty layer's energy is drawn between.
_EMPTY_LAYER = (-3.5, -2.5)


def layer_energies(voxels: Array) -> Array:
    """Return the energy of each layer in MeV, (n, 3), of cells (n, 504)."""
    return np.stack([voxels[:, part].sum(axis=1) for part in _PARTS], axis=1)


def above_threshold(voxels: NDArray) -> Array:
    """Return cells (n, 504) in float64, with 0 for those that are not above the threshold."""
    return np.where(voxels > THRESHOLD, voxels, 0.0).astype(np.float64)


def one_step_coordinates(voxels: Array, energy: Array, *, seed: int) -> tuple[Array, Array]:
    """Return what the one-step flow learns, (n, 507), and its conditions, (n, 1).

    Args:
        voxels: Cells above the threshold, shape (n, 504).
        energy: Kinetic energies, shape (n,).
        seed: Seed of the noise in the cells.
    """
    noisy = voxels + np.random.default_rng(seed).uniform(0, _NOISE, voxels.shape)
    layers = layer_energies(noisy)
    total = layers.sum(axis=1)
    shares = np.concatenate(
        [noisy[:, part] / layers[:, [k]] for k, part in enumerate(_PARTS)], axis=1
    )
    ratios = [
        total / (1e3 * energy * _ONE_STEP_RESPONSE),
        layers[:, 0] / total,
        layers[:, 1] / layers[:, 1:].sum(axis=1),
    ]
    return _logit(np.column_stack([shares, *ratios])), np.log(energy)[:, None]


def one_step_voxels(coordinates: Array, energy: Array) -> Array:
    """Return cells (n, 504) of coordinates (n, 507) and kinetic energies (n,)."""
    values = _from_logit(coordinates)
    response, first, second = values[:, N_VOXELS:].T
    total = response * _ONE_STEP_RESPONSE * 1e3 * energy
    rest = total * (1 - first)
    layers = np.stack([total * first, rest * second, rest * (1 - second)], axis=1)
    return above_threshold(_scaled(values[:, :N_VOXELS], layers))


def layer_coordinates(voxels: Array, energy: Array, *, seed: int) -> Array:
    """Return response, shares and active cells of the layers as the first step learns them, (n, 6).

    The energy of an empty layer at the back is drawn from a range below the threshold, with noise:
    a constant in its place would be a spike that a flow cannot make. Counts are spread over
    the unit interval above them.

    Args:
        voxels: Cells above the threshold, shape (n, 504).
        energy: Kinetic energies, shape (n,).
        seed: Seed of the noise.
    """
    rng = np.random.default_rng(seed)
    layers = layer_energies(voxels)
    empty = 10 ** rng.uniform(*_EMPTY_LAYER, layers.shape)
    layers = np.where(layers > 0, layers, empty)
    total = layers.sum(axis=1)
    response = np.minimum(total / (1e3 * energy), 0.9999 * _TWO_STEP_RESPONSE)
    counts = np.stack([(voxels[:, part] > 0).sum(axis=1) for part in _PARTS], axis=1)
    spread = counts + rng.uniform(size=counts.shape)
    return np.column_stack([
        np.log(response / (_TWO_STEP_RESPONSE - response)),
        np.log(layers[:, 0] / layers[:, 1:].sum(axis=1)),
        np.log(layers[:, 1] / layers[:, 2]),
        np.log(spread + 0.5),
    ])  # fmt: skip


def layers_of_coordinates(coordinates: Array, energy: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return energies and numbers of active cells of the layers, each (n, 3)."""
    response, first, second = coordinates[:, :3].T
    total = _TWO_STEP_RESPONSE / (1 + np.exp(-response)) * 1e3 * energy
    share, inner = 1 / (1 + np.exp(-first)), 1 / (1 + np.exp(-second))
    rest = total * (1 - share)
    layers = np.stack([total * share, rest * inner, rest * (1 - inner)], axis=1)
    counts = np.floor(np.exp(coordinates[:, 3:]) - 0.5).astype(np.int64)
    # No more cells than a layer has, nor than its energy allows; none is empty but the last.
    most = np.minimum(_SIZES, layers // THRESHOLD).astype(np.int64)
    return layers, np.clip(counts, 0, most)


def voxel_conditions(coordinates: Array, energy: Array) -> Array:
    """Return what the second step is given, (n, 7): the first step's coordinates and log energy."""
    return np.column_stack([coordinates, np.log(energy)])


def voxel_coordinates(voxels: Array, *, seed: int) -> Array:
    """Return logarithms of cells over the threshold, (n, 504); empty ones scatter in a gap below.

    Args:
        voxels: Cells above the threshold, shape (n, 504).
        seed: Seed of the noise in the gap.
    """
    gap = np.random.default_rng(seed).normal(_EMPTY_MEAN, _EMPTY_SPREAD, voxels.shape)
    return np.where(voxels > 0, np.log(np.maximum(voxels, THRESHOLD) / THRESHOLD), gap)


def two_step_voxels(coordinates: Array, layers: Array, counts: NDArray[np.int64]) -> Array:
    """Return cells (n, 504): in each layer the largest so many, with the layer's energy together.

    What they have beyond the threshold is scaled to what the layer has beyond that of all, so that
    none falls below it.

    Args:
        coordinates: Coordinates of the cells, shape (n, 504).
        layers: Energies of the layers in MeV, shape (n, 3).
        counts: Numbers of active cells in the layers, shape (n, 3).
    """
    active = np.zeros(coordinates.shape, dtype=bool)
    for k, part in enumerate(_PARTS):
        place = (-coordinates[:, part]).argsort(axis=1).argsort(axis=1)
        active[:, part] = place < counts[:, [k]]
    # exp(40) of the threshold is more than any particle has: nothing overflows.
    excess = np.where(active, np.expm1(np.clip(coordinates, _LEAST_EXCESS, 40)), 0.0)
    return np.where(active, THRESHOLD, 0.0) + _scaled(excess, layers - THRESHOLD * counts)


def _scaled(values: Array, layers: Array) -> Array:
    """Scale the cells of each layer to its energy; a layer without cells stays empty."""
    result = np.zeros_like(values)
    for k, part in enumerate(_PARTS):
        sums = values[:, part].sum(axis=1)
        factor = np.divide(layers[:, k], sums, out=np.zeros(len(sums)), where=sums > 0)
        result[:, part] = values[:, part] * factor[:, None]
    return result


def _logit(shares: Array) -> Array:
    squeezed = _ALPHA + (1 - 2 * _ALPHA) * np.clip(shares, 0, 1)
    return np.log(squeezed) - np.log1p(-squeezed)


def _from_logit(values: Array) -> Array:
    return np.clip((1 / (1 + np.exp(-values)) - _ALPHA) / (1 - 2 * _ALPHA), 0, 1)
