"""Where events come from: closed forms and shipped samples. Not for generating them: simulation."""

from genamp_lib.datasets.jets import Jets, load_jets, relative_mass
from genamp_lib.datasets.samples import (
    Sample,
    list_samples,
    sample_checksum,
    sample_path,
    verify_sample,
)

__all__ = [
    "Jets",
    "Sample",
    "list_samples",
    "load_jets",
    "relative_mass",
    "sample_checksum",
    "sample_path",
    "verify_sample",
]
