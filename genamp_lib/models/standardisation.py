"""Mean and scale of features, for models that standardise their inputs. Not for data sets."""

from __future__ import annotations

import torch


def mean_and_scale(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each feature, in float64.

    Args:
        features: Training events, shape (n, n_features).

    Raises:
        ValueError: A feature is the same for all events.

    >>> mean_and_scale(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))[0].tolist()
    [1.0, 3.0]
    """
    constant = torch.nonzero(features.amax(0) == features.amin(0)).flatten().tolist()
    if constant:
        raise ValueError(
            f"`features` must vary, got the same value for all events in column(s) {constant}; "
            "drop them."
        )
    # float64: a mean far from zero must not spoil the standard deviation.
    return features.double().mean(0), features.double().std(0)
