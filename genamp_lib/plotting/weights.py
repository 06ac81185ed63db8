"""Figures of classifier weights: distributions with errors, ROC curves. Arrays in, Axes out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.diagnostics import Closure, WeightCalibration, WeightSlice, roc_curve
from genamp_lib.plotting.spectra import draw_density
from genamp_lib.plotting.style import COLOURS

# Roles and how they are drawn, in all figures of paper B: told apart without colours too.
_LINES = {
    "truth": (COLOURS["ink"], "-"),
    "generated": (COLOURS["total"], "--"),
    "small": (COLOURS["model"], "--"),
    "large": (COLOURS["second"], "-"),
    "other": (COLOURS["stat"], "-."),
}
# Points of a drawn ROC curve: more do not show, and an SVG file holds each of them.
_N_ROC_POINTS = 400
_WEIGHT_EDGES = np.logspace(-1, 1, 50)


def plot_distribution(
    values: ArrayLike,
    edges: ArrayLike,
    *,
    role: str,
    label: str,
    weights: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a normalised histogram with Poisson errors; `role`, a key of `_LINES`, is its line.

    Each bin shows n_bin / (n width) +- sqrt(n_bin) / (n width); n counts all values. Values outside
    the edges are counted in the first or last bin, so that no infinite weight gets lost; empty
    bins have no error bar. Of weighted events n is a sum of weights, of any sign.
    """
    ax = plt.subplots()[1] if ax is None else ax
    values, edges = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    # The last bin of numpy's histogram contains its upper edge.
    draw_density(
        ax, np.clip(values, edges[0], edges[-1]), edges, label, *_LINES[role], weights=weights
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
    """Draw fractions above a cut, as from `roc_curve`, on logarithmic scales, and the diagonal.

    The logarithm shows the largest weights, where a removed tail is, and which an AUC forgets.
    """
    ax = plt.subplots()[1] if ax is None else ax
    if not ax.lines:
        ax.plot([1e-6, 1], [1e-6, 1], ":", color=COLOURS["reference"], linewidth=1.0)
    truth, generated = (np.asarray(x, dtype=np.float64) for x in (truth_passing, generated_passing))
    if len(truth) < _N_ROC_POINTS:
        # Straight pieces are curves on logarithmic scales.
        between = np.geomspace(1e-6, 1.0, _N_ROC_POINTS)
        truth = np.concatenate([truth, np.interp(between, generated, truth)])
        generated = np.concatenate([generated, between])
        order = np.lexsort((truth, generated))
        truth, generated = truth[order], generated[order]
    # Along the curve both fractions grow: their sum orders the points and has no steps.
    path = truth + generated
    if len(path) > 2 * _N_ROC_POINTS:
        wanted = np.geomspace(path[path > 0.0][0], path[-1], _N_ROC_POINTS)
        truth, generated = truth[path > 0.0], generated[path > 0.0]
        keep = np.unique(np.searchsorted(path[path > 0.0], wanted).clip(max=len(truth) - 1))
        truth, generated = truth[keep], generated[keep]
    ax.plot(generated, truth, label=label, color=color, linestyle=linestyle)
    xlabel, ylabel = (f"fraction of {which} above the cut" for which in ("generated", "truth"))
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    return ax


def plot_four_panels(
    observable: tuple[ArrayLike, ArrayLike],
    weights: tuple[ArrayLike, ArrayLike],
    slices: tuple[WeightSlice, WeightSlice],
    *,
    edges: ArrayLike,
    xlabel: str,
    weight_edges: ArrayLike = _WEIGHT_EDGES,
    true_weights: tuple[ArrayLike, ArrayLike] | None = None,
    null_weights: tuple[ArrayLike, ArrayLike] | None = None,
) -> np.ndarray:
    """Draw the four panels of Figs. 1 to 3 of paper B; return their axes, shape (2, 2).

    Top left the observable of both samples, top right the ROC curve, bottom left the weights,
    bottom right the observable of the events in the `slices` of small and of large weights. Pairs
    are of truth and generated events. The exact `true_weights` give the optimal ROC curve,
    `null_weights` that of a run without a flaw. `weight_edges` are those of the weights' bins; over
    less than a decade their axis is linear.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 8.5))
    values = [np.asarray(x, dtype=np.float64) for x in observable]
    small, large = slices
    ax = axes[0, 0]
    ax.set(yscale="log", xlabel=xlabel, ylabel="density")
    for role, one in zip(("truth", "generated"), values, strict=True):
        plot_distribution(one, edges, role=role, label=role, ax=ax)
    ax.legend()

    ax = axes[0, 1]
    for pair, label, color, line in (
        (weights, "classifier", COLOURS["total"], "-"),
        (null_weights, "null run", COLOURS["model"], "-."),
        (true_weights, "optimum", COLOURS["stat"], "--"),
    ):
        if pair is not None:
            plot_roc(*roc_curve(*pair), label=label, color=color, linestyle=line, ax=ax)
    ax.set(xlim=(1e-4, 1.3), ylim=(1e-4, 1.6))
    ax.legend(loc="lower right")

    ax = axes[1, 0]
    scale = "log" if weight_edges[-1] > 10 * weight_edges[0] else "linear"
    ax.set(xscale=scale, yscale="log", xlabel="weight", ylabel="density")
    for role, one in zip(("truth", "generated"), weights, strict=True):
        plot_distribution(one, weight_edges, role=role, label=role, ax=ax)
    ax.legend()

    ax = axes[1, 1]
    plot_distribution(values[0], edges, role="truth", label="all truth", ax=ax)
    for role, one, label in (
        ("small", values[1][small.indices], f"generated, w ≤ {small.high:.2f}"),
        ("large", values[0][large.indices], f"truth, w ≥ {large.low:.2f}"),
    ):
        plot_distribution(one, edges, role=role, label=label, ax=ax)
    ax.set(xlabel=xlabel, ylabel="density", ylim=(0, 1.3 * ax.get_ylim()[1]))  # the legend's room
    ax.legend()
    figure.tight_layout()
    return axes


def plot_calibration(
    calibration: WeightCalibration, *, label: str, color: str, ax: Axes | None = None
) -> Axes:
    """Draw truth over generated events in bins of the weight, beside the weight itself.

    Points are at the mean weight of the generated events of a bin; calibrated weights lie on the
    diagonal. Bins that the test leaves out, and bins of one sample alone, are not drawn.

    >>> from genamp_lib.diagnostics import weight_calibration
    >>> calibration = weight_calibration([1.0] * 30, [1.0] * 20, [0.5, 2.0])
    >>> plot_calibration(calibration, label="a", color="black").get_xlabel()
    'weight'
    """
    ax = plt.subplots()[1] if ax is None else ax
    drawn = np.isfinite(calibration.pulls + calibration.high) & (calibration.ratio > 0)
    x, y = calibration.mean_weight[drawn], calibration.ratio[drawn]
    errors = [y - calibration.low[drawn], calibration.high[drawn] - y]
    ax.errorbar(x, y, errors, fmt="o", markersize=4, color=color, label=label)
    ends = ax.dataLim.intervalx if len(x) else (0.9, 1.1)
    ax.plot(ends, ends, ":", color=COLOURS["reference"], linewidth=1.0)
    ax.set(xlabel="weight", ylabel="truth / generated")
    return ax


def plot_closure(closure: Closure, *, ax: Axes | None = None) -> Axes:
    """Draw generated over truth fractions in bins of an observable, before and after reweighting.

    Infinite edges are drawn at the width of their neighbour.

    >>> from genamp_lib.diagnostics import reweighting_closure
    >>> ax = plot_closure(reweighting_closure([0.5, 1.5], [0.5, 1.5], [1.0, 1.0], [0, 1, 2]))
    >>> ax.get_ylabel()
    'over truth'
    """
    ax = plt.subplots()[1] if ax is None else ax
    edges = np.array(closure.edges)
    widths = np.diff(edges)[[1, -2]] if len(edges) > 3 else (1.0, 1.0)
    if np.isinf(edges[0]):
        edges[0] = edges[1] - widths[0]
    if np.isinf(edges[-1]):
        edges[-1] = edges[-2] + widths[1]
    filled = closure.truth > 0
    centres = ((edges[:-1] + edges[1:]) / 2)[filled]
    truth = closure.truth[filled]
    generated_error = np.sqrt(closure.generated * (1 - closure.generated) / closure.n_generated)
    for values, errors, marker, color, label in (
        (closure.generated, generated_error, "s", COLOURS["model"], "generated"),
        (closure.reweighted, closure.reweighted_error, "o", COLOURS["total"], "reweighted"),
    ):
        look = {"fmt": marker, "markersize": 4, "color": color, "label": label}
        ax.errorbar(centres, values[filled] / truth, errors[filled] / truth, **look)
    band = np.where(filled, closure.truth_error / np.where(filled, closure.truth, 1.0), 0.0)
    ax.stairs(1 + band, edges, baseline=1 - band, fill=True, color=COLOURS["reference"], alpha=0.25)
    ax.axhline(1.0, color=COLOURS["reference"], linewidth=1.0, linestyle=":")
    ax.set_ylabel("over truth")
    return ax
