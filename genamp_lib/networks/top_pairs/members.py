"""Fit many flow-matching generators in the background, continue after a kill, read them again.

Members advance by turns, a part of their steps at a time, so that a stopped run leaves all of them
equally far. Not for one training: training.flow_matching.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from genamp_lib._project import GenampError, replace_file
from genamp_lib.networks.fitting import read_checkpoint
from genamp_lib.networks.top_pairs.architectures import VelocitySettings
from genamp_lib.networks.top_pairs.fit import (
    FlowMatchingState,
    FlowMatchingTask,
    FlowMatchingTraining,
    fit_flow_matching,
)
from genamp_lib.networks.top_pairs.flow_matching import FlowMatching, FlowMatchingSettings
from genamp_lib.sharing import finished_tasks, progress


@dataclass(frozen=True)
class Generator:
    """A fitted generator and how its loss went.

    Attributes:
        flow: In evaluation mode.
        train_loss: Means over every 500 steps.
        validation_loss: After the same steps.
        cpu_seconds: Processor time of the training, on the machines that did it.
        description: Settings, training, seed and number of training events.
    """

    flow: FlowMatching
    train_loss: np.ndarray
    validation_loss: np.ndarray
    cpu_seconds: float
    description: dict

    def __reduce__(self) -> tuple:
        """Go to other processes as arrays: lloca's networks cannot be pickled."""
        arrays = {name: x.detach().numpy() for name, x in self.flow.arrays().items()}
        arrays["losses"] = np.stack([self.train_loss, self.validation_loss])
        arrays["cpu_seconds"] = np.array(self.cpu_seconds)
        return _generator, (self.description, self.flow.settings, arrays)


def member_tasks(
    train: ArrayLike,
    flow: FlowMatchingSettings,
    training: FlowMatchingTraining,
    *,
    n_members: int,
    seed: int,
    bootstrap: bool,
) -> list[FlowMatchingTask]:
    """Return the trainings of an ensemble; a member is the same in an ensemble of another size.

    Args:
        train: Momenta, shape (n_train, n_particles, 4).
        flow: What is fitted.
        training: How.
        n_members: Number of generators.
        seed: Of everything.
        bootstrap: Each member has its own draw of the events with replacement; else all have the
            same events and the same division into those to fit and those to validate.

    Raises:
        ValueError: `n_members` is not positive, or as `FlowMatchingTask`.
    """
    if n_members < 1:
        raise ValueError(f"`n_members` must be positive, got {n_members}.")
    tasks = []
    for member in range(n_members):
        words = np.random.SeedSequence([seed, member]).generate_state(2)
        own, split = (int(word) for word in words)
        tasks.append(
            FlowMatchingTask(
                train,
                flow,
                training,
                seed=own,
                bootstrap=bootstrap,
                split_seed=split if bootstrap else seed,
            )
        )
    return tasks


def fit_members(
    tasks: Sequence[FlowMatchingTask],
    folder: Path,
    *,
    jobs: int = 1,
    steps_per_turn: int = 5000,
    label: str = "",
) -> list[Path]:
    """Fit members and write each, when it is finished, to a file for `read_generator`.

    Args:
        tasks: The members.
        folder: For the finished generators, generator-KEY.safetensors, and for the checkpoints of
            those that are not, state-KEY.safetensors.
        jobs: Processes of one thread each.
        steps_per_turn: Steps that a member does before the next has its turn.
        label: What the progress line calls the work; no line when empty.

    Returns:
        The files, in the order of `tasks`.

    Raises:
        GenampError: A checkpoint is damaged or of another task, or a loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"generator-{task.key}.safetensors" for task in tasks]
    n_turns = [-(-task.training.n_steps // steps_per_turn) for task in tasks]
    todo = [k for k, file in enumerate(files) if not file.exists()]
    # The last turn also writes the generator, which a kill may have left undone.
    done = {k: min(_steps_in(tasks[k], files[k]) // steps_per_turn, n_turns[k] - 1) for k in todo}
    total = sum(n_turns[k] - done[k] for k in todo)
    earlier = sum(n_turns) - total
    if not total:
        return files
    with progress(label or "flow matching", total, done=earlier) as advance:
        for turn in range(min(done.values()), max(n_turns)):
            now = [k for k in todo if done[k] <= turn < n_turns[k]]
            work = [(tasks[k], files[k], (turn + 1) * steps_per_turn) for k in now]
            for _ in finished_tasks(_advance, work, jobs=jobs):
                if label:
                    advance()
    return files


def write_generator(state: FlowMatchingState, path: Path) -> None:
    """Write a finished training's generator, its losses and settings; whole or not at all."""
    train_loss, validation_loss = state.loss_curve()
    arrays = {n: a.detach().contiguous() for n, a in state.averaged_flow().arrays().items()}
    arrays["losses"] = torch.from_numpy(np.stack([train_loss, validation_loss]))
    arrays["cpu_seconds"] = torch.tensor(state.cpu_seconds, dtype=torch.float64)
    with replace_file(path) as temporary:
        save_file(arrays, temporary, {"generator": json.dumps(_description(state.task))})


def read_generator_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that `write_generator` wrote, without their settings."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def generator_of(task: FlowMatchingTask, arrays: Mapping[str, np.ndarray]) -> Generator:
    """Return the generator of a training from its arrays.

    Raises:
        ValueError: They are not those of its settings.
    """
    return _generator(_description(task), task.flow, arrays)


def read_generator(path: Path) -> Generator:
    """Read what `fit_members` wrote.

    Raises:
        GenampError: No such file, damaged, or not a generator.

    Example::

        generator = read_generator(path)
        events = generator.flow.sample(100_000, generator=torch.Generator().manual_seed(1))
    """
    if not path.is_file():
        raise GenampError(f"generator {path}: not found; genamp train makes it")
    try:
        with safe_open(path, framework="np") as file:
            description = json.loads((file.metadata() or {})["generator"])
        settings = dict(description["flow"])
        settings["velocity"] = VelocitySettings(**settings["velocity"])
        flow = FlowMatchingSettings(**settings)
        return _generator(description, flow, read_generator_arrays(path))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise GenampError(
            f"generator {path}: must be a file of genamp train, got {reason}; make it again"
        ) from error


def _description(task: FlowMatchingTask) -> dict:
    return {
        "flow": asdict(task.flow),
        "training": asdict(task.training),
        "seed": task.seed,
        "bootstrap": task.bootstrap,
        "n_train": len(np.asarray(task.train)),
        "key": task.key,
    }


def _generator(
    description: dict, settings: FlowMatchingSettings, arrays: Mapping[str, np.ndarray]
) -> Generator:
    own = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    train_loss, validation_loss = own.pop("losses").numpy()
    cpu_seconds = own.pop("cpu_seconds").item()
    flow = FlowMatching(settings, None)
    flow.load_arrays(own)
    return Generator(flow.eval(), train_loss, validation_loss, cpu_seconds, description)


def _advance(work: tuple[FlowMatchingTask, Path, int]) -> None:
    """Do a member's steps up to a number; a function of its own for other processes."""
    task, file, n_steps = work
    checkpoint = _checkpoint(file)
    state = fit_flow_matching(task, checkpoint=checkpoint, stop_at=n_steps)
    if state.finished:
        write_generator(state, file)
        checkpoint.unlink()


def _checkpoint(file: Path) -> Path:
    return file.with_name(file.name.replace("generator-", "state-"))


def _steps_in(task: FlowMatchingTask, file: Path) -> int:
    checkpoint = _checkpoint(file)
    return read_checkpoint(checkpoint, key=task.key)["step"] if checkpoint.exists() else 0
