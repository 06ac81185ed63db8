"""A user's files in the place of a chapter's samples: what they must be, checked before a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genamp_lib._project import GenampError
from genamp_lib.datasets.events import load_top_pairs, load_z_jets
from genamp_lib.datasets.jets import load_jets
from genamp_lib.datasets.public import counterparts
from genamp_lib.datasets.rows import Rows
from genamp_lib.datasets.showers import load_showers


def check_own(samples: Sequence[str], source: Path | str) -> None:
    """Refuse a file, or a folder with one per sample, that is not what the samples are.

    Layout, particle, radius and multiplicity are checked, as far as the file says them. One file
    stands for several samples only where one public file does.
    """
    kinds = {tuple(public.name for public in counterparts(sample)) for sample in samples}
    if Path(source).is_file() and len(kinds) > 1:
        wanted = ", ".join(f"{sample}.h5" for sample in samples)
        raise GenampError(
            f"`source` must be a folder with {wanted}, since one file cannot be all of them; "
            f"got the file {source}"
        )
    for sample in samples:
        load_sample(sample, source, 1)


def load_sample(sample: str, source: Path | str = "shipped", n_rows: int | None = None) -> Rows:
    """Read the first rows of a sample, whatever it holds, as its loader does."""
    kind, _, which = sample.rpartition("_")
    if sample.startswith("jets_"):
        return load_jets(sample, source=source, n_jets=n_rows)
    if kind == "showers":
        return load_showers(which, source=source, n_showers=n_rows)
    load = load_z_jets if kind == "z_jets" else load_top_pairs
    return load(int(which.removesuffix("j")), source=source, n_events=n_rows)
