"""Read collider events: top pairs and Z bosons with jets. Not for making them: simulation.

Momenta are pt, eta, phi, mass (datasets.kinematics) of particles with names, the same ones in each
event of a sample. A source is a shipped sample, a file that `genamp data simulate` wrote, or a file
in the layout of the papers' public ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genamp_lib._project import GenampError
from genamp_lib.datasets.kinematics import mass_of_sum, to_cartesian, to_cylindrical
from genamp_lib.datasets.rows import Rows, check_finite, check_shapes, load_rows, provenance_of
from genamp_lib.datasets.sources import DataSource

# Process -> the particles of each event, before the further jets.
HARD_PARTICLES = {"top_pairs": ("b1", "q1", "q2", "b2", "q3", "q4"), "z_jets": ("mu1", "mu2")}


@dataclass(frozen=True)
class Events(Rows):
    """Collider events with the same named particles in each.

    Slicing gives the events of the slice: `events[:100]`, `events[selection]`.

    Attributes:
        momenta: Shape (n, n_particles, 4), float32: pt in GeV, eta, phi in [-pi, pi), mass in GeV.
        particles: Names of the particles, in their order.
        process: "top_pairs" or "z_jets".
        chi2: Shape (n,): chi^2 of the assignment of jets to top quarks; None where there is none.
        provenance: Making of the file, as written in it; empty when it does not say.
        source: Where they came from; `str(events.source)` is a phrase to print.
    """

    momenta: np.ndarray
    particles: tuple[str, ...]
    process: str
    chi2: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    source: DataSource | None = None

    def __repr__(self) -> str:
        names = ", ".join(self.particles)
        return f"Events(n={len(self)}, process={self.process!r}, particles=({names}))"

    def of(self, *names: str) -> np.ndarray:
        """Return pt, eta, phi, mass of particles by name, shape (n, len(names), 4).

        Raises:
            ValueError: A name is not one of `particles`.
        """
        unknown = sorted(set(names) - set(self.particles))
        if unknown or not names:
            raise ValueError(
                f"`names` must be of {', '.join(self.particles)}, got {', '.join(unknown)}."
            )
        return self.momenta[:, [self.particles.index(name) for name in names]]

    def mass_of(self, *names: str) -> NDArray[np.float64]:
        """Return the invariant mass of particles by name in GeV, shape (n,).

        `events.mass_of("mu1", "mu2")` is that of a Z, `events.mass_of("q1", "q2")` that of a W.
        """
        return mass_of_sum(self.of(*names))

    def sum_of(self, *names: str) -> NDArray[np.float64]:
        """Return pt, eta, phi, mass of the summed four-momentum of particles, shape (n, 4)."""
        total = to_cylindrical(to_cartesian(self.of(*names)).sum(axis=1))
        total[:, 3] = self.mass_of(*names)
        return total


def particles_of(process: str, n_jets: int) -> tuple[str, ...]:
    """Return the particles of a sample with `n_jets` further jets, in their order."""
    return (*HARD_PARTICLES[process], *(f"j{index}" for index in range(1, n_jets + 1)))


def load_top_pairs(
    n_extra_jets: int = 0, *, source: Path | str = "shipped", n_events: int | None = None
) -> Events:
    """Read all-hadronic top pairs, reconstructed: the data of sec. 5 of paper A.

    Args:
        n_extra_jets: Jets besides the six of the top quarks; 0 or 4 are shipped.
        source: "shipped", its checksum is verified; "public" for the events of paper A, 4.7 GB,
            fetched if need be; or the path of a file of `genamp data simulate top-pairs` or in
            the layout of paper A's: datasets `ttbar+Njet` of shape (n, 4 (6 + N)), rows of energy,
            px, py, pz.
        n_events: The first events; all of them when None.

    Raises:
        GenampError: No such sample or file, the file is damaged, of another process or layout, or
            it has fewer than `n_events` events.

    Example:
        events = load_top_pairs()
        m_tt = events.mass_of("b1", "q1", "q2", "b2", "q3", "q4")
    """
    if n_extra_jets not in range(5):
        raise GenampError(f"`n_extra_jets` must be from 0 to 4, got {n_extra_jets!r}.")
    read = partial(_read, "top_pairs", n_extra_jets, f"ttbar+{n_extra_jets}jet")
    return load_rows(read, f"top_pairs_{n_extra_jets}j", source, "n_events", n_events)


def load_z_jets(
    n_jets: int = 1, *, source: Path | str = "shipped", n_events: int | None = None
) -> Events:
    """Read Z bosons to two muons with exactly `n_jets` jets: the data of sec. 5 of paper B.

    Args:
        n_jets: 1, 2 or 3.
        source: "shipped", its checksum is verified; "public" for the truth events of paper B,
            fetched if need be; or the path of a file of `genamp data simulate z-jets` or in the
            layout of paper B's, which pandas wrote: rows of 20, energy, px, py, pz of two muons
            and three jets, zero where there is none.
        n_events: The first events; all of them when None.

    Raises:
        GenampError: No such sample or file, the file is damaged, of another process or layout, or
            it has fewer than `n_events` events.

    >>> events = load_z_jets(2, n_events=1000)
    >>> events
    Events(n=1000, process='z_jets', particles=(mu1, mu2, j1, j2))
    >>> events.mass_of("mu1", "mu2").shape
    (1000,)
    """
    if n_jets not in (1, 2, 3):
        raise GenampError(f"`n_jets` must be 1, 2 or 3, got {n_jets!r}.")
    read = partial(_read, "z_jets", n_jets, "block0_values")
    return load_rows(read, f"z_jets_{n_jets}j", source, "n_events", n_events)


def _read(
    process: str, n_jets: int, public_name: str, path: Path, file: Any, n_events: int | None
) -> Events:
    particles = particles_of(process, n_jets)
    made, chi2 = provenance_of(file), None
    if "momenta" in file:
        names = tuple(str(name) for name in file["momenta"].attrs.get("particles", ()))
        if made.get("process", process) != process or names != particles:
            raise GenampError(
                f"{path}: must hold {process} with {', '.join(particles)}, got "
                f"{made.get('process')} with {', '.join(names) or 'no names'}"
            )
        check_shapes(path, file, {"momenta": ("n", len(particles), 4)})
        momenta = file["momenta"][:n_events].astype(np.float32, copy=False)
        chi2 = file["chi2"][:n_events] if "chi2" in file else None
    else:
        found = _find_dataset(file, public_name)
        if found is None:
            raise GenampError(
                f"{path}: must have the dataset `momenta`, or `{public_name}` as the public "
                f"file, has {', '.join(file) or 'none'}"
            )
        momenta = _read_public(path, found, public_name, process, particles, n_events)
    check_finite(path, {"momenta": momenta[:n_events]})
    return Events(momenta, particles, process, chi2, made)


def _find_dataset(file: Any, name: str) -> Any:
    import h5py

    def visit(path: str, item: Any) -> Any:
        if not isinstance(item, h5py.Dataset):
            return None
        if name == "block0_values" and "values_block_0" in (item.dtype.names or ()):
            return item.fields("values_block_0")  # pandas has two formats; this is its "table"
        return item if path.split("/")[-1] == name else None

    return file.visititems(visit)


def _read_public(
    path: Path, data: Any, name: str, process: str, particles: tuple[str, ...], n_events: int | None
) -> np.ndarray:
    """Return pt, eta, phi, mass from rows of energy, px, py, pz; Z bosons of one multiplicity."""
    n_row = 4 * (5 if process == "z_jets" else len(particles))
    # Only top pairs have tables of one multiplicity, so that the first rows are the first events.
    rows = data[:] if process == "z_jets" else data[:n_events]
    if rows.ndim != 2 or rows.shape[1] != n_row:
        raise GenampError(f"{path}: `{name}` must have shape (n, {n_row}), got {rows.shape}")
    rows = rows.astype(np.float64).reshape(len(rows), -1, 4)
    if process == "z_jets":
        n_particles = (rows[..., 0] > 0).sum(axis=1)
        rows = rows[n_particles == len(particles), : len(particles)]
    return to_cylindrical(rows).astype(np.float32)
