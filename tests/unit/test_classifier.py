"""The classifier, its training, and what is kept of it."""

import dataclasses

import numpy as np
import pytest
import torch

from genamp_lib._project import GenampError
from genamp_lib.diagnostics import auc_from_weights
from genamp_lib.networks.classifier import (
    Classifier,
    ClassifierSettings,
    RawClassifierSettings,
    classifier_from_arrays,
    classifier_to_arrays,
    ensemble_logits,
    fit_classifier,
)
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.store import ArtefactStore, Stage, read_artefact

QUICK = ClassifierSettings(n_layers=2, n_hidden=8, n_epochs=2, batch_size=64)


def gaussians(seed, shift=1.0, n_truth=400, n_generated=300, n_features=2):
    """Truth events N(shift, 1) and generated events N(0, 1) in the first of the features."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n_truth, n_features))
    truth[:, 0] += shift
    return truth, rng.normal(size=(n_generated, n_features))


def fit(truth, generated, settings=QUICK, seed=1, validation=None):
    checks = gaussians(99) if validation is None else validation
    return fit_classifier((truth, generated), checks, settings=settings, seed=seed)


class TestClassifier:
    def test_layers_are_those_of_tab_1(self):
        classifier = Classifier(508, ClassifierSettings(n_hidden=512))
        sizes = [tuple(p.shape) for p in classifier.parameters() if p.ndim == 2]
        assert sizes == [(512, 508), (512, 512), (512, 512), (1, 512)]
        kinds = [type(layer).__name__ for layer in classifier.network]
        assert kinds == ["Linear", "LeakyReLU", "Dropout"] * 3 + ["Linear"]
        assert all(layer.p == 0.1 for layer in classifier.network[2::3])

    def test_gradients_reach_every_parameter(self):
        torch.manual_seed(0)
        classifier = Classifier(4, ClassifierSettings(n_hidden=16, dropout=0.0))
        classifier(torch.randn(50, 4)).square().sum().backward()
        for name, parameter in classifier.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0.0, name

    def test_units_of_the_features_do_not_matter(self):
        truth, generated = gaussians(1)
        scale, shift = np.array([1e4, 1e-3]), np.array([3e4, 0.1])
        first = fit(truth, generated, settings=QUICK, validation=(truth, generated))
        other = fit(
            truth * scale + shift,
            generated * scale + shift,
            settings=QUICK,
            validation=(truth * scale + shift, generated * scale + shift),
        )
        np.testing.assert_allclose(first.validation_loss, other.validation_loss, rtol=1e-3)


class TestSettings:
    @pytest.mark.parametrize(
        "field", ["n_layers", "n_hidden", "n_epochs", "batch_size", "patience"]
    )
    def test_counts(self, field):
        with pytest.raises(ValueError, match=f"`{field}` must be positive, got 0"):
            ClassifierSettings(**{field: 0})

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("dropout", -0.1, r"`dropout` must be in \[0, 1\)"),
            ("learning_rate", 0.0, "`learning_rate` must be positive"),
            ("decay_factor", 1.0, "`decay_factor` must be between 0 and 1"),
        ],
    )
    def test_numbers(self, field, value, message):
        with pytest.raises(ValueError, match=message):
            ClassifierSettings(**{field: value})


class TestFit:
    def test_same_seed_same_numbers_whatever_torch_did_before(self):
        events = gaussians(1)
        first = fit(*events)
        torch.rand(17)
        second = fit(*events)
        for name, array in classifier_to_arrays(first).items():
            np.testing.assert_array_equal(array, classifier_to_arrays(second)[name])
        assert not np.array_equal(first.train_loss, fit(*events, seed=2).train_loss)

    def test_learns_the_log_likelihood_ratio(self):
        # N(1, 1) against N(0, 1): the logit is x - 1/2, whatever the sizes of the classes.
        settings = ClassifierSettings(n_layers=2, n_hidden=32, n_epochs=15, batch_size=500)
        truth, generated = gaussians(2, n_truth=20_000, n_generated=5_000, n_features=1)
        validation = gaussians(3, n_truth=5_000, n_generated=5_000, n_features=1)
        result = fit(truth, generated, settings=settings, validation=validation)
        x = np.linspace(-1.5, 2.5, 30)[:, None]
        np.testing.assert_allclose(
            ensemble_logits([result.classifier], x), x[:, 0] - 0.5, atol=0.25
        )
        # Unbalanced classes without balanced weights would shift it by log 4 = 1.39.

    def test_keeps_the_best_validation_epoch(self):
        # Few events and no dropout: the network overfits after some epochs.
        settings = ClassifierSettings(n_hidden=64, n_epochs=40, batch_size=20, dropout=0.0)
        truth, generated = gaussians(4, shift=0.3, n_truth=60, n_generated=60)
        validation = gaussians(5, shift=0.3, n_truth=500, n_generated=400)
        result = fit(truth, generated, settings=settings, validation=validation)
        assert result.validation_loss.argmin() < 39
        losses = [
            np.logaddexp(0.0, sign * ensemble_logits([result.classifier], events)).mean()
            for sign, events in zip((-1.0, 1.0), validation, strict=True)
        ]
        assert np.mean(losses) == pytest.approx(result.validation_loss.min(), rel=1e-5)
        assert np.mean(losses) < result.validation_loss[-1]

    def test_dropout_acts_in_training_and_not_in_validation(self):
        # The validation events are the training events: only dropout makes the losses differ.
        truth, generated = gaussians(1, shift=2.0)
        settings = dataclasses.replace(QUICK, n_hidden=32, n_epochs=12, dropout=0.8)
        result = fit(truth, generated, settings=settings, validation=(truth, generated))
        assert result.train_loss[-1] > result.validation_loss[-1] + 0.03

    def test_learning_rate_falls_when_the_validation_loss_does_not(self):
        # The validation classes are swapped: their loss rises from the second epoch on at the
        # latest, so that with a patience of 2 the fifth epoch is the first that may differ.
        truth, generated = gaussians(1)
        slow, fast = (
            fit(
                truth,
                generated,
                settings=dataclasses.replace(QUICK, n_epochs=20, patience=2, decay_factor=factor),
                validation=(generated, truth),
            )
            for factor in (0.1, 0.999)
        )
        np.testing.assert_array_equal(slow.train_loss[:4], fast.train_loss[:4])
        assert slow.train_loss[-1] > fast.train_loss[-1] + 0.01

    def test_perfect_separation_stays_finite(self):
        truth, generated = gaussians(6, shift=100.0)
        settings = dataclasses.replace(QUICK, n_epochs=60, learning_rate=0.1)
        result = fit(truth, generated, settings=settings)
        logits = ensemble_logits([result.classifier], np.concatenate([truth, generated]))
        assert np.isfinite(logits).all()
        assert auc_from_weights(np.exp(logits[:400]), np.exp(logits[400:])) == 1.0

    def test_runaway_loss(self):
        with pytest.raises(GenampError, match=r"loss must be finite, .* lower `learning_rate`"):
            fit(*gaussians(1), settings=dataclasses.replace(QUICK, learning_rate=1e30, n_epochs=9))

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda t, g: (t[:, 0], g), r"`truth` must be \(n_events, n_features\), got shape \(4"),
            (lambda t, g: (t, g[:0]), r"`generated` must be .* got shape \(0, 2\)"),
            (lambda t, g: (t, g[:, :1]), "`generated` must have 2 features as `truth`, got 1"),
            (
                lambda t, g: (t[:, :1], g[:, :1]),
                "`validation_truth` must have 1 features as `truth`, got 2",
            ),
            (
                lambda t, g: (np.where(t > 2, np.nan, t), g),
                r"`truth` must be finite, got NaN or infinity in column\(s\) \[0, 1\]",
            ),
            (lambda t, g: (t * [1, 0], g * [1, 0]), r"must vary, .* column\(s\) \[1\]"),
        ],
    )
    def test_bad_events(self, spoil, message):
        with pytest.raises(ValueError, match=message):
            fit(*spoil(*gaussians(1)))


class TestEnsemble:
    def test_is_the_mean_output(self):
        members = [fit(*gaussians(1), seed=seed).classifier for seed in (1, 2, 3)]
        features = gaussians(7)[0]
        outputs = [1 / (1 + np.exp(-ensemble_logits([member], features))) for member in members]
        mean = np.mean(outputs, axis=0)
        np.testing.assert_allclose(
            ensemble_logits(members, features), np.log(mean / (1 - mean)), atol=1e-5
        )

    def test_large_logits_survive(self):
        classifier = Classifier(1, ClassifierSettings(n_layers=1, n_hidden=2))
        for parameter in classifier.parameters():
            torch.nn.init.constant_(parameter, 0.0)
        classifier.network[-1].bias.data.fill_(300.0)
        logits = ensemble_logits([classifier, classifier], np.zeros((2, 1)))
        np.testing.assert_allclose(logits, [300.0, 300.0])


class TestArrays:
    def test_round_trip_through_safetensors_gives_identical_logits(self, tmp_path):
        store = ArtefactStore(published=tmp_path / "published", local=tmp_path / "local")
        stage = Stage("test", version=1, configuration={})
        result = fit(*gaussians(1))
        store.compute(stage, classifier_to_arrays, result)
        arrays = read_artefact(tmp_path / "local" / f"test-{stage.key}.safetensors", stage)
        again = classifier_from_arrays(arrays, QUICK)
        features = gaussians(8)[0]
        np.testing.assert_array_equal(
            ensemble_logits([result.classifier], features),
            ensemble_logits([again.classifier], features),
        )
        np.testing.assert_array_equal(result.validation_loss, again.validation_loss)

    def test_other_settings(self):
        arrays = classifier_to_arrays(fit(*gaussians(1)))
        with pytest.raises(GenampError, match=r"stored classifier: must have the arrays of .*=3"):
            classifier_from_arrays(arrays, dataclasses.replace(QUICK, n_layers=3))

    def test_missing_array(self):
        arrays = classifier_to_arrays(fit(*gaussians(1)))
        del arrays["feature_mean"]
        with pytest.raises(GenampError, match="got 'feature_mean'; rerun with --fresh"):
            classifier_from_arrays(arrays, QUICK)


class TestRawFeatures:
    RAW = RawClassifierSettings(**dataclasses.asdict(QUICK))

    def test_are_not_standardised_and_may_be_constant(self):
        truth, generated = (x * [1, 0] + [0, 3] for x in gaussians(1))
        settings = dataclasses.replace(self.RAW, learning_rate=0.02, n_epochs=5)
        classifier = fit(truth, generated, settings=settings).classifier
        events = torch.as_tensor(truth, dtype=torch.float32)
        assert torch.equal(classifier(events), classifier.network(events).squeeze(-1))
        logits = [ensemble_logits([classifier], x) for x in (truth, generated)]
        assert logits[0].mean() > logits[1].mean()

    def test_keep_their_classifiers_apart(self, tmp_path):
        store = ArtefactStore(published=tmp_path / "a", local=tmp_path / "b", fresh=False)
        samples = [x * [1, 0] for x in gaussians(1)]
        options = {"settings": self.RAW, "seed": 1, "n_folds": 3, "store": store}
        options["stage"] = Stage("test-raw", version=1, configuration={})
        made, read = (cross_fitted_logits(*samples, **options) for _ in range(2))
        assert [use["origin"] for use in store.used] == ["computed"] * 3 + ["local"] * 3
        np.testing.assert_array_equal(made.truth, read.truth)
        with pytest.raises(GenampError, match="was trained on other events"):
            cross_fitted_logits(*[x + 1 for x in samples], **options)
        # Keys of standardised ones are those of before there was a choice.
        assert "standardised" not in dataclasses.asdict(QUICK)
        assert dataclasses.asdict(self.RAW)["standardised"] is False
