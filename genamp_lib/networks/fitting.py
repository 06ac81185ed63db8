"""The state of a training on disk: named tensors, which task they are of, and the step.

Mean and scale of features, for models that standardise their inputs. Not for data sets.

One thread for torch, so that numbers do not depend on how many cores a machine has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genamp_lib._project import GenampError, replace_file


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside, and as many as before afterwards.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def mean_and_scale(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each feature, in float64.

    Args:
        features: Training events, shape (n, n_features).

    Raises:
        ValueError: A feature is the same for all events.

    >>> mean_and_scale(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))[0].tolist()
    [1.0, 3.0]
    """
    constant = torch.nonzero(features.amax(0) == features.amin(0)).flatten().tolist()
    if constant:
        raise ValueError(
            f"`features` must vary, got the same value for all events in column(s) {constant}; "
            "drop them."
        )
    # float64: a mean far from zero must not spoil the standard deviation.
    return features.double().mean(0), features.double().std(0)


def write_checkpoint(path: Path, arrays: Mapping[str, Tensor], *, key: str, step: int) -> None:
    """Write a state; the file is whole or absent, whenever the process is killed."""
    with replace_file(path) as temporary:
        save_file(dict(arrays), temporary, {"task": key, "step": str(step)})


def read_checkpoint(path: Path, *, key: str) -> tuple[dict[str, Tensor], int]:
    """Return the tensors and the step of what `write_checkpoint` wrote.

    Raises:
        GenampError: The file is damaged or of another task.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: memory that torch allocates is aligned as in a run without a stop.
            arrays = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise GenampError(
            f"checkpoint {path}: must be a safetensors file ({error}); remove it"
        ) from error
    if metadata.get("task") != key:
        raise GenampError(f"checkpoint {path}: is of another task; remove it")
    return arrays, int(metadata["step"])
