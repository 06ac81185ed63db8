"""Calibration of weights, pulls, effective sample size, and the ranking of observables."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import kstest

from genamp_lib.diagnostics import (
    effective_sample_size,
    rank_observables,
    weight_calibration,
    weight_pulls,
)

EDGES = [0.0, 0.7, 0.85, 1.0, 1.2, 1.5, np.inf]


def exact_weights(
    rng: np.random.Generator, n_truth: int, n_generated: int, shift: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """The true density ratio of two Gaussians, at events of each."""
    samples = rng.normal(shift, 1.0, n_truth), rng.normal(0.0, 1.0, n_generated)
    return tuple(np.exp(shift * x - shift**2 / 2) for x in samples)


def test_calibrated_weights_lie_on_the_diagonal() -> None:
    truth, generated = exact_weights(np.random.default_rng(1), 200_000, 100_000)
    found = weight_calibration(truth, generated, EDGES)
    np.testing.assert_allclose(found.ratio, found.mean_weight, rtol=0.05)
    assert (found.low < found.ratio).all()
    assert (found.ratio < found.high).all()
    assert found.n_truth.sum() == 200_000
    assert found.n_generated.sum() == 100_000
    assert found.degrees_of_freedom == 6
    assert found.p_value > 1e-5
    assert (np.diff(found.mean_weight) > 0).all()


def test_the_ratio_is_that_of_fractions() -> None:
    found = weight_calibration([0.5, 1.5, 1.6, 3.0], [0.4, 1.2], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(found.ratio, [0.25 / 0.5, 0.5 / 0.5])
    np.testing.assert_allclose(found.mean_weight, [0.4, 1.2])
    assert found.n_truth.tolist() == [1, 2]
    assert (found.n_truth_total, found.n_generated_total) == (4, 2)
    # Too few events to test anything.
    assert (found.degrees_of_freedom, found.chi_square, found.p_value) == (0, 0.0, 1.0)
    assert np.isnan(found.pulls).all()


def test_the_test_has_its_false_alarm_rate() -> None:
    # 2000 calibrated pairs: p-values are uniform. The Kolmogorov-Smirnov distance of 2000 uniform
    # numbers exceeds 0.055 with probability 1e-5; small bins cost another 0.01.
    rng = np.random.default_rng(2)
    p_values = [
        weight_calibration(*exact_weights(rng, 2000, 3000), EDGES).p_value for _ in range(2000)
    ]
    assert kstest(p_values, "uniform").statistic < 0.065


def test_miscalibrated_weights_are_found() -> None:
    truth, generated = exact_weights(np.random.default_rng(3), 50_000, 50_000)
    found = weight_calibration(truth**1.5, generated**1.5, EDGES)
    assert found.p_value < 1e-10
    assert np.nanmax(np.abs(found.pulls)) > 5
    # An overfitted classifier: weights that mean nothing.
    rng = np.random.default_rng(4)
    noise = [np.exp(0.3 * rng.normal(size=20_000)) for _ in range(2)]
    assert weight_calibration(*noise, EDGES).p_value < 1e-10


def test_cross_fitting_doubles_the_variance() -> None:
    truth, generated = exact_weights(np.random.default_rng(5), 5000, 5000)
    once = weight_calibration(truth, generated, EDGES)
    twice = weight_calibration(truth, generated, EDGES, cross_fitted=True)
    np.testing.assert_allclose(twice.pulls, once.pulls / math.sqrt(2))
    assert twice.chi_square == pytest.approx(once.chi_square / 2)


def test_zero_and_infinite_weights_are_drawn_and_not_believed() -> None:
    truth, generated = exact_weights(np.random.default_rng(6), 5000, 5000)
    # What only the truth has may have infinite weight: nothing generated contradicts it.
    found = weight_calibration(np.append(truth, [np.inf] * 20), generated, [0.0, 1.0, 5.0, np.inf])
    assert found.n_truth.sum() == len(truth) + 0  # an infinite weight lies in no bin
    # A generated event of infinite weight makes its bin's expectation infinite.
    last = weight_calibration(truth, np.append(generated, np.inf), [0.0, 1.0, 5.0])
    assert last.degrees_of_freedom == 2
    zero = weight_calibration(truth, np.append(generated, [0.0] * 50), [0.0, 0.01, 1.0, 5.0])
    assert zero.ratio[0] == 0.0
    assert zero.mean_weight[0] == 0.0
    assert math.isnan(zero.pulls[0]) or abs(zero.pulls[0]) < 5


def test_a_bin_without_generated_events_has_no_upper_limit() -> None:
    found = weight_calibration([2.0] * 30, [0.5] * 30, [0.1, 1.0, 10.0])
    assert found.ratio.tolist() == [0.0, math.inf]
    assert found.low[0] == 0.0
    assert found.high[1] == math.inf
    assert 0 < found.low[1] < math.inf
    assert found.mean_weight[1] == pytest.approx(math.sqrt(10))
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["ratio"] == [0.0, "inf"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truth": []}, "`truth` must be 1D"),
        ({"generated": [math.nan]}, "`generated` must be numbers"),
        ({"generated": [-1.0]}, "`generated` must not be negative"),
        ({"edges": [1.0]}, "`edges` must be at least two increasing numbers"),
        ({"edges": [1.0, 1.0]}, "`edges` must be at least two increasing numbers"),
        ({"edges": [-1.0, 1.0]}, "`edges` must be at least two increasing numbers"),
        ({"edges": [0.0, math.nan]}, "`edges` must be at least two increasing numbers"),
        ({"confidence": 1.0}, "`confidence` must be between 0 and 1, got 1.0"),
    ],
)
def test_wrong_input_to_calibration_is_refused(changed: dict, message: str) -> None:
    arguments = {"truth": [1.0], "generated": [1.0], "edges": [0.0, 2.0], **changed}
    with pytest.raises(ValueError, match=message):
        weight_calibration(**arguments)


def test_effective_sample_size_is_kish() -> None:
    weights = np.random.default_rng(7).exponential(size=1000)
    assert effective_sample_size(weights) == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert effective_sample_size(weights * 1e200) == pytest.approx(effective_sample_size(weights))
    for wrong, message in (
        ([1.0, np.inf], "must be finite, got 1 infinite of 2"),
        ([0.0, 0.0], "must not all be zero"),
        ([-1.0], "must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            effective_sample_size(wrong)


def test_pulls_of_a_calibrated_posterior_are_standard_gaussian() -> None:
    # p_generated of each event is off by 5 %, which the draws know; w = p_truth / mean density.
    rng = np.random.default_rng(8)
    n_events, n_draws, relative = 5000, 400, 0.05
    truth = rng.uniform(0.5, 2.0, n_events)
    centre = truth * (1 + relative * rng.normal(size=n_events))
    draws = centre * (1 + relative * rng.normal(size=(n_draws, n_events)))
    pulls = weight_pulls(truth / centre, np.log(draws))
    assert pulls.shape == (n_events,)
    # Standard errors 0.014 and 0.010; 4.5 of them, and 0.01 for second order in 5 %.
    assert abs(pulls.mean()) < 0.073 + 0.01
    assert pulls.std() == pytest.approx(1.0, abs=0.045 + 0.01)
    # Against one draw instead of the mean, that draw's deviation adds: sqrt(2).
    of_one = weight_pulls(truth / draws[0], np.log(draws[1:]))
    assert of_one.std() == pytest.approx(np.sqrt(2), abs=0.064 + 0.02)
    # Densities far from one neither overflow nor matter.
    np.testing.assert_allclose(weight_pulls(truth / centre, np.log(draws) - 900.0), pulls)


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (np.zeros((2, 3)), r"`log_prob` must have shape \(n_draws, 2\) .* got \(2, 3\)"),
        (np.zeros((1, 2)), r"with at least two draws, got \(1, 2\)"),
        (np.array([[0.0, np.nan], [1.0, 1.0]]), "`log_prob` must be finite"),
        (np.zeros((3, 2)), "`log_prob` must differ between draws, got 2 events"),
    ],
)
def test_wrong_draws_are_refused(log_prob: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weight_pulls([1.0, 1.0], log_prob)


def sample_with_tail(rng: np.random.Generator, n_events: int = 5000) -> dict[str, np.ndarray]:
    mass = rng.exponential(size=n_events)
    return {
        "eta": rng.normal(size=n_events),
        "multiplicity": rng.poisson(20 + 3 * mass).astype(float),
        "mass": mass,
    }


def test_the_observable_behind_a_slice_is_ranked_first() -> None:
    rng = np.random.default_rng(9)
    events = sample_with_tail(rng)
    ranks = rank_observables(events, np.flatnonzero(events["mass"] > 2.5))
    assert [one.name for one in ranks] == ["mass", "multiplicity", "eta"]
    mass, _, eta = ranks
    assert mass.distance == 1.0
    assert mass.significance > 20
    assert mass.median_inside > 2.5 > mass.median_outside
    assert eta.significance < 4
    assert json.loads(json.dumps(mass.to_dict()))["name"] == "mass"


def test_random_slices_are_significant_as_rarely_as_claimed() -> None:
    # "Two sigma" after the correction: at most 2.28 %, for three observables together. 1000
    # slices: standard error 0.47 %.
    rng = np.random.default_rng(10)
    events = sample_with_tail(rng, 2000)
    best = [
        max(
            one.significance
            for one in rank_observables(events, rng.choice(2000, size=100, replace=False))
        )
        for _ in range(1000)
    ]
    assert np.mean(np.array(best) > 2) < 0.0228 + 4.5 * 0.0047


def test_significances_beyond_floating_point_are_still_ordered() -> None:
    n = 200_000
    x = np.arange(n, dtype=float)
    near = x + 5000 * np.sin(x)
    ranks = rank_observables({"near": near, "exact": x}, np.arange(n // 2))
    assert [one.name for one in ranks] == ["exact", "near"]
    assert all(math.isfinite(one.significance) and one.significance > 100 for one in ranks)


@pytest.mark.parametrize(
    ("observables", "indices", "message"),
    [
        ({}, [0], "`observables` must hold at least one"),
        ({"a": [1.0, 2.0], "b": [1.0]}, [0], r"got shape \(1,\) for b beside 2 events"),
        ({"a": [1.0, math.nan]}, [0], "`observables` must be finite, got NaN or infinity in a"),
        ({"a": [1.0, 2.0]}, [2], r"`indices` must be in 0 \.\.\. 1, got 2 to 2"),
        ({"a": [1.0, 2.0]}, [-1], r"`indices` must be in 0 \.\.\. 1, got -1 to -1"),
        ({"a": [1.0, 2.0, 3.0]}, [1, 1], "`indices` must name each event once"),
        ({"a": [1.0, 2.0]}, [], "`indices` must name some but not all events, got 0 of 2"),
        ({"a": [1.0, 2.0]}, [0, 1], "`indices` must name some but not all events, got 2 of 2"),
        ({"a": [1.0, 2.0]}, [0.5], "`indices` must be whole numbers"),
    ],
)
def test_wrong_input_to_the_ranking_is_refused(
    observables: dict, indices: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_observables(observables, indices)
