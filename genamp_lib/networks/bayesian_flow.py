"""The posterior of a fitted conditional flow: how well the training events fix its density.

It starts from the fitted flow and gives each weight a Gaussian, by variational inference. Not for
what the draws mean: genamp_lib.diagnostics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from zuko.bayesian import BayesianModel

from genamp_lib._project import GenampError
from genamp_lib.networks.conditional_flow import (
    ConditionalFlow,
    FlowTask,
    clip_gradients,
    log_density,
    training_events,
    training_key,
)
from genamp_lib.networks.fitting import check_positive, fit_by_steps, seeded
from genamp_lib.store import Arrays, ArtefactStore

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
Layers = Literal["last", "all"]
# Steps between two looks at whether the loss is finite, and steps of the rising learning rates.
_LOSS_STEPS, _N_WARMUP = 100, 50
# Logarithm of a variance that the prior's, one, is as good as reached with, and the fraction of
# such variances with which the events have taught the weights nothing.
_NEAR_PRIOR, _MOST_AT_PRIOR = -0.5, 0.9
# Median relative spread of densities below which draws are one and the same flow.
_LEAST_SPREAD = 1e-3
# Median change of the logarithms of variances below which they are still those at the start.
_LEAST_CHANGE = 0.5


@dataclass(frozen=True)
class PosteriorSettings:
    """Approximation and training of a posterior; the prior of each weight is a unit Gaussian.

    Attributes:
        layers: "last" for the weights of the last layer of each block, whose others stay as fitted;
            "all" for those of all layers.
        mean_rate: Learning rate of the means; 0 freezes them at the fitted flow, so that what this
            flow does well, like a narrow peak, stays.
        variance_rate: Learning rate of the logarithms of the variances. They have further to go
            than the means, and hardly move with the learning rate of these.
        log_variance: Logarithm of all variances at the start.
        n_steps: Number of steps of Adam, with learning rates that fall to zero along a cosine.
        batch_size: Events per step.
    """

    layers: Layers = "last"
    mean_rate: float = 0.0
    variance_rate: float = 0.05
    log_variance: float = -9.0
    n_steps: int = 2000
    batch_size: int = 512

    def __post_init__(self) -> None:
        if self.layers not in get_args(Layers):
            raise ValueError(f"`layers` must be last or all, got {self.layers!r}.")
        check_positive(self, "variance_rate", "n_steps", "batch_size")
        if not self.mean_rate >= 0.0:
            raise ValueError(f"`mean_rate` must not be negative, got {self.mean_rate}.")

    @property
    def trained(self) -> tuple[str, ...]:
        """How names of what is trained, and kept, begin."""
        return ("logvars.", "means.") if self.mean_rate else ("logvars.",)


@dataclass(frozen=True)
class FlowPosterior:
    """Gaussians of a flow's weights.

    Attributes:
        model: Fitted flow with means and variances, of zuko.
        settings: Settings that it was fitted with.
        loss: Mean of -log_prob under noise plus the KL divergence to the prior per training event,
            of each step.
    """

    model: BayesianModel
    settings: PosteriorSettings
    loss: np.ndarray

    @property
    def mean_flow(self) -> ConditionalFlow:
        """The flow whose weights are the means of the posterior."""
        return self._with({name: mean.detach() for name, mean in self.model.means.items()})

    def draw(self, seed: int) -> ConditionalFlow:
        """Return a flow with weights drawn from the posterior."""
        with seeded(seed), torch.no_grad():
            return self._with(self.model.sample_params())

    def log_density(
        self,
        features: ArrayLike,
        conditions: ArrayLike | None = None,
        *,
        n_draws: int,
        seed: int,
    ) -> NDArray[np.float64]:
        """Return the log densities of the first flows drawn with a seed, shape (n_draws, n).

        `features` are (n, n_features) and `conditions` (n, n_conditions).
        """
        seeds = np.random.SeedSequence(seed).generate_state(n_draws).tolist()
        return np.stack([log_density(self.draw(own), features, conditions) for own in seeds])

    def flaw(self, log_densities: ArrayLike) -> str | None:
        """Say in what way the posterior collapsed, if it did; `log_density` is of any events."""
        logs = np.concatenate([x.detach().numpy().ravel() for x in self.model.logvars.values()])
        change = np.median(np.abs(logs - self.settings.log_variance))
        if change < _LEAST_CHANGE:
            return (
                f"the variances are those at the start (median change of their logarithm "
                f"{change:.2g}); raise `variance_rate` or `n_steps`"
            )
        at_prior = np.mean(logs > _NEAR_PRIOR)
        if at_prior > _MOST_AT_PRIOR:
            return f"{at_prior:.0%} of the variances are those of the prior; use more events"
        spread = np.median(relative_spread(log_densities))
        if spread < _LEAST_SPREAD:
            return f"all draws have the same density (median sigma/mu {spread:.1g})"
        return None

    def arrays(self) -> Arrays:
        """Return all that `posterior_from_arrays` needs besides the fitted flow."""
        kept = torch.float16 if self.model.base.half_kept else torch.float32
        arrays = {
            name: tensor.to(kept).numpy()
            for name, tensor in self.model.state_dict().items()
            if name.startswith(self.settings.trained)
        }
        return {**arrays, "loss": self.loss}

    def _with(self, parameters: Mapping[str, torch.Tensor]) -> ConditionalFlow:
        flow = copy.deepcopy(self.model.base)
        own = {name.replace("-", "."): tensor for name, tensor in parameters.items()}
        flow.load_state_dict(own, strict=False)
        return flow


def relative_spread(log_densities: ArrayLike) -> NDArray[np.float64]:
    """Return sigma/mu (n,) of the densities of draws, (n_draws, n), of their logarithms."""
    logs = np.asarray(log_densities, dtype=np.float64)
    densities = np.exp(logs - logs.max(axis=0))
    return densities.std(axis=0, ddof=1) / densities.mean(axis=0)


def fit_posterior(
    flow: ConditionalFlow,
    features: ArrayLike,
    conditions: ArrayLike | None = None,
    *,
    settings: PosteriorSettings,
    seed: int,
    checkpoint: Path | None = None,
) -> FlowPosterior:
    """Fit Gaussians of a fitted flow's weights by maximising the evidence lower bound.

    Args:
        flow: Fitted flow.
        features: Features of the training events, shape (n_train, n_features).
        conditions: Conditions of the same events, shape (n_train, n_conditions); None without.
        settings: Approximation and training.
        seed: Seed of the batches and of the noise.
        checkpoint: File of the state after every 500 steps, from which a killed training continues
            with the same numbers; None keeps nothing.

    Raises:
        ValueError: As `fit_conditional_flow`, or the events have other columns than the flow.
        GenampError: The loss is not finite, or the checkpoint is of another training.
    """
    events = training_events(features, conditions)
    x, given = flow.standardised(*events)
    with seeded(seed):
        model = _new_model(flow, settings)
        groups = [{"params": list(model.logvars.values()), "factor": settings.variance_rate}]
        if settings.mean_rate:
            groups += [{"params": list(model.means.values()), "factor": settings.mean_rate}]
        optimiser = torch.optim.Adam(groups, lr=0.0, fused=True)
        clip_gradients(optimiser)

        def gradients(step: int) -> torch.Tensor:
            torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
            batch = torch.randint(len(x), (settings.batch_size,))
            # Noise of its own for each event: gradients scatter less than with one draw for all.
            with model.reparameterize(local_trick=True) as drawn:
                loss = -drawn(x[batch], given[batch]).mean() - flow.log_volume()
                loss = loss + model.kl_divergence() / len(x)
                loss.backward()
            return loss

        losses = fit_by_steps(
            gradients,
            [optimiser],
            {n: p for n, p in model.named_parameters() if n.startswith(settings.trained)},
            name="posterior",
            n_steps=settings.n_steps,
            learning_rate=1.0,
            n_warmup=_N_WARMUP,
            loss_steps=_LOSS_STEPS,
            checkpoint=checkpoint,
            key=training_key(*events, *flow.state_dict().values(), settings, seed),
        )
    posterior = FlowPosterior(model, settings, losses.float().numpy())
    return posterior_from_arrays(posterior.arrays(), flow, settings)  # rounded as it is kept


def posterior_from_arrays(
    arrays: Mapping[str, np.ndarray], flow: ConditionalFlow, settings: PosteriorSettings
) -> FlowPosterior:
    """Rebuild a posterior of a flow from what `FlowPosterior.arrays` gives."""
    model = _new_model(flow, settings)
    own = {name: torch.tensor(array) for name, array in arrays.items()}
    rest = {n: t for n, t in model.state_dict().items() if not n.startswith(settings.trained)}
    try:
        loss = own.pop("loss").numpy()
        model.load_state_dict({**rest, **own})
        return FlowPosterior(model, settings, loss)
    except (KeyError, RuntimeError) as error:
        raise GenampError(
            f"stored posterior: must have the arrays of this flow and {settings}, got "
            f"{str(error).splitlines()[0]}; rerun with --fresh"
        ) from error


def fitted_posteriors(
    tasks: Sequence[FlowTask],
    flows: Sequence[ConditionalFlow],
    *,
    settings: PosteriorSettings,
    seed: int,
    store: ArtefactStore,
    label: str | None = None,
) -> list[FlowPosterior]:
    """Return the posteriors of flows: kept ones, or fitted now; a killed run continues.

    Args:
        tasks: Trainings of the flows.
        flows: Fitted flows.
        settings: Approximation and training of all posteriors.
        seed: Seed of all posteriors.
        store: Store of the posteriors.
        label: Name of the work in the progress line; that of the first stage when None.

    Raises:
        ValueError: As `fit_posterior`.
        GenampError: As `fit_posterior`, or an artefact is damaged.
    """
    own = {"seed": seed, "code_version": CODE_VERSION, **asdict(settings)}
    stages = [task.whole_stage.adding(posterior=own) for task in tasks]
    work = [
        (task, flow, settings, seed, store.unfinished(stage) / "state")
        for task, flow, stage in zip(tasks, flows, stages, strict=True)
    ]
    found = store.map(stages, _fitted, work, label=label)
    return [posterior_from_arrays(a, f, settings) for a, f in zip(found, flows, strict=True)]


def _fitted(work: tuple[FlowTask, ConditionalFlow, PosteriorSettings, int, Path]) -> Arrays:
    task, flow, settings, seed, checkpoint = work
    posterior = fit_posterior(
        flow, *task.events(), settings=settings, seed=seed, checkpoint=checkpoint
    )
    return posterior.arrays()


def _new_model(flow: ConditionalFlow, settings: PosteriorSettings) -> BayesianModel:
    last = len(flow.blocks[0].network) - 1
    included = "" if settings.layers == "all" else f"blocks.*.network.{last}"
    return BayesianModel(copy.deepcopy(flow), settings.log_variance, include_params=[included])
