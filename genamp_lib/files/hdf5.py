"""Arrays in HDF5: links, fields, filters, and virtual datasets that are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import GenampError


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file; what HDF5 stumbles over then is one line with the remedy."""
    import h5py

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  # more filters
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BlockingIOError as error:
        raise GenampError(
            f"{path}: another process has it open for writing; wait until that one closes it"
        ) from error
    except OSError as error:
        if "filter" in str(error) or "plugin" in str(error):
            reason = " ".join(str(error).split())
            raise GenampError(
                f"{path}: compressed with a filter that is missing here ({reason}); run "
                "`pip install hdf5plugin`"
            ) from error
        raise


def dataset_names(file: Any) -> list[str]:
    """Return the paths of all datasets, each once; links are not followed."""
    import h5py

    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def find_dataset(path: Path, file: Any, key: str) -> Any:
    """Return the whole dataset at a path, also behind links; None where the path leads nowhere."""
    import h5py

    link = item = None
    with suppress(KeyError, ValueError):
        link = file.get(key, getlink=True)
    with suppress(OSError):
        item = file.get(key)
    if item is None and isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
        place = f" of {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
        raise GenampError(f"{path}: `{key}` is a link to `{link.path}`{place}, which is not there")
    if isinstance(item, h5py.Group):
        raise GenampError(
            f"{path}: `{key}` is a group; name one of its datasets, {', '.join(item) or 'none'}"
        )
    if isinstance(item, h5py.Dataset) and item.is_virtual:
        _check_virtual(path, item)
    return item if isinstance(item, h5py.Dataset) else None


def _check_virtual(path: Path, data: Any) -> None:
    """Refuse a virtual dataset with missing parts, which HDF5 fills with zeros in silence."""
    import h5py

    n_mapped = 0
    home = Path(data.file.filename).parent
    for source in data.virtual_sources():
        n_mapped += source.vspace.get_select_npoints()
        if "%" in source.file_name:  # one of many files, by their number
            continue
        own = source.file_name == "."
        places = [home / source.file_name, Path(source.file_name)]
        place = next((one for one in places if one.is_file()), None)
        problem = f"{path}: a part of the virtual dataset `{data.name}` is missing, "
        if not own and place is None:
            raise GenampError(f"{problem}{source.file_name}; put it back beside the file")
        file = data.file if own else h5py.File(place, "r")
        try:
            part, wanted = file.get(source.dset_name), source.src_space
            is_cut = wanted.get_select_type() == h5py.h5s.SEL_HYPERSLABS
            last = wanted.get_select_bounds()[1] if is_cut else ()
            if (
                part is None
                or part.size < source.vspace.get_select_npoints()
                or any(n <= end for n, end in zip(part.shape, last, strict=False))
            ):
                raise GenampError(f"{problem}`{source.dset_name}` of {file.filename}; mend it")
            if part.is_virtual:
                _check_virtual(path, part)
        finally:
            if not own:
                file.close()
    if n_mapped < np.prod(data.shape):
        raise GenampError(
            f"{path}: the virtual dataset `{data.name}` must have all of its "
            f"{np.prod(data.shape)} numbers, got {n_mapped}; map the other parts"
        )
