"""Figures of amplification: uncertainties, factors, maps, coverage. Arrays in, Axes out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from numpy.typing import ArrayLike

from genamp_lib.amplification import AveragingEstimate, TrueAmplification
from genamp_lib.plotting.style import COLOURS, log_axes, mark

_UNCERTAINTY = "uncertainty of the integral"
_LABELS = {
    "stat": r"$\sigma_\mathrm{stat}$",
    "model": r"$\sigma_\mathrm{model}$",
    "total": r"$\sqrt{M_I}$",
}
_LINES = {"stat": "--", "model": "-.", "total": "-"}  # told apart without colours too
_MARKERS = {"stat": "s", "model": "^", "total": "o"}
_ROLE_MARKERS = {"total": "o", "model": "s", "stat": "^", "second": "D", "reference": "v"}


def plot_uncertainties(
    n_generated: ArrayLike,
    *,
    stat: ArrayLike | None = None,
    model: ArrayLike | None = None,
    total: ArrayLike | None = None,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw uncertainties of an integral over the numbers of generated events (n,), as lines.

    `stat` is sigma_stat, `model` sigma_model and `total` the root of M_I, Eq. (11) of paper A, each
    broadcast to (n,); `label` stands after the symbol in the legend.
    """
    ax = log_axes(ax, _UNCERTAINTY)
    n_generated = np.asarray(n_generated, dtype=np.float64)
    for role, sigma in (("stat", stat), ("model", model), ("total", total)):
        if sigma is not None:
            look = {"linestyle": _LINES[role], "color": COLOURS[role]}
            name = f"{_LABELS[role]} {label}".strip()
            ax.plot(n_generated, np.broadcast_to(sigma, n_generated.shape), label=name, **look)
    return ax


def plot_measured(
    n_generated: ArrayLike,
    sigma: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike],
    *,
    role: str,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw measured uncertainties (n,) as points, with the bars of `interval`, (low, high).

    `role` is "stat", "model" or "total"; `label` stands after the symbol in the legend.
    """
    ax = log_axes(ax, _UNCERTAINTY)
    sigma = np.asarray(sigma, dtype=np.float64)
    low, high = (np.asarray(edge, dtype=np.float64) for edge in interval)
    look = {"markersize": 4.5, "elinewidth": 1.0, "color": COLOURS[role]}
    name = f"{_LABELS[role]} {label}".strip()
    errors = [sigma - low, high - sigma]
    ax.errorbar(n_generated, sigma, errors, fmt=_MARKERS[role], label=name, **look)
    return ax


def mark_n_equiv(ax: Axes, n_equiv: float, sigma: float, *, n_train: float) -> Axes:
    """Mark where sigma_stat crosses the sigma_model `sigma`, and the number of training events."""
    ax.plot([n_equiv], [sigma], "o", color=COLOURS["ink"], markersize=7, zorder=5)
    mark(ax, n_equiv, r"$n_\mathrm{equiv}$", (5, 8))
    mark(ax, n_train, r"$n_\mathrm{train}$", (5, 26))  # one above the other: they may be close
    return ax


def plot_estimate(
    estimate: AveragingEstimate, n_generated: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw an averaging estimate as in Fig. 1 of paper A, with the interval of sigma_model."""
    n_generated = np.asarray(n_generated, dtype=np.float64)
    ax = plot_uncertainties(
        n_generated,
        stat=estimate.sigma_stat(n_generated),
        model=estimate.sigma_model if estimate.model_variance > 0 else None,
        total=estimate.sigma_total(n_generated),
        ax=ax,
    )
    # A large G is a small sigma_model: the band is the interval upside down, open below when
    # the amplification has no upper limit.
    if estimate.interval[0] > 0:  # else there are too few training events for an interval
        high, low = estimate.sigma_stat(np.multiply(estimate.interval, estimate.n_train))
        look = {"color": COLOURS["model"], "alpha": 0.2, "linewidth": 0, "zorder": 0}
        ax.axhspan(low, high, label=r"interval of $\sigma_\mathrm{model}$", **look)
    if np.isfinite(estimate.n_equiv):
        mark_n_equiv(ax, estimate.n_equiv, estimate.sigma_model, n_train=estimate.n_train)
    ax.legend()
    return ax


def plot_averaging_scan(
    estimates: Sequence[AveragingEstimate],
    *,
    truth: TrueAmplification | None = None,
    definition: str = "mean",
    ax: Axes | None = None,
) -> Axes:
    """Draw what was estimated at several n_generated, beside the truth, Figs. 2, 4, 5 of paper A.

    Points: the root of M_I and sigma_model, each with its interval, at the sizes of the estimates;
    sigma_model is left out where the subtraction of Eq. (17) is not positive, and then an arrow
    shows its upper limit. Lines: sigma_stat, and the true root mean squared deviation if `truth`
    is given, that of the members' "mean" or of "one_draw", as `definition` says.
    """
    sizes = np.array([estimate.n_generated for estimate in estimates], dtype=np.float64)
    if not len(sizes) or not np.isfinite(sizes).all():
        raise ValueError("`estimates` must be of counts with finite n_generated, at least one.")
    last = estimates[-1]
    n = np.geomspace(sizes.min() / 1.5, sizes.max() * 1.5, 100)
    ax = plot_uncertainties(n, stat=last.sigma_stat(n), ax=ax)
    if truth is not None:
        true = np.hypot(last.sigma_stat(n), truth.sigma(definition))
        ax.plot(n, true, color=COLOURS["ink"], linestyle=":", label="true deviation")
    # G's interval upside down is that of sigma_model.
    low, high = np.array(
        [
            one.sigma_stat(np.multiply(one.interval[::-1], one.n_train))
            if one.interval[0] > 0
            else [one.sigma_model] * 2  # too few training events for an interval
            for one in estimates
        ]
    ).T
    stat = np.array([float(one.sigma_stat(one.n_generated)) for one in estimates])
    total = np.sqrt([one.total_variance for one in estimates])
    plot_measured(
        sizes,
        total,
        (np.minimum(np.hypot(low, stat), total), np.maximum(np.hypot(high, stat), total)),
        role="total",
        label="members",
        ax=ax,
    )
    model = np.array([one.sigma_model for one in estimates])
    seen = model > 0
    if seen.any():
        plot_measured(
            sizes[seen], model[seen], (low[seen], high[seen]), role="model", label="members", ax=ax
        )
    if not seen.all():
        ax.plot(sizes[~seen], high[~seen], linestyle="none", marker="v", color=COLOURS["model"])
    ax.legend()
    return ax


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
    """Draw factors G (n,) and their intervals (n, 2) in rows with names, with a line at G = 1.

    What lies outside the limits ends in an arrow; an infinite G has no marker. `verdicts` are
    texts at the right of the rows; `offset` moves a series down by a part of a row, to set several
    side by side.

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
    for at, beyond, arrow in ((left, edges[:, 0] < left, "<"), (right, edges[:, 1] > right, ">")):
        ax.plot(np.full(beyond.sum(), at), rows[beyond], arrow, color=color, clip_on=False)
    shown = (values >= left) & (values <= right)
    look = {"color": color, "markersize": 6, "label": label}
    ax.plot(values[shown], rows[shown], _ROLE_MARKERS.get(role, "o"), **look)
    place = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    for row, verdict in zip(rows, verdicts, strict=False):
        ax.annotate(verdict, (1.0, row), (10, 0), **place, va="center", fontsize="small")
    ax.set(xscale="log", xlim=limits, xlabel="amplification factor $G$")
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", which="minor", left=False, right=False)
    return ax


def plot_amplification_map(
    lower: ArrayLike,
    upper: ArrayLike,
    amplification: ArrayLike,
    *,
    limits: tuple[float, float],
    contours: ArrayLike = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw the amplification factor (n, m) over lower (n,) and upper edges (m,) of an interval.

    It is NaN where there is no interval. Values beyond the `limits` of the logarithmic colour scale
    have the end's colour; lines with labels are drawn at the factors `contours`.
    """
    ax = plt.subplots()[1] if ax is None else ax
    values = np.ma.masked_invalid(np.where(np.isposinf(amplification), limits[1], amplification)).T
    image = ax.pcolormesh(
        lower, upper, values, norm=LogNorm(*limits), shading="nearest", rasterized=True
    )
    if len(np.atleast_1d(contours)):
        lines = ax.contour(lower, upper, values, levels=contours, colors="white", linewidths=1.0)
        ax.clabel(lines, fmt="%g", fontsize="small")
    ax.figure.colorbar(image, ax=ax, extend="both", label="amplification factor $G$")
    ax.set(xlabel="lower edge $a$", ylabel="upper edge $b$")
    return ax


def plot_coverage(
    n_members: ArrayLike,
    coverage: ArrayLike,
    error: ArrayLike,
    *,
    nominal: float,
    role: str = "total",
    ax: Axes | None = None,
) -> Axes:
    """Draw how often intervals held the true value, over the number of members.

    `error` are binomial standard errors; a line shows `nominal`, the confidence that was claimed.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.axhline(nominal, color=COLOURS[role], linewidth=1.0, linestyle="--")
    places, label = np.arange(np.size(n_members)), f"claimed {100 * nominal:.2f} %"
    ax.errorbar(places, coverage, error, fmt="o", color=COLOURS[role], capsize=3, label=label)
    ax.set_xticks(places, [str(n) for n in np.atleast_1d(n_members)])
    ax.tick_params(axis="x", which="minor", bottom=False, top=False)
    ax.set_xlim(-0.5, np.size(n_members) - 0.5)
    ax.set(xlabel="members", ylabel="fraction of intervals that hold the truth")
    return ax
