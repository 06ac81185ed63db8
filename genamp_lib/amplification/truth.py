"""The true amplification, for toys and holdouts where integrals are known. Not an estimate of it.

- `one_draw`: of a single member, E[(I_member - I_true)^2]: one network, one draw of a posterior.
- `mean`: of the average over members, E[(<I> - I_true)^2]: all members together.

For a calibrated posterior a member is off by the error of the mean and by its own distance from it,
of equal variance: `one_draw` is half of `mean`. The spread of members estimates the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chndtr, ndtr, ndtri
from scipy.stats import chi2

from genamp_lib.amplification._members import (
    check_confidence,
    check_positive,
    check_positive_integer,
)
from genamp_lib.amplification._numbers import Array, Record, find_root, with_interval

# With fewer training sets their scatter is a matter of luck, and an upper bound takes its place.
ENOUGH_SETS = 10


@dataclass(frozen=True, repr=False)
class TrueAmplification(Record):
    """True averaging amplification over one or many training sets.

    Attributes:
        one_draw: G of a single member.
        one_draw_interval: (low, high) of `one_draw` at `confidence`; (0, inf) for a single training
            set and exact true probabilities.
        mean: G of the members' mean.
        mean_interval: (low, high) of `mean`, as above.
        confidence: Confidence level of the intervals.
        n_train: Training events in each set.
        n_sets: Number of training sets.
        n_members: Members trained on each.
        n_truth: True events behind the true probabilities; infinite for exact ones.
        event_variance: Sum over regions of I_true (1 - I_true).
        one_draw_of_sets: G of a single member for each training set, shape (n_sets,).
        mean_of_sets: G of the members' mean for each training set, shape (n_sets,).
    """

    one_draw: float
    one_draw_interval: tuple[float, float]
    mean: float
    mean_interval: tuple[float, float]
    confidence: float
    n_train: int
    n_sets: int
    n_members: int
    n_truth: float
    event_variance: float
    one_draw_of_sets: NDArray[np.float64]
    mean_of_sets: NDArray[np.float64]

    def sigma(self, definition: str = "mean") -> float:
        """Return the root of the mean squared deviation, for "mean" or "one_draw"."""
        if definition not in ("one_draw", "mean"):
            raise ValueError(f"`definition` must be 'one_draw' or 'mean', got {definition!r}.")
        return math.sqrt(self.event_variance / (self.n_train * getattr(self, definition)))

    def __repr__(self) -> str:
        return (
            f"<TrueAmplification G = {with_interval(self.mean, self.mean_interval)} of the mean, "
            f"{with_interval(self.one_draw, self.one_draw_interval)} of one draw, at "
            f"{100 * self.confidence:g} %; {self.n_sets} training set{'s' * (self.n_sets != 1)}, "
            f"{self.n_members} members, n_train={self.n_train}>"
        )


def true_averaging_amplification(
    fractions: ArrayLike,
    *,
    truth: ArrayLike,
    n_train: int,
    n_generated: float = math.inf,
    n_truth: float = math.inf,
    confidence: float = 0.68,
) -> TrueAmplification:
    """Return the true amplification of members, by exact true probabilities or a true sample.

    Eqs. (4), (11) and (19) of paper A with the deviation from the truth in the place of the spread
    of members. The expected counting noise of generated and of true events is subtracted; G is
    infinite where it explains the whole deviation.

    The intervals are those of the mean squared deviation over independent training sets: a scaled
    chi^2 whose degrees of freedom follow from its variance over the sets. They need some ten sets;
    a single one says nothing on the error that its members share. With `n_truth` the noise of the
    true sample is in the intervals, and those of a single set are on that set, lucky or not. Those
    of two to nine sets are bounds then: they take one degree of freedom for each set.

    Args:
        fractions: Probabilities, or counts over n_generated, of regions that do not overlap:
            (n_sets, n_members, n_regions), or (n_members, n_regions) for one training set.
        truth: True probabilities, or fractions of a true sample, shape (n_regions,).
        n_train: Events in each training set.
        n_generated: Generated events per member; infinite for exact probabilities.
        n_truth: Events of the true sample, independent of all training sets; infinite where `truth`
            is exact.
        confidence: Confidence level of the intervals.

    Raises:
        ValueError: A shape does not fit, or a number is out of range or not finite.

    >>> rng = np.random.default_rng(1)
    >>> fitted = rng.normal(0.2, 0.005, size=(200, 1, 1))  # one set, one fit
    >>> members = fitted + rng.normal(0.0, 0.005, size=(200, 50, 1))  # its calibrated posterior
    >>> true_averaging_amplification(members, truth=[0.2], n_train=1000)
    <TrueAmplification G = 7.42 [6.58, 8.25] of the mean, 3.47 [3.29, 3.66] of one draw, at 68 %;
    200 training sets, 50 members, n_train=1000>
    """
    n_train = check_positive_integer("n_train", n_train)
    confidence = check_confidence(confidence)
    check_positive(n_generated=n_generated, n_truth=n_truth)
    table = np.asarray(fractions, dtype=np.float64)
    table = table[np.newaxis] if table.ndim == 2 else table
    true = np.atleast_1d(np.asarray(truth, dtype=np.float64))
    if table.ndim != 3 or not table.size:
        raise ValueError(
            "`fractions` must have shape (n_sets, n_members, n_regions) or (n_members, n_regions), "
            f"got {np.shape(fractions)}."
        )
    if true.shape != table.shape[2:]:
        raise ValueError(
            f"`truth` must have one probability for each of {table.shape[2]} regions, got shape "
            f"{true.shape}."
        )
    if not (np.isfinite(table).all() and np.isfinite(true).all()):
        raise ValueError("`fractions` and `truth` must be finite, got NaN or infinity.")
    if not ((true > 0) & (true < 1)).all():
        raise ValueError(f"`truth` must be between 0 and 1, got {true.min():g} to {true.max():g}.")
    if ((table < 0) | (table > 1)).any():
        raise ValueError(
            f"`fractions` must be between 0 and 1, got {table.min():g} to {table.max():g}; divide "
            "counts by n_generated."
        )

    n_sets, n_members, _ = table.shape
    event_variance = float((true * (1 - true)).sum())
    counting = (table * (1 - table)).sum(axis=2).mean(axis=1) / n_generated
    difference = table.mean(axis=1) - true
    noise = event_variance / n_truth
    squares = {
        "one_draw": ((table - true) ** 2).sum(axis=2).mean(axis=1) - counting - noise,
        "mean": (difference**2).sum(axis=1) - counting / n_members - noise,
    }
    # What the true sample, and for a single set the counting of its members' mean, adds.
    scale = 1 / n_truth + (1 / (n_members * n_generated) if n_sets == 1 else 0.0)
    covariance = scale * (np.diag(true) - np.outer(true, true))
    found = {}
    for name, square in squares.items():
        if math.isinf(n_truth):
            low, high = _interval_of_mean_square(square, confidence)
        else:
            # Of one set the distance of its members to their mean is known.
            base = square if n_sets > 1 else squares["mean"]
            low, high = mean_square_interval(
                base.mean(),
                difference.mean(axis=0),
                covariance,
                scatter=_scatter(base),
                confidence=confidence,
            ) + max(float((square - base).mean()), 0.0)
        edges = [float(_ratio(event_variance, n_train * edge)) for edge in (high, low)]
        found[name] = float(_ratio(event_variance, n_train * square.mean()))
        found[f"{name}_interval"] = tuple(edges)
        found[f"{name}_of_sets"] = _ratio(event_variance, n_train * square)
    return TrueAmplification(
        **found,
        confidence=confidence,
        n_train=n_train,
        n_sets=n_sets,
        n_members=n_members,
        n_truth=n_truth,
        event_variance=event_variance,
    )


def _interval_of_mean_square(square: Array, confidence: float) -> tuple[float, float]:
    """Return an interval for the expectation of squares, one per independent training set."""
    n_sets, mean = len(square), float(square.mean())
    if n_sets < 2 or mean <= 0:
        return 0.0, math.inf
    variance = float(square.var(ddof=1)) / n_sets
    if variance == 0:
        return mean, mean
    dof = 2 * mean**2 / variance
    tail = (1 - confidence) / 2
    return tuple(float(mean * dof / chi2.ppf(p, dof)) for p in (1 - tail, tail))


def _scatter(square: Array) -> float:
    """Return 2 over the degrees of freedom of a mean of squares, one per training set."""
    n_sets, mean = len(square), float(square.mean())
    if n_sets < ENOUGH_SETS or mean <= 0:
        return 0.0 if n_sets == 1 else 2 / n_sets
    # Each set has at least one.
    return min(float(square.var(ddof=1)) / n_sets / mean**2, 2 / n_sets)


def mean_square_interval(
    estimate: Array, difference: Array, covariance: Array, *, scatter: float, confidence: float
) -> Array:
    """Return edges (2, ...) of a mean squared deviation x, less a true sample's noise.

    From the estimate (...), the deviations of the regions (..., n_regions), the covariance of the
    noise (n_regions, n_regions), and in `scatter` 2 over the degrees of freedom of x over training
    sets. The sum of x and noise follows a scaled, non-central chi^2 with its mean and variance:
    exact for one region and one set, some points too long for regions of very different size. The
    upper edge's tail is alpha/2 times the share of x, as in `_spread`, so that the interval is
    never empty.
    """
    noise = np.trace(covariance)
    seen = np.maximum(estimate + noise, 1e-9 * noise)
    length = np.maximum((difference**2).sum(axis=-1), 1e-300)
    along = ((difference @ covariance) * difference).sum(axis=-1) / length
    squares = (covariance**2).sum()
    dof = noise**2 / squares

    def below(x: Array) -> Array:
        mean, variance = x + noise, scatter * x**2 + 2 * squares + 4 * along * x
        # The noise's degrees of freedom, non-central as far as the variance allows.
        root = np.sqrt(np.maximum(mean**2 - dof * variance / 2, 0.0))
        size = np.where(root > 0, (mean - root) / dof, variance / (2 * mean))
        return chndtr(seen / size, np.where(root > 0, dof, mean / size), root / size)

    def tail(x: Array) -> Array:
        return (1 - confidence) / 2 * x / (x + noise)

    top = 1e4 * (seen + noise)
    high = find_root(lambda x: tail(x) - below(x), top)
    low = find_root(lambda x: confidence + tail(x) - below(x), top)
    low = np.where(below(np.zeros_like(top)) > confidence, low, 0.0)
    return np.array([np.clip(low, 0.0, np.maximum(estimate, 0.0)), np.maximum(high, estimate)])


def amplification_tail(
    fractions: Array,
    truth: Array,
    *,
    amplification: ArrayLike,
    n_train: int,
    n_generated: float,
    n_truth: float,
    independent: bool = False,
) -> Array:
    """Return the probability (...) of so small a distance to a true sample for a given G.

    From fractions (..., n_members, n_regions) and those of the true sample (..., n_regions), all
    above 0. G is that over training sets, of one member where `independent`. A training sample may
    have been a lucky one, so the members' spread V counts as noise of their mean: 1/G stands for V
    and for a squared bias, in any shares, that lies where the noise is largest. V is taken larger
    by 2 over its m - 1 degrees of freedom, which keeps the error rate for ten members. Below 0.023
    for G = 1 the members amplify.
    """
    m = fractions.shape[-2]
    mean = fractions.mean(axis=-2)
    deviations = fractions - mean[..., None, :]
    sample = np.swapaxes(deviations, -2, -1) @ deviations / (m - 1)
    true_covariance = truth[..., None] * (np.eye(truth.shape[-1]) - truth[..., None, :])
    total, event_variance = (np.trace(c, axis1=-2, axis2=-1) for c in (sample, true_covariance))
    share = np.clip(1 - event_variance / n_generated / np.maximum(total, 1e-300), 0.0, 1.0)
    square = ((mean - truth) ** 2).sum(axis=-1)
    of_members = 1.0 if independent else 1 + 1 / m  # how often V is in the mean square asked for
    inflation = 1 + 2 / (m - 1)
    asked = event_variance / (n_train * np.asarray(amplification))
    model = total * share * inflation * of_members
    held = np.minimum(1.0, asked / np.maximum(model, 1e-300))
    weight = share * held * inflation * (1 / m if independent else of_members) + (1 - share) / m
    covariance = true_covariance / n_truth + sample * weight[..., None, None]
    variances = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    dof = np.ones_like(variances)
    if independent:  # the spread itself is in the mean square of one member
        square = square + (1 - 1 / m) * total * share
        variances = np.append(variances, ((1 - 1 / m) * model * held / (m - 1))[..., None], axis=-1)
        dof = np.append(dof, np.full_like(dof[..., :1], m - 1), axis=-1)
    bias = np.zeros_like(variances)
    bias[..., truth.shape[-1] - 1] = np.maximum(asked - model, 0.0)
    return _below_quadratic_form(square, variances, dof, bias)


def holdout_edges(fractions: Array, truth: Array, **arguments: Any) -> tuple[float, float]:
    """Return the one-sided 97.7 % edges of G by `amplification_tail`, which takes the arguments.

    From fractions (n_members, n_regions); the upper edge is infinite where a perfect generator is
    not excluded.
    """
    grid = np.geomspace(1e-4, 1e6, 401)
    grid[160] = 1.0  # to the last bit: verdicts hang on it
    tail = amplification_tail(fractions, truth, amplification=grid, **arguments)
    score = np.maximum.accumulate(ndtri(np.clip(tail, 1e-12, 1 - 1e-12)))
    low, high = np.exp(np.interp([-2.0, 2.0], score, np.log(grid)))
    return float(low), float(high) if score[-1] > 2 else math.inf


def holdout_power(truth: Array, *, n_train: int, n_truth: float) -> float:
    """Return how often a true sample of this size shows that perfect members amplify."""
    covariance = np.diag(truth) - np.outer(truth, truth)
    variances = np.linalg.eigvalsh(covariance) / n_truth
    bias = np.zeros_like(variances)
    bias[-1] = np.trace(covariance) / n_train
    values = (np.trace(covariance) / n_truth * np.geomspace(1e-4, 1e4, 401))[:, np.newaxis]
    at_one, perfect = (
        _below_quadratic_form(values[:, 0], *np.broadcast_arrays(variances, 1.0, b, values)[:3])
        for b in (bias, 0.0)
    )
    return float(np.interp(ndtr(-2.0), at_one, perfect))


def _below_quadratic_form(value: Array, variances: Array, dof: Array, bias: Array) -> Array:
    """Return P(`dof` squared Gaussians per variance <= value): Lugannani and Rice's saddlepoint."""
    largest = variances.max(axis=-1, keepdims=True)
    variances = np.maximum(variances, 1e-9 * largest)
    value = np.maximum(value, 1e-9 * largest[..., 0])

    def w_of(s: Array) -> Array:
        return 1 - 2 * variances * s[..., None]

    def slope(s: Array) -> Array:
        w = w_of(s)
        return (dof * variances / w + bias / w**2).sum(axis=-1)

    pole = 1 / (2 * largest[..., 0])
    low, high = (np.full_like(pole, np.log(edge)) for edge in (1e-12, 1e12))
    for _ in range(60):  # the distance from the pole, in units of it and as a logarithm
        middle = (low + high) / 2
        above = slope(pole * (1 - np.exp(middle))) > value
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    s = pole * (1 - np.exp((low + high) / 2))
    w = w_of(s)
    cumulant = (-dof / 2 * np.log(w) + bias * s[..., None] / w).sum(axis=-1)
    second = (2 * dof * variances**2 / w**2 + 4 * bias * variances / w**3).sum(axis=-1)
    third = (8 * dof * variances**3 / w**3 + 24 * bias * variances**2 / w**4).sum(axis=-1)
    root = np.sign(s) * np.sqrt(np.maximum(2 * (s * value - cumulant), 0.0))
    at_mean = np.abs(root) < 1e-3
    safe = np.where(at_mean, 1.0, root)
    ratio = np.where(at_mean, 1.0, s * np.sqrt(second) / safe)
    tail = ndtr(safe + np.log(ratio) / safe)
    return np.where(at_mean, 0.5 + third / (6 * np.sqrt(2 * np.pi) * second**1.5), tail)


def _ratio(numerator: float, denominator: ArrayLike) -> Array:
    with np.errstate(divide="ignore"):
        return numerator / np.maximum(denominator, 0.0)
