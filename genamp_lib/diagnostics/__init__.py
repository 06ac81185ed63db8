"""Paper B's weights: logits in; AUC, calibration, slices, pulls out (numpy and scipy only)."""

from genamp_lib.diagnostics.calibration import (
    Closure,
    WeightCalibration,
    effective_sample_size,
    reweighting_closure,
    weight_calibration,
    weight_pulls,
)
from genamp_lib.diagnostics.clustering import ObservableRank, rank_observables
from genamp_lib.diagnostics.diagnosis import Diagnosis, Finding, diagnose
from genamp_lib.diagnostics.looks import Looks, cheap_looks, normal_scores
from genamp_lib.diagnostics.overfitting import (
    Overfitting,
    claimed_auc,
    log_weight_width,
    overfitting,
)
from genamp_lib.diagnostics.slices import WeightSlice, binomial_interval, weight_slices
from genamp_lib.diagnostics.two_samples import frechet_distance
from genamp_lib.diagnostics.weights import (
    auc_difference,
    auc_from_weights,
    auc_interval,
    likelihood_ratio_weights,
    mean_output_logits,
    roc_curve,
)

__all__ = [
    "Closure",
    "Diagnosis",
    "Finding",
    "Looks",
    "ObservableRank",
    "Overfitting",
    "WeightCalibration",
    "WeightSlice",
    "auc_difference",
    "auc_from_weights",
    "auc_interval",
    "binomial_interval",
    "cheap_looks",
    "claimed_auc",
    "diagnose",
    "effective_sample_size",
    "frechet_distance",
    "likelihood_ratio_weights",
    "log_weight_width",
    "mean_output_logits",
    "normal_scores",
    "overfitting",
    "rank_observables",
    "reweighting_closure",
    "roc_curve",
    "weight_calibration",
    "weight_pulls",
    "weight_slices",
]
