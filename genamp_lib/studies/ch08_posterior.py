"""Chapter 08: what a Bayesian version of the chain of flows says of its own uncertainty."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.z_jets import CHAIN, z_jet_momenta, z_jet_observables
from genamp_lib.networks.bayesian_flow import (
    PosteriorSettings,
    fitted_posteriors,
    relative_spread,
)
from genamp_lib.networks.conditional_flow import ConditionalFlow, log_density
from genamp_lib.store import Arrays, ArtefactStore, Stage, stacked
from genamp_lib.studies.ch08_z_jets import (
    ZJetGenerator,
    ZJetTraining,
    chain_conditions,
    chain_tasks,
    generate_z_jets,
    trained_flows,
)

Array = NDArray[np.float64]

# Part of the artefacts' key: raise it when this code changes the numbers.
POSTERIOR_VERSION = 1
FEWEST_EVENTS = 10  # truth events in a bin that has a pull
# Bins in which draws from the posterior are compared with the truth.
BINS = {
    "pt_j1": np.geomspace(20.0, 400.0, 16),  # GeV
    "m_mumu": np.linspace(75.0, 107.0, 17),  # GeV
    "pt_z": np.geomspace(5.0, 300.0, 16),  # GeV
    "dr_min": np.r_[0.0, 0.4, 0.55, 0.7, np.arange(1.0, 4.1, 0.5)],
    "eta_j3": np.linspace(-4.5, 4.5, 16),
    "m_j3": np.linspace(0.0, 14.0, 15),  # GeV
}


class _Work(NamedTuple):
    generator: ZJetGenerator
    training: ZJetTraining
    settings: PosteriorSettings
    n_judged: dict[int, int]
    n_draws: int
    seed: int
    posterior_seed: int
    store: ArtefactStore


def measure_posterior(
    generator: ZJetGenerator,
    n_judged: dict[int, int],
    *,
    training: ZJetTraining,
    settings: PosteriorSettings,
    n_draws: int,
    seed: int,
    posterior_seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Fit a posterior around the weights of a trained chain, and draw from it.

    Args:
        generator: Settings of the chain.
        n_judged: Number of generated events for each number of jets, as for `weighed_events`.
        training: Where the training events come from.
        settings: Settings of the posterior.
        n_draws: Number of draws, at least 2.
        seed: Seed of the chain and of its events, as for `weighed_events`.
        posterior_seed: Seed of the posterior's fit and of its draws.
        store: Store of the networks and of the result.

    Returns:
        For each number of jets N "relative.N", sigma / mu of the density of the events that the
        chain generates, (n_judged,), float32; "counts.N.NAME", events of each draw in `BINS`,
        (n_draws, n_bins).

    Raises:
        ValueError: There are fewer than two draws.
    """
    if n_draws < 2:
        raise ValueError(f"`n_draws` must be at least 2, got {n_draws}.")
    described = {
        "generator": asdict(generator),
        "training": training.described(),
        "settings": asdict(settings),
        "n_judged": {str(n): size for n, size in n_judged.items()},
        "n_draws": n_draws,
        "seeds": [seed, posterior_seed],
        "bins": {name: edges.tolist() for name, edges in BINS.items()},
    }
    stage = Stage("z-jets-posterior", POSTERIOR_VERSION, described)
    work = _Work(generator, training, settings, n_judged, n_draws, seed, posterior_seed, store)
    return store.compute(stage, _measured, work)


def _measured(work: _Work) -> Arrays:
    tasks = chain_tasks(work.generator, work.training, seed=work.seed)
    flows = trained_flows(tasks, work.store)
    own = {"settings": work.settings, "seed": work.posterior_seed, "store": work.store}
    posteriors = fitted_posteriors(tasks, flows, **own, label="posteriors")
    seeds = np.random.SeedSequence(work.posterior_seed).generate_state(work.n_draws).tolist()
    drawn = [[one.draw(seed + part) for part, one in enumerate(posteriors)] for seed in seeds]
    found: Arrays = {}
    for n_jets, size in work.n_judged.items():
        made = generate_z_jets(flows, n_jets, size, work.seed)
        log_prob = _log_density(drawn, made, n_jets)
        found[f"relative.{n_jets}"] = relative_spread(log_prob).astype(np.float32)
        if flaw := posteriors[n_jets - 1].flaw(log_prob):
            warnings.warn(f"the posterior with {n_jets} jet(s) collapsed: {flaw}", stacklevel=2)
        of_draws = [
            _counts(generate_z_jets(chain, n_jets, size, seed))
            for chain, seed in zip(drawn, seeds, strict=True)
        ]
        found |= {f"counts.{n_jets}.{k}": x for k, x in stacked(of_draws).items()}
    return found


def _log_density(drawn: list[list[ConditionalFlow]], coordinates: Array, n_jets: int) -> Array:
    """Return the log density of events under each drawn chain, (n_draws, n)."""
    log_prob = np.zeros((len(drawn), len(coordinates)))
    for part in range(n_jets):
        features = coordinates[:, CHAIN[part]]
        conditions = chain_conditions(coordinates[:, : CHAIN[part].start], n_jets, part)
        for row, chain in zip(log_prob, drawn, strict=True):
            row += log_density(chain[part], features, conditions)
    return log_prob


def _counts(coordinates: Array) -> Arrays:
    observables = z_jet_observables(z_jet_momenta(coordinates))
    return {
        name: np.histogram(observables[name], edges)[0]
        for name, edges in BINS.items()
        if name in observables
    }


def bin_pulls(counts: NDArray, truth: NDArray, n_truth: int, n_drawn: int) -> Array:
    """Return pulls of truth against draws from a posterior in bins; normal if its errors hold.

    The variance is that of the expected counts over draws, without the counting noise of the
    generated events, and the counting noise of the truth. Bins with fewer than ten truth events are
    NaN.

    Args:
        counts: Generated events of each draw, shape (n_draws, n_bins).
        truth: Truth events, shape (n_bins,).
        n_truth: Truth events in all.
        n_drawn: Generated events of a draw in all.

    >>> bin_pulls(np.array([[90, 100], [110, 100]]), np.array([110, 9]), 1000, 1000).round(2)
    array([0.57,  nan])
    """
    scale = n_truth / n_drawn
    mean, n_draws = counts.mean(axis=0), len(counts)
    between = np.maximum(counts.var(axis=0, ddof=1) - mean, 0.0) * (1 + 1 / n_draws)
    variance = scale**2 * (between + mean / n_draws) + truth
    pulls = (truth - scale * mean) / np.sqrt(np.maximum(variance, 1.0))
    return np.where(truth >= FEWEST_EVENTS, pulls, np.nan)
