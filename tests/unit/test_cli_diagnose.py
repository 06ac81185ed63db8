"""`genamp diagnose`: planted flaws found from files; one line when something is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from genamp_lib.cli import app, main
from genamp_lib.networks import cross_fit

N = 2000
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
    assert not list(files.glob(".*networks"))


def test_a_stopped_run_continues_with_the_same_numbers(files, monkeypatch):
    np.save("few.npy", np.load("smeared.npy")[:200])
    options = ("--epochs", 2, "--n-events", 200, "--json", "out.json")
    assert call("truth.npy", "few.npy", *options).exit_code == 0
    whole, fit, done = (files / "out.json").read_text(), cross_fit.fit_classifier, []

    def dies_in_the_third(*arguments, **more):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **more)

    monkeypatch.setattr(cross_fit, "fit_classifier", dies_in_the_third)
    assert call("truth.npy", "few.npy", *options).exit_code != 0
    result = call("truth.npy", "few.npy", *options)
    assert "Networks of a run that was stopped" in result.output
    assert len(done) == 3 + 3
    assert (files / "out.json").read_text() == whole


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
    assert "copies" not in call("a.npy", "b.npy", "--epochs", 1).output


def bad(array, name="bad.npy"):
    np.save(name, array)
    return name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: ["truth.npy"], "must be different files, got one twice"),
        (lambda x: [bad(x[:, :9])], "must have the features of truth.npy"),
        (lambda x: [bad(np.where(x > 3, np.nan, x))], "must be finite and below 3e38, got others"),
        (lambda x: [bad(x * 1e300)], "got others in 2000 events, `0`"),
        (lambda x: [bad(x[:0])], "must hold at least 100 events, got 0"),
        (lambda x: [bad(x), "--n-events", "5000"], "at least --n-events 5000 events, got 2000"),
        (lambda x: [bad(x), "--names", "a,b"], "--names must be 10 different names"),
        (lambda x: [bad(x), "--output", "a.pdf"], "--output must end in .html"),
        (lambda x: [bad(x), "--output", "no/a.html"], "is no folder; make it"),
        (lambda x: [bad(x), "--json", "bad.npy"], "must not be one of the samples"),
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


def test_only_constant_features(files, capsys):
    bad(np.ones((200, 2)), "a.npy")
    bad(np.ones((300, 2)), "b.npy")
    with pytest.raises(SystemExit):
        main(["diagnose", "a.npy", "b.npy"])
    assert "must have a feature that varies, got constant ones only" in capsys.readouterr().err
