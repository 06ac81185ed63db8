"""Roots for whole arrays at once, and numbers as JSON knows them. Not for statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

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
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return float(value) if math.isfinite(value) else str(float(value))


class Record:
    """A dataclass that is written as JSON: all of its fields, and the properties in `_said`."""

    _said: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; infinity is the string "inf"."""
        names = [field.name for field in fields(self)]
        return {name: plain(getattr(self, name)) for name in (*names, *self._said)}


class Worth(Record):
    """A record with `amplification` and `n_train`."""

    @property
    def n_equiv(self) -> float:
        """Number of true events that are worth as much as infinitely many generated ones."""
        return self.amplification * self.n_train


def with_interval(value: float, interval: tuple[float, float]) -> str:
    """Return text like `3.4 [1.2, 5.6]`."""
    return f"{value:.3g} [{interval[0]:.3g}, {interval[1]:.3g}]"
