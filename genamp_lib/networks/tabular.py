"""Classifiers of `genamp diagnose`: small networks and boosted trees, each event by others' fit.

On numpy and scikit-learn alone. Not for the paper's settings, nor for keeping networks: cross_fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtr

from genamp_lib._project import GenampError

Folds = tuple[NDArray[np.intp], NDArray[np.intp]]  # of each truth and each generated event, from 0
EventWeights = tuple[ArrayLike | None, ArrayLike | None] | None
Float = NDArray[np.float32]
# Folds, most passes over the training events, and looks at the validation loss without a better one
# at which a training stops.
N_FOLDS, N_EPOCHS, PATIENCE = 8, 40, 5
_WIDTH, _LEARNING_RATE, _AVERAGED, _SLOPE = 64, 5e-3, 0.97, 0.01
_FEWEST, _MOST, _STEPS = 32, 1000, 25  # events of a batch; most steps between two looks
_FACTORS = 0.02, 2.0
_N_BINS = 255


def fold_numbers(sizes: Sequence[int], *, n_folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Divide samples at random into folds of equal size: the fold of each event, by sample."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.arange(size) % n_folds) for size in sizes]


def fold_numbers_of_groups(
    sizes: Sequence[int], groups: NDArray[np.intp] | None, *, seed: int
) -> list[NDArray[np.intp]]:
    """Divide samples at random into `N_FOLDS`, events of one group into the same.

    So no classifier sees a copy of an event that it scores. Groups that are too few or too large
    for folds of similar size are ignored. `groups` are those of all samples one after the other.

    >>> [numbers.shape for numbers in fold_numbers_of_groups([20, 30], None, seed=1)]
    [(20,), (30,)]
    """
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
        fold = np.random.default_rng(seed).permutation(np.arange(groups.max() + 1) % N_FOLDS)
        folds = np.split(fold[groups], np.cumsum(sizes)[:-1])
        fewest = [np.bincount(one, minlength=N_FOLDS).min() for one in folds]
        if all(n >= size / (2 * N_FOLDS) for n, size in zip(fewest, sizes, strict=True)):
            return folds
    return fold_numbers(sizes, n_folds=N_FOLDS, seed=seed)


def network_logits(
    truth: ArrayLike,
    generated: ArrayLike,
    folds: Folds,
    *,
    seed: int,
    n_epochs: int = N_EPOCHS,
    event_weights: EventWeights = None,
    progress: Callable[[], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score every event by a network that was trained without its fold.

    For each fold a network is trained on the others but one. What is kept is the moving average of
    its parameters, as of the look with the least loss on the fold left; training ends when that has
    not got better for a while. Both classes carry the same total weight. Negative weights of events
    stay in the loss, whose expectation is then that of positive ones. The loss has no lower bound
    for a network that follows single events; the look that the fold left chooses is before that.

    Features (n_events, n_features) are of about unit scale, `normal_scores` for instance; each fold
    has events of both. `event_weights` are those of truth and generated events, of any sign, None
    for unweighted ones. `progress` is called after each network. Numbers are in single precision.

    >>> rng = np.random.default_rng(0)
    >>> truth, generated = rng.normal(size=(2, 80, 2))
    >>> folds = np.arange(80) % 4
    >>> network_logits(truth, generated, (folds, folds), seed=1)[0].shape
    (80,)
    """
    events = np.concatenate([truth, generated]).astype(np.float32)
    labels, weights = _classes(len(truth), len(generated), event_weights)
    signs, fold = 2 * labels - 1, np.concatenate(folds)
    logits = np.empty(len(events))
    n_folds = fold.max() + 1
    for k in range(n_folds):
        own, check = fold == k, fold == (k + 1) % n_folds
        train, held_out = np.flatnonzero(~own & ~check), (signs[check], weights[check])
        best, kept, waiting = math.inf, np.empty(0), 0
        rng = np.random.default_rng([seed, k])
        for network in _training(events, labels, weights, train, n_epochs, rng):
            margins = _logits(network, events[check])
            loss = (held_out[1] * np.logaddexp(0, -held_out[0] * margins)).mean()
            if not np.isfinite(loss):
                raise GenampError(
                    f"classifiers: the loss must be finite, got {loss:g}; look for features with "
                    "values far from all others"
                )
            waiting = 0 if loss < best else waiting + 1
            if loss < best:
                best, kept, scale = loss, network.copy(), _calibration(margins, *held_out)
            if waiting == PATIENCE:
                break
        logits[own] = scale * _logits(kept, events[own])
        if progress is not None:
            progress()
    return logits[: len(truth)], logits[len(truth) :]


def boosted_logits(
    truth: ArrayLike,
    generated: ArrayLike,
    folds: Folds,
    *,
    seed: int,
    event_weights: EventWeights = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Score every event by gradient-boosted trees that were trained without it; a second opinion.

    Features are `normal_scores`, whose quantiles among both samples the trees are grown on. Two
    folds are scored by one model. It is None where scikit-learn is not installed. Trees are grown
    with the sizes of `event_weights`, since a leaf of negative ones has no best value: the order
    that results is as good a score for signed weights.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        return None
    # Whole numbers: scikit-learn's own quantiles of weighted events take most of a fit's time.
    events = np.floor(_N_BINS * ndtr(np.concatenate([truth, generated])))
    sizes = (
        None if event_weights is None else [w if w is None else np.abs(w) for w in event_weights]
    )
    labels, weights = _classes(len(truth), len(generated), sizes)
    fold = np.concatenate(folds) // 2
    logits = np.empty(len(labels))
    for k in range(fold.max() + 1):
        others, own = fold != k, fold == k
        trees = HistGradientBoostingClassifier(random_state=seed)
        trees.fit(events[others], labels[others], sample_weight=weights[others])
        logits[own] = trees.decision_function(events[own])
    return logits[: len(truth)], logits[len(truth) :]


def one_thread_each() -> AbstractContextManager[Any]:
    """Let linear algebra and trees use one thread inside.

    Two are no faster for fits this small; on a busy machine, where they wait for each other, they
    take twenty times as long.
    """
    try:
        import sklearn.ensemble  # noqa: F401  only threads that are there can be limited
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1)


def _classes(
    n_truth: int, n_generated: int, event_weights: Sequence[ArrayLike | None] | None
) -> tuple[Float, Float]:
    """Return 1 for truth and 0 for generated events, and weights of mean one that balance them."""
    sizes = (n_truth, n_generated)
    parts = []
    for own, size in zip(event_weights or (None, None), sizes, strict=True):
        own = np.ones(size) if own is None else np.asarray(own, dtype=np.float64)
        parts.append(own / own.mean() * (0.5 * sum(sizes) / size))
    return np.repeat(np.float32([1, 0]), sizes), np.concatenate(parts).astype(np.float32)


def _training(
    events: Float,
    labels: Float,
    weights: Float,
    train: NDArray[np.intp],
    n_epochs: int,
    rng: np.random.Generator,
) -> Iterator[Float]:
    """Train a network by Adam; yield the moving average of its parameters from time to time."""
    layers = list(pairwise((events.shape[1], _WIDTH, _WIDTH, 1)))
    scale = np.repeat([n_in**-0.5 for n_in, _ in layers], [(i + 1) * o for i, o in layers])
    network = (rng.uniform(-1, 1, len(scale)) * scale).astype(np.float32)
    average, mean, square = network.copy(), np.zeros_like(network), np.zeros_like(network)
    size = min(max(len(train) // 15, _FEWEST), _MOST)
    n_batches, step = max(len(train) // size, 1), 0
    n_between = min(n_batches, _STEPS)
    for _ in range(n_epochs):
        for batch in np.array_split(rng.permutation(train)[: n_batches * size], n_batches):
            step += 1
            slope = _gradient(network, events[batch], labels[batch], weights[batch])
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            rate = _LEARNING_RATE * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            network -= rate * mean / (np.sqrt(square) + 1e-8)
            average += (1 - min(_AVERAGED, step / (step + 10))) * (network - average)
            if step % n_between == 0:
                yield average


def _layers(network: Float, n_features: int) -> list[tuple[Float, Float]]:
    """Return weights and biases of each layer, views of a vector of all parameters."""
    layers, start = [], 0
    for n_in, n_out in pairwise((n_features, _WIDTH, _WIDTH, 1)):
        middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
        layers.append((network[start:middle].reshape(n_in, n_out), network[middle:end]))
        start = end
    return layers


def _outputs(layers: list[tuple[Float, Float]], x: Float) -> list[Float]:
    """Return the events, the outputs of all layers, and the logits, (n_events, 1)."""
    outputs = [x]
    for weight, bias in layers:
        x = x @ weight
        x += bias
        if weight is not layers[-1][0]:
            np.maximum(x, _SLOPE * x, out=x)
        outputs.append(x)
    return outputs


def _logits(network: Float, events: Float) -> Float:
    return _outputs(_layers(network, events.shape[1]), events)[-1][:, 0]


def _gradient(network: Float, x: Float, labels: Float, weights: Float) -> Float:
    """Return the gradient of the mean cross entropy of weighted events, (n_parameters,)."""
    layers = _layers(network, x.shape[1])
    *inputs, logits = _outputs(layers, x)
    back = (weights * (expit(logits[:, 0]) - labels) / len(x))[:, np.newaxis]
    parts: list[Float] = []
    for (weight, _), below in zip(reversed(layers), reversed(inputs), strict=True):
        parts = [(below.T @ back).ravel(), back.sum(axis=0), *parts]
        if below is not x:
            back = np.dot(back, weight.T)  # matmul is slow for one column
            back *= (below > 0) * np.float32(1 - _SLOPE) + np.float32(_SLOPE)
    return np.concatenate(parts)


def _calibration(logits: Float, signs: Float, weights: Float) -> float:
    """Return the factor on a network's logits with the least loss on its validation events.

    It takes back what a network claims beyond what it holds; the order of its logits stays.
    """
    factor = 1.0
    for _ in range(20):  # Newton's steps on a convex function
        p = expit(-signs * factor * logits)
        slope = (weights * signs * logits * p).mean()
        curvature = (weights * logits**2 * p * (1 - p)).mean()
        factor = float(np.clip(factor + slope / max(curvature, 1e-12), *_FACTORS))
    return factor
