"""What repositories answer about the files of a record. Not for asking them: datasets.public."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genamp_lib._project import GenampError, read_json
from genamp_lib.datasets.public_records import PublicRecord


@dataclass(frozen=True)
class Entry:
    """What a repository says of a file; None where it says nothing."""

    address: str
    n_bytes: int | None = None
    checksum: str | None = None  # as pooch takes it: "md5:..." or "sha256:..."


def read_record(record: PublicRecord, folder: Path) -> dict[str, Entry]:
    """Read the answer that was kept beside the files; nothing where there is none."""
    kept = folder / "record.json"
    return entries_of(record, read_json(kept)) if kept.is_file() else {}


def entries_of(record: PublicRecord, content: Any) -> dict[str, Entry]:
    """Read the answers of Zenodo and of Mendeley Data."""
    try:
        if isinstance(content, list):
            return {
                file["filename"]: Entry(
                    file["content_details"]["download_url"],
                    int(file["content_details"]["size"]),
                    f"sha256:{file['content_details']['sha256_hash']}",
                )
                for file in content
            }
        return {
            file["key"]: Entry(file["links"]["self"], int(file["size"]), file["checksum"])
            for file in content["files"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise GenampError(
            f"{record.name}: {record.address} must list files with addresses, sizes and "
            f"checksums, got {type(error).__name__}: {error}; see {record.page}"
        ) from error
