"""Generators of an ensemble beside held-out events: each one's quality, peaks and histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from genamp_lib._parallel import finished_tasks, sharing
from genamp_lib.datasets.peaks import Peak, find_peak
from genamp_lib.datasets.top_pair_kinematics import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.studies.top_pair_quality import (
    Measuring,
    Quality,
    checksum,
    measure,
    quality_of,
)
from genamp_lib.training.artefacts import Arrays, ArtefactStore, Stage
from genamp_lib.training.flow_matching_members import Generator

Array = NDArray[np.float64]
STAGE = "top-pair-quality"
# Part of every artefact's key: raise it when the code changes the numbers.
CODE_VERSION = 1
# Edges of histograms; GeV, or none of eta_t and delta_r_min.
EDGES: Mapping[str, Array] = MappingProxyType(
    {
        "m_tt": np.geomspace(250.0, 2500.0, 31),
        "m_t": np.linspace(90.0, 410.0, 41),
        "m_w": np.linspace(20.0, 180.0, 41),
        "pt_t": np.linspace(0.0, 600.0, 31),
        "pt_tt": np.linspace(0.0, 120.0, 31),
        "eta_t": np.linspace(-5.0, 5.0, 31),
        "pt_b": np.linspace(20.0, 320.0, 31),
        "pt_q": np.linspace(20.0, 140.0, 31),
        "mass_b": np.linspace(0.0, 40.0, 31),
        "delta_r_min": np.linspace(0.4, 1.9, 31),
    }
)
# Where peaks are looked for, and the smoothing, all in GeV.
_PEAKS = {"m_w": (50.0, 120.0, 2.0), "m_t": (100.0, 300.0, 4.0)}


@dataclass(frozen=True)
class MemberQuality:
    """A generator beside held-out events.

    Attributes:
        quality: Distances and the AUC.
        peaks: Of "m_w" and "m_t".
        densities: Normalised histograms with `EDGES`, by observable.
    """

    quality: Quality
    peaks: Mapping[str, Peak]
    densities: Mapping[str, Array]


def measure_members(
    generators: Sequence[Generator],
    train: Array,
    holdout: Array,
    *,
    measuring: Measuring,
    seed: int,
    store: ArtefactStore,
    jobs: int | None = None,
    label: str = "",
) -> list[MemberQuality]:
    """Compare generators with held-out events one by one; what is measured is kept.

    Args:
        generators: Of one ensemble.
        train: Momenta of the training events, shape (n_train, n_particles, 4).
        holdout: Of others, of which nothing was known when the generators were made.
        measuring: How they are compared.
        seed: Of the generated events and the classifiers.
        store: Where results are kept.
        jobs: Processes of one thread each; as `genamp run --jobs` says when None.
        label: What the progress line calls the work; no line when empty.
    """
    common = {"measuring": asdict(measuring), "seed": seed}
    common |= {"train": checksum(train), "holdout": checksum(holdout)}
    stages = [
        Stage(STAGE, CODE_VERSION, {**common, "task": generator.description["key"]})
        for generator in generators
    ]

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        work = [(generators[k], train, holdout, measuring, seed) for k in missing]
        for number, arrays in finished_tasks(_run, work, **sharing(jobs, None), label=label):
            yield missing[number], arrays

    return [_member(arrays) for arrays in store.load_or_compute_each(stages, compute)]


def densities_of(events: Array) -> dict[str, Array]:
    """Return normalised histograms of events with `EDGES`; all events count, in bins or not."""
    columns = dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables(events).T, strict=True))
    return {
        name: np.histogram(columns[name], edges)[0] / (len(events) * np.diff(edges))
        for name, edges in EDGES.items()
    }


def peaks_of(events: Array) -> dict[str, Peak]:
    """Return the peaks of "m_w" and "m_t" of the first top candidate, in GeV; NaN without one."""
    columns = dict(zip(TOP_PAIR_OBSERVABLES, top_pair_observables(events).T, strict=True))
    peaks = {}
    for name, (low, high, bandwidth) in _PEAKS.items():
        try:
            peaks[name] = find_peak(columns[name], low, high, bandwidth=bandwidth)
        except ValueError:  # little is left of a peak in a generator's first steps
            peaks[name] = Peak(*(4 * (math.nan,)))
    return peaks


def _run(work: tuple[Generator, Array, Array, Measuring, int]) -> Arrays:
    generator, train, holdout, measuring, seed = work
    arrays, generated = measure(generator.flow, train, holdout, measuring=measuring, seed=seed)
    peaks = peaks_of(generated)
    arrays["peaks"] = np.array([astuple(peaks[name]) for name in _PEAKS])
    for name, density in densities_of(generated).items():
        arrays[f"density.{name}"] = density
    return arrays


def _member(arrays: Arrays) -> MemberQuality:
    peaks = {name: Peak(*row) for name, row in zip(_PEAKS, arrays["peaks"].tolist(), strict=True)}
    densities = {name: arrays[f"density.{name}"] for name in EDGES}
    return MemberQuality(quality_of(arrays), peaks, densities)
