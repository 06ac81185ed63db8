"""Generated events that repeat training events are found, in any order of counting."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from genamp_lib import differential_amplification
from genamp_lib.amplification import RepeatCounter, repeated_events

RNG = np.random.default_rng(21)
TRAIN, HOLDOUT, HONEST = (RNG.normal(size=(n, 3)) for n in (400, 4000, 6000))
COPIES = TRAIN[RNG.integers(400, size=6000)]


def test_copies_in_one_and_in_three_dimensions():
    for columns in (0, slice(None)):
        train, holdout, honest, copies = (
            sample[:, columns] for sample in (TRAIN, HOLDOUT, HONEST, COPIES)
        )
        found = repeated_events(train, copies, holdout)
        assert found.found
        assert found.ratio == math.inf
        assert not repeated_events(train, honest, holdout).found
        near = repeated_events(train, copies + RNG.normal(scale=1e-4, size=copies.shape), holdout)
        assert near.found
        part = np.concatenate([copies[:300], honest[300:]])
        assert repeated_events(train, part, holdout).found
        assert (found.n_train, found.n_holdout, found.n_generated) == (400, 4000, 6000)


def test_counts_by_definition():
    """Each generated event goes to the nearest true one; the p-value is that of shuffled labels."""
    found = repeated_events(TRAIN[:50], HONEST[:500], HOLDOUT[:150])
    pool = np.concatenate([TRAIN[:50], HOLDOUT[:150]])
    _, nearest = cKDTree(pool / pool.std(axis=0)).query(HONEST[:500] / pool.std(axis=0))
    counts = np.minimum(np.bincount(nearest, minlength=200), 1 + 4 * 500 / 200)
    assert found.ratio == pytest.approx(counts[:50].mean() / counts[50:].mean())
    shuffled = np.array([RNG.permutation(counts)[:50].sum() for _ in range(20_000)])
    # The standard error of a probability is at most 0.0036; the normal law adds up to 0.02.
    assert found.p_value == pytest.approx(np.mean(shuffled >= counts[:50].sum()), abs=0.036)


def test_ties_are_shared():
    """Of a rounded statistic equal values are normal, and a copy is no more than a draw."""
    train, holdout, honest = (sample[:, 0].round(1) for sample in (TRAIN, HOLDOUT, HONEST))
    assert not repeated_events(train, honest, holdout).found
    alone = repeated_events([0.0] * 10, [0.0] * 100, [0.0] * 20)
    assert (alone.ratio, alone.p_value, alone.found) == (1.0, 1.0, False)


def test_a_monotone_map_of_the_statistic_changes_nothing():
    samples = [one[:, 1].round(3) for one in (TRAIN, COPIES, HOLDOUT)]
    assert repeated_events(*samples) == repeated_events(*(np.exp(3 * one) for one in samples))


def test_parts_in_any_order_are_the_whole():
    values = np.concatenate([COPIES[:3000, 0], HONEST[:3000, 0]])
    whole = RepeatCounter(TRAIN[:, 0], HOLDOUT[:, 0])
    whole.update(values)
    parts = [RepeatCounter(TRAIN[:, 0], HOLDOUT[:, 0]) for _ in range(2)]
    parts[0].update(values[4000:])
    parts[1].update(values[:4000])
    parts[0].merge(parts[1])
    assert parts[0].repeats() == whole.repeats()
    assert "n_generated=6000" in repr(whole)
    with pytest.raises(ValueError, match="`other` must have the same samples"):
        whole.merge(RepeatCounter(HOLDOUT[:400, 0], np.append(TRAIN[:, 0], HOLDOUT[400:, 0])))


def test_single_and_double_precision_are_one():
    samples = [one[:, 2].round(2) for one in (TRAIN, HOLDOUT, HONEST)]
    found = []
    for kinds in ((float, float, float), (np.float32, float, float), (float, np.float32, float)):
        train, holdout, generated = (
            one.astype(kind) for one, kind in zip(samples, kinds, strict=True)
        )
        found.append(repeated_events(train, generated, holdout))
        single = repeated_events(train, generated.astype(np.float32), holdout)
        assert single == repeated_events(
            *(one.astype(np.float32) for one in (train, generated, holdout))
        )
    assert found[0] == found[1] == found[2]


def test_verdicts_and_words():
    train, holdout, copies, honest = (one[:, 0] for one in (TRAIN, HOLDOUT, COPIES, HONEST))
    # A lucky training sample: the best of many is closer to the truth than most.
    lucky = min(
        (RNG.normal(size=400) for _ in range(20)),
        key=lambda one: differential_amplification(400, one, holdout=holdout).distance,
    )
    estimate = differential_amplification(lucky, np.repeat(lucky, 10), holdout=holdout)
    assert estimate.verdict == "generated events repeat training events"
    assert estimate.mean_square_verdict == estimate.verdict
    assert estimate.status == "repeats"
    assert "lie next to a training event as next to a holdout event" in estimate.note
    content = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert content["repeats"]["found"] is True
    assert content["repeats"]["ratio"] == "inf"
    # The finding of whole events holds for a statistic that hides it.
    whole = repeated_events(TRAIN, COPIES, HOLDOUT)
    hidden = differential_amplification(400, honest, holdout=holdout, repeats=whole)
    assert hidden.verdict == whole_verdict(hidden)
    assert repr(whole).startswith("<RepeatedEvents found: inf times as many")
    assert repr(repeated_events(train, honest, holdout)).startswith("<RepeatedEvents not found: ")
    assert (
        differential_amplification(train, copies.round(), holdout=holdout.round()).repeats is None
    )

    # Values at both ends hide nothing of those between.
    clipped = (np.clip(one, -1, 1) for one in (train, copies, holdout))
    given, made, kept = clipped
    assert differential_amplification(given, made, holdout=kept).status == "repeats"


def test_few_hits_are_no_alarm():
    """One value lies next to two true events; of few events chance gives many to either sample."""
    train, holdout = TRAIN[:, 0], HOLDOUT[:, 0]
    place = np.append(train, holdout)[:1] + 1e-9
    assert not repeated_events(train, np.repeat(place, 1000), holdout).found
    # At the stated 0.00135, 7 alarms or more of 400 come once in 10^5 runs.
    rng, n_found = np.random.default_rng(7), 0
    for _ in range(400):
        counter = RepeatCounter(rng.normal(size=20), rng.normal(size=2000))
        counter.update(rng.normal(size=10))
        n_found += counter.repeats().found
    assert n_found < 7


def whole_verdict(estimate):
    is_worse = estimate.limits[1] < 1
    return "does not amplify" if is_worse else "generated events repeat training events"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"holdout": np.append(HOLDOUT, TRAIN[:30], axis=0)}, ValueError, "got 30 events that"),
        (
            {"holdout": HOLDOUT[:, :2]},
            ValueError,
            r"`holdout` must have shape .* got \(4000,",
        ),
        ({"train": TRAIN[:0]}, ValueError, r"`train` must have shape .* got \(0, 3\)"),
        ({"train": 5}, ValueError, r"`train` must have shape .* got \(\)"),
        ({"generated": np.full((5, 3), np.nan)}, ValueError, "`generated` must be finite"),
        ({"generated": [["a"] * 3]}, TypeError, "`generated` must be an array of real numbers"),
    ],
)
def test_bad_input(changes, error, message):
    arguments = {"train": TRAIN, "generated": HONEST, "holdout": HOLDOUT} | changes
    with pytest.raises(error, match=message):
        repeated_events(**arguments)


def test_empty_samples_of_one_statistic():
    for samples, name in ((([], [1.0], [2.0]), "train"), (([1.0], [1.0], []), "holdout")):
        with pytest.raises(ValueError, match=f"`{name}` must not be empty, got 0 events"):
            repeated_events(*samples)
    with pytest.raises(ValueError, match="`generated` must not be empty, got 0 events"):
        repeated_events([1.0, 2.0], [], [3.0])
