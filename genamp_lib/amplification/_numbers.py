"""Roots for whole arrays at once, and numbers as JSON knows them. Not for statistics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def find_root(function: Callable[[Array], Array], top: Array) -> Array:
    """Find where `function` changes sign in (0, top] by bisection; `top` where it does not."""
    low, high = np.zeros_like(top), top.copy()
    for _ in range(60):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def plain(number: float) -> float | str:
    """Return a float, or "inf", which JSON has no number for."""
    return float(number) if math.isfinite(number) else str(float(number))
