"""Estimated against true amplification, for many cases at once: the picture of the front page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

_MARKERS = "*os^Dv"


def plot_estimated_over_true(
    true: ArrayLike,
    estimated: ArrayLike,
    *,
    estimators: Sequence[str],
    cases: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Plot estimated over true amplification factors with their intervals and the diagonal.

    What is infinite or zero stands at the edge.

    Args:
        true: True factors as value, lower and upper end of the interval, shape (n, 3).
        estimated: Estimated ones, shape (n, 3).
        estimators: Name of the estimator of each point, at most six different ones; its colour.
        cases: Name of the case of each point, at most six different ones; its marker.
        ax: Axes to draw on; new ones if None.
    """
    ax = plt.subplots()[1] if ax is None else ax
    both = np.stack([true, estimated]).reshape(2, -1, 3)
    values = both[..., 0]
    values = values[np.isfinite(values) & (values > 0)]
    ends = values.min(initial=1.0) / 2, values.max(initial=1.0) * 2
    x, y = np.clip(both, *ends)
    colours = dict(zip(dict.fromkeys(estimators), COLOURS.values(), strict=False))
    markers = dict(zip(dict.fromkeys(cases), _MARKERS, strict=False))
    ax.plot(ends, ends, color=COLOURS["reference"], linewidth=1.0, zorder=0)
    for column, row, estimator, case in zip(x, y, estimators, cases, strict=True):
        colour = colours[estimator]
        ax.plot(column[1:], row[[0, 0]], color=colour, linewidth=0.8, alpha=0.45)
        ax.plot(column[[0, 0]], row[1:], color=colour, linewidth=0.8, alpha=0.45)
        size = 9 if markers[case] == "*" else 5
        ax.plot(column[0], row[0], markers[case], color=colour, markersize=size, clip_on=False)
    lines = [Line2D([], [], marker="s", ls="", color=colours[name], label=name) for name in colours]
    points = [
        Line2D([], [], marker=mark, ls="", color=COLOURS["ink"], markerfacecolor="none", label=name)
        for name, mark in markers.items()
    ]
    look = {"fontsize": "x-small", "handletextpad": 0.2}
    ax.add_artist(ax.legend(handles=points, loc="upper left", **look))
    ax.legend(handles=lines, loc="lower right", **look)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set(xlabel="true $G$", ylabel="estimated $G$")
    return ax
