"""What the averaging estimators return. Not for computing it: averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._json import plain

# Three sigma, one-sided: less spread than this is no fluctuation of independent counts.
BELOW_NOISE = 0.00135
# Three sigma, two-sided: more distance to the training sample than this is a bias.
CONTRADICTED = 0.0027
# Only a note hangs on it, so one false alarm in a hundred is cheap.
NOT_GAUSSIAN = 0.01


@dataclass(frozen=True, repr=False)
class AveragingEstimate:
    """An averaging amplification factor with its confidence interval.

    Attributes:
        amplification: G of Eq. (4); infinite where the spread is within counting noise.
        interval: (low, high) of G at `confidence`; high may be infinite.
        confidence: Confidence level of `interval`.
        n_train: Number of training events.
        n_generated: Generated events per member; infinite for exact probabilities.
        n_members: Number of members, m.
        integrals: <I> of Eq. (14) for each region.
        event_variance: Sum over regions of <I>(1 - <I>), that is n sigma_stat^2(n) of Eq. (16).
        total_variance: M_I of Eq. (15), summed over regions as in Eq. (19), divisor m - 1.
        degrees_of_freedom: Effective degrees of freedom of `total_variance`; m - 1 for one region.
        noise_p_value: Probability of a spread as small as this one from counting noise alone.
        normality_p_value: Smallest Shapiro-Wilk p-value of the members' integrals, times the number
            of regions; 1 where it cannot be seen for counting noise or members are fewer than 3.
        train_integrals: Fractions of the training sample in the regions; empty if not given.
        bias_p_value: Smallest probability of the training sample's count in a region if the members
            are right up to their spread, times the number of regions; None without the counts.
        regions: One estimate for each region, in order; empty for an estimate of one region
            inside this tuple.
    """

    amplification: float
    interval: tuple[float, float]
    confidence: float
    n_train: int
    n_generated: float
    n_members: int
    integrals: tuple[float, ...]
    event_variance: float
    total_variance: float
    degrees_of_freedom: float
    noise_p_value: float
    normality_p_value: float
    train_integrals: tuple[float, ...] = ()
    bias_p_value: float | None = None
    regions: tuple[AveragingEstimate, ...] = ()

    @property
    def n_equiv(self) -> float:
        """Number of true events that are worth as much as infinitely many generated ones."""
        return self.amplification * self.n_train

    @property
    def model_variance(self) -> float:
        """sigma_model^2 of Eq. (17); negative where the spread is below the counting noise."""
        return self.total_variance - self.event_variance / self.n_generated

    @property
    def sigma_model(self) -> float:
        """sigma_model of Eq. (17), 0 where the subtraction is negative."""
        return math.sqrt(max(self.model_variance, 0.0))

    @property
    def contradicted(self) -> bool:
        """Whether the training sample excludes the members' mean, at three standard deviations.

        Then all members are off in the same way, which their spread cannot show. The opposite does
        not hold: the training sample is blind to a bias below its own statistical error, and that
        is more than an amplifying generator may have.
        """
        return self.bias_p_value is not None and self.bias_p_value < CONTRADICTED

    @property
    def status(self) -> str:
        """How much the spread of the members says.

        "measured": the interval is finite. "lower limit": the spread may be counting noise alone.
        "below noise": it is smaller than independent counts allow (three standard deviations).
        "identical members": there is no spread at all. "contradicted": the training sample
        excludes the members' mean (`contradicted`).
        """
        if self.total_variance == 0:
            return "identical members"
        if self.noise_p_value < BELOW_NOISE:
            return "below noise"
        if self.contradicted:
            return "contradicted"
        return "measured" if math.isfinite(self.interval[1]) else "lower limit"

    @property
    def note(self) -> str:
        """What to keep in mind; empty if nothing."""
        notes = {
            "measured": "",
            "contradicted": "",
            "lower limit": "the spread may be counting noise: generate more events per member",
            "below noise": "the members agree better than independent counts can: check that "
            "each has its own random numbers and that n_generated is right",
            "identical members": "all members are the same: check that they were trained apart",
        }
        candidates = (
            (True, notes[self.status]),
            (
                self.contradicted,
                "the members' mean contradicts the training sample: they share a bias, which "
                "their spread does not show",
            ),
            (
                self.normality_p_value < NOT_GAUSSIAN,
                "the members' integrals are not Gaussian, as where a fit cannot change an integral "
                "in one direction: the interval may be too short",
            ),
        )
        return "; ".join(note for applies, note in candidates if applies and note)

    @property
    def verdict(self) -> str:
        """Say "amplifies" or "does not amplify" where the interval leaves out 1.

        Otherwise "undecided"; also where the members are no independent ones (`status`), and where
        they agree on what the training sample contradicts.
        """
        low, high = self.interval
        if self.status in ("below noise", "identical members") or low <= 1 <= high:
            return "undecided"
        if low > 1:
            return "undecided" if self.contradicted else "amplifies"
        return "does not amplify"

    def sigma_stat(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the statistical uncertainty of n events, the root of Eq. (16)."""
        return np.sqrt(self.event_variance / np.asarray(n, dtype=np.float64))

    def sigma_total(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the root of M_I for n generated events, Eq. (11)."""
        return np.hypot(self.sigma_stat(n), self.sigma_model)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; infinity is the string "inf"."""
        content: dict[str, Any] = {
            "amplification": plain(self.amplification),
            "interval": [plain(edge) for edge in self.interval],
            "confidence": self.confidence,
            "verdict": self.verdict,
            "status": self.status,
            "note": self.note,
            "n_equiv": plain(self.n_equiv),
            "n_train": self.n_train,
            "n_generated": plain(self.n_generated),
            "n_members": self.n_members,
            "integrals": list(self.integrals),
            "sigma_model": self.sigma_model,
            "event_variance": self.event_variance,
            "total_variance": self.total_variance,
            "degrees_of_freedom": self.degrees_of_freedom,
            "noise_p_value": self.noise_p_value,
            "normality_p_value": self.normality_p_value,
            "train_integrals": list(self.train_integrals),
            "bias_p_value": self.bias_p_value,
        }
        if self.regions:
            content["regions"] = [region.to_dict() for region in self.regions]
        return content

    def __repr__(self) -> str:
        low, high = self.interval
        n_regions = len(self.integrals)
        note = f";\n {self.note}" if self.note else ""
        events = "exact" if math.isinf(self.n_generated) else f"n_generated={self.n_generated:g}"
        return (
            f"<AveragingEstimate G = {self.amplification:.3g} [{low:.3g}, {high:.3g}] at "
            f"{100 * self.confidence:g} %, {self.verdict};\n {n_regions} region"
            f"{'s' * (n_regions != 1)}, {self.n_members} members, {events}, n_train={self.n_train}"
            f"{note}>"
        )
