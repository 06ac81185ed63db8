"""Amplification factors side by side, with intervals that may be open. Arrays in, Axes out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

_MARKERS = {"total": "o", "model": "s", "stat": "^", "second": "D", "reference": "v"}


def plot_amplifications(
    names: Sequence[str],
    amplifications: ArrayLike,
    intervals: ArrayLike,
    *,
    label: str = "",
    role: str = "total",
    verdicts: Sequence[str] = (),
    offset: float = 0.0,
    limits: tuple[float, float] = (0.1, 100.0),
    ax: Axes | None = None,
) -> Axes:
    """Draw amplification factors in rows, on a logarithmic axis with a line at G = 1.

    What lies outside the limits ends in an arrow; an infinite G has no marker.

    Args:
        names: One name per row, from the top.
        amplifications: G, shape (n,); may be infinite.
        intervals: (low, high) of each, shape (n, 2); may be infinite.
        label: Text in the legend.
        role: A key of `COLOURS`; colour and marker.
        verdicts: Text at the right of each row.
        offset: Downward shift in rows, to set several series side by side.
        limits: Ends of the axis.
        ax: Axes to draw on; new ones when None.

    >>> ax = plot_amplifications(["mass", "width"], [2.0, np.inf], [[1.0, 5.0], [0.8, np.inf]])
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['mass', 'width']
    """
    ax = plt.subplots()[1] if ax is None else ax
    values = np.asarray(amplifications, dtype=np.float64)
    edges = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    rows = np.arange(len(names)) + offset
    left, right = limits
    low, high = np.clip(edges, left, right).T
    color = COLOURS[role]
    ax.axvline(1.0, color=COLOURS["reference"], linewidth=1.0, linestyle=":", zorder=0)
    ax.hlines(rows, low, high, color=color, linewidth=1.5)
    for at, beyond, marker in (
        (left, edges[:, 0] < left, "<"),
        (right, edges[:, 1] > right, ">"),
    ):
        ax.plot(np.full(beyond.sum(), at), rows[beyond], marker, color=color, clip_on=False)
    shown = (values >= left) & (values <= right)
    marker = _MARKERS.get(role, "o")
    ax.plot(values[shown], rows[shown], marker, color=color, markersize=6, label=label)
    for row, verdict in zip(rows, verdicts, strict=False):
        ax.annotate(
            verdict,
            (1.0, row),
            xycoords=ax.get_yaxis_transform(),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set(xscale="log", xlim=limits, xlabel="amplification factor $G$")
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", which="minor", left=False, right=False)
    return ax
