"""How often intervals hold the truth, over pseudo-experiments. Not for single estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from genamp_lib.amplification.averaging import averaging_intervals

Array = NDArray[np.float64]

# Bounds the memory of one pass.
BATCH = 2000


def averaging_coverage(
    make_members: Callable[[np.random.Generator, int, int], Array],
    count_events: Callable[[np.random.Generator, Array, int], Array],
    *,
    true_amplification: float,
    n_train: int,
    n_members: Sequence[int],
    n_generated: Sequence[float],
    confidences: Sequence[float],
    n_experiments: int,
    seed: int,
) -> Array:
    """Return the fraction of averaging intervals that hold the true amplification.

    `make_members(rng, n_experiments, n_members)` returns exact probabilities, (n_experiments,
    n_members, n_regions); `count_events(rng, probabilities, n_generated)` fractions of counted
    events. Different n_generated, infinite for exact probabilities, share the members. The result
    has shape (len(n_members), len(n_generated), len(confidences)).

    >>> make = lambda rng, n, m: 0.2 + 0.004 * rng.normal(size=(n, m, 1))  # G = 10
    >>> coverage = averaging_coverage(
    ...     make, lambda rng, p, n: rng.binomial(n, p) / n, true_amplification=10.0, n_train=1000,
    ...     n_members=[10], n_generated=[1000, math.inf], confidences=[0.6827],
    ...     n_experiments=4000, seed=1)
    >>> coverage[0, :, 0].round(2)
    array([0.67, 0.68])
    """
    held = np.zeros((len(n_members), len(n_generated), len(confidences)))
    for i, members in enumerate(n_members):
        rng = np.random.default_rng([seed, members])
        for start in range(0, n_experiments, BATCH):
            size = min(BATCH, n_experiments - start)
            probabilities = make_members(rng, size, members)
            for j, events in enumerate(n_generated):
                exact = math.isinf(events)
                table = probabilities if exact else count_events(rng, probabilities, int(events))
                for k, confidence in enumerate(confidences):
                    _, low, high = averaging_intervals(
                        table, n_generated=events, n_train=n_train, confidence=confidence
                    )
                    inside = (low <= true_amplification) & (true_amplification <= high)
                    held[i, j, k] += np.count_nonzero(inside)
    return held / n_experiments
