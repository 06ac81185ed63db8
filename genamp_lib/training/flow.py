"""Fit a neural spline flow by maximum likelihood; not for ensembles: training.flow_ensemble.

Networks run in float32 on one thread; the same seed on the same machine gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike

from genamp_lib._project import GenampError
from genamp_lib.models.flow import Flow
from genamp_lib.training._threads import one_thread

# With fewer there is nothing to choose an epoch on.
FEWEST_EVENTS = 50


@dataclass(frozen=True)
class FlowSettings:
    """Network and training of a flow.

    Attributes:
        n_transforms: Coupling transformations.
        n_hidden: Nodes of each of the two hidden layers of a transformation.
        n_bins: Bins of each spline.
        n_epochs: Passes over the training events; the best one on validation events is kept.
        batch_size: Events per step.
        learning_rate: Of Adam, at the start; it falls to zero along a cosine.
        validation_fraction: Part of the events that is kept back to choose the epoch.
    """

    n_transforms: int = 6
    n_hidden: int = 32
    n_bins: int = 5
    n_epochs: int = 60
    batch_size: int = 512
    learning_rate: float = 3e-3
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        for name in ("n_transforms", "n_hidden", "n_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.n_bins < 2:
            raise ValueError(f"`n_bins` must be at least 2, got {self.n_bins}.")
        if not self.learning_rate > 0.0:
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"`validation_fraction` must be between 0 and 1, got {self.validation_fraction}."
            )


@dataclass(frozen=True)
class FlowFit:
    """A fitted flow and how its loss went.

    Attributes:
        flow: With the parameters of the best epoch, in evaluation mode.
        train_loss: Mean of -log_prob over each epoch, shape (n_epochs,).
        validation_loss: The same on the validation events after the epoch, shape (n_epochs,).
    """

    flow: Flow = field(repr=False)
    train_loss: np.ndarray
    validation_loss: np.ndarray

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 0, whose parameters the flow has."""
        return int(np.argmin(self.validation_loss))


def split_events(
    n_train: int, *, validation_fraction: float, seed: int, bootstrap: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the training events into those to fit and those to choose the epoch on.

    With `bootstrap`, n_train events are drawn with replacement first. Copies of one event stay
    together: were one copy fitted and another validated, the validation loss would reward learning
    events by heart. So the events are divided, not the copies, and the number to fit fluctuates.

    Args:
        n_train: Number of training events.
        validation_fraction: Part of the events for validation.
        seed: Of the division and of the draw.
        bootstrap: Draw with replacement.

    Returns:
        Indices of the events to fit and of those to validate; they share none. With `bootstrap`
        there are n_train in all, an index as often as it was drawn.

    Raises:
        ValueError: There are too few events for the fraction.

    >>> fit, validation = split_events(1000, validation_fraction=0.2, seed=1, bootstrap=True)
    >>> len(fit) + len(validation), len(np.unique(fit)) < len(fit), np.intersect1d(fit, validation)
    (1000, True, array([], dtype=int64))
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_train)
    n_validation = round(validation_fraction * n_train)
    if not 0 < n_validation < n_train:
        raise ValueError(
            f"`validation_fraction` must leave events on both sides, got {validation_fraction} "
            f"of {n_train} events."
        )
    copies = np.ones(n_train, dtype=np.int64)
    if bootstrap:
        copies = rng.multinomial(n_train, np.full(n_train, 1 / n_train))
    parts = order[n_validation:], order[:n_validation]
    fit, validation = (np.repeat(part, copies[part]) for part in parts)
    return fit, validation


def fit_flow(
    train: ArrayLike,
    *,
    settings: FlowSettings,
    seed: int,
    split_seed: int | None = None,
    bootstrap: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FlowFit:
    """Fit one flow by maximum likelihood and keep its best epoch on validation events.

    Args:
        train: Continuous features, shape (n_train, n_features).
        settings: Network and training.
        seed: Of the starting values and the order of the events.
        split_seed: Of the division into fitted and validation events, and of the bootstrap; `seed`
            when None.
        bootstrap: Fit to events drawn from `train` with replacement; see `split_events`.
        progress: Called with one line of text per epoch.

    Raises:
        ValueError: `train` is not 2D, has fewer than 50 events, is not finite, or has a feature
            that is constant or not continuous.
        GenampError: The loss is not finite.

    >>> train = np.random.default_rng(0).normal(size=(200, 2))
    >>> fit = fit_flow(train, settings=FlowSettings(n_epochs=2), seed=1)
    >>> fit.validation_loss.shape
    (2,)
    """
    events = check_features(train)
    indices = split_events(
        len(events),
        validation_fraction=settings.validation_fraction,
        seed=seed if split_seed is None else split_seed,
        bootstrap=bootstrap,
    )
    parts = [torch.from_numpy(events[part]) for part in indices]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fit(parts[0], parts[1], settings, progress)


def generate(flow: Flow, n_generated: int, *, seed: int) -> np.ndarray:
    """Draw events from a flow, shape (n_generated, n_features), float64.

    >>> flow = Flow(2, n_transforms=2, n_hidden=8, n_bins=4)
    >>> generate(flow, 5, seed=1).shape
    (5, 2)
    """
    return flow.sample(n_generated, generator=torch.Generator().manual_seed(seed)).numpy()


def check_features(train: ArrayLike) -> np.ndarray:
    """Return training events as float64, or say why a flow cannot be fitted to them.

    Args:
        train: Continuous features, shape (n_train, n_features).

    Raises:
        ValueError: They are not 2D, fewer than 50, not finite, or a feature is constant or has
            fewer different values than half the number of events.
    """
    events = np.asarray(train, dtype=np.float64)
    if events.ndim != 2 or not events.shape[1]:
        raise ValueError(f"`train` must be (n_train, n_features), got shape {events.shape}.")
    if len(events) < FEWEST_EVENTS:
        raise ValueError(f"`train` must hold at least {FEWEST_EVENTS} events, got {len(events)}.")
    if not np.isfinite(events).all():
        columns = np.flatnonzero(~np.isfinite(events).all(axis=0)).tolist()
        raise ValueError(f"`train` must be finite, got NaN or infinity in column(s) {columns}.")
    for column, values in enumerate(events.T):
        n_different = len(np.unique(values))
        if n_different < len(events) / 2:
            raise ValueError(
                f"`train` must hold continuous features, got {n_different} different values for "
                f"{len(events)} events in column {column}; drop it, or undo its rounding by noise."
            )
    return events


def _fit(
    train: torch.Tensor,
    validation: torch.Tensor,
    settings: FlowSettings,
    progress: Callable[[str], None] | None,
) -> FlowFit:
    flow = new_flow(train.shape[1], settings)
    flow.set_standardisation(train)
    # foreach: the same numbers with a third less time in networks this small.
    optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate, foreach=True)
    n_steps = settings.n_epochs * -(-len(train) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    best, best_state = np.inf, {}
    losses: list[tuple[float, float]] = []
    for epoch in range(settings.n_epochs):
        flow.train()
        total = 0.0
        for batch in torch.randperm(len(train)).split(settings.batch_size):
            loss = -flow.log_prob(train[batch]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(batch) / len(train)
        flow.eval()
        with torch.no_grad():
            check = -flow.log_prob(validation).mean().item()
        if not np.isfinite([total, check]).all():
            raise GenampError(
                f"flow: the loss must be finite, got {total:g} in training and {check:g} in "
                f"validation in epoch {epoch + 1}; lower `learning_rate`"
            )
        losses.append((total, check))
        if check < best:
            best = check
            best_state = {name: value.clone() for name, value in flow.state_dict().items()}
        if progress is not None:
            progress(f"epoch {epoch + 1}/{settings.n_epochs}: loss {total:.5f}, {check:.5f}")
    flow.load_state_dict(best_state)
    return FlowFit(flow.eval(), *np.array(losses).T.copy())


def new_flow(n_features: int, settings: FlowSettings) -> Flow:
    """Return an untrained flow with the sizes in `settings`."""
    return Flow(
        n_features,
        n_transforms=settings.n_transforms,
        n_hidden=settings.n_hidden,
        n_bins=settings.n_bins,
    )
