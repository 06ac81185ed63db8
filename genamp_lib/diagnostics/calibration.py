"""Does a weight mean what it says? Calibration and reweighting; not for ranking failures: slices.

`weight_calibration` asks the classifier: of events with weights around w, are there w times as many
in the truth as in the generated sample? `reweighting_closure` asks whether generated events that
carry their weights are distributed as the truth, the second check of paper B, sec. 2;
`effective_sample_size` says what that costs, and `weight_pulls` compares the weights with a
generator's own uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, chi2

from genamp_lib.diagnostics._events import EventWeights, scaled
from genamp_lib.diagnostics._json import Result
from genamp_lib.diagnostics.weights import check_weights

Array = NDArray[np.float64]

# Bins with fewer events than this of both samples together are left out of the test.
FEWEST_EVENTS = 10


@dataclass(frozen=True)
class WeightCalibration(Result):
    """Truth over generated events in bins of the weight, beside the weight itself.

    Attributes:
        edges: Bin edges, shape (n_bins + 1,).
        n_truth: Truth events in each bin.
        n_generated: Generated events in each bin.
        n_truth_total: Truth events in all, those outside the bins included.
        n_generated_total: Generated events in all.
        mean_weight: Mean weight of the generated events in each bin, what `ratio` should be; the
            bin's geometric centre where there are none.
        ratio: Ratio of the fractions of truth and generated events, Eq. (11) of paper B.
        low: Lower edges of the ratio's interval.
        high: Upper edges of the ratio's interval; infinite without generated events.
        confidence: Confidence level of the intervals.
        pulls: (fraction of truth events - fraction expected from the weights) / standard error;
            NaN for bins that the test leaves out.
        chi_square: Chi-square of all tested bins together, their correlation included.
        degrees_of_freedom: Number of tested bins.
        p_value: Probability of a larger `chi_square` for a calibrated classifier.
    """

    edges: Array
    n_truth: NDArray[np.int64]
    n_generated: NDArray[np.int64]
    n_truth_total: int
    n_generated_total: int
    mean_weight: Array
    ratio: Array = field(repr=False)
    low: Array = field(repr=False)
    high: Array = field(repr=False)
    confidence: float
    pulls: Array = field(repr=False)
    chi_square: float
    degrees_of_freedom: int
    p_value: float


def weight_calibration(
    truth: ArrayLike,
    generated: ArrayLike,
    edges: ArrayLike,
    *,
    confidence: float = 0.6827,
    cross_fitted: bool = False,
    event_weights: EventWeights | None = None,
) -> WeightCalibration:
    r"""Compare the weights with the density ratio that they estimate, in bins of the weight.

    Eq. (11) of paper B, dN_truth/dw = w dN_generated/dw, integrated over each bin: the fraction of
    truth events in a bin should be the sum of the weights of the generated events there over
    n_generated_total. The test uses the multinomial covariance of the one and the covariance of
    the other; the interval of the plotted ratio is Clopper and Pearson's for the share of truth
    events in the bin.

    Args:
        truth: Weights of the truth events, shape (n_truth,).
        generated: Weights of the generated events, shape (n_generated,).
        edges: Increasing bin edges, not negative; the last may be infinite. A bin holds
            low <= w < high, so infinite weights lie in none.
        confidence: Confidence level of the ratio's interval.
        cross_fitted: The weights are from cross-fitting: twice the variance, see `auc_interval`.
            The p-value is then an upper bound: of samples of one density it is below 0.05 in 2 %
            of cases.
        event_weights: Weights of the events themselves, as for `auc_from_weights`; numbers of
            events are then effective ones.

    Returns:
        The curve and its test. Bins with fewer than 10 events, or with an infinite weight of a
        generated event, are drawn but not tested.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight; edges are too few
            or do not increase; `confidence` is outside (0, 1).

    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(0.2, 1, 20_000), rng.normal(0, 1, 20_000)
    >>> exact = [np.exp(0.2 * sample - 0.02) for sample in (x, y)]
    >>> weight_calibration(*exact, edges=[0.5, 0.8, 1.0, 1.25, 2.0]).p_value > 0.01
    True
    >>> squared = [weights**2 for weights in exact]
    >>> weight_calibration(*squared, edges=[0.5, 0.8, 1.0, 1.25, 2.0]).p_value < 1e-6
    True
    """
    truth, generated = check_weights(truth, generated)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] < 0:
        raise ValueError(
            f"`edges` must be at least two increasing numbers, not negative, got {edges}."
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    n_bins = len(edges) - 1
    u, v = scaled(event_weights, len(truth), len(generated)) or (None, None)
    n_t, n_g = (len(truth), len(generated)) if u is None else (u.sum(), v.sum())
    in_truth, in_generated = (np.digitize(w, edges) - 1 for w in (truth, generated))
    n_truth = np.maximum(_histogram(in_truth, n_bins, u), 0.0)
    n_generated = np.maximum(_histogram(in_generated, n_bins, v), 0.0)
    own = generated if v is None else generated * v
    sums, squares = (_histogram(in_generated, n_bins, power) for power in (own, own**2))

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (n_truth / n_t) / (n_generated / n_g)
        low, high = (
            share / (1 - share) * n_g / n_t for share in _shares(n_truth, n_generated, confidence)
        )
        centres = np.sqrt(edges[:-1] * edges[1:])
        mean_weight = np.where(n_generated > 0, sums / n_generated, centres)

    expected, found = sums / n_g, n_truth / n_t
    tested = (n_truth + n_generated >= FEWEST_EVENTS) & np.isfinite(squares)
    # Under calibration both estimate the same fractions; the pooled ones make the covariance.
    pooled = np.where(tested, (expected * n_g + found * n_t) / (n_g + n_t), 0.0)
    # Weights whose mean is above one must not make it indefinite.
    pooled /= max(pooled.sum(), 1.0)
    covariance = _multinomial(pooled) / n_t
    with np.errstate(invalid="ignore"):
        second = np.where(tested, squares / n_g, 0.0)
        first = np.where(tested, expected, 0.0)
        difference = np.where(tested, found - expected, 0.0)
    covariance += (np.diag(second) - np.outer(first, first)) / n_g
    if cross_fitted:
        covariance *= 2.0
    kept = np.flatnonzero(tested & (np.diag(covariance) > 0))
    pulls = np.full(n_bins, np.nan)
    pulls[kept] = difference[kept] / np.sqrt(np.diag(covariance)[kept])
    chi_square = _chi_square(difference, covariance, kept)
    return WeightCalibration(
        edges=edges,
        n_truth=n_truth if event_weights else n_truth.astype(np.int64),
        n_generated=n_generated if event_weights else n_generated.astype(np.int64),
        n_truth_total=n_t,
        n_generated_total=n_g,
        mean_weight=mean_weight,
        ratio=ratio,
        low=low,
        high=high,
        confidence=confidence,
        pulls=pulls,
        chi_square=chi_square,
        degrees_of_freedom=len(kept),
        p_value=float(chi2.sf(chi_square, len(kept))) if kept.size else 1.0,
    )


def effective_sample_size(weights: ArrayLike) -> float:
    """Return (sum w)^2 / sum w^2, Kish's number of unweighted events that say as much.

    Args:
        weights: One finite weight per event, shape (n,).

    Raises:
        ValueError: The weights are empty, not 1D, negative, not finite, or all zero.

    >>> effective_sample_size([1.0, 1.0, 1.0, 1.0])
    4.0
    >>> effective_sample_size([4.0, 0.0, 0.0, 0.0])
    1.0
    """
    weights, _ = check_weights(weights, [1.0])
    if not np.isfinite(weights).all():
        raise ValueError(
            f"`weights` must be finite, got {int(np.isinf(weights).sum())} infinite of "
            f"{len(weights)}: events that the generator cannot make cannot be reweighted."
        )
    if weights.max() == 0:
        raise ValueError("`weights` must not all be zero.")
    scaled = weights / weights.max()  # squares do not overflow
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def weight_pulls(weights: ArrayLike, log_prob: ArrayLike) -> Array:
    """Compare the weights with the uncertainty that a Bayesian generator gives its own density.

    Eq. (9) of paper B, t = mu (1 - w) / sigma: mu and sigma are the mean and the standard
    deviation of an event's density over draws from the posterior. Let the truth be one more draw.
    Then t is about a standard Gaussian if the weights compare the truth with the mean density mu,
    or with the maximum of the posterior as in the paper. If the weights compare the truth with one
    draw, that draw's deviation adds: the width is sqrt(2), not 1. A classifier's own noise adds to
    both, and pulls of neighbouring events are correlated.

    Args:
        weights: Weights p_truth / p_generated, one per event, shape (n_events,).
        log_prob: Logarithm of each event's density under each draw, shape (n_draws, n_events), at
            least two draws.

    Returns:
        Pulls, shape (n_events,); -inf for infinite weights.

    Raises:
        ValueError: Shapes do not fit, a number is NaN, a density is not finite, or draws agree on
            an event.

    >>> weight_pulls([1.0, 0.8], np.log([[0.9, 1.1], [1.1, 0.9]])).round(2)
    array([0.  , 1.41])
    """
    weights, _ = check_weights(weights, [1.0])
    log_prob = np.asarray(log_prob, dtype=np.float64)
    if log_prob.ndim != 2 or len(log_prob) < 2 or log_prob.shape[1] != len(weights):
        raise ValueError(
            f"`log_prob` must have shape (n_draws, {len(weights)}) with at least two draws, got "
            f"{log_prob.shape}."
        )
    if not np.isfinite(log_prob).all():
        raise ValueError("`log_prob` must be finite, got NaN or infinity.")
    # Densities relative to the largest of each event: no overflow, and mu/sigma is a ratio.
    density = np.exp(log_prob - log_prob.max(axis=0))
    sigma = density.std(axis=0, ddof=1)
    if (sigma == 0).any():
        raise ValueError(
            f"`log_prob` must differ between draws, got {int((sigma == 0).sum())} events on which "
            "all agree; are these draws from a posterior?"
        )
    return density.mean(axis=0) * (1 - weights) / sigma


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
        chi_square_before: Chi-square of generated against truth, tested bins only.
        chi_square_after: Chi-square of reweighted against truth, the same bins.
        degrees_of_freedom: Degrees of freedom of both.
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
    event_weights: EventWeights | None = None,
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
        event_weights: Weights of the events themselves, as for `auc_from_weights`.

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
    u, v = scaled(event_weights, len(truth), len(generated)) or (None, None)
    n_t, n_g = (len(truth), len(generated)) if u is None else (u.sum(), v.sum())
    n_bins = len(edges) - 1
    shares = weights / weights.max()
    if v is not None:
        shares = shares * v
        n_effective = float(shares.sum() ** 2 / (shares**2).sum())
    shares = shares / shares.sum()
    in_truth, in_generated = (np.digitize(x, edges) - 1 for x in (truth, generated))
    counts_t, counts_g = (
        _histogram(bins, n_bins, own) for bins, own in ((in_truth, u), (in_generated, v))
    )
    reweighted = _histogram(in_generated, n_bins, shares)
    fraction_t, fraction_g = counts_t / n_t, counts_g / n_g

    # Delta method for the ratio of sums: sum v^2 (1_a - f_a)(1_b - f_b).
    squares = _histogram(in_generated, n_bins, shares**2)
    cross = np.outer(squares, reweighted)
    of_reweighted = np.diag(squares) - cross - cross.T
    of_reweighted += (shares**2).sum() * np.outer(reweighted, reweighted)
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
        truth_error=np.sqrt(np.maximum(fraction_t * (1 - fraction_t), 0.0) / n_t),
        reweighted_error=np.sqrt(np.maximum(np.diag(of_reweighted), 0.0)),
        chi_square_before=before,
        chi_square_after=after,
        degrees_of_freedom=degrees,
        p_value_before=float(chi2.sf(before, degrees)) if degrees else 1.0,
        p_value_after=float(chi2.sf(after, degrees)) if degrees else 1.0,
        n_effective=n_effective,
        n_generated=n_g,
    )


def _histogram(bins: NDArray[np.intp], n_bins: int, weights: Array | None = None) -> Array:
    inside = (bins >= 0) & (bins < n_bins)
    chosen = None if weights is None else weights[inside]
    return np.bincount(bins[inside], weights=chosen, minlength=n_bins).astype(np.float64)


def _shares(n_truth: Array, n_generated: Array, confidence: float) -> tuple[Array, Array]:
    """Return Clopper and Pearson's interval of the share of truth events in each bin."""
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(n_truth > 0, beta.ppf(tail, n_truth, n_generated + 1), 0.0)
        high = np.where(n_generated > 0, beta.ppf(1 - tail, n_truth + 1, n_generated), 1.0)
    return low, high


def _multinomial(fractions: Array) -> Array:
    return np.diag(fractions) - np.outer(fractions, fractions)


def _chi_square(difference: Array, covariance: Array, tested: NDArray[np.intp]) -> float:
    if not len(tested):
        return 0.0
    # The pseudo-inverse leaves out a direction that cannot fluctuate.
    inverse = np.linalg.pinv(covariance[np.ix_(tested, tested)], rcond=1e-10, hermitian=True)
    return float(difference[tested] @ inverse @ difference[tested])
