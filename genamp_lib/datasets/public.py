"""The papers' public data: what there is, where it lies, and fetching it once, whole.

Names are RECORD/FILE, e.g. "jetnet/g.hdf5", and that is where a file lies in the data folder:
`GENAMP_DATA`, or a folder in the user's cache. Sizes and checksums are those that the repository
(Zenodo, Mendeley Data) states; its answer is kept as record.json beside the files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from genamp_lib._project import GenampError, read_json, write_json
from genamp_lib.datasets._download import HEADERS, TIMEOUT, Progress, download

FOLDER_VARIABLE = "GENAMP_DATA"
MIRROR_VARIABLE = "GENAMP_MIRROR"


@dataclass(frozen=True)
class PublicRecord:
    """One published data set."""

    name: str  # first part of the names of its files, and their folder
    what: str
    page: str  # for a person; the DOI where there is one
    # of the list of files with addresses, sizes and checksums, or of the file where there is none
    address: str
    # files known by name -> how the names of the samples begin that stand in for them, if any
    files: Mapping[str, str]
    simulate: str  # command that makes the same kind of data
    doi: str = ""


def _zenodo(
    name: str, number: int, what: str, files: dict[str, str], simulate: str
) -> PublicRecord:
    doi = f"10.5281/zenodo.{number}"
    address = f"https://zenodo.org/api/records/{number}"
    return PublicRecord(name, what, f"https://doi.org/{doi}", address, files, simulate, doi)


_TTBAR = "https://www.thphys.uni-heidelberg.de/~plehn/data/event_generation_ttbar.hdf5"

PUBLIC_RECORDS = (
    _zenodo(
        "jetnet",
        6975118,
        "JetNet with 30 particles: gluon, light-quark, top, W and Z jets (paper B, sec. 3).",
        {
            "g.hdf5": "jets_gluon",
            "q.hdf5": "jets_light",
            "t.hdf5": "jets_top",
            "w.hdf5": "",
            "z.hdf5": "",
        },
        "jets",
    ),
    PublicRecord(
        "ttbar",
        "All-hadronic top pairs with 0 to 4 further jets, 4.7 GB (paper A, sec. 5).",
        _TTBAR,
        _TTBAR,
        {"event_generation_ttbar.hdf5": "top_pairs"},
        "top-pairs",
    ),
    _zenodo(
        "classifier_samples",
        10277550,
        "Z bosons with jets and calorimeter showers, truth and generated (paper B, sec. 4 and 5).",
        {
            "truth.h5": "z_jets",
            "generated.h5": "",
            "full_cls_piplus.hdf5": "",
            "samples_piplus.hdf5": "",
        },
        "z-jets",
    ),
    PublicRecord(
        "calogan",
        "Geant4 showers of positrons, photons and charged pions in three layers (CaloGAN).",
        "https://doi.org/10.17632/pvn3xc3wy5.1",
        "https://data.mendeley.com/public-api/datasets/pvn3xc3wy5/files?folder_id=root&version=1",
        {
            "eplus.hdf5": "showers_eplus",
            "gamma.hdf5": "showers_gamma",
            "piplus.hdf5": "showers_piplus",
        },
        "showers",
        "10.17632/pvn3xc3wy5.1",
    ),
    _zenodo(
        "caloflow",
        5904188,
        "Showers in the same calorimeter, Geant4 and CaloFlow; its files are named by the record.",
        {},
        "showers",
    ),
)


class Entry(NamedTuple):
    """What a repository says of a file; None where it says nothing."""

    address: str
    n_bytes: int | None = None
    checksum: str | None = None  # as pooch takes it: "md5:..." or "sha256:..."


def _entries(record: PublicRecord, content: Any) -> dict[str, Entry]:
    """Read the answers of Zenodo and, a list, of Mendeley Data."""
    try:
        if isinstance(content, list):
            details = {file["filename"]: file["content_details"] for file in content}
            return {
                name: Entry(about["download_url"], about["size"], f"sha256:{about['sha256_hash']}")
                for name, about in details.items()
            }
        return {
            file["key"]: Entry(file["links"]["self"], file["size"], file["checksum"])
            for file in content["files"]
        }
    except (KeyError, TypeError) as error:
        raise GenampError(
            f"{record.name}: {record.address} must list files with addresses, sizes and "
            f"checksums, got {type(error).__name__}: {error}; see {record.page}"
        ) from error


@dataclass(frozen=True)
class PublicFile:
    """A file of a record."""

    record: PublicRecord
    file: str

    @property
    def name(self) -> str:
        """RECORD/FILE."""
        return f"{self.record.name}/{self.file}"

    def path(self, folder: Path | None = None) -> Path:
        """Where it lies when it was fetched."""
        return (folder or data_folder()) / self.record.name / self.file

    def state(self, folder: Path | None = None) -> str:
        """`fetched`, `partly fetched`, `not fetched` or `damaged`; by size only, so it is quick."""
        path = self.path(folder)
        if not path.is_file():
            return "partly fetched" if _part(path).is_file() else "not fetched"
        known = _kept_entries(self.record, path.parent).get(self.file)
        return "damaged" if known and known.n_bytes != path.stat().st_size else "fetched"


def _pooch() -> Any:
    """Import pooch without the words that its progress bar has for notebooks."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


def data_folder() -> Path:
    """Return where public files are kept: `GENAMP_DATA`, or a folder in the user's cache."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _pooch().os_cache("genamp"))


def list_public() -> list[PublicFile]:
    """Return the public files that are known by name, in the order of the catalogue."""
    return [PublicFile(record, file) for record in PUBLIC_RECORDS for file in record.files]


def find_public(name: str) -> PublicFile:
    """Return the public file called RECORD/FILE, also one that the catalogue does not know.

    >>> find_public("jetnet/g.hdf5").record.doi
    '10.5281/zenodo.6975118'
    """
    records = {record.name: record for record in PUBLIC_RECORDS}
    first, _, file = name.partition("/")
    if first not in records:
        close = get_close_matches(first, records, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise GenampError(f"`{name}`: unknown; {hint}public records: {', '.join(records)}")
    record = records[first]
    if not file and len(record.files) == 1:
        (file,) = record.files
    if not file or Path(file).name != file or file.startswith("."):
        names = ", ".join(f"{first}/{known}" for known in record.files)
        raise GenampError(
            f"`{name}`: must be RECORD/FILE; choose {names or f'a file listed on {record.page}'}"
        )
    return PublicFile(record, file)


def counterparts(sample: str) -> list[PublicFile]:
    """Return the public files that a sample of ours stands in for; none where there is none."""
    named = [(public, public.record.files[public.file]) for public in list_public()]
    return [public for public, start in named if start and sample.startswith(start)]


def public_counterpart(sample: str) -> PublicFile:
    """Return the public file that a sample of ours stands in for.

    >>> public_counterpart("jets_gluon_r04").name, public_counterpart("z_jets_2j").name
    ('jetnet/g.hdf5', 'classifier_samples/truth.h5')
    """
    found = counterparts(sample)
    if not found:
        raise GenampError(f"sample `{sample}`: has no public counterpart; use source='shipped'")
    return found[0]


def public_path(name: str, folder: Path | None = None) -> Path:
    """Return where a public file lies that was fetched."""
    public = find_public(name)
    path = public.path(folder)
    if not path.is_file():
        raise GenampError(f"{public.name}: not fetched; run `genamp data fetch {public.name}`")
    return path


def fetch_public(
    name: str,
    *,
    folder: Path | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a public file unless it is there, verify its checksum and return its path.

    What has come of an interrupted download is kept and continued.

    Args:
        name: RECORD/FILE.
        folder: Where to keep it; `data_folder()` if None.
        mirror: Ask MIRROR/HOST/PATH for what lies at https://HOST/PATH, the layout of
            `wget --mirror`; `GENAMP_MIRROR`, or the repositories themselves, if None.
        progress: Called with the bytes that are there and the size, None if that is not known.

    Raises:
        GenampError: Unknown name, the file or its record cannot be reached, the checksum is
            another one, or the disk is full.
    """
    from filelock import FileLock

    pooch = _pooch()
    public = find_public(name)
    path = public.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file():
            verify_public(public.name, folder=folder, mirror=mirror)
            return path
        entry = _entry(public, path, mirror)
        _check_space(public, path, entry)
        pooch.get_logger().setLevel("WARNING")  # the caller reports
        with _reachable(public, path, entry.address):
            try:
                pooch.retrieve(
                    _mirrored(entry.address, mirror),
                    known_hash=entry.checksum,
                    fname=path.name,
                    path=path.parent,
                    downloader=partial(download, part=_part(path), progress=progress),
                )
            except ValueError as error:
                raise GenampError(
                    f"{public.name}: what came does not have the published checksum "
                    f"{entry.checksum} and was removed; run the command again, "
                    f"or {_by_hand(public, path)}"
                ) from error
        if entry.checksum is None:
            _noted_checksum(path)
    return path


def verify_public(
    name: str, *, folder: Path | None = None, mirror: str | None = None
) -> tuple[str, bool]:
    """Compare a fetched file with its checksum.

    Where none is published, or its record is out of reach, that is the checksum that was noted
    when the file was seen first.

    Returns:
        The checksum, as "md5:..." or "sha256:...", and whether it is a published one.

    Raises:
        GenampError: The file is not there, or is not the one that the checksum is of.
    """
    public = find_public(name)
    path = public_path(name, folder)
    try:
        checksum = _entry(public, path, mirror).checksum
    except _OutOfReach:
        checksum = None
    published = checksum is not None
    checksum = checksum or _noted_checksum(path)
    method, _, expected = checksum.partition(":")
    found = _pooch().file_hash(str(path), alg=method)
    if found != expected:
        raise GenampError(
            f"{public.name}: damaged or another file, {path} must have {method.upper()} "
            f"{expected[:12]}..., got {found[:12]}...; remove it and run "
            f"`genamp data fetch {public.name}`"
        )
    return checksum, published


class _OutOfReach(GenampError):
    pass


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _mirrored(address: str, mirror: str | None) -> str:
    base = mirror or os.environ.get(MIRROR_VARIABLE)
    parts = urlsplit(address)
    query = f"?{parts.query}" if parts.query else ""
    return f"{base.rstrip('/')}/{parts.netloc}{parts.path}{query}" if base else address


def _kept_entries(record: PublicRecord, folder: Path) -> dict[str, Entry]:
    kept = folder / "record.json"
    return _entries(record, read_json(kept)) if kept.is_file() else {}


def _entry(public: PublicFile, path: Path, mirror: str | None) -> Entry:
    """Say what the repository says of a file: from the kept answer, or by asking once."""
    record = public.record
    if record.address == record.page:
        return Entry(record.address)
    known = _kept_entries(record, path.parent)
    if not known:
        import requests

        with _reachable(public, path, record.address):
            answer = requests.get(
                _mirrored(record.address, mirror), headers=HEADERS, timeout=TIMEOUT
            )
            answer.raise_for_status()
            content = answer.json()
        known = _entries(record, content)
        write_json(path.parent / "record.json", content)
    if public.file not in known:
        raise GenampError(
            f"`{public.name}`: its record has no such file, it has {', '.join(known) or 'none'}"
        )
    return known[public.file]


def _noted_checksum(path: Path) -> str:
    """Return the checksum that the file had when it was seen first."""
    noted = path.with_name(path.name + ".json")
    if not noted.is_file():
        checksum = f"sha256:{_pooch().file_hash(str(path))}"
        write_json(noted, {"checksum": checksum, "meaning": "of the file when it was seen first"})
    return read_json(noted)["checksum"]


def _check_space(public: PublicFile, path: Path, entry: Entry) -> None:
    part = _part(path)
    missing = (entry.n_bytes or 0) - (part.stat().st_size if part.is_file() else 0)
    free = shutil.disk_usage(path.parent).free
    if missing > free:
        raise GenampError(
            f"{public.name}: needs {missing / 1e6:.0f} MB, {path.parent} has {free / 1e6:.0f} MB "
            f"free; give another folder with --folder or {FOLDER_VARIABLE}"
        )


@contextmanager
def _reachable(public: PublicFile, path: Path, address: str) -> Iterator[None]:
    """Turn a failed request into one line with what to do instead."""
    import requests

    try:
        yield
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", None)
        reason = type(error).__name__ if status is None else f"HTTP status {status}"
        raise _OutOfReach(
            f"{public.name}: {address} cannot be reached ({reason}); use the shipped sample "
            f"(source='shipped'), make one with `genamp data simulate {public.record.simulate}`, "
            f"or {_by_hand(public, path)}"
        ) from error


def _by_hand(public: PublicFile, path: Path) -> str:
    return f"download {public.file} by hand from {public.record.page} into {path.parent}"
