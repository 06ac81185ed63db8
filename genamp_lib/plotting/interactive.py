"""Explorer for the built site: sliders over a table that Python computed. Knows no formula.

The page's script only looks numbers up. Plotly is loaded from the site's own files when the figure
scrolls into view; sliders and numbers work without it, for instance in Jupyter.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from genamp_lib.plotting.style import COLOURS

if TYPE_CHECKING:
    from IPython.display import HTML

_SLIDERS = {
    "lower": "lower edge a",
    "upper": "upper edge b",
    "n_train": "training events n<sub>train</sub>",
}
_VALUES = (
    "integral <i>I</i> = <b>{}</b>, amplification factor <i>G</i> = <b>{}</b>, "
    "equivalent events <i>n</i><sub>equiv</sub> = <b>{}</b>"
)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_PAGE = """\
<div class="genamp-explorer" id="%(id)s">
<style>
#%(id)s { color: var(--pst-color-text-base, inherit); margin: 0.5rem 0 1.5rem; }
#%(id)s .genamp-explorer-controls { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; }
#%(id)s label { display: flex; flex-direction: column; flex: 1 1 11rem; }
#%(id)s input { width: 100%%; }
#%(id)s .genamp-explorer-values { font-variant-numeric: tabular-nums; margin: 0.7rem 0; }
#%(id)s .genamp-explorer-plot { min-height: 380px; }
html[data-theme="dark"] .text_html:has(.genamp-explorer) { background: transparent !important; }
</style>
<div class="genamp-explorer-controls">
%(sliders)s
</div>
<p class="genamp-explorer-values" role="status" aria-live="polite" aria-atomic="true">%(values)s</p>
<div class="genamp-explorer-plot" role="img" aria-label="%(alt)s"></div>
<noscript><p>The explorer works on the built site, with scripts switched on.</p></noscript>
<script type="application/json">%(table)s</script>
<script>
(function () {
  var root = document.getElementById("%(id)s");
  var table = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  var plot = root.querySelector(".genamp-explorer-plot");
  var values = root.querySelector(".genamp-explorer-values");
  var inputs = {};
  root.querySelectorAll("input[data-parameter]").forEach(function (input) {
    inputs[input.dataset.parameter] = input;
    input.addEventListener("input", function () { keepOrder(input); update(); });
  });
  function index(name) { return Number(inputs[name].value); }
  // An interval needs lower < upper: the slider that moved stops one step before the other.
  function keepOrder(moved) {
    var low = index("lower"), up = index("upper");
    if (moved === inputs.lower) moved.value = Math.min(low, table.last_lower[up]);
    if (moved === inputs.upper) moved.value = Math.max(up, table.first_upper[low]);
  }
  function entry() { return table.intervals[index("lower")][index("upper")]; }
  function style(name, otherwise) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || otherwise;
  }
  function traces() {
    var here = entry(), fit = here.fits[index("n_train")], x = table.n_generated;
    var ends = [x[0], x[x.length - 1]];
    function line(y, role, name) {
      return { x: y.length === 2 ? ends : x, y: y, name: name, mode: "lines", hoverinfo: "x+y+name",
               line: { color: table.colours[role], width: 2.5, dash: table.dashes[role] } };
    }
    return [
      line(here.stat, "stat", "σ<sub>stat</sub>"),
      line([fit.model, fit.model], "model", "σ<sub>model</sub>"),
      line(fit.total, "total", "√M<sub>I</sub>"),
      { x: [fit.n_equiv], y: [fit.model], name: "n<sub>equiv</sub>", mode: "markers",
        marker: { color: style("--pst-color-text-base", "#1a1a1a"), size: 11 } },
    ];
  }
  function layout() {
    var ink = style("--pst-color-text-base", "#1a1a1a");
    var grid = style("--pst-color-border", "#c9c9c9");
    function axis(title, range) {
      return { title: { text: title }, type: "log", range: range, gridcolor: grid, linecolor: grid,
               exponentformat: "power", dtick: 1, automargin: true };
    }
    return {
      height: 380, margin: { l: 70, r: 15, t: 10, b: 55 }, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 14 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      xaxis: axis("generated events n<sub>gen</sub>", table.x_range),
      yaxis: axis("uncertainty of the integral", table.y_range),
    };
  }
  function draw() {
    var config = { responsive: true, displayModeBar: false };
    if (window.Plotly) window.Plotly.react(plot, traces(), layout(), config);
  }
  function update() {
    Object.keys(inputs).forEach(function (name) {
      var text = table.labels[name][index(name)];
      inputs[name].setAttribute("aria-valuetext", text);
      inputs[name].parentNode.querySelector("b").textContent = text;
    });
    var texts = [entry().probability].concat(entry().fits[index("n_train")].texts);
    values.querySelectorAll("b").forEach(function (slot, i) { slot.textContent = texts[i]; });
    draw();
  }
  function loadPlotly() {
    if (window.Plotly) return draw();
    var source = (document.documentElement.dataset.content_root || "./") + "_static/plotly.min.js";
    var script = document.querySelector('script[data-genamp="plotly"]');
    if (!script) {
      script = document.createElement("script");
      script.src = source;
      script.dataset.genamp = "plotly";
      document.head.appendChild(script);
    }
    script.addEventListener("load", draw);
    script.addEventListener("error", function () {
      plot.style.minHeight = "0";
      plot.textContent = "The explorer works on the built site; here are its numbers only.";
    });
  }
  if ("IntersectionObserver" in window) {
    new IntersectionObserver(function (entries, observer) {
      if (!entries.some(function (e) { return e.isIntersecting; })) return;
      observer.disconnect();
      loadPlotly();
    }, { rootMargin: "300px" }).observe(plot);
  } else loadPlotly();
  new MutationObserver(draw).observe(document.documentElement,
    { attributes: true, attributeFilter: ["data-theme"] });
  update();
})();
</script>
</div>"""


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
    table = _table({name: np.asarray(array, dtype=float) for name, array in arrays.items()})
    # The edges that keepOrder may not pass must exist for every position of the other slider.
    position = {
        name: int(np.abs(np.asarray(arrays[name], dtype=float) - start[name]).argmin())
        for name in _SLIDERS
    }
    position["upper"] = max(position["upper"], table["first_upper"][position["lower"]])
    sliders = "\n".join(
        f"<label><span>{label} = <b>{table['labels'][name][position[name]]}</b></span>"
        f'<input type="range" min="0" max="{len(table["labels"][name]) - 1}" step="1" '
        f'value="{position[name]}" data-parameter="{name}" autocomplete="off"></label>'
        for name, label in _SLIDERS.items()
    )
    here = table["intervals"][position["lower"]][position["upper"]]
    values = _VALUES.format(here["probability"], *here["fits"][position["n_train"]]["texts"])
    text = json.dumps(table, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return HTML(
        _PAGE
        % {
            # From the content: the same explorer has the same id in every run.
            "id": "genamp-" + uuid.uuid5(uuid.NAMESPACE_OID, text).hex[:12],
            "sliders": sliders,
            "values": values,
            "alt": "Statistical uncertainty falling with the number of generated events, constant "
            "model uncertainty, their quadratic sum, and the crossing of the first two at n_equiv; "
            "the numbers stand above.",
            "table": text.replace("</", "<\\/"),
        }
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
