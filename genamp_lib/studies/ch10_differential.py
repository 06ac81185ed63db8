"""How far to trust differential estimates of wrong generators: chapter 10.

`misspecified_verdicts` counts how often they say "amplifies", `mean_square_coverage` how often the
interval from the mean square holds the truth.

Fixed generators deform the truth so that their largest difference is worth a given G. Fitted ones
learn from the training sample with a model that is wrong, so that each has a G of its own. The
others repeat training events. All that is known here and nowhere else is the generator's exact
distribution function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

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

GRID = np.linspace(0.0, 1.0, 4001)
SIZES = np.array([0.9, 0.95, 1.05, 1.1])  # G of the fixed generators: near 1, from both sides
VERDICTS = ("does not amplify", "undecided", "generated events repeat training events", "amplifies")


class Generator(NamedTuple):
    """What one training has made: `draw(n)` returns events, `cdf(x)` is exact."""

    draw: Callable[[int], Array]
    cdf: Cdf


class Case(NamedTuple):
    """A kind of wrong generator.

    Attributes:
        truth: Distribution of true events, frozen, of scipy.
        learn: `learn(rng, train, amplification)` returns the generator.
        kind: "fixed", "fitted" or "repeats".
    """

    truth: stats.distributions.rv_frozen
    learn: Callable[[np.random.Generator, Array, float], Generator]
    kind: str


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


def misspecified_verdicts(
    *,
    n_train: int,
    n_holdout: int,
    n_generated: int,
    n_experiments: int,
    seed: int,
    names: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Return what the estimates say of every case, beside what is true.

    Args:
        n_train: Training events.
        n_holdout: Holdout events.
        n_generated: Generated events.
        n_experiments: Experiments for each case; fixed generators take the values of G in turn.
        seed: Seed of all events.
        names: Names of the cases; all of them by default.

    Returns:
        For each case an array (n_experiments, 4): true G of the largest difference, its verdict as
        a number in `VERDICTS`, and the same two for the mean square difference.
    """
    found = {}
    for number, (name, case) in enumerate(cases().items()):
        if names is not None and name not in names:
            continue
        rng = np.random.default_rng([seed, number])
        places = case.truth.ppf(GRID[1:-1])
        rows = []
        for k in range(n_experiments):
            train, holdout = (case.truth.rvs(n, random_state=rng) for n in (n_train, n_holdout))
            generator = case.learn(rng, train, n_train * SIZES[k % len(SIZES)])
            estimate = differential_amplification(
                train, generator.draw(n_generated), holdout=holdout
            )
            delta = generator.cdf(places) - GRID[1:-1]
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


def kept(store: ArtefactStore, study: Callable[..., dict[str, Array]], **settings: Any) -> Any:
    """Return what one of the studies here finds, from the store where it is kept."""
    name = study.__name__.replace("_", "-")
    stage = Stage(f"differential-{name}", version=1, configuration=settings)
    return store.load_or_compute(stage, lambda: study(**settings))


def mean_square_coverage(
    *,
    n_train: int,
    ratios: Sequence[int],
    amplifications: Sequence[float],
    confidences: Sequence[float],
    n_pairs: int,
    seed: int,
) -> dict[str, Array]:
    """Return how often intervals from the mean square hold the true amplification.

    Args:
        n_train: Training events.
        ratios: Holdout events, and as many generated ones, over training events.
        amplifications: True G of each family in `FIXED`; a perfect generator comes after these.
        confidences: Confidence levels.
        n_pairs: Pairs of samples for each number.
        seed: Seed of all events.

    Returns:
        For each family the coverage, (n_ratios, n_amplifications + 1, n_confidences + 2); the last
        two are those of the lower and of the upper one-sided limit.
    """
    found = {}
    for number, (name, family) in enumerate(FIXED.items()):
        rng = np.random.default_rng([seed, number])
        factors = [*amplifications, math.inf]
        found[name] = np.empty((len(ratios), len(factors), len(confidences) + 2))
        for i, n in enumerate(n_train * ratio for ratio in ratios):
            for j, true in enumerate(factors):
                values = (
                    GRID if math.isinf(true) else _sized(family, n_train * true, of_square=True)
                )
                pairs = []
                for _ in range(n_pairs):
                    accumulator = KolmogorovAccumulator(rng.random(n))
                    accumulator.update(np.interp(rng.random(n), values, GRID))
                    pairs.append(mean_square(*accumulator.cumulative_counts(), n))
                square, _, variance = np.transpose(pairs)
                edges = partial(
                    mean_square_intervals,
                    n / 2 * square,
                    n**2 / 4 * variance,
                    n_effective=n / 2,
                    n_train=n_train,
                )
                held = []
                for confidence in confidences:
                    _, low, high = edges(confidence=confidence)
                    held.append(np.mean((low <= true) & (true <= high)))
                _, low, high = edges(confidence=None)
                found[name][i, j] = *held, np.mean(low <= true), np.mean(true <= high)
    return found


def cases() -> dict[str, Case]:
    """Return all kinds of wrong generators by name."""
    lognormal = stats.lognorm(0.6)
    two_modes = stats.rv_histogram(np.histogram(_two_modes(), bins=400), density=False).freeze()
    fitted = {
        "normal fitted to Student's t": (stats.t(5), _normal),
        "normal fitted to two modes": (two_modes, _normal),
        "exponential fitted to a gamma": (stats.gamma(1.15), _exponential),
        "twelve bins for a lognormal": (lognormal, _histogram),
        "kernels twice too wide": (stats.gamma(2), lambda *given: _kernels(*given, width=0.4)),
        "tails cut at the training events'": (stats.logistic(), _cut),
    }
    repeats = {
        "training events again": _kernels,
        "again, smeared by 1/1000 of a width": lambda *given: _kernels(*given, width=0.001),
        "again, smeared by 1/100 of a width": lambda *given: _kernels(*given, width=0.01),
        "again, smeared by 1/20 of a width": lambda *given: _kernels(*given, width=0.05),
        "a fifth of them again": lambda *given: _kernels(*given, used=0.2),
        "half again, half true": lambda *given: _kernels(*given, true=0.5),
        "one in twenty again, the rest true": lambda *given: _kernels(*given, true=0.95),
    }
    return (
        {name: Case(stats.uniform(), _fixed(family), "fixed") for name, family in FIXED.items()}
        | {name: Case(*given, "fitted") for name, given in fitted.items()}
        | {name: Case(stats.norm(), learn, "repeats") for name, learn in repeats.items()}
    )


def _fixed(family: Family) -> Callable[..., Generator]:
    """Return a generator whose largest difference is worth a number of events."""
    values = cache(lambda n_equiv: _sized(family, n_equiv, of_square=False))

    def learn(rng: np.random.Generator, train: Array, n_equiv: float) -> Generator:
        return Generator(
            lambda n: np.interp(rng.random(n), values(n_equiv), GRID),
            lambda u: np.interp(u, GRID, values(n_equiv)),
        )

    return learn


def _sized(family: Family, n_equiv: float, *, of_square: bool) -> Array:
    """Return a family's distribution function on the grid, at the size that is worth n_equiv."""

    def excess(size: float) -> float:
        delta = (family(GRID, size) - GRID)[1:-1]
        if of_square:
            return float(np.mean(delta**2)) * 6 * n_equiv - 1
        return float(np.abs(delta).max()) * math.sqrt(n_equiv) / KOLMOGOROV_MEAN - 1

    return family(GRID, brentq(excess, 1e-9, 0.999))


def _two_modes() -> Array:
    u = (np.arange(40_000) + 0.5) / 40_000
    return np.concatenate([stats.norm(place, 1.0).ppf(u) for place in (-1.2, 1.2)])


def _normal(rng: np.random.Generator, train: Array, _: float) -> Generator:
    fit = stats.norm(train.mean(), train.std())
    return Generator(lambda n: fit.rvs(n, random_state=rng), fit.cdf)


def _exponential(rng: np.random.Generator, train: Array, _: float) -> Generator:
    fit = stats.expon(scale=train.mean())
    return Generator(lambda n: fit.rvs(n, random_state=rng), fit.cdf)


def _histogram(rng: np.random.Generator, train: Array, _: float) -> Generator:
    fit = stats.rv_histogram(np.histogram(train, bins=12), density=False)
    return Generator(lambda n: fit.rvs(size=n, random_state=rng), fit.cdf)


def _cut(rng: np.random.Generator, train: Array, _: float) -> Generator:
    """The truth itself, but nothing beyond the 1 % and 99 % quantiles of the training events."""
    truth = stats.logistic()
    low, high = truth.cdf(np.quantile(train, [0.01, 0.99]))
    return Generator(
        lambda n: truth.ppf(low + (high - low) * rng.random(n)),
        lambda x: np.clip((truth.cdf(x) - low) / (high - low), 0, 1),
    )


def _kernels(
    rng: np.random.Generator,
    train: Array,
    _: float,
    *,
    width: float = 0.0,
    used: float = 1.0,
    true: float = 0.0,
) -> Generator:
    """Training events again, smeared by normal numbers; part of the events are true ones."""
    kept = np.sort(train[: round(used * len(train))])
    width *= train.std()

    def draw(n: int) -> Array:
        again = kept[rng.integers(len(kept), size=n)] + width * rng.normal(size=n)
        return np.where(rng.random(n) < true, rng.normal(size=n), again)

    def cdf(x: Array) -> Array:
        if width:
            again = ndtr((x[:, np.newaxis] - kept) / width).mean(axis=1)
        else:
            again = np.searchsorted(kept, x, side="right") / len(kept)
        return true * ndtr(x) + (1 - true) * again if true else again

    return Generator(draw, cdf)
