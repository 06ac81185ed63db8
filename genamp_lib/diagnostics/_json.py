"""Results as JSON knows them. Not for files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Result:
    """A result whose attributes are numbers, texts, arrays, or results."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; infinity and NaN are strings."""
        return plain(vars(self))


def plain(value: Any) -> Any:
    """Return a value as plain JSON types; infinity and NaN as strings."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
