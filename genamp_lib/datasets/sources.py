"""Where the data of a loader come from: shipped with the project, public, or a file.

All loaders take the same argument `source` and hand out the same `DataSource` with the data. The
shipped samples are those of data/registry.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from genamp_lib._project import GenampError, project_root, read_json, sha256_of_file
from genamp_lib.datasets.public import (
    counterparts,
    fetch_public,
    public_counterpart,
    verify_public,
)


@dataclass(frozen=True)
class Sample:
    """One entry of the registry: what a shipped sample is and how to make it again."""

    name: str
    file: str  # path relative to the project folder
    sha256: str
    bytes: int
    rows: int
    units: str  # in words
    description: str
    licence: str  # SPDX identifier
    command: str  # that writes the same file again

    @property
    def path(self) -> Path:
        """Absolute path of the file, whether it exists or not."""
        return project_root() / self.file

    @property
    def state(self) -> str:
        """`present`, `missing` or `damaged`; by size only, so that it is quick."""
        if not self.path.is_file():
            return "missing"
        return "present" if self.path.stat().st_size == self.bytes else "damaged"


def list_samples() -> list[Sample]:
    """Return every sample of the registry, by name."""
    registry = project_root() / "data" / "registry.json"
    if not registry.is_file():
        raise GenampError(f"{registry}: not found; get it back with git")
    content = read_json(registry)
    try:
        samples = [Sample(name=name, **entry) for name, entry in content["samples"].items()]
    except (AttributeError, KeyError, TypeError) as error:
        raise GenampError(
            f"{registry}: must hold {{'samples': {{name: entry}}}} with the fields of `Sample`, "
            f"got {type(error).__name__}: {error}; get it back with git"
        ) from error
    return sorted(samples, key=lambda sample: sample.name)


def find_sample(name: str) -> Sample:
    """Return the registry's entry for `name`."""
    samples = {sample.name: sample for sample in list_samples()}
    if name not in samples:
        close = get_close_matches(name, samples, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise GenampError(
            f"sample `{name}`: unknown; {hint}known samples: {', '.join(samples) or 'none'}"
        )
    return samples[name]


def sample_path(name: str) -> Path:
    """Return where the sample `name` lies."""
    sample = find_sample(name)
    if not sample.path.is_file():
        raise GenampError(
            f"sample `{name}`: {sample.path} not found; run `{sample.command}` "
            f"or `git checkout {sample.file}`"
        )
    return sample.path


def sample_checksum(name: str) -> str:
    """Return the SHA-256 that the registry promises for the sample `name`."""
    return find_sample(name).sha256


def verify_sample(name: str) -> Path:
    """Compare a sample's file with its checksum in the registry; return its path."""
    sample = find_sample(name)
    path = sample_path(name)
    checksum = sha256_of_file(path)
    if checksum != sample.sha256:
        raise GenampError(
            f"sample `{name}`: damaged, {path} must have SHA-256 {sample.sha256[:12]}..., "
            f"got {checksum[:12]}...; remove it and run `git checkout {sample.file}`"
        )
    return path


@dataclass(frozen=True)
class DataSource:
    """Where data came from; its text is for a page to print.

    Attributes:
        kind: "shipped", "public" or "file".
        name: Name of the sample or of the public file, or the path as it was given.
        path: The file that was read.
        checksum: Hexadecimal checksum of that file: SHA-256, or what is published.
        doi: DOI of a public file; empty otherwise.

    >>> str(DataSource("public", "jetnet/g.hdf5", Path("g.hdf5"), "", "10.5281/zenodo.6975118"))
    'the public file jetnet/g.hdf5 (doi:10.5281/zenodo.6975118)'
    """

    kind: str
    name: str
    path: Path
    checksum: str
    doi: str = ""

    def __str__(self) -> str:
        label = {"shipped": "the shipped sample", "public": "the public file", "file": "the file"}
        doi = f" (doi:{self.doi})" if self.doi else ""
        return f"{label[self.kind]} {self.name}{doi}"


def own_file(sample: str, source: Path | str) -> Path:
    """Return the user's file for a sample: `source`, or the one of that name in the folder."""
    path = Path(source)
    if not path.is_dir():
        if path.is_file():
            return path
        raise GenampError(
            f"{path}: not found; `source` must be shipped, public, a file, or a folder of files"
        )
    names = [f"{sample}.h5", *(public.file for public in counterparts(sample))]
    found = [path / name for name in names if (path / name).is_file()]
    if not found:
        raise GenampError(f"{path}: must hold {' or '.join(names)}; put the file there")
    return found[0]


def find_source(sample: str, source: Path | str = "shipped") -> DataSource:
    """Return the file to read for a sample, its checksum verified.

    The `source` is "shipped"; "public" for the public file that the sample stands in for, which is
    fetched if it is not there; or the path of a file, or of a folder with a file SAMPLE.h5.
    """
    if source == "shipped":
        shipped = [entry.name for entry in list_samples()]
        if sample not in shipped and counterparts(sample):
            raise GenampError(
                f"sample `{sample}`: not shipped, there is {', '.join(shipped)}; give as `source` "
                "'public' or the path of a file of `genamp data simulate`"
            )
        return DataSource("shipped", sample, verify_sample(sample), sample_checksum(sample))
    if source == "public":
        public = public_counterpart(sample)
        path = public.path()
        if not path.is_file():
            fetch_public(public.name)
        checksum = verify_public(public.name)[0].partition(":")[2]
        return DataSource("public", public.name, path, checksum, public.record.doi)
    path = own_file(sample, source)
    return DataSource("file", str(path), path, sha256_of_file(path))
