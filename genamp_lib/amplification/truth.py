"""The true amplification, for toys and holdouts where integrals are known. Not an estimate of it.

Two definitions of "the true uncertainty" differ by a factor of about 2, so both are here:

- `one_draw`: of a single member, E[(I_member - I_true)^2]. What a sample of one network, or of one
  draw from a posterior, is worth.
- `mean`: of the average over members, E[(<I> - I_true)^2]. What all members together are worth.

For a calibrated posterior a member is off by the error of the mean and by its own distance from it,
of equal variance: `one_draw` is half of `mean`. The spread of members estimates the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from genamp_lib.amplification._json import plain
from genamp_lib.amplification._members import check_confidence, check_positive_integer


@dataclass(frozen=True, repr=False)
class TrueAmplification:
    """True averaging amplification over one or many training sets.

    Attributes:
        one_draw: G of a single member.
        one_draw_interval: (low, high) at `confidence`; (0, inf) for a single training set.
        mean: G of the members' mean.
        mean_interval: As above.
        confidence: Confidence level of the intervals.
        n_train: Training events in each set.
        n_sets: Number of training sets.
        n_members: Members trained on each.
        event_variance: Sum over regions of I_true (1 - I_true).
        one_draw_of_sets: G of a single member for each training set, shape (n_sets,).
        mean_of_sets: G of the members' mean for each training set, shape (n_sets,).
    """

    one_draw: float
    one_draw_interval: tuple[float, float]
    mean: float
    mean_interval: tuple[float, float]
    confidence: float
    n_train: int
    n_sets: int
    n_members: int
    event_variance: float
    one_draw_of_sets: NDArray[np.float64]
    mean_of_sets: NDArray[np.float64]

    def sigma(self, definition: str = "mean") -> float:
        """Return the true uncertainty of the integral, the root of the mean squared deviation.

        Args:
            definition: "one_draw" or "mean".

        Raises:
            ValueError: Another definition.
        """
        if definition not in ("one_draw", "mean"):
            raise ValueError(f"`definition` must be 'one_draw' or 'mean', got {definition!r}.")
        return math.sqrt(self.event_variance / (self.n_train * getattr(self, definition)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; infinity is the string "inf"."""
        return {
            "one_draw": plain(self.one_draw),
            "one_draw_interval": [plain(edge) for edge in self.one_draw_interval],
            "mean": plain(self.mean),
            "mean_interval": [plain(edge) for edge in self.mean_interval],
            "confidence": self.confidence,
            "n_train": self.n_train,
            "n_sets": self.n_sets,
            "n_members": self.n_members,
            "event_variance": self.event_variance,
            "one_draw_of_sets": [plain(g) for g in self.one_draw_of_sets],
            "mean_of_sets": [plain(g) for g in self.mean_of_sets],
        }

    def __repr__(self) -> str:
        def text(value: float, interval: tuple[float, float]) -> str:
            return f"{value:.3g} [{interval[0]:.3g}, {interval[1]:.3g}]"

        return (
            f"<TrueAmplification G = {text(self.mean, self.mean_interval)} of the mean, "
            f"{text(self.one_draw, self.one_draw_interval)} of one draw, at "
            f"{100 * self.confidence:g} %; {self.n_sets} training set{'s' * (self.n_sets != 1)}, "
            f"{self.n_members} members, n_train={self.n_train}>"
        )


def true_averaging_amplification(
    fractions: ArrayLike,
    *,
    truth: ArrayLike,
    n_train: int,
    n_generated: float = math.inf,
    confidence: float = 0.68,
) -> TrueAmplification:
    """Return the true amplification of members whose regions' true probabilities are known.

    Eqs. (4), (11) and (19) of paper A with the deviation from the truth in the place of the spread
    of members. Expected counting noise of generated events is subtracted.

    The intervals are those of the mean squared deviation over independent training sets: a scaled
    chi^2 whose degrees of freedom follow from its variance over the sets. They need some ten sets;
    a single one, however many members were trained on it, says nothing on the error that members
    share.

    Args:
        fractions: Probabilities, or counts over n_generated, of regions that do not overlap:
            (n_sets, n_members, n_regions), or (n_members, n_regions) for one training set.
        truth: True probabilities, shape (n_regions,).
        n_train: Events in each training set.
        n_generated: Generated events per member; infinite for exact probabilities.
        confidence: Confidence level of the intervals.

    Returns:
        G in both definitions, over all sets and for each of them; infinite where counting noise
        explains the whole deviation.

    Raises:
        ValueError: A shape does not fit, or a number is out of range or not finite.

    >>> rng = np.random.default_rng(1)
    >>> fitted = rng.normal(0.2, 0.005, size=(200, 1, 1))  # one set, one fit
    >>> members = fitted + rng.normal(0.0, 0.005, size=(200, 50, 1))  # its calibrated posterior
    >>> true_averaging_amplification(members, truth=[0.2], n_train=1000)
    <TrueAmplification G = 7.42 [6.58, 8.25] of the mean, 3.47 [3.29, 3.66] of one draw, at 68 %;
    200 training sets, 50 members, n_train=1000>
    """
    n_train = check_positive_integer("n_train", n_train)
    confidence = check_confidence(confidence)
    if not n_generated > 0:
        raise ValueError(f"`n_generated` must be positive, got {n_generated}.")
    table = np.asarray(fractions, dtype=np.float64)
    table = table[np.newaxis] if table.ndim == 2 else table
    true = np.atleast_1d(np.asarray(truth, dtype=np.float64))
    if table.ndim != 3 or not table.size:
        raise ValueError(
            "`fractions` must have shape (n_sets, n_members, n_regions) or (n_members, n_regions), "
            f"got {np.shape(fractions)}."
        )
    if true.shape != table.shape[2:]:
        raise ValueError(
            f"`truth` must have one probability for each of {table.shape[2]} regions, got shape "
            f"{true.shape}."
        )
    if not (np.isfinite(table).all() and np.isfinite(true).all()):
        raise ValueError("`fractions` and `truth` must be finite, got NaN or infinity.")
    if not ((true > 0) & (true < 1)).all():
        raise ValueError(f"`truth` must be between 0 and 1, got {true.min():g} to {true.max():g}.")
    if ((table < 0) | (table > 1)).any():
        raise ValueError(
            f"`fractions` must be between 0 and 1, got {table.min():g} to {table.max():g}; divide "
            "counts by n_generated."
        )

    n_sets, n_members, _ = table.shape
    event_variance = float((true * (1 - true)).sum())
    counting = (table * (1 - table)).sum(axis=2).mean(axis=1) / n_generated
    squares = {
        "one_draw": ((table - true) ** 2).sum(axis=2).mean(axis=1) - counting,
        "mean": ((table.mean(axis=1) - true) ** 2).sum(axis=1) - counting / n_members,
    }
    found = {}
    for name, square in squares.items():
        low, high = _interval_of_mean_square(square, confidence)
        edges = [float(_ratio(event_variance, n_train * edge)) for edge in (high, low)]
        found[name] = float(_ratio(event_variance, n_train * square.mean()))
        found[f"{name}_interval"] = tuple(edges)
        found[f"{name}_of_sets"] = _ratio(event_variance, n_train * square)
    return TrueAmplification(
        **found,
        confidence=confidence,
        n_train=n_train,
        n_sets=n_sets,
        n_members=n_members,
        event_variance=event_variance,
    )


def _interval_of_mean_square(square: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return an interval for the expectation of squares, one per independent training set."""
    n_sets, mean = len(square), float(square.mean())
    if n_sets < 2 or mean <= 0:
        return 0.0, math.inf
    variance = float(square.var(ddof=1)) / n_sets
    if variance == 0:
        return mean, mean
    dof = 2 * mean**2 / variance
    tail = (1 - confidence) / 2
    return tuple(float(mean * dof / chi2.ppf(p, dof)) for p in (1 - tail, tail))


def _ratio(numerator: float, denominator: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return numerator / np.maximum(denominator, 0.0)
