"""Compute heavy stages, shared and resumable, and keep them: a fresh clone need not do it again.

An artefact is a safetensors file of named arrays beside a JSON record. Its key is a hash of the
stage's name, version, configuration and input checksums: any change of these is another artefact.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from genamp_lib import dry_run
from genamp_lib._project import (
    GenampError,
    project_root,
    read_json,
    replace_file,
    sha256_of_file,
    write_json,
)
from genamp_lib.sharing import finished_tasks

FRESH_VARIABLE = "GENAMP_FRESH"
Arrays = dict[str, np.ndarray]
Found = tuple[Path, str]  # an artefact and its origin
Task = TypeVar("Task")


@dataclass(frozen=True)
class Stage:
    """What an artefact is the result of; everything that its numbers depend on.

    Attributes:
        name: Letters, digits and hyphens, e.g. "jets-classifier".
        version: Number that is raised whenever the stage's code changes its numbers.
        configuration: Settings and seeds, JSON types only.
        inputs: Name of each input file -> its SHA-256.

    >>> first, second = (Stage("demo", version=v, configuration={"seed": 3}) for v in (1, 2))
    >>> first.key == second.key
    False
    """

    name: str
    version: int
    configuration: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all fields."""
        text = json.dumps(asdict(self), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def adding(self, **settings: Any) -> Stage:
        """Return this stage with more entries of its configuration."""
        return replace(self, configuration={**self.configuration, **settings})


class ArtefactStore:
    """Artefacts by their keys: those that are there are read, the others computed and kept.

    In a dry run nothing is kept.

    Args:
        published: Folder of the artefacts in the repository; read only.
        local: Folder for what is computed here.
        fresh: Compute everything again, read nothing but what this store computed.
    """

    def __init__(
        self,
        *,
        published: Path | None = None,
        local: Path | None = None,
        fresh: bool | None = None,
    ) -> None:
        root = project_root() if published is None or local is None else Path()
        self.published = published or root / "data" / "artefacts"
        self.local = local or root / "_build" / "artefacts"
        self.fresh = os.environ.get(FRESH_VARIABLE) == "1" if fresh is None else fresh
        self.used: list[dict[str, str]] = []
        self._made: set[Path] = set()
        self._seen: dict[str, Arrays] = {}  # by keys, in a dry run

    def map(
        self,
        stages: Sequence[Stage],
        function: Callable[[Task], Arrays],
        tasks: Sequence[Task],
        *,
        jobs: int | None = None,
        label: str | None = None,
    ) -> list[Arrays]:
        """Return the arrays of many stages, from artefacts where there are any.

        What is missing is shared by the processes or machines that `genamp run` was given. Each
        result is kept as soon as it is there, so that a killed run continues. What another run on
        this folder is computing is waited for, and then read.

        Args:
            stages: Artefacts that are wanted.
            function: Pure and picklable function of the tasks whose stages have no artefact.
            tasks: One task for each stage.
            jobs: Number of processes that share the work instead.
            label: Name of the work in the progress line; that of the stages when None.

        Raises:
            GenampError: An artefact is damaged or belongs to something else, or the work cannot be
                shared.
        """
        missing = {stage.key: stage for stage in stages if not self._find(stage)}
        name = stages[0].name if stages else ""
        with dry_run.stage(name, len(tasks)) as row, ExitStack() as locks:
            for key in sorted(missing):  # in one order: no two runs wait for each other
                locks.enter_context(self._lock(missing[key]))
            new = [k for k, stage in enumerate(stages) if stage.key not in self._seen]
            arrays = self._map(stages, function, tasks, jobs=jobs, label=label)
            row["bytes"] += sum(array.nbytes for k in new for array in arrays[k].values())
            return arrays

    def _map(
        self,
        stages: Sequence[Stage],
        function: Callable[[Task], Arrays],
        tasks: Sequence[Task],
        *,
        jobs: int | None = None,
        label: str | None = None,
    ) -> list[Arrays]:
        arrays = {k: self._seen[s.key] for k, s in enumerate(stages) if s.key in self._seen}
        todo = [k for k in range(len(stages)) if k not in arrays]
        found = {k: one for k in todo if (one := self._find(stages[k]))}
        arrays |= {k: read_artefact(path, stages[k]) for k, (path, _) in found.items()}
        if dry_run.is_dry():
            records = [read_json(path.with_suffix(".json")) for path, _ in found.values()]
            dry_run.pass_over(sum(one.get("wall_seconds", 0.0) for one in records), measured=True)
            self._seen |= {stages[k].key: arrays[k] for k in found}
        todo = [k for k in todo if k not in found]
        if label is None and stages:
            label = stages[0].name
        work = finished_tasks(
            partial(_timed, function),
            [tasks[k] for k in todo],
            jobs=jobs,
            label=label,
            done=len(found),
        )
        for index, (made, seconds) in work:
            k = todo[index]
            if dry_run.is_dry():
                arrays[k] = self._seen[stages[k].key] = made
            else:
                arrays[k], found[k] = self._write(stages[k], made, seconds)
        self.used += [
            {"artefact": path.stem, "origin": origin, "sha256": sha256_of_file(path)}
            for _, (path, origin) in sorted(found.items())
        ]
        return [arrays[k] for k in range(len(stages))]

    def compute(self, stage: Stage, function: Callable[[Task], Arrays], task: Task) -> Arrays:
        """Return the arrays of one stage: `map` of one task."""
        return self.map([stage], function, [task])[0]

    def combine(
        self,
        stage: Stage,
        function: Callable[[Task], Arrays],
        tasks: Sequence[Task],
        merge: Callable[[list[Arrays]], Arrays],
    ) -> Arrays:
        """Return the arrays of one stage that is made of parts; these are kept until it is there.

        Args:
            stage: Artefact that is wanted.
            function: Pure and picklable function that makes a part.
            tasks: One task for each part.
            merge: Function that makes the whole of the parts, in the order of the tasks.

        Raises:
            GenampError: As `map`.
        """
        folder = self.unfinished(stage)
        parts = [
            Stage("part", stage.version, {"of": stage.key, "number": k}) for k in range(len(tasks))
        ]
        kept = ArtefactStore(published=folder, local=folder, fresh=self.fresh)

        def whole(_: None) -> Arrays:
            # The lock of the whole is theirs.
            return merge(kept._map(parts, function, tasks, label=stage.name))

        with dry_run.stage(stage.name, len(tasks)):
            # Here: it is the parts that are shared.
            return self.map([stage], whole, [None], jobs=1, label="")[0]

    def unfinished(self, stage: Stage) -> Path:
        """Return the folder of a stage's parts and checkpoints; keeping the stage removes it."""
        return self.local / f"{stage.name}-{stage.key}-unfinished"

    @contextmanager
    def _lock(self, stage: Stage) -> Iterator[None]:
        """Keep other processes from computing a stage; one that is killed keeps them no longer."""
        if dry_run.is_dry():
            yield
            return
        self.local.mkdir(parents=True, exist_ok=True)
        path = self.local / f"{stage.name}-{stage.key}.lock"
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{stage.name}: waiting for another run that computes it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def _find(self, stage: Stage) -> Found | None:
        if self.fresh:
            path = self.local / f"{stage.name}-{stage.key}.safetensors"
            return (path, "computed") if path in self._made else None
        for folder, origin in ((self.published, "published"), (self.local, "local")):
            path = folder / f"{stage.name}-{stage.key}.safetensors"
            # The record is written last: without it a file is what a kill left behind.
            if path.with_suffix(".json").exists():
                return path, origin
        return None

    def _write(self, stage: Stage, arrays: Arrays, seconds: float) -> tuple[Arrays, Found]:
        path = self.local / f"{stage.name}-{stage.key}.safetensors"
        # Not ascontiguousarray, which makes a single number an array of one.
        arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        write_artefact(path, stage, arrays, wall_seconds=seconds)
        self._made.add(path)
        shutil.rmtree(self.unfinished(stage), ignore_errors=True)
        return arrays, (path, "computed")


def _timed(function: Callable[[Task], Arrays], task: Task) -> tuple[Arrays, float]:
    start = time.perf_counter()
    return function(task), time.perf_counter() - start


def stacked(parts: Sequence[Arrays]) -> Arrays:
    """Return parts of equal shapes as one: their arrays stacked along a new first axis."""
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def numbered(parts: Sequence[Arrays]) -> Arrays:
    """Return parts as one: their arrays named "NUMBER.NAME"."""
    return {f"{k}.{name}": array for k, part in enumerate(parts) for name, array in part.items()}


def named(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays whose names begin with a prefix, named without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def write_artefact(path: Path, stage: Stage, arrays: Arrays, *, wall_seconds: float) -> None:
    """Write arrays and their record; the record last, so that a kill leaves no valid half."""
    path.with_suffix(".json").unlink(missing_ok=True)  # of an older computation with this key
    with replace_file(path) as temporary:
        save_file(arrays, temporary)
        checksum = sha256_of_file(temporary)
    record = {
        "key": stage.key,
        **asdict(stage),
        "sha256": checksum,
        "wall_seconds": round(wall_seconds, 1),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    write_json(path.with_suffix(".json"), record)


def read_artefact(path: Path, stage: Stage) -> Arrays:
    """Read and verify the artefact of `stage` at `path`."""
    remedy = f"remove {path.stem}.* in {path.parent}, or rerun the chapter with --fresh"
    if not path.exists():
        raise GenampError(f"artefact `{path.stem}`: has a record but no .safetensors; {remedy}")
    record = read_json(path.with_suffix(".json"))
    if not isinstance(record, dict) or record.get("key") != stage.key:
        raise GenampError(f"artefact `{path.stem}`: record must have key {stage.key}; {remedy}")
    if record.get("sha256") != sha256_of_file(path):
        raise GenampError(
            f"artefact `{path.stem}`: damaged, its checksum differs from its record; {remedy}"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise GenampError(
            f"artefact `{path.stem}`: not a safetensors file ({error}); {remedy}"
        ) from error
