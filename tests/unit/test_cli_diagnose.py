"""`genamp diagnose`: planted flaws found from files; one line when something is wrong."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from genamp_lib.cli import app, main
from genamp_lib.cli.diagnose import _load
from genamp_lib.diagnostics import cheap_looks, diagnose
from genamp_lib.files.columns import Reading
from genamp_lib.report.page import summary
from genamp_lib.report.samples import _tables

N = 2000
AGAIN = ("--output", "diagnosis.html")  # which may be there
NAMES = ",".join(f"x{i}" for i in range(10))


def call(*arguments):
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)], env={"COLUMNS": "160"})


def events(rng, n):
    sample = rng.normal(size=(n, 10))
    sample[:, 4] = 91.0 + 2.5 * sample[:, 4]
    return sample


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    np.save("truth.npy", events(rng, N))
    smeared = events(rng, N)
    smeared[:, 4] *= rng.normal(1, 0.05, N)
    np.save("smeared.npy", smeared)
    hole = events(rng, N)
    np.save("hole.npy", hole[np.abs(hole[:, 3]) > 0.35])
    np.save("same.npy", events(rng, N))
    return tmp_path


@pytest.mark.parametrize(
    ("generated", "verdict", "observable"),
    [
        ("smeared", "differs", "x4"),
        ("hole", "differs", "x3"),
        ("same", "no difference found", None),
    ],
)
def test_planted_flaws_are_found_and_named_first(files, generated, verdict, observable):
    options = ("--names", NAMES, "--epochs", 6, "--json", "out.json", "--output", "out.html")
    result = call("truth.npy", f"{generated}.npy", *options)
    assert result.exit_code == 0, result.output
    record = json.loads((files / "out.json").read_text())
    assert record["verdict"] == verdict
    page = (files / "out.html").read_text()
    if observable:
        assert record["observables"][0] == observable
        assert {one["observable"] for one in record["findings"]} <= {observable}
        assert f"`{observable}`" in result.output
    else:
        assert record["findings"] == []
        assert "No difference found." in result.output
        assert "No difference found." in page
    assert "<script" not in page
    assert page.count("http") == 0  # in the open: the figures are base64


def test_strictly_monotone_maps_of_the_files_change_no_number(files):
    table, other = (np.load(name)[:1000, :3] for name in ("truth.npy", "smeared.npy"))
    records = []
    for change in (lambda x: x, lambda x: np.stack([-x[:, 0], np.exp(x[:, 1]), x[:, 2] ** 3], 1)):
        np.save("a.npy", change(table))
        np.save("b.npy", change(other))
        assert call("a.npy", "b.npy", "--epochs", 3, *AGAIN, "--json", "out.json").exit_code == 0
        records.append(json.loads((files / "out.json").read_text()))
    first, second = records
    assert {key: first[key] for key in ("auc", "second_auc", "verdict")} == {
        key: second[key] for key in ("auc", "second_auc", "verdict")
    }
    assert first["significance"] == pytest.approx(second["significance"], rel=1e-9)


def test_a_spike_a_code_and_a_pair_are_named_in_the_report(files):
    rng = np.random.default_rng(5)
    truth, generated = rng.normal(size=(2, N, 4))
    for sample, rho in ((truth, 0.5), (generated, 0.1)):
        sample[:, 1] = rho * sample[:, 0] + np.sqrt(1 - rho**2) * sample[:, 1]
    generated[:100, 2], generated[100:200, 3] = -999.0, 0.5
    np.save("a.npy", truth)
    np.save("b.npy", generated)
    result = call("a.npy", "b.npy", "--epochs", 2, "--names", "pt,eta,$m_1$,phi")
    assert result.exit_code == 0, result.output
    assert (
        "Code for missing values: 5 % of the generated events have exactly `$m_1$`" in result.output
    )
    assert "Spike: 5 % of the generated events have exactly `phi` = 0.5" in result.output
    assert "Wrong correlation: `pt` and `eta` are correlated by 0.1" in result.output
    page = (files / "diagnosis.html").read_text()
    assert page.index("<code>phi</code> = 0.5") < page.index("<figure")  # findings first
    assert "second opinion, gradient-boosted trees" in page


def test_no_explanation_names_no_observable(monkeypatch):
    rng = np.random.default_rng(6)
    tables = [{name: rng.normal(size=3000) for name in "ab"} for _ in range(2)]
    weights = np.exp(rng.normal([[0.15], [0.0]], 0.5, (2, 3000)))
    result = diagnose(*weights, *tables)
    assert result.verdict == "differs"
    assert result.findings == ()
    lines = " ".join(summary(result))
    assert "no observable and no pair of observables explains it" in lines
    assert "differs most by itself" not in lines
    assert "(0.0 standard deviations" not in lines


def test_a_second_opinion_is_optional(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    result = call("truth.npy", "same.npy", "--n-events", 200, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "No second opinion: scikit-learn is not installed." in result.output


def test_all_events_equal_or_copied_is_a_labelled_result(files):
    np.save("one.npy", np.ones((300, 10)))
    result = call("truth.npy", "one.npy", "--epochs", 1, "--n-events", 300)
    assert result.exit_code == 0, result.output
    assert "100 % of the generated events have exactly `0` = 1" in result.output
    np.save("copy.npy", np.load("truth.npy"))
    how = ("--epochs", 1, "--json", "out.json", "--output", "copy.html")
    result = call("truth.npy", "copy.npy", *how)
    assert "The generated events are copies of truth events." in result.output
    assert json.loads((files / "out.json").read_text())["auc"] == 0.5


def test_formats_and_left_out_features(files):
    table = np.load("same.npy")[:150, :3]
    table[:, 1] = 7.0
    np.savetxt("a.csv", table, delimiter=",", header="pt,one,mass", comments="")
    np.savez("b.npz", pt=table[:, 0] + 0.1, one=table[:, 1], mass=table[:, 2])
    result = call("a.csv", "b.npz", "--epochs", 1, "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "`one` has one value in both samples and was left out." in result.output
    assert sorted(json.loads((files / "out.json").read_text())["observables"]) == ["mass", "pt"]


def test_copies_of_truth_events_are_noted(files):
    table = np.load("truth.npy")[:150, :2]
    np.save("a.npy", table)
    np.save("b.npy", np.concatenate([table[:30], np.load("same.npy")[:120, :2]]))
    result = call("a.npy", "b.npy", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "30 of 150 generated events are copies of truth events" in result.output
    # Events of few possible values are equal without being copies.
    np.save("a.npy", np.round(table))
    np.save("b.npy", np.round(np.load("same.npy")[:150, :2]))
    assert "copies" not in call("a.npy", "b.npy", "--epochs", 1, *AGAIN).output


def test_single_and_double_precision_of_rounded_numbers_are_equal(tmp_path):
    rng, found = np.random.default_rng(8), []
    for name in ("truth.npy", "double.npy"):
        np.save(tmp_path / name, rng.normal(size=(200, 2)).round(1))
    np.save(tmp_path / "single.npy", np.load(tmp_path / "double.npy").astype(np.float32))
    paths = [tmp_path / f"{name}.npy" for name in ("truth", "double", "single")]
    for path in paths[1:]:
        _, tables, _, _ = _load([paths[0], path], Reading(), None, None)
        samples = [*_tables(*tables, None)[:2]]
        found.append(cheap_looks(*samples, ["a", "b"]).findings["one value"])
    assert max(one.significance for one in found[1]) < 3
    assert [one.significance for one in found[0]] == [one.significance for one in found[1]]


def turned(x):
    """Write the same features in the opposite order."""
    names = ",".join(map(str, range(9, -1, -1)))
    np.savetxt("turned.csv", x[:, ::-1], delimiter=",", header=names, comments="", fmt="%.5f")
    return "turned.csv"


def bad(array, name="bad.npy"):
    np.save(name, array)
    return name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: ["truth.npy"], "must be different files, got one twice"),
        (lambda x: [bad(x[:, :9])], "must have the features of truth.npy"),
        (
            lambda x: [turned(x), "--header"],
            "`4`, `3`, `2` and 2 more; give --features 0,1,",
        ),
        (lambda x: [bad(np.where(x > 3, np.nan, x))], "must be finite and below 3e38, got others"),
        (lambda x: [bad(x * 1e300)], "got others in 2000 events, `0`"),
        (lambda x: [bad(x[:0])], "must hold at least 100 events, got 0"),
        (lambda x: [bad(x), "--n-events", "5000"], "at least --n-events 5000 events, got 2000"),
        (lambda x: [bad(x), "--names", "a,b"], "--names must be 10 different names"),
        (lambda x: [bad(x), "--output", "a.pdf"], "--output must end in .html"),
        (lambda x: [bad(x), "--output", "no/a.html"], "is no folder; make it"),
        (lambda x: [bad(x), "--json", "bad.npy"], "--json must not end in .npy, as data do"),
        (lambda x: [bad(x, "g.json.npy"), "--json", "."], "it is a folder; give a file"),
        (lambda x: [bad(x), "--features", "0,pt"], "no column `pt`; there is `0`, `1`"),
        (lambda x: [bad(x), "--drop", "pt"], "no column `pt`; there is `0`, `1`"),
        (
            lambda x: [bad(x), "--missing", "no"],
            "--missing must be numbers, as in -999",
        ),
        (
            lambda x: [bad(x * 0 - 999), "--missing", "-999"],
            "without a missing value, got 0",
        ),
        (lambda x: [bad(x), "--epochs", "0"], "--epochs must be at least 1, got 0"),
        (lambda x: [bad(x), "--seed", "-1"], "--seed must not be negative"),
        (lambda x: ["none.npy"], "not found; give a file"),
        (lambda x: [bad(x[:, :, None])], "must hold one row of features per event"),
    ],
)
def test_bad_input_is_one_line(files, capsys, make, message):
    with pytest.raises(SystemExit) as stop:
        main(["diagnose", "truth.npy", *make(np.load("truth.npy"))])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not list(files.glob("*.html"))


def test_features_are_chosen_and_missing_values_are_counted(files):
    """Columns of a text that pandas saved with its index; three events with a code for missing."""
    names = ["$p_T$", "$m_{jj$", "event_number", "weight"]
    for name in ("truth", "same"):
        frame = pd.DataFrame(np.load(f"{name}.npy")[:200, :4], columns=names)
        frame["event_number"] = np.arange(200) + 17
        frame.loc[:2, "$p_T$"] = -999.0
        frame.to_csv(f"{name}.csv")
    arguments = [
        "truth.csv",
        "same.csv",
        "--epochs",
        1,
        "--json",
        "out.json",
        "--missing",
        "-999",
        *AGAIN,
    ]
    result = call(*arguments, "--drop", "event_number, weight")
    assert result.exit_code == 0, result.output
    assert "3 of 200 events of truth.csv have a missing value and were left out." in result.output
    content = json.loads((files / "out.json").read_text())
    assert content["n_truth"] == content["n_generated"] == 197
    assert sorted(content["observables"]) == ["$m_{jj$", "$p_T$"]
    assert call(*arguments, "--features", "$p_T$").exit_code == 0
    refused = call(*arguments, "--drop", "event_number")
    assert "column `weight` may be a weight of the events" in str(refused.exception)


def test_a_report_is_not_replaced_unasked(files, capsys):
    np.save("few.npy", np.load("truth.npy")[:200, :2])
    np.save("more.npy", np.load("same.npy")[:200, :2])
    arguments = ["few.npy", "more.npy", "--epochs", 1]
    said = call(*arguments, "--json", "-")
    assert json.loads(said.stdout)["n_truth"] == 200
    assert "Report: diagnosis.html" in said.stderr
    first = (files / "diagnosis.html").read_bytes()
    refused = call(*arguments, "--seed", 2)
    assert "diagnosis.html: exists; give --output with another name" in str(refused.exception)
    assert (files / "diagnosis.html").read_bytes() == first
    assert call(*arguments, "--seed", 2, *AGAIN).exit_code == 0
    assert (files / "diagnosis.html").read_bytes() != first


def test_only_constant_features(files, capsys):
    bad(np.ones((200, 2)), "a.npy")
    bad(np.ones((300, 2)), "b.npy")
    with pytest.raises(SystemExit):
        main(["diagnose", "a.npy", "b.npy"])
    assert "must have a feature that varies, got constant ones only" in capsys.readouterr().err
