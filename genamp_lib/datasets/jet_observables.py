"""Observables of whole jets from their constituents, and the distortions of paper B, sec. 3.

Not for reading jets: datasets.jets. Everything is computed from the stored constituents, in
coordinates relative to the jet (see datasets.jets), in float64.

With z_i = pt_rel,i / sum_j pt_rel,j, dR_i the distance of constituent i from the jet axis and dR_ij
that of two constituents in (eta, phi):

| name | formula |
|---|---|
| mass | relative mass, `datasets.jets.relative_mass` |
| sum_pt_rel | sum_i pt_rel,i |
| leading_pt_rel | max_i pt_rel,i |
| n_90 | least number of constituents that carry 90 % of sum_pt_rel |
| width | sum_i z_i dR_i |
| pt_dispersion | (sum_i z_i^2)^(1/2) |
| e2 | sum_{i<j} z_i z_j dR_ij |
| d2 | e3 / e2^3 with e3 = sum_{i<j<k} z_i z_j z_k dR_ij dR_jk dR_ki |
"""

from __future__ import annotations

import numpy as np

from genamp_lib.datasets.jets import relative_mass

JET_OBSERVABLES = (
    "mass",
    "sum_pt_rel",
    "leading_pt_rel",
    "n_90",
    "width",
    "pt_dispersion",
    "e2",
    "d2",
)

# Jets at a time in the sums over pairs: 30 x 30 distances of 2000 jets are 14 MB.
_CHUNK = 2000


def observables_from_particles(particles: np.ndarray) -> np.ndarray:
    """Compute the observables named in `JET_OBSERVABLES`, in that order.

    Args:
        particles: Shape (n, n_particles, 4): eta_rel, phi_rel, pt_rel, mask.

    Returns:
        Shape (n, 8), float64.

    Raises:
        ValueError: `particles` has another shape, or a jet has fewer than two constituents with
            pt_rel > 0 at different places (e2 would vanish).

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
    """Divide jets at random into a truth pool and a generated pool that share none.

    Args:
        n_jets: Number of jets.
        seed: Of the division.

    Returns:
        Indices of the truth pool, (n_jets + 1) // 2 of them, and of the generated pool.

    Raises:
        ValueError: There are fewer than two jets.

    >>> truth, generated = disjoint_pools(5, seed=1)
    >>> len(truth), len(generated), sorted([*truth.tolist(), *generated.tolist()])
    (3, 2, [0, 1, 2, 3, 4])
    """
    if n_jets < 2:
        raise ValueError(f"`n_jets` must be at least 2, got {n_jets}.")
    order = np.random.default_rng(seed).permutation(n_jets)
    n_truth = (n_jets + 1) // 2
    return order[:n_truth], order[n_truth:]


def tail_cut(mass: np.ndarray, *, cut: float) -> np.ndarray:
    """Select jets with mass < cut: the "tail cut" of paper B, sec. 3, by acceptance.

    The density that is left is the true one below the cut over 1 - epsilon, with epsilon the
    fraction that is removed, and nothing above. Paper B draws the same density with replacement,
    from weights per mass bin; here no jet comes twice, so that counting errors mean what they say.

    Args:
        mass: Relative mass, shape (n,).
        cut: Jets at or above it are removed.

    Returns:
        True for the jets that stay, shape (n,).

    Raises:
        ValueError: The cut removes no jet or all of them.

    >>> tail_cut(np.array([0.1, 0.2, 0.16]), cut=0.17)
    array([ True, False,  True])
    """
    mass = np.asarray(mass)
    kept = mass < cut
    if kept.all() or not kept.any():
        raise ValueError(
            f"`cut` must lie between the masses, {mass.min():.4g} to {mass.max():.4g}, got {cut}."
        )
    return kept


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
    distance = np.hypot(eta[:, :, None] - eta[:, None, :], _wrapped(phi[:, :, None] - phi[:, None]))
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


def _wrapped(phi: np.ndarray) -> np.ndarray:
    """Bring angles into [-pi, pi)."""
    return (phi + np.pi) % (2.0 * np.pi) - np.pi
