"""Explorer of a cut on the weight for the built site: which events it selects, and where they lie.

Events are counted here; the page's script only adds counts up and needs nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from genamp_lib.diagnostics.weights import check_weights
from genamp_lib.plotting.interactive import explorer_page, places
from genamp_lib.plotting.style import COLOURS

if TYPE_CHECKING:
    from IPython.display import HTML

Pair = tuple[ArrayLike, ArrayLike]  # of the truth and of the generated events


def weight_explorer(
    cases: Mapping[str, tuple[Pair, Pair, ArrayLike]],
    *,
    weight_edges: ArrayLike,
    start: tuple[float, float],
) -> HTML:
    """Return sliders over both ends of a range of weights, and an observable of the events in it.

    Values outside the edges are counted in the first or last bin, so that no event gets lost.

    Args:
        cases: Weights, values of an observable, and edges of its bins, by the name on the
            observable's axis. Weights and values are pairs of shapes (n_truth,), (n_generated,).
            The page lets its reader choose one case; the first is shown first.
        weight_edges: Increasing positive edges of the bins of weight, where the range may end.
        start: Smallest and largest weight at first, at the nearest edges; may be 0 and infinite.

    Raises:
        ValueError: There is no case; weights are empty, NaN or negative; values are not finite or
            not one per weight; edges do not increase, or those of weight are not positive.
    """
    if not cases:
        raise ValueError("`cases` must name at least one observable, got none.")
    weight_edges = _increasing("weight_edges", weight_edges)
    if weight_edges[0] <= 0:
        raise ValueError(f"`weight_edges` must be positive, got {weight_edges[0]:g}.")
    is_short = weight_edges[-1] < 10 * weight_edges[0]
    locator = MaxNLocator(6, steps=[1, 2, 5, 10]) if is_short else LogLocator()
    ticks = locator.tick_values(weight_edges[0], weight_edges[-1])
    table = {
        "weights": places(
            np.log(weight_edges), {f"{tick:g}": np.log(tick) for tick in ticks if tick > 0}
        ),
        "cases": [
            {"name": name, **_counts(name, *case, weight_edges)} for name, case in cases.items()
        ],
        "labels": {
            "lower": ["0", *(f"{edge:.3g}" for edge in weight_edges[1:-1])],
            "upper": [*(f"{edge:.3g}" for edge in weight_edges[1:-1]), "∞"],
        },
        "first_upper": list(range(len(weight_edges) - 1)),
        "last_lower": list(range(len(weight_edges) - 1)),
    }
    ends = np.log(np.clip(start, weight_edges[0], weight_edges[-1]))
    lower, upper = (int(np.abs(np.log(weight_edges) - end).argmin()) for end in ends)
    lower = min(lower, len(weight_edges) - 2)
    return explorer_page(
        "weight_cut.html",
        table,
        {"lower": "smallest weight", "upper": "largest weight"},
        {"lower": lower, "upper": max(lower, upper - 1)},
        names=list(cases),
        colours=COLOURS,
    )


def _counts(
    name: str, weights: Pair, values: Pair, edges: ArrayLike, weight_edges: np.ndarray
) -> dict[str, Any]:
    """Count both samples in bins of weight and observable, (2, n_weight_bins, n_bins)."""
    edges = _increasing(f"edges of {name}", edges)
    counts = []
    for one, x in zip(check_weights(*weights), values, strict=True):
        x = np.asarray(x, dtype=np.float64)
        if x.shape != one.shape or not np.isfinite(x).all():
            raise ValueError(
                f"`values` of {name} must be finite, one for each of {len(one)} weights, "
                f"got shape {x.shape} with {int((~np.isfinite(x)).sum())} not finite."
            )
        inside = (np.clip(v, e[0], e[-1]) for v, e in ((one, weight_edges), (x, edges)))
        counts.append(np.histogram2d(*inside, (weight_edges, edges))[0].astype(int).tolist())
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(edges[0], edges[-1])
    return {
        "counts": counts,
        "values": [f"{middle:.3g}" for middle in (edges[1:] + edges[:-1]) / 2],
        **places(edges, {f"{tick:g}": tick for tick in ticks}),
    }


def _increasing(name: str, edges: ArrayLike) -> np.ndarray:
    edges = np.asarray(edges, dtype=np.float64)
    if (
        edges.ndim != 1
        or not np.isfinite(edges).all()
        or len(edges) < 2
        or min(np.diff(edges)) <= 0
    ):
        raise ValueError(f"`{name}` must be at least two increasing numbers, got {edges}.")
    return edges
