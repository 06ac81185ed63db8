"""Mixtures of Gaussians in one dimension, many at once. Not for the networks that predict them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_LOG_SIGMA = 3.0
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
# Farther out, in probability, than any event of interest; float32 knows no closer to 1.
_SMALLEST_SHARE = 1e-7


@dataclass(frozen=True)
class Mixture:
    """Conditional densities of one feature, Eq. (7) of paper A.

    `output` is what a network predicts, in three blocks of n_components along axis 1: logits of the
    weights, means, logarithms of the widths above `min_sigma`. Its shape is
    (n_members, 3 n_components, n_events), or one event where all have the same density. Events come
    last because sums over so few components are fast that way.
    """

    output: Tensor
    min_sigma: float

    def log_prob(self, values: Tensor) -> Tensor:
        """Return the log density at values of shape (n_members, n_events)."""
        logits, means, sigmas = self._blocks()
        pulls = (values[:, None] - means) / sigmas
        terms = torch.addcmul(logits - sigmas.log(), pulls, pulls, value=-0.5)
        return terms.logsumexp(1) - logits.logsumexp(1) - _HALF_LOG_TWO_PI

    def probability_within(self, half_widths: Sequence[Tensor]) -> Tensor:
        """Return the probabilities of [-h, h], (n_h, n_members, n_events)."""
        logits, means, sigmas = self._blocks()
        weights, scale = 0.5 * logits.softmax(1), math.sqrt(0.5) / sigmas
        rows = []
        for half_width in half_widths:
            h = half_width[:, None]
            both = torch.erf((h - means) * scale) + torch.erf((h + means) * scale)
            rows.append((weights * both).sum(1))
        return torch.stack(rows)

    def sample(self, uniforms: Tensor, normals: Tensor | None = None) -> Tensor:
        """Return values (n_members, n_events): uniforms choose components, normals the place.

        Without normals the place is what is left of uniforms, (n_members or 1, n_events),
        within the component's share: one number per value is enough.
        """
        logits, *_ = self._blocks()
        weights = logits.softmax(1)
        cumulative = weights.cumsum(1)
        # The last entry is 1 but for rounding: not compared.
        chosen = (uniforms[:, None] >= cumulative[:, :-1]).sum(1, keepdim=True)
        n_components = logits.shape[1]

        def pick(tensor: Tensor, block: int) -> Tensor:
            shape = (chosen.shape[0], tensor.shape[1], chosen.shape[2])
            return tensor.expand(shape).gather(1, chosen + block * n_components)[:, 0]

        if normals is None:
            rest = 1.0 - (pick(cumulative, 0) - uniforms) / pick(weights, 0)
            normals = torch.special.ndtri(rest.clamp(_SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE))
        return torch.addcmul(pick(self.output, 1), self._sigma(pick(self.output, 2)), normals)

    def _blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, logarithms = self.output.chunk(3, 1)
        return logits, means, self._sigma(logarithms)

    def _sigma(self, logarithms: Tensor) -> Tensor:
        return logarithms.clamp(max=_MAX_LOG_SIGMA).exp() + self.min_sigma
