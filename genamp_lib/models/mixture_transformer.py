"""Many small autoregressive transformers with Gaussian-mixture conditionals, in one computation.

The network of paper A, Eqs. (6)-(8), for ensembles: all members are computed together, so that 40
cost little more time than a few. Not for fitting them: training.ensemble. Not for posteriors over
their parameters: models.posterior, whose draws are members of this same model.

Shapes
    parameters   (n_members, n_parameters), float32: one row is one network, whatever its origin
    features     (n_events, n_features) for all members or (n_members, n_events, n_features)
    log_prob     (n_members, n_events)
    samples      (n_members, n_generated, n_features)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genamp_lib._project import GenampError, replace_file
from genamp_lib.models.mixture_decoder import (
    Decoder,
    MixtureTransformerSettings,
    starting_parameters,
)

__all__ = ["MixtureTransformer", "MixtureTransformerSettings", "starting_parameters"]

# Rows (events times members) computed at a time: their intermediate results stay in the cache.
_CHUNK = 8192


class MixtureTransformer:
    """An ensemble of autoregressive transformers, Eqs. (6) and (7) of paper A.

    The token of x_(i-1) gives weights, means and widths of the Gaussians of
    p(x_i | x_1 ... x_(i-1)); the first one is a start token without a value. Blocks normalise
    first; the normalisation has no parameters because a linear map follows each, and linear maps
    inside of the blocks have a bias only before the GELU, where it is more than a shift of the
    positions' embeddings. One function computes a token from the cached keys and values of those
    before it, for `log_prob` and `sample` alike.

    Args:
        settings: Size of a network.
        parameters: Shape (n_members, n_parameters), float32.

    Raises:
        ValueError: `parameters` has another shape.

    >>> settings = MixtureTransformerSettings(2)
    >>> ensemble = MixtureTransformer(settings, starting_parameters(settings, seeds=[1, 2, 3]))
    >>> events = ensemble.sample(5, generator=torch.Generator().manual_seed(1))
    >>> events.shape, ensemble.log_prob(events).shape
    (torch.Size([3, 5, 2]), torch.Size([3, 5]))
    """

    def __init__(self, settings: MixtureTransformerSettings, parameters: Tensor) -> None:
        if parameters.ndim != 2 or parameters.shape[1] != settings.n_parameters:
            raise ValueError(
                f"`parameters` must be (n_members, {settings.n_parameters}) for {settings}, "
                f"got shape {tuple(parameters.shape)}."
            )
        self.settings = settings
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"MixtureTransformer({self.n_members} members, {self.settings})"

    @property
    def n_members(self) -> int:
        """Networks in the ensemble."""
        return len(self.parameters)

    def members(self, chosen: int | slice | Sequence[int]) -> MixtureTransformer:
        """Return an ensemble of some of the members; a single number gives an ensemble of one."""
        if isinstance(chosen, int):
            chosen = [chosen]
        return MixtureTransformer(self.settings, self.parameters[chosen])

    def log_prob(self, features: Tensor) -> Tensor:
        """Return the log density of events under each member, Eq. (6); it has gradients.

        Args:
            features: Shape (n_events, n_features), or (n_members, n_events, n_features) for
                other events per member.

        Returns:
            Shape (n_members, n_events), float32.

        Raises:
            ValueError: `features` has another shape.
        """
        wanted = (self.n_members, self.settings.n_features)
        features = torch.as_tensor(features, dtype=torch.float32)
        if features.ndim == 2:
            features = features.expand(self.n_members, *features.shape)
        if features.ndim != 3 or (features.shape[0], features.shape[2]) != wanted:
            raise ValueError(
                f"`features` must be (n_events, {wanted[1]}) or ({wanted[0]}, n_events, "
                f"{wanted[1]}), got shape {tuple(features.shape)}."
            )
        tensors = self.tensors()
        chunks = features.split(self.chunk(), dim=1)
        return torch.cat([self._log_prob(tensors, chunk) for chunk in chunks], dim=1)

    @torch.no_grad()
    def sample(self, n_generated: int, *, generator: torch.Generator) -> Tensor:
        """Draw events from each member, one feature after the other.

        Args:
            n_generated: Events per member.
            generator: All randomness comes from it.

        Returns:
            Shape (n_members, n_generated, n_features), float32.

        Raises:
            ValueError: `n_generated` is negative.
        """
        if n_generated < 0:
            raise ValueError(f"`n_generated` must not be negative, got {n_generated}.")
        tensors = self.tensors()
        events = torch.empty(self.n_members, n_generated, self.settings.n_features)
        for chunk in events.split(self.chunk(), dim=1):
            decoder, previous = Decoder(self.settings, tensors), None
            for i in range(self.settings.n_features):
                uniforms = torch.rand(chunk.shape[:2], generator=generator)
                normals = torch.randn(chunk.shape[:2], generator=generator)
                previous = decoder(previous).sample(uniforms, normals)
                chunk[..., i] = previous
        return events

    def save(self, path: Path | str) -> None:
        """Write settings and parameters as safetensors."""
        with replace_file(path) as temporary:
            arrays = {"parameters": self.parameters.detach().contiguous()}
            save_file(arrays, temporary, {"settings": json.dumps(asdict(self.settings))})

    @classmethod
    def load(cls, path: Path | str) -> MixtureTransformer:
        """Read what `save` wrote.

        Raises:
            GenampError: The file is missing, or not one of these.
        """
        try:
            with safe_open(path, framework="pt") as file:
                settings = MixtureTransformerSettings(**json.loads(file.metadata()["settings"]))
                return cls(settings, file.get_tensor("parameters"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise GenampError(f"{path}: must be a saved MixtureTransformer, got {error}") from error

    def decoder(self) -> Decoder:
        """Return what gives the conditional density of one feature after the other."""
        return Decoder(self.settings, self.tensors())

    def chunk(self) -> int:
        """Events to compute at a time."""
        return max(64, _CHUNK // self.n_members)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name, shape (n_members, *shape), as views."""
        shapes = self.settings.shapes
        columns = self.parameters.split([math.prod(shape) for shape in shapes.values()], dim=1)
        return {
            name: column.unflatten(1, shape)
            for (name, shape), column in zip(shapes.items(), columns, strict=True)
        }

    def _log_prob(self, tensors: dict[str, Tensor], features: Tensor) -> Tensor:
        decoder = Decoder(self.settings, tensors)
        total = decoder(None).log_prob(features[..., 0])
        for i in range(1, self.settings.n_features):
            total = total + decoder(features[..., i - 1]).log_prob(features[..., i])
        return total
