"""Figures of the report of `genamp diagnose`; the text around them: _report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from genamp_lib.diagnostics import roc_curve
from genamp_lib.plotting import (
    COLOURS,
    plot_calibration,
    plot_closure,
    plot_distribution,
    plot_roc,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genamp_lib.diagnostics import Diagnosis


def weights_figure(weights: list[np.ndarray]) -> Figure:
    """Draw the weights on linear and on logarithmic axes, and the ROC curve."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2))
    left.set(yscale="log", xlabel="weight", ylabel="density of events")
    middle.set(xscale="log", yscale="log", xlabel="weight")
    for ax, edges in ((left, np.linspace(0, 3, 50)), (middle, np.logspace(-2, 1, 50))):
        for role, values in zip(("truth", "generated"), weights, strict=True):
            plot_distribution(values, edges, role=role, label=role, ax=ax)
        ax.legend()
    plot_roc(*roc_curve(*weights), label="classifier", color=COLOURS["total"], ax=right)
    right.set(xlim=(1e-4, 1.3), ylim=(1e-4, 1.6))
    figure.tight_layout()
    return figure


def slices_figure(
    diagnosis: Diagnosis, features: list[str], samples: list[np.ndarray], drawn: list[str]
) -> Figure:
    """Draw observables of all truth events and of the slices of extreme weight."""
    figure, axes = plt.subplots(1, len(drawn), figsize=(14 * len(drawn) / 3, 4.2), squeeze=False)
    for ax, name in zip(axes[0], drawn, strict=True):
        truth, generated = (sample[:, features.index(name)] for sample in samples)
        both = np.concatenate([truth, generated])
        low, high = np.quantile(both, [0.001, 0.999])
        edges = np.linspace(low, high if high > low else low + 1.0, 41)
        plot_distribution(truth, edges, role="truth", label="all truth", ax=ax)
        for role, values in (
            ("small", generated[diagnosis.small.indices]),
            ("large", truth[diagnosis.large.indices]),
        ):
            plot_distribution(values, edges, role=role, label=f"{role} weight", ax=ax)
        ax.set(xlabel=name)
        ax.legend()
    axes[0, 0].set_ylabel("density of events")
    figure.tight_layout()
    return figure


def closure_figure(diagnosis: Diagnosis, drawn: list[str]) -> Figure:
    """Draw observables over the truth, before and after reweighting."""
    figure, axes = plt.subplots(1, len(drawn), figsize=(14 * len(drawn) / 3, 4.2), squeeze=False)
    for ax, name in zip(axes[0], drawn, strict=True):
        plot_closure(diagnosis.closure[name], ax=ax)
        ax.set_xlabel(name)
        ax.legend()
    figure.tight_layout()
    return figure


def calibration_figure(diagnosis: Diagnosis) -> Figure:
    """Draw truth over generated events in bins of the weight."""
    figure, ax = plt.subplots(figsize=(6.4, 4.2))
    plot_calibration(diagnosis.calibration, label="weights", color=COLOURS["total"], ax=ax)
    return figure
