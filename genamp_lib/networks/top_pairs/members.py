"""Fitted generators of top pairs: fit many, keep them, generate events with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from genamp_lib.networks.fitting import one_thread
from genamp_lib.networks.top_pairs.fit import FlowMatchingTask, fit_flow_matching
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.networks.top_pairs.solver import GENERATING
from genamp_lib.sharing import map_tasks
from genamp_lib.store import Arrays, ArtefactStore, Stage

Result = TypeVar("Result")

STAGE = "top-pair-generator"
# Part of every artefact's key: raise it when the code of a training changes its numbers.
CODE_VERSION = 1


@dataclass(frozen=True)
class TopPairGenerator:
    """A fitted generator of top pairs, and how its loss went.

    Attributes:
        settings: Settings of the flow.
        key: Key of the training, `FlowMatchingTask.key`.
        arrays: Arrays that `fit_flow_matching` returned.
    """

    settings: FlowMatchingSettings
    key: str
    arrays: Mapping[str, np.ndarray] = field(repr=False, compare=False)

    @cached_property
    def flow(self) -> FlowMatching:
        """The flow, in evaluation mode."""
        flow = FlowMatching(self.settings, None)
        own = {n: a for n, a in self.arrays.items() if n not in ("losses", "cpu_seconds")}
        flow.load_arrays({name: torch.from_numpy(np.array(array)) for name, array in own.items()})
        return flow.eval()

    @property
    def validation_loss(self) -> np.ndarray:
        """Losses on validation events after every 500 steps, and at the end."""
        return self.arrays["losses"][1]

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the training, on the machines that did it."""
        return float(self.arrays["cpu_seconds"])

    def sample(self, n_generated: int, *, seed: int) -> NDArray[np.float64]:
        """Generate momenta that pass the cuts of Eq. (38), as `FlowMatching.sample`."""
        with one_thread():
            source = torch.Generator().manual_seed(seed)
            return self.flow.sample(n_generated, generator=source).numpy()

    def blocks(self, n_generated: int, *, seed: int) -> Iterator[NDArray[np.float64]]:
        """Yield the momenta of `sample` in blocks of at most 1,000 events."""
        source = torch.Generator().manual_seed(seed)
        found = self.flow.blocks(n_generated, generator=source, solving=GENERATING, selected=True)
        while True:
            with one_thread():  # not while the caller is at work
                block = next(found, None)
            if block is None:
                return
            yield block.numpy()

    def __reduce__(self) -> tuple:
        """Go to other processes without the network: lloca's cannot be pickled."""
        return TopPairGenerator, (self.settings, self.key, self.arrays)


def fitted_generators(
    tasks: Sequence[FlowMatchingTask], *, store: ArtefactStore, label: str = ""
) -> list[TopPairGenerator]:
    """Return the generators of trainings: kept ones, or fitted now; a killed run continues.

    Args:
        tasks: Trainings.
        store: Store of the generators.
        label: Name of the work in the progress line; no line when empty.

    Raises:
        GenampError: As `fit_flow_matching`.
    """
    stages = [Stage(STAGE, CODE_VERSION, {"task": task.key}) for task in tasks]
    work = [(t, store.unfinished(s) / "state") for t, s in zip(tasks, stages, strict=True)]
    found = store.map(stages, _fitted, work, label=label)
    return [TopPairGenerator(t.flow, t.key, a) for t, a in zip(tasks, found, strict=True)]


def sample_generators(
    generators: Sequence[TopPairGenerator],
    n_generated: int,
    into: Callable[[Iterator[NDArray[np.float64]]], Result],
    *,
    seed: int,
    label: str = "",
) -> list[Result]:
    """Generate events with each of several generators; only what a function makes of them is kept.

    Base events of any two generators are independent, and a generator's events do not depend on the
    others.

    Args:
        generators: Generators of one multiplicity.
        n_generated: Events of each generator, within the cuts.
        into: Picklable function of one generator's events, which come in blocks of at most 1,000:
            momenta, shape (n, n_particles, 4), pt (GeV), eta, phi, mass (GeV).
        seed: Seed of the base events.
        label: Name of the work in the progress line; no line when empty.

    Returns:
        What `into` returned for each generator.

    Raises:
        GenampError: A generator makes hardly any event within the cuts.
    """
    work = [(generator, n_generated, seed, k) for k, generator in enumerate(generators)]
    return map_tasks(partial(_sampled, into), work, label=label)


def _fitted(work: tuple[FlowMatchingTask, Path]) -> Arrays:
    task, checkpoint = work
    return fit_flow_matching(task, checkpoint=checkpoint)


def _sampled(
    into: Callable[[Iterator[NDArray[np.float64]]], Result],
    work: tuple[TopPairGenerator, int, int, int],
) -> Result:
    generator, n_generated, seed, number = work
    words = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return into(generator.blocks(n_generated, seed=int(words[0] >> np.uint64(1))))
