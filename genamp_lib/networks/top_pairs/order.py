"""The order of identical particles in a top pair, and what may be exchanged. Not for other events.

b1, q1, q2, b2, q3, q4, j1 ...: the top quark with more pt first, so is the quark of each W.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from genamp_lib.datasets.top_pairs import assignment_chi2, assignments


def exchanges(n_particles: int) -> list[list[int]]:
    """Return the eight orders of the six jets of a top pair that are the same event.

    >>> exchanges(6)[1], exchanges(6)[4]
    ([0, 1, 2, 3, 5, 4], [3, 4, 5, 0, 1, 2])
    """
    orders = []
    for tops, first, second in product((False, True), repeat=3):
        quarks = ([1, 2], [4, 5])
        one = [0, *(quarks[0][::-1] if first else quarks[0])]
        two = [3, *(quarks[1][::-1] if second else quarks[1])]
        orders.append([*(two + one if tops else one + two), *range(6, n_particles)])
    return orders


def in_order(momenta: Tensor) -> Tensor:
    """Return events with identical particles in order of falling pt, as samples have them.

    Args:
        momenta: Shape (n, n_particles, 4): pt, eta, phi, mass of b1, q1, q2, b2, q3, q4, j1 ...

    >>> event = torch.zeros(1, 6, 4, dtype=torch.double)
    >>> event[0, :, 0] = torch.tensor([30.0, 25.0, 26.0, 90.0, 24.0, 50.0])
    >>> in_order(event)[0, :, 0].tolist()
    [90.0, 50.0, 24.0, 30.0, 26.0, 25.0]
    """
    momenta = momenta.clone()
    for first in (1, 4):
        pair = momenta[:, first : first + 2]
        swap = pair[:, 0, 0] < pair[:, 1, 0]
        momenta[swap, first : first + 2] = pair[swap].flip(1)
    pt, phi = momenta[:, :6, 0], momenta[:, :6, 2]
    px = (pt * phi.cos()).unflatten(1, (2, 3)).sum(2)
    py = (pt * phi.sin()).unflatten(1, (2, 3)).sum(2)
    top_pt = torch.hypot(px, py)
    swap = top_pt[:, 0] < top_pt[:, 1]
    momenta[swap, :6] = momenta[swap][:, [3, 4, 5, 0, 1, 2]]
    order = momenta[:, 6:, 0].argsort(dim=1, descending=True, stable=True)
    momenta[:, 6:] = momenta[:, 6:].take_along_dim(order[..., None], 1)
    return momenta


def reconstructed(momenta: Tensor) -> Tensor:
    """Return events with the assignment of smallest chi^2 and `in_order`, as samples have them.

    Args:
        momenta: As for `in_order`, finite; that the first and the fourth particle are b matters.
    """
    orders = torch.from_numpy(assignments(momenta.shape[1]))
    best = torch.from_numpy(assignment_chi2(momenta.numpy()).argmin(axis=1))
    return in_order(momenta.take_along_dim(orders[best][..., None], 1))
