"""Does reweighting the generated events give the truth, and what does it cost? Not for weights.

The second check of paper B, sec. 2: generated events that carry their classifier weights should be
distributed as the truth in every observable, also in those that the classifier never saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from genamp_lib.diagnostics._json import Result
from genamp_lib.diagnostics.calibration import FEWEST_EVENTS, effective_sample_size
from genamp_lib.diagnostics.weights import check_weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Closure(Result):
    """One observable of truth and generated events, before and after reweighting.

    Attributes:
        edges: Bin edges, shape (n_bins + 1,).
        truth: Fraction of the truth events in each bin.
        generated: Fraction of the generated events.
        reweighted: The same with weights that add up to one.
        truth_error: Standard errors of `truth`.
        reweighted_error: Standard errors of `reweighted`.
        chi_square_before: Of generated against truth, tested bins only.
        chi_square_after: Of reweighted against truth, the same bins.
        degrees_of_freedom: Of both.
        p_value_before: Probability of a larger `chi_square_before` if both densities are the same.
        p_value_after: The same for `chi_square_after`.
        n_effective: `effective_sample_size` of the weights.
        n_generated: Generated events.
    """

    edges: Array = field(repr=False)
    truth: Array = field(repr=False)
    generated: Array = field(repr=False)
    reweighted: Array = field(repr=False)
    truth_error: Array = field(repr=False)
    reweighted_error: Array = field(repr=False)
    chi_square_before: float
    chi_square_after: float
    degrees_of_freedom: int
    p_value_before: float
    p_value_after: float
    n_effective: float
    n_generated: int


def reweighting_closure(
    truth: ArrayLike,
    generated: ArrayLike,
    weights: ArrayLike,
    edges: ArrayLike,
    *,
    cross_fitted: bool = False,
) -> Closure:
    """Compare an observable of reweighted generated events with the truth.

    The weights are scaled to add up to one. The variance of a reweighted bin with fraction f is
    sum_i v_i^2 (1_i - f)^2 over all events, with v the scaled weights and 1_i whether event i is
    in the bin; bins are correlated, and the test uses their covariance.

    Args:
        truth: The observable of truth events, shape (n_truth,).
        generated: The observable of generated events, shape (n_generated,).
        weights: Finite weights of the generated events, shape (n_generated,).
        edges: Increasing bin edges; the ends may be infinite. A bin holds low <= x < high.
        cross_fitted: The weights are from cross-fitting, where what is by chance in one fold is
            learned by the others: twice the variance after reweighting, see `auc_interval`.

    Returns:
        Histograms and tests. Bins with fewer than 10 events of both samples together are drawn but
        not tested.

    Raises:
        ValueError: Lengths differ, a value is NaN, edges do not increase, or a weight is negative,
            NaN or infinite, or all are zero.

    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(0.5, 1, 4000), rng.normal(0, 1, 4000)
    >>> closure = reweighting_closure(x, y, np.exp(0.5 * y - 0.125), np.linspace(-3, 3, 7))
    >>> closure.p_value_before < 1e-6, closure.p_value_after > 0.01
    (True, True)
    """
    truth, generated = (np.asarray(x, dtype=np.float64) for x in (truth, generated))
    weights, _ = check_weights(weights, [1.0])
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"`edges` must be at least two increasing numbers, got {edges}.")
    if truth.ndim != 1 or not len(truth) or generated.shape != weights.shape:
        raise ValueError(
            f"`generated` and `weights` must be 1D of one length and `truth` not empty, got "
            f"{generated.shape}, {weights.shape} and {truth.shape}."
        )
    if np.isnan(truth).any() or np.isnan(generated).any():
        raise ValueError("`truth` and `generated` must be numbers, got NaN.")
    n_effective = effective_sample_size(weights)
    n_bins, n_t, n_g = len(edges) - 1, len(truth), len(generated)
    scaled = weights / weights.max()
    scaled = scaled / scaled.sum()
    in_truth, in_generated = (np.digitize(x, edges) - 1 for x in (truth, generated))
    counts_t, counts_g = (_sums(bins, n_bins) for bins in (in_truth, in_generated))
    reweighted = _sums(in_generated, n_bins, scaled)
    fraction_t, fraction_g = counts_t / n_t, counts_g / n_g

    # Delta method for the ratio of sums: sum v^2 (1_a - f_a)(1_b - f_b).
    squares = _sums(in_generated, n_bins, scaled**2)
    cross = np.outer(squares, reweighted)
    of_reweighted = np.diag(squares) - cross - cross.T
    of_reweighted += (scaled**2).sum() * np.outer(reweighted, reweighted)
    of_reweighted *= 2.0 if cross_fitted else 1.0

    tested = np.flatnonzero(counts_t + counts_g >= FEWEST_EVENTS)
    pooled = (counts_t + counts_g) / (n_t + n_g)
    before = _chi_square(
        fraction_g - fraction_t, _multinomial(pooled) * (1 / n_t + 1 / n_g), tested
    )
    # Of the truth's error too, half of what a fold holds was learned by the others.
    of_truth = _multinomial((fraction_t + reweighted) / 2) / n_t * (2.0 if cross_fitted else 1.0)
    after = _chi_square(reweighted - fraction_t, of_truth + of_reweighted, tested)
    # Without events outside the tested bins their fractions add up to one.
    whole = np.isclose(fraction_t[tested].sum(), 1) and np.isclose(fraction_g[tested].sum(), 1)
    degrees = max(len(tested) - int(whole), 0)
    return Closure(
        edges=edges,
        truth=fraction_t,
        generated=fraction_g,
        reweighted=reweighted,
        truth_error=np.sqrt(fraction_t * (1 - fraction_t) / n_t),
        reweighted_error=np.sqrt(np.maximum(np.diag(of_reweighted), 0.0)),
        chi_square_before=before,
        chi_square_after=after,
        degrees_of_freedom=degrees,
        p_value_before=float(chi2.sf(before, degrees)) if degrees else 1.0,
        p_value_after=float(chi2.sf(after, degrees)) if degrees else 1.0,
        n_effective=n_effective,
        n_generated=n_g,
    )


def _sums(bins: NDArray[np.intp], n_bins: int, weights: Array | None = None) -> Array:
    inside = (bins >= 0) & (bins < n_bins)
    chosen = None if weights is None else weights[inside]
    return np.bincount(bins[inside], weights=chosen, minlength=n_bins).astype(np.float64)


def _multinomial(fractions: Array) -> Array:
    return np.diag(fractions) - np.outer(fractions, fractions)


def _chi_square(difference: Array, covariance: Array, tested: NDArray[np.intp]) -> float:
    if not len(tested):
        return 0.0
    # The pseudo-inverse leaves out a direction that cannot fluctuate.
    inverse = np.linalg.pinv(covariance[np.ix_(tested, tested)], rcond=1e-10, hermitian=True)
    return float(difference[tested] @ inverse @ difference[tested])
