"""A neural spline flow of a few continuous features, small enough for a laptop, and its ensembles.

What to use when: `fit_flow` for one generator; `fit_flows` for the ensemble that tells how much one
of them can be trusted, shared by processes and continued after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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

from genamp_lib.networks.fitting import (
    LossCurves,
    Standardised,
    check_continuous,
    check_positive,
    check_trained_on,
    fit_by_epochs,
    fit_from_arrays,
    fit_to_arrays,
    seeded,
    split_events,
)
from genamp_lib.sharing import map_tasks
from genamp_lib.store import Arrays, ArtefactStore, Stage, stacked

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
# Standardised features are transformed by splines between -BOUND and BOUND, and by the identity
# beyond: the tails of the base density are the tails of the flow.
BOUND = 5.0
# Events at a time in sampling: this many stay in a processor's cache.
_CHUNK = 2000


class Flow(Standardised):
    """Density of a few continuous features: a neural spline flow of coupling form.

    Rational-quadratic splines (Durkan et al., arXiv:1906.04032), from zuko: each transformation
    bends every other feature, with knots that a network computes from those between; the next one
    bends these. The base density is normal. The standardisation is inside, and its Jacobian is part
    of the density, so that `log_prob` and `sample` speak of the features as they were given.

    Features must be continuous: a number of constituents, or a value that many events share, has
    no density, and the likelihood of a flow on it has no upper bound. Hard edges are smeared.
    Take the logarithm of positive features first, it cannot generate negative ones then.

    Args:
        n_features: Features per event.
        settings: Size of the network.

    >>> flow = Flow(2, FlowSettings(n_transforms=2, n_hidden=8))
    >>> flow.set_standardisation(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> flow.log_prob(torch.zeros(7, 2)).shape
    torch.Size([7])
    """

    def __init__(self, n_features: int, settings: FlowSettings) -> None:
        super().__init__(n_features, torch.float64)
        n_bins, n_hidden = settings.n_bins, settings.n_hidden
        splines: dict[str, Any] = {
            "univariate": partial(MonotonicRQSTransform, bound=BOUND),
            "shapes": [(n_bins,), (n_bins,), (n_bins - 1,)],  # widths, heights, slopes
        }
        transforms: list[nn.Module] = []
        for number in range(settings.n_transforms):
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

    def log_prob(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the density, (n,), at features of shape (n, n_features)."""
        standardised = (features.double() - self.feature_mean) / self.feature_scale
        return self.network().log_prob(standardised.float()) - self.feature_scale.log().sum()

    def sample(self, n_generated: int, *, generator: torch.Generator) -> torch.Tensor:
        """Draw events, (n_generated, n_features), float64; the same for the same generator."""
        if n_generated < 0:
            raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
        base = torch.randn(n_generated, len(self.feature_mean), generator=generator)
        with torch.no_grad():
            inverse = self.network().transform.inv
            events = torch.cat([inverse(chunk) for chunk in base.split(_CHUNK)])
        return events.double() * self.feature_scale + self.feature_mean


@dataclass(frozen=True)
class FlowSettings:
    """Network and training of a flow.

    Attributes:
        n_transforms: Number of spline transformations; at least two for each feature to be bent.
        n_hidden: Nodes of each of the two hidden layers of a transformation.
        n_bins: Bins of each spline.
        n_epochs: Passes over the training events; the best one on validation events is kept.
        batch_size: Events per step.
        learning_rate: Learning rate of Adam at the start; it falls to zero along a cosine.
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
        counts = ("n_transforms", "n_hidden", "n_epochs", "batch_size")
        check_positive(self, *counts, "learning_rate")
        if self.n_bins < 2:
            raise ValueError(f"`n_bins` must be at least 2, got {self.n_bins}.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"`validation_fraction` must be between 0 and 1, got {self.validation_fraction}."
            )


@dataclass(frozen=True)
class FlowFit(LossCurves):
    """A fitted flow and its mean of -log_prob.

    Attributes:
        flow: Network with the parameters of the best epoch, in evaluation mode.
    """

    flow: Flow = field(repr=False)


def fit_flow(
    train: ArrayLike,
    *,
    settings: FlowSettings,
    seed: int,
    split_seed: int | None = None,
    bootstrap: bool = False,
) -> FlowFit:
    """Fit one flow by maximum likelihood and keep its best epoch on validation events.

    Args:
        train: Continuous features, shape (n_train, n_features).
        settings: Network and training.
        seed: Seed of the starting values and the order of the events.
        split_seed: Seed of the division into fitted and validation events, and of the bootstrap;
            `seed` when None.
        bootstrap: Whether events are drawn from `train` with replacement; see `split_events`.

    Raises:
        ValueError: `train` is not 2D, has fewer than 50 events, is not finite, or has a feature
            that is constant or not continuous.
        GenampError: The loss is not finite.

    >>> train = np.random.default_rng(0).normal(size=(200, 2))
    >>> fit = fit_flow(train, settings=FlowSettings(n_epochs=2), seed=1)
    >>> fit.validation_loss.shape
    (2,)
    """
    events = check_continuous("train", train)
    indices = split_events(
        len(events),
        validation_fraction=settings.validation_fraction,
        seed=seed if split_seed is None else split_seed,
        bootstrap=bootstrap,
    )
    fitted, validation = (torch.from_numpy(events[part]) for part in indices)
    with seeded(seed):
        flow = Flow(events.shape[1], settings)
        flow.set_standardisation(fitted)
        # foreach: the same numbers with a third less time in networks this small.
        optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate, foreach=True)
        n_steps = settings.n_epochs * -(-len(fitted) // settings.batch_size)
        (best,), curves = fit_by_epochs(
            flow,
            lambda batch: [-flow.log_prob(fitted[batch]).mean()],
            lambda: -flow.log_prob(validation).mean(),
            optimiser,
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps),
            name="flow",
            n_train=len(fitted),
            n_epochs=settings.n_epochs,
            batch_size=settings.batch_size,
        )
    flow.load_state_dict(best)
    return FlowFit(curves.train_loss, curves.validation_loss, flow)


def generate(flow: Flow, n_generated: int, *, seed: int) -> np.ndarray:
    """Draw events from a flow, shape (n_generated, n_features), float64."""
    return flow.sample(n_generated, generator=torch.Generator().manual_seed(seed)).numpy()


def fit_flows(
    train: ArrayLike,
    *,
    n_members: int,
    settings: FlowSettings,
    seed: int,
    bootstrap: bool = True,
    store: ArtefactStore | None = None,
    stage: Stage | None = None,
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
        settings: Network and training of each flow.
        seed: Seed of the divisions, the draws and the trainings.
        bootstrap: Whether each member draws its own events.
        store: Store of the ensemble, as one artefact; a killed run continues with the members that
            were not done. None keeps nothing.
        stage: With `store`: name, version and inputs of the artefact, and the configuration that
            `train` follows from; this function's own arguments are added to it.

    Raises:
        ValueError: As `fit_flow`, or `n_members` is not positive, or only one of `store` and
            `stage` is given.
        GenampError: A loss is not finite, or an artefact is damaged or was trained on other events.
    """
    events = check_continuous("train", train)
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    if (store is None) != (stage is None):
        raise ValueError("`store` and `stage` must be given together, got only one of them.")
    tasks = []  # seed of the training, seed of the division
    for member in range(n_members):
        own, split = np.random.SeedSequence([seed, member]).generate_state(2)
        tasks.append((int(own), int(split) if bootstrap else seed))
    fit_member = partial(_fit_member, events, settings, bootstrap)
    if store is None or stage is None:
        return _from_arrays(stacked(map_tasks(fit_member, tasks)), settings)

    flow = {"seed": seed, "bootstrap": bootstrap, "code_version": CODE_VERSION, **asdict(settings)}
    whole = stage.adding(flow=flow, members=n_members)
    arrays = store.combine(whole, fit_member, tasks, stacked)
    fits = _from_arrays(arrays, settings)
    # The key covers what the caller says the events follow from; the stored standardisation tells
    # whether that is true.
    for fit, (_, split_seed) in zip(fits, tasks, strict=True):
        used, _ = split_events(
            len(events),
            validation_fraction=settings.validation_fraction,
            seed=split_seed,
            bootstrap=bootstrap,
        )
        check_trained_on(fit.flow, events[used], stage.name)
    return fits


def _from_arrays(arrays: Mapping[str, np.ndarray], settings: FlowSettings) -> tuple[FlowFit, ...]:
    """Rebuild an ensemble from what `fit_to_arrays` gives, one row per member."""
    n_members = min((len(rows) for rows in arrays.values()), default=0)
    members = ({name: rows[k] for name, rows in arrays.items()} for k in range(n_members))
    return tuple(FlowFit(*fit_from_arrays(Flow, own, settings)) for own in members)


def _fit_member(
    events: np.ndarray, settings: FlowSettings, bootstrap: bool, task: tuple[int, int]
) -> Arrays:
    """Fit one member; a pure function for other processes."""
    seed, split_seed = task
    fit = fit_flow(events, settings=settings, seed=seed, split_seed=split_seed, bootstrap=bootstrap)
    return fit_to_arrays(fit.flow, fit)
