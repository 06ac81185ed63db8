"""Accumulators: scipy's distances, numpy's counts, the same integers in any order."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from genamp_lib.amplification import (
    KolmogorovAccumulator,
    RegionCounter,
    _segments,
    alarm_regions,
    quantile_regions,
)

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False, width=32)
FEW = st.integers(-3, 3).map(float)


def samples(elements, most=60):
    return arrays(np.float64, st.integers(1, most), elements=elements)


def accumulate(reference, values, **options):
    accumulator = KolmogorovAccumulator(reference, **options)
    accumulator.update(values)
    return accumulator


@pytest.mark.filterwarnings("ignore:divide by zero")  # scipy's p-value for one event
def test_distances_are_scipys_to_the_last_bit(monkeypatch):
    """1000 cases: sizes 1 to 1e5, ties within and between, integers, single precision."""
    monkeypatch.setattr(_segments, "GRID_CELLS", 256)  # so that small samples take the grid as well
    monkeypatch.setattr(_segments, "BLOCK_EVENTS", 5000)
    rng = np.random.default_rng(1)
    draws = (
        lambda n: rng.normal(size=n),
        lambda n: rng.normal(size=n).astype(np.float32),
        lambda n: rng.integers(-5, 6, size=n),
        lambda n: rng.integers(0, 200, size=n).astype(np.uint8),
        lambda n: rng.standard_cauchy(size=n),
        lambda n: np.repeat(rng.normal(size=n), 2)[:n],
        lambda n: np.exp(rng.normal(scale=20, size=n)),
        lambda n: rng.normal(size=n).astype(np.float16),
        lambda n: rng.random(n) < 0.3,
    )
    for case in range(1000):
        n_reference, n_generated = (int(10 ** rng.uniform(0, 4 + (case % 20 == 0))) for _ in "ab")
        first, second = rng.integers(len(draws), size=2) if case % 2 else [case % len(draws)] * 2
        reference, generated = draws[first](n_reference), draws[second](n_generated)
        # Numbers are compared in the coarser of the two types.
        kept = [
            one.dtype if one.dtype.kind == "f" else np.float64 for one in (reference, generated)
        ]
        coarse = min(kept, key=lambda one: np.dtype(one).itemsize)
        with np.errstate(over="ignore"):
            rounded = [one.astype(coarse).astype(float) for one in (reference, generated)]
        expected = ks_2samp(*rounded, method="asymp").statistic
        assert accumulate(reference, generated).distance() == expected, case


@given(
    reference=arrays(np.float64, st.integers(1, 40), elements=st.floats(-3, 3)),
    generated=arrays(np.float64, st.integers(1, 40), elements=st.floats(-3, 3)),
    types=st.tuples(*[st.sampled_from([np.float32, np.float64])] * 2),
    digits=st.integers(0, 3),
)
@settings(deadline=None)
def test_equal_numbers_of_different_types_are_equal(reference, generated, types, digits):
    """Rounded and clipped data in single precision in one file and in double in the other."""
    samples = [np.clip(one.round(digits), -1.1, 2.2) for one in (reference, generated)]
    mixed = accumulate(*(one.astype(kind) for one, kind in zip(samples, types, strict=True)))
    plain = accumulate(*(one.astype(np.float32) for one in samples))
    assert mixed.distance() == plain.distance()
    for ours, theirs in zip(mixed.cumulative_counts(), plain.cumulative_counts(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_types_may_change_within_a_sample_and_the_order_of_blocks_does_not_matter():
    rng = np.random.default_rng(4)
    reference = np.concatenate([rng.normal(size=300), rng.normal(size=300).round(1)])
    single, double = (rng.normal(size=500).round(1).astype(kind) for kind in (np.float32, float))
    first, second = (accumulate(reference, block) for block in (single, double))
    first.merge(second)
    other = accumulate(reference, double)
    other.update(single)
    assert first.distance() == other.distance()
    everything = np.concatenate([single, double.astype(np.float32)])
    assert first.distance() == accumulate(reference.astype(np.float32), everything).distance()
    regions = RegionCounter([0.0, 0.1, 0.7])
    regions.update(np.array([0.1, 0.7], dtype=np.float32))
    assert regions.counts.tolist() == [0, 1]
    with pytest.raises(ValueError, match="`other` must have the same reference"):
        first.merge(accumulate(reference.astype(np.float32).astype(float), double))


@given(reference=samples(FLOATS | FEW), generated=samples(FLOATS | FEW))
@settings(deadline=None)
def test_distance_by_definition(reference, generated):
    at = np.unique(np.concatenate([reference, generated]))
    steps = [np.mean(sample[:, None] <= at, axis=0) for sample in (reference, generated)]
    assert accumulate(reference, generated).distance() == np.abs(steps[0] - steps[1]).max()


@given(
    reference=samples(FEW),
    generated=samples(FEW),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_chunks_and_merge_order_leave_the_integers(reference, generated, cuts, order):
    sizes = (1, 3, 10, 25)
    whole = accumulate(reference, generated, snapshots=sizes)
    edges = sorted({0, len(generated), *(cut for cut in cuts if cut < len(generated))})
    in_chunks = KolmogorovAccumulator(reference, snapshots=sizes)
    parts = []
    for low, high in pairwise(edges):
        in_chunks.update(generated[low:high])
        parts.append(accumulate(reference, generated[low:high], snapshots=sizes, start=low))
    order.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    n_snapshots, curve = whole.curve()
    for k, n in enumerate(n_snapshots):
        assert curve[k] == accumulate(reference, generated[:n]).distance()
    assert len(n_snapshots) == sum(size <= len(generated) for size in sizes)
    for other in (in_chunks, merged):
        assert other.n_generated == len(generated)
        assert other.distance() == whole.distance()
        np.testing.assert_array_equal(other.cumulative_counts(), whole.cumulative_counts())
        np.testing.assert_array_equal(other.curve(), whole.curve())


@given(
    values=samples(FEW),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_chunks_and_merge_order_leave_the_counts_of_regions(values, cuts, order):
    regions, sizes = [[-np.inf, -1.0], [0.0, 2.0], [2.0, 3.0]], (1, 4, 20)
    whole = RegionCounter(regions, snapshots=sizes)
    whole.update(values)
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    in_chunks, parts = RegionCounter(regions, snapshots=sizes), []
    for low, high in pairwise(edges):
        in_chunks.update(values[low:high])
        parts.append(RegionCounter(regions, snapshots=sizes, start=low))
        parts[-1].update(values[low:high])
    order.shuffle(parts)
    while len(parts) > 1:  # in pairs, not only one by one
        first, second = parts.pop(0), parts.pop(0)
        first.merge(second)
        parts.append(first)
    for n, row in zip(*whole.curve(), strict=True):
        head = values[:n]
        expected = [np.sum(head < -1), np.sum((head >= 0) & (head < 2)), np.sum(head == 2)]
        np.testing.assert_array_equal(row, expected)
    for other in (in_chunks, parts[0]):
        assert other.n_generated == len(values)
        np.testing.assert_array_equal(other.counts, whole.counts)
        for ours, theirs in zip(whole.curve(), other.curve(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(reference=samples(FEW | FLOATS), generated=samples(FEW | FLOATS))
@settings(deadline=None)
def test_monotone_transformations_leave_the_distance(reference, generated):
    # An exact and strictly monotone map of the values: their ranks.
    values = np.unique(np.concatenate([reference, generated]))
    ranks = [np.searchsorted(values, sample) ** 3 for sample in (reference, generated)]
    distance = accumulate(reference, generated).distance()
    assert accumulate(*ranks).distance() == distance
    # A falling map turns right-continuous into left-continuous functions: the same largest gap.
    assert accumulate(-reference, -generated).distance() == pytest.approx(distance, abs=1e-15)


@pytest.mark.parametrize("kind", ["Cauchy", "far away"])
def test_few_events_of_heavy_tails_are_sorted(kind):
    """Where cells had equal steps from end to end, nearly all would be."""
    rng = np.random.default_rng(3)
    reference, values = rng.standard_cauchy(1000), rng.standard_cauchy(100_000)
    if kind == "far away":
        reference, values = np.append(rng.normal(size=999), 1e12), rng.normal(size=100_000)
    counter = _segments.Thresholds(np.sort(reference), np.dtype(np.float64))
    is_mixed, _ = counter._grid
    assert is_mixed[counter._cells(values)].mean() < 0.1


def test_large_blocks_take_the_grid_and_count_the_same():
    rng = np.random.default_rng(2)
    generated = np.concatenate([rng.normal(size=600_000), [-1e300, 1e300, 0.0, -0.0]])
    reference = np.concatenate([rng.normal(size=1000), [0.0, 0.0]])
    by_grid = accumulate(reference, generated)
    by_sorting = KolmogorovAccumulator(reference)
    for chunk in np.array_split(generated, 100):
        assert len(chunk) < _segments.GRID_CELLS // 4
        by_sorting.update(chunk)
    np.testing.assert_array_equal(by_grid.cumulative_counts(), by_sorting.cumulative_counts())
    assert by_grid.distance() == ks_2samp(reference, generated, method="asymp").statistic


@pytest.mark.parametrize("reference", [[1.0], [0.0, 5e-324], [-1.7e308, 1.7e308], [1.0, 1.0]])
def test_references_that_no_grid_resolves(reference):
    generated = np.random.default_rng(3).normal(size=30_000)
    expected = ks_2samp(reference, generated, method="asymp").statistic
    assert accumulate(reference, generated).distance() == expected


def test_a_bad_event_leaves_the_counts_as_they_were():
    accumulator = accumulate([0.0, 1.0], [0.5, 0.6], snapshots=(1, 3))
    with pytest.raises(ValueError, match="`values` must be finite, got NaN or infinity; leave"):
        accumulator.update([0.1, np.nan])
    assert accumulator.n_generated == 2
    assert accumulator.distance() == 0.5


def test_accumulators_travel_between_processes():
    accumulator = accumulate([0.0, 1.0], [0.5])
    other = pickle.loads(pickle.dumps(accumulator))
    other.merge(accumulator)
    assert (other.n_generated, accumulator.n_generated) == (2, 1)


def test_reference_is_not_the_users_array():
    reference = np.array([2.0, 1.0])
    accumulator = KolmogorovAccumulator(reference)
    reference[:] = 7.0
    np.testing.assert_array_equal(accumulator.reference, [1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        accumulator.reference[0] = 3.0


BAD_ARRAYS = [
    ([], ValueError, "must not be empty, got 0 events"),
    ([1.0, np.inf], ValueError, "must be finite, got NaN or infinity; leave"),
    (
        [[1.0, 2.0]],
        ValueError,
        r"must be one-dimensional, one number per event, got shape \(1, 2\)",
    ),
    (3.0, ValueError, r"must be one-dimensional, one number per event, got shape \(\)"),
    ([[1.0], [1.0, 2.0]], ValueError, "must be one-dimensional, got nested lists"),
    (np.array([1.0, None]), TypeError, "must be an array of real numbers .* got object"),
    (["1", "2"], TypeError, "must be an array of real numbers .* got <U1"),
    ([1j], TypeError, "must be an array of real numbers .* got complex128"),
    (np.ma.array([1.0, 2.0], mask=[0, 1]), TypeError, "must be a plain array, got a masked one"),
    ([2**60], ValueError, r"must hold integers up to 2\^53, got 1152921504606846976"),
]


@pytest.mark.parametrize(("values", "error", "message"), BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name(values, error, message):
    with pytest.raises(error, match=f"`reference` {message}"):
        KolmogorovAccumulator(values)
    with pytest.raises(error, match=f"`values` {message}"):
        quantile_regions(values, 2)
    if len(str(values)) > 2:
        accumulator = KolmogorovAccumulator([1.0, 2.0])
        with pytest.raises(error, match=f"`values` {message}"):
            accumulator.update(values)
        assert accumulator.n_generated == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"snapshots": (10, 10)}, ValueError, r"`snapshots` must increase, got \[10, 10\]"),
        ({"snapshots": (0,)}, ValueError, "`snapshots` must be positive, got 0"),
        ({"snapshots": (1.5,)}, TypeError, "`snapshots` must be a whole number, got 1.5"),
        ({"start": -1}, ValueError, "`start` must be a whole number and not negative, got -1"),
        ({"start": 0.5}, ValueError, "`start` must be a whole number and not negative, got 0.5"),
    ],
)
def test_bad_snapshots_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        KolmogorovAccumulator([1.0, 2.0], **options)


def test_merging_what_does_not_belong_together_is_refused():
    one = accumulate([1.0, 2.0], [1.0], snapshots=(2,))
    wrong = (
        (KolmogorovAccumulator([1.0, 3.0], snapshots=(2,)), ValueError, "the same reference"),
        (KolmogorovAccumulator([1.0, 2.0, 2.0], snapshots=(2,)), ValueError, "the same reference"),
        (KolmogorovAccumulator([1.0, 2.0], snapshots=(3,)), ValueError, "the same snapshots"),
        (RegionCounter([1.0, 2.0]), TypeError, "a KolmogorovAccumulator, got RegionCounter"),
        (accumulate([1.0, 2.0], [1.0, 1.0], snapshots=(2,)), ValueError, "hold other events"),
    )
    for other, error, message in wrong:
        with pytest.raises(error, match=f"`other` must .*{message}"):
            one.merge(other)
    assert one.n_generated == 1
    with pytest.raises(ValueError, match="`update` must be called with events before"):
        KolmogorovAccumulator([1.0]).distance()


@given(values=samples(FEW | FLOATS), edges=st.lists(FEW | FLOATS, min_size=2, unique=True))
@settings(deadline=None)
def test_region_counts_are_numpys(values, edges):
    edges = np.sort(edges)
    expected, _ = np.histogram(values[values < edges[-1]], bins=edges)
    counter = RegionCounter(edges)
    counter.update(values)
    np.testing.assert_array_equal(counter.counts, expected)
    open_ended = RegionCounter([-np.inf, *edges, np.inf], snapshots=(1,))
    open_ended.update(values)
    assert open_ended.counts.sum() == open_ended.n_generated == len(values)
    np.testing.assert_array_equal(open_ended.counts[1:-1], expected)
    sizes, counts = open_ended.curve()
    np.testing.assert_array_equal(sizes, [1])
    assert counts.shape == (1, len(edges) + 1)
    assert counts.sum() == 1


def test_regions_need_not_be_adjacent_nor_in_order():
    counter = RegionCounter([[1.0, 2.0], [-np.inf, 0.0], [5.0, np.inf]])
    counter.update([-3.0, 0.0, 1.0, 1.5, 2.0, 5.0, 9.0])
    np.testing.assert_array_equal(counter.counts, [2, 1, 2])
    everything = RegionCounter([[-np.inf, np.inf]])
    everything.update([1.0, 2.0])
    np.testing.assert_array_equal(everything.counts, [2])
    assert repr(everything) == "<RegionCounter n_generated=2, 1 regions>"


@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        ([1.0], ValueError, "must have at least two edges, got 1"),
        ([1.0, 1.0], ValueError, r"must have low < high, got \[1, 1\)"),
        ([[2.0, 1.0]], ValueError, r"must have low < high, got \[2, 1\)"),
        ([[0.0, 2.0], [1.0, 3.0]], ValueError, r"must not overlap, got \[0, 2\) and \[1, 3\)"),
        ([[0.0, 1.0], [0.0, 1.0]], ValueError, "must not overlap"),
        (
            [[0.0, 1.0, 2.0]],
            ValueError,
            r"must be edges, 1D, or have shape \(n_regions, 2\), got \(1, 3\)",
        ),
        ([0.0, np.nan], ValueError, "must be numbers, got NaN"),
        (["a", "b"], TypeError, "must be an array of numbers"),
    ],
)
def test_bad_regions_are_refused(regions, error, message):
    with pytest.raises(error, match=f"`regions` {message}"):
        RegionCounter(regions)


def test_quantile_regions_hold_equal_numbers():
    values = np.random.default_rng(4).normal(size=1000)
    counter = RegionCounter(quantile_regions(values, 20))
    counter.update(values)
    np.testing.assert_array_equal(counter.counts, np.full(20, 50))
    np.testing.assert_array_equal(quantile_regions(values, 1), [-np.inf, np.inf])
    with pytest.raises(ValueError, match=r"`n_regions` must be small enough .* 3 different values"):
        quantile_regions([1.0, 2.0, 3.0, 3.0], 10)
    with pytest.raises(ValueError, match="`n_regions` must be positive, got 0"):
        quantile_regions(values, 0)


def test_bins_of_the_alarm_hold_events_whatever_the_sample() -> None:
    rng = np.random.default_rng(11)
    spiked = np.concatenate([np.zeros(300), rng.normal(size=500)])  # a spike at a single value
    for sample in (rng.normal(size=60), rng.integers(0, 3, size=500), spiked, np.ones(9), [1.0]):
        edges = alarm_regions(sample)
        assert (edges[0], edges[-1]) == (-np.inf, np.inf)
        counter = RegionCounter(edges)
        counter.update(sample)
        assert counter.counts.sum() == len(sample)
        assert counter.counts.min() >= min(5, len(sample))
    assert len(alarm_regions(spiked)) > 10
    with pytest.raises(ValueError, match="`values` must not be empty, got 0 events"):
        alarm_regions([])
