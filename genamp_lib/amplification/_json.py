"""Numbers as JSON knows them. Not for files."""

from __future__ import annotations

import math


def plain(number: float) -> float | str:
    """Return a float, or "inf", which JSON has no number for."""
    return float(number) if math.isfinite(number) else str(float(number))
