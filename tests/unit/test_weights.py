"""Weights, AUC and slices against definitions, against scikit-learn, and with bad input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from genamp_lib.diagnostics import (
    auc_from_weights,
    auc_interval,
    binomial_interval,
    likelihood_ratio_weights,
    roc_curve,
    weight_slices,
)

# Few distinct values, so that ties within and between the samples are common; both ends included.
WEIGHTS = st.lists(
    st.sampled_from([0.0, 1e-300, 0.5, 0.9, 1.0, 1.0 + 2**-52, 2.0, 1e300, math.inf]),
    min_size=1,
    max_size=40,
)


def by_definition(truth, generated):
    """Eq. (6) of paper B, with half for ties."""
    t, g = np.asarray(truth)[:, None], np.asarray(generated)[None, :]
    return ((t > g) + 0.5 * (t == g)).mean()


class TestLikelihoodRatioWeights:
    def test_is_c_over_one_minus_c(self):
        logits = np.linspace(-20.0, 20.0, 101)
        c = 1.0 / (1.0 + np.exp(-logits))
        np.testing.assert_allclose(likelihood_ratio_weights(logits), c / (1.0 - c), rtol=1e-6)

    def test_float32_logits_do_not_overflow_early(self):
        weights = likelihood_ratio_weights(np.array([89.0, -104.0], dtype=np.float32))
        assert weights.dtype == np.float64
        np.testing.assert_allclose(weights, [math.exp(89.0), math.exp(-104.0)])

    def test_ends_are_infinity_and_zero(self):
        weights = likelihood_ratio_weights([709.0, 710.0, math.inf, -746.0, -math.inf])
        assert weights.tolist() == [math.exp(709.0), math.inf, math.inf, 0.0, 0.0]

    def test_keeps_the_shape(self):
        assert likelihood_ratio_weights(np.zeros((3, 2))).shape == (3, 2)

    def test_nan(self):
        with pytest.raises(ValueError, match="`logits` must be numbers, got 1 NaN of 2"):
            likelihood_ratio_weights([0.0, math.nan])


class TestAuc:
    @settings(max_examples=400, deadline=None)
    @given(WEIGHTS, WEIGHTS)
    def test_is_the_definition(self, truth, generated):
        assert auc_from_weights(truth, generated) == pytest.approx(
            by_definition(truth, generated), abs=1e-14
        )

    @pytest.mark.parametrize("seed", range(200))
    def test_equals_scikit_learn(self, seed):
        rng = np.random.default_rng(seed)
        n_truth, n_generated = rng.integers(1, 400, size=2)
        decimals = int(rng.integers(0, 4))  # 0: nearly everything is tied
        truth = rng.gamma(2.0, 1.0, n_truth).round(decimals)
        generated = rng.gamma(2.0, 0.9, n_generated).round(decimals)
        truth[rng.random(n_truth) < 0.1] = math.inf
        labels = np.r_[np.ones(n_truth), np.zeros(n_generated)]
        # scikit-learn takes no infinities: a larger finite number has the same order.
        scores = np.nan_to_num(np.r_[truth, generated], posinf=1e9)
        expected = roc_auc_score(labels, scores)
        assert abs(auc_from_weights(truth, generated) - expected) < 1e-12

    def test_removed_tail_in_closed_form(self):
        # Neyman-Pearson weights of the tail cut: infinite for the removed fraction, else equal.
        truth, generated = np.full(1000, 0.99), np.full(777, 0.99)
        truth[:10] = math.inf
        assert auc_from_weights(truth, generated) == (1 + 0.01) / 2

    def test_swapped_samples(self):
        rng = np.random.default_rng(1)
        a, b = rng.random(50), rng.random(70)
        assert auc_from_weights(a, b) + auc_from_weights(b, a) == pytest.approx(1.0, abs=1e-15)

    def test_depends_on_the_order_only(self):
        rng = np.random.default_rng(2)
        a, b = rng.random(50), rng.random(70)
        assert auc_from_weights(a, b) == auc_from_weights(a**3, b**3)


class TestAucInterval:
    def test_is_delong(self):
        rng = np.random.default_rng(3)
        truth, generated = rng.normal(1.2, 1, 40).clip(0).round(1), rng.random(30).round(1)
        pairs = np.sign(truth[:, None] - generated[None, :]) / 2 + 0.5
        variance = pairs.mean(1).var(ddof=1) / 40 + pairs.mean(0).var(ddof=1) / 30
        half = 1.0000217 * math.sqrt(variance)  # the 68.27 % quantile of the normal distribution
        expected = (pairs.mean() - half, pairs.mean() + half)
        assert auc_interval(truth, generated) == pytest.approx(expected, abs=1e-6)

    def test_cross_fitted_doubles_the_variance(self):
        rng = np.random.default_rng(4)
        truth, generated = rng.random(60), rng.random(50)
        plain = np.diff(auc_interval(truth, generated))
        wide = np.diff(auc_interval(truth, generated, cross_fitted=True))
        assert wide / plain == pytest.approx(math.sqrt(2.0))

    @pytest.mark.parametrize("cross_fitted", [False, True])
    def test_separated_samples_keep_an_error(self, cross_fitted):
        low, high = auc_interval(
            np.arange(10.0) + 20, np.arange(30.0) / 3, cross_fitted=cross_fitted
        )
        n_pairs = 5 if cross_fitted else 10
        assert high == 1.0
        # All of n independent pairs in order has probability low^n = (1 - confidence) / 2.
        assert low**n_pairs == pytest.approx((1 - 0.6827) / 2)
        assert auc_interval(
            np.arange(30.0) / 3, np.arange(10.0) + 20, cross_fitted=cross_fitted
        ) == (
            0.0,
            pytest.approx(1.0 - low),
        )

    def test_weights_that_say_nothing(self):
        assert auc_interval(np.ones(5), np.ones(4)) == (0.5, 0.5)

    def test_stays_within_0_and_1(self):
        low, high = auc_interval([2.0, 3.0, 9.0], [0.1, 2.0, 0.2], confidence=0.9999)
        assert low >= 0.0
        assert high == 1.0

    def test_one_event(self):
        with pytest.raises(ValueError, match="`generated` must have at least 2 weights"):
            auc_interval([1.0, 2.0], [1.0])

    @pytest.mark.parametrize("confidence", [0.0, 1.0, -1, math.nan])
    def test_confidence(self, confidence):
        with pytest.raises(ValueError, match="`confidence` must be between 0 and 1"):
            auc_interval([1.0, 2.0], [1.0, 2.0], confidence=confidence)


class TestRocCurve:
    @settings(max_examples=200, deadline=None)
    @given(WEIGHTS, WEIGHTS)
    def test_area_is_the_auc(self, truth, generated):
        truth_passing, generated_passing = roc_curve(truth, generated)
        assert truth_passing[0] == generated_passing[0] == 0.0
        assert truth_passing[-1] == generated_passing[-1] == 1.0
        area = np.trapezoid(truth_passing, generated_passing)
        assert area == pytest.approx(auc_from_weights(truth, generated), abs=1e-12)

    def test_equals_scikit_learn(self):
        rng = np.random.default_rng(5)
        truth, generated = rng.random(300).round(2), rng.random(200).round(2) ** 2
        labels = np.r_[np.ones(300), np.zeros(200)]
        scores = np.r_[truth, generated]
        expected = sklearn_roc_curve(labels, scores, drop_intermediate=False)
        truth_passing, generated_passing = roc_curve(truth, generated)
        np.testing.assert_allclose(generated_passing, expected[0], atol=1e-15)
        np.testing.assert_allclose(truth_passing, expected[1], atol=1e-15)


class TestWeightSlices:
    truth = np.array([0.2, 0.9, 1.0, 1.0, 4.0, math.inf])
    generated = np.array([0.0, 0.3, 0.9, 1.0])

    def test_by_edges(self):
        small, large = weight_slices(self.truth, self.generated, small=0.3, large=4.0)
        assert (small.sample, small.low, small.high) == ("generated", 0.0, 0.3)
        assert small.indices.tolist() == [0, 1]
        assert (small.n_truth, small.n_generated, small.fraction) == (1, 2, 0.5)
        assert (large.sample, large.low, large.high) == ("truth", 4.0, math.inf)
        assert large.indices.tolist() == [4, 5]
        assert (large.n_truth, large.n_generated, large.fraction) == (2, 0, 1 / 3)

    def test_by_number(self):
        small, large = weight_slices(self.truth, self.generated, n_small=1, n_large=2)
        assert small.indices.tolist() == [0]
        assert large.indices.tolist() == [4, 5]

    def test_ties_at_the_edge_are_inside(self):
        _, large = weight_slices(self.truth, self.generated, n_small=1, n_large=3)
        assert large.low == 1.0
        assert large.n_truth == 4
        assert large.n_generated == 1

    def test_excess_is_hypergeometric(self):
        rng = np.random.default_rng(6)
        _, large = weight_slices(rng.random(500) + 0.2, rng.random(300), n_small=1, n_large=40)
        n_slice = large.n_truth + large.n_generated
        draws = rng.hypergeometric(500, 300, n_slice, size=400_000)
        expected = (large.n_truth - draws.mean()) / draws.std()
        assert large.significance() == pytest.approx(expected, rel=0.02)
        assert large.significance(cross_fitted=True) == pytest.approx(
            large.significance() / math.sqrt(2.0)
        )

    def test_significance_of_generated_events_at_small_weights(self):
        small, _ = weight_slices(np.arange(50.0) + 10, np.arange(50.0), n_small=10, n_large=1)
        assert small.significance() > 3.0

    def test_excess_needs_a_part_of_the_events(self):
        _, large = weight_slices(self.truth, self.generated, small=0.0, large=0.0)
        with pytest.raises(ValueError, match="some but not all events, got 10 of 10"):
            large.significance()

    def test_to_dict_is_plain(self):
        small, _ = weight_slices(self.truth, self.generated, small=0.3, large=4.0)
        assert json.loads(json.dumps(small.to_dict()))["n_generated"] == 2

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"large": 2.0}, "exactly one of `small` and `n_small` must be given, got neither"),
            (
                {"small": 1.0, "n_small": 1, "large": 2.0},
                "exactly one of `small` and `n_small` must be given, got both",
            ),
            ({"small": 1.0}, "exactly one of `large` and `n_large` must be given, got neither"),
            ({"small": -1.0, "large": 2.0}, "`small` must be a weight, not negative, got -1.0"),
            ({"small": math.nan, "large": 2.0}, "`small` must be a weight, not negative, got nan"),
            ({"n_small": 5, "large": 2.0}, "`n_small` must be in 1 ... 4, got 5"),
            ({"n_small": 1, "n_large": 0}, "`n_large` must be in 1 ... 6, got 0"),
        ],
    )
    def test_choice_of_the_slice(self, choice, message):
        with pytest.raises(ValueError, match=message):
            weight_slices(self.truth, self.generated, **choice)


@pytest.mark.parametrize(
    "function",
    [
        auc_from_weights,
        auc_interval,
        roc_curve,
        lambda truth, generated: weight_slices(truth, generated, small=1.0, large=1.0),
    ],
)
class TestBadWeights:
    def test_empty(self, function):
        with pytest.raises(ValueError, match=r"`truth` must be 1D .* got shape \(0,\)"):
            function([], [1.0, 2.0])

    def test_two_dimensions(self, function):
        with pytest.raises(ValueError, match=r"`generated` must be 1D .* got shape \(2, 1\)"):
            function([1.0, 2.0], [[1.0], [2.0]])

    def test_nan(self, function):
        with pytest.raises(ValueError, match="`generated` must be numbers, got 1 NaN of 2"):
            function([1.0, 2.0], [1.0, math.nan])

    def test_negative(self, function):
        with pytest.raises(ValueError, match=r"`truth` must not be negative, got -0\.5"):
            function([1.0, -0.5], [1.0, 2.0])


class TestBinomialInterval:
    def test_wilson_in_closed_form(self):
        z = 1.0000217
        centre = (9 / 10 + z**2 / 20) / (1 + z**2 / 10)
        half = z / (1 + z**2 / 10) * math.sqrt(0.9 * 0.1 / 10 + z**2 / 400)
        assert binomial_interval(9, 10) == pytest.approx((centre - half, centre + half), abs=1e-5)

    def test_ends(self):
        assert binomial_interval(0, 10)[0] == 0.0
        assert binomial_interval(10, 10)[1] == 1.0

    @pytest.mark.parametrize(("count", "total"), [(1, 0), (-1, 3), (4, 3)])
    def test_counts(self, count, total):
        with pytest.raises(ValueError, match=r"`count` must be in 0 \.\.\. `total` > 0"):
            binomial_interval(count, total)
