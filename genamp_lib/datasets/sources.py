"""Where the data of a loader come from: shipped, public, or a file. Not for reading them.

All loaders take the same argument `source` and hand out the same `DataSource` with the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.datasets.public import fetch_public, public_counterpart, verify_public
from genamp_lib.datasets.samples import find_sample, list_samples, verify_sample


@dataclass(frozen=True)
class DataSource:
    """Where data came from; its text is for a page to print.

    Attributes:
        kind: "shipped", "public" or "file".
        name: Of the sample, of the public file, or the path as it was given.
        path: The file that was read.
        checksum: Of that file, hexadecimal: SHA-256, or what is published.
        doi: Of a public file; empty otherwise.

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


def find_source(sample: str, source: Path | str = "shipped") -> DataSource:
    """Return the file to read for a sample, its checksum verified.

    Args:
        sample: Name of a shipped sample; which data are meant.
        source: "shipped"; "public" for the public file that the sample stands in for, which is
            fetched if it is not there; or the path of a file.

    Raises:
        GenampError: No such sample or file, or it is damaged or out of reach.
    """
    if source == "shipped":
        shipped = [entry.name for entry in list_samples()]
        if sample not in shipped and _is_known(sample):
            raise GenampError(
                f"sample `{sample}`: not shipped, there is {', '.join(shipped)}; give as `source` "
                "'public' or the path of a file of `genamp data simulate`"
            )
        return DataSource("shipped", sample, verify_sample(sample), find_sample(sample).sha256)
    if source == "public":
        public = public_counterpart(sample)
        path = public.path()
        if not path.is_file():
            fetch_public(public.name)
        checksum = verify_public(public.name)[0].partition(":")[2]
        return DataSource("public", public.name, path, checksum, public.record.doi)
    path = Path(source)
    if not path.is_file():
        raise GenampError(
            f"{path}: not found; give an HDF5 file as `source`, or 'shipped' or 'public'"
        )
    return DataSource("file", str(source), path, sha256_of_file(path))


def _is_known(sample: str) -> bool:
    try:
        public_counterpart(sample)
    except GenampError:
        return False
    return True
