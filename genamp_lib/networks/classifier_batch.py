"""Cross-fit many classifiers at once, those of many small experiments.

Not for keeping the networks, nor for the paper's settings: cross_fit. Not for one experiment:
tabular. A network of a few thousand
parameters leaves a core waiting for its own overhead. Here all networks of all experiments and
folds take each step together, as batches of matrices. They share nothing but the order in which
they see their events. Networks run in float32 on one thread; the same seed on the same machine
gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import leaky_relu

from genamp_lib._project import GenampError
from genamp_lib.dry_run import first_steps
from genamp_lib.networks.classifier import ClassifierSettings, cross_entropies, signs_and_weights
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
            for batch in first_steps(torch.randperm(events.shape[1]).split(settings.batch_size)):
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
) -> list[Tensor]:
    """Train, and keep of each network its parameters of least loss on validation events."""
    kept = [p.detach().clone() for p in current]
    best = torch.full((len(kept[0]),), torch.inf)
    for epoch in first_steps(range(n_epochs)):
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
