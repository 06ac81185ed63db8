"""ParticleNet-Lite, the jet classifier of paper B, sec. 3, and its training.

Qu and Gouskos, arXiv:1902.08570, in the small version. Each particle exchanges messages with its
nearest neighbours: first in (eta, phi), then in what the first exchange gave. The real particles of
all jets of a batch lie in one list, so that padding costs nothing and cannot leak into a batch
norm; n_real counts them. A particle with fewer than k others in its jet is its own neighbour for
the rest.

There are several trainings, and of each the epochs of lowest validation loss are kept: the mean of
all their outputs is the classifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import relu

from genamp_lib.dry_run import first_steps
from genamp_lib.networks.classifier import cross_entropies, signs_and_weights
from genamp_lib.networks.fitting import (
    LossCurves,
    check_positive,
    fit_by_epochs,
    seeded,
)

# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
N_FEATURES = 7


@dataclass(frozen=True)
class Particles:
    """What the network sees of jets, float32. Slicing gives the jets of the slice."""

    coordinates: torch.Tensor  # eta and phi relative to the jet, (n_jets, n_particles, 2)
    features: torch.Tensor  # log pt, log E, eta_rel, phi_rel, dR, log pt_rel, log E_rel; GeV
    mask: torch.Tensor  # whether there is a particle, (n_jets, n_particles)

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | torch.Tensor | np.ndarray) -> Particles:
        if isinstance(index, np.ndarray):
            index = torch.as_tensor(index)
        return Particles(self.coordinates[index], self.features[index], self.mask[index])


def particle_inputs(particles: np.ndarray, jets: np.ndarray) -> Particles:
    """Compute the network's inputs from jets in JetNet's layout.

    Particles (n_jets, n_particles, 4) are eta_rel, phi_rel, pt_rel, mask; jets (n_jets, >= 3) are
    pt in GeV, eta, mass in GeV, and more that is not used.
    """
    particles, jets = np.asarray(particles, np.float64), np.asarray(jets, np.float64)
    eta, phi, pt_rel = (particles[..., i] for i in range(3))
    mask = (particles[..., 3] > 0) & (pt_rel > 0)
    if not mask.any(axis=1).all():
        raise ValueError(
            "every jet must have a particle with pt_rel > 0, got none in jet "
            f"{int(np.argmin(mask.any(axis=1)))}."
        )
    pt_jet, eta_jet, mass = (jets[:, i, None] for i in range(3))
    energy_jet = np.hypot(pt_jet * np.cosh(eta_jet), mass)
    pt = np.where(mask, pt_rel, 1.0) * pt_jet
    energy = pt * np.cosh(eta_jet + eta)
    columns = (
        np.log(pt),
        np.log(energy),
        eta,
        phi,
        np.hypot(eta, phi),
        np.log(pt / pt_jet),
        np.log(energy / energy_jet),
    )
    features = np.stack(columns, axis=-1) * mask[..., None]
    return Particles(
        torch.as_tensor((particles[..., :2] * mask[..., None]).astype(np.float32)),
        torch.as_tensor(features.astype(np.float32)),
        torch.as_tensor(mask),
    )


class ParticleNetLite(nn.Module):
    """Two edge convolutions, mean over particles, one hidden layer, one logit per jet."""

    def __init__(
        self,
        *,
        n_neighbours: int = 7,
        widths: tuple[tuple[int, ...], ...] = ((32, 32, 32), (64, 64, 64)),
        n_hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_neighbours = n_neighbours
        self.input_norm = nn.BatchNorm1d(N_FEATURES)
        sizes = [N_FEATURES, *(layers[-1] for layers in widths)]
        self.convolutions = nn.ModuleList(
            _EdgeConvolution(n_in, layers) for n_in, layers in zip(sizes, widths, strict=False)
        )
        self.head = nn.Sequential(
            nn.Linear(sizes[-1], n_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(n_hidden, 1)
        )

    def forward(self, jets: Particles) -> torch.Tensor:
        """Return the logits, shape (n_jets,)."""
        mask = jets.mask
        if mask.shape[1] <= self.n_neighbours:
            raise ValueError(
                f"`n_neighbours` must be less than the {mask.shape[1]} particles of a jet, got "
                f"{self.n_neighbours}."
            )
        jet_of = torch.arange(len(mask)).repeat_interleave(mask.sum(1))  # (n_real,)
        x = self.input_norm(jets.features[mask])  # (n_real, 7)
        points = jets.coordinates
        for convolution in self.convolutions:
            x = convolution(x, nearest_neighbours(points, mask, self.n_neighbours))
            points = x.new_zeros(*mask.shape, x.shape[1])
            points[mask] = x.detach()  # neighbours are chosen, not differentiated
        total = x.new_zeros(len(mask), x.shape[1]).index_add(0, jet_of, x)
        return self.head(total / mask.sum(1, keepdim=True)).squeeze(-1)


def nearest_neighbours(points: torch.Tensor, mask: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k nearest real particles of each, as places in their list, (n_real, k).

    A particle with fewer than k others in its jet is its own neighbour for the rest.
    """
    squares = (points**2).sum(-1)
    distance = torch.baddbmm(squares[:, None, :], points, points.mT, alpha=-2)  # + |x_i|^2
    distance.masked_fill_(~mask[:, None, :], torch.inf)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    values, found = distance.topk(k, dim=-1, largest=False)  # (n_jets, n_particles, k)
    own = torch.arange(mask.shape[1])[:, None]
    found = torch.where(torch.isinf(values), own, found)
    place = (mask.flatten().cumsum(0) - 1).view_as(mask)  # position in the list
    return place.gather(1, found.flatten(1)).view_as(found)[mask]


class _EdgeConvolution(nn.Module):
    """Messages from neighbours, averaged, plus a shortcut."""

    def __init__(self, n_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        # W (x_i, x_j - x_i) = W_1 x_i + W_2 (x_j - x_i): a product per particle, not per edge.
        self.own = nn.Linear(n_in, widths[0], bias=False)
        self.other = nn.Linear(n_in, widths[0], bias=False)
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)
        self.shortcut = nn.Sequential(
            nn.Linear(n_in, widths[-1], bias=False), nn.BatchNorm1d(widths[-1])
        )

    def forward(self, x: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
        """(n_real, n_in) and (n_real, k) -> (n_real, widths[-1])."""
        other = self.other(x)
        edges = other[neighbours] + (self.own(x) - other)[:, None]  # (n_real, k, widths[0])
        edges = relu(self.norms[0](edges.flatten(0, 1)), inplace=True)
        for linear, norm in zip(self.linears, self.norms[1:], strict=True):
            edges = relu(norm(linear(edges)), inplace=True)
        messages = edges.view(*neighbours.shape, -1).mean(1)
        return relu(messages + self.shortcut(x))


@dataclass(frozen=True)
class ParticleNetSettings:
    """The training of paper B, sec. 3."""

    n_trainings: int = 5  # independent ones
    n_best: int = 5  # epochs of lowest validation loss that are kept of each
    n_epochs: int = 20
    batch_size: int = 1024  # jets per step, both classes together
    chunk_size: int = 256  # jets of one gradient and batch norm; more leave the cache
    learning_rate: float = 1e-3  # of Adam at the start
    decay_factor: float = 0.5  # on the learning rate after `patience` epochs without a better loss
    patience: int = 4

    def __post_init__(self) -> None:
        check_positive(self, *asdict(self))
        if self.n_best > self.n_epochs:
            raise ValueError(
                f"`n_best` must be at most `n_epochs` = {self.n_epochs}, got {self.n_best}."
            )


@dataclass(frozen=True)
class ParticleNetFit(LossCurves):
    """One training: its cross entropy (with dropout), and its best networks, the best first."""

    networks: tuple[ParticleNetLite, ...] = field(repr=False)


def fit_particlenet(
    train: Sequence[Particles],
    validation: Sequence[Particles],
    *,
    settings: ParticleNetSettings,
    seed: Sequence[int],
    checkpoint: Path | None = None,
) -> ParticleNetFit:
    """Do one training of an ensemble on truth and generated jets.

    No other training of the ensemble has this seed. A killed training continues from its
    checkpoint, in a folder of this ensemble's.
    """
    jets, labels = _joined(train)
    checks, check_labels = _joined(validation)
    start, *seeds = (
        int(np.random.SeedSequence([*seed, step]).generate_state(1)[0])
        for step in range(1 + settings.n_epochs)
    )
    with seeded(start):
        network = ParticleNetLite()

        def losses(batch: torch.Tensor) -> Iterator[torch.Tensor]:
            for chunk in batch.split(settings.chunk_size):
                own = (x[chunk] for x in labels)
                yield cross_entropies(network(jets[chunk]), *own).sum() / len(batch)

        def validation_loss() -> torch.Tensor:
            return cross_entropies(_scores(network, checks), *check_labels).mean()

        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        best, curves = fit_by_epochs(
            network,
            losses,
            validation_loss,
            optimiser,
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, factor=settings.decay_factor, patience=settings.patience
            ),
            name="ParticleNet-Lite",
            n_train=len(jets),
            n_epochs=settings.n_epochs,
            batch_size=settings.batch_size,
            n_best=settings.n_best,
            seeds=seeds,
            checkpoint=checkpoint,
            key="" if checkpoint is None else f"{checkpoint.parent.name} {checkpoint.stem}",
        )
    networks = [ParticleNetLite() for _ in best]
    for one, state in zip(networks, best, strict=True):
        one.load_state_dict(state)
        one.eval()
    return ParticleNetFit(curves.train_loss, curves.validation_loss, tuple(networks))


def particlenet_logits(networks: Sequence[ParticleNetLite], jets: Particles) -> np.ndarray:
    """Return the logits of each network, shape (n_networks, n_jets), float64."""
    return np.stack([_scores(one, jets).double().numpy() for one in networks])


def _joined(samples: Sequence[Particles]) -> tuple[Particles, tuple[torch.Tensor, torch.Tensor]]:
    """Join truth and generated jets; the second entry is as of `signs_and_weights`."""
    columns = zip(*((x.coordinates, x.features, x.mask) for x in samples), strict=True)
    return Particles(*map(torch.cat, columns)), signs_and_weights(*map(len, samples))


@torch.no_grad()
def _scores(network: ParticleNetLite, jets: Particles, chunk: int = 512) -> torch.Tensor:
    scores = torch.zeros(len(jets))  # as they stay where a dry run passes over
    for first in first_steps(range(0, len(jets), chunk)):
        scores[first : first + chunk] = network(jets[first : first + chunk])
    return scores
