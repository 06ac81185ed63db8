"""Cross-fit many classifiers at once: of many small experiments, or all folds of one.

Not for keeping the networks, nor for the paper's settings: cross_fit. A network of a few thousand
parameters leaves a core waiting for its own overhead. Here all networks of all experiments and
folds take each step together, as batches of matrices. They share nothing but the order in which
they see their events. Networks run in float32 on one thread; the same seed on the same machine
gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import leaky_relu

from genamp_lib._project import GenampError
from genamp_lib.networks.classifier import ClassifierSettings, cross_entropies, signs_and_weights
from genamp_lib.networks.cross_fit import fold_numbers
from genamp_lib.networks.fitting import mean_and_scale, seeded

# Part of an artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1


def cross_fitted_logits_of_many(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    settings: ClassifierSettings,
    seed: int,
    n_folds: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Score the events of many experiments, each by a classifier that was trained without it.

    As `cross_fit.cross_fitted_logits` with one member, for experiments of equal sizes: for each
    fold of consecutive events a network is trained on the others but one, its best epoch is chosen
    on the one left, and both classes carry the same total weight. The learning rate stays as it is:
    `decay_factor` and `patience` are not used. Samples are (n_experiments, n_events, n_features) in
    random order, logits (n_experiments, n_events).

    >>> rng = np.random.default_rng(0)
    >>> truth, generated = rng.normal(size=(2, 3, 40, 2))
    >>> logits, _ = cross_fitted_logits_of_many(truth, generated, seed=1,
    ...     settings=ClassifierSettings(n_epochs=1, n_hidden=4))
    >>> logits.shape
    (3, 40)
    """
    # (n_experiments, n_folds, n_in_fold, n_features)
    parts = [s.unflatten(1, (n_folds, -1)) for s in _check(truth, generated, n_folds)]
    kept = [[(fold + shift) % n_folds for shift in range(2, n_folds)] for fold in range(n_folds)]
    train = [part[:, kept].flatten(2, 3).flatten(0, 1) for part in parts]
    validation = [part[:, [(k + 1) % n_folds for k in range(n_folds)]] for part in parts]
    events, *labels = _joined(train)
    mean, scale = (
        torch.stack(list(x)).float()[:, None]
        for x in zip(*(mean_and_scale(one) for one in events), strict=True)
    )
    events = (events - mean) / scale
    checks, *check_labels = _joined([(part.flatten(0, 1) - mean) / scale for part in validation])
    with seeded(seed):
        parameters = _start(len(events), events.shape[-1], settings)
        optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate, foreach=True)

        def train_epoch() -> None:
            for batch in torch.randperm(events.shape[1]).split(settings.batch_size):
                logits = _logits(parameters, events[:, batch], settings.dropout)
                _step(optimiser, logits, *(x[batch] for x in labels))

        best = _best_epochs(
            parameters,
            train_epoch,
            lambda: cross_entropies(_logits(parameters, checks), *check_labels),
            n_epochs=settings.n_epochs,
            remedy="lower `learning_rate`",
        )
        scored = (_logits(best, (part.flatten(0, 1) - mean) / scale) for part in parts)
        first, second = (x.reshape(len(parts[0]), -1).double().numpy() for x in scored)
    return first, second


# Folds, most passes over the training events, and passes without a better validation loss at which
# training stops.
N_FOLDS, N_EPOCHS, PATIENCE = 8, 40, 5
_LEARNING_RATE, _AVERAGED = 5e-3, 0.97
_FACTORS = 0.02, 2.0


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


def cross_fitted_logits_at_once(
    truth: ArrayLike,
    generated: ArrayLike,
    folds: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    seed: int,
    n_epochs: int = N_EPOCHS,
    event_weights: tuple[ArrayLike | None, ArrayLike | None] | None = None,
    progress: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Score every event by a classifier that was trained without its fold, all folds at once.

    For each fold a network is trained on the others but one. What is kept is the moving average of
    its parameters, as of the epoch with the best loss on the fold left; training ends when no
    network has got better for a while. Both classes carry the same total weight. Negative weights
    of events stay in the loss, whose expectation is then that of positive ones; that a network
    follows single events to no bound is prevented by the epoch that the fold left chooses.

    Features (n_events, n_features) are of about unit scale, `normal_scores` for instance; `folds`
    are the fold of each truth and each generated event, from 0, each fold with events of both.
    `event_weights` are those of truth and generated events, of any sign, None for unweighted ones.
    `progress` is called after each epoch.

    >>> rng = np.random.default_rng(0)
    >>> truth, generated = rng.normal(size=(2, 80, 2))
    >>> folds = np.arange(80) % 4
    >>> cross_fitted_logits_at_once(truth, generated, (folds, folds), seed=1)[0].shape
    (80,)
    """
    with seeded(seed), torch.no_grad():
        events, signs, weights = _joined(
            [torch.as_tensor(np.asarray(x, dtype=np.float32))[None] for x in (truth, generated)]
        )
        weights = weights * torch.as_tensor(_relative(event_weights, len(truth), len(generated)))
        events, fold = events[0], torch.as_tensor(np.concatenate(folds))
        n_folds = int(fold.max()) + 1

        def chosen(keep: Callable[[int], Tensor]) -> Tensor:
            """Positions of events for each network, cut to the smallest number of them."""
            rows = [torch.nonzero(keep(k)).flatten() for k in range(n_folds)]
            rows = [row[torch.randperm(len(row))] for row in rows]
            return torch.stack([row[: min(map(len, rows))] for row in rows])

        train = chosen(lambda k: (fold != k) & (fold != (k + 1) % n_folds))
        check = chosen(lambda k: fold == (k + 1) % n_folds)
        labels = signs[check], weights[check]
        settings = ClassifierSettings(n_layers=2, dropout=0.0)
        parameters = _start(n_folds, events.shape[1], settings)
        optimiser = torch.optim.Adam(parameters, lr=_LEARNING_RATE, foreach=True)
        average = [p.detach().clone() for p in parameters]
        size, n_steps = min(max(train.shape[1] // 15, 32), 2000), 0

        def train_epoch() -> None:
            nonlocal n_steps
            order = train[:, torch.randperm(train.shape[1])]
            for batch in order[:, : order.shape[1] // size * size].split(size, dim=1):
                with torch.enable_grad():
                    _step(
                        optimiser, _logits(parameters, events[batch]), signs[batch], weights[batch]
                    )
                n_steps += 1
                share = 1 - min(_AVERAGED, n_steps / (n_steps + 10))
                torch._foreach_lerp_(average, [p.detach() for p in parameters], share)

        kept = _best_epochs(
            average,
            train_epoch,
            lambda: cross_entropies(_logits(average, events[check]), *labels),
            n_epochs=n_epochs,
            remedy="look for features with values far from all others",
            patience=PATIENCE,
            progress=progress,
        )
        scale = _calibrated(_logits(kept, events[check]), *labels)
        scored = torch.empty(len(events))
        for k in range(n_folds):
            own = _logits([p[[k]] for p in kept], events[None, fold == k])[0]
            scored[fold == k] = scale[k] * own
    logits = scored.double().numpy()
    return logits[: len(truth)], logits[len(truth) :]


def _calibrated(logits: Tensor, signs: Tensor, weights: Tensor) -> Tensor:
    """Return the factor on each network's logits with the least loss on its validation events.

    It takes back what a network claims beyond what it holds; the order of its logits stays.
    """
    factor = torch.ones(len(logits), 1)
    for _ in range(20):  # Newton's steps on a convex function
        p = torch.sigmoid(-signs * factor * logits)
        slope = (weights * signs * logits * p).mean(1, keepdim=True)
        curvature = (weights * logits**2 * p * (1 - p)).mean(1, keepdim=True)
        factor = (factor + slope / curvature.clamp(min=1e-12)).clamp(*_FACTORS)
    return factor


def boosted_logits(
    truth: ArrayLike,
    generated: ArrayLike,
    folds: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    seed: int,
    event_weights: tuple[ArrayLike | None, ArrayLike | None] | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Score every event by gradient-boosted trees that were trained without it; a second opinion.

    Two folds are scored by one model. It is None where scikit-learn is not installed. Trees are
    grown with the sizes of `event_weights`, since a leaf of negative ones has no best value: the
    order that results is as good a score for signed weights.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        return None
    events = np.concatenate([truth, generated])
    labels = np.repeat([1, 0], [len(truth), len(generated)])
    weights = np.where(labels, 0.5 / len(truth), 0.5 / len(generated)) * len(labels)
    if event_weights is not None:
        sizes = [None if own is None else np.abs(own) for own in event_weights]
        weights = weights * _relative(sizes, len(truth), len(generated))
    fold = np.concatenate(folds) // 2
    logits = np.empty(len(labels))
    for k in range(fold.max() + 1):
        others, own = fold != k, fold == k
        trees = HistGradientBoostingClassifier(random_state=seed)
        trees.fit(events[others], labels[others], sample_weight=weights[others])
        logits[own] = trees.decision_function(events[own])
    return logits[: len(truth)], logits[len(truth) :]


def _relative(event_weights: Sequence[ArrayLike | None] | None, *sizes: int) -> NDArray[np.float32]:
    """Return the weights of all events, of mean one in each sample."""
    parts = []
    for own, size in zip(event_weights or (None, None), sizes, strict=True):
        own = np.ones(size) if own is None else np.asarray(own, dtype=np.float64)
        parts.append(own / own.mean())
    return np.concatenate(parts).astype(np.float32)


def _start(n: int, n_features: int, settings: ClassifierSettings) -> list[Tensor]:
    """Return parameters of n networks of the shape of `networks.classifier.Classifier`."""
    widths = [n_features, *[settings.n_hidden] * settings.n_layers, 1]
    parameters = []
    for n_in, n_out in pairwise(widths):
        # As torch.nn.Linear starts.
        for shape in ((n, n_in, n_out), (n, 1, n_out)):
            parameters.append(((2 * torch.rand(shape) - 1) / n_in**0.5).requires_grad_())
    return parameters


def _logits(parameters: list[Tensor], x: Tensor, dropout: float = 0.0) -> Tensor:
    """Return the logits, (n, n_events), of features (n, n_events, n_features)."""
    *inner, last = zip(parameters[::2], parameters[1::2], strict=True)
    for weights, bias in inner:
        x = leaky_relu(torch.baddbmm(bias, x, weights))
        if dropout:
            x = torch.dropout(x, dropout, True)
    return torch.baddbmm(last[1], x, last[0]).squeeze(-1)


def _step(optimiser: torch.optim.Optimizer, logits: Tensor, *labels: Tensor) -> None:
    optimiser.zero_grad()
    # Summed over networks: each one's gradient is that of its own mean.
    cross_entropies(logits, *labels).mean(1).sum().backward()
    optimiser.step()


def _best_epochs(
    current: list[Tensor],
    train_epoch: Callable[[], None],
    losses: Callable[[], Tensor],
    *,
    n_epochs: int,
    remedy: str,
    patience: float = torch.inf,
    progress: Callable[[], None] | None = None,
) -> list[Tensor]:
    """Train, and keep of each network its `current` parameters of least loss on validation events.

    It ends early after `patience` epochs in which no network got better.
    """
    kept = [p.detach().clone() for p in current]
    best, waiting = torch.full((len(kept[0]),), torch.inf), 0
    for epoch in range(n_epochs):
        train_epoch()
        with torch.no_grad():
            now = losses().mean(1)
            if not torch.isfinite(now).all():
                raise GenampError(
                    f"classifiers: the loss must be finite, got {now.max():g} in epoch "
                    f"{epoch + 1}; {remedy}"
                )
            better = now < best
            best = torch.where(better, now, best)
            for one, new in zip(kept, current, strict=True):
                one[better] = new[better]
        waiting = 0 if better.any() else waiting + 1
        if progress is not None:
            progress()
        if waiting >= patience:
            break
    return kept


def _joined(samples: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Join truth and generated events of each network, with `signs_and_weights`."""
    return torch.cat(samples, dim=1), *signs_and_weights(*(one.shape[1] for one in samples))


def _check(truth: ArrayLike, generated: ArrayLike, n_folds: int) -> list[Tensor]:
    if n_folds < 3:
        raise ValueError(f"`n_folds` must be at least 3 (train, validate, score), got {n_folds}.")
    arrays = [np.asarray(x, dtype=np.float32) for x in (truth, generated)]
    for name, array in zip(("truth", "generated"), arrays, strict=True):
        if array.ndim != 3 or not array.size or array.shape[1] % n_folds:
            raise ValueError(
                f"`{name}` must be (n_experiments, n_events, n_features) with a multiple of "
                f"{n_folds} events, got shape {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite, got NaN or infinity.")
    if arrays[0].shape[::2] != arrays[1].shape[::2]:
        raise ValueError(
            "`truth` and `generated` must agree in experiments and features, got shapes "
            f"{arrays[0].shape} and {arrays[1].shape}."
        )
    return [torch.as_tensor(array) for array in arrays]
