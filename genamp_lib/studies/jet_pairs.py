"""Pairs of truth and flawed jets with their classifier weights, for chapter 06; kept, resumed.

Not for what follows from the weights: genamp_lib.diagnostics. For many small samples: jet_power.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genamp_lib.datasets.distortions import Distortion, cut_distortion, product_distortion
from genamp_lib.datasets.jet_observables import JET_OBSERVABLES, disjoint_pools
from genamp_lib.diagnostics import likelihood_ratio_weights
from genamp_lib.training.artefacts import ArtefactStore, Stage
from genamp_lib.training.classifier import ClassifierSettings
from genamp_lib.training.cross_fit_pairs import PairTask, cross_fit_pairs

Array = NDArray[np.float64]
# Part of every artefact's key: raise it when this code changes the numbers that it gives.
CODE_VERSION = 1
CASES = ("null", "tail cut", "smear", "shift")
WITHHELD = "mass withheld"


@dataclass(frozen=True)
class PairSettings:
    """The distortions of paper B, sec. 3, and how often the jets are divided.

    Attributes:
        mass_cut: The tail cut removes jets of this relative mass or above.
        smear: Width of the Gaussian of mean one that multiplies the mass.
        shift: Mean and width of the Gaussian of the shift.
        n_repetitions: Divisions of the jets.
        n_folds: Of the cross-fitting.
        n_members: Networks per fold, averaged.
        classifier: Network and training.
    """

    mass_cut: float = 0.17
    smear: float = 0.25
    shift: tuple[float, float] = (1.1, 0.05)
    n_repetitions: int = 5
    n_folds: int = 5
    n_members: int = 1
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)

    def distortions(self, mass: Array) -> dict[str, Distortion | None]:
        """Return case -> distortion, None for the null.

        Args:
            mass: Of all jets, shape (n_jets,).
        """
        return {
            "null": None,
            "tail cut": cut_distortion(mass, cut=self.mass_cut),
            "smear": product_distortion(mass, mean=1.0, width=self.smear),
            "shift": product_distortion(mass, mean=self.shift[0], width=self.shift[1]),
        }


@dataclass(frozen=True)
class JetPair:
    """Two samples that share no jet, and what the classifier says.

    Attributes:
        truth: Rows of the truth jets.
        generated: Rows of the generated jets.
        weights: Cross-fitted weights of truth and generated jets.
        true_weights: p_truth / p_generated of both, known from the distortion.
    """

    truth: NDArray[np.intp]
    generated: NDArray[np.intp]
    weights: tuple[Array, Array]
    true_weights: tuple[Array, Array]


def jet_pairs(
    observables: Array,
    *,
    settings: PairSettings,
    seed: int,
    store: ArtefactStore,
    stage: Stage,
    jobs: int = 1,
    label: str = "",
) -> dict[tuple[str, int], JetPair]:
    """Divide the jets, distort one half, and weigh both by cross-fitted classifiers.

    Repetition r divides the jets with the seed `seed` + r, the same for all cases: one half is the
    truth, the jets of the other that the distortion accepts are generated.

    Args:
        observables: Of all jets, columns as `JET_OBSERVABLES`, shape (n_jets, 8).
        settings: Distortions and classifier.
        seed: Of everything.
        store: Where the classifiers are kept. A killed run continues.
        stage: Name, version, inputs, and the configuration that `observables` follow from.
        jobs: Processes that share the work.
        label: What the progress line calls the work; no line when empty.

    Returns:
        (case, repetition) -> pair, for `CASES`, and for the tail cut seen by classifiers
        without the mass (`WITHHELD`, repetition 0).
    """
    mass = observables[:, JET_OBSERVABLES.index("mass")]
    distortions = settings.distortions(mass)
    samples, tasks = {}, []
    for repetition in range(settings.n_repetitions):
        truth, pool = disjoint_pools(len(mass), seed=seed + repetition)
        for number, (case, distortion) in enumerate(distortions.items()):
            generated = pool
            if distortion is not None:
                rng = np.random.default_rng([seed, repetition, number])
                generated = pool[distortion.select(mass[pool], rng)]
            samples[case, repetition] = truth, generated, distortion
    samples[WITHHELD, 0] = samples["tail cut", 0]
    for (case, repetition), (truth, generated, _) in samples.items():
        columns = [
            i for i, name in enumerate(JET_OBSERVABLES) if case != WITHHELD or name != "mass"
        ]
        inputs = (observables[rows][:, columns] for rows in (truth, generated))
        tasks.append(PairTask(f"{case} {repetition}", *inputs, seed=seed + repetition))
    distorted = {"mass_cut": settings.mass_cut, "smear": settings.smear}
    distorted |= {"shift": list(settings.shift), "pairs_version": CODE_VERSION}
    fits = cross_fit_pairs(
        tasks,
        settings=settings.classifier,
        n_folds=settings.n_folds,
        n_members=settings.n_members,
        store=store,
        stage=Stage(stage.name, stage.version, {**stage.configuration, **distorted}, stage.inputs),
        jobs=jobs,
        label=label,
    )
    pairs = {}
    for (case, repetition), (truth, generated, distortion) in samples.items():
        fit = fits[f"{case} {repetition}"]
        rows = (truth, generated)
        true_weights = [
            np.ones(len(r)) if distortion is None else distortion.true_weights(mass[r])
            for r in rows
        ]
        pairs[case, repetition] = JetPair(
            truth,
            generated,
            tuple(likelihood_ratio_weights(x) for x in (fit.truth, fit.generated)),
            tuple(true_weights),
        )
    return pairs
