"""Figures of event samples: spectra of several of them, with lines to compare with. Arrays in."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS, mark

# Told apart without colours too.
_LINES = (
    (COLOURS["ink"], "-"),
    (COLOURS["total"], "--"),
    (COLOURS["model"], "-."),
    (COLOURS["stat"], ":"),
    (COLOURS["second"], (0, (5, 1, 1, 1, 1, 1))),
)


def draw_density(
    ax: Axes,
    values: np.ndarray,
    edges: np.ndarray,
    label: str,
    colour: str,
    line: object,
    weights: np.ndarray | None = None,
) -> None:
    """Draw n_bin / (n width) +- sqrt(n_bin) / (n width); n counts all values, empty bins no bar.

    Of weighted events n is a sum of weights, and the root that of the sum of their squares.
    """
    counts = np.histogram(values, edges, weights=weights)[0]
    squares = counts if weights is None else np.histogram(values, edges, weights=weights**2)[0]
    total = max(len(values), 1) if weights is None else weights.sum()
    scale = 1.0 / (total * np.diff(edges))
    is_log = ax.get_xscale() == "log"
    centres = np.sqrt(edges[1:] * edges[:-1]) if is_log else (edges[1:] + edges[:-1]) / 2
    ax.stairs(counts * scale, edges, label=label, color=colour, linestyle=line, linewidth=1.5)
    filled = squares > 0
    height, error = (counts * scale)[filled], (np.sqrt(squares) * scale)[filled]
    ax.errorbar(centres[filled], height, error, fmt="none", ecolor=colour, elinewidth=1.0)


def plot_spectra(
    samples: Mapping[str, ArrayLike],
    edges: ArrayLike,
    *,
    references: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw normalised histograms of at most five samples, and dotted lines at named references.

    Each bin shows n_bin / (n width) +- sqrt(n_bin) / (n width); n counts all values, also those
    outside the edges.

    >>> ax = plot_spectra({"toy": [0.1, 0.2, 3.0]}, [0.0, 0.5, 1.0], references={"cut": 0.7})
    >>> ax.patches[0].get_data().values.round(2), ax.texts[0].get_text()
    (array([1.33, 0.  ]), 'cut')
    """
    if not 1 <= len(samples) <= len(_LINES):
        raise ValueError(f"`samples` must be 1 to {len(_LINES)}, got {len(samples)}.")
    ax = plt.subplots()[1] if ax is None else ax
    edges = np.asarray(edges, dtype=np.float64)
    for (label, values), look in zip(samples.items(), _LINES, strict=False):
        draw_density(ax, np.asarray(values, dtype=np.float64), edges, label, *look)
    for name, position in (references or {}).items():
        look = {"rotation": 90, "va": "top", "ha": "left", "color": COLOURS["reference"]}
        mark(ax, position, name, (2, -4), foot=1.0, fontsize="small", **look)
    ax.set(xlim=(edges[0], edges[-1]), ylabel="density")
    return ax


def plot_members(
    members: Mapping[str, ArrayLike],
    truth: ArrayLike,
    truth_errors: ArrayLike,
    edges: ArrayLike,
    *,
    axes: tuple[Axes, Axes] | None = None,
) -> tuple[Axes, Axes]:
    """Draw densities of ensembles beside that of the truth, and below them their ratios to it.

    `members` are at most four tables (n_members, n_bins) by label. Lines are means over members,
    bands are one standard deviation of a single member; the truth has error bars, and a grey band
    of its relative errors in the lower panel.

    >>> upper, lower = plot_members({"toy": [[0.4, 0.6]]}, [0.5, 0.5], [0.1, 0.1], [0.0, 1.0, 2.0])
    >>> lower.patches[0].get_data().values
    array([0.8, 1.2])
    """
    if not 1 <= len(members) < len(_LINES):
        raise ValueError(f"`members` must be 1 to {len(_LINES) - 1}, got {len(members)}.")
    edges, truth, errors = (
        np.asarray(array, dtype=np.float64) for array in (edges, truth, truth_errors)
    )
    if axes is None:
        axes = plt.subplots(2, 1, sharex=True, height_ratios=(3, 1))[1]
    upper, lower = axes
    known = truth > 0
    centres = (edges[1:] + edges[:-1]) / 2
    relative = np.where(known, errors / np.where(known, truth, 1.0), 0.0)
    look = {"markersize": 4, "color": _LINES[0][0], "elinewidth": 1.0, "label": "held-out events"}
    upper.errorbar(centres[known], truth[known], errors[known], fmt=".", **look)
    for (label, densities), (colour, line) in zip(members.items(), _LINES[1:], strict=False):
        densities = np.asarray(densities, dtype=np.float64)
        mean = densities.mean(axis=0)
        spread = densities.std(axis=0, ddof=min(1, len(densities) - 1))
        upper.stairs(mean, edges, label=label, color=colour, linestyle=line, linewidth=1.5)
        ratio, band = np.stack([mean, spread]) / np.where(known, truth, np.nan)
        lower.stairs(ratio, edges, color=colour, linestyle=line, linewidth=1.5)
        lower.stairs(
            ratio + band, edges, baseline=ratio - band, color=colour, alpha=0.25, fill=True
        )
    lower.stairs(
        1 + relative, edges, baseline=1 - relative, color=COLOURS["reference"], alpha=0.3, fill=True
    )
    lower.axhline(1.0, color=COLOURS["reference"], linewidth=1.0)
    lower.set_ylim(0.7, 1.3)
    lower.set_ylabel("ratio")
    return upper, lower
