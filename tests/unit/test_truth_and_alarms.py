"""True amplification, total variation, and the alarms of averaging estimates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import betabinom, binom, chi2, chisquare

from genamp_lib import (
    averaging_amplification,
    averaging_amplification_from_probabilities,
    differential_amplification,
    total_variation_amplification,
    true_averaging_amplification,
)
from genamp_lib.amplification import KOLMOGOROV_MEAN
from genamp_lib.amplification._alarms import bias_p_value, joint_p_value
from genamp_lib.amplification.averaging_estimate import AMPLIFIES_IF, CONTRADICTED
from genamp_lib.amplification.truth import holdout_power

# Members that agree to 0.002 on a region of 0.2.
MEMBERS = 0.2 + 0.002 * np.array([-1.2, -0.6, -0.3, 0.1, 0.4, 0.5, 1.1])


def test_true_amplification_is_the_mean_squared_deviation() -> None:
    rng = np.random.default_rng(1)
    table = np.array([0.2, 0.1]) + 0.01 * rng.normal(size=(30, 5, 2))
    truth = np.array([0.2, 0.1])
    found = true_averaging_amplification(table, truth=truth, n_train=500)
    event_variance = 0.2 * 0.8 + 0.1 * 0.9
    one = ((table - truth) ** 2).sum(axis=2)
    mean = ((table.mean(axis=1) - truth) ** 2).sum(axis=1)
    assert found.one_draw == pytest.approx(event_variance / (500 * one.mean()))
    assert found.mean == pytest.approx(event_variance / (500 * mean.mean()))
    np.testing.assert_allclose(found.mean_of_sets, event_variance / (500 * mean))
    assert found.sigma("one_draw") == pytest.approx(math.sqrt(one.mean()))
    assert found.sigma() == pytest.approx(math.sqrt(mean.mean()))
    assert found.one_draw_interval[0] < found.one_draw < found.one_draw_interval[1]
    # The parts add up: the deviation of one draw is the mean's and the spread around it.
    spread = ((table - table.mean(axis=1, keepdims=True)) ** 2).sum(axis=2)
    assert one.mean() == pytest.approx(mean.mean() + spread.mean())


def test_counting_noise_is_taken_out_of_the_truth() -> None:
    rng = np.random.default_rng(2)
    probabilities = 0.2 + 0.01 * rng.normal(size=(4000, 4, 1))
    counted = rng.binomial(2000, probabilities) / 2000
    exact = true_averaging_amplification(probabilities, truth=[0.2], n_train=100)
    noisy = true_averaging_amplification(counted, truth=[0.2], n_train=100, n_generated=2000)
    # 4000 sets: relative error of a mean square sqrt(2/4000) = 2.2 %; 10 % are 4.5 of them.
    assert noisy.one_draw == pytest.approx(exact.one_draw, rel=0.1)
    assert noisy.mean == pytest.approx(exact.mean, rel=0.1)
    ignored = true_averaging_amplification(counted, truth=[0.2], n_train=100)
    assert ignored.one_draw < 0.7 * exact.one_draw


def test_one_training_set_says_nothing_on_the_shared_error() -> None:
    found = true_averaging_amplification(MEMBERS[:, np.newaxis], truth=[0.21], n_train=1000)
    assert found.n_sets == 1
    assert found.mean_interval == (0.0, math.inf)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["mean_interval"] == [0.0, "inf"]
    assert "1 training set, 7 members" in repr(found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fractions": MEMBERS}, r"`fractions` must have shape .* got \(7,\)"),
        ({"fractions": np.zeros((0, 3, 1))}, r"`fractions` must have shape .* got \(0, 3, 1\)"),
        ({"fractions": [[math.nan]]}, "`fractions` and `truth` must be finite"),
        ({"fractions": [[1912.0]]}, "`fractions` must be between 0 and 1, got 1912"),
        ({"truth": [0.2, 0.3]}, r"`truth` must have one probability for each of 1 regions"),
        ({"truth": [0.0]}, "`truth` must be between 0 and 1, got 0 to 0"),
        ({"n_train": 0}, "`n_train` must be positive, got 0"),
        ({"n_generated": 0}, "`n_generated` must be positive, got 0"),
        ({"n_truth": 0}, "`n_truth` must be positive, got 0"),
        ({"confidence": 2}, "`confidence` must be between 0 and 1, got 2"),
    ],
)
def test_wrong_input_to_the_truth_is_refused(changed: dict, message: str) -> None:
    arguments = {"fractions": MEMBERS[:, np.newaxis], "truth": [0.2], "n_train": 100, **changed}
    with pytest.raises(ValueError, match=message):
        true_averaging_amplification(arguments.pop("fractions"), **arguments)


def test_sigma_knows_two_definitions() -> None:
    found = true_averaging_amplification(MEMBERS[:, np.newaxis], truth=[0.2], n_train=1000)
    with pytest.raises(ValueError, match="`definition` must be 'one_draw' or 'mean', got 'both'"):
        found.sigma("both")


def test_training_sample_that_agrees_raises_no_alarm() -> None:
    estimate = averaging_amplification_from_probabilities(MEMBERS, n_train=1000, train_counts=[215])
    assert estimate.train_integrals == (0.215,)
    # Beta-binomial: spread 0.00075 of a member beside 0.0126 of the counting.
    variance = MEMBERS.var(ddof=1)
    size = MEMBERS.mean() * (1 - MEMBERS.mean()) / variance - 1
    law = betabinom(1000, MEMBERS.mean() * size, (1 - MEMBERS.mean()) * size)
    assert estimate.bias_p_value == pytest.approx(2 * law.sf(214))
    assert not estimate.contradicted
    assert (estimate.status, estimate.verdict) == ("measured", AMPLIFIES_IF)


def test_a_bias_that_members_share_is_seen_in_the_training_sample() -> None:
    estimate = averaging_amplification_from_probabilities(
        np.column_stack([MEMBERS, MEMBERS / 2]), n_train=1000, train_counts=[270, 100]
    )
    assert estimate.contradicted
    assert (estimate.status, estimate.verdict) == ("contradicted", "undecided")
    assert "share a bias" in estimate.note
    assert [region.status for region in estimate.regions] == ["contradicted", "measured"]
    assert estimate.bias_p_value == pytest.approx(2 * estimate.regions[0].bias_p_value)
    # A contradicted spread does not turn what fails by its own spread into a doubt.
    wide = 0.2 + 10 * (MEMBERS - 0.2)
    alone = averaging_amplification_from_probabilities(wide, n_train=100_000, train_counts=[80_000])
    assert (alone.status, alone.verdict) == ("contradicted", "does not amplify")


def test_members_that_agree_perfectly_are_compared_binomially() -> None:
    estimate = averaging_amplification_from_probabilities([0.2] * 4, n_train=50, train_counts=[14])
    assert estimate.bias_p_value == pytest.approx(2 * binom(50, 0.2).sf(13))


def test_without_the_training_sample_there_is_no_alarm() -> None:
    estimate = averaging_amplification_from_probabilities(MEMBERS, n_train=1000)
    assert estimate.bias_p_value is None
    assert not estimate.contradicted
    assert estimate.to_dict()["bias_p_value"] is None


def test_the_alarm_is_rarely_false_and_sees_what_it_should() -> None:
    # Bootstrap-like members around a fit that is right: at most 0.27 % of alarms; 4000 trials,
    # standard error 0.08 %: the limit leaves 4.5. A bias of six statistical errors is always seen.
    rng = np.random.default_rng(3)
    false = seen = 0
    for _ in range(4000):
        train = rng.binomial(1000, 0.2)
        fit = 0.2 + 0.005 * rng.normal()
        members = fit + 0.005 * rng.normal(size=8)
        for bias in (0.0, 0.09):
            probability = bias_p_value(members + bias, train, n_generated=math.inf, n_train=1000)
            false += probability < CONTRADICTED and bias == 0
            seen += probability < CONTRADICTED and bias > 0
    assert false / 4000 < 0.0027 + 4.5 * 0.0008
    assert seen / 4000 > 0.99


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "`train_counts` must have one number for each of 1 regions"),
        ([1.5], "`train_counts` must be integers"),
        ([math.nan], "`train_counts` must be integers"),
        ([-1], "`train_counts` must not be negative"),
        ([1001], "add up to at most n_train = 1000, got 1001"),
    ],
)
def test_wrong_train_counts_are_refused(counts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        averaging_amplification_from_probabilities(MEMBERS, n_train=1000, train_counts=counts)


def test_train_counts_must_be_numbers() -> None:
    with pytest.raises(TypeError, match="`train_counts` must be an array of numbers"):
        averaging_amplification_from_probabilities(MEMBERS, n_train=1000, train_counts=["many"])


HOLDOUT = {"holdout_counts": [20_000], "n_holdout": 100_000}


def test_a_holdout_confirms_or_refutes() -> None:
    found = averaging_amplification_from_probabilities(MEMBERS, n_train=1000, **HOLDOUT)
    assert found.verdict == "amplifies"
    assert found.to_dict()["condition"] == ""
    low = found.holdout_edges[0]
    assert 1 < low < found.holdout.mean
    assert found.true_amplification == (found.holdout.mean, found.holdout.mean_interval)
    assert "by 100000 holdout events" in repr(found)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["holdout_edges"][0] == pytest.approx(low)
    assert content["holdout"]["n_truth"] == 100_000
    # A bias of 0.02, where a training sample of 1000 has an error of 0.0126.
    biased = averaging_amplification_from_probabilities(MEMBERS + 0.02, n_train=1000, **HOLDOUT)
    assert (biased.status, biased.verdict) == ("contradicted", "does not amplify")
    assert "the holdout finds less than the members' spread allows" in biased.note
    assert biased.holdout.mean == pytest.approx(0.16 / (1000 * 0.02**2), rel=0.1)


def test_a_small_holdout_says_what_it_can_show() -> None:
    small = averaging_amplification_from_probabilities(
        MEMBERS, n_train=1000, holdout_counts=[82], n_holdout=400
    )
    # It cannot take the condition away.
    assert small.verdict == AMPLIFIES_IF
    assert "neither confirms nor excludes G > 1; one of this size confirms perfect" in small.note
    # At most |z| < 0.02 around a perfect generator of one region for a holdout this small.
    assert 0.02 < small.holdout_power < 0.06
    # One that happens to agree to the last digit proves nothing either.
    lucky = averaging_amplification_from_probabilities(
        MEMBERS, n_train=1000, holdout_counts=[round(MEMBERS.mean() * 1000)], n_holdout=1000
    )
    assert lucky.holdout_edges[0] > 1
    assert lucky.verdict == AMPLIFIES_IF
    assert "neither confirms nor excludes G > 1; one of this size confirms perfect" in lucky.note
    assert holdout_power(np.array([0.2]), n_train=1000, n_truth=100_000) > 0.999


def test_independent_members_are_judged_one_by_one() -> None:
    rng = np.random.default_rng(9)
    members = rng.normal(0.2, math.sqrt(0.16 / 2000), size=20)  # G = 2 of one, 40 of the mean
    one, mean = (
        averaging_amplification_from_probabilities(members, n_train=1000, members=kind, **HOLDOUT)
        for kind in ("independent", "bootstrap")
    )
    assert one.true_amplification[0] == one.holdout.one_draw == mean.holdout.one_draw
    assert one.holdout.one_draw == pytest.approx(2, rel=0.7)
    assert one.holdout.mean > 5
    assert one.holdout_edges[0] < one.holdout.one_draw < one.holdout_edges[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_holdout": None}, "`holdout_counts` and `n_holdout` must be given together, got one"),
        ({"holdout_counts": [1, 2]}, "`holdout_counts` must have one number for each of 1 regions"),
        ({"holdout_counts": [2.5]}, "`holdout_counts` must be integers"),
        ({"holdout_counts": [100_001]}, "add up to at most n_holdout = 100000, got 100001"),
        (
            {"holdout_counts": [4]},
            r"at least 5 events inside and outside .* index \[0\]; take wider",
        ),
        ({"n_holdout": -1}, "`n_holdout` must be positive, got -1"),
        ({"alarm_counts": [1]}, "`alarm_counts` must be a pair"),
        (
            {"alarm_counts": ([[0.5, 0.5]] * 3, [5, 5])},
            "a row of numbers >= 0 for each of 7 member",
        ),
        ({"alarm_counts": ([[0.4, 0.4]] * 7, [500, 500])}, "`alarm_counts` must hold all events"),
        ({"alarm_counts": ([[0.5, 0.5]] * 7, [5])}, "`alarm_counts` must have one number for each"),
        (
            {"alarm_counts": ([[0.998, 0.002]] * 7, [998, 2])},
            "at least two bins and 5 training eve",
        ),
    ],
)
def test_wrong_samples_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        averaging_amplification_from_probabilities(MEMBERS, n_train=1000, **{**HOLDOUT, **changed})


def test_the_joint_alarm_is_pearsons_test() -> None:
    exact = np.full((5, 4), 0.25)
    train = np.array([270.0, 240, 260, 230])
    p = joint_p_value(exact, train, n_generated=math.inf, n_train=1000)
    assert p == pytest.approx(chisquare(train, [250] * 4).pvalue)
    # What counts of the members scatter adds to the error.
    counted = joint_p_value(exact, train, n_generated=200, n_train=1000)
    assert counted == pytest.approx(chi2.sf(chisquare(train, [250] * 4).statistic / 2, 3))
    # Members that disagree make it careful.
    rng = np.random.default_rng(3)
    spread = 0.25 + 0.03 * rng.normal(size=(5, 1)) * np.array([1, -1, 1, -1])
    assert joint_p_value(spread, train, n_generated=math.inf, n_train=1000) > p
    # No event where the sample has many: certain.
    never = joint_p_value(np.tile([0.5, 0.5, 0, 0], (5, 1)), train, n_generated=100, n_train=1000)
    assert never == 0


def test_the_joint_alarm_takes_the_verdict_away() -> None:
    rng = np.random.default_rng(4)
    table = np.full(20, 0.05) + 0.0004 * rng.normal(size=(8, 20))
    train = 50 + 13 * (-1) ** np.arange(20)  # chi^2 = 68 for 19 degrees of freedom
    arguments = {"n_train": 1000, "train_counts": train}
    alone = averaging_amplification_from_probabilities(table, **arguments)
    assert alone.verdict == AMPLIFIES_IF  # no single region is off by three errors of the sample
    estimate = averaging_amplification_from_probabilities(
        table, **arguments, alarm_counts=(table, train)
    )
    assert estimate.joint_p_value < 1e-5 < alone.bias_p_value
    assert (estimate.status, estimate.verdict) == ("contradicted", "undecided")
    assert estimate.regions[0].verdict == "undecided"
    assert estimate.to_dict()["joint_p_value"] == estimate.joint_p_value


def test_members_at_an_extremum_are_flagged() -> None:
    # An integral that a fit can only lower, as [-1, 1] of a Gaussian: chi^2 with one degree.
    rng = np.random.default_rng(5)
    one_sided = 0.68 - 0.001 * rng.normal(size=40) ** 2
    flagged = averaging_amplification_from_probabilities(one_sided, n_train=1000)
    assert flagged.normality_p_value < 1e-4
    assert "not Gaussian" in flagged.note
    straight = averaging_amplification_from_probabilities(
        0.68 + 0.001 * rng.normal(size=40), n_train=1000
    )
    assert "not Gaussian" not in straight.note
    # Counting noise hides it; then nothing is claimed.
    noisy = averaging_amplification(rng.binomial(1000, one_sided), n_generated=1000, n_train=1000)
    assert noisy.normality_p_value == 1.0


def shifted(n: int, shift: float) -> np.ndarray:
    x = np.random.default_rng(6).normal(size=n)
    return shift * x - shift**2 / 2


def test_total_variation_of_a_shift_has_a_closed_form() -> None:
    estimate = total_variation_amplification(shifted(10**6, 0.2), n_train=1000, confidence=0.9)
    exact = 2 * ndtr(0.1) - 1
    # Five standard errors.
    assert estimate.total_variation == pytest.approx(exact, abs=5 * estimate.standard_error)
    assert estimate.standard_error < 2e-4
    assert estimate.amplification == pytest.approx(
        KOLMOGOROV_MEAN**2 / (1000 * estimate.total_variation**2)
    )
    low, high = estimate.interval
    assert low < KOLMOGOROV_MEAN**2 / (1000 * exact**2) < high
    assert estimate.verdict == "does not amplify"
    assert estimate.n_equiv == pytest.approx(1000 * estimate.amplification)
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["verdict"]
    assert "TV = 0.079" in repr(estimate)


def test_no_statistic_is_further_away_than_the_likelihood_ratio() -> None:
    log_ratio = shifted(10**6, 0.2)
    limit = total_variation_amplification(log_ratio, n_train=1000).total_variation
    # The statistic itself, log-ratio of generated against true events: distance = TV.
    generated = log_ratio + 0.2 * 0.2
    estimate = differential_amplification(1000, generated[:500_000], holdout=log_ratio[500_000:])
    assert estimate.distance == pytest.approx(limit, abs=0.005)


def test_equal_and_disjoint_densities_are_the_ends() -> None:
    equal = total_variation_amplification(np.zeros(100), n_train=10)
    assert equal.amplification == math.inf
    assert equal.interval == (math.inf, math.inf)
    apart = total_variation_amplification(np.full(100, -np.inf), n_train=10)
    assert apart.total_variation == 1.0
    assert apart.amplification == pytest.approx(KOLMOGOROV_MEAN**2 / 10)


@pytest.mark.parametrize(
    ("values", "n_train", "message"),
    [
        (np.zeros(9), 10, "`log_ratio` must hold at least 10 events, got 9"),
        (np.full(20, np.nan), 10, "`log_ratio` must be a number or -inf, got NaN"),
        (np.full(20, np.inf), 10, "`log_ratio` must be a number or -inf, got NaN or"),
        (np.zeros((4, 5)), 10, "`log_ratio` must be one-dimensional"),
        (np.zeros(20), 0, "`n_train` must be positive, got 0"),
    ],
)
def test_wrong_ratios_are_refused(values: np.ndarray, n_train: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        total_variation_amplification(values, n_train=n_train)


def test_a_cut_is_remembered() -> None:
    rng = np.random.default_rng(7)
    train, generated = rng.normal(size=500), rng.normal(size=800)
    estimate = differential_amplification(train, generated, n_before_cut=8000)
    assert estimate.survival_fraction == pytest.approx(0.1)
    assert "a cut kept 10 % of the generated events" in estimate.note
    assert estimate.to_dict()["survival_fraction"] == pytest.approx(0.1)
    uncut = differential_amplification(train, generated)
    assert (uncut.survival_fraction, uncut.interval) == (1.0, estimate.interval)
    with pytest.raises(ValueError, match=r"`n_before_cut` must be at least .* 800, got 799"):
        differential_amplification(train, generated, n_before_cut=799)
    exact = differential_amplification(500, generated, cdf=ndtr, n_before_cut=1600)
    assert exact.survival_fraction == pytest.approx(0.5)
