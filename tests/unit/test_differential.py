"""Differential amplification: closed forms, references, alarms, what is said, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import kolmogi
from scipy.stats import ks_1samp, ks_2samp, norm

from genamp_lib import KolmogorovAccumulator, differential_amplification
from genamp_lib.amplification import (
    KOLMOGOROV_MEAN,
    differential_intervals,
    kolmogorov_mean,
)
from genamp_lib.amplification._pairs import mean_square, mean_square_to_cdf
from genamp_lib.amplification.kolmogorov import finite_size_shift

RNG = np.random.default_rng(2)
TRAIN, TRUTH = RNG.normal(size=400), RNG.normal(size=8000)
# Quantiles instead of random numbers: a holdout without fluctuations keeps numbers near the truth.
HOLDOUT = norm.ppf((np.arange(3000) + 0.5) / 3000)
SHIFTED = TRUTH + 0.3


def test_closed_form_of_the_paper():
    """Eq. (36) solved for n_equiv, with n_generated finite."""
    estimate = differential_amplification(TRAIN, SHIFTED, holdout=HOLDOUT)
    assert estimate.distance == ks_2samp(HOLDOUT, SHIFTED, method="asymp").statistic
    n_effective = 1 / (1 / 3000 + 1 / 8000)
    k = estimate.distance * math.sqrt(n_effective) + finite_size_shift(3000, 8000)
    n_equiv = n_effective / ((k / KOLMOGOROV_MEAN) ** 2 - 1)
    assert estimate.n_equiv == pytest.approx(n_equiv, rel=1e-12)
    assert estimate.amplification == pytest.approx(estimate.n_equiv / 400)
    # The curve of true events crosses the distance, without the generated sample's noise, there.
    limit = math.sqrt(estimate.distance**2 - KOLMOGOROV_MEAN**2 / 8000)
    assert estimate.expected_distance(n_equiv) == pytest.approx(limit, rel=0.05)
    curve = estimate.expected_distance([100, 1000, 1e9])
    assert curve[2] == pytest.approx(kolmogorov_mean(3000) / math.sqrt(3000), rel=1e-3)


def test_estimate_agrees_with_the_vectorised_arithmetic():
    estimate = differential_amplification(TRAIN, SHIFTED, holdout=HOLDOUT, confidence=0.9)
    numbers = differential_intervals(
        [estimate.distance], n_reference=3000, n_generated=8000, n_train=400, confidence=0.9
    )
    assert (estimate.amplification, *estimate.interval) == tuple(float(x[0]) for x in numbers)


def test_an_interval_ends_where_k_passes_the_quantile_of_a_perfect_generator():
    """What the exercise of chapter 03 says: 31.73 % of true events lie further away than that."""
    edge = kolmogi(1 - 0.6827) / 1000 - finite_size_shift(10**6, math.inf) / 1000
    _, _, high = differential_intervals(
        [edge * 0.999, edge * 1.001], n_reference=10**6, n_train=1000, confidence=0.6827
    )
    assert np.isinf(high).tolist() == [True, False]


def test_limits_are_one_sided_and_the_verdict_uses_them():
    """G = 1.2 of a sharp holdout: the 68 % interval leaves out 1, the limit does not."""
    holdout = norm.ppf((np.arange(40_000) + 0.5) / 40_000)
    shift = math.sqrt(2 * math.pi) * KOLMOGOROV_MEAN / math.sqrt(400 * 1.2)
    estimate = differential_amplification(TRAIN, holdout + shift, holdout=holdout)
    wide = differential_amplification(TRAIN, holdout + shift, holdout=holdout, confidence=0.9545)
    assert estimate.limits == wide.limits
    assert estimate.limits[0] < 1 < estimate.interval[0]
    assert estimate.verdict == "undecided"
    # The tail below is split in halves at large distances only.
    assert wide.interval[0] == pytest.approx(estimate.limits[0], rel=0.02)
    assert wide.interval[1] < estimate.limits[1]
    assert estimate.mean_square_verdict == "does not amplify"
    square = estimate.cramer_von_mises
    assert square.limits[0] < square.interval[0] < square.interval[1] < square.limits[1] < 1
    # The ratio of the two G for a shift.
    assert square.amplification / estimate.amplification == pytest.approx(0.38, abs=0.02)
    assert estimate.to_dict()["limits"] == list(estimate.limits)


def test_verdicts():
    def estimate(train, generated):
        return differential_amplification(train, generated, holdout=HOLDOUT)

    assert estimate(TRAIN, TRUTH).verdict == "amplifies"
    assert estimate(TRAIN, TRUTH).status == "lower limit"
    assert estimate(TRAIN, SHIFTED).verdict == "does not amplify"
    assert estimate(TRAIN, SHIFTED).status == "measured"
    assert estimate(3000, TRUTH).verdict == "undecided"
    assert "needs about 30,000 generated and as many holdout events" in estimate(3000, TRUTH).note
    assert "needs about" not in estimate(TRAIN, SHIFTED).note
    assert estimate(400, TRUTH).verdict == (
        "amplifies, if no generated event repeats a training event"
    )
    assert "a larger reference would say more" in estimate(TRAIN, TRUTH).note
    assert "a larger generated sample would" in estimate(TRAIN, TRUTH[-500:]).note


def test_against_its_own_training_sample_nothing_amplifies():
    for generated in (TRUTH, np.repeat(TRAIN, 3) + 1e-4):
        estimate = differential_amplification(TRAIN, generated)
        assert estimate.reference == "train"
        assert estimate.n_reference == estimate.n_train == 400
        assert estimate.verdict == "undecided"
        assert "only an independent holdout can show amplification" in estimate.note
    assert estimate.interval[0] > 1
    # But a generator that is off even there is off.
    assert differential_amplification(TRAIN, TRUTH + 1).verdict == "does not amplify"


def test_overfitting_alarm():
    copied = np.repeat(TRAIN, 5)
    against_train = differential_amplification(TRAIN, copied)
    assert against_train.status == "too close"
    assert against_train.train_probability_closer < 0.00135
    against_holdout = differential_amplification(TRAIN, copied, holdout=HOLDOUT)
    assert against_holdout.status != "too close"
    assert against_holdout.train_distance == against_train.distance
    assert "overfitting: closer to the training sample" in against_holdout.note
    assert against_holdout.repeats.ratio == math.inf
    assert against_holdout.verdict == "generated events repeat training events"
    # A holdout that was no holdout, and one that holds training events.
    leaked = differential_amplification(100, copied, holdout=TRAIN)
    assert (leaked.status, leaked.verdict) == ("too close", "undecided")
    with pytest.raises(ValueError, match="share no events with `train`, got 100 events that equal"):
        differential_amplification(TRAIN[:100], copied, holdout=TRAIN)
    assert "check that the generator has not seen it" in leaked.note
    assert "overfitting" not in differential_amplification(TRAIN, TRUTH, holdout=HOLDOUT).note


def test_exact_distribution():
    estimate = differential_amplification(TRAIN, SHIFTED, cdf=norm.cdf)
    assert estimate.reference == "cdf"
    assert estimate.n_reference == math.inf
    assert estimate.distance == ks_1samp(SHIFTED, norm.cdf, method="asymp").statistic
    true_g = KOLMOGOROV_MEAN**2 / (400 * (2 * norm.cdf(0.15) - 1) ** 2)
    low, high = differential_amplification(400, SHIFTED, cdf=norm.cdf, confidence=0.999).interval
    assert low < true_g < high
    assert estimate.train_distance is not None
    assert differential_amplification(400, SHIFTED, cdf=norm.cdf).train_distance is None
    verdict = differential_amplification(400, TRUTH, cdf=norm.cdf).verdict
    assert verdict == "amplifies, if no generated event repeats a training event"


def test_accumulators_stand_for_samples():
    accumulator = KolmogorovAccumulator(HOLDOUT)
    accumulator.update(SHIFTED[:3000])
    accumulator.update(SHIFTED[3000:])
    from_accumulator = differential_amplification(400, accumulator, holdout=HOLDOUT)
    from_sample = differential_amplification(400, SHIFTED, holdout=HOLDOUT)
    assert from_accumulator == from_sample
    own = KolmogorovAccumulator(TRAIN)
    own.update(SHIFTED)
    assert differential_amplification(TRAIN, own) == differential_amplification(TRAIN, SHIFTED)
    with pytest.raises(ValueError, match="made with the train sample as its reference, got one"):
        differential_amplification(TRAIN, accumulator)
    with pytest.raises(ValueError, match="made with the holdout sample as its reference"):
        differential_amplification(TRAIN, own, holdout=HOLDOUT)
    with pytest.raises(ValueError, match=r"`generated` must be an array when .* is a `cdf`"):
        differential_amplification(TRAIN, own, cdf=norm.cdf)
    with pytest.raises(ValueError, match="`generated` must hold at least 10 events, got 0"):
        differential_amplification(TRAIN, KolmogorovAccumulator(TRAIN))


def by_pairs(reference: np.ndarray, generated: np.ndarray) -> float:
    """The unbiased mean square from its definition: all places, all pairs of other events."""
    total = 0.0
    for j, place in enumerate(reference):
        others = np.delete(reference, j) <= place
        made = generated <= place
        total += (made.sum() ** 2 - made.sum()) / (len(made) * (len(made) - 1))
        total += (others.sum() ** 2 - others.sum()) / (len(others) * (len(others) - 1))
        total -= 2 * made.mean() * others.mean()
    return total / len(reference)


@given(
    reference=st.lists(st.integers(-4, 4), min_size=3, max_size=30),
    generated=st.lists(st.integers(-5, 5), min_size=2, max_size=30),
)
@settings(deadline=None)
def test_mean_square_by_definition(reference, generated):
    accumulator = KolmogorovAccumulator(reference)
    accumulator.update(generated)
    square, null, _ = mean_square(*accumulator.cumulative_counts(), len(generated))
    expected = by_pairs(np.sort(reference), np.array(generated))
    assert square == pytest.approx(expected, abs=1e-12)
    if len(set(reference)) == len(reference):
        assert null == pytest.approx(1 / 6)


def test_mean_square_to_a_known_distribution_is_the_limit_of_a_large_reference():
    generated = np.sort(np.random.default_rng(3).random(50) ** 1.3)
    accumulator = KolmogorovAccumulator((np.arange(200_000) + 0.5) / 200_000)
    accumulator.update(generated)
    expected = mean_square(*accumulator.cumulative_counts(), 50)
    assert mean_square_to_cdf(generated) == pytest.approx(expected, abs=1e-5)


def test_companion():
    estimate = differential_amplification(TRAIN, SHIFTED, holdout=HOLDOUT)
    companion = estimate.cramer_von_mises
    # int delta^2 dF_truth for a shift of 0.3 is 0.00685.
    u = (np.arange(10_000) + 0.5) / 10_000
    true_inverse = 6 * 400 * np.mean((norm.cdf(norm.ppf(u) - 0.3) - u) ** 2)
    assert companion.inverse_amplification == pytest.approx(true_inverse, rel=0.25)
    assert companion.interval[0] < companion.amplification < companion.interval[1] < 1
    perfect = differential_amplification(TRAIN, TRUTH, holdout=HOLDOUT).cramer_von_mises
    assert perfect.interval[1] == math.inf
    assert repr(companion).startswith("<CramerVonMisesEstimate G = 0.0")


@given(scale=st.floats(0.1, 100), power=st.sampled_from([1, 3]), offset=st.floats(-10, 10))
@settings(deadline=None, max_examples=20)
def test_a_monotone_transformation_of_the_statistic_changes_nothing(scale, power, offset):
    def transform(values):
        return scale * np.round(values[:200], 3) ** power + offset

    # Rounding before, so that rounding after cannot make or break ties.
    samples = [transform(sample) for sample in (TRAIN, SHIFTED, HOLDOUT)]
    plain = [np.round(sample[:200], 3) for sample in (TRAIN, SHIFTED, HOLDOUT)]
    if any(len(np.unique(a)) != len(np.unique(b)) for a, b in zip(samples, plain, strict=True)):
        return
    assert differential_amplification(
        samples[0], samples[1], holdout=samples[2]
    ) == differential_amplification(plain[0], plain[1], holdout=plain[2])


@given(n_train=st.integers(1, 10**7))
@settings(deadline=None, max_examples=20)
def test_n_equiv_does_not_depend_on_n_train(n_train):
    estimate = differential_amplification(n_train, SHIFTED, holdout=HOLDOUT)
    reference = differential_amplification(1, SHIFTED, holdout=HOLDOUT)
    assert estimate.n_equiv == pytest.approx(reference.amplification)
    assert np.multiply(estimate.interval, n_train) == pytest.approx(reference.interval)


def test_a_coarse_statistic_is_said_to_be_one():
    few, generated = (np.round(sample * 2) for sample in (HOLDOUT, TRUTH))
    estimate = differential_amplification(TRAIN, generated, holdout=few)
    assert estimate.coarse
    assert estimate.cramer_von_mises is None
    assert "takes few values" in estimate.note
    assert estimate.status == "lower limit"  # no alarm, however close
    assert estimate.to_dict()["cramer_von_mises"] is None
    rounded = differential_amplification(TRAIN, TRUTH.round(3), holdout=HOLDOUT.round(3))
    assert not rounded.coarse


def test_repr_and_dict_are_for_people():
    estimate = differential_amplification(TRAIN, TRUTH, holdout=HOLDOUT)
    text = repr(estimate)
    assert text.startswith("<DifferentialEstimate G = ")
    assert ", inf] at 68 %, amplifies; against 3000 holdout events, n_generated=8000" in text
    content = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert content["interval"][1] == "inf"
    assert content["verdict"] == "amplifies"
    assert content["reference"] == "holdout"
    assert content["cramer_von_mises"]["interval"][1] == "inf"
    exact = differential_amplification(400, TRUTH, cdf=norm.cdf)
    assert "against the exact distribution" in repr(exact)
    assert exact.to_dict()["n_reference"] == "inf"
    assert "against its own training sample" in repr(differential_amplification(TRAIN, TRUTH))


GOOD = {"train": TRAIN, "generated": SHIFTED, "holdout": HOLDOUT}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": 0}, ValueError, "`train` must be positive, got 0"),
        ({"train": 0.5}, TypeError, "`train` must be a whole number, got 0.5"),
        ({"train": 100, "holdout": None}, ValueError, "`train` must be the training sample when"),
        ({"train": [1.0, 2.0]}, ValueError, "`train` must hold at least 10 events, got 2"),
        ({"generated": []}, ValueError, "`generated` must hold at least 10 events, got 0"),
        ({"generated": [np.nan] * 20}, ValueError, "must be finite, got NaN or infinity"),
        ({"generated": np.zeros((20, 2))}, ValueError, "`generated` must be one-dimensional"),
        ({"generated": ["a"] * 20}, TypeError, "`generated` must be an array of real numbers"),
        ({"holdout": [1.0] * 20}, ValueError, "`holdout` must hold at least two different values"),
        ({"holdout": [math.inf] * 20}, ValueError, "`holdout` must be finite"),
        ({"holdout": np.array([None] * 20)}, TypeError, "`holdout` must be an array of real"),
        ({"cdf": norm.cdf}, ValueError, "`holdout` must not be given together with `cdf`"),
        ({"confidence": 68}, ValueError, "`confidence` must be between 0 and 1, got 68"),
    ],
)
def test_bad_input(changes, error, message):
    arguments = GOOD | changes
    train, generated = arguments.pop("train"), arguments.pop("generated")
    with pytest.raises(error, match=message):
        differential_amplification(train, generated, **arguments)


@pytest.mark.parametrize(
    ("cdf", "message"),
    [
        (lambda x: float(x), "`cdf` must be a function of an array, got an error"),
        (lambda x: 0.5, "`cdf` must return an array of the shape it is given"),
        (lambda x: x, "`cdf` must rise from 0 to 1"),
        (lambda x: norm.sf(x), "`cdf` must rise from 0 to 1"),
        (lambda x: np.full_like(x, np.nan), "`cdf` must rise from 0 to 1"),
    ],
)
def test_bad_distribution_functions(cdf, message):
    with pytest.raises(ValueError, match=message):
        differential_amplification(TRAIN, SHIFTED, cdf=cdf)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_reference": 0}, "`n_reference` must be positive, got 0"),
        ({"n_generated": math.nan}, "`n_generated` must be positive, got nan"),
        ({"n_reference": math.inf}, "`n_reference` or `n_generated` must be finite"),
        ({"n_train": -3}, "`n_train` must be positive, got -3"),
        ({"distances": [1.5]}, "`distances` must be between 0 and 1"),
    ],
)
def test_bad_numbers(changes, message):
    arguments = {"distances": [0.1], "n_reference": 100, "n_train": 100} | changes
    with pytest.raises(ValueError, match=message):
        differential_intervals(arguments.pop("distances"), **arguments)
