"""Jets as lists of constituents in JetNet's layout: reading them, and their observables.

Kinematics: eta is pseudorapidity, `eta_rel` and `phi_rel` are a constituent's eta and phi minus
those of the full jet (phi wrapped to [-pi, pi)), `pt_rel` is its pt over the pt of the full jet;
the full jet is the sum of all its constituents, also of those that are not stored.

Observables are computed from the stored constituents in float64. With
z_i = pt_rel,i / sum_j pt_rel,j, dR_i the distance of constituent i from the jet axis and dR_ij that
of two constituents in (eta, phi):

| name | formula |
|---|---|
| mass | relative mass, `relative_mass` |
| sum_pt_rel | sum_i pt_rel,i |
| leading_pt_rel | max_i pt_rel,i |
| n_90 | least number of constituents that carry 90 % of sum_pt_rel |
| width | sum_i z_i dR_i |
| pt_dispersion | (sum_i z_i^2)^(1/2) |
| e2 | sum_{i<j} z_i z_j dR_ij |
| d2 | e3 / e2^3 with e3 = sum_{i<j<k} z_i z_j z_k dR_ij dR_jk dR_ki |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genamp_lib._project import GenampError
from genamp_lib.datasets.rows import Rows, check_finite, check_shapes, load_rows, provenance_of
from genamp_lib.datasets.sources import DataSource

PARTICLE_FIELDS = ("eta_rel", "phi_rel", "pt_rel", "mask")
JET_FIELDS = ("pt", "eta", "mass", "n_constituents")


@dataclass(frozen=True)
class Jets(Rows):
    """Jets and their hardest constituents.

    Slicing gives the jets of the slice: `jets[:100]`, `jets[selection]`.

    Attributes:
        particles: Shape (n, n_particles, 4), float32: eta_rel, phi_rel, pt_rel, mask (1 for a
            constituent, 0 for padding), constituents in order of falling pt.
        jets: Shape (n, 4), float32: pt in GeV, eta, mass in GeV, number of stored constituents.
        multiplicity: Shape (n,): constituents of the full jet, stored or not; None when unknown.
        provenance: Making of the file, as written in it; empty when it does not say.
        source: Where they came from; `str(jets.source)` is a phrase to print.
    """

    particles: np.ndarray
    jets: np.ndarray
    multiplicity: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    source: DataSource | None = None

    def __repr__(self) -> str:
        kind = self.provenance.get("kind", "unnamed")
        return f"Jets(n={len(self)}, n_particles={self.particles.shape[1]}, kind={kind!r})"


def relative_mass(particles: np.ndarray) -> np.ndarray:
    """Mass over pt of jets, from massless constituents in relative coordinates.

    The observable that sec. 3 of paper B distorts. The energies of the constituents are
    pt_rel cosh(eta_rel); the result is the mass of the stored constituents in units of the pt
    of the full jet. Computed in float64.

    Args:
        particles: Shape (n, n_particles, 3 or 4): eta_rel, phi_rel, pt_rel and, if there, mask.

    Returns:
        Shape (n,), float64.

    Raises:
        ValueError: `particles` has another shape.

    Two massless particles have m^2 = 2 pt1 pt2 (cosh(delta eta) - cos(delta phi)):

    >>> import numpy as np
    >>> jet = np.array([[[0.3, 0.0, 0.5, 1.0], [-0.3, 0.0, 0.5, 1.0]]])
    >>> relative_mass(jet).round(6), np.sqrt(0.5 * (np.cosh(0.6) - 1)).round(6)
    (array([0.30452]), np.float64(0.30452))
    """
    particles = np.asarray(particles, dtype=np.float64)
    if particles.ndim != 3 or particles.shape[2] not in (3, 4):
        raise ValueError(
            f"`particles` must have shape (n, n_particles, 3 or 4), got {particles.shape}."
        )
    eta, phi, pt = particles[..., 0], particles[..., 1], particles[..., 2]
    if particles.shape[2] == 4:
        pt = pt * particles[..., 3]
    # (E + pz)(E - pz) instead of E^2 - pz^2: no cancellation between large numbers.
    plus, minus = (pt * np.exp(eta)).sum(axis=1), (pt * np.exp(-eta)).sum(axis=1)
    px, py = (pt * np.cos(phi)).sum(axis=1), (pt * np.sin(phi)).sum(axis=1)
    return np.sqrt(np.maximum(plus * minus - px**2 - py**2, 0.0))


def load_jets(
    name: str | None = None, *, source: Path | str = "shipped", n_jets: int | None = None
) -> Jets:
    """Read a sample of jets: the shipped one, the public one, or a file.

    Args:
        name: Which jets: "jets_gluon", "jets_gluon_r04", ...; "jets_gluon" if None.
        source: "shipped", its checksum is verified; "public" for JetNet's jets of this kind,
            whose radius is 0.4 for all names, fetched if need be; or the path of an HDF5 file in
            JetNet's layout, of `genamp data simulate jets` or public: `particle_features`
            (n, n_particles, 4) and `jet_features` (n, 4); or of a folder with NAME.h5. A path needs
            no name; of a file that says which jets it holds, a given name must be that.
        n_jets: The first `n_jets` jets; all of them when None.

    Raises:
        GenampError: No such sample or file, the file is damaged, of other jets or layout, it cannot
            be fetched, or it has fewer than `n_jets` jets.

    >>> jets = load_jets(n_jets=1000)
    >>> jets
    Jets(n=1000, n_particles=30, kind='gluon')
    >>> print(jets.source)
    the shipped sample jets_gluon
    >>> jets[:10].particles.shape
    (10, 30, 4)
    """
    return load_rows(partial(_read, name), name or "jets_gluon", source, "n_jets", n_jets)


def _read(name: str | None, path: Path, file: Any, n_jets: int | None) -> Jets:
    made = provenance_of(file)
    if name and made.get("name", name) != name:
        raise GenampError(f"{path}: must hold {name}, got {made['name']}; give a file of {name}")
    shapes = {"particle_features": ("n", "n_particles", 4), "jet_features": ("n", 4)}
    check_shapes(path, file, shapes)
    lengths = {len(file[name]) for name in shapes}
    if len(lengths) != 1:
        raise GenampError(f"{path}: both datasets must have as many rows, got {sorted(lengths)}")
    arrays = {name: file[name][:n_jets].astype(np.float32, copy=False) for name in shapes}
    check_finite(path, arrays)
    pt_rel, mask = np.moveaxis(arrays["particle_features"], -1, 0)[2:]
    if not ((mask == 0) | (mask == 1)).all():
        raise GenampError(
            f"{path}: the mask (particle_features[..., 3]) must be 0 or 1, got values from "
            f"{mask.min():g} to {mask.max():g}"
        )
    if (pt_rel < 0).any():
        raise GenampError(f"{path}: pt_rel must not be negative, got {pt_rel.min():g}")
    multiplicity = file["multiplicity"][:n_jets] if "multiplicity" in file else None
    return Jets(*arrays.values(), multiplicity, made)


JET_OBSERVABLES = ("mass", "sum_pt_rel", "leading_pt_rel", "n_90")
JET_OBSERVABLES += ("width", "pt_dispersion", "e2", "d2")

# Jets at a time in the sums over pairs: 30 x 30 distances of 2000 jets are 14 MB.
_CHUNK = 2000


def observables_from_particles(particles: np.ndarray) -> np.ndarray:
    """Compute the observables named in `JET_OBSERVABLES`, in that order, shape (n, 8), float64.

    `particles` (n, n_particles, 4) are eta_rel, phi_rel, pt_rel, mask. Each jet must have two
    constituents with pt_rel > 0 at different places, or else e2 would vanish.

    Two equal constituents at distance 0.6, on either side of the axis:

    >>> jet = np.array([[[0.3, 0.0, 0.5, 1.0], [-0.3, 0.0, 0.5, 1.0]]])
    >>> values = observables_from_particles(jet)[0].round(4).tolist()
    >>> dict(zip(JET_OBSERVABLES, values, strict=True))
    {'mass': 0.3045, 'sum_pt_rel': 1.0, 'leading_pt_rel': 0.5, 'n_90': 2.0, 'width': 0.3,
     'pt_dispersion': 0.7071, 'e2': 0.15, 'd2': 0.0}
    """
    particles = np.asarray(particles)
    if particles.ndim != 3 or particles.shape[2] != 4 or not particles.size:
        raise ValueError(f"`particles` must have shape (n, n_particles, 4), got {particles.shape}.")
    chunks = [particles[i : i + _CHUNK] for i in range(0, len(particles), _CHUNK)]
    return np.concatenate([_observables(chunk, i * _CHUNK) for i, chunk in enumerate(chunks)])


def disjoint_pools(n_jets: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide jets at random into a truth pool and a generated pool that share none, as indices.

    >>> truth, generated = disjoint_pools(5, seed=1)
    >>> len(truth), len(generated), sorted([*truth.tolist(), *generated.tolist()])
    (3, 2, [0, 1, 2, 3, 4])
    """
    if n_jets < 2:
        raise ValueError(f"`n_jets` must be at least 2, got {n_jets}.")
    order = np.random.default_rng(seed).permutation(n_jets)
    n_truth = (n_jets + 1) // 2
    return order[:n_truth], order[n_truth:]


def _observables(particles: np.ndarray, first: int) -> np.ndarray:
    particles = particles.astype(np.float64)
    eta, phi, pt = particles[..., 0], particles[..., 1], particles[..., 2] * particles[..., 3]
    sum_pt = pt.sum(axis=1)
    if (sum_pt <= 0.0).any():
        raise ValueError(
            f"every jet must have a constituent with pt_rel > 0, got none in jet "
            f"{first + int(np.argmin(sum_pt))}."
        )
    z = pt / sum_pt[:, None]
    carried = np.cumsum(-np.sort(-z, axis=1), axis=1)
    angle = (phi[:, :, None] - phi[:, None] + np.pi) % (2.0 * np.pi) - np.pi
    distance = np.hypot(eta[:, :, None] - eta[:, None, :], angle)
    # With A_ij = (z_i z_j)^(1/2) dR_ij, sums over triples are traces: e3 = tr(A A A) / 6.
    root = np.sqrt(z)
    matrix = root[:, :, None] * distance * root[:, None, :]
    e2 = 0.5 * np.einsum("ni,nij,nj->n", z, distance, z, optimize=True)
    if (e2 <= 0.0).any():
        raise ValueError(
            f"every jet must have two constituents at different places, got jet "
            f"{first + int(np.argmin(e2))} with all at one."
        )
    e3 = np.einsum("nij,nji->n", matrix @ matrix, matrix) / 6.0
    columns = (
        relative_mass(particles),
        sum_pt,
        pt.max(axis=1),
        # The tolerance keeps a sum that is 0.9 but for its last digit at the same number.
        1.0 + (carried < 0.9 - 1e-12).sum(axis=1),
        (z * np.hypot(eta, phi)).sum(axis=1),
        np.sqrt((z**2).sum(axis=1)),
        e2,
        e3 / e2**3,
    )
    return np.stack(columns, axis=1)
