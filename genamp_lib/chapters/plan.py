"""Which chapters must be run, why, and where their runs are kept. Runs nothing: runs.

A run is a folder: source.md, notebook.ipynb, results.json, log.txt and, written last, record.json.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genamp_lib._project import (
    GenampError,
    read_json,
    recover_folder,
    replace_file,
    sha256_of_file,
)
from genamp_lib.chapters.catalog import Chapter
from genamp_lib.chapters.fingerprint import Fingerprint, changes, fingerprint

# Presets that compute everything from scratch.
FRESH_PRESETS = ("smoke",)


@dataclass(frozen=True)
class Job:
    """One chapter that is to be run.

    Attributes:
        chapter: What to run.
        parameters: All its parameters.
        preset: Name of the preset that they started from.
        folder: Where the run goes.
        fresh: Ignore artefacts.
        reasons: Why it is run.
        changed: What a user changed against the preset, by name; empty for a preset's own run.
    """

    chapter: Chapter
    parameters: Mapping[str, Any]
    preset: str
    folder: Path
    fresh: bool
    reasons: tuple[str, ...]
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters that differ from the notebook's own."""
        defaults = self.chapter.parameters
        return {k: v for k, v in self.parameters.items() if v != defaults[k].default}


def run_folder(root: Path, preset: str, chapter: str) -> Path:
    """Return the folder of the last good run of a chapter under a preset."""
    return root / "_build" / "runs" / preset / chapter


def custom_folder(root: Path, preset: str, chapter: Chapter, overrides: Mapping[str, Any]) -> Path:
    """Return a folder of its own for a run with changed parameters, named after them."""
    label = "_".join(f"{key}-{value}" for key, value in sorted(overrides.items()))
    label = re.sub(r"[^\w.,-]", "", label)
    if len(label) > 60:
        label = f"{label[:50]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return root / "_build" / "runs" / f"custom-{preset}" / chapter.name / label


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run in `folder`, or None when there is no whole run."""
    recover_folder(folder)
    if not (folder / "record.json").exists():
        return None
    try:
        return read_json(folder / "record.json")
    except GenampError:
        return None


def plan_jobs(
    root: Path, chapters: Mapping[str, Chapter], parameters: Mapping[str, dict], preset: str
) -> tuple[list[Job], dict[str, dict[str, Any]]]:
    """Split the chapters into those that must be run and those whose last run still holds.

    Args:
        root: Project folder.
        chapters: As from `load_chapters`.
        parameters: As from `load_preset`.
        preset: Name of the preset.

    Returns:
        The jobs with their reasons, and the records of the runs that hold, by chapter.

    Raises:
        GenampError: A sample is missing.
    """
    jobs, fresh_records = [], {}
    for name, chapter in chapters.items():
        folder = run_folder(root, preset, name)
        now = fingerprint(chapter, parameters[name])
        record = read_record(folder)
        reasons = ["never run"] if record is None else _reasons(root, record, now, folder)
        if record is not None and not reasons:
            fresh_records[name] = record
        else:
            job = Job(
                chapter, parameters[name], preset, folder, preset in FRESH_PRESETS, tuple(reasons)
            )
            jobs.append(job)
    return jobs, fresh_records


def _reasons(root: Path, record: Mapping[str, Any], now: Fingerprint, folder: Path) -> list[str]:
    if not all((folder / name).exists() for name in ("notebook.ipynb", "results.json")):
        return ["its last run is incomplete"]
    return changes(record.get("fingerprint", {}), now) + [
        f"artefact {artefact['artefact']} changed"
        for artefact in record.get("artefacts", [])
        if artefact["origin"] == "published" and not _is_published(root, artefact)
    ]


def _is_published(root: Path, artefact: Mapping[str, str]) -> bool:
    path = root / "data" / "artefacts" / f"{artefact['artefact']}.safetensors"
    return path.exists() and sha256_of_file(path) == artefact["sha256"]


def publish_artefacts(root: Path, folder: Path) -> list[Path]:
    """Copy the artefacts that a run computed into data/artefacts and return their paths.

    Args:
        root: Project folder.
        folder: The run.
    """
    published = []
    for artefact in read_json(folder / "record.json")["artefacts"]:
        if artefact["origin"] == "published":
            continue
        for suffix in (".safetensors", ".json"):
            source = root / "_build" / "artefacts" / f"{artefact['artefact']}{suffix}"
            target = root / "data" / "artefacts" / source.name
            with replace_file(target) as temporary:
                shutil.copyfile(source, temporary)
            published.append(target)
    return published
