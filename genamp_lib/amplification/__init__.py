"""Paper A's estimators: counts and scores in, amplification out (numpy and scipy only)."""

from genamp_lib.amplification.averaging import (
    AveragingEstimate,
    averaging_amplification,
    averaging_amplification_from_probabilities,
    averaging_intervals,
)

__all__ = [
    "AveragingEstimate",
    "averaging_amplification",
    "averaging_amplification_from_probabilities",
    "averaging_intervals",
]
