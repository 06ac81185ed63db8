"""The classifier of truth against generated events; not for fitting it: training.classifier."""

from __future__ import annotations

import torch
from torch import nn

from genamp_lib.models.standardisation import mean_and_scale


class Classifier(nn.Module):
    """A multilayer perceptron from event features to one logit, as in Tab. 1 of paper B.

    Each hidden layer is linear, leaky ReLU, dropout. The features are standardised inside, by
    buffers that are part of the state, so that a stored classifier takes raw features. The logit
    is log p_truth / p_generated once the network is trained on classes of equal total weight.

    Shapes: features (n, n_features) -> logits (n,), float32.

    Args:
        n_features: Features per event.
        n_layers: Hidden layers.
        n_hidden: Nodes of each hidden layer.
        dropout: Fraction of hidden nodes that is dropped in training.

    >>> classifier = Classifier(2, n_layers=1, n_hidden=3, dropout=0.1)
    >>> classifier.set_standardisation(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> classifier(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    def __init__(self, n_features: int, *, n_layers: int, n_hidden: int, dropout: float) -> None:
        super().__init__()
        for name, value in (
            ("n_features", n_features),
            ("n_layers", n_layers),
            ("n_hidden", n_hidden),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")
        layers: list[nn.Module] = []
        width = n_features
        for _ in range(n_layers):
            layers += [nn.Linear(width, n_hidden), nn.LeakyReLU(), nn.Dropout(dropout)]
            width = n_hidden
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))

    def set_standardisation(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from training events, shape (n, n_features).

        Raises:
            ValueError: A feature is the same for all events.
        """
        mean, scale = mean_and_scale(features)
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n,), of features of shape (n, n_features)."""
        return self.network((features - self.feature_mean) / self.feature_scale).squeeze(-1)
