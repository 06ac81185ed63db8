"""One look for all figures: HEP axes, SVG, colours that survive dark mode; axes and marks."""

from __future__ import annotations

import os
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib import style
from matplotlib.axes import Axes

from genamp_lib._project import PRESET_VARIABLE

# Roles and their colours, after paper A: sigma_stat green, sigma_model orange, their sum blue.
# Contrast with the page is at least 3:1 in light mode and, lightness turned over, in dark mode.
COLOURS = {
    "stat": "#1f8a3b",
    "model": "#d9730d",
    "total": "#2b6cb0",
    "second": "#7b4fa3",
    "reference": "#6b6b6b",
    "ink": "#1a1a1a",
}

_SETTINGS = {
    "figure.figsize": (6.4, 4.2),
    "figure.facecolor": "none",  # pages are white or dark: no figure brings its own background
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.bbox": "tight",
    "svg.hashsalt": "genamp",  # the same figure is the same file
    "svg.fonttype": "path",
    "font.size": 12,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters everywhere
    "mathtext.fontset": "dejavusans",
    "mathtext.default": "it",
    "axes.labelsize": "medium",
    "axes.titlesize": "medium",
    "axes.linewidth": 1.0,
    "axes.unicode_minus": True,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "xtick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.major.size": 6,
    "ytick.minor.size": 3,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.cmap": "viridis",
}

# Without the ticks that only please, drawing takes a third less time.
_SMOKE = dict.fromkeys(
    ("xtick.top", "ytick.right", "xtick.minor.visible", "ytick.minor.visible"), False
)


def log_axes(ax: Axes | None, ylabel: str) -> Axes:
    """Return `ax`, or new axes, with a logarithmic axis of the number of generated events."""
    ax = plt.subplots()[1] if ax is None else ax
    xlabel = r"generated events $n_\mathrm{gen}$"
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    return ax


def mark(
    ax: Axes,
    position: float,
    name: str,
    offset: tuple[float, float],
    foot: float = 0.0,
    **look: Any,
) -> None:
    """Draw an upright dotted line, its name some points off its foot, or top if `foot` is 1."""
    ax.axvline(position, color=COLOURS["reference"], linewidth=1.0, linestyle=":", zorder=0)
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    ax.annotate(name, (position, foot), offset, **place, **look)


def drawable(name: str) -> str:
    r"""Return a name as a label: as it is, or as plain text where its LaTeX cannot be parsed.

    >>> print(drawable("$p_T$"), drawable("$m_{jj$"))
    $p_T$ \$m_{jj\$
    """
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(name)
    except ValueError:
        return name.replace("$", r"\$")
    return name


def use_style() -> None:
    """Set the look of all figures that follow; in a notebook they become SVG.

    Starts from mplhep's ROOT style (ticks inward on all four sides, labels at the ends of axes);
    nobody's own matplotlibrc shows through.
    """
    import mplhep

    colours = [COLOURS[role] for role in ("total", "model", "stat", "second", "reference")]
    cycle = matplotlib.cycler(color=colours)
    ink = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        COLOURS["ink"],
    )
    style.use(["default", mplhep.style.ROOT, _SETTINGS, ink, {"axes.prop_cycle": cycle}])
    if os.environ.get(PRESET_VARIABLE) == "smoke":
        matplotlib.rcParams.update(_SMOKE)
    if _in_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        # No date inside: a rerun writes the same file.
        set_matplotlib_formats("svg", metadata={"Date": None})


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")
