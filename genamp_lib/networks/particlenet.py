"""Fit ParticleNet-Lite with the schedule of paper B, sec. 3; not for multilayer perceptrons.

Several trainings, and of each the epochs of lowest validation loss: the mean of all their outputs
is the classifier. Networks run in float32 on one thread; the same seed on the same machine gives
the same numbers, whether a training was killed and continued or not.

ParticleNet-Lite, the jet classifier of paper B, sec. 3; for fitting it: training.particlenet.

Qu and Gouskos, arXiv:1902.08570, in the small version. Each particle exchanges messages with its
nearest neighbours: first in (eta, phi), then in what the first exchange gave. The real particles of
all jets of a batch lie in one list, so that padding costs nothing and cannot leak into a batch
norm; n_real counts them. A particle with fewer than k others in its jet is its own neighbour for
the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid, relu, softplus

from genamp_lib._project import GenampError
from genamp_lib.networks.fitting import one_thread
from genamp_lib.store import Arrays, ArtefactStore, Stage

N_FEATURES = 7


@dataclass(frozen=True)
class Particles:
    """What the network sees of jets. Slicing gives the jets of the slice.

    Attributes:
        coordinates: eta and phi relative to the jet, shape (n_jets, n_particles, 2), float32.
        features: log pt, log E, eta_rel, phi_rel, dR, log pt_rel, log E_rel; pt and E in GeV;
            shape (n_jets, n_particles, 7), float32, 0 for padding.
        mask: Whether there is a particle, shape (n_jets, n_particles), bool.
    """

    coordinates: torch.Tensor
    features: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: slice | torch.Tensor | np.ndarray) -> Particles:
        if isinstance(index, np.ndarray):
            index = torch.as_tensor(index)
        return Particles(self.coordinates[index], self.features[index], self.mask[index])


def particle_inputs(particles: np.ndarray, jets: np.ndarray) -> Particles:
    """Compute the network's inputs from jets in JetNet's layout.

    Args:
        particles: eta_rel, phi_rel, pt_rel, mask; shape (n_jets, n_particles, 4).
        jets: pt in GeV, eta, mass in GeV, and more that is not used; shape (n_jets, >= 3).

    Raises:
        ValueError: The shapes are others, or a jet has no particle with pt_rel > 0.

    >>> particle = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    >>> inputs = particle_inputs(np.array([particle]), np.array([[1000.0, 0.0, 0.0]]))
    >>> inputs.features[0, 0].tolist()
    [6.90775..., 6.90775..., 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    particles, jets = np.asarray(particles, np.float64), np.asarray(jets, np.float64)
    if particles.ndim != 3 or particles.shape[2] != 4 or not particles.size:
        raise ValueError(
            f"`particles` must have shape (n_jets, n_particles, 4), got {particles.shape}."
        )
    if jets.ndim != 2 or len(jets) != len(particles) or jets.shape[1] < 3:
        raise ValueError(f"`jets` must have shape ({len(particles)}, >= 3), got {jets.shape}.")
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
    """Two edge convolutions, mean over particles, one hidden layer, one logit per jet.

    Args:
        n_neighbours: k of both convolutions, fewer than the particles of a jet's list.
        widths: Layers of each convolution.
        n_hidden: Nodes of the last hidden layer.
        dropout: Dropped fraction of them in training.

    >>> network = ParticleNetLite().eval()
    >>> jets = Particles(torch.rand(5, 9, 2), torch.rand(5, 9, 7), torch.ones(5, 9, dtype=bool))
    >>> network(jets).shape
    torch.Size([5])
    """

    def __init__(
        self,
        *,
        n_neighbours: int = 7,
        widths: tuple[tuple[int, ...], ...] = ((32, 32, 32), (64, 64, 64)),
        n_hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if n_neighbours < 1:
            raise ValueError(f"`n_neighbours` must be positive, got {n_neighbours}.")
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
    """Return the k nearest real particles of each real particle, in the list of real particles.

    Args:
        points: Shape (n_jets, n_particles, n_dimensions).
        mask: Whether there is a particle, shape (n_jets, n_particles).
        k: Number of neighbours; the particle itself where its jet has no more.

    Returns:
        Positions among the real particles, shape (n_real, k).

    >>> points = torch.tensor([[[0.0], [1.0], [3.0], [0.5]]])
    >>> nearest_neighbours(points, torch.tensor([[True, True, True, False]]), 2).tolist()
    [[1, 2], [0, 2], [1, 0]]
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


# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1


@dataclass(frozen=True)
class ParticleNetSettings:
    """The training of paper B, sec. 3.

    Attributes:
        n_trainings: Independent trainings.
        n_best: Epochs of lowest validation loss that are kept of each.
        n_epochs: Passes over the training jets.
        batch_size: Jets per step, both classes together.
        chunk_size: Jets whose gradients are computed at once and added up to a step's. Batch norms
            see one chunk; larger ones leave the processor's cache.
        learning_rate: Of Adam, at the start.
        decay_factor: Factor on the learning rate when the validation loss stops falling.
        patience: Epochs without a better validation loss before that.
    """

    n_trainings: int = 5
    n_best: int = 5
    n_epochs: int = 20
    batch_size: int = 1024
    chunk_size: int = 256
    learning_rate: float = 1e-3
    decay_factor: float = 0.5
    patience: int = 4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if self.n_best > self.n_epochs:
            raise ValueError(
                f"`n_best` must be at most `n_epochs` = {self.n_epochs}, got {self.n_best}."
            )


@dataclass(frozen=True)
class ParticleNetFit:
    """One training.

    Attributes:
        networks: With the parameters of the best epochs, the best first, in evaluation mode.
        train_loss: Mean cross entropy of each epoch, with dropout, shape (n_epochs,).
        validation_loss: The same on the validation jets, without dropout, shape (n_epochs,).
    """

    networks: tuple[ParticleNetLite, ...] = field(repr=False)
    train_loss: np.ndarray
    validation_loss: np.ndarray


def fit_particlenets(
    train: Sequence[Particles],
    validation: Sequence[Particles],
    *,
    settings: ParticleNetSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
    progress: Callable[[str], None] | None = None,
) -> list[ParticleNetFit]:
    """Fit an ensemble, kept as one artefact; a killed run continues with the epoch it was in.

    Args:
        train: Truth and generated jets.
        validation: The same, for the learning rate and the choice of epochs.
        settings: The trainings.
        seed: Of everything.
        store: Where the artefact is kept.
        stage: Name, version, inputs, and the configuration that the jets follow from.
        progress: Called with one line of text per epoch, with an estimate of the time.

    Raises:
        GenampError: A loss is not finite, or an artefact is damaged.
    """
    own = {**asdict(settings), "seed": seed, "code_version": CODE_VERSION}
    whole = replace(stage, configuration={**stage.configuration, "particlenet": own})
    parts = [
        replace(
            whole,
            name=f"{stage.name}-part",
            configuration={**whole.configuration, "training": number},
        )
        for number in range(settings.n_trainings)
    ]

    def compute() -> Arrays:
        arrays: Arrays = {}
        for number, part in enumerate(parts):
            fit = _fit(train, validation, settings, (seed, number), store, part, progress)
            arrays |= {f"{number}.{name}": array for name, array in fit.items()}
        for part in parts:
            store.forget_part(part)
        return arrays

    arrays = store.load_or_compute(whole, compute)
    fits = []
    for number in range(settings.n_trainings):
        networks = []
        for rank in range(settings.n_best):
            prefix = f"{number}.best.{rank}."
            state = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
            networks.append(ParticleNetLite())
            networks[-1].load_state_dict({k: torch.from_numpy(a) for k, a in state.items()})
            networks[-1].eval()
        losses = arrays[f"{number}.losses"]
        fits.append(ParticleNetFit(tuple(networks), losses[:, 0], losses[:, 1]))
    return fits


def particlenet_logits(fits: Sequence[ParticleNetFit], jets: Particles) -> np.ndarray:
    """Return the logit of the mean output C of all networks of an ensemble, (n_jets,), float64.

    Args:
        fits: The trainings.
        jets: Inputs.
    """
    logits = np.stack(
        [
            np.concatenate([chunk.double().numpy() for chunk in _scores(network, jets)])
            for fit in fits
            for network in fit.networks
        ]
    )
    stacked = torch.from_numpy(logits)
    # log mean C - log mean(1 - C); the numbers of networks cancel.
    mean = torch.logsumexp(logsigmoid(stacked), 0) - torch.logsumexp(logsigmoid(-stacked), 0)
    return mean.numpy()


def _fit(
    train: Sequence[Particles],
    validation: Sequence[Particles],
    settings: ParticleNetSettings,
    seed: tuple[int, int],
    store: ArtefactStore,
    part: Stage,
    progress: Callable[[str], None] | None,
) -> Arrays:
    with one_thread(), torch.random.fork_rng(devices=[]):
        training = _Training(train, validation, settings, seed)
        kept = store.kept_part(part)
        if kept is not None:
            training.load(kept)
        while len(training.losses) < settings.n_epochs:
            start = time.perf_counter()
            training.epoch()
            store.keep_part(part, training.arrays())
            if progress is not None:
                left = settings.n_epochs - len(training.losses)
                seconds = left * (time.perf_counter() - start)
                progress(
                    f"training {seed[1] + 1}/{settings.n_trainings}, epoch "
                    f"{len(training.losses)}/{settings.n_epochs}: loss "
                    f"{training.losses[-1][1]:.5f}, about {seconds:.0f} s left"
                )
        return {k: a for k, a in training.arrays().items() if k.startswith(("best.", "losses"))}


class _Training:
    """All that a training goes on from; each epoch has its own seed."""

    def __init__(
        self,
        train: Sequence[Particles],
        validation: Sequence[Particles],
        settings: ParticleNetSettings,
        seed: tuple[int, int],
    ) -> None:
        self.settings, self.seed = settings, seed
        self.train, self.validation = _joined(train), _joined(validation)
        torch.manual_seed(self._seed(0))
        self.network = ParticleNetLite()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=settings.decay_factor, patience=settings.patience
        )
        self.losses: list[tuple[float, float]] = []
        self.best: list[tuple[float, dict[str, torch.Tensor]]] = []  # loss, parameters

    def epoch(self) -> None:
        torch.manual_seed(self._seed(1 + len(self.losses)))
        jets, signs, weights = self.train
        self.network.train()
        total = 0.0
        for batch in torch.randperm(len(jets)).split(self.settings.batch_size):
            self.optimiser.zero_grad()
            for chunk in batch.split(self.settings.chunk_size):
                loss = weights[chunk] * softplus(-signs[chunk] * self.network(jets[chunk]))
                loss = loss.sum() / len(batch)
                loss.backward()
                total += loss.item() * len(batch) / len(jets)
            self.optimiser.step()
        jets, signs, weights = self.validation
        scores = torch.cat(list(_scores(self.network.eval(), jets)))
        check = (weights * softplus(-signs * scores)).mean().item()
        if not np.isfinite([total, check]).all():
            raise GenampError(
                f"ParticleNet-Lite: the loss must be finite, got {total:g} in training and "
                f"{check:g} in validation; lower `learning_rate`"
            )
        self.losses.append((total, check))
        self.schedule.step(check)
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.best = sorted([*self.best, (check, state)], key=lambda one: one[0])
        self.best = self.best[: self.settings.n_best]

    def arrays(self) -> Arrays:
        """All of the state, as named arrays."""
        arrays = {f"network.{k}": v.numpy() for k, v in self.network.state_dict().items()}
        for i, (_, state) in enumerate(self.best):
            arrays |= {f"best.{i}.{k}": v.numpy() for k, v in state.items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            arrays |= {f"adam.{i}.{k}": v.numpy() for k, v in moments.items()}
        schedule = self.schedule.state_dict()
        arrays["best_losses"] = np.array([loss for loss, _ in self.best])
        arrays["schedule"] = np.array(
            [self.optimiser.param_groups[0]["lr"], schedule["best"], schedule["num_bad_epochs"]]
        )
        arrays["losses"] = np.array(self.losses).reshape(-1, 2)
        return {name: np.array(array) for name, array in arrays.items()}

    def load(self, arrays: Arrays) -> None:
        """Continue from what `arrays` gave."""

        def named(prefix: str) -> dict[str, torch.Tensor]:
            return {
                k.removeprefix(prefix): torch.from_numpy(a.copy())
                for k, a in arrays.items()
                if k.startswith(prefix)
            }

        self.network.load_state_dict(named("network."))
        self.best = [
            (float(loss), named(f"best.{i}.")) for i, loss in enumerate(arrays["best_losses"])
        ]
        adam = self.optimiser.state_dict()
        adam["state"] = {i: named(f"adam.{i}.") for i, _ in enumerate(self.network.parameters())}
        self.optimiser.load_state_dict(adam)
        rate, best, n_bad = arrays["schedule"].tolist()
        self.optimiser.param_groups[0]["lr"] = rate
        self.schedule.best, self.schedule.num_bad_epochs = best, int(n_bad)
        self.schedule.last_epoch = len(arrays["losses"])
        self.losses = [tuple(pair) for pair in arrays["losses"].tolist()]

    def _seed(self, step: int) -> int:
        return int(np.random.SeedSequence([*self.seed, step]).generate_state(1)[0])


def _joined(samples: Sequence[Particles]) -> tuple[Particles, torch.Tensor, torch.Tensor]:
    """Join truth and generated jets; weights of mean one balance the classes."""
    sizes = [len(sample) for sample in samples]
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"truth and generated jets must be given, got samples of {sizes} jets.")
    jets = Particles(
        *(
            torch.cat([getattr(sample, name) for sample in samples])
            for name in ("coordinates", "features", "mask")
        )
    )
    signs = torch.cat([torch.ones(sizes[0]), -torch.ones(sizes[1])])
    weights = torch.cat([torch.full((n,), 0.5 * sum(sizes) / n) for n in sizes])
    return jets, signs, weights


def _scores(network: ParticleNetLite, jets: Particles, chunk: int = 512) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for first in range(0, len(jets), chunk):
            yield network(jets[first : first + chunk])
