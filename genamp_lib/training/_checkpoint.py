"""The state of a training on disk: named tensors, which task they are of, and the step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genamp_lib._project import GenampError, replace_file


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
