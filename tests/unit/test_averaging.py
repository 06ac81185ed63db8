"""Averaging amplification: formulas against references written here, properties, every message."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from genamp_lib import (
    AveragingEstimate,
    averaging_amplification,
    averaging_amplification_from_probabilities,
)
from genamp_lib.amplification import averaging_intervals
from genamp_lib.amplification.averaging_estimate import AMPLIFIES_IF, TOO_FEW

PROBABILITIES = np.array([0.190, 0.194, 0.191, 0.187, 0.1925, 0.1901])
COUNTS = np.array([1912, 1950, 1784, 1991, 1893, 2075])


def spread_of(n_members: int, n_regions: int, scale: float, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.9 / n_regions + scale * rng.normal(size=(n_members, n_regions)) / n_regions


def test_exact_probabilities_give_the_chi_square_interval() -> None:
    estimate = averaging_amplification_from_probabilities(
        PROBABILITIES, n_train=1000, confidence=0.9
    )
    mean, variance, dof = PROBABILITIES.mean(), PROBABILITIES.var(ddof=1), 5
    amplification = mean * (1 - mean) / (1000 * variance)
    # dof variance / sigma^2 is chi^2, and G is proportional to 1 / sigma^2.
    low, high = amplification * chi2.ppf([0.05, 0.95], dof) / dof
    assert estimate.amplification == pytest.approx(amplification, rel=1e-12)
    assert estimate.interval == pytest.approx((low, high), rel=1e-9)
    assert estimate.n_equiv == pytest.approx(1000 * amplification)
    assert estimate.degrees_of_freedom == dof


def test_counts_follow_equation_17() -> None:
    estimate = averaging_amplification(COUNTS, n_generated=10_000, n_train=100)
    fractions = COUNTS / 10_000
    mean = fractions.mean()
    model = fractions.var(ddof=1) - mean * (1 - mean) / 10_000
    assert estimate.model_variance == pytest.approx(model, rel=1e-12)
    assert estimate.sigma_model == pytest.approx(math.sqrt(model))
    assert estimate.amplification == pytest.approx(mean * (1 - mean) / model / 100)
    n_equiv = estimate.n_equiv
    assert estimate.sigma_stat(n_equiv) == pytest.approx(estimate.sigma_model)
    assert estimate.sigma_total(n_equiv) == pytest.approx(math.sqrt(2) * estimate.sigma_model)


def test_interval_of_counts_has_the_promised_tails() -> None:
    confidence, n_generated, n_train = 0.8, 10_000, 200
    estimate = averaging_amplification(
        COUNTS, n_generated=n_generated, n_train=n_train, confidence=confidence
    )
    alpha, dof = 1 - confidence, len(COUNTS) - 1
    tails = []
    for edge, tail in zip(estimate.interval, (chi2.cdf, chi2.sf), strict=True):
        # At the edge, T = V + B; the lower tail is alpha/2 (1 - B/T), the upper one the rest.
        counting = estimate.event_variance / n_generated
        total = estimate.event_variance / (n_train * edge) + counting
        lower = alpha / 2 * (1 - counting / total)
        tails.append((tail(dof * estimate.total_variance / total, dof), lower))
    (below, lower_at_low), (above, lower_at_high) = tails
    assert below == pytest.approx(lower_at_low, rel=1e-9)
    assert above == pytest.approx(alpha - lower_at_high, rel=1e-9)


def test_many_generated_events_are_as_good_as_probabilities() -> None:
    n_generated = 10**12
    counts = np.rint(PROBABILITIES * n_generated)
    counted = averaging_amplification(counts, n_generated=n_generated, n_train=1000)
    exact = averaging_amplification_from_probabilities(PROBABILITIES, n_train=1000)
    assert counted.amplification == pytest.approx(exact.amplification, rel=1e-5)
    assert counted.interval == pytest.approx(exact.interval, rel=1e-5)


def test_spread_within_counting_noise_gives_a_lower_limit() -> None:
    estimate = averaging_amplification([100, 112, 93, 104], n_generated=1000, n_train=1000)
    assert estimate.amplification == math.inf
    assert estimate.model_variance < 0
    assert estimate.sigma_model == 0
    assert 0 < estimate.interval[0] < math.inf
    assert estimate.interval[1] == math.inf
    assert estimate.status == "lower limit"
    assert "generate more events" in estimate.note


def test_spread_far_below_counting_noise_is_labelled_and_decides_nothing() -> None:
    counts = [100, 101, 100, 100, 99, 100]
    estimate = averaging_amplification(counts, n_generated=1000, n_train=10)
    assert estimate.noise_p_value < 1e-4
    assert (estimate.status, estimate.verdict) == ("below noise", "undecided")
    assert "its own random numbers" in estimate.note


@pytest.mark.parametrize(
    "estimate",
    [
        averaging_amplification([100, 100, 100], n_generated=1000, n_train=10),
        # 0.1 + 0.2 is no multiple of its third: the mean rounds.
        averaging_amplification_from_probabilities([0.1 + 0.2] * 7, n_train=10),
    ],
)
def test_identical_members_are_labelled(estimate: AveragingEstimate) -> None:
    assert estimate.amplification == math.inf
    assert estimate.total_variance == 0
    assert (estimate.status, estimate.verdict) == ("identical members", "undecided")


@pytest.mark.parametrize(
    ("n_train", "verdict"),
    [(200, AMPLIFIES_IF), (20_000, "undecided"), (10**6, "does not amplify")],
)
def test_verdict_follows_the_interval(n_train: int, verdict: str) -> None:
    estimate = averaging_amplification_from_probabilities(PROBABILITIES, n_train=n_train)
    # Two standard deviations on one side, whatever the printed interval is.
    low, high = averaging_intervals(
        PROBABILITIES[:, np.newaxis], n_train=n_train, confidence=0.9545
    )[1:]
    assert estimate.decisive_interval == pytest.approx((low, high))
    assert {"a": low > 1, "d": high < 1, "u": low < 1 < high}[verdict[0]]
    narrow = averaging_amplification_from_probabilities(
        PROBABILITIES, n_train=n_train, confidence=0.1
    )
    assert narrow.verdict == verdict
    assert estimate.verdict == verdict
    assert estimate.status == "measured"
    assert estimate.note == ""


def test_regions_combine_quadratically() -> None:
    table = spread_of(6, 4, 0.02)
    combined = averaging_amplification_from_probabilities(table, n_train=500)
    assert len(combined.regions) == 4
    for name in ("event_variance", "total_variance"):
        parts = sum(getattr(region, name) for region in combined.regions)
        assert getattr(combined, name) == pytest.approx(parts, rel=1e-12)
    for region, column in zip(combined.regions, table.T, strict=True):
        alone = averaging_amplification_from_probabilities(column, n_train=500)
        assert region == dataclasses.replace(alone, regions=())
        assert alone.regions == (region,)
    amplifications = [region.amplification for region in combined.regions]
    assert min(amplifications) < combined.amplification < max(amplifications)


def test_degrees_of_freedom_count_independent_modes() -> None:
    rng = np.random.default_rng(5)
    one_mode = 0.05 + 0.001 * rng.normal(size=(10, 1)) * np.linspace(-1, 1, 18)
    locked = averaging_amplification_from_probabilities(one_mode, n_train=1000)
    assert locked.degrees_of_freedom == pytest.approx(9)
    free = averaging_amplification_from_probabilities(spread_of(400, 18, 0.001), n_train=1000)
    assert free.degrees_of_freedom / (399 * 18) == pytest.approx(1.0, abs=0.15)


def test_many_experiments_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(9)
    fractions = rng.multinomial(2000, [0.2, 0.1, 0.05, 0.65], size=(5, 8))[..., :-1] / 2000
    batch = averaging_intervals(fractions, n_generated=2000, n_train=300, confidence=0.9)
    for amplification, low, high, table in zip(*batch, fractions, strict=True):
        one = averaging_amplification(
            np.rint(table * 2000), n_generated=2000, n_train=300, confidence=0.9
        )
        assert (one.amplification, *one.interval) == pytest.approx((amplification, low, high))


tables = st.tuples(
    st.integers(2, 8), st.integers(1, 5), st.floats(1e-4, 0.2), st.integers(0, 10**6)
)


@settings(deadline=None)
@given(tables, st.integers(10, 10**5), st.floats(0.3, 0.99), st.booleans())
def test_properties(
    table: tuple[int, int, float, int], n_train: int, confidence: float, counted: bool
) -> None:
    probabilities = np.clip(spread_of(*table), 0.001, 0.99 / table[1])
    if counted:
        n_generated = 10 * n_train
        values = np.random.default_rng(table[3]).binomial(n_generated, probabilities)
        values = np.minimum(np.maximum(values, [[1]]), n_generated // table[1])
        arguments = {"n_generated": n_generated, "confidence": confidence}
        function = averaging_amplification
    else:
        values = probabilities
        arguments = {"confidence": confidence}
        function = averaging_amplification_from_probabilities
    estimate = function(values, n_train=n_train, **arguments)
    low, high = estimate.interval
    if min(estimate.event_variance, estimate.integrals[0]) * n_train < 30 and low == 0:
        assert (high, estimate.verdict) == (math.inf, "undecided")  # too few training events
        return
    assert 0 < low <= estimate.amplification <= high
    # The order of members and of regions says nothing.
    shuffled = function(values[::-1, ::-1], n_train=n_train, **arguments)
    assert shuffled.amplification == pytest.approx(estimate.amplification, rel=1e-6)
    assert shuffled.interval == pytest.approx(estimate.interval, rel=1e-6)
    # n_equiv is a property of the members; they do not change when n_train is misreported.
    doubled = function(values, n_train=2 * n_train, **arguments)
    assert doubled.n_equiv == pytest.approx(estimate.n_equiv)
    # A higher confidence level contains a lower one.
    wide = function(values, n_train=n_train, **{**arguments, "confidence": 0.999})
    assert wide.interval[0] <= low * (1 + 1e-9)
    assert wide.interval[1] >= high * (1 - 1e-9)


def test_a_region_and_the_rest_of_phase_space_amplify_alike() -> None:
    inside = averaging_amplification(COUNTS, n_generated=10_000, n_train=100)
    outside = averaging_amplification(10_000 - COUNTS, n_generated=10_000, n_train=100)
    assert inside.amplification == pytest.approx(outside.amplification)
    assert inside.interval == pytest.approx(outside.interval)


def test_estimate_is_frozen_readable_and_plain_json() -> None:
    estimate = averaging_amplification([[100, 50], [112, 57], [93, 49]], n_generated=999, n_train=9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.n_train = 1
    content = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert content["interval"][1] == "inf"
    assert content["n_members"] == 3
    assert content["verdict"] == estimate.verdict
    assert [len(region["integrals"]) for region in content["regions"]] == [1, 1]
    assert "2 regions, 3 members, n_generated=999, n_train=9" in repr(estimate)
    exact = averaging_amplification_from_probabilities(PROBABILITIES, n_train=1000)
    assert exact.to_dict()["n_generated"] == "inf"
    assert str(exact).endswith("6 members, exact, n_train=1000>")


def test_whole_numbers_may_be_numpy_or_float() -> None:
    wanted = averaging_amplification(COUNTS, n_generated=10_000, n_train=100)
    assert averaging_amplification(COUNTS * 1.0, n_generated=1e4, n_train=np.int32(100)) == wanted


GOOD = {"counts": [3, 4], "n_generated": 10, "n_train": 5}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"counts": []}, r"`counts` must not be empty, got shape \(0, 1\)\."),
        ({"counts": np.zeros((3, 0))}, r"`counts` must not be empty, got shape \(3, 0\)\."),
        ({"counts": [3, math.nan]}, "`counts` must be finite, got NaN or infinity"),
        ({"counts": [3, math.inf]}, "`counts` must be finite, got NaN or infinity"),
        ({"counts": np.zeros((2, 2, 2))}, r"`counts` must have shape .* got \(2, 2, 2\)"),
        ({"counts": 3}, r"`counts` must have shape .* got \(\)"),
        ({"counts": [3, 4.5]}, "`counts` must be integers, got fractions; .*from_probabilities"),
        ({"counts": [3, -1]}, "`counts` must not be negative, got -1"),
        ({"counts": [3, 11]}, "`counts` must be at most n_generated = 10, got 11"),
        ({"counts": [[6, 5], [1, 1]]}, "must add up to at most 10 .* got 11; .* must not overlap"),
        ({"counts": [3]}, "`counts` must hold at least two members, got 1"),
        ({"counts": [[3, 0], [4, 0]]}, r"got no events in every member for region index \[1\]"),
        ({"counts": [10, 10]}, r"got all events in every member for region index \[0\]"),
        ({"n_generated": 0}, "`n_generated` must be positive, got 0"),
        ({"n_train": 0}, "`n_train` must be positive, got 0"),
        ({"n_train": -3}, "`n_train` must be positive, got -3"),
        ({"confidence": 0.0}, "`confidence` must be between 0 and 1, got 0"),
        ({"confidence": 1.0}, "`confidence` must be between 0 and 1, got 1"),
        ({"confidence": math.nan}, "`confidence` must be between 0 and 1, got nan"),
    ],
)
def test_bad_counts_are_refused(changed: dict, message: str) -> None:
    arguments = {**GOOD, **changed}
    with pytest.raises(ValueError, match=message):
        averaging_amplification(arguments.pop("counts"), **arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"counts": ["many", "few"]}, "`counts` must be an array of numbers"),
        ({"n_train": 1.5}, "`n_train` must be a whole number, got 1.5"),
        ({"n_train": "100"}, "`n_train` must be a whole number, got '100'"),
        ({"n_train": True}, "`n_train` must be a whole number, got True"),
        ({"n_generated": math.inf}, "`n_generated` must be a whole number, got inf"),
    ],
)
def test_what_is_no_number_is_refused(changed: dict, message: str) -> None:
    arguments = {**GOOD, **changed}
    with pytest.raises(TypeError, match=message):
        averaging_amplification(arguments.pop("counts"), **arguments)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.2, 1.1], "`probabilities` must be between 0 and 1, got 0.2 to 1.1"),
        ([0.2, -0.1], "`probabilities` must be between 0 and 1, got -0.1 to 0.2"),
        ([[0.6, 0.5], [0.1, 0.1]], "must add up to at most 1.01 .* got 1.1; .* not overlap"),
        ([1.0, 1.0], "`probabilities` must say something on every region, got all events"),
        ([0.5], "`probabilities` must hold at least two members, got 1"),
    ],
)
def test_bad_probabilities_are_refused(probabilities: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        averaging_amplification_from_probabilities(probabilities, n_train=10)


def test_intervals_refuse_no_events() -> None:
    with pytest.raises(ValueError, match="`n_generated` must be positive, got 0"):
        averaging_intervals(np.array([[0.2], [0.3]]), n_generated=0, n_train=10)


def test_too_few_training_events_get_no_interval() -> None:
    rng = np.random.default_rng(8)
    rare = np.column_stack([rng.normal(0.2, 0.002, 8), rng.normal(0.019, 0.0002, 8)])
    estimate = averaging_amplification_from_probabilities(rare, n_train=1000)
    common, few = estimate.regions
    assert (few.status, few.verdict) == (TOO_FEW, "undecided")
    assert few.interval == few.decisive_interval == (0.0, math.inf)
    assert few.note == f"{TOO_FEW}: take a wider one"
    assert math.isfinite(few.amplification)
    # The combination holds mostly what is known.
    assert estimate.status == common.status == "measured"
    more = averaging_amplification_from_probabilities(rare, n_train=1100)
    assert more.regions[1].status == "measured"
    # The rest of phase space is as rare.
    whole = averaging_amplification_from_probabilities(1 - rare[:, 1], n_train=1000)
    assert whole.status == TOO_FEW


def test_equal_members_are_named() -> None:
    table = spread_of(6, 4, 0.02)
    table[4] = table[1]
    copied = averaging_amplification_from_probabilities(table, n_train=500)
    assert (copied.status, copied.verdict) == ("identical members", "undecided")
    assert copied.note.startswith("members 1 and 4 are the same")
    assert {one.verdict for one in copied.regions} == {"undecided"}
    # Of a few counts in one region some are equal by chance.
    counts = np.random.default_rng(3).binomial(1000, 0.2, size=30)
    assert len(set(counts)) < 30
    assert averaging_amplification(counts, n_generated=1000, n_train=200).equal_members is None


def test_whose_amplification_it_is() -> None:
    shared = averaging_amplification_from_probabilities(PROBABILITIES, n_train=1000)
    assert shared.whose == "the members' mean"
    assert shared.of_one_member == shared.amplification / 2
    own = averaging_amplification_from_probabilities(
        PROBABILITIES, n_train=1000, members="independent"
    )
    assert own.whose == "one member"
    assert own.amplification == own.of_one_member == shared.of_the_mean
    assert own.of_the_mean == 6 * own.amplification
    assert "of one member at 68 %" in repr(own)
    with pytest.raises(ValueError, match="`members` must be one of bootstrap, posterior, "):
        averaging_amplification_from_probabilities(PROBABILITIES, n_train=1000, members="copies")


def test_the_condition_is_in_every_form() -> None:
    estimate = averaging_amplification_from_probabilities(PROBABILITIES, n_train=200)
    content = estimate.to_dict()
    assert content["verdict"] == AMPLIFIES_IF in repr(estimate).replace("\n", "")
    assert content["condition"] == "its members share no bias"
    assert content["holdout"] is None
