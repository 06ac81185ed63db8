"""Fit an ensemble of flows, share its members, continue after a kill; not for one fit: flow.

Fit a neural spline flow by maximum likelihood; not for ensembles: training.flow_ensemble.

Networks run in float32 on one thread; the same seed on the same machine gives the same numbers.

A neural spline flow, small enough for a laptop; not for fitting it: training.flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import ArrayLike
from torch import nn
from zuko.distributions import DiagNormal
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform

from genamp_lib._project import GenampError
from genamp_lib.networks.fitting import mean_and_scale, one_thread, split_events
from genamp_lib.sharing import finished_tasks, map_tasks
from genamp_lib.store import Arrays, ArtefactStore, Stage

# Standardised features are transformed by splines between -BOUND and BOUND, and by the identity
# beyond: the tails of the base density are the tails of the flow.
BOUND = 5.0
# Events at a time in sampling: this many stay in a processor's cache.
_CHUNK = 2000


class Flow(nn.Module):
    """Density of a few continuous features: a neural spline flow of coupling form.

    Rational-quadratic splines (Durkan et al., arXiv:1906.04032), from zuko: each transformation
    bends every other feature, with knots that a network computes from those between; the next one
    bends these. The base density is normal. Sampling is as fast as log_prob. The
    standardisation is inside, by buffers that are part of the state; its Jacobian is part of the
    density, so that `log_prob` and `sample` speak of the features as they were given.

    Features must be continuous: a number of constituents, or a value that many events share, has
    no density, and the likelihood of a flow on it has no upper bound. Hard edges are smeared.
    Take the logarithm of positive features first, it cannot generate negative ones then.

    Shapes: features (n, n_features) -> log_prob (n,). The networks are float32, standardisation and
    log_prob float64.

    Args:
        n_features: Features per event.
        n_transforms: Spline transformations; at least two for each feature to be bent.
        n_hidden: Nodes of each of the two hidden layers of a transformation.
        n_bins: Bins of each spline.

    >>> flow = Flow(2, n_transforms=2, n_hidden=8, n_bins=4)
    >>> flow.set_standardisation(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> flow.log_prob(torch.zeros(7, 2)).shape
    torch.Size([7])
    >>> flow.sample(3, generator=torch.Generator().manual_seed(1)).shape
    torch.Size([3, 2])
    """

    def __init__(self, n_features: int, *, n_transforms: int, n_hidden: int, n_bins: int) -> None:
        super().__init__()
        for name, value, least in (
            ("n_features", n_features, 1),
            ("n_transforms", n_transforms, 1),
            ("n_hidden", n_hidden, 1),
            ("n_bins", n_bins, 2),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        splines: dict[str, Any] = {
            "univariate": partial(MonotonicRQSTransform, bound=BOUND),
            "shapes": [(n_bins,), (n_bins,), (n_bins - 1,)],  # widths, heights, slopes
        }
        transforms: list[nn.Module] = []
        for number in range(n_transforms):
            if n_features == 1:  # nothing to compute the knots from
                transforms.append(ElementWiseTransform(1, **splines))
            else:
                transforms.append(
                    GeneralCouplingTransform(
                        n_features,
                        mask=torch.arange(n_features) % 2 == number % 2,
                        hidden_features=(n_hidden, n_hidden),
                        **splines,
                    )
                )
        base = UnconditionalDistribution(
            DiagNormal, torch.zeros(n_features), torch.ones(n_features), buffer=True
        )
        self.network = zuko.lazy.Flow(transforms, base)
        self.register_buffer("feature_mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("feature_scale", torch.ones(n_features, dtype=torch.float64))

    @property
    def n_features(self) -> int:
        """Features per event."""
        return len(self.feature_mean)

    def set_standardisation(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from training events, shape (n, n_features).

        Raises:
            ValueError: A feature is the same for all events.
        """
        mean, scale = mean_and_scale(features)
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def log_prob(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the density at features of shape (n, n_features)."""
        standardised = (features.double() - self.feature_mean) / self.feature_scale
        return self.network().log_prob(standardised.float()) - self.feature_scale.log().sum()

    def sample(self, n_generated: int, *, generator: torch.Generator) -> torch.Tensor:
        """Draw events, shape (n_generated, n_features), float64; the same for the same generator.

        Args:
            n_generated: Number of events.
            generator: All randomness comes from it.

        Raises:
            ValueError: `n_generated` is negative.
        """
        if n_generated < 0:
            raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
        base = torch.randn(n_generated, self.n_features, generator=generator)
        with torch.no_grad():
            inverse = self.network().transform.inv
            events = torch.cat([inverse(chunk) for chunk in base.split(_CHUNK)])
        return events.double() * self.feature_scale + self.feature_mean


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


# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
_LOSSES = ("train_loss", "validation_loss")


def fit_flows(
    train: ArrayLike,
    *,
    n_members: int,
    settings: FlowSettings,
    seed: int,
    bootstrap: bool = True,
    store: ArtefactStore | None = None,
    stage: Stage | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    label: str = "",
) -> tuple[FlowFit, ...]:
    """Fit an ensemble of flows to the same training sample.

    With `bootstrap` each member has its own draw of the events with replacement and its own
    division: the spread of the members is that of trainings on other samples of n_train events,
    as far as this sample can tell. Without, all have the same events and the same division and
    differ by starting values and the order of the events: their spread says how well the training
    is reproduced, and nothing on how far the sample is off.

    Args:
        train: Continuous features, shape (n_train, n_features).
        n_members: Number of flows.
        settings: Network and training of each.
        seed: Of everything.
        bootstrap: Whether each member draws its own events.
        store: Where the ensemble is kept, as one artefact; until it is complete, finished members
            are kept one by one, so that a killed run continues. None keeps nothing.
        stage: With `store`: name, version and inputs of the artefact, and the configuration that
            `train` follows from; this function's own arguments are added to it.
        jobs: Processes that share the members.
        scheduler: Address of a Dask scheduler to share them with instead.
        label: What the progress line calls the work; no line when empty.

    Raises:
        ValueError: As `fit_flow`, or `n_members` is not positive, or only one of `store` and
            `stage` is given.
        GenampError: An artefact is damaged or was trained on other events.

    >>> train = np.random.default_rng(0).normal(size=(200, 2))
    >>> len(fit_flows(train, n_members=2, settings=FlowSettings(n_epochs=1), seed=1))
    2
    """
    events = check_features(train)
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    if (store is None) != (stage is None):
        raise ValueError("`store` and `stage` must be given together, got only one of them.")
    seeds = [
        [int(x) for x in np.random.SeedSequence([seed, member]).generate_state(2)]
        for member in range(n_members)
    ]
    # (seed of the training, seed of the division)
    tasks = [(first, second if bootstrap else seed) for first, second in seeds]
    fit_member = partial(_member, events, settings, bootstrap)
    share = {"jobs": jobs, "scheduler": scheduler, "label": label}
    if store is None or stage is None:
        return flows_from_arrays(_stack(map_tasks(fit_member, tasks, **share)), settings)

    own = {"seed": seed, "bootstrap": bootstrap, "code_version": CODE_VERSION, **asdict(settings)}
    whole, *parts = (
        replace(
            stage,
            name=stage.name if task is None else f"{stage.name}-member",
            configuration={**stage.configuration, "flow": own, "members": task or n_members},
        )
        for task in (None, *map(list, tasks))
    )
    arrays = store.load_or_compute(
        whole, lambda: _stack(_resumed(fit_member, tasks, parts, store, share))
    )
    for part in parts:
        store.forget_part(part)
    fits = flows_from_arrays(arrays, settings)
    # The key covers what the caller says the events follow from; the stored standardisation tells
    # whether that is true.
    for fit, (_, split_seed) in zip(fits, tasks, strict=True):
        used, _ = split_events(
            len(events),
            validation_fraction=settings.validation_fraction,
            seed=split_seed,
            bootstrap=bootstrap,
        )
        mean = fit.flow.feature_mean.numpy()
        if mean.shape != events.shape[1:] or not np.allclose(mean, events[used].mean(0), rtol=1e-5):
            raise GenampError(
                f"artefact `{stage.name}`: was trained on other events than these; put all that "
                "they follow from into `stage`, or rerun with --fresh"
            )
    return fits


def flows_to_arrays(fits: Sequence[FlowFit]) -> Arrays:
    """Return all that is needed to rebuild an ensemble, as arrays (n_members, ...) by name."""
    return _stack([_to_arrays(fit) for fit in fits])


def flows_from_arrays(
    arrays: Mapping[str, np.ndarray], settings: FlowSettings
) -> tuple[FlowFit, ...]:
    """Rebuild what `flows_to_arrays` took apart.

    Args:
        arrays: Parameters, standardisation and loss curves by name, one row per member.
        settings: The settings that the flows were fitted with.

    Raises:
        GenampError: The arrays are not those of flows with these settings.
    """
    try:
        n_members, n_features = arrays["feature_mean"].shape
        fits = []
        for member in range(n_members):
            flow = new_flow(n_features, settings)
            own = {n: torch.from_numpy(a[member].copy()) for n, a in arrays.items()}
            losses = [own.pop(name).numpy() for name in _LOSSES]
            # zuko's own buffers follow from the settings and are not stored.
            kept = {n: t for n, t in flow.state_dict().items() if n not in _stored(flow)}
            flow.load_state_dict({**kept, **own})
            fits.append(FlowFit(flow.eval(), *losses))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise GenampError(
            f"stored flows: must have the arrays of {settings}, got {reason}; rerun with --fresh"
        ) from error
    return tuple(fits)


def _member(
    events: np.ndarray, settings: FlowSettings, bootstrap: bool, task: tuple[int, int]
) -> Arrays:
    """Fit one member; a pure function for other processes."""
    seed, split_seed = task
    return _to_arrays(
        fit_flow(events, settings=settings, seed=seed, split_seed=split_seed, bootstrap=bootstrap)
    )


def _resumed(
    fit_member: Callable[[tuple[int, int]], Arrays],
    tasks: Sequence[tuple[int, int]],
    parts: Sequence[Stage],
    store: ArtefactStore,
    share: Mapping[str, Any],
) -> list[Arrays]:
    """Fit the members that no killed run has left, and keep each one when it is done."""
    kept = {k: a for k, part in enumerate(parts) if (a := store.kept_part(part)) is not None}
    todo = [k for k in range(len(tasks)) if k not in kept]
    work = [tasks[k] for k in todo]
    for index, arrays in finished_tasks(fit_member, work, done=len(kept), **share):
        store.keep_part(parts[todo[index]], arrays)
        kept[todo[index]] = arrays
    return [kept[k] for k in range(len(tasks))]


def _stored(flow: Flow) -> dict[str, torch.Tensor]:
    standardisation = {"feature_mean": flow.feature_mean, "feature_scale": flow.feature_scale}
    return {**{n: p.detach() for n, p in flow.named_parameters()}, **standardisation}


def _stack(members: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([member[name] for member in members]) for name in members[0]}


def _to_arrays(fit: FlowFit) -> Arrays:
    arrays = {name: tensor.numpy() for name, tensor in _stored(fit.flow).items()}
    return {**arrays, "train_loss": fit.train_loss, "validation_loss": fit.validation_loss}
