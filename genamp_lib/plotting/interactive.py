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
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def explorer(arrays: Mapping[str, ArrayLike], *, start: Mapping[str, float]) -> HTML:
    """Return sliders over the edges of an interval and n_train, with curves and numbers.

    `arrays` are the ascending axes `lower` (a,), `upper` (b,), `n_train` (t,), `n_generated` (n,);
    `probability` (a, b), `amplification` (a, b, t), `sigma_stat` (a, b, n), `sigma_model`
    (a, b, t) and `sigma_total` (a, b, t, n), not read where lower >= upper. `start` is where the
    sliders stand first, at the nearest value.
    """
    arrays = {name: np.asarray(array, dtype=float) for name, array in arrays.items()}
    table = _table(arrays)
    position = {name: int(np.abs(arrays[name] - start[name]).argmin()) for name in _SLIDERS}
    # The edges that keepOrder may not pass must exist for every position of the other slider.
    position["upper"] = max(position["upper"], table["first_upper"][position["lower"]])
    here = table["intervals"][position["lower"]][position["upper"]]
    values = [here["probability"], *here["fits"][position["n_train"]]["texts"]]
    return explorer_page("explorer.html", table, _SLIDERS, position, values=values)


def explorer_page(
    name: str,
    table: Mapping[str, Any],
    sliders: Mapping[str, str],
    position: Mapping[str, int],
    **fields: Any,
) -> HTML:
    """Fill a page that extends explorer_frame.html.

    `table` is what its script looks up, in plain JSON types; `table["labels"]` has a text for each
    position of a slider. `sliders` are the sliders and their labels, `position` where they stand,
    and `fields` what else the page names.
    """
    from IPython.display import HTML
    from jinja2 import Environment, FileSystemLoader

    text = json.dumps(table, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    page = Environment(loader=FileSystemLoader(Path(__file__).parent)).get_template(name)
    return HTML(
        page.render(
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
                for name, label in sliders.items()
            ],
            table=text.replace("</", "<\\/"),
            **fields,
        )
    )


def places(edges: np.ndarray, ticks: Mapping[str, float]) -> dict[str, list]:
    """Return edges and ticks as places along the axis, from 0 to 1."""
    first, length = edges[0], edges[-1] - edges[0]
    at = {text: (tick - first) / length for text, tick in ticks.items()}
    return {
        "edges": ((edges - first) / length).round(4).tolist(),
        "ticks": [[round(p, 4), text] for text, p in at.items() if -1e-6 < p < 1 + 1e-6],
    }


def _table(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the page looks up, as plain JSON types."""
    axes = [arrays[name] for name in ("lower", "upper", "n_train", "n_generated")]
    lower, upper, n_train, n_generated = axes
    a, b, t, n = map(len, axes)
    shapes = {"probability": (a, b), "amplification": (a, b, t), "sigma_stat": (a, b, n)}
    shapes |= {"sigma_model": (a, b, t), "sigma_total": (a, b, t, n)}
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
        n_equiv = arrays["amplification"][i, j] * n_train
        fits = [
            {
                "model": _short(arrays["sigma_model"][i, j, k]),
                "total": [_short(sigma) for sigma in arrays["sigma_total"][i, j, k]],
                "n_equiv": _short(n_equiv[k]),
                "texts": [_readable(arrays["amplification"][i, j, k]), _readable(n_equiv[k])],
            }
            for k in range(t)
        ]
        # A straight line on logarithmic axes: its ends are enough.
        return {
            "probability": f"{arrays['probability'][i, j]:.4f}",
            "stat": [_short(sigma) for sigma in arrays["sigma_stat"][i, j, [0, -1]]],
            "fits": fits,
        }

    sigmas = np.concatenate([arrays[name][valid].ravel() for name in shapes if "sigma" in name])
    return {
        "intervals": [[interval(i, j) for j in range(b)] for i in range(a)],
        "n_generated": [_short(number) for number in n_generated],
        "first_upper": valid.argmax(axis=1).tolist(),
        "last_lower": (a - 1 - valid[::-1].argmax(axis=0)).tolist(),
        "labels": {
            "lower": [f"{edge:g}" for edge in lower],
            "upper": [f"{edge:g}" for edge in upper],
            "n_train": [f"{number:,.0f}" for number in n_train],
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
    return f"{number / 10**exponent:.2f} × 10{str(exponent).translate(SUPERSCRIPTS)}"


def _short(number: float) -> float:
    return float(f"{number:.3g}")
