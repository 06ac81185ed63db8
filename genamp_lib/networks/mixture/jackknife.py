"""The infinitesimal jackknife: what other training events would have changed, from one network.

What is jackknifed: the probabilities of regions under a trained network, as functions of its
training events. Why: their spread over training samples is what an ensemble measures, at the cost
of many trainings. Here each training event's pull on the parameters of a single network is carried
over to the probabilities, without training it again.

With weight 1 + w_i on training event i, a training of Adam that lasts for a time t (the sum of its
learning rates) ends at parameters that differ, to first order, by::

    D^(1/2) (D^(1/2) F D^(1/2) + 1/t)^(-1) D^(1/2) sum_i w_i s_i / n_train.

s_i is the gradient of log p at event i, F the Fisher information per event, and D what Adam
multiplies gradients with: one over the root mean square of a batch's gradient. 1/t stands for the
end of the training: directions that the events determine too little to be learned within t hardly
move. Training events of another sample are weights of unit variance, which gives the variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from genamp_lib.networks.fitting import warmup_cosine
from genamp_lib.networks.mixture.ensemble import (
    CODE_VERSION,
    EnsembleFit,
    EnsembleSettings,
    EnsembleTask,
    combine_fits,
)
from genamp_lib.networks.mixture.transformer import MixtureTransformer
from genamp_lib.store import Arrays, ArtefactStore

# Part of every artefact's key: raise it when the code here changes the numbers.
_VERSION = 1
# Events whose gradients are computed together: each has a copy of the parameters.
_CHUNK = 250
_ADAM_EPSILON = 1e-8


def sandwich_variances(
    jacobians: tuple[Tensor, Tensor], scores: Iterator[Tensor], fisher: Tensor, *, damping: float
) -> Tensor:
    """Return variances of linear functions of fitted parameters over other training samples.

    Args:
        jacobians: Two independent estimates of the functions' derivatives, each of shape
            (n_functions, n_parameters), so that the noise of neither adds to a variance.
        scores: Gradients of log p at the training events, tables (n_some_events, n_parameters).
        fisher: Gradients of log p at events of the fitted density, (n_events, n_parameters): their
            second moment is the information.
        damping: Addition to the information's eigenvalues, not negative.

    Returns:
        Shape (n_functions,); that of an estimate, which noise can make negative.

    >>> x = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])  # fitted by a normal density of width 1
    >>> one = torch.ones(1, 1)
    >>> sandwich_variances((one, one), iter([x - x.mean()]), one, damping=0.0)  # x.var() / n
    tensor([0.3125], dtype=torch.float64)
    """
    rows = fisher.double() / len(fisher) ** 0.5
    identity = torch.eye(min(rows.shape), dtype=torch.float64)
    if rows.shape[0] >= rows.shape[1]:
        matrix = rows.T @ rows + damping * identity
        moved = [torch.linalg.solve(matrix, j.double().T).T for j in jacobians]
    else:  # fewer events than parameters: Woodbury's identity
        matrix = rows @ rows.T + damping * identity
        moved = [
            (j.double() - torch.linalg.solve(matrix, rows @ j.double().T).T @ rows) / damping
            for j in jacobians
        ]
    pulls = [torch.stack([x @ part.double().T for x in moved]) for part in scores]
    first, second = torch.cat(pulls, dim=2)
    n_train = first.shape[1]
    # A training that ended early has a mean gradient, which no event is responsible for.
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    return (first * second).sum(1) / n_train**2


def region_variances(
    model: MixtureTransformer,
    train: ArrayLike,
    edges: ArrayLike,
    *,
    training: EnsembleSettings,
    n_generated: int = 20_000,
    n_fisher: int = 4000,
    seed: int,
) -> NDArray[np.float64]:
    """Return the variances of a network's region probabilities over other training samples.

    Args:
        model: A single network.
        train: Events that it was trained on, shape (n_train, n_features).
        edges: Radii, increasing from at least 0; the last may be infinite. Shape (n_regions + 1,).
        training: Settings of its training.
        n_generated: Generated events for the derivatives of the probabilities, an even number.
        n_fisher: Number of those that also give the information.
        seed: Seed of the generated events.

    Returns:
        Shape (n_regions,).

    Raises:
        ValueError: `model` has several members, or a number of events is out of range.
    """
    if model.n_members != 1:
        raise ValueError(f"`model` must be one network, got {model.n_members} members.")
    if n_generated < 2 or n_generated % 2:
        raise ValueError(f"`n_generated` must be even and positive, got {n_generated}.")
    if not 1 <= n_fisher <= n_generated:
        raise ValueError(f"`n_fisher` must be 1 to `n_generated`, got {n_fisher}.")
    events = model.sample(n_generated, generator=torch.Generator().manual_seed(seed))[0]
    radii = events.double().norm(dim=1).numpy()
    number = torch.from_numpy(np.digitize(radii, np.asarray(edges)) - 1)
    inside = (number == torch.arange(len(np.asarray(edges)) - 1)[:, None]).float()
    inside -= inside.mean(1, keepdim=True)  # the mean gradient is zero: less noise
    half, start, fisher = n_generated // 2, 0, []
    halves = torch.zeros(2, len(inside), model.settings.n_parameters)
    for part in events.split(_CHUNK):
        gradients = _gradients(model, part)
        weights = inside[:, start : start + len(part)] / half
        cut = min(max(half - start, 0), len(part))
        halves[0] += weights[:, :cut] @ gradients[:cut]
        halves[1] += weights[:, cut:] @ gradients[cut:]
        if start < n_fisher:
            fisher.append(gradients[: n_fisher - start])
        start += len(part)
    information = torch.cat(fisher)
    trained = torch.as_tensor(np.asarray(train), dtype=torch.float32).split(_CHUNK)
    square = sum(_gradients(model, part).square().sum(0) for part in trained) / len(train)
    batch_rms = (square / training.batch_size).sqrt()
    root = (batch_rms + _ADAM_EPSILON).rsqrt()  # the square root of D
    rates = (
        warmup_cosine(i, n_steps=training.n_steps, n_warmup=training.n_warmup)
        for i in range(training.n_steps)
    )
    time = training.learning_rate * sum(rates)
    return sandwich_variances(
        (halves[0] * root, halves[1] * root),
        (_gradients(model, part) * root for part in trained),
        information * root,
        damping=1.0 / time,
    ).numpy()


def fit_jackknife(
    tasks: Sequence[EnsembleTask],
    edges: ArrayLike,
    *,
    n_generated: int = 20_000,
    n_fisher: int = 4000,
    store: ArtefactStore,
    name: str,
) -> NDArray[np.float64]:
    """Fit plain networks and return the variances of their region probabilities; keep these.

    Args:
        tasks: Ensembles to fit.
        edges: Radii, as in `region_variances`.
        n_generated: Generated events, as in `region_variances`.
        n_fisher: Generated events that give the information.
        store: Store of the variances and of the states of unfinished trainings.
        name: Name of the artefact; its key covers tasks, edges and settings.

    Returns:
        Shape (n_networks, n_regions): the members of the first task, then those of the next.

    Raises:
        GenampError: A loss is not finite, or an artefact is damaged.
    """
    radii = np.asarray(edges, dtype=np.float64)
    settings = {"n_generated": n_generated, "n_fisher": n_fisher}
    arrays = combine_fits(
        name,
        tasks,
        partial(_variances, radii, settings),
        store=store,
        version=_VERSION,
        fit_version=CODE_VERSION,
        edges=[repr(edge) for edge in radii.tolist()],
        **settings,
    )
    return arrays["variances"]


def _variances(
    edges: NDArray[np.float64], settings: dict[str, int], fit: EnsembleFit, task: EnsembleTask
) -> Arrays:
    rows = [
        region_variances(
            fit.model.members(member),
            train,
            edges,
            training=task.training,
            seed=task.seed + member,
            **settings,
        )
        for member, train in enumerate(task.training_sets)
    ]
    return {"variances": np.stack(rows)}


def _gradients(model: MixtureTransformer, events: Tensor) -> Tensor:
    """Return the gradient of log p at each event, shape (n_events, n_parameters)."""
    copies = model.parameters.repeat(len(events), 1).requires_grad_()
    total = MixtureTransformer(model.settings, copies).log_prob(events[:, None]).sum()
    (gradients,) = torch.autograd.grad(total, copies)
    return gradients
