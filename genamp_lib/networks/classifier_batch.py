"""Cross-fit the classifiers of many small experiments at once; not for one large: cross_fit.

A network of a few thousand parameters leaves a core waiting for its own overhead. Here all
networks of all experiments and folds take each step together, as batches of matrices. They share
nothing but the order in which they see their events. Networks run in float32 on one thread; the
same seed on the same machine gives the same numbers.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn.functional import leaky_relu, softplus

from genamp_lib._project import GenampError
from genamp_lib.networks.classifier import ClassifierSettings
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
        seed: Of starting values, the order of events and dropout.
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


class _Networks:
    """Multilayer perceptrons with the shape of `models.classifier.Classifier`, side by side."""

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
        n_layers = len(self.parameters) // 2
        for layer in range(n_layers):
            x = torch.baddbmm(self.parameters[2 * layer + 1], x, self.parameters[2 * layer])
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
