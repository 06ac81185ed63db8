"""Figures of differential amplification: distances over n_generated, distributions. Axes out."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from genamp_lib.amplification import DifferentialEstimate, kolmogorov_band
from genamp_lib.amplification.kolmogorov import effective_size, finite_size_shift
from genamp_lib.plotting.style import COLOURS, log_axes, mark

_DISTANCE = "Kolmogorov-Smirnov distance $M$"
# One, two and three standard deviations, the bands of Fig. 7.
BANDS = (0.6827, 0.9545, 0.9973)


def plot_expected_distance(
    n: ArrayLike,
    estimate: DifferentialEstimate,
    *,
    bands: tuple[float, ...] = BANDS,
    ax: Axes | None = None,
) -> Axes:
    """Draw the distance that true events would have to the reference, with bands at some levels.

    The black line of Figs. 6, 7, 10 and 11 of paper A, Eqs. (35) and (36), at ascending numbers of
    true events. The bands are central intervals of the Kolmogorov distribution, not Eq. (37).
    """
    ax = log_axes(ax, _DISTANCE)
    n = np.asarray(n, dtype=np.float64)
    scale = np.sqrt(effective_size(estimate.n_reference, n))
    shift = finite_size_shift(estimate.n_reference, n)  # of K, Eq. (34), for finite samples
    for level in reversed(bands):
        low, high = (np.maximum(k - shift, 0) / scale for k in kolmogorov_band(level))
        ax.fill_between(n, low, high, color=COLOURS["reference"], alpha=0.18, linewidth=0, zorder=0)
    label = rf"true events against {_reference(estimate)}"
    ax.plot(n, estimate.expected_distance(n), color=COLOURS["ink"], label=label)
    return ax


def plot_distance_curve(
    n_generated: ArrayLike,
    distances: ArrayLike,
    estimate: DifferentialEstimate,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw distances over the number of generated events beside those of true events.

    As Figs. 7, 10 and 11 of paper A; the first two arguments are a `KolmogorovAccumulator.curve`.
    The generated curve leaves the band of true events about where n_generated passes n_equiv, if it
    does; the mark says where the estimate puts that.
    """
    numbers = (n_generated[0], n_generated[-1], estimate.n_equiv, estimate.n_train)
    shown = [number for number in numbers if math.isfinite(number) and number > 0]
    ax = plot_expected_distance(np.geomspace(min(shown), max(shown), 200), estimate, ax=ax)
    color = COLOURS["total"]
    ax.plot(n_generated, distances, "o-", markersize=3.5, color=color, label="generated events")
    if math.isfinite(estimate.n_equiv):
        look = {"markersize": 7, "color": color, "markeredgecolor": COLOURS["ink"], "zorder": 5}
        label = rf"$n_\mathrm{{equiv}}$ = {_count(estimate.n_equiv)}"
        distance = estimate.expected_distance([estimate.n_equiv])
        ax.plot([estimate.n_equiv], distance, "D", label=label, **look)
    ax.legend()
    return ax


def plot_distance_band(
    n_generated: ArrayLike,
    distances: ArrayLike,
    *,
    label: str,
    role: str = "total",
    ax: Axes | None = None,
) -> Axes:
    """Draw distances (n_generators, n_sizes) over n_generated: median, and a band of 16 to 84 %.

    The band is the spread over the generators only. Where they share a reference it leaves out the
    chance of that reference, which moves all of them together. Sizes that not all of them reach
    (NaN) are left out.

    >>> ax = plot_distance_band([10, 100], [[0.2, 0.1], [0.3, np.nan]], label="radius")
    >>> [len(line.get_xdata()) for line in ax.lines]
    [1]
    """
    ax = log_axes(ax, _DISTANCE)
    distances = np.asarray(distances, dtype=np.float64)
    complete = np.isfinite(distances).all(axis=0)
    n, kept = np.asarray(n_generated)[complete], distances[:, complete]
    low, middle, high = np.quantile(kept, [0.15865, 0.5, 0.84135], axis=0)
    ax.fill_between(n, low, high, color=COLOURS[role], alpha=0.3, linewidth=0)
    ax.plot(n, middle, color=COLOURS[role], label=label)
    return ax


def plot_distance_sketch(estimate: DifferentialEstimate, *, ax: Axes | None = None) -> Axes:
    """Draw how the distance is read as a number of true events, Fig. 6 of paper A.

    The curve of true events, the level that infinitely many generated events stay at, and where
    they cross. Where they do not, the distance is that of a perfect generator.
    """
    ends = np.multiply(estimate.interval, estimate.n_train)
    numbers = np.array([estimate.n_equiv, *ends, estimate.n_train])
    finite = numbers[np.isfinite(numbers) & (numbers > 0)]
    n = np.geomspace(finite.min() / 5, finite.max() * 20, 200)
    ax = plot_expected_distance(n, estimate, bands=(), ax=ax)
    # Where infinitely many generated events would stay: M without what their number adds to it.
    # A perfect generator stays where true events do, which is 0 for an exact distribution.
    if math.isfinite(estimate.n_equiv) or math.isfinite(estimate.n_reference):
        distance = float(estimate.expected_distance([estimate.n_equiv])[0])
        label = r"generated events, $n_\mathrm{gen}\to\infty$"
        ax.axhline(distance, color=COLOURS["model"], linestyle="-.", label=label)
    look = {"color": COLOURS["total"], "alpha": 0.15, "linewidth": 0, "zorder": 0}
    label = rf"$n_\mathrm{{equiv}}$ at {100 * estimate.confidence:g} %"
    ax.axvspan(*np.clip(ends, n[0], n[-1]), label=label, **look)
    mark(ax, estimate.n_train, r"$n_\mathrm{train}$", (5, 8))
    if math.isfinite(estimate.n_equiv):  # higher, legible also where the two are close
        mark(ax, estimate.n_equiv, r"$n_\mathrm{equiv}$", (5, 28))
    ax.set(xlim=(n[0], n[-1]), xlabel="true events $n$")
    ax.legend()
    return ax


def plot_empirical_cdf(
    values: ArrayLike,
    *,
    label: str,
    role: str = "total",
    linestyle: str = "-",
    ax: Axes | None = None,
) -> Axes:
    """Draw an empirical distribution function as the steps that it is, Fig. 9 of paper A.

    More than 2000 values are drawn at 2000 quantiles.
    """
    ax = plt.subplots()[1] if ax is None else ax
    values = np.asarray(values, dtype=np.float64)
    if len(values) > 2000:
        values = np.quantile(values, np.linspace(0, 1, 2000))
    ax.ecdf(values, label=label, color=COLOURS[role], linestyle=linestyle)
    ax.set(ylabel="fraction of events below", ylim=(0, 1))
    return ax


def _reference(estimate: DifferentialEstimate) -> str:
    if math.isinf(estimate.n_reference):
        return "the exact distribution"
    return f"{_count(estimate.n_reference)} {estimate.reference} events"


def _count(number: float) -> str:
    """Return a number of events as a person writes it, for mathtext and plain text alike."""
    return f"{number:,.0f}".replace(",", "\N{THIN SPACE}")
