"""Explorer for the built site: sliders over a table that Python computed. Knows no formula.

The page's script only looks numbers up. Plotly is loaded from the site's own files when the figure
scrolls into view; sliders and numbers work without it, for instance in Jupyter.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

if TYPE_CHECKING:
    from IPython.display import HTML

# Sliders, and what they set; the page is explorer.html.
_SLIDERS = {
    "lower": "lower edge a",
    "upper": "upper edge b",
    "n_train": "training events n<sub>train</sub>",
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def explorer(
    *,
    lower: ArrayLike,
    upper: ArrayLike,
    n_train: ArrayLike,
    n_generated: ArrayLike,
    probability: ArrayLike,
    amplification: ArrayLike,
    sigma_stat: ArrayLike,
    sigma_model: ArrayLike,
    sigma_total: ArrayLike,
    start: Mapping[str, float],
) -> HTML:
    """Return sliders over the edges of an interval and n_train, with curves and numbers.

    Entries for which lower >= upper are not read and may be NaN.

    Args:
        lower: Lower edges, ascending, shape (a,).
        upper: Upper edges, ascending, shape (b,).
        n_train: Numbers of training events, shape (t,).
        n_generated: Numbers of generated events for the curves, ascending, shape (n,).
        probability: Probability of the interval, shape (a, b).
        amplification: G, shape (a, b, t).
        sigma_stat: Shape (a, b, n).
        sigma_model: Shape (a, b, t).
        sigma_total: Root of M_I, shape (a, b, t, n).
        start: Where the sliders stand first: "lower", "upper", "n_train"; the nearest is taken.

    Raises:
        ValueError: A shape is wrong, an edge has no partner, or a number is not finite.
    """
    from IPython.display import HTML
    from jinja2 import Template

    arrays = {
        "lower": lower,
        "upper": upper,
        "n_train": n_train,
        "n_generated": n_generated,
        "probability": probability,
        "amplification": amplification,
        "sigma_stat": sigma_stat,
        "sigma_model": sigma_model,
        "sigma_total": sigma_total,
    }
    arrays = {name: np.asarray(array, dtype=float) for name, array in arrays.items()}
    table = _table(arrays)
    position = {name: int(np.abs(arrays[name] - start[name]).argmin()) for name in _SLIDERS}
    # The edges that keepOrder may not pass must exist for every position of the other slider.
    position["upper"] = max(position["upper"], table["first_upper"][position["lower"]])
    here = table["intervals"][position["lower"]][position["upper"]]
    text = json.dumps(table, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    page = Path(__file__).with_name("explorer.html").read_text(encoding="utf-8")
    return HTML(
        Template(page).render(
            # From the content: the same explorer has the same id in every run.
            id="genamp-" + uuid.uuid5(uuid.NAMESPACE_OID, text).hex[:12],
            sliders=[
                {
                    "name": name,
                    "label": label,
                    "text": table["labels"][name][position[name]],
                    "last": len(table["labels"][name]) - 1,
                    "position": position[name],
                }
                for name, label in _SLIDERS.items()
            ],
            values=[here["probability"], *here["fits"][position["n_train"]]["texts"]],
            table=text.replace("</", "<\\/"),
        )
    )


def _table(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the page looks up, as plain JSON types."""
    lower, upper, n_train = arrays["lower"], arrays["upper"], arrays["n_train"]
    n_generated = arrays["n_generated"]
    square = (len(lower), len(upper))
    shapes = {
        "probability": square,
        "amplification": (*square, len(n_train)),
        "sigma_stat": (*square, len(n_generated)),
        "sigma_model": (*square, len(n_train)),
        "sigma_total": (*square, len(n_train), len(n_generated)),
    }
    valid = lower[:, np.newaxis] < upper
    if not (valid.any(axis=0).all() and valid.any(axis=1).all()):
        raise ValueError(
            "`lower` and `upper` must be such that each edge has a partner, got "
            f"{lower.tolist()} and {upper.tolist()}."
        )
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {arrays[name].shape}.")
        if not np.isfinite(arrays[name][valid]).all():
            raise ValueError(f"`{name}` must be finite where lower < upper, got NaN or infinity.")

    def interval(i: int, j: int) -> dict[str, Any] | None:
        if not valid[i, j]:
            return None
        fits = [
            {
                "model": _short(arrays["sigma_model"][i, j, k]),
                "total": [_short(sigma) for sigma in arrays["sigma_total"][i, j, k]],
                "n_equiv": _short(arrays["amplification"][i, j, k] * n_train[k]),
                "texts": [
                    _readable(arrays["amplification"][i, j, k]),
                    _readable(arrays["amplification"][i, j, k] * n_train[k]),
                ],
            }
            for k in range(len(n_train))
        ]
        # A straight line on logarithmic axes: its ends are enough.
        return {
            "probability": f"{arrays['probability'][i, j]:.4f}",
            "stat": [_short(sigma) for sigma in arrays["sigma_stat"][i, j, [0, -1]]],
            "fits": fits,
        }

    sigmas = np.concatenate(
        [arrays[name][valid].ravel() for name in ("sigma_stat", "sigma_model", "sigma_total")]
    )
    return {
        "intervals": [[interval(i, j) for j in range(len(upper))] for i in range(len(lower))],
        "n_generated": [_short(n) for n in n_generated],
        "first_upper": valid.argmax(axis=1).tolist(),
        "last_lower": (len(lower) - 1 - valid[::-1].argmax(axis=0)).tolist(),
        "labels": {
            "lower": [f"{edge:g}" for edge in lower],
            "upper": [f"{edge:g}" for edge in upper],
            "n_train": [f"{n:,.0f}" for n in n_train],
        },
        "x_range": np.log10(n_generated[[0, -1]]).round(3).tolist(),
        # The lowest model uncertainties (symmetric intervals) may leave the frame.
        "y_range": np.log10(np.quantile(sigmas, [0.01, 1.0])).round(1).tolist(),
        "colours": {role: COLOURS[role] for role in ("stat", "model", "total")},
        "dashes": {"stat": "dash", "model": "dashdot", "total": "solid"},
    }


def _readable(number: float) -> str:
    """Return three significant digits, with a power of ten from 100 000 on.

    >>> _readable(69.91), _readable(12345.0), _readable(6.991e7)
    ('69.9', '12,300', '6.99 × 10⁷')
    """
    if number < 1e5:
        digits = 2 - math.floor(math.log10(number))
        return f"{round(number, digits):,.{max(digits, 0)}f}"
    exponent = math.floor(math.log10(number))
    return f"{number / 10**exponent:.2f} × 10{str(exponent).translate(_SUPERSCRIPTS)}"


def _short(number: float) -> float:
    return float(f"{number:.3g}")
