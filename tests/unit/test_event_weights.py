"""Weights of events in the estimates: unit weights change no bit, others mean what they say."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import uproot
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from genamp_lib.amplification import (
    KolmogorovAccumulator,
    RegionCounter,
    averaging_amplification,
    differential_amplification,
)
from genamp_lib.amplification._pairs import mean_square, tie_probability
from genamp_lib.cli import app, main


def samples(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n) for n in sizes]


def accumulated(reference, values, weights=None, of_reference=None, **options):
    accumulator = KolmogorovAccumulator(reference, weights=of_reference, **options)
    accumulator.update(values, weights)
    return accumulator


@pytest.mark.parametrize("decimals", [1, 12])
def test_unit_weights_change_no_bit_of_the_differential_estimate(decimals):
    train, holdout, made = (x.round(decimals) for x in samples(1, 500, 3000, 40_000))
    weights = {"train": np.ones(500), "holdout": np.ones(3000), "generated": np.ones(40_000)}
    for given in ({}, {"holdout": holdout}):
        own = {name: w for name, w in weights.items() if name in ("train", "generated", *given)}
        plain = differential_amplification(train, made, **given).to_dict()
        weighted = differential_amplification(train, made, weights=own, **given).to_dict()
        assert weighted.pop("sums") == {name: [len(w)] * 3 for name, w in own.items()}
        assert plain.pop("sums") == {}
        assert weighted == plain


def test_unit_weights_change_no_bit_of_counts_and_curves():
    reference, values = samples(2, 300, 30_000)
    plain = accumulated(reference, values, snapshots=(100, 20_000))
    other = accumulated(reference, values, np.ones(30_000), snapshots=(100, 20_000))
    np.testing.assert_array_equal(plain.curve(), other.curve())
    np.testing.assert_array_equal(plain.cumulative_counts(), other.cumulative_counts())
    np.testing.assert_array_equal(other.cumulative_squares(), other.cumulative_counts())
    assert plain.effective_counts() == other.effective_counts() == (300, 30_000, False)


@pytest.mark.parametrize("members", ["bootstrap", "independent"])
def test_unit_weights_change_no_bit_of_the_averaging_estimate(members):
    counts = np.random.default_rng(3).binomial(5000, [0.2, 0.3, 0.1], size=(6, 3))
    bins = np.column_stack([counts, 5000 - counts.sum(axis=1)])
    more = {
        "n_train": 700,
        "train_counts": [140, 210, 70],
        "alarm_counts": (bins, [140, 210, 70, 280]),
        "holdout_counts": [2000, 3000, 1000],
        "n_holdout": 10_000,
        "members": members,
    }
    plain = averaging_amplification(counts, n_generated=5000, **more)
    squares = (counts.astype(float), np.full(6, 5000.0))
    weighted = averaging_amplification(
        counts.astype(float), n_generated=np.full(6, 5000.0), squares=squares, **more
    )
    assert weighted.to_dict() == plain.to_dict()


def test_whole_weights_repeat_events():
    """Also by the grid, in parts, merged, and where negative weights take events away."""
    rng = np.random.default_rng(4)
    reference, values = rng.normal(size=400), rng.normal(0.1, size=60_000).round(3)
    times, of_reference = rng.integers(0, 4, 60_000), rng.integers(1, 4, 400)
    repeated = np.repeat(reference, of_reference), np.repeat(values, times)
    whole = accumulated(reference, values, times, of_reference=of_reference)
    assert whole.distance() == ks_2samp(*repeated, method="asymp").statistic
    parts = [
        accumulated(reference, values[part], times[part], of_reference=of_reference)
        for part in (slice(40_000, None), slice(0, 40_000))
    ]
    parts[0].merge(parts[1])
    assert parts[0].distance() == whole.distance()
    assert parts[0].totals() == whole.totals() == (times.sum(), (times**2).sum())
    whole.update(np.append(values[:5], values[:5]), np.repeat([3.0, -3.0], 5))
    assert whole.distance() == ks_2samp(*repeated, method="asymp").statistic
    unweighted = accumulated(reference, repeated[1])
    with pytest.raises(ValueError, match="must have the same reference"):
        unweighted.merge(whole)


def test_counts_in_regions_are_sums_of_weights():
    rng = np.random.default_rng(5)
    values, weights = rng.normal(size=30_000).round(1), rng.normal(1.0, 1.0, 30_000)
    edges = np.array([-1.0, 0.0, 1.0, 2.05])  # some events on edges
    counter = RegionCounter(edges)
    counter.update(values[:10])  # of weight 1
    counter.update(values[10:], weights[10:])
    weights[:10] = 1.0
    for power, found in ((1, counter.counts), (2, counter.squares)):
        expected = np.histogram(values, edges, weights=weights**power)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    n = weights.sum() ** 2 / (weights**2).sum()
    counts, n_effective = counter.effective()
    assert n_effective == round(n)
    np.testing.assert_allclose(counts, n * counter.counts / weights.sum(), atol=1)
    plain = RegionCounter(edges)
    plain.update(values)
    assert plain.effective()[1] == 30_000
    np.testing.assert_array_equal(plain.effective()[0], plain.counts)


def test_the_weighted_mean_square_is_that_of_all_triples():
    """U-statistic by brute force: a place and two other reference events, two generated ones."""
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=7), rng.normal(size=6)
    w, v = rng.exponential(size=7), rng.normal(0.8, 1, size=6)
    accumulator = accumulated(x, y, v, of_reference=w)
    total, squares = accumulator.totals()
    found = mean_square(
        *accumulator.cumulative_counts(), total, (*accumulator.cumulative_squares(), squares)
    )
    place, w = np.sort(x), w[np.argsort(x)]
    square = 0.0
    for i in range(7):
        others = [k for k in range(7) if k != i]
        pairs = list(permutations(others, 2))
        norm = sum(w[a] * w[b] for a, b in pairs)
        truth = sum(w[a] * w[b] * (a <= i) * (b <= i) for a, b in pairs) / norm
        made = list(permutations(range(6), 2))
        norm = sum(v[a] * v[b] for a, b in made)
        generated = sum(v[a] * v[b] * (y[a] <= place[i]) * (y[b] <= place[i]) for a, b in made)
        one = sum(w[a] * (a <= i) for a in others) / sum(w[a] for a in others)
        other = (v * (y <= place[i])).sum() / v.sum()
        square += w[i] / w.sum() * (generated / norm - 2 * one * other + truth)
    assert found.square == pytest.approx(square, abs=1e-12)
    assert tie_probability(*(np.array([4.0, 5.0]), np.array([8.0, 9.0]))) == 8 / 16


def test_the_scale_of_weights_does_not_matter():
    train, holdout, made = samples(7, 400, 2000, 5000)
    weights = np.random.default_rng(7).exponential(size=5000)
    first, second = (
        differential_amplification(
            train, made, holdout=holdout, weights={"generated": scale * weights}
        )
        for scale in (1.0, 1e-6)
    )
    assert (
        first.n_generated == second.n_generated == round(weights.sum() ** 2 / (weights @ weights))
    )
    assert first.distance == pytest.approx(second.distance, rel=1e-12)
    assert first.interval == pytest.approx(second.interval, rel=1e-9)


def test_weights_that_depend_on_the_statistic_are_labelled_and_bound():
    """A generator that samples the low end densely and mends it by weights, against the truth."""
    rng = np.random.default_rng(8)
    holdout, made = rng.random(20_000), rng.random(20_000) ** 3
    weights = 3 * made ** (2 / 3)
    estimate = differential_amplification(
        500, made, holdout=holdout, weights={"generated": weights}
    )
    assert estimate.uneven
    assert estimate.cramer_von_mises is None
    assert "event weights depend on the statistic" in estimate.note
    assert estimate.n_generated < weights.sum() ** 2 / (weights @ weights)
    assert estimate.interval[1] == np.inf
    assert differential_amplification(500, made, holdout=holdout).verdict == "does not amplify"


def test_repeats_are_looked_for_only_where_training_and_holdout_are_alike():
    train, holdout, made = samples(9, 300, 1500, 2000)
    weights = {"train": np.ones(300), "holdout": np.ones(1500)}
    both = differential_amplification(train, made, holdout=holdout, weights=weights)
    assert both.repeats is not None
    for name in weights:
        only = {name: weights[name]}
        one = differential_amplification(train, made, holdout=holdout, weights=only)
        assert one.repeats is None


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"generated": np.ones(3)}, ValueError, "one number for each of 50 events, got shape (3,)"),
        ({"generated": np.full(50, np.nan)}, ValueError, "must be finite"),
        ({"generated": ["a"] * 50}, TypeError, "must be an array of numbers"),
        ({"generated": -np.ones(50)}, ValueError, "must add up to more than 0, got -50"),
        ({"generated": np.eye(50)[0]}, ValueError, "worth at least 10 unweighted events, got 1"),
        ({"made": np.ones(50)}, ValueError, "samples given as arrays, train, generated, got made"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    train, made = samples(10, 40, 50)
    with pytest.raises(error) as caught:
        differential_amplification(train, made, weights=weights)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match="must be unweighted when the reference is a `cdf`"):
        differential_amplification(
            40, made, cdf=lambda x: x * 0 + 0.5, weights={"generated": np.ones(50)}
        )


@pytest.mark.parametrize(
    ("counts", "totals", "squares", "message"),
    [
        ([[3.0], [4.0]], [9.0, 9.0], ([[3.0]], [9.0, 9.0]), "must have the shapes of `counts`"),
        ([[-3.0], [4.0]], [9.0, 9.0], ([[3.0], [4.0]], [9.0, 9.0]), "must not be negative"),
        ([[3.0], [4.0]], [9.0, -9.0], ([[3.0], [4.0]], [9.0, 9.0]), "`n_generated` positive"),
        ([[10.0], [4.0]], [9.0, 9.0], ([[3.0], [4.0]], [9.0, 9.0]), "must add up to at most"),
    ],
)
def test_bad_weighted_counts_are_refused(counts, totals, squares, message):
    with pytest.raises(ValueError, match="must") as caught:
        averaging_amplification(counts, n_generated=totals, n_train=50, squares=squares)
    assert message in str(caught.value)


def call(*arguments):
    return CliRunner().invoke(app, ["estimate", *map(str, arguments)])


def frame(rng, n, mean=0.0):
    signs = np.where(rng.random(n) < 0.1, -1.0, 1.0)
    table = {"m": rng.normal(mean, size=n), "w": signs * rng.exponential(size=n)}
    return pd.DataFrame(table)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(11)
    frame(rng, 600).to_csv("train.csv", index=False)
    frame(rng, 600)[["m"]].to_csv("plain.csv", index=False)
    frame(rng, 4000).to_parquet("holdout.parquet")
    table = frame(rng, 8000)
    table.to_csv("made.csv", index=False)
    table.to_parquet("made.parquet")
    with h5py.File("made.h5", "w") as file:
        for name in ("m", "w"):
            file[name] = table[name].to_numpy()
    with uproot.recreate("made.root") as file:
        file["events"] = table
    return table


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5", "root"])
@pytest.mark.parametrize("train", ["train", "plain"])
def test_weights_of_files_are_those_of_arrays(files, suffix, train):
    result = call(
        *("differential", f"{train}.csv", f"made.{suffix}", "--holdout", "holdout.parquet"),
        *("--column", "m", "--weights", "w", "--json", "out.json"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads(Path("out.json").read_text())
    known, holdout = pd.read_csv(f"{train}.csv"), pd.read_parquet("holdout.parquet")
    weights = {"generated": files["w"], "holdout": holdout["w"]}
    weights |= {"train": known["w"]} if train == "train" else {}
    expected = differential_amplification(
        known["m"], files["m"], holdout=holdout["m"], weights=weights
    )
    assert record["amplification"] == pytest.approx(expected.amplification, rel=1e-6)
    assert record["n_train"] == expected.n_train
    assert record["interval"] == pytest.approx(expected.interval, rel=1e-6)
    assert record["verdict"] == expected.verdict
    assert (record["repeats"] is None) == (expected.repeats is None) == (train == "plain")
    assert record["weights"]["made." + suffix][0] == 8000
    assert "8,000 weighted events say as much as" in result.output
    said = "Note: plain.csv has no column `w`: its events count one."
    assert (said in result.output) == (train == "plain")


def test_weights_of_an_ensembles_files(files):
    rng = np.random.default_rng(12)
    paths = [f"member_{k}.csv" for k in range(5)]
    for path in paths:
        frame(rng, 5000, rng.normal(0, 0.03)).to_csv(path, index=False)
    options = ("--column", "m", "--weights", "w", "--regions", "-1,0,1", "--train", "train.csv")
    result = call("averaging", *paths, *options, "--json", "out.json")
    assert result.exit_code == 0, result.output
    record = json.loads(Path("out.json").read_text())
    tables = [pd.read_csv(path) for path in paths]
    sums, squares = (
        np.array([np.histogram(x["m"], [-1, 0, 1], weights=x["w"] ** power)[0] for x in tables])
        for power in (1, 2)
    )
    totals, all_squares = (np.array([(x["w"] ** p).sum() for x in tables]) for p in (1, 2))
    weights = pd.read_csv("train.csv")["w"]
    n_train = round(weights.sum() ** 2 / (weights**2).sum())
    expected = averaging_amplification(
        sums, n_generated=totals, n_train=n_train, squares=(squares, all_squares)
    )
    assert record["n_train"] == n_train
    assert record["amplification"] == pytest.approx(expected.amplification, rel=1e-9)
    assert record["n_generated"] == pytest.approx(expected.n_generated)


@pytest.mark.parametrize("command", ["differential", "averaging"])
def test_missing_values_are_left_out_and_counted(files, command):
    table = files.copy()
    table.loc[[3, 4000, 7999], "m"] = -999.0
    table.to_csv("holes.csv", index=False)
    if command == "differential":
        arguments = ("train.csv", "holes.csv", "--plot", "curve.png")
    else:
        arguments = ("made.csv", "holes.csv", "--regions", "-1,0,1", "--n-train", 500)
    result = call(command, *arguments, "--column", "m", "--missing", -999, "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "3 of 8,000 events of holes.csv have a missing value and were left out" in result.output
    record = json.loads(Path("out.json").read_text())
    assert record["missing"]["holes.csv"] == [3, 8000]
    if command == "differential":
        assert record["n_generated"] == 7997
    else:
        assert 7997 < record["n_generated"] < 8000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "v"), "--weights v must be a column of a file, none of train.csv, made.csv"),
        (("--missing", "x"), "--missing must be numbers"),
        (("--fail-on", "gain>1"), "or compare one of amplification, low, high with a number"),
        (("--fail-on", "low>two"), "--fail-on must be amplification, no amplification or compare"),
    ],
)
def test_bad_options_are_one_line(files, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["estimate", "differential", "train.csv", "made.csv", "--column", "m", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_condition_that_holds_ends_with_exit_code_3(files):
    shared = ("differential", "train.csv", "made.csv", "--column", "m", "--json", "out.json")
    for condition, code in (
        ("amplification", 0),
        ("no amplification", 3),
        ("amplification>0.001", 3),
        ("amplification < 0.001", 0),
        ("high>=0", 3),
    ):
        result = call(*shared, "--fail-on", condition)
        assert result.exit_code == code, condition
        lines = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
        assert len(lines) == (code == 3)
        assert (
            json.loads(Path("out.json").read_text())["reference"] == "train"
        )  # what was asked for is there


def test_columns_like_weights_that_are_not_used_are_named(files):
    files.rename(columns={"w": "genWeight"}).to_csv("made.csv", index=False)
    result = call("differential", "plain.csv", "made.csv", "--column", "m")
    said = "made.csv has a column `genWeight`: give --weights genWeight if these are event weights"
    assert said in result.output


def test_a_training_sample_of_another_observable_is_noted(files):
    pd.DataFrame({"m": np.random.default_rng(1).normal(5, 1, 600)}).to_csv("plain.csv", index=False)
    files[["m"]].to_csv("made.csv", index=False)
    frame(np.random.default_rng(2), 30_000)[["m"]].to_csv("truth.csv", index=False)
    result = call(
        "differential", "plain.csv", "made.csv", "--holdout", "truth.csv", "--column", "m"
    )
    assert "both cannot be right; check that all files hold the same observable" in result.output
