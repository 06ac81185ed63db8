"""What all trainings share: a loop by epochs, a loop by steps, checkpoints, standardised features.

The loops know nothing of the model: they call what computes a loss. Networks run in float32 on one
thread; the same seed on the same machine gives the same numbers, bit for bit, also where a
training was killed and continued from its checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from genamp_lib._project import GenampError, replace_file
from genamp_lib.dry_run import first_steps, is_dry
from genamp_lib.store import Arrays

# With fewer there is nothing to choose an epoch on.
FEWEST_EVENTS = 50


@dataclass(frozen=True)
class LossCurves:
    """Mean losses of each epoch: over its batches, and on the validation events after it."""

    train_loss: np.ndarray
    validation_loss: np.ndarray


def fit_by_epochs(
    network: nn.Module,
    losses: Callable[[Tensor], Iterable[Tensor]],
    validation_loss: Callable[[], Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: LRScheduler | ReduceLROnPlateau,
    *,
    name: str,
    n_train: int,
    n_epochs: int,
    batch_size: int,
    n_best: int = 1,
    seeds: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    watch: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Tensor]], LossCurves]:
    """Train in place; return the states of the best epochs, the best first, and the losses of all.

    `losses` gives terms of the mean loss of a batch (indices of training events), each
    differentiated on its own, so that a batch may be larger than memory allows.
    `ReduceLROnPlateau` looks at the validation loss of each epoch, any other schedule takes a
    step after each batch. `seeds` are those of torch's generator for each epoch; without them a
    training that continues from a checkpoint has other numbers. `key` names the training in its
    checkpoint, and `name` in messages; `watch` gets the number of each finished epoch, from 1.
    """
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    history: list[tuple[float, float]] = []
    best: list[tuple[float, dict[str, Tensor]]] = []
    checkpoint = None if is_dry() else checkpoint
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint, key=key)
        for part, module in parts.items():
            module.load_state_dict(state[part])
        history, best = state["history"], state["best"]
    for epoch in first_steps(range(len(history), n_epochs)):
        if seeds is not None:
            torch.manual_seed(seeds[epoch])
        network.train()
        total = 0.0
        for batch in first_steps(torch.randperm(n_train).split(batch_size)):
            optimiser.zero_grad()
            for loss in losses(batch):
                loss.backward()
                total += loss.item() * len(batch) / n_train
            optimiser.step()
            if not isinstance(schedule, ReduceLROnPlateau):
                schedule.step()
        network.eval()
        with torch.no_grad():
            check = validation_loss().item()
        if not np.isfinite([total, check]).all():
            raise GenampError(
                f"{name}: the loss must be finite, got {total:g} in training and {check:g} in "
                f"validation in epoch {epoch + 1}; lower `learning_rate`"
            )
        history.append((total, check))
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(check)
        if len(best) < n_best or check < best[-1][0]:
            own = {entry: value.clone() for entry, value in network.state_dict().items()}
            best = sorted([*best, (check, own)], key=lambda one: one[0])[:n_best]
        if checkpoint is not None:
            states = {part: module.state_dict() for part, module in parts.items()}
            write_checkpoint(checkpoint, {**states, "history": history, "best": best}, key=key)
        if watch is not None:
            watch(epoch + 1)
    for epoch in range(len(history), n_epochs):  # that a dry run passed over
        history.append(history[-1])
        if watch is not None:
            watch(epoch + 1)
    return [own for _, own in best], LossCurves(*np.array(history).T.copy())


def fit_by_steps(
    gradients: Callable[[int], Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    *,
    name: str,
    n_steps: int,
    learning_rate: float,
    n_warmup: int,
    loss_steps: int,
    after: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 500,
    key: str = "",
    stop_at: int | None = None,
) -> Tensor:
    """Train for some steps; a training that is stopped and continued ends with the same bits.

    For that the random numbers of a step must follow from its number. `gradients` computes the
    loss of a step, counted from 0, and its gradients, and returns one number, or one per member.
    The learning rate is that of `warmup_cosine`, times the entry "factor" of a group of parameters.
    `tensors` are parameters and all else that changes; a checkpoint is read into them. `after` gets
    the number of finished steps; `loss_steps` are between two looks at whether the loss is finite.
    """
    losses: list[Tensor] = []
    checkpoint = None if is_dry() else checkpoint
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint, key=key)
        losses = list(state["losses"])
        with torch.no_grad():
            for entry, tensor in tensors.items():
                tensor.copy_(state["tensors"][entry])
        for optimiser, own in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(own)
    last = n_steps if stop_at is None else min(stop_at, n_steps)
    for step in first_steps(range(len(losses), last)):
        for optimiser in optimisers:
            optimiser.zero_grad()
        losses.append(gradients(step).detach())
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                rate = warmup_cosine(step, n_steps=n_steps, n_warmup=n_warmup)
                group["lr"] = learning_rate * rate * group.get("factor", 1.0)
            optimiser.step()
        n_done = step + 1
        if n_done % loss_steps == 0 or n_done == n_steps:
            _check_finite(torch.stack(losses[-loss_steps:]), name, n_done)
        if after is not None:
            after(n_done)
        if checkpoint is not None and (n_done % checkpoint_steps == 0 or n_done == last):
            states = [optimiser.state_dict() for optimiser in optimisers]
            state = {"losses": torch.stack(losses), "tensors": tensors, "optimisers": states}
            write_checkpoint(checkpoint, state, key=key)
    losses += losses[-1:] * (last - len(losses))  # that a dry run passed over
    return torch.stack(losses)


def _check_finite(losses: Tensor, name: str, n_done: int) -> None:
    bad = torch.nonzero(~torch.isfinite(losses))  # (step, member), or (step,)
    if len(bad):
        member = f", member {bad[0, 1]}" if losses.ndim == 2 else ""
        raise GenampError(
            f"{name}{member}: the loss must be finite, got {losses[tuple(bad[0])].item():g} by "
            f"step {n_done}; lower `learning_rate`"
        )


def warmup_cosine(step: int, *, n_steps: int, n_warmup: int) -> float:
    """Return the learning rate of a step, from 0: a linear rise to one, a cosine to zero."""
    rise = min(1.0, (step + 1) / n_warmup)
    return rise * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside, so that numbers do not depend on a machine's cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside, on one thread; generator and threads are as before after."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Standardised(nn.Module):
    """A network that takes raw features and standardises them by buffers that are in its state."""

    def __init__(self, n_features: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(n_features, dtype=dtype))
        self.register_buffer("feature_scale", torch.ones(n_features, dtype=dtype))

    def set_standardisation(self, features: Tensor) -> None:
        """Take mean and standard deviation from training events, shape (n, n_features)."""
        mean, scale = mean_and_scale(features)
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def stored(self) -> dict[str, Tensor]:
        """Return parameters and standardisation; all else follows from the settings."""
        standardisation = {n: getattr(self, n) for n in ("feature_mean", "feature_scale")}
        return {**{n: p.detach() for n, p in self.named_parameters()}, **standardisation}


N = TypeVar("N", bound=Standardised)


def fit_to_arrays(network: Standardised, curves: LossCurves) -> Arrays:
    """Return all that is needed to rebuild a fit by `fit_from_arrays`, as named arrays."""
    arrays = {name: tensor.numpy() for name, tensor in network.stored().items()}
    return {**arrays, "train_loss": curves.train_loss, "validation_loss": curves.validation_loss}


def fit_from_arrays(
    kind: Callable[[int, Any], N], arrays: Mapping[str, np.ndarray], settings: Any
) -> tuple[np.ndarray, np.ndarray, N]:
    """Return losses in training and validation, and a network of a kind with these settings."""
    own = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    try:
        train_loss, validation_loss = (own.pop(f"{part}_loss") for part in ("train", "validation"))
        network = kind(len(own["feature_mean"]), settings)
        rest = {n: t for n, t in network.state_dict().items() if n not in network.stored()}
        network.load_state_dict({**rest, **own})
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise GenampError(
            f"stored {kind.__name__.lower()}: must have the arrays of {settings}, got {reason}; "
            "rerun with --fresh"
        ) from error
    return train_loss.numpy(), validation_loss.numpy(), network.eval()


def mean_and_scale(features: Tensor, name: str = "features") -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature, in float64; none may be constant."""
    constant = torch.nonzero(features.amax(0) == features.amin(0)).flatten().tolist()
    if constant:
        raise ValueError(
            f"`{name}` must vary, got the same value for all events in column(s) {constant}; "
            "drop them."
        )
    # float64: a mean far from zero must not spoil the standard deviation.
    return features.double().mean(0), features.double().std(0)


def check_table(name: str, events: np.ndarray) -> None:
    """Refuse events that are not a table, one row each, of finite features."""
    if events.ndim != 2 or not events.size:
        raise ValueError(f"`{name}` must be (n_events, n_features), got shape {events.shape}.")
    if not np.isfinite(events).all():
        columns = np.flatnonzero(~np.isfinite(events).all(axis=0)).tolist()
        raise ValueError(f"`{name}` must be finite, got NaN or infinity in column(s) {columns}.")


def check_continuous(name: str, events: ArrayLike) -> np.ndarray:
    """Return training events as float64, or say why a density cannot be fitted to them."""
    events = np.asarray(events, dtype=np.float64)
    check_table(name, events)
    if len(events) < FEWEST_EVENTS:
        raise ValueError(f"`{name}` must hold at least {FEWEST_EVENTS} events, got {len(events)}.")
    for column, values in enumerate(events.T):
        n_different = len(np.unique(values))
        if n_different < len(events) / 2:
            raise ValueError(
                f"`{name}` must hold continuous features, got {n_different} different values for "
                f"{len(events)} events in column {column}; drop it, or undo its rounding by noise."
            )
    return events


def check_trained_on(network: Standardised, events: ArrayLike, artefact: str) -> None:
    """Compare a kept network's standardisation with the events that the caller says it saw."""
    if is_dry():  # where one network stands for others
        return
    mean = np.asarray(events, dtype=np.float64).mean(0)
    kept, scale = network.feature_mean.numpy(), network.feature_scale.numpy()
    if mean.shape != kept.shape or not np.allclose(kept, mean, rtol=1e-5, atol=1e-4 * scale):
        raise GenampError(
            f"artefact `{artefact}`: was trained on other events than these; put all that they "
            "follow from into `stage`, or rerun with --fresh"
        )


def split_events(
    n_train: int, *, validation_fraction: float, seed: int, bootstrap: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the training events into those to fit and those to validate on.

    With `bootstrap`, n_train events are drawn with replacement first. Copies of one event stay
    together: were one copy fitted and another validated, the validation loss would reward learning
    events by heart. So the events are divided, not the copies, and the number to fit fluctuates.

    Args:
        n_train: Number of training events.
        validation_fraction: Fraction of the events for validation.
        seed: Seed of the division and of the draw.
        bootstrap: Whether to draw with replacement.

    Returns:
        Indices of the events to fit and of those to validate; they share none. With `bootstrap`
        there are n_train in all, an index as often as it was drawn.

    Raises:
        ValueError: There are too few events for the fraction.

    >>> fit, validation = split_events(1000, validation_fraction=0.2, seed=1, bootstrap=True)
    >>> len(fit) + len(validation), len(np.unique(fit)) < len(fit), np.intersect1d(fit, validation)
    (1000, True, array([], dtype=int64))
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_train)
    n_validation = round(validation_fraction * n_train)
    if not 0 < n_validation < n_train:
        raise ValueError(
            f"`validation_fraction` must leave events on both sides, got {validation_fraction} "
            f"of {n_train} events."
        )
    copies = np.ones(n_train, dtype=np.int64)
    if bootstrap:
        copies = rng.multinomial(n_train, np.full(n_train, 1 / n_train))
    parts = order[n_validation:], order[:n_validation]
    fit, validation = (np.repeat(part, copies[part]) for part in parts)
    return fit, validation


def check_positive(settings: Any, *names: str) -> None:
    """Raise a `ValueError` for the first of the named settings that is not positive."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"`{name}` must be positive, got {getattr(settings, name)}.")


def write_checkpoint(path: Path, state: Any, *, key: str) -> None:
    """Write nested tensors, numbers and texts as one safetensors file, whole or absent."""
    tensors: dict[str, Tensor] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, Mapping):  # JSON would make texts of numbers
            return {"items": [[name, packed(entry)] for name, entry in value.items()]}
        if isinstance(value, list | tuple):
            return [packed(entry) for entry in value]
        return value

    metadata = {"task": key, "state": json.dumps(packed(state))}
    with replace_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_checkpoint(path: Path, *, key: str) -> Any:
    """Return what `write_checkpoint` wrote; tuples come back as lists."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: memory that torch allocates is aligned as in a run without a stop.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise GenampError(
            f"checkpoint {path}: must be a safetensors file ({error}); remove it"
        ) from error
    if metadata.get("task") != key:
        raise GenampError(f"checkpoint {path}: is of another task; remove it")

    def unpacked(value: Any) -> Any:
        if isinstance(value, list):
            return [unpacked(entry) for entry in value]
        if isinstance(value, dict):
            if "tensor" in value:
                return tensors[value["tensor"]]
            return {name: unpacked(entry) for name, entry in value["items"]}
        return value

    return unpacked(json.loads(metadata["state"]))
