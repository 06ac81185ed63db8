"""A classifier trained for too long on two samples of one density."""

import numpy as np

from genamp_lib.diagnostics import likelihood_ratio_weights, overfitting
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.studies.ch06_jets import logits_over_epochs


def test_weights_broaden_and_the_auc_of_unseen_events_does_not_move(tmp_path):
    samples = np.random.default_rng(0).normal(size=(4, 200, 3))
    (arrays,) = logits_over_epochs(
        [samples],
        epochs=(1, 60),
        settings=ClassifierSettings(
            n_layers=2, n_hidden=32, dropout=0.0, batch_size=100, learning_rate=5e-3
        ),
        seed=1,
        store=ArtefactStore(published=tmp_path, local=tmp_path),
        stage=Stage("overfit", 1, {}),
    )
    assert arrays["validation_loss"].shape == (60,)
    assert arrays["1.unseen.0"].shape == (200,)
    early, late = (
        overfitting(
            *(likelihood_ratio_weights(arrays[f"{epoch}.unseen.{k}"]) for k in (0, 1)),
            in_sample=tuple(likelihood_ratio_weights(arrays[f"{epoch}.train.{k}"]) for k in (0, 1)),
        )
        for epoch in (1, 60)
    )
    assert late.width_unseen > 3 * early.width_unseen
    assert late.is_overfitted
    assert late.auc_in_sample > 0.7
    # Error of an AUC of 200 against 200: 0.029; five of them: 6e-7.
    assert abs(late.auc_unseen - 0.5) < 5 * 0.029
