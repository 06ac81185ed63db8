"""What `differential_amplification` returns. Not for computing it: differential."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogorov

from genamp_lib.amplification._numbers import Record, Worth, with_interval
from genamp_lib.amplification.kolmogorov import (
    KOLMOGOROV_MEAN,
    effective_size,
    finite_size_shift,
    kolmogorov_mean,
)
from genamp_lib.amplification.repeats import ALARM, RepeatedEvents

CONDITION = "if no generated event repeats a training event"
# A perfect generator at the expected distance has a lower limit above 1 from here on.
FEWEST_TO_AMPLIFY = math.ceil((1 + 1 / KOLMOGOROV_MEAN) ** 2)
REPEATS = "generated events repeat training events"


@dataclass(frozen=True, repr=False)
class CramerVonMisesEstimate(Record):
    """The amplification from the mean square of F_generated - F_truth over the truth.

    n_equiv true events have 1/(6 n_equiv) there, so 1/G = 6 n_train int delta^2 dF_truth. The
    estimate of 1/G has no bias; average that one, not G. This G is 0.38 times that of the
    Kolmogorov-Smirnov distance for a shift, for instance, and never less than 0.22 times.

    Attributes:
        inverse_amplification: 1/G; negative where chance outdoes the deviation.
        interval: (low, high) of G at `confidence`, with the stated coverage or more; high may be
            infinite.
        limits: One-sided limits (low, high) of G, each of which errs in at most 2.3 % of cases.
        confidence: Confidence level of `interval`.
    """

    inverse_amplification: float
    interval: tuple[float, float]
    limits: tuple[float, float]
    confidence: float
    _said = ("amplification",)

    @property
    def amplification(self) -> float:
        """G, infinite where `inverse_amplification` is not positive."""
        return 1 / self.inverse_amplification if self.inverse_amplification > 0 else math.inf

    def __repr__(self) -> str:
        value = with_interval(self.amplification, self.interval)
        return f"<CramerVonMisesEstimate G = {value} at {100 * self.confidence:g} %>"


@dataclass(frozen=True, repr=False)
class DifferentialEstimate(Worth):
    """A differential amplification factor with its confidence interval.

    Attributes:
        amplification: G of Eq. (36); infinite where the distance is that of samples of one density.
        interval: (low, high) of G at `confidence`, a conservative bound; high may be infinite.
        limits: One-sided limits (low, high) of G, each at 97.7 %; the verdict uses them.
        confidence: Confidence level of `interval`.
        reference: What the generated sample was compared with: "holdout", "train" or "cdf".
        n_train: Number of training events.
        n_generated: Number of generated events.
        n_reference: Number of events in the reference; infinite for "cdf".
        distance: M of Eq. (33), the Kolmogorov-Smirnov distance.
        scaled_distance: K of Eq. (34), corrected for finite samples (`finite_size_shift`).
        train_distance: Kolmogorov-Smirnov distance to the training sample; None if not known.
        coarse: Whether the statistic takes so few values that K is below Kolmogorov's law.
        cramer_von_mises: The same from the mean square distance; None for a coarse statistic.
        repeats: Result of `repeated_events`; None where training events were not compared.
        survival_fraction: Share of the generated events that a cut on them kept; 1 without a cut.
        sums: Sample -> number of events, sum of their weights, and of the squares, for weighted
            samples; the numbers of events above are then effective ones.
        uneven: Whether weights depend on the statistic, so that K is below Kolmogorov's law.
    """

    amplification: float
    interval: tuple[float, float]
    limits: tuple[float, float]
    confidence: float
    reference: str
    n_train: int
    n_generated: int
    n_reference: float
    distance: float
    scaled_distance: float
    train_distance: float | None
    coarse: bool
    cramer_von_mises: CramerVonMisesEstimate | None
    repeats: RepeatedEvents | None = None
    survival_fraction: float = 1.0
    sums: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)
    uneven: bool = False
    _said = (
        *("verdict", "mean_square_verdict", "status", "note", "n_equiv"),
        *("probability_closer", "train_probability_closer"),
    )

    @property
    def probability_closer(self) -> float:
        """Probability that independent samples of one density lie closer than these two."""
        return float(1 - kolmogorov(self.scaled_distance))

    @property
    def train_probability_closer(self) -> float | None:
        """Probability that a sample independent of the training sample lies closer to it."""
        if self.train_distance is None:
            return None
        scale = math.sqrt(effective_size(self.n_train, self.n_generated))
        shift = finite_size_shift(self.n_train, self.n_generated)
        return float(1 - kolmogorov(self.train_distance * scale + shift))

    @property
    def status(self) -> str:
        """How much the distance says.

        "measured": the interval is finite. "lower limit": the distance may be that of a perfect
        generator. "too close": it is smaller than independent samples allow. "repeats": generated
        events repeat training events.
        """
        if not (self.coarse or self.uneven) and self.probability_closer < ALARM:
            return "too close"
        if self.repeats is not None and self.repeats.found:
            return "repeats"
        return "measured" if math.isfinite(self.interval[1]) else "lower limit"

    @property
    def note(self) -> str:
        """What to keep in mind; empty if nothing."""
        n_effective = effective_size(self.n_reference, self.n_generated)
        needed = (2 if math.isfinite(self.n_reference) else 1) * FEWEST_TO_AMPLIFY * self.n_train
        ratio = math.nan if self.repeats is None else self.repeats.ratio
        candidates = (
            (
                self.reference == "train",
                "the generator was fitted to the reference, so G is too large: only an "
                "independent holdout can show amplification",
            ),
            (
                self.status == "too close" and self.reference != "train",
                "closer to the reference than independent samples are: check that the generator "
                "has not seen it",
            ),
            (
                self._overfits,
                "overfitting: closer to the training sample than independent samples are, whose "
                "chance agreement with the truth it then has",
            ),
            (
                self.status == "repeats",
                f"{REPEATS}: {ratio:.3g} times as many lie next to a training event as next to a "
                "holdout event",
            ),
            (
                self.reference != "train"
                and self.limits[0] <= 1 <= self.limits[1]
                and n_effective < FEWEST_TO_AMPLIFY * self.n_train,
                f"a perfect generator needs about {needed:,} generated "
                f"{'' if math.isinf(self.n_reference) else 'and as many holdout '}events to show "
                "amplification",
            ),
            (
                self.coarse,
                "the statistic takes few values, which makes distances small and G too large; "
                "the interval allows for it",
            ),
            (
                self.uneven,
                "event weights depend on the statistic: the interval is a wider bound, and "
                "amplification is the harder to show",
            ),
            (
                self.status == "lower limit",
                "the distance may be that of a perfect generator: a larger "
                f"{'generated sample' if self.n_generated < self.n_reference else 'reference'} "
                "would say more",
            ),
            (
                self.survival_fraction < 1,
                f"a cut kept {100 * self.survival_fraction:.3g} % of the generated events: G holds "
                "for these alone, and each costs that much more to generate",
            ),
        )
        return "; ".join(note for applies, note in candidates if applies)

    @property
    def _overfits(self) -> bool:
        closer = self.train_probability_closer
        return not (self.coarse or self.uneven) and closer is not None and closer < ALARM

    @property
    def verdict(self) -> str:
        """Say "amplifies" or "does not amplify" where a one-sided limit leaves out 1.

        Else "undecided"; also where amplification shows only against the training sample, against a
        reference that is too close, or for a generator that is too close to its training sample.
        Where generated events repeat training events the verdict says this instead; where that was
        not looked at, "amplifies" has the condition that they do not.
        """
        return self._verdict(self.limits)

    @property
    def mean_square_verdict(self) -> str | None:
        """The same about the mean square difference, the G of `cramer_von_mises`."""
        companion = self.cramer_von_mises
        return None if companion is None else self._verdict(companion.limits)

    def _verdict(self, limits: tuple[float, float]) -> str:
        low, high = limits
        if high < 1:
            return "does not amplify"
        if self.status == "repeats":
            return REPEATS
        if low <= 1 or self.reference == "train" or self.status == "too close" or self._overfits:
            return "undecided"
        return "amplifies" if self.repeats is not None else f"amplifies, {CONDITION}"

    def expected_distance(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return <M> of n true events to the reference, Eqs. (35) and (36)."""
        sizes = np.asarray(n, dtype=np.float64)
        reference = self.n_reference
        return kolmogorov_mean(reference, sizes) / np.sqrt(effective_size(reference, sizes))

    def __repr__(self) -> str:
        against = {
            "cdf": "the exact distribution",
            "holdout": f"{self.n_reference} holdout events",
            "train": "its own training sample",
        }[self.reference]
        return (
            f"<DifferentialEstimate G = {with_interval(self.amplification, self.interval)} at "
            f"{100 * self.confidence:g} %, {self.verdict}; against {against}, "
            f"n_generated={self.n_generated}, n_train={self.n_train}"
            f"{'; ' * bool(self.note)}{self.note}>"
        )
