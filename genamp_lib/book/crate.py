"""Provenance of a run as an RO-Crate (profile Process Run Crate), beside its results.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

import genamp_lib
from genamp_lib._project import sha256_of_file

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"


def write_crate(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ro-crate-metadata.json into the folder of a run, from its record and its files."""
    crate = ROCrate()

    def entity(name: str, kind: str, **properties: Any) -> ContextEntity:
        properties = {"@type": kind, "name": name, **properties}
        return crate.add(ContextEntity(crate, f"#{kind}-{name}", properties=properties))

    def file(name: str) -> Any:
        checksum = sha256_of_file(folder / name)
        return crate.add_file(folder / name, name, properties={"sha256": checksum})

    chapter, started = record["chapter"], datetime.fromisoformat(record["started"])
    crate.name = f"Run of the chapter {chapter}"
    crate.description = f"Numbers and figures of {chapter} of genamp, and what they came from."
    crate.license = "https://spdx.org/licenses/MIT"
    crate.datePublished = started
    crate.root_dataset["conformsTo"] = crate.add(
        ContextEntity(crate, PROFILE, properties={"@type": "CreativeWork", "version": "0.5"})
    )
    values = record["fingerprint"]["parameters"]
    inputs = [entity(name, "PropertyValue", value=str(value)) for name, value in values.items()]
    for kind, files in (
        ("sample", record["fingerprint"]["samples"]),
        ("artefact", {used["artefact"]: used["sha256"] for used in record["artefacts"]}),
    ):
        inputs += [
            entity(f"{kind} {n}", "Dataset", identifier=f"sha256:{x}") for n, x in files.items()
        ]
    entity(
        f"genamp run {chapter}",
        "CreateAction",
        instrument=entity(
            "genamp",
            "SoftwareApplication",
            softwareVersion=f"{genamp_lib.__version__} ({record['revision']})",
            softwareRequirements=[
                f"{name} {version}" for name, version in record["fingerprint"]["versions"].items()
            ],
        ),
        object=[file("source.md"), *inputs],
        result=[file("results.json"), file("notebook.ipynb")],
        startTime=record["started"],
        endTime=(started + timedelta(seconds=record["wall_seconds"])).isoformat(),
    )
    crate.metadata.write(folder)
