"""Roots for whole arrays at once, and numbers as JSON knows them. Not for statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

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


def plain(value: Any) -> Any:
    """Return a value as JSON knows it; infinity, which JSON has no number for, is "inf"."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, tuple | list | np.ndarray):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return float(value) if math.isfinite(value) else str(float(value))


def record(estimate: Any, *properties: str) -> dict[str, Any]:
    """Return all fields of a dataclass, and some properties, as plain JSON types."""
    names = [field.name for field in fields(estimate)]
    return {name: plain(getattr(estimate, name)) for name in (*names, *properties)}
