"""The catalogue of the papers' public data. Not for fetching them: datasets.public."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublicRecord:
    """One published data set.

    Attributes:
        name: First part of the names of its files, and their folder.
        what: One sentence.
        page: Where a person finds it; the DOI where there is one.
        address: What answers with names, addresses and checksums of the files; of the file itself
            where there is no such list.
        files: Files known by name, and how the names of the samples begin that stand in for them;
            empty where none does.
        simulate: The command that makes the same kind of data.
        doi: Empty if there is none.
    """

    name: str
    what: str
    page: str
    address: str
    files: Mapping[str, str]
    simulate: str
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
