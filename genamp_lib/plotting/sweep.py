"""A result over a parameter, with intervals: the figure of a sweep."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

WIDE = 20  # largest over smallest, from where an axis is logarithmic


def plot_sweep(
    x: ArrayLike,
    value: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    label: str = "",
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot one line of points with their intervals; a triangle stands for an infinite upper end.

    Args:
        x: Values of the parameter, numbers or names, shape (n,).
        value: Results, shape (n,).
        low: Lower ends of their intervals, shape (n,); NaN where a result is exact.
        high: Upper ends, shape (n,); may be infinite.
        label: Name of the line.
        xlabel: Name of the parameter.
        ylabel: Name of the result.
        ax: Axes to draw on; new ones if None.
    """
    ax = plt.subplots()[1] if ax is None else ax
    good = np.isfinite(value)
    x, value, low, high = (np.asarray(column)[good] for column in (x, value, low, high))
    errors = np.nan_to_num([value - low, high - value], posinf=0.0).clip(min=0.0)
    line = ax.errorbar(x, value, errors, fmt="o-", capsize=3, label=label or None)[0]
    endless = np.isposinf(high)
    ax.plot(x[endless], value[endless], "^", markersize=10, color=line.get_color())
    ends = [("y", value)] + ([("x", x)] if x.dtype.kind in "if" else [])
    for axis, numbers in ends:
        if len(numbers) and numbers.min() > 0 and numbers.max() > WIDE * numbers.min():
            ax.set(**{f"{axis}scale": "log"})
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if label:
        ax.legend()
    return ax
