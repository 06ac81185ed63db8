"""Closure, overfitting, Fréchet distance and averaged outputs: definitions and bad input."""

import json
import math

import numpy as np
import pytest

from genamp_lib.diagnostics import (
    auc_from_weights,
    claimed_auc,
    frechet_distance,
    log_weight_width,
    mean_output_logits,
    overfitting,
    reweighting_closure,
)

EDGES = np.linspace(-3, 3, 9)


class TestClosure:
    def test_fractions_are_sums_of_weights(self):
        closure = reweighting_closure([0.5, 1.5], [0.5, 0.6, 1.5], [1.0, 2.0, 3.0], [0, 1, 2])
        np.testing.assert_allclose(closure.truth, [0.5, 0.5])
        np.testing.assert_allclose(closure.generated, [2 / 3, 1 / 3])
        np.testing.assert_allclose(closure.reweighted, [0.5, 0.5])
        assert closure.n_effective == pytest.approx(36 / 14)
        assert closure.degrees_of_freedom == 0  # fewer events than a test needs
        assert closure.p_value_after == 1.0
        assert json.loads(json.dumps(closure.to_dict()))["n_generated"] == 3

    def test_error_of_equal_weights_is_binomial(self):
        rng = np.random.default_rng(1)
        closure = reweighting_closure(
            rng.normal(size=400), rng.normal(size=500), np.full(500, 7.0), EDGES
        )
        f = closure.generated
        np.testing.assert_allclose(closure.reweighted_error, np.sqrt(f * (1 - f) / 500))
        assert closure.chi_square_after == pytest.approx(closure.chi_square_before, rel=0.05)

    def test_is_uniform_for_true_weights(self):
        """400 repetitions; Kolmogorov's distance above 0.125 has probability 7e-6."""
        rng, p_values = np.random.default_rng(2), []
        edges = [-np.inf, *EDGES[1:-1], np.inf]
        for _ in range(400):
            x, y = rng.normal(0.3, 1, 600), rng.normal(0, 1, 900)
            closure = reweighting_closure(x, y, np.exp(0.3 * y - 0.045), edges)
            p_values.append(closure.p_value_after)
        steps = np.arange(400) / 400
        assert np.abs(np.sort(p_values) - steps).max() < 0.125

    def test_wrong_weights_do_not_close(self):
        rng = np.random.default_rng(3)
        x, y = rng.normal(0.5, 1, 3000), rng.normal(0, 1, 3000)
        closure = reweighting_closure(x, y, np.exp(-0.5 * y), EDGES)
        assert closure.p_value_after < closure.p_value_before < 1e-6

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0], [1.0, 2.0], [1.0], [0, 1]), "must be 1D of one length"),
            (([math.nan], [1.0], [1.0], [0, 1]), "must be numbers, got NaN"),
            (([1.0], [1.0], [math.inf], [0, 1]), "`weights` must be finite, got 1 infinite"),
            (([1.0], [1.0], [1.0], [1, 0]), "`edges` must be at least two increasing"),
            (([1.0], [1.0], [0.0], [0, 1]), "must not all be zero"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            reweighting_closure(*arguments)


class TestOverfitting:
    def test_claim_of_true_weights_is_what_is_found(self):
        rng = np.random.default_rng(4)
        x, y = rng.normal(0.5, 1, 20_000), rng.normal(0, 1, 20_000)
        result = overfitting(np.exp(0.5 * x - 0.125), np.exp(0.5 * y - 0.125))
        assert not result.is_overfitted
        assert abs(result.significance) < 4.5  # 7e-6, but for the error of the claim
        # Phi(0.5 / sqrt 2), within 4.5 standard errors of 0.003.
        assert abs(result.auc_claimed - 0.6382) < 0.013

    def test_noise_claims_what_it_does_not_hold(self):
        rng = np.random.default_rng(5)
        noise = np.exp(rng.normal(0, 0.3, (2, 5000)))
        result = overfitting(*noise, in_sample=(noise[0] * 1.5, noise[1]))
        assert result.is_overfitted
        assert result.auc_claimed > 0.55 > result.auc_unseen
        assert result.auc_in_sample == auc_from_weights(noise[0] * 1.5, noise[1])
        assert result.to_dict()["is_overfitted"] is True

    def test_claim_by_definition(self):
        weights = np.array([0.5, 0.5, 1.0, 4.0])
        pairs = np.sign(weights[:, None] - weights) / 2 + 0.5
        expected = (weights[:, None] * pairs).sum() / (4 * weights.sum())
        assert claimed_auc(weights) == pytest.approx(expected)

    def test_ends(self):
        assert log_weight_width([0.0, 1.0, math.inf]) == math.inf
        assert math.isnan(overfitting([1.0, 2.0], [1.0, 2.0]).width_in_sample)
        with pytest.raises(ValueError, match="must be finite weights"):
            claimed_auc([1.0, math.inf])


class TestFrechet:
    def test_closed_form(self):
        rng = np.random.default_rng(6)
        x = rng.normal(size=(500, 2))
        x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), (x - x.mean(0)).T).T
        # Covariances 1 and diag(4, 9) by construction: (2 - 1)^2 + (3 - 1)^2 + the means.
        y = x * [2.0, 3.0] + [1.0, 0.0]
        assert frechet_distance(x, y) == pytest.approx(1 + 4 + 1)
        assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.parametrize(
        ("truth", "generated", "message"),
        [
            (np.zeros(3), np.zeros((3, 1)), "`truth` must be finite"),
            (np.zeros((3, 1)), np.full((3, 1), np.nan), "`generated` must be finite"),
            (np.zeros((3, 1)), np.zeros((3, 2)), "`generated` must have 1 features"),
        ],
    )
    def test_bad_input(self, truth, generated, message):
        with pytest.raises(ValueError, match=message):
            frechet_distance(truth, generated)


def test_mean_output():
    logits = np.array([[0.3, -2.0], [1.1, 4.0], [0.0, 0.5]])
    c = (1 / (1 + np.exp(-logits))).mean(axis=0)
    np.testing.assert_allclose(mean_output_logits(logits), np.log(c / (1 - c)))
    assert mean_output_logits([[-math.inf], [-math.inf]]).tolist() == [-math.inf]
    with pytest.raises(ValueError, match="with NaN"):
        mean_output_logits([[math.nan]])
