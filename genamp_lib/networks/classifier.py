"""Fit a classifier of truth against generated events; not for what its logits mean: diagnostics.

Networks run in float32 on one thread; the same seed on the same machine gives the same numbers.

The classifier of truth against generated events; not for fitting it: training.classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn.functional import logsigmoid, softplus

from genamp_lib._project import GenampError
from genamp_lib.networks.fitting import mean_and_scale, one_thread
from genamp_lib.store import Arrays


class Classifier(nn.Module):
    """A multilayer perceptron from event features to one logit, as in Tab. 1 of paper B.

    Each hidden layer is linear, leaky ReLU, dropout. The features are standardised inside, by
    buffers that are part of the state, so that a stored classifier takes raw features. The logit
    is log p_truth / p_generated once the network is trained on classes of equal total weight.

    Shapes: features (n, n_features) -> logits (n,), float32.

    Args:
        n_features: Features per event.
        n_layers: Hidden layers.
        n_hidden: Nodes of each hidden layer.
        dropout: Fraction of hidden nodes that is dropped in training.

    >>> classifier = Classifier(2, n_layers=1, n_hidden=3, dropout=0.1)
    >>> classifier.set_standardisation(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> classifier(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    def __init__(self, n_features: int, *, n_layers: int, n_hidden: int, dropout: float) -> None:
        super().__init__()
        for name, value in (
            ("n_features", n_features),
            ("n_layers", n_layers),
            ("n_hidden", n_hidden),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")
        layers: list[nn.Module] = []
        width = n_features
        for _ in range(n_layers):
            layers += [nn.Linear(width, n_hidden), nn.LeakyReLU(), nn.Dropout(dropout)]
            width = n_hidden
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))

    def set_standardisation(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from training events, shape (n, n_features).

        Raises:
            ValueError: A feature is the same for all events.
        """
        mean, scale = mean_and_scale(features)
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n,), of features of shape (n, n_features)."""
        return self.network((features - self.feature_mean) / self.feature_scale).squeeze(-1)


# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1


@dataclass(frozen=True)
class ClassifierSettings:
    """Network and training, with the optimiser of Tab. 1 of paper B.

    Attributes:
        n_layers: Hidden layers.
        n_hidden: Nodes of each hidden layer.
        dropout: Dropped fraction of the hidden nodes.
        n_epochs: Passes over the training events; the best one on validation events is kept.
        batch_size: Events per step, both classes together.
        learning_rate: Of Adam, at the start.
        decay_factor: Factor on the learning rate when the validation loss stops falling.
        patience: Epochs without a better validation loss before that.
    """

    n_layers: int = 3
    n_hidden: int = 64
    dropout: float = 0.1
    n_epochs: int = 30
    batch_size: int = 1000
    learning_rate: float = 1e-3
    decay_factor: float = 0.1
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_hidden", "n_epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1), got {self.dropout}.")
        if not self.learning_rate > 0.0:
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")
        if not 0.0 < self.decay_factor < 1.0:
            raise ValueError(f"`decay_factor` must be between 0 and 1, got {self.decay_factor}.")


@dataclass(frozen=True)
class ClassifierFit:
    """A fitted classifier and how its loss went.

    Attributes:
        classifier: With the parameters of the best epoch, in evaluation mode.
        train_loss: Mean binary cross entropy of each epoch, with dropout, shape (n_epochs,).
        validation_loss: The same on the validation events, without dropout, shape (n_epochs,).
    """

    classifier: Classifier = field(repr=False)
    train_loss: np.ndarray
    validation_loss: np.ndarray

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 0, whose parameters the classifier has."""
        return int(np.argmin(self.validation_loss))


def fit_classifier(
    truth: ArrayLike,
    generated: ArrayLike,
    *,
    validation_truth: ArrayLike,
    validation_generated: ArrayLike,
    settings: ClassifierSettings,
    seed: int,
    progress: Callable[[str], None] | None = None,
    watch: Callable[[int, Classifier], None] | None = None,
) -> ClassifierFit:
    """Fit one classifier of truth (1) against generated (0) events by binary cross entropy.

    Both classes get the same total weight, whatever their sizes: the logit estimates
    log p_truth / p_generated with both densities normalised, Eq. (1) of paper B.

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).
        validation_truth: As `truth`, for the learning rate and the choice of the epoch.
        validation_generated: As `generated`, likewise.
        settings: Network and training.
        seed: Of the starting values, the order of the events and the dropout.
        progress: Called with one line of text per epoch.
        watch: Called after each epoch with its number, from 1, and the classifier as it is then,
            in evaluation mode, to be read only.

    Raises:
        ValueError: An array is empty, not 2D or not finite, the numbers of features differ, or a
            feature is constant.
        GenampError: The loss is not finite.

    >>> rng = np.random.default_rng(0)
    >>> train, validation = rng.normal(size=(2, 2, 50, 1)) + [[[1.0]], [[-1.0]]]
    >>> fit = fit_classifier(train[0], train[1], validation_truth=validation[0],
    ...     validation_generated=validation[1], settings=ClassifierSettings(n_epochs=2), seed=1)
    >>> fit.validation_loss.shape
    (2,)
    """
    train = check_events(truth, generated)
    validation = check_events(validation_truth, validation_generated, "validation_")
    if train[0].shape[1] != validation[0].shape[1]:
        raise ValueError(
            f"`validation_truth` must have {train[0].shape[1]} features as `truth`, "
            f"got {validation[0].shape[1]}."
        )
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fit(train, validation, settings, progress, watch)


def ensemble_logits(classifiers: list[Classifier], features: ArrayLike) -> np.ndarray:
    """Return the logit of the mean output C of classifiers, shape (n,), float64.

    Args:
        classifiers: The members; one is allowed.
        features: Shape (n, n_features).

    >>> classifier = Classifier(2, n_layers=1, n_hidden=3, dropout=0.1)
    >>> ensemble_logits([classifier, classifier], np.zeros((4, 2))).shape
    (4,)
    """
    inputs = torch.as_tensor(np.asarray(features, dtype=np.float32))
    with torch.no_grad():
        logits = torch.stack([c.eval()(inputs).double() for c in classifiers])
    # log mean C - log mean(1 - C), without computing C, which is 0 or 1 for large logits. The
    # numbers of members cancel.
    mean = torch.logsumexp(logsigmoid(logits), 0) - torch.logsumexp(logsigmoid(-logits), 0)
    return mean.numpy()


def classifier_to_arrays(fit: ClassifierFit) -> Arrays:
    """Return all that is needed to rebuild `fit` by `classifier_from_arrays`, as named arrays."""
    arrays = {name: tensor.numpy() for name, tensor in fit.classifier.state_dict().items()}
    return {**arrays, "train_loss": fit.train_loss, "validation_loss": fit.validation_loss}


def classifier_from_arrays(
    arrays: Mapping[str, np.ndarray], settings: ClassifierSettings
) -> ClassifierFit:
    """Rebuild what `classifier_to_arrays` took apart.

    Args:
        arrays: Parameters, standardisation and loss curves by name.
        settings: The settings that the classifier was fitted with.

    Raises:
        GenampError: The arrays are not those of a classifier with these settings.
    """
    try:
        losses = arrays["train_loss"], arrays["validation_loss"]
        classifier = _new_classifier(len(arrays["feature_mean"]), settings)
        classifier.load_state_dict(
            {
                name: torch.from_numpy(array.copy())
                for name, array in arrays.items()
                if name not in ("train_loss", "validation_loss")
            }
        )
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise GenampError(
            f"stored classifier: must have the arrays of {settings}, got {reason}; "
            "rerun with --fresh"
        ) from error
    return ClassifierFit(classifier.eval(), *losses)


def check_events(truth: ArrayLike, generated: ArrayLike, prefix: str = "") -> list[torch.Tensor]:
    """Return the features of both samples as float32 tensors, or say what is wrong with them.

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).
        prefix: Of the names in messages.

    Raises:
        ValueError: An array is empty, not 2D or not finite, or the numbers of features differ.
    """
    samples = []
    for name, events in ((f"{prefix}truth", truth), (f"{prefix}generated", generated)):
        with np.errstate(over="ignore"):  # infinite in float32, which is said below
            array = np.asarray(events, dtype=np.float32)
        if array.ndim != 2 or not array.size:
            raise ValueError(f"`{name}` must be (n_events, n_features), got shape {array.shape}.")
        if not np.isfinite(array).all():
            columns = np.flatnonzero(~np.isfinite(array).all(axis=0)).tolist()
            raise ValueError(
                f"`{name}` must be finite, got NaN or infinity in column(s) {columns}."
            )
        samples.append(torch.as_tensor(array))
    if samples[0].shape[1] != samples[1].shape[1]:
        raise ValueError(
            f"`{prefix}generated` must have {samples[0].shape[1]} features as `{prefix}truth`, "
            f"got {samples[1].shape[1]}."
        )
    return samples


def _fit(
    train: list[torch.Tensor],
    validation: list[torch.Tensor],
    settings: ClassifierSettings,
    progress: Callable[[str], None] | None,
    watch: Callable[[int, Classifier], None] | None,
) -> ClassifierFit:
    classifier = _new_classifier(train[0].shape[1], settings)
    features, signs, weights = _batchable(train)
    classifier.set_standardisation(features)
    checks, check_signs, check_weights = _batchable(validation)
    # foreach: the same numbers with a third less time in networks this small.
    optimiser = torch.optim.Adam(classifier.parameters(), lr=settings.learning_rate, foreach=True)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=settings.decay_factor, patience=settings.patience
    )
    best, best_state = np.inf, {}
    losses: list[tuple[float, float]] = []
    for epoch in range(settings.n_epochs):
        classifier.train()
        total = 0.0
        for batch in torch.randperm(len(features)).split(settings.batch_size):
            loss = _cross_entropy(classifier(features[batch]), signs[batch], weights[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch) / len(features)
        classifier.eval()
        with torch.no_grad():
            check = _cross_entropy(classifier(checks), check_signs, check_weights).item()
        if not np.isfinite([total, check]).all():
            raise GenampError(
                f"classifier: the loss must be finite, got {total:g} in training and {check:g} in "
                f"validation in epoch {epoch + 1}; lower `learning_rate`"
            )
        losses.append((total, check))
        schedule.step(check)
        if check < best:
            best = check
            best_state = {name: value.clone() for name, value in classifier.state_dict().items()}
        if watch is not None:
            watch(epoch + 1, classifier)
        if progress is not None:
            progress(f"epoch {epoch + 1}/{settings.n_epochs}: loss {total:.5f}, {check:.5f}")
    classifier.load_state_dict(best_state)
    return ClassifierFit(classifier.eval(), *np.array(losses).T.copy())


def _new_classifier(n_features: int, settings: ClassifierSettings) -> Classifier:
    return Classifier(
        n_features,
        n_layers=settings.n_layers,
        n_hidden=settings.n_hidden,
        dropout=settings.dropout,
    )


def _cross_entropy(
    logits: torch.Tensor, signs: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    # -log C = softplus(-logit) for truth, -log(1 - C) = softplus(logit) for generated events.
    return (weights * softplus(-signs * logits)).mean()


def _batchable(samples: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Join truth and generated events; weights of mean one that balance the classes."""
    n_all = sum(len(sample) for sample in samples)
    features = torch.cat(samples)
    signs = torch.cat([torch.ones(len(samples[0])), -torch.ones(len(samples[1]))])
    weights = torch.cat([torch.full((len(s),), 0.5 * n_all / len(s)) for s in samples])
    return features, signs, weights
