"""Write and print what `genamp diagnose` found: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from genamp_lib._project import replace_file
from genamp_lib.cli._report_figures import (
    calibration_figure,
    closure_figure,
    slices_figure,
    weights_figure,
)
from genamp_lib.plotting import use_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genamp_lib.diagnostics import Diagnosis

# Observables that are drawn; all are in the table.
N_DRAWN = 3
HEADLINES = {
    "differs": "The generator differs from the truth.",
    "separated": "The samples hardly overlap.",
    "no difference found": "No difference found.",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; }
figcaption, footer { color: #555; font-size: .92rem; } .narrow img { max-width: 36rem; }
.verdict { border-left: .4rem solid #2b6cb0; padding: .2rem 1rem; background: #f1f5fa; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid #ccc; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e4; background: #16181c; }
  figcaption, footer { color: #b4b4b4; }
  .verdict { background: #20262f; border-color: #6aa5e8; } th, td { border-color: #444; }
  figure img { filter: invert(1) hue-rotate(180deg); }
}
"""


def print_diagnosis(diagnosis: Diagnosis, notes: list[str], output: Path) -> None:
    """Print the summary and where the report is."""
    for line in [*_summary(diagnosis), *notes]:
        typer.echo(line)
    typer.echo(f"Report: {output}")


def write_report(
    path: Path,
    diagnosis: Diagnosis,
    weights: list[np.ndarray],
    features: list[str],
    samples: list[np.ndarray],
    record: dict[str, Any],
) -> None:
    """Write the report.

    Args:
        path: The HTML file.
        diagnosis: What the weights say.
        weights: Of truth and generated events.
        features: Names of the features.
        samples: Both samples, (n_events, n_features) each.
        record: What the footer states: files, numbers of events, seed.
    """
    use_style()
    import matplotlib

    interactive = matplotlib.get_backend()
    matplotlib.use("agg")
    try:
        body = _body(diagnosis, weights, features, samples, record)
    finally:
        matplotlib.use(interactive)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(HEADLINES[diagnosis.verdict])}</title>\n"
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _summary(diagnosis: Diagnosis) -> list[str]:
    """Say in plain words what was found."""
    low, high = diagnosis.auc_interval
    lines = [HEADLINES[diagnosis.verdict]]
    lines += [one.text[0].upper() + one.text[1:] for one in diagnosis.findings]
    strongest = max(diagnosis.significance.values())
    if diagnosis.verdict == "no difference found":
        lines.append(
            "Neither AUC, slices of extreme weight nor any observable exceed what samples of one "
            f"density show by chance; the largest excess is {strongest:.1f} standard deviations, "
            "allowing for all that was looked at. More events see smaller flaws."
        )
    elif diagnosis.verdict == "separated":
        lines.append(f"`{diagnosis.observables[0]}` differs most.")
    elif not diagnosis.findings:
        lines.append(
            f"It is significant ({strongest:.1f} standard deviations), but no slice of extreme "
            f"weight points to one observable; `{diagnosis.observables[0]}` differs most by itself."
        )
    else:
        lines.append(f"Most telling observable: `{diagnosis.observables[0]}`.")
    lines.append(f"AUC {diagnosis.auc:.4f} [{low:.4f}, {high:.4f}].")
    return lines + list(diagnosis.notes)


def _body(
    diagnosis: Diagnosis,
    weights: list[np.ndarray],
    features: list[str],
    samples: list[np.ndarray],
    record: dict[str, Any],
) -> str:
    lines = [html.escape(line) for line in _summary(diagnosis) + record["input_notes"]]
    first, *rest = [re.sub(r"`([^`]*)`", r"<code>\1</code>", line) for line in lines]
    parts = [
        "<h1>What the weights say about a generator</h1>",
        f'<div class="verdict"><p><strong>{first}</strong></p>',
        *(f"<p>{line}</p>" for line in rest),
        "</div>",
        "<h2>Weights</h2>",
        _image(
            weights_figure(weights),
            "Weights of truth and generated events, linear and logarithmic, and the ROC curve.",
            "The weight is the classifier's estimate of the truth's density over the generator's. "
            "A good generator has one narrow peak at one. Events beyond the edges are in the "
            "outermost bins. The ROC curve leaves the dotted diagonal where the samples differ.",
        ),
        "<h2>Slices of extreme weight</h2>",
        _slices_table(diagnosis),
        "<h2>Which observables</h2>",
        "<p>How differently the events of the slices are distributed from the others of their "
        "sample. The significance allows for the number of observables. Of a slice without an "
        "excess it says only where the classifier's noise is.</p>",
        _ranks_table(diagnosis),
    ]
    drawn = list(diagnosis.observables[:N_DRAWN])
    parts.append(
        _image(
            slices_figure(diagnosis, features, samples, drawn),
            "Distributions of the most telling observables for all truth events and the slices.",
            "Black: all truth events. Dashed: generated events of the small-weight slice, made too "
            "often. Solid: truth events of the large-weight slice, made too rarely.",
        )
    )
    if diagnosis.closure:
        closures = [diagnosis.closure[name] for name in drawn]
        n_effective = closures[0].n_effective
        parts += [
            "<h2>Reweighting</h2>",
            f"<p>{len(weights[1])} generated events with their weights say as much as "
            f"{n_effective:.0f} without. After reweighting the observables should agree with the "
            "truth; p-values before and after are in the table.</p>",
            _closure_table(diagnosis),
            _image(
                closure_figure(diagnosis, drawn),
                "Ratios of generated and reweighted to truth for the most telling observables.",
                "Generated events over truth before (squares) and after reweighting (circles); the "
                "band is the truth's error.",
            ),
        ]
    calibration = diagnosis.calibration
    parts += [
        "<h2>Can the weights be trusted?</h2>",
        f"<p>Calibration: chi-squared {calibration.chi_square:.1f} for "
        f"{calibration.degrees_of_freedom} bins, p = {calibration.p_value:.2g}.",
    ]
    fit = diagnosis.overfitting
    if fit is not None:
        parts.append(
            f" Overfitting: the weights claim an AUC of {fit.auc_claimed:.4f}, found is "
            f"{fit.auc_unseen:.4f}, a difference of {fit.significance:.1f} standard deviations."
        )
    parts += [
        "</p>",
        _image(
            calibration_figure(diagnosis),
            "Truth over generated events in bins of the weight, beside the weight.",
            "Points on the dotted line: events of weight w are w times as frequent in the truth.",
            narrow=True,
        ),
        f"<footer>Truth {html.escape(record['files']['truth'])} ({record['n_truth']} events), "
        f"generated {html.escape(record['files']['generated'])} ({record['n_generated']} events); "
        f"seed {record['seed']}, {record['n_folds']} folds, {record['epochs']} epochs. Every event "
        "is weighed by a network that never saw it; significances use the variance of "
        "cross-fitted weights.</footer>",
    ]
    return "\n".join(parts)


def _slices_table(diagnosis: Diagnosis) -> str:
    rows = []
    for name, one in (("small", diagnosis.small), ("large", diagnosis.large)):
        edge = f"w ≤ {one.high:.3g}" if name == "small" else f"w ≥ {one.low:.3g}"
        sigma = f"{diagnosis.significance[name]:.1f}"
        rows.append([edge, str(one.n_truth), str(one.n_generated), sigma])
    head = ["weights", "truth events", "generated events", "standard deviations"]
    return _table(head, rows)


def _ranks_table(diagnosis: Diagnosis) -> str:
    rows = []
    for name in diagnosis.observables:
        row = [name]
        for end in ("small", "large"):
            one = next((rank for rank in diagnosis.ranks[end] if rank.name == name), None)
            row += (
                ["", ""]
                if one is None
                else [
                    f"{one.significance:.1f}",
                    f"{one.median_inside:.4g} / {one.median_outside:.4g}",
                ]
            )
        rows.append(row)
    head = [
        "observable",
        "small weight: σ",
        "median in / out",
        "large weight: σ",
        "median in / out",
    ]
    return _table(head, rows)


def _closure_table(diagnosis: Diagnosis) -> str:
    rows = [
        [name, f"{one.p_value_before:.2g}", f"{one.p_value_after:.2g}"]
        for name, one in diagnosis.closure.items()
    ]
    return _table(["observable", "p before", "p after"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if k == 0 else ' class=number'}>{html.escape(cell)}</{tag}>"
            for k, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="table"><table><tr>{line(head, "th")}</tr>{body}</table></div>'


def _image(figure: Figure, alt: str, caption: str, *, narrow: bool = False) -> str:
    import matplotlib.pyplot as plt

    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    plt.close(figure)
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure{" class=narrow" if narrow else ""}><img alt="{html.escape(alt)}" '
        f'src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
