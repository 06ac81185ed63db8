"""Paper B's weights: logits in; AUC and slices out (numpy and scipy only)."""

from genamp_lib.diagnostics.slices import WeightSlice, binomial_interval, weight_slices
from genamp_lib.diagnostics.weights import (
    auc_from_weights,
    auc_interval,
    likelihood_ratio_weights,
    roc_curve,
)

__all__ = [
    "WeightSlice",
    "auc_from_weights",
    "auc_interval",
    "binomial_interval",
    "likelihood_ratio_weights",
    "roc_curve",
    "weight_slices",
]
