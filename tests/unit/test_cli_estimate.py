"""`genamp estimate`: a verdict from files; one line and no output when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from genamp_lib import averaging_amplification, differential_amplification, plotting
from genamp_lib.cli import main
from genamp_lib.cli.estimate import app
from genamp_lib.files import counting as _count


def call(*arguments):
    arguments = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


def words(text):
    """Console text on one line, without frames."""
    return " ".join(text.replace("│", " ").replace("┃", " ").split())


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    """However slow the machine is: they would stand before an error."""
    monkeypatch.setattr("genamp_lib.sharing.LINE_SECONDS", float("inf"))


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
        np.save(f"close_{k}.npy", rng.normal(0.01 * (k - 2), size=10_000))
    return tmp_path


MEMBERS = [f"member_{k}.npy" for k in range(5)]
CLOSE = [f"close_{k}.npy" for k in range(5)]


def test_averaging_over_regions(files):
    result = call(
        "averaging", *CLOSE, "--n-train", 400, "--regions", "0,0.5,1", "--json", "out.json"
    )
    assert result.exit_code == 0, result.exception
    counts = [np.histogram(np.load(name), [0, 0.5, 1])[0] for name in CLOSE]
    expected = averaging_amplification(counts, n_generated=10_000, n_train=400)
    text = words(result.stdout)
    assert "[0, 0.5)" in text
    assert f"{expected.amplification:.3g}" in text
    assert expected.verdict == "amplifies, if its members share no bias"
    assert f"The members' mean {expected.verdict}: trained on 400 events, the members'" in text
    assert "* if its members share no bias." in text
    assert "5 members), one member" in text
    content = json.loads((files / "out.json").read_text())
    assert content["amplification"] == expected.to_dict()["amplification"]
    assert content["region_names"] == ["[0, 0.5)", "[0.5, 1)"]
    assert content["files"]["members"] == CLOSE


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
    assert "Undecided: trained on 400 events, by this measure alone the generator" in words(
        result.stdout
    )
    assert "only an independent holdout can show amplification" in words(result.stdout)


def test_differential_rings_the_alarm_for_a_copy(files):
    np.save("copy.npy", np.repeat(np.load("train.npy"), 10))
    result = call("differential", "train.npy", "copy.npy", "--holdout", "holdout.npy")
    text = words(result.stdout)
    assert "by this measure alone it would be worth" in text
    assert "Note: overfitting" in text
    assert "generated events repeat training events: inf times as many lie next to" in text
    # Smeared, and half of them only.
    rng = np.random.default_rng(3)
    some = rng.choice(np.load("train.npy"), 5000) + rng.normal(scale=1e-4, size=5000)
    np.save("some.npy", np.append(some, rng.normal(size=5000)))
    arguments = ["train.npy", "some.npy", "--holdout", "holdout.npy", "--json", "o.json"]
    result = call("differential", *arguments)
    assert "Generated events repeat training events: trained on 400 events, by this" in words(
        result.stdout
    )
    assert "G of its own. It says: generated events repeat training events." in words(result.stdout)
    content = json.loads((files / "o.json").read_text())
    assert content["verdict"] == "generated events repeat training events"
    assert content["repeats"]["p_value"] < 1e-6


def test_differential_says_what_a_small_holdout_can_show(files):
    np.save("small.npy", np.load("holdout.npy")[:200])
    result = call("differential", "train.npy", "perfect.npy", "--holdout", "small.npy")
    assert "Undecided: " in result.stdout
    assert "a perfect generator needs about 4,000 generated and as many holdout events" in words(
        result.stdout
    )


@pytest.mark.parametrize("single", ["train", "holdout", "perfect"])
def test_differential_does_not_depend_on_the_type_of_a_file(files, single):
    """Rounded and clipped: equal numbers are equal, in single and in double precision."""
    for name in ("train", "holdout", "perfect"):
        np.save(f"{name}.npy", np.clip(np.load(f"{name}.npy").round(3), -1.5, 1.5))
    arguments = ["differential", "train.npy", "perfect.npy", "--holdout", "holdout.npy"]
    assert call(*arguments, "--json", "double.json").exit_code == 0
    np.save(f"{single}.npy", np.load(f"{single}.npy").astype(np.float32))
    assert call(*arguments, "--json", "mixed.json").exit_code == 0
    assert (files / "mixed.json").read_text() == (files / "double.json").read_text()


def test_differential_reads_named_columns(files):
    np.savez("train.npz", mass=np.load("train.npy"), pt=np.ones(400))
    np.savez("generated.npz", mass=np.load("perfect.npy"))
    result = call("differential", "train.npz", "generated.npz", "--column", "mass")
    assert result.exit_code == 0, result.exception


def test_averaging_asks_the_training_sample_as_well(files):
    """Five members that agree on a shift: the spread is blind to it, the training sample is not."""
    rng = np.random.default_rng(2)
    for k in range(5):
        np.save(f"biased_{k}.npy", rng.normal(0.5 + 0.02 * (k - 2), size=10_000))
    biased = [f"biased_{k}.npy" for k in range(5)]
    edges = ["--regions", "0,0.5,1,2"]
    result = call("averaging", *biased, "--train", "train.npy", *edges, "--json", "out.json")
    assert result.exit_code == 0, result.exception
    assert (
        "Undecided: trained on 400 events, the members' mean by this measure alone would be worth"
        in words(result.stdout)
    )
    assert "the members' mean contradicts the training sample" in words(result.stdout)
    content = json.loads((files / "out.json").read_text())
    assert content["status"] == "contradicted"
    fractions = np.histogram(np.load("train.npy"), [0, 0.5, 1, 2])[0] / 400
    assert content["train_integrals"] == pytest.approx(fractions.tolist())
    alone = call("averaging", *biased, "--n-train", 400, *edges)
    assert "The members' mean amplifies, if its members share no bias" in words(alone.stdout)
    np.save("other.npy", rng.normal(size=400))
    good = call("averaging", *MEMBERS, "--train", "other.npy", *edges)
    assert "contradicts" not in good.stdout


def test_averaging_with_a_holdout(files):
    arguments = [*MEMBERS, "--train", "train.npy", "--regions", "-1,0,1", "--json", "out.json"]
    result = call("averaging", *arguments, "--holdout", "holdout.npy")
    assert result.exit_code == 0, result.exception
    edges = [-1, 0, 1]
    counts = [np.histogram(np.load(name), edges)[0] for name in MEMBERS]
    expected = averaging_amplification(
        counts,
        n_generated=10_000,
        n_train=400,
        holdout_counts=np.histogram(np.load("holdout.npy"), edges)[0],
        n_holdout=20_000,
    )
    content = json.loads((files / "out.json").read_text())
    assert content["holdout"]["mean"] == expected.to_dict()["holdout"]["mean"]
    assert 0 < content["joint_p_value"] < 1
    assert content["files"]["holdout"] == "holdout.npy"
    text = words(result.stdout)
    assert f"By the 20,000 events of the holdout G is {expected.holdout.mean:.3g}, and" in text
    assert f"G is at least {expected.holdout_edges[0]:.3g} (97.7 % confidence)" in text


def test_averaging_of_independent_members_names_one(files):
    result = call("averaging", *CLOSE, "--n-train", 400, "--regions", "0,1", "--independent")
    assert "One member amplifies, if its members share no bias: trained" in words(result.stdout)
    assert "5 members), their mean" in words(result.stdout)


def test_averaging_makes_the_joint_alarm_itself(files):
    rng = np.random.default_rng(5)
    for k in range(5):
        np.save(f"wide_{k}.npy", rng.normal(0.0, 1.35 + 0.01 * k, size=10_000))
    wide = [f"wide_{k}.npy" for k in range(5)]
    result = call(
        "averaging", *wide, "--train", "train.npy", "--regions", "-0.5,0.5", "--json", "o"
    )
    content = json.loads((files / "o").read_text())
    assert content["joint_p_value"] < 1e-4
    assert content["verdict"] == "undecided"
    assert "contradicts the training sample" in words(result.stdout)
    # A sample without bins has no such alarm.
    np.save("few.npy", np.load("train.npy")[:9])
    call("averaging", *wide, "--train", "few.npy", "--regions", "-0.5,0.5", "--json", "o")
    assert json.loads((files / "o").read_text())["joint_p_value"] is None


def test_averaging_without_enough_training_events_says_so(files):
    result = call("averaging", *MEMBERS, "--n-train", 400, "--regions", "2,inf")
    assert "too few events" in result.stdout
    assert "Undecided: trained on 400 events. Note: too few training events" in words(result.stdout)


def test_averaging_of_equal_members_gives_no_number(files):
    np.save("turned.npy", np.load("member_0.npy")[::-1])
    arguments = ["member_0.npy", "turned.npy", "member_1.npy", "--train", "train.npy"]
    result = call("averaging", *arguments, "--quantiles", 4)
    assert result.stdout.count("same members") == 5
    assert "amplifies" not in result.stdout
    assert "Undecided: trained on 400 events. Note: members 0 and 1 are the same" in words(
        result.stdout
    )


def test_a_holdout_that_excludes_amplification_gives_an_upper_bound(files):
    rng = np.random.default_rng(2)
    for k in range(5):
        np.save(f"off_{k}.npy", rng.normal(0.5 + 0.02 * (k - 2), size=10_000))
    off = [f"off_{k}.npy" for k in range(5)]
    arguments = ["--n-train", 400, "--regions", "0,1,2", "--holdout", "holdout.npy"]
    result = call("averaging", *off, *arguments, "--json", "o.json")
    most = json.loads((files / "o.json").read_text())["holdout_edges"][1]
    assert most < 1
    assert f"lucky or not, G is at most {most:.3g} (97.7 % confidence)" in words(result.stdout)


def test_numbers_of_events_have_three_digits(files):
    result = call("differential", "train.npy", "perfect.npy", "--holdout", "holdout.npy")
    low, high = (
        edge * 400
        for edge in differential_amplification(
            *(np.load(f"{name}.npy") for name in ("train", "perfect")),
            holdout=np.load("holdout.npy"),
        ).interval
    )
    shown = f"at least {float(f'{low:.3g}'):,.0f} true events"
    if np.isfinite(high):
        shown = f"{float(f'{low:.3g}'):,.0f} to {float(f'{high:.3g}'):,.0f} true events"
    assert f" is worth {shown} here" in words(result.stdout)


PARTED = {
    "averaging": [*MEMBERS, "--train", "train.npy", "--quantiles", "4"],
    "differential": ["train.csv", "perfect.npy", "--holdout", "holdout.npy", "--plot", "p.svg"],
}


@pytest.mark.parametrize("command", PARTED)
def test_parts_leave_no_trace_in_the_output(files, command, monkeypatch):
    np.savetxt("train.csv", np.load("train.npy"), fmt="%.17g")
    whole = call(command, *PARTED[command], "--json", "out.json")
    assert whole.exit_code == 0, whole.exception
    content = (files / "out.json").read_bytes()
    picture = (files / "p.svg").read_bytes() if command == "differential" else b""
    monkeypatch.setattr(_count, "PART_EVENTS", 777)
    monkeypatch.setattr(_count, "MOST_PARTS", 10**6)
    monkeypatch.setattr(_count, "WORTH_SHARING", 0)
    for how in ([], ["--jobs", 2]):
        result = call(command, *PARTED[command], "--json", "out.json", *how)
        assert result.exit_code == 0, result.exception
        assert result.stdout == whole.stdout
        assert (files / "out.json").read_bytes() == content
        if picture:
            assert (files / "p.svg").read_bytes() == picture


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_plots(files, suffix, magic):
    result = call(
        "averaging", *MEMBERS, "--n-train", 400, "--regions", "0,1", "--plot", f"a{suffix}"
    )
    assert result.exit_code == 0, result.exception
    assert f"Drawn in a{suffix}." in result.stdout
    assert (files / f"a{suffix}").read_bytes().startswith(magic)
    result = call("differential", "train.npy", "shifted.npy", "--plot", f"d{suffix}")
    assert result.exit_code == 0, result.exception
    assert (files / f"d{suffix}").read_bytes().startswith(magic)
    assert not list(files.glob(".*"))


def test_plots_show_the_estimate_over_n_generated(files, monkeypatch):
    drawn = {}
    for name in ("plot_estimate", "plot_distance_curve"):
        real = getattr(plotting, name)

        def spy(*arguments, name=name, real=real, **options):
            drawn[name] = (arguments, real(*arguments, **options))
            return drawn[name][1]

        monkeypatch.setattr(plotting, name, spy)
    counts = ["--n-train", 400, "--regions", "0,1", "--plot", "a.png"]
    assert call("averaging", *MEMBERS, *counts, "--json", "a.json").exit_code == 0
    (_, n_generated), ax = drawn["plot_estimate"]
    content = json.loads((files / "a.json").read_text())
    marks = [400, 10_000] + [n for n in [content["n_equiv"]] if n != "inf"]
    assert n_generated[0] == pytest.approx(min(marks) / 10)
    assert n_generated[-1] == pytest.approx(max(marks) * 10)
    title = ax.get_title(loc="left")
    assert title.startswith(f"{content['verdict']}: $G$ = {float(content['amplification']):.3g},")

    arguments = ["train.npy", "shifted.npy", "--holdout", "holdout.npy", "--plot", "d.png"]
    assert call("differential", *arguments).exit_code == 0
    (sizes, distances, estimate), _ = drawn["plot_distance_curve"]
    assert (sizes[0], sizes[-1], len(sizes)) == (100, 30_000, 16)
    assert estimate.reference == "holdout"
    holdout, shifted = np.load("holdout.npy"), np.load("shifted.npy")
    for n, distance in zip(sizes[::5], distances[::5], strict=True):
        assert distance == ks_2samp(holdout, shifted[:n], method="asymp").statistic


def test_samples_too_small_for_a_curve_are_one_point(files):
    np.save("few.npy", np.load("perfect.npy")[:50])
    result = call("differential", "train.npy", "few.npy", "--plot", "d.png")
    assert result.exit_code == 0, result.exception


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("worth", "jobs"), [(40_000, 2), (400_000, 1)])
def test_a_count_is_shared_only_where_it_is_worth_it(files, monkeypatch, worth, jobs):
    """Some 30,000 events are known; a text of the same counts by its size."""
    seen = []

    def spy(function, tasks, *, jobs, **options):
        seen.append(jobs)
        return ((k, function(task)) for k, task in enumerate(tasks))

    monkeypatch.setattr("genamp_lib.sharing.finished_tasks", spy)
    monkeypatch.setattr(_count, "WORTH_SHARING", worth)
    np.savetxt("text.csv", np.load("perfect.npy"), fmt="%.10f")
    result = call("differential", "train.npy", "text.csv", "--jobs", 2)
    assert result.exit_code == 0, result.exception
    assert seen == [jobs]
    assert call("differential", "train.npy", "perfect.npy", "--jobs", 2).exit_code == 0
    assert seen[1:] == [1]


def test_workers_that_die_are_one_line(files, capsys, monkeypatch):
    monkeypatch.setattr(_count, "_count_part", die)
    monkeypatch.setattr(_count, "WORTH_SHARING", 0)
    monkeypatch.setattr(_count, "PART_EVENTS", 10_000)  # one part alone would die here
    before = sorted(files.iterdir())
    arguments = "train.npy perfect.npy --jobs 2 --json out.json --plot out.png"
    with pytest.raises(SystemExit) as caught:
        main(["estimate", "differential", *arguments.split()])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: worker processes died 4 times (unfinished tasks: 3), killed")
    assert error.count("\n") == 1
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "averaging member_0.npy member_1.npy --train train.npy --n-train 9 --regions 0,1",
            "--n-train must be the number of events in --train, 400, got 9; leave one of them out",
        ),
        ("averaging member_0.npy gone.npy --n-train 9 --regions 0,1", "gone.npy: not found"),
        ("averaging member_0.npy member_1.npy --train gone.npy --regions 0,1", "gone.npy: not fo"),
        (
            "averaging member_0.npy cut.npy --n-train 9 --regions 0,1",
            "cut.npy: truncated, the header promises 400 rows",
        ),
        ("differential train.npy cut.npy", "cut.npy: truncated, the header promises 400 rows"),
        (
            "averaging member.npz member_0.npy --n-train 9 --regions 0,1 --column eta",
            "member.npz: no column `eta`; there is `mass`",
        ),
        ("differential train.npy events.pdf", "events.pdf: must be one of .npy, .npz"),
        ("differential train.npy train.npy", "must be different files, got one twice"),
        ("differential train.npy perfect.npy --holdout train.npy", "must be different files"),
        ("differential train.npy nan.npy --jobs 2", "nan.npy: `values` must be finite"),
        ("averaging member_0.npy nan.npy --n-train 9 --regions 0,1 --jobs 2", "nan.npy: `values`"),
        ("differential train.npy perfect.npy --jobs 0", "--jobs must be at least 1, got 0"),
        (
            "differential train.npy perfect.npy --jobs 2 --scheduler tcp://127.0.0.1:1",
            "--jobs must not be given together with --scheduler",
        ),
        (
            "differential train.npy perfect.npy --scheduler nonsense",
            "Dask scheduler nonsense: cannot be reached (ValueError: missing port number",
        ),
        (
            "averaging member_0.npy member_1.npy --n-train 9 --regions 0,1 --scheduler nonsense",
            "Dask scheduler nonsense: cannot be reached (ValueError: missing port number",
        ),
        (
            "differential train.npy gone.npy --plot p.jpg",
            "--plot must end in .png, .svg, .pdf, got p.jpg",
        ),
        (
            "differential train.npy gone.npy --plot nowhere/p.png",
            "nowhere/p.png: cannot be written, nowhere is no folder; make it",
        ),
        ("averaging gone.npy --n-train 9 --plot nowhere/p.png", "nowhere is no folder; make it"),
        ("averaging member_0.npy member_1.npy --regions 0,1", "--n-train must be given"),
        ("averaging member_0.npy member_1.npy --n-train 0 --regions 0,1", "--n-train must be pos"),
        ("averaging member_0.npy member_1.npy --n-train 9", "--regions or --quantiles must be"),
        ("averaging member_0.npy --n-train 9 --regions 0,1", "at least two files, got 1"),
        (
            "averaging member_0.npy member_0.npy --n-train 9 --regions 0,1",
            "members must be different files",
        ),
        (
            "averaging member_0.npy copy.npy --n-train 9 --regions 0,1",
            "members must differ, got equal bytes in member_0.npy and copy.npy",
        ),
        (
            "averaging member_0.npy member_1.npy --train train.npy --holdout partly.npy "
            "--regions 0,1",
            "train.npy, partly.npy: `holdout` must share no events with `train`, got 30 events",
        ),
        (
            "averaging member_0.npy --n-train 9 --n-generated 9 --holdout train.npy",
            "--holdout must be given together with --regions or --quantiles",
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
            "averaging member_0.npy member_1.npy --train train.npy --holdout copy.npy "
            "--regions 0,1",
            "members, --train and --holdout must differ, got equal bytes in member_0.npy and copy",
        ),
        (
            "averaging member_0.npy member_1.npy --train empty.npy --regions 0,1",
            "empty.npy: `values` must not be empty, got 0 events",
        ),
        (
            "averaging member_0.npy empty.npy --n-train 9 --regions 0,1",
            "empty.npy: must hold events, got 0",
        ),
        ("differential . train.npy", ".: must be a file or a folder with .parquet files"),
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
        (
            "differential train.npy perfect.npy --holdout leak.npy",
            "samples: `holdout` must share no events with `train`, got 400 events that equal",
        ),
        (
            "differential train.npy perfect.npy --holdout constant.npy",
            "`holdout` must hold at least two different values, got 1 everywhere",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(files, capsys, arguments, message):
    np.save("nan.npy", np.array([1.0, np.nan]))
    np.save("empty.npy", np.empty(0))
    np.save("copy.npy", np.load("member_0.npy"))
    np.save("partly.npy", np.append(np.load("holdout.npy"), np.load("train.npy")[:30]))
    np.save("constant.npy", np.ones(50))
    np.save("leak.npy", np.append(np.load("train.npy"), np.load("holdout.npy")))
    (files / "text.npy").write_text("not an array")
    (files / "events.pdf").write_text("pages")
    (files / "cut.npy").write_bytes((files / "train.npy").read_bytes()[:-100])
    np.savez("member.npz", mass=np.ones(10), pt=np.ones(10))
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


@pytest.mark.parametrize(
    "command",
    [
        ["averaging", *MEMBERS, "--n-train", 400, "--regions", "0,1"],
        ["differential", "train.npy", "perfect.npy", "--holdout", "holdout.npy"],
    ],
)
def test_json_on_stdout_stands_alone(files, command):
    before = sorted(files.iterdir())
    result = call(*command, "--json", "-")
    assert result.exit_code == 0, result.exception
    assert "68 %" in result.stderr
    assert json.loads(result.stdout)["n_train"] == 400
    assert sorted(files.iterdir()) == before
    assert call("differential", "train.npy", "gone.npy", "--json", "-").stdout == ""
    assert call(*command, "--json", "out.json").exit_code == 0
    assert (files / "out.json").read_text() == result.stdout


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout", "/dev/new", "/proc/self/fd/9"])
def test_a_device_is_no_output(files, device):
    result = call("differential", "train.npy", "perfect.npy", "--json", device)
    assert "it is a device; give a file to --json" in str(result.exception)
    assert not os.path.exists("/dev/new")


@pytest.mark.parametrize("command", ["averaging", "differential"])
def test_help_teaches_by_examples(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.count(f"genamp estimate {command}") >= 2
    assert "--json" in result.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import genamp_lib.cli.estimate; print(set(sys.modules) & "
        "{'torch', 'scipy', 'numpy', 'h5py', 'pandas', 'matplotlib', 'joblib', 'distributed'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
