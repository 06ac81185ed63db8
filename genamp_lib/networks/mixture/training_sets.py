"""Which events each member of an ensemble is trained on; not for training them: training.ensemble.

What to use when

- `bootstrap_sets`: events drawn with replacement from one sample. The members' spread is that of
  trainings on other samples of this size, as far as one sample can tell.
- `same_sets`: all members have the same events and differ by starting values and batches. Their
  spread says how well the training is reproduced, and nothing on how far the sample is off.
- `independent_sets`: separate events for each member; what the other two are measured against.

All return a table (n_members, n_train, n_features) in float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def same_sets(train: ArrayLike, n_members: int) -> NDArray[np.float32]:
    """Return the same events for every member.

    Args:
        train: Features, shape (n_train, n_features).
        n_members: How many sets.

    Raises:
        ValueError: `train` is not 2D or empty, or `n_members` is not positive.

    >>> same_sets([[1.0, 2.0]], 3).shape
    (3, 1, 2)
    """
    events = _check(train, n_members)
    return np.repeat(events[np.newaxis], n_members, axis=0)


def bootstrap_sets(train: ArrayLike, n_members: int, *, seed: int) -> NDArray[np.float32]:
    """Return n_train events for every member, drawn from `train` with replacement.

    Args:
        train: Features, shape (n_train, n_features).
        n_members: How many sets.
        seed: Of the draws.

    Raises:
        ValueError: `train` is not 2D or empty, or `n_members` is not positive.

    >>> bootstrap_sets(np.arange(5.0).reshape(5, 1), 1, seed=1)[0, :, 0]
    array([2., 2., 3., 4., 0.], dtype=float32)
    """
    events = _check(train, n_members)
    rng = np.random.default_rng(seed)
    return events[rng.integers(len(events), size=(n_members, len(events)))]


def independent_sets(events: ArrayLike, n_members: int) -> NDArray[np.float32]:
    """Return a separate part of the events for every member, in their order.

    Args:
        events: Features, shape (n_members * n_train, n_features).
        n_members: How many sets.

    Raises:
        ValueError: `events` is not 2D, empty, or cannot be divided into equal parts.

    >>> independent_sets(np.zeros((600, 2)), 3).shape
    (3, 200, 2)
    """
    events = _check(events, n_members)
    if len(events) % n_members:
        raise ValueError(
            f"`events` must be a multiple of `n_members` = {n_members}, got {len(events)}."
        )
    return events.reshape(n_members, -1, events.shape[1])


def _check(train: ArrayLike, n_members: int) -> NDArray[np.float32]:
    events = np.asarray(train, dtype=np.float32)
    if events.ndim != 2 or not events.size:
        raise ValueError(f"`train` must be (n_train, n_features), got shape {events.shape}.")
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    return events
