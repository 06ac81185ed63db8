"""Averaging amplification: how well do members agree on integrals over regions? Eqs. 9-19, paper A.

What to use when: `averaging_amplification` for counts of generated events,
`averaging_amplification_from_probabilities` where the density can be integrated exactly, and
`averaging_intervals` for many pseudo-experiments at once. Not for comparing distributions without
regions: that is differential amplification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification import _members
from genamp_lib.amplification._spread import Spread, member_spread

# Three sigma, one-sided: less spread than this is no fluctuation of independent counts.
BELOW_NOISE = 0.00135


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
    def status(self) -> str:
        """How much the spread of the members says.

        "measured": the interval is finite. "lower limit": the spread may be counting noise alone.
        "below noise": it is smaller than independent counts allow (three standard deviations).
        "identical members": there is no spread at all.
        """
        if self.total_variance == 0:
            return "identical members"
        if self.noise_p_value < BELOW_NOISE:
            return "below noise"
        return "measured" if math.isfinite(self.interval[1]) else "lower limit"

    @property
    def note(self) -> str:
        """What to do about a `status` other than "measured"; empty for that one."""
        return {
            "measured": "",
            "lower limit": "the spread may be counting noise: generate more events per member",
            "below noise": "the members agree better than independent counts can: check that "
            "each has its own random numbers and that n_generated is right",
            "identical members": "all members are the same: check that they were trained apart",
        }[self.status]

    @property
    def verdict(self) -> str:
        """Say "amplifies" or "does not amplify" where the interval leaves out 1.

        Otherwise "undecided"; also where the members are no independent ones (`status`).
        """
        low, high = self.interval
        if self.status in ("below noise", "identical members") or low <= 1 <= high:
            return "undecided"
        return "amplifies" if low > 1 else "does not amplify"

    def sigma_stat(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the statistical uncertainty of n events, the root of Eq. (16)."""
        return np.sqrt(self.event_variance / np.asarray(n, dtype=np.float64))

    def sigma_total(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the root of M_I for n generated events, Eq. (11)."""
        return np.hypot(self.sigma_stat(n), self.sigma_model)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; infinity is the string "inf"."""
        content: dict[str, Any] = {
            "amplification": _plain(self.amplification),
            "interval": [_plain(edge) for edge in self.interval],
            "confidence": self.confidence,
            "verdict": self.verdict,
            "status": self.status,
            "note": self.note,
            "n_equiv": _plain(self.n_equiv),
            "n_train": self.n_train,
            "n_generated": _plain(self.n_generated),
            "n_members": self.n_members,
            "integrals": list(self.integrals),
            "sigma_model": self.sigma_model,
            "event_variance": self.event_variance,
            "total_variance": self.total_variance,
            "degrees_of_freedom": self.degrees_of_freedom,
            "noise_p_value": self.noise_p_value,
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


def averaging_amplification(
    counts: ArrayLike, *, n_generated: int, n_train: int, confidence: float = 0.68
) -> AveragingEstimate:
    """Estimate the amplification from how members' counts in regions spread.

    Eqs. (14)-(19) of paper A. Each member is a generator trained apart (or drawn from the
    posterior of a Bayesian one) that generated n_generated events. The sample variance of their
    fractions is sigma_model^2 + sigma_stat^2(n_generated); the second is binomial and known.

    - Eq. (15) divides by m; this divides by m - 1, since the former is too small by (m - 1)/m and
      makes G too large by 11 % for ten members.
    - Eq. (16) prints sigma_stat where sigma_stat^2 is meant.
    - The interval is the one of `_spread`: chi^2 for the total variance, counting noise subtracted,
      correlations between regions (from the model, and negative ones from counting) taken from
      the members. It assumes that integrals are Gaussian over members, and some five expected
      counts in a region.
    - The spread of members is blind to a bias that they share.

    Args:
        counts: Whole numbers of generated events in regions that do not overlap, shape
            (n_members, n_regions), or (n_members,) for one region.
        n_generated: Events generated by each member, in and outside the regions.
        n_train: Events that each member was trained on.
        confidence: Confidence level of the interval.

    Returns:
        The estimate for the quadratic sum of the regions, Eq. (19), with one for each of them.

    Raises:
        ValueError: An argument is out of range, or a region holds no or all events.
        TypeError: An argument is no number.

    >>> averaging_amplification([1912, 1950, 1784, 1991], n_generated=10_000, n_train=100)
    <AveragingEstimate G = 23.9 [5.45, 41.5] at 68 %, amplifies; 1 region, 4 members,
    n_generated=10000, n_train=100>
    """
    n_generated = _members.check_positive_integer("n_generated", n_generated)
    table = _members.check_counts(counts, n_generated=n_generated)
    return _estimate(table / n_generated, float(n_generated), n_train, confidence)


def averaging_amplification_from_probabilities(
    probabilities: ArrayLike, *, n_train: int, confidence: float = 0.68
) -> AveragingEstimate:
    """Estimate the amplification from the probabilities that members give to regions.

    As `averaging_amplification` in the limit of infinitely many generated events: nothing is
    subtracted, so the estimate is never infinite for members that differ.

    Args:
        probabilities: I(V|theta) of regions that do not overlap, free of sampling noise, shape
            (n_members, n_regions), or (n_members,) for one region.
        n_train: Events that each member was trained on.
        confidence: Confidence level of the interval.

    Returns:
        The estimate for the quadratic sum of the regions, Eq. (19), with one for each of them.

    Raises:
        ValueError: An argument is out of range, or a region holds no or all events.
        TypeError: An argument is no number.

    >>> averaging_amplification_from_probabilities([0.190, 0.194, 0.191, 0.187], n_train=1000)
    <AveragingEstimate G = 18.5 [5.18, 31.9] at 68 %, amplifies; 1 region, 4 members, exact,
    n_train=1000>
    """
    return _estimate(_members.check_probabilities(probabilities), math.inf, n_train, confidence)


def averaging_intervals(
    fractions: NDArray[np.float64],
    *,
    n_generated: float = math.inf,
    n_train: int,
    confidence: float = 0.68,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (amplification, low, high) of many experiments at once.

    The arithmetic of the two functions above, without their checks of the table.

    Args:
        fractions: Counts over n_generated, or probabilities: (..., n_members, n_regions).
        n_generated: Generated events per member; infinite for probabilities.
        n_train: Events that each member was trained on.
        confidence: Confidence level of the intervals.

    Returns:
        Three arrays of shape (...).

    Raises:
        ValueError: A number is out of range.

    >>> one_region = np.array([0.190, 0.194, 0.191, 0.187])[:, np.newaxis]
    >>> [round(float(x), 2) for x in averaging_intervals(one_region, n_train=1000)]
    [18.51, 5.18, 31.87]
    """
    n_train = _members.check_positive_integer("n_train", n_train)
    confidence = _members.check_confidence(confidence)
    if not n_generated > 0:
        raise ValueError(f"`n_generated` must be positive, got {n_generated}.")
    spread = member_spread(fractions, n_generated=n_generated, confidence=confidence)
    return _amplification(spread, n_generated, n_train)


def _amplification(
    spread: Spread, n_generated: float, n_train: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    model = spread.total_variance - spread.event_variance / n_generated
    # Eq. (18): event_variance / n_equiv = sigma_model^2.
    with np.errstate(divide="ignore"):
        estimate, low, high = (
            spread.event_variance / (n_train * np.maximum(variance, 0.0))
            for variance in (model, spread.model_high, spread.model_low)
        )
    return estimate, low, high


def _estimate(
    fractions: NDArray[np.float64], n_generated: float, n_train: int, confidence: float
) -> AveragingEstimate:
    n_train = _members.check_positive_integer("n_train", n_train)
    confidence = _members.check_confidence(confidence)

    def combine(table: NDArray[np.float64], regions: tuple[AveragingEstimate, ...]) -> Any:
        spread = member_spread(table, n_generated=n_generated, confidence=confidence)
        estimate, low, high = _amplification(spread, n_generated, n_train)
        return AveragingEstimate(
            amplification=float(estimate),
            interval=(float(low), float(high)),
            confidence=confidence,
            n_train=n_train,
            n_generated=n_generated,
            n_members=len(table),
            integrals=tuple(spread.integrals.tolist()),
            event_variance=float(spread.event_variance),
            total_variance=float(spread.total_variance),
            degrees_of_freedom=float(spread.degrees_of_freedom),
            noise_p_value=float(spread.noise_p_value),
            regions=regions,
        )

    columns = np.split(fractions, fractions.shape[1], axis=1)
    return combine(fractions, tuple(combine(column, ()) for column in columns))


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
