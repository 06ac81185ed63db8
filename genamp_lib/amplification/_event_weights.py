"""Weights of events, negative ones included: checks, and how many unweighted events say as much.

The weighted distribution function F_w(x) = sum of w below x over the sum of all is off by what
n = (sum w)^2 / sum w^2 unweighted events are off by, if weights do not depend on the statistic. If
they do, its variance is A - 2 F A + F^2 over n, with A the share of the squared weights below x. It
is then scaled so that its largest value is that of a Brownian bridge, 1/4: tails are right to
leading order, and a typical distance is smaller than Kolmogorov's law says, as for few values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Largest difference of A and F that is still taken for none; 1/sqrt(n) for chance is added.
UNEVEN = 0.1


def check_event_weights(name: str, weights: ArrayLike, n_events: int) -> NDArray[np.float64]:
    """Return one finite weight per event; any sign, zero too."""
    try:
        checked = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be an array of numbers, got {type(weights)}.") from None
    if checked.shape != (n_events,):
        raise ValueError(
            f"`{name}` must have one number for each of {n_events} events, got shape "
            f"{checked.shape}."
        )
    if not np.isfinite(checked).all():
        raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
    return checked


def effective_count(name: str, total: float, squares: float) -> float:
    """Return (sum w)^2 / sum w^2; exactly the number of events for weights of one."""
    if not total > 0:
        raise ValueError(
            f"`{name}` must add up to more than 0, got {total:g}; too many are negative."
        )
    return float(total / (squares / total))


def is_uneven(
    below: NDArray[np.float64], squares: NDArray[np.float64], totals: tuple[float, float]
) -> tuple[bool, float]:
    """Return whether weights depend on the statistic, and the factor on the effective count.

    From sums of weights and of their squares at or below thresholds, and in all.
    """
    f, a = below / totals[0], squares / totals[1]
    chance = float(np.sqrt(totals[1])) / totals[0]
    if np.abs(a - f).max() <= UNEVEN + chance:
        return False, 1.0
    return True, float(min(1.0, 0.25 / (a - 2 * f * a + f**2).max()))
