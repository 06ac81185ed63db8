"""An ensemble of top-pair generators in numbers with errors, for tables. Not the measuring.

How good generators of top pairs are: fit one, compare it with held-out events, keep the numbers.

Not for the networks of an ensemble, which training.flow_matching_members keeps: here a training
leaves its measures and its losses only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from genamp_lib._project import project_root
from genamp_lib.datasets.top_pairs import (
    TOP_PAIR_OBSERVABLES,
    top_pair_features,
    top_pair_observables,
)
from genamp_lib.diagnostics import auc_from_weights, auc_interval, likelihood_ratio_weights
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.cross_fit import cross_fitted_logits
from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.fit import (
    FlowMatchingTask,
    FlowMatchingTraining,
    fit_flow_matching,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.solver import GENERATING, Solving
from genamp_lib.sharing import finished_tasks, sharing
from genamp_lib.store import Arrays, ArtefactStore, Stage

Array = NDArray[np.float64]
STAGE = "top-pair-trial"
# Part of every artefact's key: raise it when this code or a training changes the numbers.
CODE_VERSION = 2


@dataclass(frozen=True)
class Trial:
    """One way to make a generator.

    Attributes:
        name: What the tables call it.
        flow: Coordinates, base density and network.
        training: Steps and rates.
    """

    name: str
    flow: FlowMatchingSettings
    training: FlowMatchingTraining


@dataclass(frozen=True)
class Measuring:
    """How generators are compared with held-out events.

    Attributes:
        n_generated: Generated events, within the cuts.
        n_before_cuts: Others, before the cuts, which tell how many do not pass.
        solving: How events are generated.
        n_folds: Of the cross-fitted classifier.
        classifier: Its network and training.
    """

    n_generated: int = 20_000
    n_before_cuts: int = 20_000
    solving: Solving = GENERATING
    n_folds: int = 3
    classifier: ClassifierSettings = field(
        default_factory=lambda: ClassifierSettings(n_hidden=128, n_epochs=25)
    )


@dataclass(frozen=True)
class Quality:
    """A generator beside held-out events.

    Attributes:
        ks: Kolmogorov-Smirnov distances to the held-out events of the generated ones, by name as
            in `TOP_PAIR_OBSERVABLES`.
        ks_of_train: The same of the training events: what a perfect generator comes to, on
            average, if it makes as many.
        auc: Of a cross-fitted classifier that sees `top_pair_features`.
        auc_interval: Of 68 %.
        outside: Part of what is generated before the cuts that does not pass them.
        close: Part of it with two jets closer than the cut.
    """

    ks: Mapping[str, float]
    ks_of_train: Mapping[str, float]
    auc: float
    auc_interval: tuple[float, float]
    outside: float
    close: float


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        quality: Of the generator.
        train_loss: Means over every 500 steps.
        validation_loss: After the same steps.
        cpu_seconds: Processor time of the training, on the machine that made it.
    """

    quality: Quality
    train_loss: Array
    validation_loss: Array
    cpu_seconds: float


def run_trials(
    trials: list[Trial],
    train: Array,
    holdout: Array,
    *,
    measuring: Measuring,
    seed: int,
    store: ArtefactStore,
    jobs: int | None = None,
    label: str = "",
) -> dict[str, TrialResult]:
    """Fit a generator for each trial and compare it with held-out events; each is kept.

    A killed run continues with the trainings that it was in.

    Args:
        trials: With different names.
        train: Momenta, shape (n_train, n_particles, 4).
        holdout: Momenta that no choice was made with, if the numbers shall be honest.
        measuring: How they are compared.
        seed: Of everything.
        store: Where results are kept.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.

    Returns:
        Name of the trial -> result.

    Raises:
        ValueError: Names are not different, or settings do not fit the events.
    """
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ValueError(f"`trials` must have different names, got {names}.")
    tasks = [FlowMatchingTask(train, trial.flow, trial.training, seed=seed) for trial in trials]
    # The events themselves, not their file: a longer one begins with the same events.
    common = {"measuring": asdict(measuring), "holdout": checksum(holdout)}
    stages = [Stage(STAGE, CODE_VERSION, {**common, "task": task.key}) for task in tasks]
    folder = project_root() / "_build" / "generators"

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        work = [(tasks[k], holdout, measuring, folder) for k in missing]
        for number, arrays in finished_tasks(_run, work, **sharing(jobs, None), label=label):
            yield missing[number], arrays

    arrays = store.load_or_compute_each(stages, compute)
    return {name: _result(found) for name, found in zip(names, arrays, strict=True)}


def checksum(events: Array) -> str:
    """Return the SHA-256 of events, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(events).tobytes()).hexdigest()


def _run(work: tuple[FlowMatchingTask, Array, Measuring, Path]) -> Arrays:
    task, holdout, measuring, folder = work
    checkpoint = folder / f"trial-{task.key}.safetensors"
    state = fit_flow_matching(task, checkpoint=checkpoint)
    arrays, _ = measure(
        state.averaged_flow(),
        np.asarray(task.train),
        holdout,
        measuring=measuring,
        seed=task.seed,
    )
    arrays["losses"] = np.stack(state.loss_curve())
    arrays["cpu_seconds"] = np.array(state.cpu_seconds)
    checkpoint.unlink()
    return arrays


def measure(
    flow: FlowMatching, train: Array, holdout: Array, *, measuring: Measuring, seed: int
) -> tuple[Arrays, Array]:
    """Compare a generator with held-out events.

    Args:
        flow: In evaluation mode.
        train: Momenta of its training events, shape (n_train, n_particles, 4).
        holdout: Of others.
        measuring: How.
        seed: Of the generated events and of the classifier.

    Returns:
        The quality as arrays, for `quality_of`, and the momenta of the generated events.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        how = {"generator": generator, "solving": measuring.solving}
        every = flow.sample(measuring.n_before_cuts, selected=False, **how)
        generated = flow.sample(measuring.n_generated, **how).numpy()
    close = top_pair_observables(every.numpy())[:, TOP_PAIR_OBSERVABLES.index("delta_r_min")]
    columns = [top_pair_observables(events) for events in (holdout, generated, train)]
    fit = cross_fitted_logits(
        top_pair_features(holdout),
        top_pair_features(generated),
        settings=measuring.classifier,
        seed=seed,
        n_folds=measuring.n_folds,
    )
    weights = [likelihood_ratio_weights(logits) for logits in (fit.truth, fit.generated)]
    low, high = auc_interval(*weights, cross_fitted=True)
    arrays = {
        "ks": _distances(columns[1], columns[0]),
        "ks_of_train": _distances(columns[2], columns[0]),
        "auc": np.array([auc_from_weights(*weights), low, high]),
        "outside": np.array(
            [
                (~flow.settings.accepts(every)).double().mean().item(),
                (close < flow.settings.delta_r_min).mean(),
            ]
        ),
    }
    return arrays, generated


def _distances(sample: Array, reference: Array) -> Array:
    pairs = zip(sample.T, reference.T, strict=True)
    return np.array([ks_2samp(*pair, method="asymp").statistic for pair in pairs])


def quality_of(arrays: Arrays) -> Quality:
    """Return the quality that `measure` found."""
    named = [
        dict(zip(TOP_PAIR_OBSERVABLES, arrays[name].tolist(), strict=True))
        for name in ("ks", "ks_of_train")
    ]
    auc, low, high = arrays["auc"].tolist()
    return Quality(*named, auc, (low, high), *arrays["outside"].tolist())


def _result(arrays: Arrays) -> TrialResult:
    train_loss, validation_loss = arrays["losses"]
    return TrialResult(
        quality_of(arrays), train_loss, validation_loss, arrays["cpu_seconds"].item()
    )
