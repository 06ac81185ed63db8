"""Sixteen tests of a rung: what its members' spread says, and what held-out events say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from genamp_lib.amplification import (
    AveragingEstimate,
    alarm_regions,
    averaging_amplification,
    true_averaging_amplification,
)
from genamp_lib.amplification.averaging_estimate import CONTRADICTED, JOINTLY_CONTRADICTED
from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.store import Arrays, ArtefactStore, Stage
from genamp_lib.studies.ch04_ladder import (
    WINDOWS,
    Parts,
    Rung,
    check_holdout,
    checksum,
    counts_of,
    quantile_edges,
    training_set,
)

Array = NDArray[np.float64]

WINDOW_NAMES = tuple(f"m_tt {low}-{high}" for low, high in WINDOWS)
NAMES = WINDOW_NAMES + TOP_PAIR_OBSERVABLES
# Part of the artefacts' keys: raise it when this code changes the numbers.
TESTS_VERSION = 1
_DECISIVE = 0.9545  # central, so that each edge is one-sided 97.7 %


@dataclass(frozen=True)
class Known:
    """A number with an interval of 68 % and one-sided 97.7 % edges."""

    value: float
    interval: tuple[float, float]
    edges: tuple[float, float]


@dataclass(frozen=True)
class LadderTest:
    """One window or observable at one rung; G is over the rung's training sets.

    Attributes:
        rung: The generators.
        name: "m_tt LOW-HIGH" for a window in GeV, the observable's name for its 20 quantiles.
        of_mean: True G of the mean of the bootstrap members.
        of_plain: True G of one plain generator, or of one bootstrap member where there is none.
        estimate: G from the spread of the bootstrap members, mean variance over the sets.
        of_sets: G from the spread of plain generators of independent sets, which no user has; None
            where there are fewer than three sets.
        pull: Root mean square distance of the members' mean to the holdout, in units of what the
            spread, counting and the holdout explain; 1 for an honest spread.
        n_alarms: Training sets whose sample contradicts the members' mean, in a region or in all.
        n_region_alarms: Training sets where a region rings.
        n_joint_alarms: Training sets where the joint alarm rings.
        n_holdout: Events of the holdout.
    """

    rung: Rung
    name: str
    of_mean: Known
    of_plain: Known
    estimate: Known
    of_sets: Known | None
    pull: float
    n_alarms: int
    n_region_alarms: int
    n_joint_alarms: int
    n_holdout: int

    @property
    def ratio(self) -> float:
        """Estimated over true G of the mean."""
        return self.estimate.value / self.of_mean.value

    @property
    def is_alarmed(self) -> bool:
        """Whether the alarm rings in at least half of the training sets."""
        return 2 * self.n_alarms >= self.rung.n_sets


def ladder_tests(
    rung: Rung, found: Arrays, parts: Parts, holdouts: Sequence[Array]
) -> list[list[LadderTest]]:
    """Return the sixteen tests of a rung by each of several holdouts.

    Args:
        rung: The generators.
        found: What `measure_rung` returned for them.
        parts: Training and validation events.
        holdouts: Momenta of the held-out events that decide, shape (n, 6, 4) each.

    Raises:
        ValueError: As `check_holdout`.
    """
    edges = quantile_edges(parts.validation)
    observables = [top_pair_observables(holdout) for holdout in holdouts]
    for one in observables:
        check_holdout(one, rung)
    truths = [counts_of(one, edges) for one in observables]
    own = [top_pair_observables(training_set(rung, k, parts.train)) for k in range(rung.n_sets)]
    trained = [counts_of(x, edges) for x in own]
    tests: list[list[LadderTest]] = [[] for _ in holdouts]
    for name, kind, index in _places():
        table = found[kind][:, :, index].astype(float)
        table = table[..., None] if kind == "windows" else table
        column = TOP_PAIR_OBSERVABLES.index("m_tt" if kind == "windows" else name)
        estimates = [
            averaging_amplification(
                counts[: rung.n_bootstrap],
                n_generated=rung.n_generated,
                n_train=rung.n_train,
                train_counts=np.atleast_1d(train[kind][index]),
                alarm_counts=(
                    alarm[: rung.n_bootstrap, column],
                    _counts(values[:, column], alarm_regions(values[:, column])),
                ),
            )
            for counts, train, alarm, values in zip(
                table, trained, found["alarm"], own, strict=True
            )
            if counts[: rung.n_bootstrap].sum(axis=0).all()  # else members say nothing of a region
        ]
        plain = table[:, rung.n_bootstrap :] if rung.n_plain else table
        of_sets = None
        if rung.n_plain and rung.n_sets > 2 and plain[:, 0].sum(axis=0).all():
            sizes = {"n_generated": rung.n_generated, "n_train": rung.n_train}
            alone = averaging_amplification(plain[:, 0], members="independent", **sizes)
            of_sets = combined([alone])
        for of_holdout, holdout, true in zip(tests, holdouts, truths, strict=True):
            known, n = np.atleast_1d(true[kind][index]), len(holdout)
            of_holdout.append(
                LadderTest(
                    rung,
                    name,
                    _true(rung, table[:, : rung.n_bootstrap], known, n, "mean"),
                    _true(rung, plain, known, n, "one_draw"),
                    combined(estimates),
                    of_sets,
                    _pull(estimates, known / n, n),
                    sum(one.contradicted for one in estimates),
                    sum(one.bias_p_value < CONTRADICTED for one in estimates),
                    sum(one.joint_p_value < JOINTLY_CONTRADICTED for one in estimates),
                    n,
                )
            )
    return tests


def kept_tests(
    rung: Rung, found: Arrays, parts: Parts, holdouts: Sequence[Array], *, store: ArtefactStore
) -> list[list[LadderTest]]:
    """Return the tests of `ladder_tests`, kept as a table with one row for each test."""
    described = {"rung": asdict(rung), "parts": [checksum(part) for part in parts]}
    described |= {"holdouts": [checksum(holdout) for holdout in holdouts], "tests": NAMES}
    described |= {"counts": [checksum(found[name]) for name in ("windows", "quantiles", "alarm")]}
    stage = Stage("top-pair-tests", TESTS_VERSION, described)
    rows = store.compute(stage, _rows, (rung, found, parts, holdouts))["rows"]
    return [
        [_test(rung, name, row, len(holdout)) for name, row in zip(NAMES, table, strict=True)]
        for table, holdout in zip(rows, holdouts, strict=True)
    ]


def _rows(work: tuple[Rung, Arrays, Parts, Sequence[Array]]) -> Arrays:
    tests = ladder_tests(*work)
    return {"rows": np.array([[_row(test) for test in of_holdout] for of_holdout in tests])}


def _row(test: LadderTest) -> list[float]:
    known = [
        [*one.interval, *one.edges, one.value] if one else [np.nan] * 5
        for one in (test.of_mean, test.of_plain, test.estimate, test.of_sets)
    ]
    alarms = (test.n_alarms, test.n_region_alarms, test.n_joint_alarms)
    return [*np.ravel(known), test.pull, *alarms]


def _test(rung: Rung, name: str, row: Array, n_holdout: int) -> LadderTest:
    numbers = row.tolist()
    known = [
        None if np.isnan(one[4]) else Known(one[4], tuple(one[:2]), tuple(one[2:4]))
        for one in (numbers[k : k + 5] for k in range(0, 20, 5))
    ]
    return LadderTest(rung, name, *known, numbers[20], *map(int, numbers[21:]), n_holdout)


def _places() -> Iterator[tuple[str, str, int]]:
    yield from ((name, "windows", k) for k, name in enumerate(WINDOW_NAMES))
    yield from ((name, "quantiles", k) for k, name in enumerate(TOP_PAIR_OBSERVABLES))


def _counts(values: Array, edges: Array) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges) - 1)


def _true(rung: Rung, counts: Array, known: Array, n_truth: int, definition: str) -> Known:
    levels = {}
    for confidence in (0.68, _DECISIVE):
        levels[confidence] = true_averaging_amplification(
            counts / rung.n_generated,
            truth=known / n_truth,
            n_train=rung.n_train,
            n_generated=rung.n_generated,
            n_truth=n_truth,
            confidence=confidence,
        )
    intervals = [getattr(one, f"{definition}_interval") for one in levels.values()]
    return Known(getattr(levels[0.68], definition), *intervals)


def combined(estimates: list[AveragingEstimate]) -> Known:
    """Return G by the mean variance over training sets, with its chi^2 intervals."""
    if not estimates:
        return Known(np.inf, (0.0, np.inf), (0.0, np.inf))
    total = np.mean([one.total_variance for one in estimates])
    dof = sum(one.degrees_of_freedom for one in estimates)
    events = np.mean([one.event_variance for one in estimates])
    n_train, n_generated = estimates[0].n_train, estimates[0].n_generated

    def amplification(variance: float) -> float:
        model = variance - events / n_generated
        return float(events / (n_train * model)) if model > 0 else np.inf

    intervals = []
    for confidence in (0.68, _DECISIVE):
        tails = np.array([1 - confidence, 1 + confidence]) / 2
        low, high = (amplification(total * dof / edge) for edge in chi2.ppf(tails, dof))
        intervals.append((low, high))
    return Known(amplification(total), *intervals)


def _pull(estimates: list[AveragingEstimate], true: Array, n_truth: int) -> float:
    distance = expected = 0.0
    for one in estimates:
        distance += ((np.array(one.integrals) - true) ** 2).sum()
        counting = one.event_variance / one.n_generated
        # The mean of bootstrap members is off by as much as they scatter.
        spread = max(one.total_variance - counting, 0.0)
        expected += spread * (1 + 1 / one.n_members) + counting / one.n_members
        expected += (true * (1 - true)).sum() / n_truth
    return float(np.sqrt(distance / expected)) if estimates else 0.0
