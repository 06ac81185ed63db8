"""A neural spline flow, small enough for a laptop; not for fitting it: training.flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import zuko
from torch import nn
from zuko.distributions import DiagNormal
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.gaussianization import ElementWiseTransform
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform

from genamp_lib.models.standardisation import mean_and_scale

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
