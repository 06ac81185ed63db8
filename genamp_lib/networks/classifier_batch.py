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
from torch.nn.functional import leaky_relu, softplus

from genamp_lib._project import GenampError
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import fold_numbers
from genamp_lib.networks.fitting import mean_and_scale, one_thread

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
    fold a network is trained on the others but one, its best epoch is chosen on the one left, and
    both classes carry the same total weight. The learning rate stays as it is: `decay_factor` and
    `patience` are not used.

    Args:
        truth: Features in random order, shape (n_experiments, n_truth, n_features).
        generated: Features in random order, shape (n_experiments, n_generated, n_features).
        settings: Network and training.
        seed: Seed of starting values, the order of events and dropout.
        n_folds: Folds of consecutive events, at least 3; must divide n_truth and n_generated.

    Returns:
        Logits of the truth, shape (n_experiments, n_truth), and of the generated events, float64.

    Raises:
        ValueError: Shapes do not fit, a value is not finite, a feature is constant, or `n_folds`
            is out of range.
        GenampError: A loss is not finite.

    >>> rng = np.random.default_rng(0)
    >>> truth, generated = rng.normal(size=(2, 3, 40, 2))
    >>> logits, _ = cross_fitted_logits_of_many(truth, generated, seed=1,
    ...     settings=ClassifierSettings(n_epochs=1, n_hidden=4))
    >>> logits.shape
    (3, 40)
    """
    samples = _check(truth, generated, n_folds)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _cross_fit(samples, settings, n_folds)


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
    for folds of similar size are ignored.

    Args:
        sizes: Number of events of each sample.
        groups: Group of each event, all samples one after the other; None for no groups.
        seed: Seed of the division.

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

    Args:
        truth: Features of about unit scale, `normal_scores` for instance, (n_truth, n_features).
        generated: Features likewise, (n_generated, n_features).
        folds: Fold of each truth and each generated event, from 0, each fold with events of both.
        seed: Seed of starting values and the order of events.
        n_epochs: Most passes over the training events.
        event_weights: Weights of truth and generated events, of any sign; None for unweighted.
        progress: Called after each epoch.

    Returns:
        Logits of the truth, shape (n_truth,), and of the generated events, float64.

    Raises:
        GenampError: A loss is not finite.

    >>> rng = np.random.default_rng(0)
    >>> truth, generated = rng.normal(size=(2, 80, 2))
    >>> folds = np.arange(80) % 4
    >>> cross_fitted_logits_at_once(truth, generated, (folds, folds), seed=1)[0].shape
    (80,)
    """
    with one_thread(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        events, signs, weights = _joined(
            [torch.as_tensor(np.asarray(x, dtype=np.float32))[None] for x in (truth, generated)]
        )
        weights = weights * torch.as_tensor(_relative(event_weights, len(truth), len(generated)))
        events, fold = events[0], torch.as_tensor(np.concatenate(folds))
        n_folds = int(fold.max()) + 1

        def chosen(keep: Callable[[int], torch.Tensor]) -> torch.Tensor:
            """Positions of events for each network, cut to the smallest number of them."""
            rows = [torch.nonzero(keep(k)).flatten() for k in range(n_folds)]
            rows = [row[torch.randperm(len(row))] for row in rows]
            return torch.stack([row[: min(map(len, rows))] for row in rows])

        train = chosen(lambda k: (fold != k) & (fold != (k + 1) % n_folds))
        check = chosen(lambda k: fold == (k + 1) % n_folds)
        settings = ClassifierSettings(n_layers=2, dropout=0.0)
        networks = _Networks(n_folds, events.shape[1], settings)
        optimiser = torch.optim.Adam(networks.parameters, lr=_LEARNING_RATE, foreach=True)
        average = [p.detach().clone() for p in networks.parameters]
        kept, best = [p.clone() for p in average], torch.full((n_folds,), torch.inf)
        size, n_steps, waiting = min(max(train.shape[1] // 15, 32), 2000), 0, 0
        for epoch in range(n_epochs):
            order = train[:, torch.randperm(train.shape[1])]
            for batch in order[:, : order.shape[1] // size * size].split(size, dim=1):
                with torch.enable_grad():
                    logits = networks(events[batch])
                    loss = (weights[batch] * softplus(-signs[batch] * logits)).mean(1).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                n_steps += 1
                share = 1 - min(_AVERAGED, n_steps / (n_steps + 10))
                torch._foreach_lerp_(average, [p.detach() for p in networks.parameters], share)
            logits = networks.of(average, events[check])
            losses = (weights[check] * softplus(-signs[check] * logits)).mean(1)
            if not torch.isfinite(losses).all():
                raise GenampError(
                    f"classifiers: the loss must be finite, got {losses.max():g} in epoch "
                    f"{epoch + 1}; look for features with values far from all others"
                )
            better = losses < best
            best = torch.where(better, losses, best)
            for one, current in zip(kept, average, strict=True):
                one[better] = current[better]
            waiting = 0 if better.any() else waiting + 1
            if progress is not None:
                progress()
            if waiting >= PATIENCE:
                break
        scale = _calibrated(networks.of(kept, events[check]), signs[check], weights[check])
        scored = torch.empty(len(events))
        for k in range(n_folds):
            own = networks.of([p[[k]] for p in kept], events[None, fold == k])[0]
            scored[fold == k] = scale[k] * own
    logits = scored.double().numpy()
    return logits[: len(truth)], logits[len(truth) :]


def _calibrated(logits: torch.Tensor, signs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
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

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).
        folds: Fold of each truth and each generated event; two folds are scored by one model.
        seed: Seed of the trees.
        event_weights: Weights of truth and generated events; None for unweighted. Trees are grown
            with their sizes, since a leaf of negative ones has no best value: the order that
            results is as good a score for signed weights.

    Returns:
        Logits of the truth and of the generated events; None where scikit-learn is not installed.
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


class _Networks:
    """Multilayer perceptrons with the shape of `networks.classifier.Classifier`, side by side."""

    def __init__(self, n: int, n_features: int, settings: ClassifierSettings) -> None:
        widths = [n_features, *[settings.n_hidden] * settings.n_layers, 1]
        self.dropout = settings.dropout
        self.parameters: list[torch.Tensor] = []
        for n_in, n_out in pairwise(widths):
            # As torch.nn.Linear starts.
            for shape in ((n, n_in, n_out), (n, 1, n_out)):
                start = (2 * torch.rand(shape) - 1) / n_in**0.5
                self.parameters.append(start.requires_grad_())

    def __call__(self, x: torch.Tensor, *, train: bool = False) -> torch.Tensor:
        """Logits, (n, n_events), of features (n, n_events, n_features)."""
        return self.of(self.parameters, x, train=train)

    def of(
        self, parameters: list[torch.Tensor], x: torch.Tensor, *, train: bool = False
    ) -> torch.Tensor:
        """Logits with other parameters of the same kind."""
        n_layers = len(parameters) // 2
        for layer in range(n_layers):
            x = torch.baddbmm(parameters[2 * layer + 1], x, parameters[2 * layer])
            if layer < n_layers - 1:
                x = leaky_relu(x)
                if train and self.dropout:
                    x = torch.dropout(x, self.dropout, True)
        return x.squeeze(-1)


def _cross_fit(
    samples: list[torch.Tensor], settings: ClassifierSettings, n_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    n_experiments = len(samples[0])
    # (n_experiments, n_folds, n_in_fold, n_features)
    parts = [s.unflatten(1, (n_folds, -1)) for s in samples]
    kept = [[(fold + shift) % n_folds for shift in range(2, n_folds)] for fold in range(n_folds)]
    train = [part[:, kept].flatten(2, 3).flatten(0, 1) for part in parts]
    validation = [part[:, [(k + 1) % n_folds for k in range(n_folds)]] for part in parts]
    validation = [part.flatten(0, 1) for part in validation]
    events, signs, weights = _joined(train)
    mean, scale = (
        torch.stack(list(x)).float()[:, None]
        for x in zip(*(mean_and_scale(one) for one in events), strict=True)
    )
    events = (events - mean) / scale
    checks, check_signs, check_weights = _joined([(part - mean) / scale for part in validation])

    networks = _Networks(len(events), events.shape[-1], settings)
    optimiser = torch.optim.Adam(networks.parameters, lr=settings.learning_rate, foreach=True)
    best = torch.full((len(events),), torch.inf)
    best_parameters = [p.detach().clone() for p in networks.parameters]
    for epoch in range(settings.n_epochs):
        for batch in torch.randperm(events.shape[1]).split(settings.batch_size):
            logits = networks(events[:, batch], train=True)
            # Summed over networks: each one's gradient is that of its own mean.
            loss = (weights[batch] * softplus(-signs[batch] * logits)).mean(1).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            check = (check_weights * softplus(-check_signs * networks(checks))).mean(1)
            if not torch.isfinite(check).all():
                raise GenampError(
                    f"classifiers: the loss must be finite, got {check.max():g} in epoch "
                    f"{epoch + 1}; lower `learning_rate`"
                )
            better = check < best
            best = torch.where(better, check, best)
            for chosen, current in zip(best_parameters, networks.parameters, strict=True):
                chosen[better] = current[better]
    networks.parameters = best_parameters
    logits = []
    for part in parts:
        scored = networks((part.flatten(0, 1) - mean) / scale)
        logits.append(scored.reshape(n_experiments, -1).double().numpy())
    return logits[0], logits[1]


def _joined(samples: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Join truth and generated events of each network; weights of mean one balance the classes."""
    sizes = [sample.shape[1] for sample in samples]
    signs = torch.cat([torch.ones(sizes[0]), -torch.ones(sizes[1])])
    weights = torch.cat([torch.full((n,), 0.5 * sum(sizes) / n) for n in sizes])
    return torch.cat(samples, dim=1), signs, weights


def _check(truth: ArrayLike, generated: ArrayLike, n_folds: int) -> list[torch.Tensor]:
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
