"""Chapter 06: how small a flaw does a metric still see?

Samples of known flaw are drawn again and again, and all metrics are computed for each. Which value
counts as an alarm follows from samples without a flaw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from genamp_lib.datasets.distortions import Distortion, cut_distortion, product_distortion
from genamp_lib.diagnostics import (
    auc_from_weights,
    frechet_distance,
    likelihood_ratio_weights,
    weight_calibration,
    weight_slices,
)
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.classifier_batch import CODE_VERSION as CLASSIFIER_VERSION
from genamp_lib.networks.classifier_batch import cross_fitted_logits_of_many
from genamp_lib.store import Arrays, ArtefactStore, Stage

Array = NDArray[np.float64]
# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1

# All grow with the flaw. Name in arrays -> name on the page.
METRICS = {
    "auc": "AUC",
    "tail": "excess in a weight tail",
    "ratio": "truth over generated in weight bins",
    "calibration": "calibration test, Eq. (11)",
    "ks": "KS distance of the weights",
    "frechet": "Fréchet distance, eight observables",
    "w1_mass": "Wasserstein distance of the mass",
}
# Fractions of a sample that the slices of the metric "tail" hold.
TAIL_FRACTIONS = (0.005, 0.02, 0.05)
_N_BINS = 10
# Experiments whose networks are trained together, and that a kill loses at most.
_SHARD = 10


def _small_classifier() -> ClassifierSettings:
    return ClassifierSettings(n_hidden=32, dropout=0.0, n_epochs=15, batch_size=500)


@dataclass(frozen=True)
class PowerSettings:
    """The flaws, and one experiment: samples and classifier."""

    tail_cuts: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)  # removed fractions, of largest mass
    # widths of the Gaussian of mean one that multiplies the mass
    smears: tuple[float, ...] = (0.1, 0.15, 0.25, 0.4)
    shifts: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)  # excess of such a Gaussian's mean over one
    shift_width: float = 0.05
    n_repetitions: int = 100  # experiments of each flaw
    n_nulls: int = 200  # that set the thresholds, and as many that check them
    n_jets: int = 5000  # of each sample of an experiment; a multiple of `n_folds`
    n_folds: int = 4
    classifier: ClassifierSettings = field(default_factory=_small_classifier)

    def distortions(self, mass: Array) -> dict[tuple[str, float], Distortion | None]:
        """Return (kind, strength) -> distortion of these masses; None for ("null", 0) and 1."""
        cases: dict[tuple[str, float], Distortion | None] = {("null", 0): None, ("null", 1): None}
        for fraction in self.tail_cuts:
            cut = float(np.quantile(mass, 1 - fraction))
            cases["tail cut", fraction] = cut_distortion(mass, cut=cut)
        for width in self.smears:
            cases["smear", width] = product_distortion(mass, mean=1.0, width=width)
        for shift in self.shifts:
            cases["shift", shift] = product_distortion(
                mass, mean=1.0 + shift, width=self.shift_width
            )
        return cases


# Name of a flaw, numbers of experiments, and the distortion, if any.
_Shard = tuple[str, range, Distortion | None]


def metric_values(
    observables: Array,
    *,
    settings: PowerSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
) -> dict[tuple[str, float], Array]:
    """Compute all metrics of repeated pairs of samples, for each distortion.

    Each experiment divides the jets anew: some are the truth, of the others those that the
    distortion accepts are generated. Within an experiment no jet occurs twice; between experiments
    jets are shared. `observables` (n_all_jets, n_observables) have the mass first. The values of a
    flaw do not depend on the other flaws.

    Returns:
        (kind, strength) as in `PowerSettings.distortions` -> values, shape
        (n_experiments, n_metrics), columns as `METRICS`.
    """
    versions = [CODE_VERSION, CLASSIFIER_VERSION]
    own = {"power": asdict(settings), "seed": seed, "code_version": versions}
    distortions = settings.distortions(observables[:, 0])
    shards = [
        (f"{kind} {strength:g}", range(first, min(first + _SHARD, n)), distortion)
        for (kind, strength), distortion in distortions.items()
        for n in [settings.n_nulls if kind == "null" else settings.n_repetitions]
        for first in range(0, n, _SHARD)
    ]

    def by_case(parts: list[Arrays]) -> Arrays:
        cases: dict[str, list[Array]] = {}
        for (case, *_), part in zip(shards, parts, strict=True):
            cases.setdefault(case, []).append(part["values"])
        return {case: np.concatenate(values) for case, values in cases.items()}

    scaled = observables / observables.std(axis=0)
    values = partial(_shard_values, scaled, observables[:, 0], settings, seed)
    arrays = store.combine(stage.adding(**own), values, shards, by_case)
    return {(kind, x): arrays[f"{kind} {x:g}"] for kind, x in distortions}


def alarm_thresholds(nulls: Array, *, false_alarms: float = 0.05) -> Array:
    """Return the values that metrics exceed in a fraction of samples without a flaw.

    `nulls` are values of such samples, shape (n_nulls, n_metrics).

    >>> alarm_thresholds(np.arange(1.0, 20.0)[:, None])
    array([19.])
    """
    # Of n nulls and one more, all orders are equally likely: the k-th of n is exceeded with the
    # probability (n + 1 - k) / (n + 1).
    rank = int(np.ceil((1 - false_alarms) * (len(nulls) + 1) - 1e-9))
    if rank > len(nulls):
        raise ValueError(
            f"`nulls` must be at least {int(np.ceil(1 / false_alarms)) - 1} for false alarms of "
            f"{false_alarms}, got {len(nulls)}."
        )
    return np.sort(nulls, axis=0)[rank - 1]


def _shard_values(
    scaled: Array, mass: Array, settings: PowerSettings, seed: int, shard: _Shard
) -> Arrays:
    """Return the metrics of a shard's experiments as "values", shape (n, n_metrics)."""
    name, numbers, distortion = shard
    case = list(name.encode())
    pairs = []
    for number in numbers:
        rng = np.random.default_rng([seed, number, *case])
        order = rng.permutation(len(mass))
        truth, rest = order[: settings.n_jets], order[settings.n_jets :]
        if distortion is not None:
            rest = rest[distortion.select(mass[rest], rng)]
        if len(rest) < settings.n_jets:
            raise ValueError(
                f"`n_jets` must be at most {len(rest)}, what `{name}` leaves, got "
                f"{settings.n_jets}."
            )
        pairs.append((truth, rest[: settings.n_jets]))
    truth, generated = (scaled[np.array(indices)] for indices in zip(*pairs, strict=True))
    logits = cross_fitted_logits_of_many(
        truth,
        generated,
        settings=settings.classifier,
        seed=int(np.random.SeedSequence([seed, numbers[0], *case]).generate_state(1)[0]),
        n_folds=settings.n_folds,
    )
    samples = zip(truth, generated, *logits, strict=True)
    return {"values": np.array([_metrics(*one) for one in samples])}


def _metrics(truth: Array, generated: Array, logits_t: Array, logits_g: Array) -> list[float]:
    """Return the metrics of one experiment, in the order of `METRICS`."""
    w_truth, w_generated = likelihood_ratio_weights(logits_t), likelihood_ratio_weights(logits_g)
    both, tails = np.concatenate([w_truth, w_generated]), []
    for fraction in TAIL_FRACTIONS:
        slices = weight_slices(
            w_truth,
            w_generated,
            n_small=max(round(fraction * len(w_generated)), 1),
            n_large=max(round(fraction * len(w_truth)), 1),
        )
        # Weights that say nothing are all tied: the slice is everything, and holds no excess.
        tails += [s.significance() for s in slices if s.n_truth + s.n_generated < len(both)]
    mean = w_generated.mean()
    inner = np.unique(np.quantile(both, np.arange(1, _N_BINS) / _N_BINS))
    edges = np.unique([0.0, *inner[inner > 0], np.inf])
    # Of weights this close to one the test would see little but their mean, which is not quite one.
    calibration = weight_calibration(*(w / mean for w in (w_truth, w_generated)), edges / mean)
    counts = np.stack([calibration.n_truth, calibration.n_generated])
    counts = counts[:, counts.sum(axis=0) > 0]
    return [
        auc_from_weights(w_truth, w_generated),
        max(tails, default=0.0),
        float(chi2_contingency(counts).statistic) if counts.shape[1] > 1 else 0.0,
        calibration.chi_square,
        float(ks_2samp(w_truth, w_generated).statistic),
        frechet_distance(truth, generated),
        float(wasserstein_distance(truth[:, 0], generated[:, 0])),
    ]
