"""The state of a training of many networks: one step, and what is kept between two of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genamp_lib._project import GenampError
from genamp_lib.models.mixture_transformer import MixtureTransformer, starting_parameters
from genamp_lib.models.posterior import GaussianPosterior
from genamp_lib.training._checkpoint import read_checkpoint, write_checkpoint
from genamp_lib.training.ensemble_task import EnsembleTask

# Steps whose mean loss is one point of the loss curve.
LOSS_STEPS = 20
# Streams of random numbers, by the third entry of their seeds.
_START, _ORDER, _NOISE = 1, 2, 3


class TrainingState:
    """Parameters, optimiser and losses of the members after a number of steps.

    No random state is needed: the random numbers of a step follow from the seed and the step.

    Args:
        task: What is fitted; the state is that before the first step.
    """

    def __init__(self, task: EnsembleTask) -> None:
        self.task = task
        self.step = 0
        self.events = torch.from_numpy(np.array(task.training_sets, dtype=np.float32))
        members = range(task.n_members)
        start = starting_parameters(task.network, seeds=[[task.seed, m, _START] for m in members])
        self.losses = torch.full((task.training.n_steps, task.n_members), math.nan)
        # The trained tensors by name, and the factor on the learning rate of each.
        self.tensors = {"parameters": start.requires_grad_()}
        rates = {"parameters": 1.0}
        if task.posterior is not None:
            shape = (task.n_members, task.posterior.n_bayesian(task.network))
            widths = torch.full(shape, task.posterior.start_log_variance)
            self.tensors["log_variances"] = widths.requires_grad_()
            rates["log_variances"] = task.posterior.log_variance_rate
        # The divergence, not the decay of AdamW, is what holds log-variances.
        groups = [
            {
                "params": [tensor],
                "factor": rates[name],
                "weight_decay": task.training.weight_decay if name == "parameters" else 0.0,
            }
            for name, tensor in self.tensors.items()
        ]
        # The second moment averages over about 100 steps: trainings are short.
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.task.training.n_steps

    def advance(self) -> None:
        """Do one step.

        Raises:
            GenampError: A loss was not finite in one of the last `LOSS_STEPS` steps.
        """
        task, tensors = self.task, self.tensors
        batch = self.events.take_along_dim(self._batch()[..., None], dim=1)
        parameters = tensors["parameters"]
        loss = torch.zeros(())
        if task.posterior is not None:
            posterior = GaussianPosterior(task.network, parameters, tensors["log_variances"])
            shape = tensors["log_variances"].shape
            rng = np.random.default_rng([task.seed, self.step, _NOISE])
            noise = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
            parameters = posterior.perturbed(noise)
            divergence = posterior.divergence(task.posterior.prior_sigma).sum()
            loss = task.posterior.beta / self.events.shape[1] * divergence
        losses = -MixtureTransformer(task.network, parameters).log_prob(batch).mean(1)
        self.optimiser.zero_grad()
        (loss + losses.sum()).backward()
        self._limit_gradients()
        for group in self.optimiser.param_groups:
            rate = task.training.rate(self.step)
            group["lr"] = task.training.learning_rate * rate * group["factor"]
        self.optimiser.step()
        self.losses[self.step] = losses.detach()
        self.step += 1
        if self.step % LOSS_STEPS == 0 or self.finished:
            self._check_losses()

    def model(self) -> MixtureTransformer:
        """Return the networks as they are now; Bayesian ones at their means."""
        return MixtureTransformer(self.task.network, self.tensors["parameters"].detach().clone())

    def posterior(self) -> GaussianPosterior | None:
        """Return the posteriors as they are now, None for plain networks."""
        if self.task.posterior is None:
            return None
        widths = self.tensors["log_variances"].detach().clone()
        return GaussianPosterior(self.task.network, self.model().parameters, widths)

    def loss_curve(self) -> np.ndarray:
        """Return means over `LOSS_STEPS` steps, the last over what is left, (n, n_members)."""
        return torch.stack([part.mean(0) for part in self.losses.split(LOSS_STEPS)]).numpy()

    def save(self, path: Path) -> None:
        """Write the state; the file is whole or absent, whenever the process is killed."""
        arrays = {"losses": self.losses}
        for name, tensor in self.tensors.items():
            arrays[name] = tensor.detach()
            for moment, value in self.optimiser.state[tensor].items():
                arrays[f"{name}.{moment}"] = value
        write_checkpoint(path, arrays, key=self.task.key, step=self.step)

    def load(self, path: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            GenampError: The file is damaged or of another task.
        """
        arrays, self.step = read_checkpoint(path, key=self.task.key)
        self.losses = arrays["losses"]
        for name, tensor in self.tensors.items():
            tensor.data.copy_(arrays[name])
            moments = [key for key in arrays if key.startswith(f"{name}.")]
            self.optimiser.state[tensor] = {key.split(".")[1]: arrays[key] for key in moments}

    def _check_losses(self) -> None:
        last = self.losses[max(0, self.step - LOSS_STEPS) : self.step]
        bad = torch.nonzero(~torch.isfinite(last).all(0)).flatten().tolist()
        if bad:
            raise GenampError(
                f"ensemble: the loss must be finite, got {last[-1, bad[0]]:g} for member {bad[0]} "
                f"by step {self.step}; lower `learning_rate`"
            )

    def _batch(self) -> Tensor:
        """Return which events each member takes in this step, shape (n_members, batch_size)."""
        n_train, size = self.events.shape[1], self.task.training.batch_size
        epoch, part = divmod(self.step, n_train // size)
        if self._order[0] != epoch:
            orders = [
                np.random.default_rng([self.task.seed, member, _ORDER, epoch]).permutation(n_train)
                for member in range(self.task.n_members)
            ]
            self._order = epoch, torch.from_numpy(np.stack(orders))
        return self._order[1][:, part * size : (part + 1) * size]

    def _limit_gradients(self) -> None:
        gradients = [tensor.grad for tensor in self.tensors.values()]
        norms = torch.stack([gradient.square().sum(1) for gradient in gradients]).sum(0).sqrt()
        factors = (self.task.training.max_gradient_norm / norms).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors[:, None])
