"""Many small autoregressive transformers with Gaussian-mixture conditionals, in one computation.

The network of paper A, Eqs. (6)-(8), for ensembles: all members are computed together, so that 40
cost little more time than a few.

Shapes
    parameters   (n_members, n_parameters), float32: one row is one network, whatever its origin
    features     (n_events, n_features) for all members or (n_members, n_events, n_features)
    log_prob     (n_members, n_events)
    samples      (n_members, n_generated, n_features)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from genamp_lib.networks.fitting import check_positive
from genamp_lib.networks.mixture.density import Mixture

# Rows (events times members) computed at a time: their intermediate results stay in the cache.
_CHUNK = 8192
_FEEDFORWARD_FACTOR = 2
# Means of the components start evenly between -_SPAN and _SPAN, as wide as they are apart.
_SPAN = 1.2


@dataclass(frozen=True)
class MixtureTransformerSettings:
    """Size of one network. Features should be of order one."""

    n_features: int
    width: int = 16  # numbers per token; a multiple of `n_heads`
    n_layers: int = 1
    n_components: int = 5  # Gaussians in each conditional density
    n_heads: int = 4
    min_sigma: float = 0.01  # without it single events get infinite density

    def __post_init__(self) -> None:
        counts = ("n_features", "width", "n_layers", "n_components", "n_heads")
        check_positive(self, *counts, "min_sigma")
        if self.width % self.n_heads:
            raise ValueError(
                f"`width` must be a multiple of `n_heads` = {self.n_heads}, got {self.width}."
            )

    @classmethod
    def for_ring(cls, n_features: int) -> MixtureTransformerSettings:
        """Return the network of the chapters on Gaussian rings: larger for more than 2 features."""
        if n_features <= 2:
            return cls(n_features)
        return cls(n_features, width=24, n_layers=2)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the parameters, in the order of a row; the last layer comes last."""
        width, hidden = self.width, _FEEDFORWARD_FACTOR * self.width
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (1, width),
            "position": (self.n_features, width),
        }
        for layer in range(self.n_layers):
            for name in ("query", "key", "value", "mix_heads"):
                shapes[f"{layer}.{name}"] = (width, width)
            shapes[f"{layer}.hidden"] = (width, hidden)
            shapes[f"{layer}.hidden_bias"] = (1, hidden)
            shapes[f"{layer}.output"] = (hidden, width)
        shapes["mixture"] = (3 * self.n_components, width)
        shapes["mixture_bias"] = (3 * self.n_components, 1)
        return shapes

    @property
    def n_parameters(self) -> int:
        """Parameters of one network."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def n_last_layer(self) -> int:
        """Parameters of the last layer, the last columns of a row."""
        return (self.width + 1) * 3 * self.n_components


class Decoder:
    """Conditional densities of successive features; keys and values of earlier ones are cached.

    Call it with None for the density of the first feature, then with the values of the first
    feature, (n_members, n_events), for the density of the second, and so on.
    """

    def __init__(self, settings: MixtureTransformerSettings, tensors: dict[str, Tensor]) -> None:
        self.settings = settings
        self.tensors = tensors
        self._n_tokens = 0
        self._cache: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(settings.n_layers)]
        # Sums over the numbers of each head as a product of matrices: faster than a reduction.
        width_per_head = settings.width // settings.n_heads
        self._heads = torch.eye(settings.n_heads).repeat_interleave(width_per_head, 0)
        self._scale = width_per_head**-0.5

    def __call__(self, previous: Tensor | None) -> Mixture:
        """Return the density of the next feature, given the values of the one before."""
        t, width = self.tensors, self.settings.width
        token = t["position"][:, self._n_tokens : self._n_tokens + 1]  # (n_members, 1, width)
        self._n_tokens += 1
        if previous is not None:
            token = torch.addcmul(token, previous[..., None], t["embedding"])
        for layer in range(self.settings.n_layers):
            normalised = layer_norm(token, (width,))
            projected = (normalised @ t[f"{layer}.{n}"] for n in ("query", "key", "value"))
            mixed = self._attention(layer, *projected)
            token = torch.baddbmm(token, mixed, t[f"{layer}.mix_heads"])
            normalised = layer_norm(token, (width,))
            hidden = torch.baddbmm(t[f"{layer}.hidden_bias"], normalised, t[f"{layer}.hidden"])
            token = torch.baddbmm(token, gelu(hidden, approximate="tanh"), t[f"{layer}.output"])
        normalised = layer_norm(token, (width,))
        output = torch.baddbmm(t["mixture_bias"], t["mixture"], normalised.mT)
        return Mixture(output, self.settings.min_sigma)

    def _attention(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        cache, heads = self._cache[layer], self._heads
        cache.append((key, value))
        if len(cache) == 1:
            return value  # the start token attends to itself only
        # The start token's key and value are the same for all events: they go into the matrices.
        (start_key, start_value), *others = cache
        scores = [query @ (start_key.mT * heads), *(query * key @ heads for key, _ in others)]
        shares = torch.stack(scores).mul_(self._scale).softmax(0)
        mixed = shares[0] @ (heads.mT * start_value)
        for share, (_, value) in zip(shares[1:], others, strict=True):
            mixed = torch.addcmul(mixed, share @ heads.mT, value)
        return mixed


def starting_parameters(settings: MixtureTransformerSettings, *, seeds: Sequence[int]) -> Tensor:
    """Return random parameters, (n_members, n_parameters), float32, a row per seed on its own."""
    rows = [_starting_row(settings, np.random.default_rng(seed)) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def _starting_row(settings: MixtureTransformerSettings, rng: np.random.Generator) -> np.ndarray:
    shrink = {"mix_heads": 0.5, "output": 0.5, "mixture": 0.1}  # close to the starting mixture
    row = []
    for name, shape in settings.shapes.items():
        part = rng.standard_normal(shape, dtype=np.float32)
        if name == "position":
            part *= 0.5
        elif name == "mixture_bias":
            n = settings.n_components
            part[:] = 0.0
            part[n : 2 * n, 0] = np.linspace(-_SPAN, _SPAN, n)
            part[2 * n :] = np.log(2 * _SPAN / n)
        elif name.endswith("bias"):
            part[:] = 0.0
        else:
            kind = name.split(".")[-1]
            fan_in = settings.width if kind == "mixture" else shape[0]
            part *= shrink.get(kind, 1.0) / math.sqrt(fan_in)
        row.append(part.ravel())
    return np.concatenate(row)


class MixtureTransformer:
    """An ensemble of autoregressive transformers, Eqs. (6) and (7) of paper A.

    The token of x_(i-1) gives weights, means and widths of the Gaussians of
    p(x_i | x_1 ... x_(i-1)); the first one is a start token without a value. Blocks normalise
    first; the normalisation has no parameters because a linear map follows each, and linear maps
    inside of the blocks have a bias only before the GELU, where it is more than a shift of the
    positions' embeddings. One function computes a token from the cached keys and values of those
    before it, for `log_prob` and `sample` alike.

    Args:
        settings: Architecture.
        parameters: Parameters of the networks, shape (n_members, n_parameters).
        origin: What the parameters follow from, where a machine computes them from that by
            functions whose last bits differ between machines; None for the parameters themselves.

    >>> settings = MixtureTransformerSettings(2)
    >>> ensemble = MixtureTransformer(settings, starting_parameters(settings, seeds=[1, 2, 3]))
    >>> events = ensemble.sample(5, generator=torch.Generator().manual_seed(1))
    >>> events.shape, ensemble.log_prob(events).shape
    (torch.Size([3, 5, 2]), torch.Size([3, 5]))
    """

    def __init__(
        self,
        settings: MixtureTransformerSettings,
        parameters: Tensor,
        *,
        origin: bytes | None = None,
    ) -> None:
        if parameters.ndim != 2 or parameters.shape[1] != settings.n_parameters:
            raise ValueError(
                f"`parameters` must be (n_members, {settings.n_parameters}) for {settings}, "
                f"got shape {tuple(parameters.shape)}."
            )
        self.settings = settings
        self.parameters = parameters
        self.origin = origin

    def __repr__(self) -> str:
        return f"MixtureTransformer({self.n_members} members, {self.settings})"

    @property
    def n_members(self) -> int:
        """Networks in the ensemble."""
        return len(self.parameters)

    @property
    def identity(self) -> bytes:
        """What keys of artefacts know the ensemble by, the same on every machine."""
        if self.origin is not None:
            return self.origin
        return self.parameters.detach().numpy().astype("<f4").tobytes()

    def members(self, chosen: int | slice | Sequence[int]) -> MixtureTransformer:
        """Return an ensemble of some of the members; a single number gives an ensemble of one."""
        if isinstance(chosen, int):
            chosen = [chosen]
        origin = self.origin
        if origin is not None:
            origin += str(torch.arange(self.n_members)[chosen].tolist()).encode()
        return MixtureTransformer(self.settings, self.parameters[chosen], origin=origin)

    def log_prob(self, features: Tensor) -> Tensor:
        """Return the log density of events under each member, Eq. (6), (n_members, n_events)."""
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
        """Draw events from each member, one feature after the other, as float32."""
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
