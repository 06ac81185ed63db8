"""The ladder of top-pair generators: parts, rungs, counts, tests, scores; planted flaws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests_support import separated_jets as momenta

from genamp_lib.datasets import load_top_pairs
from genamp_lib.datasets.top_pairs import TOP_PAIR_OBSERVABLES, top_pair_observables
from genamp_lib.networks.classifier import ClassifierSettings
from genamp_lib.networks.top_pairs.fit import FlowMatchingTraining
from genamp_lib.store import ArtefactStore
from genamp_lib.studies import ch04_ladder, ch05_scores
from genamp_lib.studies.ch04_ladder import (
    LADDER,
    WINDOWS,
    Parts,
    Rung,
    chosen_rungs,
    compared,
    counts_of,
    further_work,
    in_window,
    ladder_parts,
    measure_rung,
    quantile_edges,
    rung_tasks,
    training_set,
)
from genamp_lib.studies.ch04_tests import NAMES, combined, kept_tests, ladder_tests
from genamp_lib.studies.ch05_scores import measure_scores, scored

EVENTS = momenta(6000, 1)
RUNG = Rung("transformer", 200, 5, 2, 1, 3, 600)
QUICK = FlowMatchingTraining(compile=False)


def test_parts_share_no_event() -> None:
    numbered = EVENTS.copy()
    numbered[:, 0, 3] = np.arange(len(numbered))
    parts = ladder_parts(numbered, n_train=1000)
    numbers = [part[:, 0, 3] for part in parts]
    assert list(map(len, numbers)) == [1000, 250, 3750]
    assert len(np.unique(np.concatenate(numbers))) == 5000
    for n_train in (3, 1201):
        with pytest.raises(ValueError, match=f"at most a fifth of the 6000 events, got {n_train}"):
            ladder_parts(EVENTS, n_train=n_train)


def test_rungs_fit_the_events_and_have_disjoint_sets_and_seeds_of_their_own() -> None:
    assert all(rung.n_train * rung.n_sets <= 20_000 for rung in LADDER)
    train = EVENTS[:1000]
    tasks = rung_tasks(RUNG, train, QUICK)
    assert [len(of_set) for of_set in tasks] == [3] * 5
    assert [task.bootstrap for task in tasks[0]] == [True, True, False]
    assert len({task.key for of_set in tasks for task in of_set}) == 15
    np.testing.assert_array_equal(
        np.concatenate([training_set(RUNG, k, train) for k in range(5)]), train
    )
    with pytest.raises(ValueError, match="`rung` must need at most 1000 training events"):
        training_set(replace(RUNG, n_train=300), 0, train)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architectures": ["gan"]}, r"`architectures` must be among lgatr-slim, lloca, trans"),
        ({"n_train": [3000]}, r"`n_train` must be among 1000, 2000, 4000, 20000, got \[3000\]"),
        ({"n_train": []}, "`n_train` must be among"),
        ({"n_members": 1}, "must be at least 1, at least 2"),
        ({"step_share": 0.0}, r"in \(0, 1\]"),
        ({"n_generated": 10}, "at least 200, got"),
    ],
)
def test_a_ladder_that_is_not_there(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_rungs(**{"architectures": ["transformer"], "n_train": [1000], **wrong})


def test_counts_are_those_of_numpy() -> None:
    observables, edges = top_pair_observables(EVENTS), quantile_edges(EVENTS[:1000])
    counts = counts_of(observables, edges)
    assert (counts["quantiles"].sum(axis=1) == len(EVENTS)).all()
    for (low, high), count in zip(WINDOWS, counts["windows"], strict=True):
        assert count == ((observables[:, 0] >= low) & (observables[:, 0] < high)).sum()
    assert counts["windows"][-1] == in_window(observables).sum()
    column = observables[:, TOP_PAIR_OBSERVABLES.index("pt_b")]
    inner = edges[TOP_PAIR_OBSERVABLES.index("pt_b"), 1:-1]
    expected = np.histogram(column, [-np.inf, *inner, np.inf])[0]
    np.testing.assert_array_equal(counts["quantiles"][6], expected)


def planted(rung: Rung, parts: Parts, *, amplification: float, bias: float, seed: int) -> dict:
    """Return counts of members whose mean is off as a generator of this G is, and by a bias.

    Each set's fractions are those of G n_train true events; its members scatter as much about them,
    as those of a bootstrap do. The bias moves events from the first quantile regions to the last.
    """
    rng = np.random.default_rng(seed)
    edges = quantile_edges(parts.validation)
    true = counts_of(top_pair_observables(parts.holdout), edges)
    n_equiv = round(amplification * rung.n_train)
    shape = (rung.n_sets, rung.n_bootstrap + rung.n_plain)
    made = {"quantiles": np.zeros((*shape, 10, 20), dtype=int)}
    made["windows"] = np.zeros((*shape, 6), dtype=int)
    made["alarm"] = np.full((*shape, 10, 20), rung.n_generated // 20)
    tilt = 1 + bias * np.linspace(-1, 1, 20)
    for s in range(rung.n_sets):
        for k in range(10):
            p = true["quantiles"][k] / len(parts.holdout)
            of_set = rng.multinomial(n_equiv, p) / n_equiv
            for m in range(shape[1]):
                own = rng.multinomial(n_equiv, of_set) / n_equiv if m < rung.n_bootstrap else of_set
                own = own * tilt / (own * tilt).sum()
                made["quantiles"][s, m, k] = rng.multinomial(rung.n_generated, own)
        for k, count in enumerate(true["windows"]):
            p = np.clip(count / len(parts.holdout), 1e-3, 0.999)
            of_set = rng.binomial(n_equiv, p) / n_equiv
            for m in range(shape[1]):
                own = rng.binomial(n_equiv, of_set) / n_equiv
                made["windows"][s, m, k] = 1 + rng.binomial(rung.n_generated - 2, own)
    return made


@pytest.fixture(scope="module")
def parts() -> Parts:
    return ladder_parts(load_top_pairs(0, n_events=20_000).momenta, n_train=4000)


def test_a_holdout_that_cannot_judge_is_refused_before_the_work(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ch04_ladder, "_counts", None)  # would be the work
    rung = replace(RUNG, n_train=400)
    found = planted(rung, parts, amplification=1.0, bias=0.0, seed=1)
    light = parts.holdout[top_pair_observables(parts.holdout)[:, 0] < 1600]
    store = ArtefactStore(published=tmp_path / "none", local=tmp_path)
    for holdout, message in (
        (light, "`holdout` must have events in the window m_tt 1600-1800 GeV, got none of"),
        (parts.holdout[:399], "as many events as a training set, 400, got 399; take more"),
    ):
        with pytest.raises(ValueError, match=message):
            ladder_tests(rung, found, parts, [parts.holdout, holdout])
        with pytest.raises(ValueError, match=message):
            measure_rung(rung, parts._replace(holdout=holdout), store=store, training=QUICK)
    with pytest.raises(ValueError, match="`rung` must need at most 4000 training events"):
        measure_rung(replace(rung, n_train=801), parts, store=store, training=QUICK)


def test_a_generator_is_not_compared_with_events_of_other_jets(tmp_path: Path) -> None:
    store = ArtefactStore(published=tmp_path / "none", local=tmp_path)
    how = {"n_members": 2, "n_steps": 1, "n_generated": 50, "store": store}
    with pytest.raises(ValueError, match=r"`momenta` must be \(n, 10, 4\), .*, got \(50, 6, 4\)"):
        further_work(np.ones((50, 6, 4)), **how)


PLANTED = replace(RUNG, n_train=400, n_sets=10, n_bootstrap=3, n_generated=20_000)


def test_a_planted_amplification_is_found_both_ways(parts: Parts, tmp_path: Path) -> None:
    """Ten observables at once: a median off by a factor of 1.6 has a probability below 1e-5."""
    found = planted(PLANTED, parts, amplification=3.0, bias=0.0, seed=1)
    store = ArtefactStore(published=tmp_path / "none", local=tmp_path)
    (tests,) = kept_tests(PLANTED, found, parts, [parts.holdout], store=store)
    assert kept_tests(PLANTED, found, parts, [parts.holdout], store=store) == [tests]
    assert [test.name for test in tests] == list(NAMES)
    of_observables = tests[len(WINDOWS) :]
    for value in ("of_plain", "estimate", "of_sets"):
        median = np.median([getattr(test, value).value for test in of_observables])
        assert 3 / 1.6 < median < 3 * 1.6
    # The mean of three bootstrap members has their scatter over three beside its own error.
    median = np.median([test.of_mean.value for test in of_observables])
    assert 3 / (1 + 1 / 3) / 1.6 < median < 3 / (1 + 1 / 3) * 1.6
    assert 0.8 < np.median([test.pull for test in of_observables]) < 1.25
    assert all(test.of_plain.edges[0] > 1 for test in of_observables)


def test_a_shared_bias_is_in_the_truth_and_not_in_the_estimate(parts: Parts) -> None:
    rung = replace(PLANTED, n_sets=4)
    found = planted(rung, parts, amplification=3.0, bias=0.8, seed=1)
    halves = np.array_split(parts.holdout, 2)
    for tests in ladder_tests(rung, found, parts, halves):
        of_observables = tests[len(WINDOWS) :]
        assert np.median([test.ratio for test in of_observables]) > 5
        assert np.median([test.pull for test in of_observables]) > 2
        assert np.median([test.of_mean.edges[1] for test in of_observables]) < 1


def test_the_combined_estimate_covers_its_truth() -> None:
    """Intervals of 68 % over 4,000 experiments: 0.65 to 0.71 is four standard deviations."""
    rng = np.random.default_rng(5)
    events, n_train, n_generated, true_g = 0.16, 1000, 100_000, 2.0
    total = events / (true_g * n_train) + events / n_generated
    covered = []
    for _ in range(4000):
        variances = rng.normal(0.0, np.sqrt(total), size=(4, 3)).var(axis=1, ddof=1)
        known = {"event_variance": events, "n_train": n_train, "n_generated": n_generated}
        of_sets = [
            SimpleNamespace(total_variance=one, degrees_of_freedom=2, **known) for one in variances
        ]
        low, high = combined(of_sets).interval
        covered.append(low <= true_g <= high)
    assert 0.65 < np.mean(covered) < 0.71


def test_distances_of_like_samples_and_of_another() -> None:
    rng = np.random.default_rng(2)
    samples = [rng.normal(size=n) for n in (30_000, 1000, 20_000)]
    nothing = [np.zeros(len(x), dtype=bool) for x in samples]
    found = compared(samples, nothing)
    assert np.isnan(found["distances"][1]).all()
    assert np.isnan(found["estimates"][1]).all()
    assert (np.diff(found["distances"][0, 1][[0, 4, -1]]) < 0).all()
    assert found["estimates"][0, 1, 4] > 1  # upper limit: not excluded
    off = compared([samples[0] + 0.2, *samples[1:]], nothing)
    assert off["estimates"][0, 1, 4] < 0.2


def test_scores_tell_a_planted_flaw_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ClassifierSettings(n_layers=1, n_hidden=16, n_epochs=8, learning_rate=1e-2)
    monkeypatch.setattr(ch05_scores, "CLASSIFIER", settings)
    made, train, holdout = (momenta(n, seed) for n, seed in ((4000, 7), (500, 8), (4000, 9)))
    null = scored(made, train, holdout, seed=1)
    assert null["auc"] == pytest.approx(0.5, abs=0.05)  # five standard errors
    assert null["estimates"][0, 1, 4] > 1
    assert null["histograms"].sum(axis=1).tolist() == [2000, 500, 2000]
    made[:, 0, 0] *= 1.3
    flawed = scored(made, train, holdout, seed=1)
    assert flawed["auc"] > 0.6
    assert flawed["estimates"][0, 1, 4] < 1


def test_a_rung_is_measured_once_and_continues(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped after one generator ends with the numbers of one that is not."""
    parts = parts._replace(holdout=parts.holdout[:4000])
    rung = replace(RUNG, n_sets=1, n_plain=0)
    stores = [ArtefactStore(published=tmp_path / "none", local=tmp_path / k) for k in "ab"]
    whole = measure_rung(rung, parts, store=stores[0], training=QUICK)
    assert whole["quantiles"].shape == (1, 2, 10, 20)
    assert whole["distances"].shape[:5] == (1, 2, 3, 2, 2)
    assert (whole["quantiles"].sum(axis=-1) == 600).all()
    calls, generate = [], ch04_ladder.generated_events

    def stopping(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    monkeypatch.setattr(ch04_ladder, "generated_events", stopping)
    with pytest.raises(KeyboardInterrupt):
        measure_rung(rung, parts, store=stores[1], training=QUICK)
    monkeypatch.setattr(ch04_ladder, "generated_events", generate)
    again = measure_rung(rung, parts, store=stores[1], training=QUICK)
    for name, array in whole.items():
        np.testing.assert_array_equal(again[name], array)
    scores = measure_scores(rung, parts, store=stores[1], training=QUICK)
    assert scores["distances"].shape[:3] == (2, 2, 2)
    assert scores["own.estimates"].shape == (2, 2, 2, 5)
