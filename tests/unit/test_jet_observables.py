"""Jet observables against their formulas written as loops, their symmetries, and pools of jets."""

from itertools import combinations

import numpy as np
import pytest

from genamp_lib.datasets.jets import JET_OBSERVABLES, disjoint_pools, observables_from_particles


def random_jets(n_jets=7, n_particles=6, seed=1):
    """Jets of at least two constituents, zero-padded; some near phi = pi of the detector."""
    rng = np.random.default_rng(seed)
    particles = rng.normal(0.0, 0.2, size=(n_jets, n_particles, 4))
    particles[..., 2] = np.sort(rng.dirichlet(np.ones(n_particles), n_jets), axis=1)[:, ::-1]
    particles[..., 3] = np.arange(n_particles) < rng.integers(2, n_particles + 1, n_jets)[:, None]
    return particles * particles[..., 3:]


def column(particles, name):
    return observables_from_particles(particles)[:, JET_OBSERVABLES.index(name)]


def by_loops(jet):
    """The table of the module, one constituent after the other."""
    jet = [p for p in jet if p[3]]
    total = sum(p[2] for p in jet)
    z = [p[2] / total for p in jet]

    def distance(i, j):
        return np.hypot(jet[i][0] - jet[j][0], np.angle(np.exp(1j * (jet[i][1] - jet[j][1]))))

    four = sum(
        p[2] * np.array([np.cosh(p[0]), np.cos(p[1]), np.sin(p[1]), np.sinh(p[0])]) for p in jet
    )
    carried, n_90 = 0.0, 0
    for fraction in sorted(z, reverse=True):
        carried, n_90 = carried + fraction, n_90 + 1
        if carried >= 0.9:
            break
    number = range(len(jet))
    e2 = sum(z[i] * z[j] * distance(i, j) for i, j in combinations(number, 2))
    e3 = sum(
        z[i] * z[j] * z[k] * distance(i, j) * distance(j, k) * distance(k, i)
        for i, j, k in combinations(number, 3)
    )
    return {
        "mass": np.sqrt(max(four[0] ** 2 - (four[1:] ** 2).sum(), 0.0)),
        "sum_pt_rel": total,
        "leading_pt_rel": max(p[2] for p in jet),
        "n_90": n_90,
        "width": sum(f * np.hypot(p[0], p[1]) for f, p in zip(z, jet, strict=True)),
        "pt_dispersion": np.sqrt(sum(f**2 for f in z)),
        "e2": e2,
        "d2": e3 / e2**3,
    }


class TestJetObservables:
    @pytest.mark.parametrize("name", JET_OBSERVABLES)
    def test_is_the_formula(self, name):
        jets = random_jets(n_jets=30)
        expected = [by_loops(jet)[name] for jet in jets]
        np.testing.assert_allclose(column(jets, name), expected, rtol=1e-9)

    def test_shape_and_type(self):
        observables = observables_from_particles(random_jets().astype(np.float32))
        assert observables.shape == (7, len(JET_OBSERVABLES))
        assert observables.dtype == np.float64

    def test_many_jets_are_the_same_as_few(self):
        jets = random_jets(n_jets=2500)
        np.testing.assert_allclose(
            observables_from_particles(jets)[1990:2010], observables_from_particles(jets[1990:2010])
        )

    def test_order_of_constituents_does_not_matter(self):
        jets = random_jets()
        shuffled = jets[:, [3, 0, 5, 1, 4, 2]]
        np.testing.assert_allclose(
            observables_from_particles(shuffled), observables_from_particles(jets)
        )

    def test_padding_does_not_matter(self):
        jets = random_jets()
        padded = np.concatenate([jets, np.zeros((7, 4, 4))], axis=1)
        padded[:, 6:, :3] = 0.7  # masked, so it must not count
        np.testing.assert_allclose(
            observables_from_particles(padded), observables_from_particles(jets)
        )

    def test_azimuth_is_periodic(self):
        jets = random_jets()
        pair = jets[:1, :2].copy()
        pair[0, :, 1] = [np.pi - 0.05, -np.pi + 0.05]
        assert column(pair, "e2")[0] < 0.25 * np.hypot(pair[0, 0, 0] - pair[0, 1, 0], 0.1) + 1e-9

    def test_two_prongs_have_no_d2(self):
        jets = random_jets()
        jets[:, 2:] = 0.0
        np.testing.assert_allclose(column(jets, "d2"), 0.0, atol=1e-12)

    @pytest.mark.parametrize("shape", [(3, 4), (2, 5, 3), (0, 5, 4)])
    def test_shape(self, shape):
        with pytest.raises(ValueError, match=r"must have shape \(n, n_particles, 4\), got"):
            observables_from_particles(np.zeros(shape))

    def test_empty_jet_is_named(self):
        jets = random_jets(n_jets=2100)
        jets[2050] = 0.0
        with pytest.raises(ValueError, match="pt_rel > 0, got none in jet 2050"):
            observables_from_particles(jets)

    def test_jet_of_one_constituent_is_named(self):
        jets = random_jets()
        jets[5, 1:] = 0.0
        with pytest.raises(ValueError, match="different places, got jet 5 with all at one"):
            observables_from_particles(jets)


class TestDisjointPools:
    def test_share_no_jet_and_lose_none(self):
        truth, generated = disjoint_pools(1001, seed=3)
        assert (len(truth), len(generated)) == (501, 500)
        assert set(truth) | set(generated) == set(range(1001))

    def test_seed(self):
        first, again, other = (disjoint_pools(100, seed=seed)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_one_jet(self):
        with pytest.raises(ValueError, match="`n_jets` must be at least 2, got 1"):
            disjoint_pools(1, seed=1)
