"""Figures of event samples: spectra of several of them, with lines to compare with. Arrays in."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

# Told apart without colours too.
_LINES = (
    (COLOURS["ink"], "-"),
    (COLOURS["total"], "--"),
    (COLOURS["model"], "-."),
    (COLOURS["stat"], ":"),
    (COLOURS["second"], (0, (5, 1, 1, 1, 1, 1))),
)


def plot_spectra(
    samples: Mapping[str, ArrayLike],
    edges: ArrayLike,
    *,
    references: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw normalised histograms with Poisson errors, and upright lines with their names.

    Each bin shows n_bin / (n width) +- sqrt(n_bin) / (n width); n counts all values, also those
    outside the edges.

    Args:
        samples: Label -> values, shape (n,); at most five.
        edges: Bin edges, ascending.
        references: Name -> where to draw a dotted line.
        ax: Axes to draw on; new ones when None.

    Raises:
        ValueError: There are more than five samples, or none.

    >>> ax = plot_spectra({"toy": [0.1, 0.2, 3.0]}, [0.0, 0.5, 1.0], references={"cut": 0.7})
    >>> ax.patches[0].get_data().values.round(2), ax.texts[0].get_text()
    (array([1.33, 0.  ]), 'cut')
    """
    if not 1 <= len(samples) <= len(_LINES):
        raise ValueError(f"`samples` must be 1 to {len(_LINES)}, got {len(samples)}.")
    ax = plt.subplots()[1] if ax is None else ax
    edges = np.asarray(edges, dtype=np.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    if ax.get_xscale() == "log":
        centres = np.sqrt(edges[1:] * edges[:-1])
    for (label, values), (colour, line) in zip(samples.items(), _LINES, strict=False):
        values = np.asarray(values, dtype=np.float64)
        counts = np.histogram(values, edges)[0]
        scale = 1.0 / (max(len(values), 1) * np.diff(edges))
        ax.stairs(counts * scale, edges, label=label, color=colour, linestyle=line, linewidth=1.5)
        filled = counts > 0
        ax.errorbar(
            centres[filled],
            (counts * scale)[filled],
            yerr=(np.sqrt(counts) * scale)[filled],
            fmt="none",
            ecolor=colour,
            elinewidth=1.0,
        )
    for name, position in (references or {}).items():
        ax.axvline(position, color=COLOURS["reference"], linewidth=1.0, linestyle=":")
        ax.annotate(
            name,
            (position, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -4),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize="small",
            color=COLOURS["reference"],
        )
    ax.set(xlim=(edges[0], edges[-1]), ylabel="density")
    return ax
