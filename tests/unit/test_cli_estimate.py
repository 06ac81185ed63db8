"""`genamp estimate`: a verdict from files; one line and no output when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from genamp_lib import averaging_amplification, differential_amplification
from genamp_lib.cli import main
from genamp_lib.cli.estimate import app


def call(*arguments):
    arguments = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


def words(text):
    """Console text on one line, without frames."""
    return " ".join(text.replace("│", " ").replace("┃", " ").split())


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A truth, and five members of an ensemble that each got its mean a little wrong."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    np.save("train.npy", rng.normal(size=400))
    np.save("holdout.npy", rng.normal(size=20_000))
    np.save("perfect.npy", rng.normal(size=30_000))
    np.save("shifted.npy", rng.normal(0.3, size=30_000))
    for k in range(5):
        np.save(f"member_{k}.npy", rng.normal(0.05 * (k - 2), size=10_000))
    return tmp_path


MEMBERS = [f"member_{k}.npy" for k in range(5)]


def test_averaging_over_regions(files):
    result = call(
        "averaging", *MEMBERS, "--n-train", 400, "--regions", "0,0.5,1", "--json", "out.json"
    )
    assert result.exit_code == 0, result.exception
    counts = [np.histogram(np.load(name), [0, 0.5, 1])[0] for name in MEMBERS]
    expected = averaging_amplification(counts, n_generated=10_000, n_train=400)
    text = words(result.stdout)
    assert "[0, 0.5)" in text
    assert f"{expected.amplification:.3g}" in text
    assert {"amplifies": "amplifies:", "does not amplify": "does not amplify:"}.get(
        expected.verdict, "Undecided:"
    ) in text
    assert "trained on 400 events, it is worth" in text
    content = json.loads((files / "out.json").read_text())
    assert content["amplification"] == pytest.approx(expected.amplification)
    assert content["region_names"] == ["[0, 0.5)", "[0.5, 1)"]
    assert content["files"]["members"] == MEMBERS


def test_averaging_over_quantiles_takes_n_train_from_the_training_sample(files):
    result = call("averaging", *MEMBERS, "--quantiles", 4, "--train", "train.npy")
    assert result.exit_code == 0, result.exception
    assert "trained on 400 events" in words(result.stdout)
    assert "[-inf, " in result.stdout
    assert "all, combined" in result.stdout


def test_averaging_over_a_table_of_counts(files):
    counts = np.random.default_rng(2).binomial(1000, [0.1, 0.3], size=(6, 2))
    np.savetxt("counts.csv", counts, delimiter=",", header="low,high", fmt="%d")
    arguments = ["--n-train", 100, "--n-generated", 1000]
    result = call("averaging", "counts.csv", *arguments, "--json", "out.json")
    assert result.exit_code == 0, result.exception
    expected = averaging_amplification(counts, n_generated=1000, n_train=100)
    content = json.loads((files / "out.json").read_text())
    assert content["verdict"] == expected.verdict
    assert content["interval"][0] == pytest.approx(expected.interval[0])


def test_averaging_over_the_first_events_of_unequal_members(files):
    np.save("member_4.npy", np.load("member_4.npy")[:7000])
    arguments = ["averaging", *MEMBERS, "--n-train", 400, "--regions", "0,1"]
    result = call(*arguments)
    assert "got 7000 in member_4.npy and 10000 in member_0.npy; use --n-generated 7000" in str(
        result.exception
    )
    result = call(*arguments, "--n-generated", 7000, "--json", "out.json")
    assert result.exit_code == 0, result.exception
    content = json.loads((files / "out.json").read_text())
    assert content["n_generated"] == 7000
    share = np.mean([np.mean((x := np.load(m)[:7000]) < 1) - np.mean(x < 0) for m in MEMBERS])
    assert content["integrals"][0] == pytest.approx(share)


@pytest.mark.parametrize(
    ("generated", "claim"),
    [("perfect", "The generator amplifies:"), ("shifted", "The generator does not amplify:")],
)
def test_differential_against_a_holdout(files, generated, claim):
    result = call(
        "differential",
        "train.npy",
        f"{generated}.npy",
        "--holdout",
        "holdout.npy",
        "--json",
        "o.json",
    )
    assert result.exit_code == 0, result.exception
    train, holdout, sample = (np.load(f"{n}.npy") for n in ("train", "holdout", generated))
    expected = differential_amplification(train, sample, holdout=holdout)
    text = words(result.stdout)
    assert claim in text
    assert f"{expected.distance:.5f}" in text
    assert "30,000 generated events against 20,000 events of the holdout sample" in text
    content = json.loads((files / "o.json").read_text())
    assert content["interval"] == expected.to_dict()["interval"]
    assert content["against_train"]["distance"] == expected.train_distance


def test_differential_against_the_training_sample_says_what_that_is_worth(files):
    result = call("differential", "train.npy", "perfect.npy")
    assert result.exit_code == 0, result.exception
    assert "Undecided:" in result.stdout
    assert "only an independent holdout can show amplification" in words(result.stdout)


def test_differential_rings_the_alarm_for_a_copy(files):
    np.save("copy.npy", np.repeat(np.load("train.npy"), 10))
    result = call("differential", "train.npy", "copy.npy", "--holdout", "holdout.npy")
    assert "Note: overfitting" in result.stdout


def test_differential_reads_named_columns(files):
    np.savez("train.npz", mass=np.load("train.npy"), pt=np.ones(400))
    np.savez("generated.npz", mass=np.load("perfect.npy"))
    result = call("differential", "train.npz", "generated.npz", "--column", "mass")
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("averaging member_0.npy member_1.npy --regions 0,1", "--n-train must be given"),
        ("averaging member_0.npy member_1.npy --n-train 0 --regions 0,1", "--n-train must be pos"),
        ("averaging member_0.npy member_1.npy --n-train 9", "--regions or --quantiles must be"),
        ("averaging member_0.npy --n-train 9 --regions 0,1", "at least two files, got 1"),
        (
            "averaging member_0.npy member_0.npy --n-train 9 --regions 0,1",
            "members must be different files",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 0,one",
            "--regions must be numbers as in 0,0.5,1, got 0,one",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 1,0",
            "--regions: `regions` must have low < high, got [1, 0).",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --quantiles 3",
            "--quantiles must be given together with --train",
        ),
        (
            "averaging member_0.npy member_1.npy --train train.npy --quantiles 3 --regions 0,1",
            "--regions must not be given together with --quantiles",
        ),
        (
            "averaging member_0.npy member_1.npy --train train.npy --quantiles 999",
            "train.npy: `n_regions` must be small enough",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 70,80",
            "members: `counts` must say something on every region",
        ),
        (
            "averaging member_0.npy nan.npy --n-train 9 --regions 0,1",
            "nan.npy: `values` must be finite, got NaN or infinity",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 0,1 --n-generated 99999",
            "member_0.npy: must hold at least --n-generated 99999 events, got 10000",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 0,1 --n-generated 0",
            "--n-generated must be positive, got 0",
        ),
        ("averaging train.npy --n-train 9 --n-generated 5", "`counts` must be integers"),
        ("differential train.npy missing.npy", "missing.npy: not found"),
        ("differential train.npy nan.npy", "nan.npy: `values` must be finite"),
        ("differential empty.npy perfect.npy", "empty.npy: `reference` must not be empty"),
        ("differential train.npy empty.npy", "`generated` must hold at least 10 events, got 0"),
        ("differential train.npy text.npy", "text.npy: not a whole .npy file"),
        ("differential train.npy perfect.npy --confidence 68", "`confidence` must be between 0"),
        ("differential constant.npy perfect.npy", "must hold at least two different values"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(files, capsys, arguments, message):
    np.save("nan.npy", np.array([1.0, np.nan]))
    np.save("empty.npy", np.empty(0))
    np.save("constant.npy", np.ones(50))
    (files / "text.npy").write_text("not an array")
    before = sorted(files.iterdir())
    with pytest.raises(SystemExit) as caught:
        main(["estimate", *arguments.split(), "--json", "out.json"])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert sorted(files.iterdir()) == before


def test_an_output_that_cannot_be_written_is_one_line(files):
    (files / "file").write_text("")
    result = call("differential", "train.npy", "perfect.npy", "--json", "file/out.json")
    assert "cannot be written" in str(result.exception)
    assert (files / "file").read_text() == ""


@pytest.mark.parametrize("command", ["averaging", "differential"])
def test_help_teaches_by_examples(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.count(f"genamp estimate {command}") >= 2
    assert "--json" in result.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import genamp_lib.cli.estimate; "
        "print({'torch', 'scipy', 'numpy', 'h5py', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
