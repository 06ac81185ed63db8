"""Arrays in, Axes out."""

from genamp_lib.plotting.amplification import (
    mark_n_equiv,
    plot_amplification_map,
    plot_coverage,
    plot_estimate,
    plot_measured,
    plot_uncertainties,
)
from genamp_lib.plotting.interactive import explorer
from genamp_lib.plotting.style import COLOURS, use_style
from genamp_lib.plotting.weights import plot_distribution, plot_roc

__all__ = [
    "COLOURS",
    "explorer",
    "mark_n_equiv",
    "plot_amplification_map",
    "plot_coverage",
    "plot_distribution",
    "plot_estimate",
    "plot_measured",
    "plot_roc",
    "plot_uncertainties",
    "use_style",
]
