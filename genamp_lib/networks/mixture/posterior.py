"""A Gaussian posterior over network parameters: the Bayesian network of paper A, Eq. (13).

Its draws are members of an ordinary `MixtureTransformer`, so that nothing else has to know that a
network is Bayesian.

Not `zuko.bayesian.BayesianModel`: it takes its noise from torch's global generator, copies a module
for each draw, and bends small log-variances, which are studied here. The tests compare with it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genamp_lib.networks.fitting import check_positive
from genamp_lib.networks.mixture.transformer import MixtureTransformer, MixtureTransformerSettings

Layers = Literal["last", "all"]


@dataclass(frozen=True)
class PosteriorSettings:
    """What a Bayesian network depends on besides its training events."""

    layers: Layers = "last"  # with a width: the mixtures' layer, or every one
    beta: float = 1.0  # on the divergence from the prior; 1 is the variational bound
    prior_sigma: float = 1.0  # around zero
    start_log_variance: float = -9.0
    log_variance_rate: float = 5.0  # learning rate of the log-variances over that of the means

    def __post_init__(self) -> None:
        if self.layers not in ("last", "all"):
            raise ValueError(f"`layers` must be 'last' or 'all', got {self.layers!r}.")
        if not self.beta >= 0.0:
            raise ValueError(f"`beta` must not be negative, got {self.beta}.")
        check_positive(self, "prior_sigma", "log_variance_rate")

    def n_bayesian(self, network: MixtureTransformerSettings) -> int:
        """Return how many parameters of a network have a width, the last ones of a row."""
        return network.n_last_layer if self.layers == "last" else network.n_parameters


@dataclass(frozen=True)
class GaussianPosterior:
    """Independent normal posteriors q(theta) of an ensemble's parameters, Eq. (13) of paper A."""

    network: MixtureTransformerSettings
    means: Tensor = field(repr=False)  # (n_members, n_parameters)
    log_variances: Tensor = field(repr=False)  # of the last parameters, (n_members, n_bayesian)

    @property
    def n_bayesian(self) -> int:
        """Parameters with a width."""
        return self.log_variances.shape[1]

    def perturbed(self, noise: Tensor) -> Tensor:
        """Return a draw per member for normal noise (n_members, n_bayesian), with gradients."""
        n_fixed = self.network.n_parameters - self.n_bayesian
        fixed, moved = self.means.split([n_fixed, self.n_bayesian], dim=1)
        moved = torch.addcmul(moved, (0.5 * self.log_variances).exp(), noise)
        return torch.cat([fixed, moved], dim=1)

    @torch.no_grad()
    def draw(self, n_draws: int, *, generator: torch.Generator) -> MixtureTransformer:
        """Return draws from the posteriors as an ensemble of n_members * n_draws networks.

        All draws of the first member come first: reshape what is computed from them to
        (n_members, n_draws, ...).
        """
        if n_draws < 1:
            raise ValueError(f"`n_draws` must be positive, got {n_draws}.")
        origin = hashlib.sha256(f"{n_draws} draws".encode())
        for tensor in (self.means, self.log_variances, generator.get_state()):
            origin.update(np.ascontiguousarray(tensor.detach()))
        repeated = GaussianPosterior(
            self.network,
            self.means.repeat_interleave(n_draws, 0),
            self.log_variances.repeat_interleave(n_draws, 0),
        )
        noise = torch.randn(repeated.log_variances.shape, generator=generator)
        drawn = repeated.perturbed(noise)
        return MixtureTransformer(self.network, drawn, origin=origin.digest())

    def divergence(self, prior_sigma: float) -> Tensor:
        """Return KL[q, N(0, prior_sigma^2)] in nats, shape (n_members,)."""
        means = self.means[:, self.network.n_parameters - self.n_bayesian :]
        ratio = (self.log_variances.exp() + means.square()) / prior_sigma**2
        log_ratio = self.log_variances - 2 * math.log(prior_sigma)
        return 0.5 * (ratio - 1 - log_ratio).sum(1)
