"""Paper A's estimators: counts and scores in, amplification out (numpy and scipy only)."""

from genamp_lib.amplification.averaging import (
    averaging_amplification,
    averaging_amplification_from_probabilities,
    averaging_intervals,
)
from genamp_lib.amplification.averaging_estimate import AveragingEstimate
from genamp_lib.amplification.differential import differential_amplification, differential_intervals
from genamp_lib.amplification.differential_estimate import (
    CramerVonMisesEstimate,
    DifferentialEstimate,
)
from genamp_lib.amplification.kolmogorov import (
    KOLMOGOROV_MEAN,
    kolmogorov_band,
    kolmogorov_mean,
    paper_band,
)
from genamp_lib.amplification.repeats import RepeatCounter, RepeatedEvents, repeated_events
from genamp_lib.amplification.streaming import (
    KolmogorovAccumulator,
    RegionCounter,
    alarm_regions,
    quantile_regions,
)
from genamp_lib.amplification.truth import TrueAmplification, true_averaging_amplification
from genamp_lib.amplification.variation import TotalVariationEstimate, total_variation_amplification
