"""How the events of a batch are paired with base events in flow matching. Densities stay."""

from __future__ import annotations

from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genamp_lib.models.event_coordinates import ETA, LOG_MASS, LOG_PT, PHI, wrapped

Coupling = Literal["independent", "rotated", "optimal"]


def paired(events: Tensor, base: Tensor, coupling: Coupling) -> Tensor:
    """Return the base events in the order, and turned about the beam, of their partners.

    Neither changes the base density, as events have no preferred direction about the beam.

    Args:
        events: Coordinates of events, shape (n, n_particles, 4).
        base: The same of the base density.
        coupling: "independent", as they are; "rotated", turned; "optimal", turned and put in order.
    """
    if coupling == "independent":
        return base
    if coupling == "optimal":
        base = base[_best_order(events, base)]
    difference = events[..., PHI] - base[..., PHI]
    turn = torch.atan2(difference.sin().sum(1), difference.cos().sum(1))
    base = base.clone()
    base[..., PHI] = wrapped(base[..., PHI] + turn[:, None])
    return base


def _best_order(events: Tensor, base: Tensor) -> Tensor:
    """Return the order of base events with the smallest sum of squared distances.

    Angles differ by 2 (1 - cos), the square for small differences, after the turn of `paired`: by
    2 (number - |sum exp(i difference)|).
    """
    flat = [x[..., [LOG_PT, ETA, LOG_MASS]].flatten(1) for x in (events, base)]
    turned = [torch.polar(torch.ones_like(x[..., PHI]), x[..., PHI]) for x in (events, base)]
    common = (turned[0] @ turned[1].mH).abs()
    cost = torch.cdist(*flat).square() + 2 * (events.shape[1] - common)
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
