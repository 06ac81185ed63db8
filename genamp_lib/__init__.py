"""Generative amplification and classifier weights: the public names, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Name -> module. Loading on first use keeps `import genamp_lib` and `genamp --help` fast.
_PUBLIC = {
    "AveragingEstimate": "genamp_lib.amplification",
    "averaging_amplification": "genamp_lib.amplification",
    "averaging_amplification_from_probabilities": "genamp_lib.amplification",
    "CramerVonMisesEstimate": "genamp_lib.amplification",
    "DifferentialEstimate": "genamp_lib.amplification",
    "KolmogorovAccumulator": "genamp_lib.amplification",
    "RegionCounter": "genamp_lib.amplification",
    "RepeatCounter": "genamp_lib.amplification",
    "RepeatedEvents": "genamp_lib.amplification",
    "TotalVariationEstimate": "genamp_lib.amplification",
    "TrueAmplification": "genamp_lib.amplification",
    "differential_amplification": "genamp_lib.amplification",
    "alarm_regions": "genamp_lib.amplification",
    "quantile_regions": "genamp_lib.amplification",
    "repeated_events": "genamp_lib.amplification",
    "total_variation_amplification": "genamp_lib.amplification",
    "true_averaging_amplification": "genamp_lib.amplification",
    "Closure": "genamp_lib.diagnostics",
    "Diagnosis": "genamp_lib.diagnostics",
    "Finding": "genamp_lib.diagnostics",
    "Looks": "genamp_lib.diagnostics",
    "ObservableRank": "genamp_lib.diagnostics",
    "Overfitting": "genamp_lib.diagnostics",
    "WeightCalibration": "genamp_lib.diagnostics",
    "WeightSlice": "genamp_lib.diagnostics",
    "auc_difference": "genamp_lib.diagnostics",
    "auc_from_weights": "genamp_lib.diagnostics",
    "cheap_looks": "genamp_lib.diagnostics",
    "effective_sample_size": "genamp_lib.diagnostics",
    "frechet_distance": "genamp_lib.diagnostics",
    "likelihood_ratio_weights": "genamp_lib.diagnostics",
    "overfitting": "genamp_lib.diagnostics",
    "rank_observables": "genamp_lib.diagnostics",
    "reweighting_closure": "genamp_lib.diagnostics",
    "weight_calibration": "genamp_lib.diagnostics",
    "weight_pulls": "genamp_lib.diagnostics",
    "weight_slices": "genamp_lib.diagnostics",
    "Comparison": "genamp_lib.report",
    "SampleDiagnosis": "genamp_lib.report",
    "compare": "genamp_lib.report",
    "diagnose": "genamp_lib.report",
    "Jets": "genamp_lib.datasets",
    "load_jets": "genamp_lib.datasets",
    "Events": "genamp_lib.datasets",
    "load_top_pairs": "genamp_lib.datasets",
    "load_z_jets": "genamp_lib.datasets",
    "Showers": "genamp_lib.datasets",
    "load_showers": "genamp_lib.datasets",
    "relative_mass": "genamp_lib.datasets",
}

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'genamp_lib' has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
