"""A diagnosis as text, figures, and one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genamp_lib._project import replace_file
from genamp_lib.diagnostics import roc_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genamp_lib.diagnostics import Diagnosis
    from genamp_lib.report.samples import SampleDiagnosis

# Observables that are drawn; all are in the table.
N_DRAWN = 3
HEADLINES = {
    "differs": "The generator differs from the truth.",
    "separated": "The samples hardly overlap.",
    "copies truth events": "The generated events are copies of truth events.",
    "no difference found": "No difference found.",
}
LOOKS = {
    "copied events": "generated events that are copies of truth events",
    "repeated events": "generated events that repeat each other",
    "one value": "shares of single values: spikes, codes for missing values",
    "range": "events beyond the range of the other sample",
    "one observable": "distribution of each observable (Kolmogorov-Smirnov)",
    "region": "intervals of each observable",
    "correlation": "correlation of each pair of observables",
    "region of two": "regions of each pair of observables",
    "auc": "networks: truth events have larger weights (AUC)",
    "small": "networks: generated events of small weight, made too often",
    "large": "networks: truth events of large weight, made too rarely",
    "second classifier": "second opinion, gradient-boosted trees: AUC",
}


def write_report(path: Path, diagnosis: SampleDiagnosis) -> None:
    """Write a diagnosis and what it is of as an HTML file, whole or not at all."""
    from jinja2 import Environment, PackageLoader

    content = _content(diagnosis)
    content["figures"] = figures_of(diagnosis)
    templates = Environment(loader=PackageLoader("genamp_lib", "report"), autoescape=True)
    templates.filters["code"] = _code
    page = templates.get_template("report.html").render(
        **content, style=Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    )
    with replace_file(path) as temporary:
        temporary.write_text(page + "\n", encoding="utf-8")


def summary(diagnosis: Diagnosis) -> list[str]:
    """Say in plain words what was found."""
    lines = [HEADLINES[diagnosis.verdict]]
    lines += [one.text[0].upper() + one.text[1:] for one in diagnosis.findings]
    name, strongest = max(diagnosis.significance.items(), key=lambda item: item[1])
    if diagnosis.verdict == "no difference found":
        lines.append(
            "None of the looks exceeds what samples of one density show by chance; the largest "
            f"excess is {strongest:.1f} standard deviations, allowing for all that was looked at. "
            "More events see smaller flaws."
        )
    elif not diagnosis.findings:
        lines.append(
            f"It is significant ({strongest:.1f} standard deviations; {LOOKS[name]}), but no "
            f"observable and no pair of observables explains it. {_closest(diagnosis)}"
        )
    low, high = diagnosis.auc_interval
    second = diagnosis.second_auc
    trees = "" if second is None else f", of gradient-boosted trees {second:.4f}"
    lines.append(f"AUC of the networks {diagnosis.auc:.4f} [{low:.4f}, {high:.4f}]{trees}.")
    return lines


def _closest(diagnosis: Diagnosis) -> str:
    """Say what comes closest to an explanation."""
    pairs = [one for one in diagnosis.pairs if one.significance > 0]
    ranks = [one for end in diagnosis.ranks.values() for one in end if one.significance > 0]
    if pairs:
        return (
            f"The pair that differs most is {pairs[0].where} ({pairs[0].significance:.1f} standard "
            "deviations)."
        )
    if ranks:
        best = min(ranks, key=lambda one: one.log_p_value)
        return f"The events of extreme weight stand out in `{best.name}`."
    return "Look for a combination of three or more."


def _content(diagnosis: SampleDiagnosis) -> dict[str, Any]:
    """Return what the template shows, as text."""
    record = {"files": {"truth": "", "generated": ""}, **diagnosis.record}

    def rank(end: str, name: str) -> list[str]:
        for one in diagnosis.ranks[end]:
            if one.name == name:
                medians = f"{one.median_inside:.4g} / {one.median_outside:.4g}"
                return [f"{one.significance:.1f}", medians]
        return ["", ""]

    calibration, fit = diagnosis.calibration, diagnosis.overfitting
    trust = (
        f"Calibration: chi-squared {calibration.chi_square:.1f} for "
        f"{calibration.degrees_of_freedom} bins, p = {calibration.p_value:.2g}."
    )
    if fit is not None:
        trust += (
            f" Overfitting: the weights claim an AUC of {fit.auc_claimed:.4f}, found is "
            f"{fit.auc_unseen:.4f}, a difference of {fit.significance:.1f} standard deviations."
        )
    small, large = diagnosis.small, diagnosis.large
    closures = diagnosis.closure
    return {
        "summary": summary(diagnosis),
        "notes": [*diagnosis.notes, *record["input_notes"]],
        "pair": diagnosis.pairs[0].where if diagnosis.pairs else "",
        "looks": [
            [text, f"{diagnosis.significance[name]:.1f}"]
            for name, text in LOOKS.items()
            if name in diagnosis.significance
        ],
        "pairs": [
            [f"{one.observable}, {one.partner}", one.mode, f"{one.significance:.1f}"]
            for one in diagnosis.pairs
        ],
        "slices": [
            [
                edge,
                f"{one.n_truth:.0f}",
                f"{one.n_generated:.0f}",
                f"{diagnosis.significance[name]:.1f}",
            ]
            for name, one, edge in (
                ("small", small, f"w ≤ {small.high:.3g}"),
                ("large", large, f"w ≥ {large.low:.3g}"),
            )
        ],
        "ranks": [
            [name, *rank("small", name), *rank("large", name)] for name in diagnosis.observables
        ],
        "closures": [
            [name, f"{one.p_value_before:.2g}", f"{one.p_value_after:.2g}"]
            for name, one in closures.items()
        ],
        "n_effective": f"{next(iter(closures.values())).n_effective:.0f}" if closures else "",
        "trust": trust,
        "record": record,
    }


def figures_of(diagnosis: SampleDiagnosis, *names: str) -> dict[str, str]:
    """Draw the named figures, or all of the report, each as base64 of an SVG."""
    import matplotlib

    from genamp_lib.plotting import use_style

    interactive = matplotlib.get_backend()
    with matplotlib.rc_context():
        use_style()
        matplotlib.use("agg")
        try:
            return _figures(diagnosis, names)
        finally:
            matplotlib.use(interactive)


def _figures(diagnosis: SampleDiagnosis, wanted: tuple[str, ...]) -> dict[str, str]:
    import matplotlib.pyplot as plt

    from genamp_lib.plotting import (
        COLOURS,
        plot_calibration,
        plot_closure,
        plot_distribution,
        plot_roc,
    )
    from genamp_lib.plotting.style import drawable

    drawn = diagnosis.observables[:N_DRAWN]
    features, samples, weights = diagnosis.features, diagnosis.samples, diagnosis.weights
    own = diagnosis.event_weights or (None, None)
    figures: dict[str, str] = {}

    def panels(n: int, width: float = 14 / 3) -> tuple[Figure, np.ndarray]:
        figure, axes = plt.subplots(1, n, figsize=(width * n, 4.2), squeeze=False)
        # Fixed margins: to measure them, matplotlib draws all a second and a third time.
        inches = 1 / (width * n)
        figure.subplots_adjust(0.85 * inches, 0.16, 1 - 0.15 * inches, 0.92, 0.3)
        return figure, axes[0]

    def keep(name: str, figure: Figure) -> None:
        content = io.BytesIO()
        for ax in figure.axes:
            ax.minorticks_off()
        figure.savefig(
            content, format="svg", bbox_inches=figure.bbox_inches, metadata={"Date": None}
        )
        plt.close(figure)
        figures[name] = base64.b64encode(content.getvalue()).decode()

    def values(name: str) -> list[np.ndarray]:
        return [sample[:, features.index(name)] for sample in samples]

    both_slices = (("small", 1, diagnosis.small.indices), ("large", 0, diagnosis.large.indices))
    for figure_name in ("observables", "slices"):
        if wanted and figure_name not in wanted:
            continue
        figure, axes = panels(len(drawn))
        for ax, name in zip(axes, drawn, strict=True):
            pair, edges = values(name), np.linspace(*_range(np.concatenate(values(name))), 41)
            shown = [(0, "truth", "truth", slice(None))]
            if figure_name == "observables":
                shown.append((1, "generated", "generated", slice(None)))
            else:
                shown += [(k, end, f"{end} weight", chosen) for end, k, chosen in both_slices]
            for which, role, label, chosen in shown:
                part, u = pair[which][chosen], own[which]
                u = u if u is None else u[chosen]
                if len(part) and (u is None or u.sum() > 0):
                    plot_distribution(part, edges, role=role, label=label, weights=u, ax=ax)
            ax.set(xlabel=drawable(name))
            ax.legend()
        axes[0].set_ylabel("density of events")
        keep(figure_name, figure)
    if wanted and set(wanted) <= set(figures):
        return figures

    if diagnosis.pairs and diagnosis.pairs[0].significance > 0:
        names = (diagnosis.pairs[0].observable, diagnosis.pairs[0].partner)
        edges = [np.linspace(*_range(np.concatenate(values(name))), 41) for name in names]
        figure, axes = panels(2, 6)
        titles = ("truth", "generated")
        for ax, title, sample, u in zip(axes, titles, samples, own, strict=True):
            columns = [sample[:, features.index(name)] for name in names]
            counts = np.histogram2d(*columns, bins=edges, density=True, weights=u)[0]
            ax.pcolormesh(*edges, np.ma.masked_equal(counts.T, 0), cmap="Greys", rasterized=True)
            ax.set(title=title, xlabel=drawable(names[0]), ylabel=drawable(names[1]))
        keep("pair", figure)

    figure, axes = panels(3)
    axes[0].set(yscale="log", xlabel="weight", ylabel="density of events")
    axes[1].set(xscale="log", yscale="log", xlabel="weight")
    for ax, edges in zip(axes, (np.linspace(0, 3, 50), np.logspace(-2, 1, 50)), strict=False):
        for role, one, u in zip(("truth", "generated"), weights, own, strict=True):
            plot_distribution(one, edges, role=role, label=role, weights=u, ax=ax)
        ax.legend()
    plot_roc(
        *roc_curve(*weights, event_weights=diagnosis.event_weights),
        label="classifier",
        color=COLOURS["total"],
        ax=axes[2],
    )
    axes[2].set(xlim=(1e-4, 1.3), ylim=(1e-4, 1.6))
    keep("weights", figure)

    if diagnosis.closure:
        figure, axes = panels(len(drawn))
        for ax, name in zip(axes, drawn, strict=True):
            plot_closure(diagnosis.closure[name], ax=ax)
            ax.set_xlabel(drawable(name))
            ax.legend()
        keep("closure", figure)

    figure, axes = panels(1, 6.4)
    plot_calibration(diagnosis.calibration, label="weights", color=COLOURS["total"], ax=axes[0])
    keep("calibration", figure)
    return figures


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the range to draw: nearly all values, but not those far from the bulk."""
    ends = np.quantile(values, [0.001, 0.25, 0.5, 0.75, 0.999])
    reach = 8 * (ends[3] - ends[1]) or np.inf
    low, high = max(ends[0], ends[2] - reach), min(ends[4], ends[2] + reach)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _code(text: str) -> Any:
    """Escape a text and set what is between backticks as code."""
    from markupsafe import Markup

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text)))
