"""Where events come from: closed forms and shipped samples. Not for generating them: simulation."""

from genamp_lib.datasets.gaussian import (
    interval_probability,
    interval_probability_slope,
    mean_squared_deviation,
    model_variance,
    true_amplification,
)
from genamp_lib.datasets.jet_observables import (
    JET_OBSERVABLES,
    disjoint_pools,
    observables_from_particles,
    tail_cut,
)
from genamp_lib.datasets.jets import Jets, load_jets, relative_mass
from genamp_lib.datasets.rings import Ring, radius
from genamp_lib.datasets.samples import (
    Sample,
    list_samples,
    sample_checksum,
    sample_path,
    verify_sample,
)

__all__ = [
    "JET_OBSERVABLES",
    "Jets",
    "Ring",
    "Sample",
    "disjoint_pools",
    "interval_probability",
    "interval_probability_slope",
    "list_samples",
    "load_jets",
    "mean_squared_deviation",
    "model_variance",
    "observables_from_particles",
    "radius",
    "relative_mass",
    "sample_checksum",
    "sample_path",
    "tail_cut",
    "true_amplification",
    "verify_sample",
]
