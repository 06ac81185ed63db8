"""Misspecified generators of chapter 10: how often is "amplifies" said where it should not be?

The truth is a mixture, on fine bins, of a density that the generator can describe and one that it
cannot; their shares set the true G. Bootstraps are multinomial in the bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import betainc, expit, gammainc, ndtr

from genamp_lib.amplification._alarms import bias_p_value, joint_p_value
from genamp_lib.amplification.averaging import averaging_intervals
from genamp_lib.amplification.averaging_estimate import CONTRADICTED, DECISIVE, JOINTLY_CONTRADICTED
from genamp_lib.amplification.truth import amplification_tail, mean_square_interval

Array = NDArray[np.float64]
Density = Callable[[Array], Array]
Moments = Callable[[Array, Array, Array], Array]

N_BINS = 480
N_REGIONS = 20
QUESTIONS = ("all 20 regions", "a quarter of the events", "the upper twentieth")
# What says "amplifies": columns of the counts of `misspecified_cases`.
SAYINGS = (
    "the ensemble alone",
    "with the alarm per region",
    "with the joint alarm",
    "with both alarms",
    "a holdout of n_train",
    "a holdout of 10 n_train",
)
HOLDOUTS = (1, 10)  # over n_train


class Case(NamedTuple):
    """A generator and what it cannot describe."""

    name: str
    limits: tuple[float, float]
    right: Density  # density that the generator can describe
    wrong: Density
    distribution: Moments | None = None  # fitted cdf from x, mean and variance, which broadcast
    smooth: Callable[[Array], Array] | None = None  # matrix, (n_bins, n_bins), from the centres


def _gauss(x: Array, mean: Array, variance: Array) -> Array:
    return ndtr((x - mean) / np.sqrt(variance))


def _beta(x: Array, mean: Array, variance: Array) -> Array:
    size = np.maximum(mean * (1 - mean) / variance - 1, 0.1)
    return betainc(mean * size, (1 - mean) * size, np.clip(x, 0, 1))


def _gamma(x: Array, mean: Array, variance: Array) -> Array:
    return gammainc(mean**2 / variance, np.maximum(x, 0) * mean / variance)


def _exponential(x: Array, mean: Array, _: Array) -> Array:
    return 1 - np.exp(-np.maximum(x, 0) / mean)


def _rayleigh(x: Array, mean: Array, variance: Array) -> Array:
    return 1 - np.exp(-(np.maximum(x, 0) ** 2) / (mean**2 + variance))


def _logistic(x: Array, mean: Array, variance: Array) -> Array:
    return expit((x - mean) * np.pi / np.sqrt(3 * variance))


def _second_peak(x: Array, mean: Array, _: Array) -> Array:
    first = ndtr((x + 1) / 0.5)
    return first + (mean + 1) / 2.5 * (ndtr((x - 1.5) / 0.5) - first)


def _both(*laws: stats.rv_frozen, shares: tuple[float, float] = (0.5, 0.5)) -> Density:
    return lambda x: sum(share * law.pdf(x) for share, law in zip(shares, laws, strict=True))


def _kernel(x: Array) -> Array:
    return np.exp(-0.5 * ((x[:, np.newaxis] - x) / 0.25) ** 2)


def _coarse(x: Array) -> Array:
    block = np.arange(len(x)) * 8 // len(x)
    return (block[:, np.newaxis] == block).astype(np.float64)


def _cosines(x: Array) -> Array:
    u = (x - x[0]) / (x[-1] - x[0])
    waves = np.cos(np.pi * np.arange(1, 6)[:, np.newaxis] * u)
    return 1 + 2 * waves.T @ waves


def _lines(x: Array) -> Array:
    """Straight lines between 7 nodes: a sample's share at each node, spread over its triangle."""
    nodes = np.linspace(x[0], x[-1], 7)
    hats = np.maximum(1 - np.abs(x - nodes[:, np.newaxis]) / (nodes[1] - nodes[0]), 0)
    return (hats / hats.sum(axis=1, keepdims=True)).T @ hats


norm, expon = stats.norm, stats.expon
LIFETIMES = _both(expon(scale=0.4), expon(scale=3))
MODES = _both(norm(-1.3, 0.5), norm(1.3, 0.5))
PEAK = _both(norm(0.7, 0.1), norm(0, 1.5))
PEAKS, MOVED = (
    _both(norm(-1, 0.5), second, shares=(0.7, 0.3)) for second in (norm(1.5, 0.5), norm(2.1, 0.3))
)
LAPLACE, WEIBULL = stats.laplace.pdf, stats.weibull_min(1.1, scale=1.4).pdf
GUMBEL, LOGNORMAL = stats.gumbel_r(-0.45, 0.78).pdf, stats.lognorm(0.9, scale=3).pdf


def _cut(x: Array) -> Array:
    return norm.pdf(x) * ((x > -0.8) & (x < 1.7))


CASES = (
    Case("heavy tails, Gaussian", (-8, 8), norm.pdf, stats.t(3).pdf, _gauss),
    Case("two lifetimes, exponential", (0, 18), expon.pdf, LIFETIMES, _exponential),
    Case("log-normal, gamma", (0, 16), stats.gamma(4).pdf, LOGNORMAL, _gamma),
    Case("triangle, beta", (0, 1), stats.beta(2, 3).pdf, stats.triang(0.15).pdf, _beta),
    Case("two modes, Gaussian", (-6, 6), norm.pdf, MODES, _gauss),
    Case("narrow peak, wide kernel", (-6, 6), norm(0, 1.5).pdf, PEAK, smooth=_kernel),
    Case("slope, coarse histogram", (0, 1), np.ones_like, lambda x: np.exp(-4 * x), smooth=_coarse),
    Case("cut support, Gaussian", (-6, 6), norm.pdf, _cut, _gauss),
    Case("cusp, logistic", (-10, 10), stats.logistic(scale=0.6).pdf, LAPLACE, _logistic),
    Case("wrong power, Rayleigh", (0, 8), stats.rayleigh.pdf, WEIBULL, _rayleigh),
    Case(
        "sharp step, five cosines",
        (0, 1),
        lambda x: 1 + 0.5 * np.cos(np.pi * x) - 0.2 * np.cos(3 * np.pi * x),
        lambda x: 1 + 1.0 * (x < 0.37),
        smooth=_cosines,
    ),
    Case(
        "frozen width, Gaussian", (-7, 7), norm.pdf, norm(0, 1.6).pdf, lambda x, m, _: ndtr(x - m)
    ),
    Case("moved second peak, its share", (-4, 5), PEAKS, MOVED, _second_peak),
    Case("skewed, Gaussian", (-6, 10), norm.pdf, GUMBEL, _gauss),
    Case(
        "fine waves, straight lines",
        (0, 1),
        lambda x: 1 + 0.6 * x,
        lambda x: 1 + 0.6 * x + 0.8 * np.sin(24 * x),
        smooth=_lines,
    ),
)


class _Toy:
    """One case with one share of the wrong density: bins, regions and the fit."""

    def __init__(self, case: Case, share: float) -> None:
        self.case = case
        edges = np.linspace(*case.limits, N_BINS + 1)
        self.centres = (edges[1:] + edges[:-1]) / 2
        parts = [density(self.centres) for density in (case.right, case.wrong)]
        right, wrong = (part / part.sum() for part in parts)
        self.truth = (1 - share) * right + share * wrong
        # Regions of about equal content, made of whole bins.
        below = np.append(0.0, np.cumsum(self.truth))
        cuts = np.searchsorted(below, np.arange(1, N_REGIONS) / N_REGIONS)
        self.cuts = np.concatenate([[0], cuts, [N_BINS]])
        self.edges = edges[self.cuts]
        self.integrals = self.in_regions(self.truth)
        if case.smooth is not None:
            matrix = case.smooth(self.centres)
            matrix = matrix / matrix.sum(axis=1, keepdims=True)
            self.matrix = np.add.reduceat(matrix, self.cuts[:-1], axis=1)

    def in_regions(self, bins: Array) -> Array:
        return np.add.reduceat(bins, self.cuts[:-1], axis=-1)

    def fit(self, bins: Array) -> Array:
        """Return the fitted probabilities of the regions for fractions of events in the bins."""
        if self.case.smooth is not None:
            return np.clip(bins @ self.matrix, 1e-9, 1.0)
        mean = bins @ self.centres
        variance = bins @ self.centres**2 - mean**2
        values = self.case.distribution(self.edges, mean[..., None], variance[..., None])
        values[..., 0], values[..., -1] = 0.0, 1.0
        return np.clip(np.diff(values, axis=-1), 1e-9, 1.0)

    def true_amplification(
        self, rng: np.random.Generator, n_train: int, n_members: int, *, n_sets: int
    ) -> Array:
        """Return G of the members' mean for each question, over training sets."""
        fits = self.fit(rng.multinomial(n_train, self.truth, size=n_sets) / n_train)
        found = []
        for table, true in zip(questions(fits), questions(self.integrals), strict=True):
            model = table.var(axis=0, ddof=1)
            bias = (table.mean(axis=0) - true) ** 2 - model / n_sets
            square = (bias + model * (1 + 1 / n_members)).sum()
            found.append((true * (1 - true)).sum() / (n_train * square))
        return np.array(found)


def questions(regions: Array) -> tuple[Array, Array, Array]:
    """Return the probabilities of the regions of each of QUESTIONS, from those of 20 regions."""
    return regions, regions[..., 3:8].sum(axis=-1, keepdims=True), regions[..., -1:]


def share_for(
    case: Case, amplification: float, *, n_train: int, n_members: int, seed: int
) -> float:
    """Return the share of the wrong density that gives a true G for all regions, from 0 to 1."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        rng = np.random.default_rng([seed, n_train])
        found = _Toy(case, middle).true_amplification(rng, n_train, n_members, n_sets=300)[0]
        low, high = (middle, high) if found > amplification else (low, middle)
    return (low + high) / 2


def misspecified_cases(
    *,
    n_train: Sequence[int],
    amplifications: Sequence[float],
    n_members: int,
    n_experiments: int,
    seed: int,
    cases: Sequence[Case] = CASES,
) -> dict[str, Array]:
    """Return the true G of every case and how often each of SAYINGS says "amplifies".

    `amplifications` are the true G of all 20 regions that the shares are set for; members give
    exact probabilities. Returns "true" (n_cases, n_sizes, n_amplifications, n_questions); "said",
    counts of experiments, with one more axis for SAYINGS; "clean" (n_cases, n_sizes), counts of
    joint alarms for the share 0.
    """
    shape = (len(cases), len(n_train), len(amplifications))
    true = np.empty((*shape, len(QUESTIONS)))
    said = np.zeros((*true.shape, len(SAYINGS)))
    clean = np.zeros(shape[:2])
    for i, case in enumerate(cases):
        for j, size in enumerate(n_train):
            for k, amplification in enumerate((*amplifications, math.inf)):
                rng = np.random.default_rng([seed, i, j, k])
                sizes = {"n_train": size, "n_members": n_members}
                share = 0.0
                if k < shape[2]:
                    share = share_for(case, amplification, **sizes, seed=seed)
                toy = _Toy(case, share)
                train = rng.multinomial(size, toy.truth, size=n_experiments)
                bootstrap = rng.multinomial(
                    size, np.repeat((train / size)[:, None], n_members, axis=1)
                )
                members = toy.fit(bootstrap / size)
                counts = toy.in_regions(train)
                joint = joint_p_value(members, counts, n_generated=math.inf, n_train=size)
                joint = joint < JOINTLY_CONTRADICTED
                if k == shape[2]:
                    clean[i, j] = joint.sum()
                    continue
                true[i, j, k] = toy.true_amplification(rng, size, n_members, n_sets=3000)
                said[i, j, k] = _sayings(rng, toy, members, counts, joint, size)
    return {"true": true, "said": said, "clean": clean}


def _sayings(
    rng: np.random.Generator, toy: _Toy, members: Array, counts: Array, joint: Array, n_train: int
) -> Array:
    """Return how often each of SAYINGS says "amplifies", shape (n_questions, n_sayings)."""
    holdouts = [
        rng.multinomial(ratio * n_train, toy.integrals, size=len(members)) / (ratio * n_train)
        for ratio in HOLDOUTS
    ]
    said = np.zeros((len(QUESTIONS), len(SAYINGS)))
    for q, (table, train) in enumerate(zip(questions(members), questions(counts), strict=True)):
        _, low, _ = averaging_intervals(table, n_train=n_train, confidence=DECISIVE)
        alone = low > 1
        region = _region_alarm(table, train, n_train) & alone
        said[q, :4] = [
            np.count_nonzero(alone & ~alarm)
            for alarm in (np.zeros_like(alone), region, joint, region | joint)
        ]
        for h, (ratio, holdout) in enumerate(zip(HOLDOUTS, holdouts, strict=True)):
            tail = amplification_tail(
                table,
                np.maximum(questions(holdout)[q], 1e-9),
                amplification=1.0,
                n_train=n_train,
                n_generated=math.inf,
                n_truth=ratio * n_train,
            )
            said[q, 4 + h] = np.count_nonzero(tail < ndtr(-2))
    return said


def _region_alarm(members: Array, counts: Array, n_train: int) -> Array:
    """Return where the alarm per region rings, shape (n_experiments,)."""
    mean = members.mean(axis=1)
    variance = mean * (1 - mean) * n_train + n_train**2 * members.var(axis=1, ddof=1)
    level = CONTRADICTED / mean.shape[-1]
    rings = np.zeros(len(members), dtype=bool)
    # The exact tail takes long, and is needed only where a Gaussian one is small.
    for e, r in np.argwhere(np.abs(counts - n_train * mean) > 2.2 * np.sqrt(variance)):
        if not rings[e]:
            p = bias_p_value(members[e, :, r], counts[e, r], n_generated=math.inf, n_train=n_train)
            rings[e] = p < level
    return rings


HELD_REGIONS = {
    "one region of 0.2": [0.2],
    "three of 0.3, 0.05 and 0.01": [0.3, 0.05, 0.01],
    "18 of 0.05": [0.05] * 18,
}


def holdout_coverage(
    *,
    n_train: int,
    ratios: Sequence[float],
    amplifications: Sequence[float],
    confidences: Sequence[float],
    n_experiments: int,
    seed: int,
) -> dict[str, Array]:
    """Return how often the interval by a holdout holds the true G of the members' mean.

    The mean is off in a random direction, by as much as the true G says. "coverage" has the shape
    (n_region_sets, n_ratios, n_amplifications, n_confidences), in the order of HELD_REGIONS.
    """
    shape = (len(HELD_REGIONS), len(ratios), len(amplifications), len(confidences))
    held = np.zeros(shape)
    for i, integrals in enumerate(HELD_REGIONS.values()):
        truth = np.array(integrals)
        for j, ratio in enumerate(ratios):
            rng = np.random.default_rng([seed, i, j])
            size = round(ratio * n_train)
            for k, factor in enumerate(amplifications):
                length = math.sqrt((truth * (1 - truth)).sum() / (n_train * factor))
                shift = rng.normal(size=(n_experiments, len(truth)))
                shift *= length / np.linalg.norm(shift, axis=1, keepdims=True)
                everything = np.append(truth, 1 - truth.sum())
                counts = rng.multinomial(size, everything, size=n_experiments)[:, :-1]
                difference = truth + shift - counts / size
                covariance = (np.diag(truth) - np.outer(truth, truth)) / size
                square = (difference**2).sum(axis=1) - np.trace(covariance)
                for level, confidence in enumerate(confidences):
                    low, high = mean_square_interval(
                        square, difference, covariance, scatter=0.0, confidence=confidence
                    )
                    inside = (low <= length**2) & (length**2 <= high)
                    held[i, j, k, level] = inside.mean()
    return {"coverage": held}
