"""Explorer of verdicts for the built site: what a holdout of some size can say of a true G.

Probabilities are computed here; the page's script only looks them up.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from genamp_lib.amplification.pseudo_experiments import verdict_probabilities
from genamp_lib.plotting.interactive import SUPERSCRIPTS, explorer_page, places
from genamp_lib.plotting.style import COLOURS

if TYPE_CHECKING:
    from IPython.display import HTML

_EVENTS = [digit * 10**power for power in range(2, 8) for digit in (1, 2, 5)]
AXES = {
    "n_train": _EVENTS[:10],
    "n_holdout": _EVENTS[:16],
    "amplification": [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, math.inf],
}
_SLIDERS = {
    "n_train": "training events n<sub>train</sub>",
    "n_holdout": "holdout events",
    "amplification": "true <i>G</i>",
}


def verdict_explorer(*, start: Mapping[str, float], n_generated_ratio: float = math.inf) -> HTML:
    """Return sliders over the sizes of training set and holdout and the true G, with the verdicts.

    Args:
        start: Places of the sliders at first: `n_train`, `n_holdout` and `amplification`, each a
            value of its axis in `AXES`.
        n_generated_ratio: Generated events over holdout events.

    Raises:
        ValueError: A start is not on its axis.
    """
    for name, values in AXES.items():
        if start[name] not in values:
            raise ValueError(f"`start` of {name} must be one of {values}, got {start[name]}.")
    n_train, n_holdout, amplifications = map(np.array, AXES.values())
    ratios = n_holdout / n_train[:, np.newaxis]
    shares = verdict_probabilities(ratios, amplifications, n_generated_ratio=n_generated_ratio)
    percent = (100 * shares).round().astype(int)
    position = {name: values.index(start[name]) for name, values in AXES.items()}
    events = [[f"{n:,.0f}" for n in AXES[name]] for name in ("n_train", "n_holdout")]
    true_g = ["∞" if np.isinf(g) else f"{g:g}" for g in amplifications]
    table = {
        "percent": percent.tolist(),
        "ratios": [[_readable(ratio) for ratio in row] for row in ratios],
        "labels": dict(zip(_SLIDERS, (*events, true_g), strict=True)),
        "axes": {
            "n_holdout": places(
                np.log10(n_holdout),
                {f"10{str(n).translate(SUPERSCRIPTS)}": n for n in range(2, 8)},
            ),
            "amplification": places(
                np.arange(len(true_g)), {text: k for k, text in enumerate(true_g)}
            ),
        },
    }
    t, h, g = position.values()
    yes, no = percent[t, h, g].tolist()
    figure = Figure(figsize=(6.0, 3.6))
    ax = plot_verdicts(n_holdout, shares[t, :, g], figure.subplots())
    shown = [f"{share}\N{NO-BREAK SPACE}%" for share in (yes, 100 - yes - no, no)]
    what = f"{events[0][t]} training events, true G = {true_g[g]}"
    ax.set_title(what)
    still = io.BytesIO()
    figure.savefig(still, format="png", dpi=100, metadata={"Software": None})
    return explorer_page(
        "verdicts.html",
        table,
        _SLIDERS,
        position,
        values=[table["ratios"][t][h], *shown],
        still=base64.b64encode(still.getvalue()).decode(),
        alt=f"Shares of the verdicts over the number of holdout events, for {what}.",
        colours=COLOURS,
    )


def plot_verdicts(n_holdout: ArrayLike, probabilities: ArrayLike, ax: Axes) -> Axes:
    """Draw the shares of the verdicts over the number of holdout events, as areas.

    Args:
        n_holdout: Ascending numbers of holdout events, shape (n,).
        probabilities: Probabilities of "amplifies" and "does not amplify", shape (n, 2).
        ax: Axes to draw on.
    """
    yes, no = np.transpose(probabilities)
    names = ("amplifies", "undecided", "does not amplify")
    colours = (COLOURS["total"], "#d0d0d0", COLOURS["model"])
    ax.stackplot(n_holdout, yes, 1 - yes - no, no, labels=names, colors=colours)
    ax.set(xscale="log", xlabel="holdout events", ylabel="share of studies", ylim=(0, 1))
    ax.set_xlim(min(n_holdout), max(n_holdout))
    ax.legend(loc="center left")
    return ax


def _readable(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
