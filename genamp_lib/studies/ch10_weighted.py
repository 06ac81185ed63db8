"""How far to trust averaging and AUC where events carry weights: chapter 10.

Differential estimates of weighted events: ch10_differential.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from genamp_lib.amplification import averaging_amplification
from genamp_lib.amplification.pseudo_experiments import correlated_regions
from genamp_lib.diagnostics import auc_interval
from genamp_lib.store import ArtefactStore, Stage
from genamp_lib.studies.ch10_differential import WEIGHTED, WEIGHTS

Array = NDArray[np.float64]
# Raise it when the code changes what the study finds: it is part of the key of what is kept.
VERSION = 1
N_REGIONS = 3


def coverage(
    store: ArtefactStore,
    *,
    amplifications: Sequence[float],
    n_train: int,
    n_members: int,
    areas: Sequence[float],
    n_events: int,
    confidence: float,
    n_experiments: int,
    seed: int,
) -> dict[str, Array]:
    """Return how often intervals of weighted events hold the truth, for each of `WEIGHTS`.

    First the amplification of members that generated `n_events` each, for each of `amplifications`;
    then the area under the ROC curve of a fixed classifier, for each of `areas` and of `WEIGHTED`,
    whose holdout is the truth sample here. Shape (n_amplifications + 2 n_areas,). What is kept in
    `store` is read.
    """
    given = {key: value for key, value in locals().items() if key != "store"}
    stage = Stage("interval-weighted-events", VERSION, given)
    return store.compute(stage, _coverage, given)


def _coverage(given: Mapping[str, Any]) -> dict[str, Array]:
    n_train, n_members, n_events = (given[n] for n in ("n_train", "n_members", "n_events"))
    confidence, n_experiments = given["confidence"], given["n_experiments"]
    cases = [*given["amplifications"]]
    cases += [(area, of) for area in given["areas"] for of in WEIGHTED]
    found = {}
    for number, kind in enumerate(WEIGHTS):
        held = np.zeros(len(cases))
        for k, case in enumerate(cases):
            rng = np.random.default_rng([given["seed"], number, k])
            for _ in range(n_experiments):
                if isinstance(case, tuple):
                    true = case[0]
                    low, high = _auc(rng, kind, *case, n_events, confidence)
                else:
                    true, sizes = case, (n_train, n_members, n_events)
                    low, high = _averaging(rng, kind, case, *sizes, confidence)
                held[k] += low <= true <= high
        found[kind] = held / n_experiments
    return found


def _events(rng: np.random.Generator, kind: str, *shape: int) -> tuple[Array, Array]:
    """Return events whose weighted density is flat in (0, 1), and their weights."""
    u = rng.random(shape)
    u = u**3 if kind == "by the statistic" else u
    return u, WEIGHTS[kind](rng, u.ravel()).reshape(shape)


def _averaging(
    rng: np.random.Generator,
    kind: str,
    amplification: float,
    n_train: int,
    n_members: int,
    n_events: int,
    confidence: float,
) -> tuple[float, float]:
    """Return the interval of the amplification of members with that of each region."""
    shape = {"n_regions": N_REGIONS, "correlation": 0.0, "n_train": n_train}
    (regions,) = correlated_regions(rng, 1, n_members, amplification=amplification, **shape)
    u, weights = _events(rng, kind, n_members, n_events)
    inside = [
        np.searchsorted(np.cumsum(own), one, side="right")
        for own, one in zip(regions, u, strict=True)
    ]
    sums, squares = (
        np.stack(
            [
                np.bincount(i, w**power, N_REGIONS + 1)[:-1]
                for i, w in zip(inside, weights, strict=True)
            ]
        )
        for power in (1, 2)
    )
    estimate = averaging_amplification(
        sums,
        n_generated=weights.sum(axis=1),
        n_train=n_train,
        squares=(squares, (weights**2).sum(axis=1)),
        confidence=confidence,
    )
    return estimate.interval


def _auc(
    rng: np.random.Generator,
    kind: str,
    area: float,
    weighted: Sequence[str],
    n_events: int,
    confidence: float,
) -> tuple[float, float]:
    """Return the interval of the AUC of scores that are unit Gaussians this far apart."""
    scores, weights = [], []
    for sample, shift in (("holdout", np.sqrt(2) * ndtri(area)), ("generated", 0.0)):
        u, own = _events(rng, kind if sample in weighted else "1", n_events)
        scores.append(np.exp(ndtri(u) + shift))
        weights.append(own if sample in weighted else None)
    return auc_interval(*scores, confidence=confidence, event_weights=tuple(weights))
