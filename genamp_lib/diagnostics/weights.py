"""Classifier weights and the area under the ROC curve; not for training classifiers.

Which function when: `likelihood_ratio_weights` turns a classifier's logits into weights,
`auc_from_weights` and `auc_interval` sum them up in one number, `roc_curve` draws that number, and
`slices.weight_slices` looks where that number is blind.

Shapes: `truth` and `generated` are one weight per event, 1D, of any two lengths. Weights may be
zero or infinite (a density ratio is, where one of the densities vanishes) but not NaN. Everything
except `likelihood_ratio_weights` depends on the order of the weights alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, ndtri

from genamp_lib.diagnostics._events import EventWeights, scaled, sums_below


def likelihood_ratio_weights(logits: ArrayLike) -> np.ndarray:
    """Turn the logits of a classifier of truth against generated events into weights.

    With C = 1 / (1 + exp(-logit)) the classifier's output, Eq. (1) of paper B is
    w = C / (1 - C) = exp(logit). It estimates p_truth / p_generated when both classes carried the
    same total weight in the training. The exponential is taken in float64 whatever the type of
    the logits: a logit above 709.78 gives an infinite weight and one below -745.13 gives zero,
    without a warning. Both are kept: an infinite weight is what an event deserves that the
    generator cannot make.

    Args:
        logits: Any shape; infinite values are allowed.

    Returns:
        Weights of the same shape, float64.

    Raises:
        ValueError: A logit is NaN.

    >>> likelihood_ratio_weights([0.0, 1.0, -1000.0, 1000.0])
    array([1.        , 2.71828183, 0.        ,        inf])
    """
    logits = np.asarray(logits, dtype=np.float64)
    n_nan = int(np.isnan(logits).sum())
    if n_nan:
        raise ValueError(
            f"`logits` must be numbers, got {n_nan} NaN of {logits.size}; "
            "look for non-finite classifier inputs."
        )
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(logits)


def mean_output_logits(logits: ArrayLike) -> np.ndarray:
    """Return the logits of the mean output of several classifiers, as paper B averages them.

    logit = log mean C - log mean (1 - C) with C = 1 / (1 + exp(-logit)) (sec. 3 of paper B, 25
    outputs), without computing C, which is 0 or 1 for large logits.

    Args:
        logits: Logits of the same events by each classifier, (n_classifiers, n_events).

    Returns:
        Shape (n_events,).

    Raises:
        ValueError: The shape is another, there is no classifier, or a logit is NaN.

    >>> mean_output_logits([[0.0, 1000.0], [0.0, 998.0]]).round(3)
    array([  0.   , 998.566])
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not logits.size or np.isnan(logits).any():
        raise ValueError(
            f"`logits` must be numbers, (n_classifiers, n_events), got shape {logits.shape}"
            f"{' with NaN' if np.isnan(logits).any() else ''}."
        )
    # log C = -log(1 + exp(-logit)); the numbers of classifiers cancel.
    return logsumexp(-np.logaddexp(0.0, -logits), axis=0) - logsumexp(
        -np.logaddexp(0.0, logits), axis=0
    )


def auc_from_weights(
    truth: ArrayLike, generated: ArrayLike, *, event_weights: EventWeights | None = None
) -> float:
    """Compute the area under the ROC curve from the weights of both samples.

    Eq. (6) of paper B, the fraction of pairs in which the truth event has the larger weight:
    ``AUC = sum_i |{w in truth, w > w_i}| / (n_generated n_truth)``, i over generated events. A pair
    of equal weights counts one half, so that weights that say nothing give 1/2. The sum is exact;
    it costs one sort.

    Args:
        truth: Weights of the truth events, shape (n_truth,).
        generated: Weights of the generated events, shape (n_generated,).
        event_weights: Weights of the truth and of the generated events themselves, of any sign,
            (n_truth,) and (n_generated,); None in the place of one for unweighted events.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight.

    >>> auc_from_weights([1.0, 2.0, 3.0], [0.5, 2.0])
    0.75
    """
    truth, generated = check_weights(truth, generated)
    own = scaled(event_weights, len(truth), len(generated))
    if own is None:
        # Python integers: exact for any sample size, one rounding in the division.
        twice = int(sums_below(truth, generated, None).sum())
        return twice / (2 * len(truth) * len(generated))
    return _mean(*_shares(truth, generated, own)[0])


def auc_interval(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    confidence: float = 0.6827,
    cross_fitted: bool = False,
    event_weights: EventWeights | None = None,
) -> tuple[float, float]:
    r"""Give the confidence interval of `auc_from_weights`.

    DeLong, DeLong and Clarke-Pearson (1988): with V_i the fraction of generated events below truth
    event i and U_j the fraction of truth events above generated event j (ties count half),
    variance = var(V) / n_truth + var(U) / n_generated, for a classifier that is fixed and events
    that it never saw. The interval is Gaussian, cut at 0 and 1. For samples that do not overlap
    the variance vanishes; the interval then rests on min(n_truth, n_generated) independent pairs.

    Cross-fitted weights need twice this variance. Each fold is scored by a classifier trained on
    the other folds, so that an accidental difference d_k in fold k counts twice: as test data of
    its own classifier and as training data of the others. When a classifier's scores are linear
    in its training data, the deviation of the AUC from 1/2 for two samples of the same density is
    proportional to sum_k d_k A sum_{j \neq k} d_j. The terms (k, j) and (j, k) are equal for
    symmetric A, and the variance is at most twice that of unrelated terms.

    Args:
        truth: Weights of the truth events, shape (n_truth,), n_truth > 1.
        generated: Weights of the generated events, shape (n_generated,), n_generated > 1.
        confidence: Confidence level.
        cross_fitted: The weights are from cross-fitting: double the variance.
        event_weights: Weights of the events themselves, as for `auc_from_weights`.

    Returns:
        (low, high).

    Raises:
        ValueError: A sample has fewer than two events, is not 1D, has a NaN or negative weight,
            or `confidence` is outside (0, 1).

    >>> low, high = auc_interval([1.0, 2.0, 3.0, 4.0], [0.5, 2.5, 1.5, 0.2])
    >>> round(low, 3), round(high, 3)
    (0.643, 0.982)
    """
    truth, generated = check_weights(truth, generated)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}.")
    for name, weights in (("truth", truth), ("generated", generated)):
        if len(weights) < 2:
            raise ValueError(f"`{name}` must have at least 2 weights for an error, got 1.")
    auc = auc_from_weights(truth, generated, event_weights=event_weights)
    parts = _shares(truth, generated, scaled(event_weights, len(truth), len(generated)))
    if auc <= 0.0 or auc >= 1.0:
        n_pairs = max(int(min(n for *_, n in parts)), 1)
        if cross_fitted:
            n_pairs = max(n_pairs // 2, 1)
        bound = ((1.0 - confidence) / 2.0) ** (1.0 / n_pairs)
        return (bound, 1.0) if auc >= 1.0 else (0.0, 1.0 - bound)
    variance = sum(_variance(*part) for part in parts)
    half = ndtri(0.5 + confidence / 2.0) * np.sqrt(variance * (2.0 if cross_fitted else 1.0))
    return max(float(auc - half), 0.0), min(float(auc + half), 1.0)


def auc_difference(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    confidence: float = 0.6827,
    cross_fitted: bool = False,
    event_weights: tuple[EventWeights, EventWeights] | None = None,
) -> tuple[float, tuple[float, float]]:
    """Return the AUC of one generator less that of another against the same truth events.

    DeLong's interval for correlated curves: what chance does to the truth events it does to both.

    Args:
        first: Weights of the truth events, (n_truth,), and of one generator's, (n_first,).
        second: Weights of the same truth events in the same order, and of another generator's.
        confidence: Confidence level of the interval.
        cross_fitted: The weights are from cross-fitting: double the variance.
        event_weights: Weights of the events themselves for each of both pairs.

    Returns:
        The difference and its interval, (low, high).

    Raises:
        ValueError: The truth samples differ in length, or as for `auc_interval`.

    >>> truth = [1.0, 2.0, 3.0, 4.0]
    >>> auc_difference((truth, [0.5, 2.5, 1.5]), (truth, [0.5, 2.5, 1.5]))
    (0.0, (-0.204..., 0.204...))
    """
    pairs = [check_weights(*pair) for pair in (first, second)]
    if len(pairs[0][0]) != len(pairs[1][0]):
        raise ValueError(
            f"`second` must have the {len(pairs[0][0])} truth events of `first`, got "
            f"{len(pairs[1][0])}."
        )
    parts = [
        _shares(*pair, scaled(own, *map(len, pair)))
        for pair, own in zip(pairs, event_weights or (None, None), strict=True)
    ]
    v, other = (one[0][0] for one in parts)
    difference = _mean(*parts[0][0]) - _mean(*parts[1][0])
    variance = _variance(v - other, *parts[0][0][1:])
    variance += sum(_variance(*of_generated) for _, of_generated in parts)
    half = ndtri(0.5 + confidence / 2.0) * np.sqrt(variance * (2.0 if cross_fitted else 1.0))
    return float(difference), (float(difference - half), float(difference + half))


def roc_curve(
    truth: ArrayLike, generated: ArrayLike, *, event_weights: EventWeights | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Trace the ROC curve: what passes w >= w_cut in each sample, as w_cut falls.

    Args:
        truth: Weights of the truth events, shape (n_truth,).
        generated: Weights of the generated events, shape (n_generated,).
        event_weights: Weights of the events themselves, as for `auc_from_weights`.

    Returns:
        The passing fractions (truth, generated), both from 0 to 1, one point per distinct weight
        and one at the origin. The area under truth against generated by the trapezoidal rule is
        `auc_from_weights`.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight.

    >>> truth_passing, generated_passing = roc_curve([1.0, 2.0], [0.5, 2.0])
    >>> truth_passing, generated_passing
    (array([0. , 0.5, 1. , 1. ]), array([0. , 0.5, 0.5, 1. ]))
    """
    truth, generated = check_weights(truth, generated)
    cuts = np.unique(np.concatenate([truth, generated]))[::-1]
    own = scaled(event_weights, len(truth), len(generated)) or (None, None)
    n_passing = [
        (len(w) if u is None else u.sum()) - _strictly_below(cuts, w, u)
        for w, u in zip((truth, generated), own, strict=True)
    ]
    truth_passing, generated_passing = (np.concatenate([[0], n]) / n[-1] for n in n_passing)
    return truth_passing, generated_passing


def check_weights(truth: ArrayLike, generated: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both samples of weights as float64 arrays, or say what is wrong with them.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight.

    >>> check_weights([1, 2], [3])
    (array([1., 2.]), array([3.]))
    """
    return _check("truth", truth), _check("generated", generated)


def _check(name: str, weights: ArrayLike) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or not len(weights):
        raise ValueError(
            f"`{name}` must be 1D with one weight per event, got shape {weights.shape}."
        )
    if np.isnan(weights).any():
        raise ValueError(
            f"`{name}` must be numbers, got {int(np.isnan(weights).sum())} NaN of {len(weights)}."
        )
    if weights.min() < 0.0:
        raise ValueError(
            f"`{name}` must not be negative, got {weights.min():g}; "
            "logits become weights by `likelihood_ratio_weights`."
        )
    return weights


# Of one sample: fraction of the other below each event, weights, and effective number of events.
Shares = tuple[np.ndarray, np.ndarray | None, float]


def _shares(
    truth: np.ndarray, generated: np.ndarray, own: tuple[np.ndarray, np.ndarray] | None
) -> tuple[Shares, Shares]:
    """Return for each truth event the share of generated ones below, and the other way round."""
    u, v = own or (None, None)
    n_t, n_g = (float(len(truth)), float(len(generated))) if own is None else (u.sum(), v.sum())
    below = sums_below(truth, generated, v) / (2 * n_g)
    above = (2 * n_t - sums_below(generated, truth, u)) / (2 * n_t)
    return (below, u, n_t), (above, v, n_g)


def _mean(values: np.ndarray, weights: np.ndarray | None, n: float) -> float:
    return float(values.mean() if weights is None else weights @ values / n)


def _variance(values: np.ndarray, weights: np.ndarray | None, n: float) -> float:
    """Return the variance of the mean."""
    if weights is None:
        return float(np.var(values, ddof=1) / n)
    mean = weights @ values / n
    return float(weights**2 @ (values - mean) ** 2 / (n * max(n - 1, 1.0)))


def _strictly_below(cuts: np.ndarray, values: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(values[order], cuts)
    return place if own is None else np.append(0.0, np.cumsum(own[order]))[place]
