"""Do the weights claim more than they hold? Signs of a classifier that learned noise (App. A).

A classifier that learned the noise of its training events spreads the weights of all events, also
of those it never saw, while the AUC of the unseen ones stays where it was. The weights themselves
say which AUC they would have if they were true. Not for the losses: training.classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from genamp_lib.diagnostics._events import EventWeights, scaled, sums_below
from genamp_lib.diagnostics.weights import auc_from_weights, auc_interval, check_weights

# A claim this many standard deviations above what is found is called overfitted: by chance 0.1 %.
ALARM = 3.0


@dataclass(frozen=True)
class Overfitting:
    """How a classifier's weights spread, what they claim and what they hold.

    Attributes:
        width_in_sample: `log_weight_width` of the events it was trained on; NaN if not given.
        width_unseen: Width for events that it never saw.
        auc_in_sample: AUC of the events it was trained on; NaN if not given.
        auc_unseen: AUC of events that it never saw.
        auc_claimed: The AUC that the weights of the unseen generated events claim.
        significance: (auc_claimed - auc_unseen) over the standard error of the latter.
    """

    width_in_sample: float
    width_unseen: float
    auc_in_sample: float
    auc_unseen: float
    auc_claimed: float
    significance: float

    @property
    def is_overfitted(self) -> bool:
        """Whether the claim is three standard deviations above what is found."""
        return self.significance > ALARM

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; NaN becomes None."""
        plain = {k: None if np.isnan(v) else float(v) for k, v in vars(self).items()}
        return {**plain, "is_overfitted": self.is_overfitted}


def overfitting(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    in_sample: tuple[ArrayLike, ArrayLike] | None = None,
    cross_fitted: bool = False,
    event_weights: EventWeights | None = None,
) -> Overfitting:
    """Compare what weights claim with what they hold on events that the classifier never saw.

    Args:
        truth: Weights of unseen truth events, shape (n_truth,).
        generated: Weights of unseen generated events, shape (n_generated,); finite.
        in_sample: Weights of truth and generated events that the classifier was trained on.
        cross_fitted: The weights are from cross-fitting: twice the variance, see `auc_interval`.
        event_weights: Weights of the unseen events themselves, as for `auc_from_weights`; the
            widths leave them out.

    Raises:
        ValueError: A sample is empty, not 1D, or has a NaN or negative weight, a weight of
            `generated` is infinite, or all are zero.

    Noise of width 0.5 in the logits of one density:

    >>> rng = np.random.default_rng(1)
    >>> truth, generated = np.exp(rng.normal(0, 0.5, (2, 5000)))
    >>> overfitting(truth, generated).is_overfitted
    True
    """
    truth, generated = check_weights(truth, generated)
    found = auc_from_weights(truth, generated, event_weights=event_weights)
    own = scaled(event_weights, len(truth), len(generated))
    claimed = claimed_auc(generated, event_weights=None if own is None else own[1])
    # At 68.27 % the half-width is the standard error; separated samples have none of DeLong's.
    low, high = auc_interval(
        truth, generated, cross_fitted=cross_fitted, event_weights=event_weights
    )
    error = max(high - low, 1e-12) / 2
    inside = (np.nan, np.nan)
    if in_sample is not None:
        pair = check_weights(*in_sample)
        inside = log_weight_width(np.concatenate(pair)), auc_from_weights(*pair)
    return Overfitting(
        width_in_sample=inside[0],
        width_unseen=log_weight_width(np.concatenate([truth, generated])),
        auc_in_sample=inside[1],
        auc_unseen=found,
        auc_claimed=claimed,
        significance=float((claimed - found) / error),
    )


def claimed_auc(generated: ArrayLike, *, event_weights: ArrayLike | None = None) -> float:
    """Return the AUC that weights would have if they were the density ratio.

    Generated events that carry true weights are truth events. So the claim is the AUC of the
    generated events with their weights against the same without, ties counting half.

    Args:
        generated: Weights of generated events, shape (n,), finite.
        event_weights: Weights of the events themselves, (n,); None for unweighted ones.

    Raises:
        ValueError: No weight, one that is NaN, negative or infinite, or all zero.

    >>> claimed_auc([1.0, 1.0]), claimed_auc([0.0, 2.0])
    (0.5, 0.75)
    """
    weights, _ = check_weights(generated, [1.0])
    if not np.isfinite(weights).all() or not weights.max() > 0:
        raise ValueError("`generated` must be finite weights and not all zero.")
    if event_weights is not None:
        u = np.asarray(event_weights, dtype=np.float64)
        below = sums_below(weights, weights, u)
        return float(u @ (weights * below) / (2 * u.sum() * (u @ weights)))
    weights = np.sort(weights / weights.max())
    left = np.searchsorted(weights, weights, "left")
    right = np.searchsorted(weights, weights, "right")
    return float((weights * (left + right)).sum() / (2 * len(weights) * weights.sum()))


def log_weight_width(weights: ArrayLike) -> float:
    """Return half the distance of the 15.87 % and the 84.13 % quantile of log w.

    Weights of zero or infinity are the lowest and highest of any.

    Args:
        weights: Shape (n,).

    >>> round(log_weight_width(np.exp(np.linspace(-1, 1, 10_001))), 3)
    0.683
    """
    weights, _ = check_weights(weights, [1.0])
    with np.errstate(divide="ignore"):
        logs: NDArray[np.float64] = np.log(weights)
    low, high = np.quantile(logs, [ndtr(-1.0), ndtr(1.0)], method="inverted_cdf")
    return float("inf") if np.isinf([low, high]).any() else float(high - low) / 2
