"""Fit an ensemble of flows, share its members, continue after a kill; not for one fit: flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from genamp_lib._parallel import finished_tasks, map_tasks
from genamp_lib._project import GenampError
from genamp_lib.models.flow import Flow
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.flow import (
    FlowFit,
    FlowSettings,
    check_features,
    fit_flow,
    new_flow,
    split_events,
)

# Part of every artefact's key: raise it when the code of a fit changes the numbers that it gives.
CODE_VERSION = 1
_LOSSES = ("train_loss", "validation_loss")


def fit_flows(
    train: ArrayLike,
    *,
    n_members: int,
    settings: FlowSettings,
    seed: int,
    bootstrap: bool = True,
    store: ArtefactStore | None = None,
    stage: Stage | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    label: str = "",
) -> tuple[FlowFit, ...]:
    """Fit an ensemble of flows to the same training sample.

    With `bootstrap` each member has its own draw of the events with replacement and its own
    division: the spread of the members is that of trainings on other samples of n_train events,
    as far as this sample can tell. Without, all have the same events and the same division and
    differ by starting values and the order of the events: their spread says how well the training
    is reproduced, and nothing on how far the sample is off.

    Args:
        train: Continuous features, shape (n_train, n_features).
        n_members: Number of flows.
        settings: Network and training of each.
        seed: Of everything.
        bootstrap: Whether each member draws its own events.
        store: Where the ensemble is kept, as one artefact; until it is complete, finished members
            are kept one by one, so that a killed run continues. None keeps nothing.
        stage: With `store`: name, version and inputs of the artefact, and the configuration that
            `train` follows from; this function's own arguments are added to it.
        jobs: Processes that share the members.
        scheduler: Address of a Dask scheduler to share them with instead.
        label: What the progress line calls the work; no line when empty.

    Raises:
        ValueError: As `fit_flow`, or `n_members` is not positive, or only one of `store` and
            `stage` is given.
        GenampError: An artefact is damaged or was trained on other events.

    >>> train = np.random.default_rng(0).normal(size=(200, 2))
    >>> len(fit_flows(train, n_members=2, settings=FlowSettings(n_epochs=1), seed=1))
    2
    """
    events = check_features(train)
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    if (store is None) != (stage is None):
        raise ValueError("`store` and `stage` must be given together, got only one of them.")
    seeds = [
        [int(x) for x in np.random.SeedSequence([seed, member]).generate_state(2)]
        for member in range(n_members)
    ]
    # (seed of the training, seed of the division)
    tasks = [(first, second if bootstrap else seed) for first, second in seeds]
    fit_member = partial(_member, events, settings, bootstrap)
    share = {"jobs": jobs, "scheduler": scheduler, "label": label}
    if store is None or stage is None:
        return flows_from_arrays(_stack(map_tasks(fit_member, tasks, **share)), settings)

    own = {"seed": seed, "bootstrap": bootstrap, "code_version": CODE_VERSION, **asdict(settings)}
    whole, *parts = (
        replace(
            stage,
            name=stage.name if task is None else f"{stage.name}-member",
            configuration={**stage.configuration, "flow": own, "members": task or n_members},
        )
        for task in (None, *map(list, tasks))
    )
    arrays = store.load_or_compute(
        whole, lambda: _stack(_resumed(fit_member, tasks, parts, store, share))
    )
    for part in parts:
        store.forget_part(part)
    fits = flows_from_arrays(arrays, settings)
    # The key covers what the caller says the events follow from; the stored standardisation tells
    # whether that is true.
    for fit, (_, split_seed) in zip(fits, tasks, strict=True):
        used, _ = split_events(
            len(events),
            validation_fraction=settings.validation_fraction,
            seed=split_seed,
            bootstrap=bootstrap,
        )
        mean = fit.flow.feature_mean.numpy()
        if mean.shape != events.shape[1:] or not np.allclose(mean, events[used].mean(0), rtol=1e-5):
            raise GenampError(
                f"artefact `{stage.name}`: was trained on other events than these; put all that "
                "they follow from into `stage`, or rerun with --fresh"
            )
    return fits


def flows_to_arrays(fits: Sequence[FlowFit]) -> Arrays:
    """Return all that is needed to rebuild an ensemble, as arrays (n_members, ...) by name."""
    return _stack([_to_arrays(fit) for fit in fits])


def flows_from_arrays(
    arrays: Mapping[str, np.ndarray], settings: FlowSettings
) -> tuple[FlowFit, ...]:
    """Rebuild what `flows_to_arrays` took apart.

    Args:
        arrays: Parameters, standardisation and loss curves by name, one row per member.
        settings: The settings that the flows were fitted with.

    Raises:
        GenampError: The arrays are not those of flows with these settings.
    """
    try:
        n_members, n_features = arrays["feature_mean"].shape
        fits = []
        for member in range(n_members):
            flow = new_flow(n_features, settings)
            own = {n: torch.from_numpy(a[member].copy()) for n, a in arrays.items()}
            losses = [own.pop(name).numpy() for name in _LOSSES]
            # zuko's own buffers follow from the settings and are not stored.
            kept = {n: t for n, t in flow.state_dict().items() if n not in _stored(flow)}
            flow.load_state_dict({**kept, **own})
            fits.append(FlowFit(flow.eval(), *losses))
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise GenampError(
            f"stored flows: must have the arrays of {settings}, got {reason}; rerun with --fresh"
        ) from error
    return tuple(fits)


def _member(
    events: np.ndarray, settings: FlowSettings, bootstrap: bool, task: tuple[int, int]
) -> Arrays:
    """Fit one member; a pure function for other processes."""
    seed, split_seed = task
    return _to_arrays(
        fit_flow(events, settings=settings, seed=seed, split_seed=split_seed, bootstrap=bootstrap)
    )


def _resumed(
    fit_member: Callable[[tuple[int, int]], Arrays],
    tasks: Sequence[tuple[int, int]],
    parts: Sequence[Stage],
    store: ArtefactStore,
    share: Mapping[str, Any],
) -> list[Arrays]:
    """Fit the members that no killed run has left, and keep each one when it is done."""
    kept = {k: a for k, part in enumerate(parts) if (a := store.kept_part(part)) is not None}
    todo = [k for k in range(len(tasks)) if k not in kept]
    work = [tasks[k] for k in todo]
    for index, arrays in finished_tasks(fit_member, work, done=len(kept), **share):
        store.keep_part(parts[todo[index]], arrays)
        kept[todo[index]] = arrays
    return [kept[k] for k in range(len(tasks))]


def _stored(flow: Flow) -> dict[str, torch.Tensor]:
    standardisation = {"feature_mean": flow.feature_mean, "feature_scale": flow.feature_scale}
    return {**{n: p.detach() for n, p in flow.named_parameters()}, **standardisation}


def _stack(members: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([member[name] for member in members]) for name in members[0]}


def _to_arrays(fit: FlowFit) -> Arrays:
    arrays = {name: tensor.numpy() for name, tensor in _stored(fit.flow).items()}
    return {**arrays, "train_loss": fit.train_loss, "validation_loss": fit.validation_loss}
