"""What the averaging estimators return. Not for computing it: averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification._numbers import Worth, with_interval
from genamp_lib.amplification.truth import TrueAmplification

AMPLIFIES_IF = "amplifies, if its members share no bias"
# Verdicts need two standard deviations on one side, 97.7 %, whatever interval is printed.
DECISIVE = 0.9545
MEMBERS = ("bootstrap", "posterior", "independent")
# Three sigma, one-sided: less spread than this is no fluctuation of independent counts.
BELOW_NOISE = 0.00135
# Three sigma, two-sided: more distance to the training sample than this is a bias.
CONTRADICTED = 0.0027
# Level of the joint alarm: it costs an "undecided" in at most so many clean cases.
JOINTLY_CONTRADICTED = 0.05
# Only a note hangs on it, so one false alarm in a hundred is cheap.
NOT_GAUSSIAN = 0.01
# A holdout that confirms perfect members more rarely does so by luck: it confirms 2.3 % of others.
LEAST_POWER = 0.1
TOO_FEW = "too few training events in this region for an interval"


@dataclass(frozen=True, repr=False)
class AveragingEstimate(Worth):
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
            of regions; 1 where it says nothing.
        train_integrals: Fractions of the training sample in the regions; empty if not given.
        members: "bootstrap" or "posterior" where members share a training sample, "independent".
        decisive_interval: (low, high) of G, one-sided 97.7 % each; verdicts use it.
        equal_members: Numbers of two members with equal counts in every region, or None.
        bias_p_value: Smallest p-value of the training sample's count in a region, times the number
            of regions; None without `train_counts`.
        joint_p_value: Upper bound on that of chi^2 over bins; None without `alarm_counts`.
        holdout: True amplification of these very members, by the holdout; None without one.
        holdout_edges: (low, high) of the true G over training samples like this one, lucky or not,
            one-sided 97.7 % each.
        holdout_power: Probability that a holdout of this size confirms perfect members.
        regions: One estimate for each region, in order; empty for an estimate inside this tuple.
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
    decisive_interval: tuple[float, float]
    members: str = "bootstrap"
    equal_members: tuple[int, int] | None = None
    train_integrals: tuple[float, ...] = ()
    bias_p_value: float | None = None
    joint_p_value: float | None = None
    holdout: TrueAmplification | None = None
    holdout_edges: tuple[float, float] | None = None
    holdout_power: float | None = None
    regions: tuple[AveragingEstimate, ...] = ()
    _said = (
        *("verdict", "condition", "status", "note", "whose", "n_equiv"),
        *("of_the_mean", "of_one_member", "sigma_model"),
    )

    @property
    def model_variance(self) -> float:
        """sigma_model^2 of Eq. (17); negative where the spread is below the counting noise."""
        return self.total_variance - self.event_variance / self.n_generated

    @property
    def sigma_model(self) -> float:
        """sigma_model of Eq. (17), 0 where the subtraction is negative."""
        return math.sqrt(max(self.model_variance, 0.0))

    @property
    def whose(self) -> str:
        """Whose error the spread of the members measures: G is of this."""
        return "one member" if self.members == "independent" else "the members' mean"

    @property
    def of_the_mean(self) -> float:
        """G of the members' mean, if they share no bias; m times one's for independent members."""
        return self.amplification * (self.n_members if self.members == "independent" else 1)

    @property
    def of_one_member(self) -> float:
        """G of one member; half of the mean's where members share a training sample."""
        return self.amplification / (1 if self.members == "independent" else 2)

    @property
    def true_amplification(self) -> tuple[float, tuple[float, float]] | None:
        """True G of `whose` with its interval, by the holdout; None without one."""
        if self.holdout is None:
            return None
        name = "one_draw" if self.members == "independent" else "mean"
        return getattr(self.holdout, name), getattr(self.holdout, f"{name}_interval")

    @property
    def condition(self) -> str:
        """What the verdict takes for granted; empty if nothing."""
        return "its members share no bias" if self.verdict == AMPLIFIES_IF else ""

    @property
    def contradicted(self) -> bool:
        """Whether the training sample excludes the members' mean, in a region or in all bins.

        Then all members share a bias. The training sample does not see one below its statistical
        error.
        """
        levels = ((self.bias_p_value, CONTRADICTED), (self.joint_p_value, JOINTLY_CONTRADICTED))
        return any(p is not None and p < level for p, level in levels)

    @property
    def _can_confirm(self) -> bool:
        return (self.holdout_power or 0.0) >= LEAST_POWER

    @property
    def refuted(self) -> bool:
        """Whether the holdout excludes the least G that the members' spread allows."""
        return self.holdout_edges is not None and (
            self.holdout_edges[1] < self.decisive_interval[0]
        )

    @property
    def status(self) -> str:
        """How much the spread of the members says.

        "measured": the interval is finite. "lower limit": the spread may be counting noise alone.
        "below noise": it is smaller than independent counts allow. "identical members": two are
        equal, or all. `TOO_FEW`: fewer than 20 training events are expected. "contradicted": the
        training sample or the holdout excludes the members' mean.
        """
        if self.total_variance == 0 or self.equal_members:
            return "identical members"
        if self.noise_p_value < BELOW_NOISE:
            return "below noise"
        if self.decisive_interval == (0.0, math.inf):
            return TOO_FEW
        if self.contradicted or self.refuted:
            return "contradicted"
        return "measured" if math.isfinite(self.interval[1]) else "lower limit"

    @property
    def note(self) -> str:
        """What to keep in mind; empty if nothing."""
        status = self.status
        same = "all members" if self.total_variance == 0 else ""
        if self.equal_members and not same:
            same = "members {} and {}".format(*self.equal_members)
        undecided = self.holdout_edges and self.holdout_edges[1] >= 1
        undecided = undecided and (self.holdout_edges[0] <= 1 or not self._can_confirm)
        candidates = (
            (
                status == "identical members",
                f"{same} are the same: check that they were trained apart",
            ),
            (
                status == "below noise",
                "the members agree better than independent counts can: check "
                "that each has its own random numbers and that n_generated is right",
            ),
            (status == TOO_FEW, f"{TOO_FEW}: take a wider one"),
            (
                status == "lower limit",
                "the spread may be counting noise: generate more events per member",
            ),
            (
                self.contradicted,
                "the members' mean contradicts the training sample: they share a "
                "bias, which their spread does not show",
            ),
            (
                self.refuted,
                "the holdout finds less than the members' spread allows: they share a bias",
            ),
            (
                undecided,
                "the holdout neither confirms nor excludes G > 1; one of this size confirms "
                f"perfect members in {100 * (self.holdout_power or 0):.0f} % of cases",
            ),
            (
                self.normality_p_value < NOT_GAUSSIAN,
                "the members' integrals are not Gaussian, as where a fit cannot change an integral "
                "in one direction: the interval may be too short",
            ),
        )
        return "; ".join(note for applies, note in candidates if applies)

    @property
    def verdict(self) -> str:
        """Say what is 97.7 % certain on one side, of `whose`.

        "amplifies" and "does not amplify" where the holdout decides; one that confirms less than a
        tenth of perfect members (`holdout_power`) cannot say the first. Else by the spread:
        "amplifies, if its members share no bias", unless the training sample or the holdout shows
        such a bias, or "does not amplify". Else, and where `status` allows no claim, "undecided".
        """
        if self.status in ("below noise", "identical members", TOO_FEW):
            return "undecided"
        for edges, claim in (
            (self.holdout_edges, "amplifies"),
            (self.decisive_interval, AMPLIFIES_IF),
        ):
            if edges and edges[1] < 1:
                return "does not amplify"
            if edges and edges[0] > 1 and (claim == AMPLIFIES_IF or self._can_confirm):
                is_open = claim == AMPLIFIES_IF and (self.contradicted or self.refuted)
                return "undecided" if is_open else claim
        return "undecided"

    def sigma_stat(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the statistical uncertainty of n events, the root of Eq. (16)."""
        return np.sqrt(self.event_variance / np.asarray(n, dtype=np.float64))

    def sigma_total(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return the root of M_I for n generated events, Eq. (11)."""
        return np.hypot(self.sigma_stat(n), self.sigma_model)

    def __repr__(self) -> str:
        n_regions = len(self.integrals)
        note = f";\n {self.note}" if self.note else ""
        events = "exact" if math.isinf(self.n_generated) else f"n_generated={self.n_generated:g}"
        found = ""
        if self.holdout is not None:
            true = with_interval(*self.true_amplification)
            found = f"\n true G = {true} by {self.holdout.n_truth:g} holdout events;"
        return (
            f"<AveragingEstimate G = {with_interval(self.amplification, self.interval)} of "
            f"{self.whose} at {100 * self.confidence:g} %,\n {self.verdict};{found} {n_regions} "
            f"region{'s' * (n_regions != 1)}, {self.n_members} members, {events}, "
            f"n_train={self.n_train}{note}>"
        )
