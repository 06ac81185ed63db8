"""Paper B's weights: logits in; AUC, calibration, slices, pulls out (numpy and scipy only)."""

from genamp_lib.diagnostics.calibration import (
    WeightCalibration,
    effective_sample_size,
    weight_calibration,
    weight_pulls,
)
from genamp_lib.diagnostics.clustering import ObservableRank, rank_observables
from genamp_lib.diagnostics.slices import WeightSlice, binomial_interval, weight_slices
from genamp_lib.diagnostics.weights import (
    auc_from_weights,
    auc_interval,
    likelihood_ratio_weights,
    roc_curve,
)

__all__ = [
    "ObservableRank",
    "WeightCalibration",
    "WeightSlice",
    "auc_from_weights",
    "auc_interval",
    "binomial_interval",
    "effective_sample_size",
    "likelihood_ratio_weights",
    "rank_observables",
    "roc_curve",
    "weight_calibration",
    "weight_pulls",
    "weight_slices",
]
