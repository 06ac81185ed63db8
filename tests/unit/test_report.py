"""Generators diagnosed from arrays and tables, several at once, with weights; conditions for CI."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import genamp_lib
from genamp_lib.cli import app
from genamp_lib.diagnostics import (
    auc_difference,
    auc_from_weights,
    auc_interval,
    cheap_looks,
    claimed_auc,
    rank_observables,
    reweighting_closure,
    roc_curve,
    weight_calibration,
    weight_slices,
)


def pair(seed, n=600, shift=0.0):
    truth, generated = np.random.default_rng(seed).normal(size=(2, n, 3))
    return truth, generated + np.array([0.0, shift, 0.0])


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth, good = pair(1)
    frames = {"truth": truth, "good": good, "bad": pair(2, shift=1.0)[1]}
    for name, table in frames.items():
        frame = pd.DataFrame(table, columns=["pt", "eta", "mass"])
        frame["genWeight"] = np.random.default_rng(len(name)).choice([-1.0, 1.0], 600, p=[0.1, 0.9])
        frame.to_parquet(f"{name}.parquet")
    return tmp_path


def test_the_command_calls_the_function(files):
    """Same numbers from DataFrames; a notebook shows findings and a figure."""
    tables = [pd.read_parquet(f"{name}.parquet") for name in ("truth", "bad")]
    found = genamp_lib.diagnose(*tables, weights="genWeight", epochs=2)
    options = ("--epochs", 2, "--weights", "genWeight", "--json", "out.json")
    result = call("diagnose", "truth.parquet", "bad.parquet", *options)
    assert result.exit_code == 0, result.exception
    record = json.loads((files / "out.json").read_text())
    assert record["files"] == {"truth": "truth.parquet", "generated": "bad.parquet"}
    assert record["n_truth"] == 600
    assert any("600 weighted truth events say as much as" in one for one in record["input_notes"])
    for name in ("auc", "second_auc", "significance", "observables", "verdict"):
        assert record[name] == found.to_dict()[name], name
    assert found.findings[0].observable == "eta"
    shown = found._repr_html_()
    assert "<b>The generator differs from the truth.</b>" in shown
    assert "data:image/svg+xml;base64," in shown
    found.save(files / "again.html")
    assert "<h1>The generator differs" in (files / "again.html").read_text()
    assert "<h1>The generator differs" in (files / "diagnosis.html").read_text()
    refused = call("diagnose", "truth.parquet", "bad.parquet", "--output", "diagnosis.html")
    assert "give --weights genWeight, or leave it out with --drop" in str(refused.exception)
    with pytest.raises(ValueError, match="give weights='genWeight', or drop it"):
        genamp_lib.diagnose(*tables)


def test_weights_that_are_all_equal_change_no_bit():
    truth, generated = pair(3, n=300, shift=0.3)
    plain = genamp_lib.diagnose(truth, generated, epochs=2).to_dict()
    for weights in ((np.ones(300), None), (np.ones(300), np.ones(300)), (None, np.full(300, 4.0))):
        assert genamp_lib.diagnose(truth, generated, weights=weights, epochs=2).to_dict() == plain


def test_weights_mend_a_generator_and_spoil_one():
    """Events that are drawn too often carry small weights; without these the generator differs."""
    rng = np.random.default_rng(4)
    truth, generated = pair(4, n=3000)
    generated[:, 0] = rng.normal(0.3, 1.0, 3000)
    weights = np.exp(-0.3 * generated[:, 0] + 0.045)
    assert genamp_lib.diagnose(truth, generated, epochs=3).verdict == "differs"
    for scale in (1.0, rng.choice([-1.0, 1.0], 3000, p=[0.1, 0.9])):
        mended = genamp_lib.diagnose(truth, generated, weights=(None, weights * scale), epochs=3)
        assert mended.verdict == "no difference found"
        low, high = mended.auc_interval
        assert low - (high - low) < 0.5 < high + (high - low)
    heavy = np.exp(-0.5 * truth[:, 0])
    spoilt = genamp_lib.diagnose(truth, pair(5, n=3000)[0], weights=(heavy, None), epochs=3)
    assert spoilt.verdict == "differs"


def test_whole_weights_repeat_events():
    """What is exact: AUC, ROC curve, fractions in slices, distances, correlations, closure."""
    rng = np.random.default_rng(5)
    truth, generated = rng.exponential(size=200), rng.exponential(0.9, size=150)
    u, v = rng.integers(0, 4, 200), rng.integers(1, 4, 150)
    own, repeated = (u, v), (np.repeat(truth, u), np.repeat(generated, v))
    assert auc_from_weights(truth, generated, event_weights=own) == pytest.approx(
        auc_from_weights(*repeated), abs=1e-14
    )
    curve, expected = roc_curve(truth, generated, event_weights=own), roc_curve(*repeated)
    for ours, theirs in zip(curve, expected, strict=True):
        assert {round(x, 12) for x in theirs} <= {round(x, 12) for x in ours}
    assert claimed_auc(generated, event_weights=v) == pytest.approx(claimed_auc(repeated[1]))
    slices = weight_slices(truth, generated, small=0.3, large=1.5, event_weights=own)
    for one, other in zip(slices, weight_slices(*repeated, small=0.3, large=1.5), strict=True):
        assert one.fraction == pytest.approx(other.fraction)
        assert one.n_truth < other.n_truth  # repeated events are not independent
    edges = [0.0, 0.5, 1.0, 3.0]
    ours = weight_calibration(truth, generated, edges, event_weights=own)
    theirs = weight_calibration(*repeated, edges)
    np.testing.assert_allclose(ours.ratio, theirs.ratio)
    np.testing.assert_allclose(ours.mean_weight, theirs.mean_weight)
    ours = reweighting_closure(truth, generated, generated, edges, event_weights=own)
    theirs = reweighting_closure(*repeated, repeated[1], edges)
    for name in ("truth", "generated", "reweighted"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name))
    both = np.concatenate([truth, generated])
    pooled = np.concatenate(own)
    (ours,) = rank_observables({"x": both}, np.arange(200), event_weights=pooled)
    (theirs,) = rank_observables({"x": np.repeat(both, pooled)}, np.arange(u.sum()))
    assert ours.distance == pytest.approx(theirs.distance, abs=1e-14)
    assert abs(ours.median_inside - theirs.median_inside) < 0.05


@pytest.mark.parametrize("kind", ["exponential", "negative"])
def test_intervals_of_weighted_auc_hold_one_half(kind):
    """900 pairs of one density: coverage of 68.27 % is off by 0.074, 4.8 sigma, once in 6e5."""
    rng, held = np.random.default_rng(6), []
    for _ in range(900):
        truth, generated = rng.random((2, 300))
        weights = rng.exponential(size=300)
        if kind == "negative":
            weights = rng.choice([-1.0, 1.0], 300, p=[0.1, 0.9])
        low, high = auc_interval(truth, generated, event_weights=(weights, None))
        held.append(low <= 0.5 <= high)
    assert abs(np.mean(held) - 0.6827) < 0.074


def test_looks_at_weighted_samples_of_one_density_find_nothing():
    """24 pairs of 8 looks at 3 sigma, 0.00135 at most: six of 192 by chance once in 3e6."""
    found = 0
    for seed in range(24):
        rng = np.random.default_rng([7, seed])
        truth, generated = rng.normal(size=(2, 1500, 3))
        truth[:, 1] = rng.exponential(size=1500)
        generated[:, 1] = rng.exponential(0.6, size=1500)  # too seldom in the tail,
        weights = np.exp(generated[:, 1] * (1 / 0.6 - 1))  # where weights are large
        signs = rng.choice([-1.0, 1.0], 1500, p=[0.1, 0.9])
        looks = cheap_looks(truth, generated, list("abc"), event_weights=(signs, weights))
        found += sum(one[0].significance > 3 for one in looks.findings.values() if one)
    assert found < 6


def test_significance_of_slices_knows_the_weights_in_them():
    """Truth weights are 6 in the slice, 1 outside: 400 pulls of width 1 +- 0.16, 4.5 sigma.

    With one scale for all weights the width is 1.23.
    """
    rng, pulls = np.random.default_rng(12), []
    for _ in range(400):
        heavy = rng.random(2000) < 1 / 15  # 0.3 of the weights
        truth = np.where(heavy, rng.uniform(0, 0.3, 2000), rng.uniform(0.3, 1, 2000))
        own = np.where(heavy, 6.0, 1.0), None
        small, _ = weight_slices(truth, rng.random(2000), small=0.3, large=1.0, event_weights=own)
        pulls.append(small.significance())
    assert abs(np.mean(pulls)) < 0.23
    assert abs(np.std(pulls) - 1) < 0.16


def test_differences_of_auc_are_paired():
    rng = np.random.default_rng(8)
    truth = rng.normal(0.3, 1, 4000)
    first, second = rng.normal(size=(2, 4000))
    weights = [np.exp(one) for one in (truth, first, second)]
    value, (low, high) = auc_difference((weights[0], weights[1]), (weights[0], weights[2]))
    singles = [np.diff(auc_interval(weights[0], one))[0] / 2 for one in weights[1:]]
    expected = auc_from_weights(*weights[:2]) - auc_from_weights(weights[0], weights[2])
    assert value == pytest.approx(expected, abs=1e-14)
    half = (high - low) / 2
    assert half < 0.85 * np.hypot(*singles)  # the truth's fluctuation is in both
    again = auc_difference((weights[0], weights[1]), (weights[0], weights[1]))
    assert again[0] == 0.0
    wide = auc_difference((weights[0], weights[1]), (weights[0], weights[2]), cross_fitted=True)
    assert np.diff(wide[1])[0] == pytest.approx(2 * half * np.sqrt(2))
    with pytest.raises(ValueError, match="must have the 4000 truth events of `first`, got 10"):
        auc_difference((weights[0], weights[1]), (weights[0][:10], weights[2]))


def test_paired_intervals_hold_the_difference():
    """900 experiments: as above, once in 6e5."""
    rng, held = np.random.default_rng(9), []
    for _ in range(900):
        truth, first, second = np.exp(rng.normal(size=(3, 200)))
        low, high = auc_difference((truth, first), (truth, second))[1]
        held.append(low <= 0 <= high)
    assert abs(np.mean(held) - 0.6827) < 0.074


def test_generators_are_compared_in_one_table(files):
    options = ("--epochs", 2, "--drop", "genWeight", "--json", "out.json")
    names = ("bad.parquet", "good.parquet")
    result = call("compare", "truth.parquet", *names, *options, "--fail-on", "auc>0.6")
    assert result.exit_code == 3, result.exception
    assert result.stderr.count("failed: ") == 1
    assert "failed: bad.parquet: --fail-on 'auc>0.6' holds, auc is 0." in result.stderr
    table = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert ["good.parquet" in line for line in table] == [True, False]  # the best first
    record = json.loads((files / "out.json").read_text())
    assert record["best"] == "good.parquet"
    bad, good = (record["generators"][name] for name in names)
    difference = next(one for one in record["differences"] if one["first"] == "bad.parquet")
    assert difference["auc"] == pytest.approx(bad["auc"] - good["auc"])
    assert difference["interval"][0] > 0
    tables = [pd.read_parquet(name).drop(columns="genWeight") for name in ("truth.parquet", *names)]
    again = genamp_lib.compare(tables[0], dict(zip(names, tables[1:], strict=True)), epochs=2)
    assert again.to_dict()["differences"] == record["differences"]
    assert again._repr_html_().count("<tr>") == 3
    alone = genamp_lib.diagnose(tables[0], tables[2], epochs=2)
    assert alone.auc == good["auc"]
    weighted = call("compare", "truth.parquet", *names, "--epochs", 1, "--weights", "genWeight")
    assert weighted.exit_code == 0, weighted.exception


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("auc>0.6", 3),
        ("auc<0.6", 0),
        ("difference", 3),
        ("no difference", 0),
        ("significance>=5", 3),
    ],
)
def test_a_condition_on_a_diagnosis_ends_with_exit_code_3(files, condition, code):
    arguments = ("truth.parquet", "bad.parquet", "--epochs", 1, "--drop", "genWeight")
    result = call("diagnose", *arguments, "--fail-on", condition)
    assert result.exit_code == code
    assert (files / "diagnosis.html").exists()
    assert result.stderr.count("failed: --fail-on") == (code == 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "b"]}, "`names` must be 3 different names, got `a`, `b`"),
        ({"generated": np.ones((600, 2))}, "`generated` must have the features of `truth`"),
        ({"generated": np.ones((9, 3))}, "`generated` must hold at least 100 events, got 9"),
        ({"generated": [["a"] * 3] * 200}, "`generated` must be numbers, (n_events, n_features)"),
        ({"generated": np.full((200, 3), np.nan)}, "`generated` must be finite and below 3e38"),
        ({"weights": (np.ones(3), None)}, "one finite number for each of 600 truth events"),
        ({"weights": (None, -np.ones(600))}, "of generated events must add up to more than 0"),
        ({"weights": "w"}, "`weights` must be a column of a table, got 'w'"),
    ],
)
def test_bad_tables_are_refused(change, message):
    truth, generated = pair(10)
    with pytest.raises(ValueError, match="must") as caught:
        genamp_lib.diagnose(**{"truth": truth, "generated": generated, **change})
    assert message in str(caught.value)


def test_one_generator_is_not_compared(files):
    with pytest.raises(ValueError, match="must be at least two generators, got 1"):
        genamp_lib.compare(pair(1)[0], {"a": pair(1)[1]})
    result = call("compare", "truth.parquet", "good.parquet")
    assert "GENERATED must be at least two files, got 1" in str(result.exception)
    result = call("compare", "truth.parquet", "good.parquet", "truth.parquet")
    assert "must be different files, got one twice" in str(result.exception)
