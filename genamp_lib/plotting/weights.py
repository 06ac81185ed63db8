"""Figures of classifier weights: distributions with errors, ROC curves. Arrays in, Axes out."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

# Roles and how they are drawn, in all figures of paper B: told apart without colours too.
_LINES: dict[str, dict[str, Any]] = {
    "truth": {"color": COLOURS["ink"], "linestyle": "-"},
    "generated": {"color": COLOURS["total"], "linestyle": "--"},
    "small": {"color": COLOURS["model"], "linestyle": "--"},
    "large": {"color": COLOURS["second"], "linestyle": "-"},
}
# Points of a drawn ROC curve: more do not show, and an SVG file holds each of them.
_N_ROC_POINTS = 400


def plot_distribution(
    values: ArrayLike, edges: ArrayLike, *, role: str, label: str, ax: Axes | None = None
) -> Axes:
    """Draw a normalised histogram with Poisson errors.

    Each bin shows n_bin / (n width) +- sqrt(n_bin) / (n width); n counts all values. Values outside
    the edges are counted in the first or last bin, so that no infinite weight gets lost; empty
    bins have no error bar.

    Args:
        values: One number per event, shape (n,); may be infinite.
        edges: Bin edges, ascending, shape (n_bins + 1,).
        role: "truth", "generated", or "small" or "large" for a slice of weights: the line.
        label: Text in the legend.
        ax: Axes to draw on; new ones when None.

    >>> ax = plot_distribution([0.1, 0.2, np.inf], [0.0, 0.5, 1.0], role="truth", label="truth")
    >>> ax.patches[0].get_data().values.round(2)
    array([1.33, 0.67])
    """
    ax = plt.subplots()[1] if ax is None else ax
    values, edges = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    # The last bin of numpy's histogram contains its upper edge.
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    scale = 1.0 / (max(len(values), 1) * np.diff(edges))
    line = _LINES[role]
    ax.stairs(counts * scale, edges, label=label, linewidth=1.5, **line)
    filled = counts > 0
    centres = (edges[:-1] + edges[1:]) / 2
    if ax.get_xscale() == "log":
        centres = np.sqrt(edges[:-1] * edges[1:])
    ax.errorbar(
        centres[filled],
        (counts * scale)[filled],
        yerr=(np.sqrt(counts) * scale)[filled],
        fmt="none",
        ecolor=line["color"],
        elinewidth=1.0,
    )
    return ax


def plot_roc(
    truth_passing: ArrayLike,
    generated_passing: ArrayLike,
    *,
    label: str,
    color: str,
    linestyle: str = "-",
    ax: Axes | None = None,
) -> Axes:
    """Draw a ROC curve with both passing fractions on logarithmic scales, and the diagonal.

    The logarithm shows the largest weights, where a removed tail is, and which an AUC forgets.

    Args:
        truth_passing: Fraction of truth events above the cut, as from `diagnostics.roc_curve`.
        generated_passing: Fraction of generated events above the same cut.
        label: Text in the legend.
        color: Of the curve.
        linestyle: Of the curve.
        ax: Axes to draw on; new ones when None.

    >>> ax = plot_roc([0.0, 0.5, 1.0], [0.0, 0.1, 1.0], label="classifier", color="black")
    >>> ax.get_xscale(), len(ax.lines)
    ('log', 2)
    """
    if ax is None:
        ax = plt.subplots()[1]
    if not ax.lines:
        ax.plot([1e-6, 1], [1e-6, 1], ":", color=COLOURS["reference"], linewidth=1.0)
    truth, generated = (np.asarray(x, dtype=np.float64) for x in (truth_passing, generated_passing))
    # Along the curve both fractions grow: their sum orders the points and has no steps.
    path = truth + generated
    if len(path) > _N_ROC_POINTS:
        wanted = np.geomspace(path[path > 0.0][0], path[-1], _N_ROC_POINTS)
        truth, generated = truth[path > 0.0], generated[path > 0.0]
        keep = np.unique(np.searchsorted(path[path > 0.0], wanted).clip(max=len(truth) - 1))
        truth, generated = truth[keep], generated[keep]
    ax.plot(generated, truth, label=label, color=color, linestyle=linestyle)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="fraction of generated above the cut",
        ylabel="fraction of truth above the cut",
    )
    return ax
