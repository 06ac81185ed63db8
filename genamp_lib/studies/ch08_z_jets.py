"""Chapter 08: train chains of flows on Z + jets, generate, and weigh by the classifier of Tab. 1.

Everything that the numbers of the chapter depend on stands here and was written down before the
printed seeds were run: the training events, the generators, the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from genamp_lib._project import GenampError, project_root
from genamp_lib.datasets import load_z_jets
from genamp_lib.datasets.rows import unrounded
from genamp_lib.datasets.z_jets import (
    CHAIN,
    z_jet_coordinates,
    z_jet_inputs,
    z_jet_momenta,
    z_jet_observables,
)
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.conditional_flow import (
    ConditionalFlow,
    ConditionalFlowSettings,
    FlowTask,
    fitted_conditional_flows,
    generate_given,
)
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.fitting import one_thread
from genamp_lib.store import Arrays, ArtefactStore, Stage

Array = NDArray[np.float64]

# Part of the artefacts' keys: raise one when its code changes the numbers.
FLOW_VERSION, WEIGHTS_VERSION = 1, 1
MULTIPLICITIES = (1, 2, 3)
# Simulated training events, which are too many to ship.
TRAINING_SEED = 21
_BITS = 15  # of a momentum's mantissa, in files
N_TRAIN = {1: 400_000, 2: 220_000, 3: 55_000}
# Paper B, Tab. 1, with fewer epochs: the best one is among the first fifteen.
CLASSIFIER = ClassifierSettings(n_layers=5, n_hidden=256, batch_size=1024, n_epochs=15)


@dataclass(frozen=True)
class ZJetGenerator:
    """A chain of flows: muons and first jet, second jet, third jet, each given those before.

    Attributes:
        whitening: Whether the coordinates are rotated to principal components and scaled.
        n_epochs: Passes over the training events, of each flow of the chain.
        flow: Size of each flow, and its training but for `whitening` and `n_epochs`.
    """

    whitening: bool
    n_epochs: tuple[int, int, int]
    flow: ConditionalFlowSettings = field(default_factory=ConditionalFlowSettings)


LONG, SHORT = (6, 10, 15), (1, 2, 5)
GENERATORS = {
    "state of the art": ZJetGenerator(False, LONG),
    "standard": ZJetGenerator(True, SHORT),
    "whitened, trained longer": ZJetGenerator(True, LONG),
    "plain, trained shorter": ZJetGenerator(False, SHORT),
}


@dataclass(frozen=True)
class ZJetTraining:
    """Where the training events come from.

    Attributes:
        n_train: Events of each multiplicity.
        simulated: Whether they are those of `genamp data simulate z-jets` with the seed 21; the
            last ones of the shipped samples otherwise.
    """

    n_train: Mapping[int, int] = field(default_factory=lambda: dict(N_TRAIN))
    simulated: bool = True

    def described(self) -> dict[str, Any]:
        """Return what the events follow from, for keys."""
        sizes = {str(n): size for n, size in self.n_train.items()}
        return {"n_train": sizes, "seed": TRAINING_SEED if self.simulated else None}

    def events(self, n_jets: int) -> Array:
        """Return momenta (n_train, 2 + n_jets, 4), without the steps of their rounding.

        Raises:
            GenampError: The file is missing or has too few events; the line has the command.
        """
        wanted = self.n_train[n_jets]
        if not self.simulated:
            return unrounded(load_z_jets(n_jets).momenta[-wanted:], _BITS, seed=n_jets)
        path = project_root() / f"_build/simulate/z_jets_{n_jets}j_seed{TRAINING_SEED}.h5"
        if not path.exists():
            raise GenampError(
                f"{path.name}: the training events must be in {path.parent}, are not; run `genamp "
                f"data simulate z-jets --n-jets {n_jets} --n-events {wanted} --seed "
                f"{TRAINING_SEED}`, of three jets first"
            )
        momenta = load_z_jets(n_jets, source=path, n_events=wanted).momenta
        return unrounded(momenta, _BITS, seed=n_jets)


def chain_events(training: ZJetTraining, part: int) -> tuple[Array, Array]:
    """Return features and conditions of the training events of one flow of the chain.

    The first flow is given the number of jets (one column for each), the second the coordinates
    before and whether there is a third jet, the third the coordinates before.

    Args:
        training: Where the events come from.
        part: Place in the chain, from 0.
    """
    features, conditions = [], []
    for n_jets in MULTIPLICITIES[part:]:
        coordinates = z_jet_coordinates(training.events(n_jets))
        features.append(coordinates[:, CHAIN[part]])
        conditions.append(chain_conditions(coordinates[:, : CHAIN[part].start], n_jets, part))
    return np.concatenate(features), np.concatenate(conditions)


def chain_conditions(before: Array, n_jets: int, part: int) -> Array:
    """Return the conditions of one flow of the chain, for events whose number of jets is known.

    Args:
        before: Coordinates that the flows before it make, shape (n, 0), (n, 9) or (n, 13).
        n_jets: Number of jets of the events.
        part: Place in the chain, from 0.
    """
    if part == 2:
        return before
    is_n = np.array([n_jets == n for n in MULTIPLICITIES[part:]], dtype=np.float64)
    columns = is_n if part == 0 else is_n[1:]
    return np.concatenate([before, np.tile(columns, (len(before), 1))], axis=1)


def chain_tasks(
    generator: ZJetGenerator, training: ZJetTraining, n_parts: int = len(CHAIN), *, seed: int
) -> list[FlowTask]:
    """Return the trainings of the first flows of a chain.

    Args:
        generator: Settings.
        training: Where the events come from.
        n_parts: Number of flows, the largest number of jets that they can make.
        seed: Seed of the trainings.
    """
    tasks = []
    for part, n_epochs in enumerate(generator.n_epochs[:n_parts]):
        stage = Stage("z-jets-flow", FLOW_VERSION, {"training": training.described(), "part": part})
        settings = replace(generator.flow, whitening=generator.whitening, n_epochs=n_epochs)
        tasks.append(FlowTask(stage, partial(chain_events, training, part), settings, seed))
    return tasks


def trained_flows(tasks: list[FlowTask], store: ArtefactStore) -> list[ConditionalFlow]:
    """Return the flows of a chain; those that are missing are trained."""
    return [fit.flow for fit in fitted_conditional_flows(tasks, store=store, label="flows")]


def generate_z_jets(flows: list[ConditionalFlow], n_jets: int, n_events: int, seed: int) -> Array:
    """Generate coordinates of events with `n_jets` jets, shape (n_events, 5 + 4 n_jets).

    Args:
        flows: Flows of a chain, at least `n_jets`.
        n_jets: 1, 2 or 3.
        n_events: Number of events.
        seed: Seed of the events.
    """
    made = np.empty((n_events, 0))
    for part, flow in enumerate(flows[:n_jets]):
        # The number of jets stands in the columns of the flow that has them.
        condition = chain_conditions(made, n_jets, part)
        own = np.random.SeedSequence([seed, n_jets, part]).generate_state(1)[0]
        made = np.concatenate([made, generate_given(flow, condition, seed=int(own))], axis=1)
    return made


class _Work(NamedTuple):
    generator: ZJetGenerator
    training: ZJetTraining
    n_jets: int
    n_judged: int
    keep: bool
    seed: int
    store: ArtefactStore


def weighed_events(
    generator: ZJetGenerator,
    n_jets: int,
    n_judged: int,
    *,
    training: ZJetTraining,
    classifier: ClassifierSettings = CLASSIFIER,
    keep: bool = False,
    seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Generate events and tell them from as many held-out ones, the first of the shipped sample.

    Args:
        generator: Settings of the generator.
        n_jets: Number of jets of the events.
        n_judged: Number of generated and of held-out events.
        training: Where the training events come from.
        classifier: Settings of the cross-fitted classifier.
        keep: Whether the coordinates of the generated events are kept.
        seed: Seed of the networks, the events and the folds.
        store: Store of the networks and of the result.

    Returns:
        float32 arrays: "truth" and "generated", logits (n_judged,); "m_mumu" of the generated
        events, GeV; with `keep` "coordinates" (n_judged, 5 + 4 n_jets).
    """
    described = {
        "generator": asdict(generator) | {"n_epochs": list(generator.n_epochs[:n_jets])},
        "training": training.described(),
        "classifier": asdict(classifier),
        "n_jets": n_jets,
        "n_judged": n_judged,
        "keep": keep,
        "seed": seed,
    }
    stage = Stage("z-jets-weights", WEIGHTS_VERSION, described)
    work = _Work(generator, training, n_jets, n_judged, keep, seed, store)
    return store.compute(stage, partial(_weighed, classifier), work)


def _weighed(classifier: ClassifierSettings, work: _Work) -> Arrays:
    tasks = chain_tasks(work.generator, work.training, work.n_jets, seed=work.seed)
    flows = trained_flows(tasks, work.store)
    with one_thread():
        coordinates = generate_z_jets(flows, work.n_jets, work.n_judged, work.seed)
    # As they are kept: a reader of the artefact has the events that the classifier saw.
    coordinates = coordinates.astype(np.float32)
    momenta = z_jet_momenta(coordinates)
    truth = load_z_jets(work.n_jets, n_events=work.n_judged).momenta
    found = _logits(truth, momenta, classifier, work.seed)
    found["m_mumu"] = z_jet_observables(momenta)["m_mumu"].astype(np.float32)
    return found | ({"coordinates": coordinates} if work.keep else {})


def null_weights(
    n_jets: int,
    n_judged: int,
    *,
    classifier: ClassifierSettings = CLASSIFIER,
    seed: int,
    store: ArtefactStore,
) -> Arrays:
    """Tell held-out events from other held-out events: "truth" and "generated" as `weighed_events`.

    Args:
        n_jets: Number of jets of the events.
        n_judged: Number of events of each kind, from the first and the last of the shipped sample.
        classifier: Settings of the cross-fitted classifier.
        seed: Seed of the folds and networks.
        store: Store of the result.
    """
    described = {
        "null": True,
        "classifier": asdict(classifier),
        "n_jets": n_jets,
        "n_judged": n_judged,
        "seed": seed,
    }
    stage = Stage("z-jets-weights", WEIGHTS_VERSION, described)
    return store.compute(stage, partial(_null, classifier), (n_jets, n_judged, seed))


def _null(classifier: ClassifierSettings, work: tuple[int, int, int]) -> Arrays:
    n_jets, n_judged, seed = work
    momenta = load_z_jets(n_jets).momenta
    return _logits(momenta[:n_judged], momenta[-n_judged:], classifier, seed)


def _logits(truth: Array, generated: Array, classifier: ClassifierSettings, seed: int) -> Arrays:
    inputs = z_jet_inputs(truth), z_jet_inputs(generated)
    fit = cross_fitted_logits(*inputs, settings=classifier, seed=seed)
    return {
        "truth": fit.truth.astype(np.float32),
        "generated": fit.generated.astype(np.float32),
    }


def binned_logits(truth: Array, generated: Array, *, n_bins: int = 40) -> tuple[Array, Array]:
    """Return log ratios of the densities of one observable, each event's from the other half.

    The ratio is that of counts between quantiles of the truth, what a classifier of this observable
    alone would learn.

    Args:
        truth: Values of the truth events, shape (n_truth,).
        generated: Values of the generated events, shape (n_generated,).
        n_bins: Number of bins.

    >>> rng = np.random.default_rng(1)
    >>> found = binned_logits(rng.normal(0.5, 1, 4000), rng.normal(0, 1, 4000))
    >>> bool(found[0].mean() > found[1].mean())
    True
    """
    edges = np.quantile(truth, np.linspace(0, 1, n_bins + 1)[1:-1])
    bins = [np.searchsorted(edges, values) for values in (truth, generated)]
    logits = [np.empty(len(own)) for own in bins]
    for half in (0, 1):
        counts = [np.bincount(own[1 - half :: 2], minlength=n_bins) + 0.5 for own in bins]
        ratio = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        for scores, own in zip(logits, bins, strict=True):
            scores[half::2] = ratio[own[half::2]]
    return logits[0], logits[1]


def auc_gap(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[float, float]:
    """Return the AUC of one score less that of another of the same events, and its error.

    DeLong's error for correlated curves, with twice the variance because scores are cross-fitted.

    Args:
        first: Scores of the truth and of the generated events, each 1D.
        second: Other scores of the same events in the same order.

    >>> auc_gap(([1.0, 2.0, 3.0], [0.0, 1.5]), ([1.0, 2.0, 3.0], [0.0, 1.5]))
    (0.0, 0.0)
    """
    shares = []
    for truth, generated in (first, second):
        n, m = len(truth), len(generated)
        ranks = rankdata(np.concatenate([truth, generated]))
        below = (ranks[:n] - rankdata(truth)) / m  # of the generated, for each truth event
        above = 1 - (ranks[n:] - rankdata(generated)) / n
        shares.append((below, above))
    differences = [a - b for a, b in zip(*shares, strict=True)]
    variance = sum(2 * x.var(ddof=1) / len(x) for x in differences)
    return float(differences[0].mean()), float(np.sqrt(variance))


def scaled_generators(epoch_share: float) -> dict[str, ZJetGenerator]:
    """Return `GENERATORS` that are trained for a part of their epochs, at least one.

    Args:
        epoch_share: Part of the epochs, in (0, 1].

    Raises:
        ValueError: `epoch_share` is out of range.
    """
    if not 0 < epoch_share <= 1:
        raise ValueError(f"`epoch_share` must be in (0, 1], got {epoch_share}.")
    return {
        name: replace(one, n_epochs=tuple(max(1, round(epoch_share * n)) for n in one.n_epochs))
        for name, one in GENERATORS.items()
    }
