"""How far to trust differential estimates of generators whose exact cdf is known: chapter 10."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from genamp_lib.amplification import (
    KOLMOGOROV_MEAN,
    KolmogorovAccumulator,
    differential_amplification,
)
from genamp_lib.amplification._bridge import mean_square_intervals
from genamp_lib.amplification._pairs import mean_square
from genamp_lib.store import ArtefactStore, Stage

Array = NDArray[np.float64]
Cdf = Callable[[Array], Array]
Family = Callable[[Array, float], Array]
# `learn(rng, train, n_equiv)` returns a function that draws n events, and the exact cdf.
Learn = Callable[[np.random.Generator, Array, float], tuple[Callable[[int], Array], Cdf]]

GRID = np.linspace(0.0, 1.0, 4001)
SIZES = (0.9, 0.95, 1.05, 1.1)  # G of the fixed generators: near 1, from both sides
# Raise a number when the code changes what the study finds: it is part of the key of what is kept.
VERSIONS = {"misspecified_verdicts": 2, "mean_square_coverage": 1, "weighted_coverage": 1}
VERDICTS = ("does not amplify", "undecided", "generated events repeat training events", "amplifies")


def kept(store: ArtefactStore, study: Callable[..., dict[str, Array]], **settings: Any) -> Any:
    """Return what one of the studies here finds, from the store where it is kept."""
    name = study.__name__.replace("_", "-")
    version = VERSIONS[study.__name__]
    stage = Stage(f"differential-{name}", version=version, configuration=settings)
    return store.compute(stage, lambda given: study(**given), settings)


def misspecified_verdicts(
    *,
    n_train: int,
    n_holdout: int,
    n_generated: int,
    n_experiments: int,
    seed: int,
    names: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Return what the estimates say of every wrong generator, or of those in `names`.

    Fixed generators take the G of `SIZES` in turn. Each case has an array (n_experiments, 4): true
    G of the largest difference, its verdict as a number in `VERDICTS`, and the same two for the
    mean square.
    """
    found = {}
    for number, (name, (_, truth, learn)) in enumerate(cases().items()):
        if names is not None and name not in names:
            continue
        rng = np.random.default_rng([seed, number])
        places = truth.ppf(GRID[1:-1])
        rows = []
        for k in range(n_experiments):
            train, holdout = (truth.rvs(size=n, random_state=rng) for n in (n_train, n_holdout))
            draw, cdf = learn(rng, train, n_train * SIZES[k % len(SIZES)])
            estimate = differential_amplification(train, draw(n_generated), holdout=holdout)
            delta = cdf(places) - GRID[1:-1]
            rows.append(
                (
                    KOLMOGOROV_MEAN**2 / (n_train * np.abs(delta).max() ** 2),
                    VERDICTS.index(estimate.verdict),
                    1 / (6 * n_train * np.mean(delta**2)),
                    VERDICTS.index(estimate.mean_square_verdict or "undecided"),
                )
            )
        found[name] = np.array(rows)
    return found


def mean_square_coverage(
    *,
    n_train: int,
    ratios: Sequence[int],
    amplifications: Sequence[float],
    confidences: Sequence[float],
    n_pairs: int,
    seed: int,
) -> dict[str, Array]:
    """Return how often intervals from the mean square hold the true G, for each family in `FIXED`.

    Shape (n_ratios, n_amplifications + 1, n_confidences + 2): a perfect generator comes after the
    others, both one-sided limits after the intervals. `ratios` are holdout and generated over
    training events.
    """
    found = {}
    for number, (name, family) in enumerate(FIXED.items()):
        rng = np.random.default_rng([seed, number])
        factors = [*amplifications, math.inf]
        found[name] = np.empty((len(ratios), len(factors), len(confidences) + 2))
        for i, n in enumerate(n_train * ratio for ratio in ratios):
            for j, true in enumerate(factors):
                values = GRID if math.isinf(true) else _sized(family, n_train * true, square=True)
                pairs = []
                for _ in range(n_pairs):
                    accumulator = KolmogorovAccumulator(rng.random(n))
                    accumulator.update(np.interp(rng.random(n), values, GRID))
                    pairs.append(mean_square(*accumulator.cumulative_counts(), n))
                square, _, variance = np.transpose(pairs)
                edges = partial(mean_square_intervals, n / 2 * square, n**2 / 4 * variance)
                held = []
                for confidence in (*confidences, None):
                    _, low, high = edges(n_effective=n / 2, n_train=n_train, confidence=confidence)
                    held.append(((low <= true), (true <= high)))
                *both, limits = held
                found[name][i, j] = [
                    *(np.mean(low & high) for low, high in both),
                    *(np.mean(one) for one in limits),
                ]
    return found


# Weights of events at quantiles u of the truth: of one kind after another, or by where they are.
Weigh = Callable[[np.random.Generator, Array], Array]
WEIGHTS: dict[str, Weigh] = {
    "1": lambda rng, u: np.ones(len(u)),
    "0.37": lambda rng, u: np.full(len(u), 0.37),
    "exponential": lambda rng, u: rng.exponential(size=len(u)),
    "10 % negative": lambda rng, u: np.where(rng.random(len(u)) < 0.1, -1.0, 1.0),
    "by the statistic": lambda rng, u: 3 * u ** (2 / 3),  # of events that are drawn as u^3
}
WEIGHTED = (("generated",), ("generated", "holdout"))  # which samples have weights


def weighted_coverage(
    *,
    n_train: int,
    n_events: int,
    amplifications: Sequence[float],
    confidence: float,
    n_experiments: int,
    seed: int,
) -> dict[str, Array]:
    """Return how often estimates from weighted events hold the true G, for each of `WEIGHTS`.

    Holdout and generated sample have `n_events` each. The generator moves events over the median,
    so that the largest difference is worth the G asked for. Shape (2, n_amplifications + 1, 3): the
    samples of `WEIGHTED`; a perfect generator comes last; the interval from the largest difference
    and from the mean square, and whether the verdict is wrong. NaN where there is no interval.
    """
    found, factors = {}, [*amplifications, math.inf]
    for number, (name, weigh) in enumerate(WEIGHTS.items()):
        found[name] = np.empty((len(WEIGHTED), len(factors), 3))
        for i, of in enumerate(WEIGHTED):
            for j, true in enumerate(factors):
                rng = np.random.default_rng([seed, number, i, j])
                size = 0.0 if math.isinf(true) else KOLMOGOROV_MEAN / math.sqrt(n_train * true)
                rows = []
                for _ in range(n_experiments):
                    samples, weights = {}, {}
                    for sample in ("holdout", "generated"):
                        u = rng.random(n_events)
                        if sample in of:
                            u = u**3 if name == "by the statistic" else u
                            weights[sample] = weigh(rng, u)
                        samples[sample] = u
                    made = np.interp(samples["generated"], [0, 0.5 + size, 1], [0, 0.5, 1])
                    one = differential_amplification(
                        n_train,
                        made,
                        holdout=samples["holdout"],
                        weights=weights,
                        confidence=confidence,
                    )
                    square, companion = true / 2 * KOLMOGOROV_MEAN**-2, one.cramer_von_mises
                    rows.append(
                        (
                            one.interval[0] <= true <= one.interval[1],
                            math.nan
                            if companion is None
                            else companion.interval[0] <= square <= companion.interval[1],
                            one.verdict.startswith("amplifies") and true <= 1,
                        )
                    )
                found[name][i, j] = np.mean(rows, axis=0)
    return found


def _mixed(quantiles: Cdf, other: Cdf) -> Family:
    """A fraction of the events has another distribution."""
    return lambda u, size: (1 - size) * u + size * other(quantiles(u))


# Distribution functions over the truth's quantiles u, each at a size above 0.
FIXED: dict[str, Family] = {
    "tails too heavy": _mixed(stats.logistic.ppf, stats.t(2).cdf),
    "peak at the 80 % quantile": _mixed(stats.uniform.ppf, stats.norm(0.8, 0.01).cdf),
    "slope too flat": _mixed(stats.expon.ppf, stats.expon(scale=2).cdf),
    "five waves": _mixed(
        stats.uniform.ppf, lambda u: u + (1 - np.cos(10 * np.pi * u)) / (10 * np.pi)
    ),
    "skewed": _mixed(stats.gamma(3).ppf, stats.lognorm(0.6).cdf),
    "threshold": lambda u, size: np.maximum(u - size, 0.0) / (1 - size),
    "one of two modes too heavy": lambda u, size: np.where(
        u < 0.5, u * (1 + size), 1 - (1 - u) * (1 - size)
    ),
    "stops early": lambda u, size: np.minimum(u / (1 - size), 1.0),
}


def cases() -> dict[str, tuple[str, Any, Learn]]:
    """Return all wrong generators by name: kind, distribution of the truth, how they learn.

    "fixed" ones deform the truth so that their largest difference is worth a given G; "fitted" ones
    learn with a model that is wrong; the others "repeat" events.
    """
    u, logistic = (np.arange(40_000) + 0.5) / 40_000, stats.logistic()
    modes = np.histogram(np.concatenate([stats.norm(x, 1).ppf(u) for x in (-1.2, 1.2)]), bins=400)

    def cut(rng: np.random.Generator, train: Array, _: float) -> Any:
        low, high = logistic.cdf(np.quantile(train, [0.01, 0.99]))
        return (
            lambda n: logistic.ppf(low + (high - low) * rng.random(n)),
            lambda x: np.clip((logistic.cdf(x) - low) / (high - low), 0, 1),
        )

    normal = _fitted(lambda train: stats.norm(train.mean(), train.std()))
    exponential = _fitted(lambda train: stats.expon(scale=train.mean()))
    bins = _fitted(lambda train: stats.rv_histogram(np.histogram(train, bins=12), density=False))
    fitted = {
        "normal fitted to Student's t": (stats.t(5), normal),
        "normal fitted to two modes": (stats.rv_histogram(modes, density=False), normal),
        "exponential fitted to a gamma": (stats.gamma(1.15), exponential),
        "twelve bins for a lognormal": (stats.lognorm(0.6), bins),
        "kernels twice too wide": (stats.gamma(2), partial(_kernels, width=0.4)),
        "tails cut at the training events'": (logistic, cut),
    }
    repeating = {
        "training events again": {},
        "again, smeared by 1/1000 of a width": {"width": 0.001},
        "again, smeared by 1/100 of a width": {"width": 0.01},
        "again, smeared by 1/20 of a width": {"width": 0.05},
        "a fifth of them again": {"used": 0.2},
        "half again, half true": {"true": 0.5},
        "one in twenty again, the rest true": {"true": 0.95},
    }
    return (
        {name: ("fixed", stats.uniform(), _fixed(family)) for name, family in FIXED.items()}
        | {name: ("fitted", *given) for name, given in fitted.items()}
        | {n: ("repeat", stats.norm(), partial(_kernels, **how)) for n, how in repeating.items()}
    )


def _sized(family: Family, n_equiv: float, *, square: bool) -> Array:
    """Return a family's distribution function on the grid, at the size that is worth n_equiv."""

    def excess(size: float) -> float:
        delta = (family(GRID, size) - GRID)[1:-1]
        if square:
            return float(np.mean(delta**2)) * 6 * n_equiv - 1
        return float(np.abs(delta).max()) * math.sqrt(n_equiv) / KOLMOGOROV_MEAN - 1

    return family(GRID, brentq(excess, 1e-9, 0.999))


def _fixed(family: Family) -> Learn:
    values = cache(lambda n_equiv: _sized(family, n_equiv, square=False))
    return lambda rng, _, n_equiv: (
        lambda n: np.interp(rng.random(n), values(n_equiv), GRID),
        lambda u: np.interp(u, GRID, values(n_equiv)),
    )


def _fitted(fit: Callable[[Array], Any]) -> Learn:
    def learn(rng: np.random.Generator, train: Array, _: float) -> Any:
        model = fit(train)
        return lambda n: model.rvs(size=n, random_state=rng), model.cdf

    return learn


def _kernels(
    rng: np.random.Generator,
    train: Array,
    _: float,
    width: float = 0.0,
    used: float = 1.0,
    true: float = 0.0,
) -> Any:
    """Training events again, smeared by normal numbers; part of the events are true ones."""
    again = np.sort(train[: round(used * len(train))])
    width *= train.std()

    def draw(n: int) -> Array:
        events = again[rng.integers(len(again), size=n)] + width * rng.normal(size=n)
        return np.where(rng.random(n) < true, rng.normal(size=n), events)

    def cdf(x: Array) -> Array:
        if width:
            return ndtr((x[:, np.newaxis] - again) / width).mean(axis=1)
        steps = np.searchsorted(again, x, side="right") / len(again)
        return true * ndtr(x) + (1 - true) * steps if true else steps

    return draw, cdf
