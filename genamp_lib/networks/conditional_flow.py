"""A conditional neural spline flow: the density of some features given others, fitted and kept.

What to use when: `spline_flow` for a few features without conditions; this one for generators that
are chains of conditional steps, for hundreds of features, and where speed matters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from genamp_lib.networks.fitting import (
    LossCurves,
    Standardised,
    check_continuous,
    check_positive,
    check_table,
    fit_by_epochs,
    fit_from_arrays,
    fit_to_arrays,
    mean_and_scale,
    one_thread,
    seeded,
    split_events,
)
from genamp_lib.store import Arrays, ArtefactStore, Stage

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
# Smallest width, height and slope of a spline's bins, in units of its range.
_SMALLEST = 1e-3
# Added to what the network says, so that a slope is one where it says zero.
_SLOPE_SHIFT = math.log(math.expm1(1.0 - _SMALLEST))
# Norm to which gradients are scaled down.
_LARGEST_GRADIENT = 5.0
# Events at a time outside training: this many stay in a processor's cache.
_CHUNK = 2000


@dataclass(frozen=True)
class ConditionalFlowSettings:
    """Network and training of a conditional flow.

    Attributes:
        n_transforms: Number of coupling blocks; each bends half of the features.
        n_layers: Hidden layers of a block's network.
        n_hidden: Nodes of each hidden layer.
        n_bins: Bins of each spline.
        bound: Standard deviations within which features are bent; the identity acts beyond.
        whitening: Whether features are rotated to principal components of unit variance, the
            preprocessing of the "standard" generator of paper B.
        n_epochs: Passes over the training events; the best one on validation events is kept.
        batch_size: Events per step.
        learning_rate: Peak of Adam's one-cycle learning rate.
        validation_fraction: Part of the events that is kept back to choose the epoch.
        half: Whether fitted parameters are rounded to float16 and kept so.
    """

    n_transforms: int = 10
    n_layers: int = 3
    n_hidden: int = 64
    n_bins: int = 10
    bound: float = 5.0
    whitening: bool = False
    n_epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 2e-3
    validation_fraction: float = 0.1
    half: bool = False

    def __post_init__(self) -> None:
        counts = ("n_transforms", "n_layers", "n_hidden", "n_epochs", "batch_size")
        check_positive(self, *counts, "bound", "learning_rate")
        if not 2 <= self.n_bins <= 100:
            raise ValueError(f"`n_bins` must be from 2 to 100, got {self.n_bins}.")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"`validation_fraction` must be between 0 and 1, got {self.validation_fraction}."
            )


class ConditionalFlow(Standardised):
    """Density of continuous features given conditions, by coupling blocks of splines.

    Each block bends half of the features by monotonic rational-quadratic splines (Durkan et al.,
    arXiv:1906.04032), with knots that a network computes from the other half and the conditions.
    The next block exchanges the halves; every second one divides the features anew, at random but
    the same for all flows of this size. The base density is normal. Features and conditions are
    standardised inside, and `log_prob` and `sample` speak of both as they were given.

    Features must be continuous; conditions may be discrete. A condition outside the range of the
    training events is no error: the answer is then an extrapolation that nothing vouches for.

    Args:
        n_features: Features per event.
        n_conditions: Conditions per event; 0 makes a flow without.
        settings: Size of the network.

    >>> flow = ConditionalFlow(2, 1, ConditionalFlowSettings(n_transforms=2, n_hidden=8))
    >>> flow.log_prob(torch.zeros(7, 2), torch.ones(7, 1)).shape
    torch.Size([7])
    >>> flow.sample(torch.ones(7, 1), generator=torch.Generator().manual_seed(1)).shape
    torch.Size([7, 2])
    """

    def __init__(
        self, n_features: int, n_conditions: int, settings: ConditionalFlowSettings
    ) -> None:
        super().__init__(n_features, torch.float64)
        self.register_buffer("condition_mean", torch.zeros(n_conditions, dtype=torch.float64))
        self.register_buffer("condition_scale", torch.ones(n_conditions, dtype=torch.float64))
        whitening = torch.eye(n_features, dtype=torch.float64) if settings.whitening else None
        self.register_buffer("whitening", whitening)
        self.half_kept = settings.half
        source = torch.Generator().manual_seed(n_features)
        blocks: list[nn.Module] = []
        for number in range(settings.n_transforms):
            if number % 2 == 0:
                order = torch.randperm(n_features, generator=source)
            blocks.append(_Coupling(order, n_conditions, settings))
            order = order.flip(0)
        self.blocks = nn.ModuleList(blocks)

    def set_standardisation(self, features: Tensor, conditions: Tensor) -> None:
        """Take all means and scales from training events, (n, n_features), (n, n_conditions)."""
        super().set_standardisation(features)
        if len(self.condition_mean):
            mean, scale = mean_and_scale(conditions, "conditions")
            self.condition_mean.copy_(mean)
            self.condition_scale.copy_(scale)
        if self.whitening is not None:
            scaled = (features.double() - self.feature_mean) / self.feature_scale
            variances, axes = torch.linalg.eigh(scaled.mT @ scaled / len(scaled))
            if variances[0] < 1e-9:
                raise ValueError(
                    "`features` must not depend on each other linearly for `whitening`, got a "
                    f"principal component of variance {variances[0]:.1g}; drop a feature."
                )
            self.whitening.copy_(axes / variances.sqrt())

    def standardised(self, features: Tensor, conditions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features and conditions as the blocks take them, float32."""
        if conditions is None:
            conditions = features.new_empty(len(features), 0)
        for name, own, mean in (
            ("features", features, self.feature_mean),
            ("conditions", conditions, self.condition_mean),
        ):
            if own.shape != (len(features), len(mean)):
                raise ValueError(
                    f"`{name}` must be ({len(features)}, {len(mean)}), got {tuple(own.shape)}."
                )
        scaled = (features.double() - self.feature_mean) / self.feature_scale
        if self.whitening is not None:
            scaled = scaled @ self.whitening
        conditions = (conditions.double() - self.condition_mean) / self.condition_scale
        return scaled.float(), conditions.float()

    def log_volume(self) -> Tensor:
        """Return the logarithm of standardised volume per volume of the features as given."""
        volume = -self.feature_scale.log().sum()
        if self.whitening is not None:  # its columns are orthogonal
            volume += self.whitening.norm(dim=0).log().sum()
        return volume

    def forward(self, scaled: Tensor, conditions: Tensor) -> Tensor:
        """Return the log density (n,) of standardised features given standardised conditions."""
        # Events last: what is done for each bin is then done for many events at once.
        x, given = scaled.mT.contiguous(), conditions.mT.contiguous()
        log_det = torch.zeros(())
        for block in self.blocks:
            x, own = block(x, given)
            log_det = log_det + own
        return log_det - 0.5 * x.square().sum(0) - 0.5 * len(x) * math.log(2 * math.pi)

    def log_prob(self, features: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the log density (n,) at features (n, n_features) given (n, n_conditions)."""
        return self(*self.standardised(features, conditions)) + self.log_volume()

    @torch.no_grad()
    def sample(self, conditions: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw one event for each row of conditions, (n, n_features), float64.

        Without conditions their shape is (n, 0). The same generator gives the same events.
        """
        base = torch.randn(len(conditions), len(self.feature_mean), generator=generator)
        _, given = self.standardised(base, conditions)
        chunks = []
        for x, own in zip(base.split(_CHUNK), given.split(_CHUNK), strict=True):
            x, own = x.mT.contiguous(), own.mT.contiguous()
            for block in reversed(self.blocks):
                x, _ = block(x, own, inverse=True)
            chunks.append(x.mT)
        scaled = torch.cat(chunks).double()
        if self.whitening is not None:
            scaled = scaled @ (self.whitening / self.whitening.square().sum(0)).mT
        return scaled * self.feature_scale + self.feature_mean

    def stored(self) -> dict[str, Tensor]:
        """Return parameters, in float16 if the settings say so, and all standardisation."""
        kept = torch.float16 if self.half_kept else torch.float32
        return {
            name: tensor.to(kept) if tensor.dtype == torch.float32 else tensor
            for name, tensor in self.state_dict().items()
        }


class _Coupling(nn.Module):
    """Bend the last features of an order, given the first ones and the conditions."""

    def __init__(self, order: Tensor, n_conditions: int, settings: ConditionalFlowSettings) -> None:
        super().__init__()
        n_kept = len(order) // 2
        self.register_buffer("kept", order[:n_kept], persistent=False)
        self.register_buffer("moved", order[n_kept:], persistent=False)
        self.bound = settings.bound
        # One input at least: a single feature without conditions has a constant one.
        self.n_inputs = max(1, n_kept + n_conditions)
        layers: list[nn.Module] = []
        width = self.n_inputs
        for _ in range(settings.n_layers):
            layers += [nn.Linear(width, settings.n_hidden), nn.ReLU()]
            width = settings.n_hidden
        n_outputs = (3 * settings.n_bins - 1) * len(self.moved)
        self.network = nn.Sequential(*layers, nn.Linear(width, n_outputs))

    def forward(
        self, x: Tensor, conditions: Tensor, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return features (n_features, n) and the log-determinant (n,) of the forward way."""
        inputs = torch.cat([x.index_select(0, self.kept), conditions])
        inputs = pad(inputs, (0, 0, 0, self.n_inputs - len(inputs)))
        raw = self.network(inputs.mT).mT.contiguous().unflatten(0, (-1, len(self.moved)))
        moved, slopes = _spline(x.index_select(0, self.moved), raw, self.bound, inverse=inverse)
        return x.index_copy(0, self.moved, moved), slopes.sum(0)


def _spline(x: Tensor, raw: Tensor, bound: float, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Bend x by splines, or invert them; also return the logarithm of their slopes.

    x has any shape, and raw the numbers that each spline follows from, (3 n_bins - 1, *x.shape).
    """
    u = x / (2 * bound) + 0.5
    inside = (u > 0.0) & (u < 1.0)
    u = torch.where(inside, u, 0.5)
    left, bottom, width, height, first, last = _Bin.apply(raw, u.detach(), int(inverse)).unbind(0)
    first, last = (softplus(slope + _SLOPE_SHIFT) + _SMALLEST for slope in (first, last))
    mean = height / width
    bend = first + last - 2 * mean
    if inverse:  # Eqs. (6) to (8) of Durkan et al.
        rise = (u - bottom) / height
        a, b, c = mean - first + rise * bend, first - rise * bend, -mean * rise
        z = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0.0).sqrt())
        product = z * (1 - z)
        below = mean + bend * product
        result = left + z * width
    else:  # Eq. (4)
        z = (u - left) / width
        product = z * (1 - z)
        below = mean + bend * product
        result = bottom + height * (mean * z * z + first * product) / below
    above = last * z * z + 2 * mean * product + first * (1 - z).square()
    log_slope = (above * (mean / below).square()).log()  # Eq. (5)
    return torch.where(inside, (2 * result - 1) * bound, x), torch.where(inside, log_slope, 0.0)


class _Bin(torch.autograd.Function):
    """The bin that u lies in: left, bottom, width, height, and both slopes before the softplus.

    `side` is 0 where u is along the widths and 1 where it is along the heights. The gradient is
    written out, which is faster than that of softmax, sums and choice.
    """

    @staticmethod
    def forward(ctx, raw: Tensor, u: Tensor, side: int) -> Tensor:
        n_bins = (len(raw) + 1) // 3
        shares = raw[: 2 * n_bins].unflatten(0, (2, n_bins)).softmax(1)
        sizes = shares * (1.0 - n_bins * _SMALLEST) + _SMALLEST  # (2, n_bins, *u.shape)
        edges = sizes.cumsum(1)
        number = (u >= edges[side, :-1]).sum(0, keepdim=True)
        both = number.expand(2, *u.shape)[:, None]
        size = sizes.gather(1, both)[:, 0]
        start = edges.gather(1, both)[:, 0] - size
        # At both ends zero, a slope of one, so that the identity continues it.
        slopes = torch.zeros(n_bins + 1, *u.shape, dtype=raw.dtype)
        slopes[1:-1] = raw[2 * n_bins :]
        ctx.save_for_backward(shares, number)
        return torch.cat([start, size, slopes.gather(0, torch.cat([number, number + 1]))])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        shares, number = ctx.saved_tensors
        n_bins = shares.shape[1]
        start, size, slopes = gradient.unflatten(0, (3, 2))
        bins = torch.arange(n_bins).view(-1, *[1] * (gradient.ndim - 1))
        here, before = (bins == number).to(gradient), (bins < number).to(gradient)
        of_sizes = shares * (here * size[:, None] + before * start[:, None])
        of_sizes -= shares * of_sizes.sum(1, keepdim=True)
        of_slopes = here[1:] * slopes[0] + here[:-1] * slopes[1]
        return (
            torch.cat([of_sizes.flatten(0, 1) * (1.0 - n_bins * _SMALLEST), of_slopes]),
            None,
            None,
        )


@dataclass(frozen=True)
class ConditionalFlowFit(LossCurves):
    """A fitted flow and its mean of -log_prob in each epoch.

    Attributes:
        flow: Network with the parameters of the best epoch, in evaluation mode.
    """

    flow: ConditionalFlow = field(repr=False)


def fit_conditional_flow(
    features: ArrayLike,
    conditions: ArrayLike | None = None,
    *,
    settings: ConditionalFlowSettings,
    seed: int,
    checkpoint: Path | None = None,
) -> ConditionalFlowFit:
    """Fit a flow by maximum likelihood and keep its best epoch on validation events.

    Args:
        features: Continuous features of the training events, shape (n_train, n_features).
        conditions: Conditions of the same events, shape (n_train, n_conditions); None without.
        settings: Network and training.
        seed: Seed of the starting values, of the order of the events and of the division into
            fitted and validation events.
        checkpoint: File of the state after each epoch, from which a killed training continues
            with the same numbers; None keeps nothing.

    Raises:
        ValueError: An array is not 2D or not finite, there are fewer than 50 events, a feature is
            not continuous, a condition is constant, or features depend linearly on each other
            where they are whitened.
        GenampError: The loss is not finite, or the checkpoint is of another training.

    >>> rng = np.random.default_rng(0)
    >>> conditions = rng.normal(size=(200, 1))
    >>> features = conditions + rng.normal(size=(200, 2))
    >>> settings = ConditionalFlowSettings(n_transforms=2, n_hidden=8, n_epochs=2)
    >>> fit_conditional_flow(features, conditions, settings=settings, seed=1).train_loss.shape
    (2,)
    """
    x, given = training_events(features, conditions)
    parts = split_events(len(x), validation_fraction=settings.validation_fraction, seed=seed)
    with seeded(seed):
        flow = ConditionalFlow(x.shape[1], given.shape[1], settings)
        flow.set_standardisation(x[parts[0]], given[parts[0]])
        (fitted, fitted_given), checks = (flow.standardised(x[own], given[own]) for own in parts)
        volume = flow.log_volume()
        optimiser = torch.optim.Adam(flow.parameters(), lr=settings.learning_rate, fused=True)
        clip_gradients(optimiser)
        n_steps = settings.n_epochs * -(-len(fitted) // settings.batch_size)
        (best,), curves = fit_by_epochs(
            flow,
            lambda batch: [-flow(fitted[batch], fitted_given[batch]).mean() - volume],
            lambda: -in_chunks(flow, *checks).mean() - volume,
            optimiser,
            torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, n_steps),
            name="conditional flow",
            n_train=len(fitted),
            n_epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            seeds=np.random.SeedSequence(seed).generate_state(settings.n_epochs).tolist(),
            checkpoint=checkpoint,
            key=training_key(x, given, settings, seed),
        )
    flow.load_state_dict(best)
    flow.load_state_dict(flow.stored())  # rounded as it is kept
    return ConditionalFlowFit(curves.train_loss, curves.validation_loss, flow)


def training_events(features: ArrayLike, conditions: ArrayLike | None) -> list[Tensor]:
    """Return training events in float64, or say why a flow cannot be fitted to them."""
    x = check_continuous("features", features)
    given = np.asarray(np.empty((len(x), 0)) if conditions is None else conditions, np.float64)
    if given.ndim != 2 or len(given) != len(x):
        raise ValueError(f"`conditions` must be ({len(x)}, n_conditions), got {given.shape}.")
    if given.size:
        check_table("conditions", given)
    return [torch.tensor(x), torch.tensor(given)]


def training_key(*parts: object) -> str:
    """Return a hash of all that a training depends on: tensors, settings, seeds."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(part.numpy().tobytes())
            part = part.shape
        digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def clip_gradients(optimiser: torch.optim.Optimizer) -> None:
    """Scale large gradients down before each step."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)

    optimiser.register_step_pre_hook(clip)


def in_chunks(flow: nn.Module, scaled: Tensor, conditions: Tensor) -> Tensor:
    """Return the log density (n,) of many standardised events, some at a time."""
    return torch.cat(
        [flow(*p) for p in zip(scaled.split(_CHUNK), conditions.split(_CHUNK), strict=True)]
    )


def log_density(
    flow: ConditionalFlow, features: ArrayLike, conditions: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the log density (n,) at features (n, n_features) given (n, n_conditions)."""
    x, given = (None if part is None else torch.tensor(np.asarray(part, dtype=np.float64))
                for part in (features, conditions))  # fmt: skip
    with one_thread(), torch.no_grad():
        return (in_chunks(flow, *flow.standardised(x, given)).double() + flow.log_volume()).numpy()


def generate_given(
    flow: ConditionalFlow, conditions: ArrayLike, *, seed: int
) -> NDArray[np.float64]:
    """Draw one event for each row of conditions, (n, n_conditions); shape (n, n_features)."""
    given = torch.tensor(np.asarray(conditions, dtype=np.float64))
    with one_thread():
        return flow.sample(given, generator=torch.Generator().manual_seed(seed)).numpy()


@dataclass(frozen=True)
class FlowTask:
    """One training of a conditional flow, whose events are made only if it is not kept.

    Attributes:
        stage: Name, version and inputs of the artefact, and the configuration that the events
            follow from; settings and seed are added to it.
        events: Picklable function of no arguments that returns features and conditions.
        settings: Network and training.
        seed: Seed of the training.
    """

    stage: Stage
    events: Callable[[], tuple[ArrayLike, ArrayLike | None]]
    settings: ConditionalFlowSettings
    seed: int

    @property
    def whole_stage(self) -> Stage:
        """Stage of the fitted flow."""
        flow = {"seed": self.seed, "code_version": CODE_VERSION, **asdict(self.settings)}
        return self.stage.adding(flow=flow)


def fitted_conditional_flows(
    tasks: Sequence[FlowTask], *, store: ArtefactStore, label: str | None = None
) -> list[ConditionalFlowFit]:
    """Return the flows of trainings: kept ones, or fitted now; a killed run continues.

    Args:
        tasks: Trainings.
        store: Store of the flows.
        label: Name of the work in the progress line; that of the first stage when None.

    Raises:
        ValueError: As `fit_conditional_flow`.
        GenampError: As `fit_conditional_flow`, or an artefact is damaged.
    """
    stages = [task.whole_stage for task in tasks]
    work = [(t, store.unfinished(s) / "state") for t, s in zip(tasks, stages, strict=True)]
    found = store.map(stages, _fitted, work, label=label)
    return [flow_from_arrays(a, task.settings) for a, task in zip(found, tasks, strict=True)]


def _fitted(work: tuple[FlowTask, Path]) -> Arrays:
    task, checkpoint = work
    fit = fit_conditional_flow(
        *task.events(), settings=task.settings, seed=task.seed, checkpoint=checkpoint
    )
    return fit_to_arrays(fit.flow, fit)


def flow_from_arrays(
    arrays: Mapping[str, np.ndarray], settings: ConditionalFlowSettings
) -> ConditionalFlowFit:
    """Rebuild a fit with these settings from what `fit_to_arrays` gives."""

    def flow(n_features: int, settings: ConditionalFlowSettings) -> ConditionalFlow:
        return ConditionalFlow(n_features, len(arrays["condition_mean"]), settings)

    return ConditionalFlowFit(*fit_from_arrays(flow, arrays, settings))
