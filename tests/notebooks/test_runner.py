"""The runner on a tiny project: what is rerun and why, what a failure and a kill leave behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate
from tests_support import TINY_CHAPTER, edit, processes_in, without_progress

from genamp_lib._project import GenampError, sha256_of_file
from genamp_lib.book.results import read_results
from genamp_lib.book.run import ChapterFailed, rerun

NOTEBOOK = Path("notebooks") / "01_tiny.md"
RUN = Path("_build") / "runs" / "default" / "01_tiny"
PAGE = Path("_build") / "site" / "chapters" / "01_tiny.html"


def answer(folder: Path) -> float:
    return json.loads((folder / "results.json").read_text())["results"]["answer"]["value"]


def test_only_what_changes_numbers_is_rerun(tiny_project: Path, genamp) -> None:
    first = genamp(tiny_project, "build")
    assert first.returncode == 0, first.stderr
    assert "01_tiny: to run, never run" in first.stdout
    started = json.loads((tiny_project / RUN / "record.json").read_text())["started"]

    again = genamp(tiny_project, "build")
    assert "01_tiny: up to date" in again.stdout
    assert "site (unchanged)" in again.stdout
    assert "sources: own" in genamp(tiny_project, "build", "--sources", "own").stdout
    notebook = json.loads((tiny_project / "own" / "chapters" / "01_tiny.ipynb").read_text())
    assert any(cell.get("execution_count") for cell in notebook["cells"])
    assert (tiny_project / "own" / "computed.json").exists()

    edit(tiny_project / NOTEBOOK, "The answer is", "It is plainly")
    prose = genamp(tiny_project, "build")
    assert "01_tiny: up to date" in prose.stdout
    assert "(unchanged)" not in prose.stdout
    assert "It is plainly" in (tiny_project / PAGE).read_text()
    assert json.loads((tiny_project / RUN / "record.json").read_text())["started"] == started

    edit(tiny_project / NOTEBOOK, "n_train * upper", "n_train + upper")
    record = json.loads((tiny_project / RUN / "record.json").read_text())
    (tiny_project / RUN / "record.json").write_text(json.dumps(record | {"wall_seconds": 4000.0}))
    code = genamp(tiny_project, "build")
    assert "01_tiny: to run, its code cells changed; about 67 min, as last time" in code.stdout
    assert "chapters: about 67 min; then the site is drawn" in code.stdout
    assert answer(tiny_project / RUN) == 10.5

    edit(tiny_project / "notebooks/presets/default.yml", "", "01_tiny: {n_train: 20}")
    listed = genamp(tiny_project, "chapters").stdout
    assert "stale" in listed
    assert "n_train: 10 -> 20" in " ".join(listed.split())
    genamp(tiny_project, "build")
    assert answer(tiny_project / RUN) == 20.5


def test_a_changed_library_or_version_makes_a_chapter_stale(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "run", "01_tiny").returncode == 0
    record = tiny_project / RUN / "record.json"
    for field, name in (("library", "book/results.py"), ("versions", "numpy")):
        content = json.loads(record.read_text())
        before = content["fingerprint"][field][name]
        content["fingerprint"][field][name] = "another"
        record.write_text(json.dumps(content))
        assert name in " ".join(genamp(tiny_project, "chapters").stdout.split())
        content["fingerprint"][field][name] = before
        record.write_text(json.dumps(content))
    assert "fresh" in genamp(tiny_project, "chapters").stdout


def test_other_parameters_get_a_folder_and_a_page_of_their_own(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "build").returncode == 0
    published = (tiny_project / RUN / "results.json").read_bytes()
    page = (tiny_project / PAGE).read_bytes()
    done = genamp(tiny_project, "run", "01_tiny", "-p", "n_train", "4", "-p", "upper", "2")
    assert done.returncode == 0, done.stderr
    folder = tiny_project / "_build/runs/custom-default/01_tiny/n_train-4_upper-2.0"
    assert answer(folder) == 8.0
    text = (folder / "site/chapters/01_tiny.html").read_text()
    assert "This page was rerun with" in text
    assert 'data-result="answer"' in text
    assert "rerun with other parameters" in text
    assert "genamp-agrees" not in text
    assert (tiny_project / RUN / "results.json").read_bytes() == published
    assert (tiny_project / PAGE).read_bytes() == page
    # What both sites have is there once.
    script = Path("_static") / "scripts"
    shared = [path for path in (folder / "site" / script).iterdir() if path.is_file()]
    assert shared
    for path in shared:
        assert path.samefile(tiny_project / "_build" / "site" / script / path.name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "02_tiny"], "unknown chapter `02_tiny`; did you mean `01_tiny`?"),
        (["run", "01_tiny", "-p", "n_trian", "5"], "did you mean `n_train`?"),
        (["run", "01_tiny", "-p", "n_train", "few"], "`n_train` must be int, got 'few'"),
        (["run", "01_tiny", "-p", "n_train"], "`-p` needs a name and a value, got `n_train`"),
        (
            ["run", "01_tiny", "-j", "2", "--scheduler", "tcp://x"],
            "--jobs must not be given together with --scheduler",
        ),
        (["run", "01_tiny", "--dry-run", "--publish"], "must not be given together with --publish"),
        (["run", "01_tiny", "--dry-run", "-p", "n_train", "-1"], "`n_train` must be in [1, inf)"),
        (["build", "--sources", "notebooks"], "notebooks: exists; remove it, or give another"),
        (["build", "--sources", "none/own"], "none: is no folder; make it"),
        (["build", "--preset", "smok"], "unknown preset `smok`; did you mean `smoke`?"),
        (["serve"], "run `genamp build --preset default` first"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(
    tiny_project: Path, genamp, arguments: list[str], message: str
) -> None:
    done = genamp(tiny_project, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(without_progress(done.stderr)) == 1
    assert not (tiny_project / "_build" / "runs" / "default").exists()


@pytest.mark.parametrize(
    ("options", "variable"),
    [({"jobs": 3}, "GENAMP_JOBS"), ({"scheduler": "3"}, "GENAMP_SCHEDULER")],
)
def test_a_chapter_is_told_with_whom_to_share_its_trainings(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, options: dict, variable: str
) -> None:
    monkeypatch.setattr("genamp_lib.book.run.check_scheduler", lambda address: None)
    monkeypatch.chdir(tiny_project)
    edit(
        tiny_project / NOTEBOOK, "n_train * upper", f'float(__import__("os").environ["{variable}"])'
    )
    assert answer(rerun("01_tiny", **options)) == 3.0


def test_a_dry_run_says_what_all_costs_and_keeps_nothing(tiny_project: Path, genamp) -> None:
    heavy = """
import numpy as np
from genamp_lib.store import ArtefactStore, Stage
stages = [Stage("fits", version=1, configuration={"seed": k}) for k in range(30)]
found = ArtefactStore().map(stages, lambda k: {"x": np.arange(1000.0 * k)}, range(30))
results = Results(chapter="01_tiny", seed=seed)
1 / len(found[0]["x"])
"""
    edit(tiny_project / NOTEBOOK, 'results = Results(chapter="01_tiny", seed=seed)\n', heavy)
    presets = tiny_project / "notebooks" / "presets"
    (presets / "paper.yml").write_text("")
    before = sorted(path for path in tiny_project.rglob("*") if path.name != "__pycache__")
    done = genamp(tiny_project, "build", "--preset", "paper", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "01_tiny: the preset changes nothing, none is needed" in done.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()]
    (fits,) = [row for row in rows if row and row[0] == "fits"]
    assert fits[1] == "30"
    assert [row[0] for row in rows if row] == ["fits", "rest of the chapter", "total"]
    assert "1 code cells failed" in done.stdout
    assert "The first: code cell 3: ZeroDivisionError" in done.stdout
    after = sorted(path for path in tiny_project.rglob("*") if path.name != "__pycache__")
    assert after == before


def test_a_dry_run_says_what_stands_in_the_way_of_the_run(tiny_project: Path, genamp) -> None:
    refusal = 'from genamp_lib._project import GenampError\nraise GenampError("`n` must be less")'
    edit(tiny_project / NOTEBOOK, "results.write()", refusal)
    (tiny_project / "notebooks" / "02_bad.md").write_text("no chapter")
    done = genamp(tiny_project, "build", "--dry-run")
    assert done.returncode == 2
    assert "rest of the chapter" in done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert "02_bad.md: must have a title" in done.stderr
    assert "01_tiny, code cell 3: GenampError: `n` must be less" in done.stderr


def test_a_missing_sample_stops_its_chapter_alone(tiny_project: Path, genamp) -> None:
    other = TINY_CHAPTER.replace("01_tiny", "02_new")
    (tiny_project / "notebooks/02_new.md").write_text(other)
    edit(tiny_project / NOTEBOOK, "samples: []", "samples: [jets_gluon]")
    (tiny_project / "data" / "registry.json").write_text(
        (Path(__file__).resolve().parents[2] / "data" / "registry.json").read_text()
    )
    listed = genamp(tiny_project, "chapters").stdout
    assert "01_tiny: cannot be run, sample `jets_gluon`" in listed
    assert "02_new: never run" in listed
    for command in ("build --dry-run", "build", "run 01_tiny --dry-run", "run 01_tiny"):
        done = genamp(tiny_project, *command.split())
        assert done.returncode == 2
        assert "jets_gluon" in done.stderr
        assert "genamp data" in done.stderr
        assert len(without_progress(done.stderr)) == 1
    assert "02_new: up to date" in genamp(tiny_project, "build").stdout
    assert not (tiny_project / RUN).exists()


def test_a_failing_cell_is_shown_and_the_last_good_site_stays(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "build").returncode == 0
    page = (tiny_project / PAGE).read_bytes()
    edit(tiny_project / NOTEBOOK, "n_train * upper", "n_train / (upper - upper)")
    done = genamp(tiny_project, "build")
    assert done.returncode == 1
    assert "01_tiny, code cell 3: ZeroDivisionError" in done.stderr
    assert "n_train / (upper - upper)" in done.stderr
    assert (tiny_project / PAGE).read_bytes() == page
    assert answer(tiny_project / RUN) == 5.0
    failed = tiny_project / "_build/runs/default/01_tiny.failed"
    assert "ZeroDivisionError" in (failed / "traceback.txt").read_text()
    edit(tiny_project / NOTEBOOK, "(upper - upper)", "upper")
    assert genamp(tiny_project, "build").returncode == 0
    assert answer(tiny_project / RUN) == 20.0
    assert not failed.exists()


def test_a_chapter_says_how_far_its_heavy_stages_are_and_not_on_its_page(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_project)
    heavy = (
        "from genamp_lib import sharing\nimport time\nsharing.LINE_SECONDS = 0.0\n"
        "sharing.map_tasks(time.sleep, [0.0, 0.0], label='a heavy stage')\nresults = Results"
    )
    edit(tiny_project / NOTEBOOK, "results = Results", heavy)
    folder = rerun("01_tiny", fresh=True)
    assert "01_tiny, a heavy stage: 1 of 2, " in capsys.readouterr().err
    assert "heavy stage: " not in (folder / "notebook.ipynb").read_text()
    assert {path.name for path in folder.iterdir()} == {
        *("source.md", "notebook.ipynb", "results.json", "log.txt", "record.json"),
        "ro-crate-metadata.json",
    }


def test_figures_reach_the_page_whatever_the_users_backend(tiny_project: Path, genamp) -> None:
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nresults = Results"
    edit(tiny_project / NOTEBOOK, "results = Results", plot)
    assert genamp(tiny_project, "build").returncode == 0  # the fixture sets MPLBACKEND=Agg
    assert "<img" in (tiny_project / PAGE).read_text()


def test_a_chapter_without_results_fails(tiny_project: Path, genamp) -> None:
    edit(tiny_project / NOTEBOOK, "results.write()", "")
    done = genamp(tiny_project, "build")
    assert done.returncode == 1
    assert "wrote no results" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("`answer`", "`anwser`", "quotes the result `anwser`; did you mean `answer`?"),
        ("`answer`", "`1_tiny/answer`", "quotes the chapter `1_tiny`; did you mean `01_tiny`?"),
        ("} scoreboard", "} scorebord", "asks for the block `scorebord`; did you mean `scorebo"),
    ],
)
def test_what_a_page_quotes_must_exist(
    tiny_project: Path, genamp, old: str, new: str, message: str
) -> None:
    edit(tiny_project / NOTEBOOK, old, new)
    commands = [["build"], ["run", "01_tiny", "-p", "n_train", "4"]]
    for command in commands[: 1 if "anwser" in new else 2]:
        done = genamp(tiny_project, *command)
        assert done.returncode == 2
        assert f"error: 01_tiny: {message}" in done.stderr
        assert len(without_progress(done.stderr)) == 1
    assert not (tiny_project / "_build" / "site").exists()


def test_a_run_tells_its_provenance_to_other_programs(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_project)
    folder = rerun("01_tiny", {"n_train": 4}, page=False)
    crate = ROCrate(folder)
    [action] = crate.get_by_type("CreateAction")
    record = json.loads((folder / "record.json").read_text())
    results, notebook = action["result"]
    assert results["sha256"] == record["results_sha256"] == sha256_of_file(folder / results.id)
    assert notebook["sha256"] == sha256_of_file(folder / notebook.id)
    values = {one["name"]: one["value"] for one in action["object"] if "value" in one}
    assert values == {"seed": "1", "n_train": "4", "upper": "0.5"}
    assert record["revision"] in action["instrument"]["softwareVersion"]
    assert action["startTime"] == record["started"]
    assert crate.root_dataset["conformsTo"].id == "https://w3id.org/ro/wfrun/process/0.5"


def test_a_page_stands_when_a_parameter_renames_what_it_quotes(tiny_project: Path, genamp) -> None:
    edit(tiny_project / NOTEBOOK, 'results.add("answer"', 'results.add(f"answer_{n_train}"')
    edit(tiny_project / NOTEBOOK, "{result}`answer`", "{result}`answer_10`")
    edit(tiny_project / "book/paper_numbers.yml", "result: answer", "result: answer_10")
    cases = tiny_project / "book/amplification.yml"
    cases.write_text(cases.read_text().replace(": answer", ": answer_10"))
    done = genamp(tiny_project, "run", "01_tiny", "-p", "n_train", "4")
    assert done.returncode == 0, done.stderr
    folder = tiny_project / "_build/runs/custom-default/01_tiny/n_train-4"
    text = (folder / "site/chapters/01_tiny.html").read_text()
    assert "The answer is (not computed with these parameters)." in text
    assert "not comparable" in text
    assert genamp(tiny_project, "build").returncode == 0
    assert "answer is (not" not in (tiny_project / PAGE).read_text()


def test_a_chapter_is_rerun_from_python(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_project)
    folder = rerun("01_tiny", {"n_train": 4})
    assert read_results(folder / "results.json")["answer"].value == 2.0
    assert (folder / "site/chapters/01_tiny.html").exists()
    assert not (tiny_project / RUN).exists()
    with pytest.raises(GenampError, match="did you mean `n_train`"):
        rerun("01_tiny", {"n_trian": 4})
    edit(tiny_project / NOTEBOOK, "n_train * upper", "n_train / 0")
    with pytest.raises(ChapterFailed, match="01_tiny, code cell 3: ZeroDivisionError"):
        rerun("01_tiny")


A_FIGURE = """
```{figure} ../assets/logo.svg
:name: fig-new

See it.
```
"""


def test_a_new_chapter_is_one_notebook_and_one_line(tiny_project: Path, genamp) -> None:
    """The recipe of CONTRIBUTING.md: nothing else is touched, and the chapter is everywhere.

    Its number is that of its file, also where another chapter is not there yet.
    """
    text = TINY_CHAPTER.replace("01_tiny", "03_new").replace("A tiny chapter", "A new chapter")
    text = text.replace("samples: []", "samples: []\n  beyond_papers: true")
    text = text.replace(":::{genamp} scoreboard\n:::\n", A_FIGURE)
    (tiny_project / "notebooks/03_new.md").write_text(text)
    edit(tiny_project / "book/_toc.yml", "01_tiny\n", "01_tiny\n  - file: chapters/03_new\n")
    (tiny_project / "README.md").write_text(
        "<!-- chapters: begin (written by `genamp scoreboard --readme`) -->\n"
        "<!-- chapters: end -->\n"
        "<!-- scoreboard: begin (written by `genamp scoreboard --readme`) -->\n"
        "<!-- scoreboard: end -->\n"
    )
    done = genamp(tiny_project, "build")
    assert done.returncode == 0, done.stderr
    assert "03_new" in genamp(tiny_project, "chapters").stdout
    site = tiny_project / "_build/site"
    page = (site / "chapters/03_new.html").read_text()
    assert 'data-chapter="03_new" data-result="answer"' in page
    assert '<span class="section-number">3. </span>A new chapter' in page
    assert '<span class="caption-number">Fig. 3.1 </span>' in page
    title = (site / "data.html").read_text().partition("<h1>")[2].partition("</h1>")[0]
    assert title
    assert "section-number" not in title
    front = (site / "index.html").read_text()
    assert "3. A new chapter" in front  # the sidebar
    assert front.count('href="chapters/03_new.html"') >= 2  # the list of chapters, the sidebar
    assert "A new chapter" in front
    assert genamp(tiny_project, "scoreboard", "--readme", "README.md").returncode == 0
    assert "[A new chapter](notebooks/03_new.md)" in (tiny_project / "README.md").read_text()
    smoke = genamp(tiny_project, "run", "03_new", "--preset", "smoke")  # its own parameters
    assert smoke.returncode == 0, smoke.stderr
    assert answer(tiny_project / "_build/runs/smoke/03_new") == 5.0


def test_a_broken_reference_is_an_error_and_no_site_appears(tiny_project: Path, genamp) -> None:
    edit(tiny_project / NOTEBOOK, "The answer is", "See {numref}`fig-nowhere`. It is")
    done = genamp(tiny_project, "build")
    assert done.returncode == 1
    assert "fig-nowhere" in done.stderr
    assert not (tiny_project / "_build" / "site").exists()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_build_leaves_nothing_half_and_the_next_continues(
    tiny_project: Path, genamp, which: signal.Signals
) -> None:
    edit(
        tiny_project / NOTEBOOK,
        "results = Results",
        "from pathlib import Path\nimport time\nPath('_build/begun').touch()\n"
        "time.sleep(0 if Path('_build/quick').exists() else 120)\nresults = Results",
    )
    command = [str(Path(sys.executable).with_name("genamp")), "build"]
    process = subprocess.Popen(
        command,
        cwd=tiny_project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C as at a terminal, also where these tests run in the background and ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: (tiny_project / "_build" / "begun").exists())
        process.send_signal(which)
        assert process.wait(120) == {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[which]
    finally:
        process.kill()
    wait_for(lambda: not processes_in(tiny_project))
    assert not (tiny_project / RUN).exists()
    assert not (tiny_project / "_build" / "site").exists()

    (tiny_project / "_build" / "quick").touch()
    done = genamp(tiny_project, "build")
    assert done.returncode == 0, done.stderr
    assert answer(tiny_project / RUN) == 5.0
    assert [path.name for path in (tiny_project / RUN).parent.iterdir()] == ["01_tiny"]


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_two_builds_at_once_are_refused(tiny_project: Path, genamp) -> None:
    from filelock import FileLock

    (tiny_project / "_build").mkdir()
    with FileLock(tiny_project / "_build" / "build-default.lock"):
        done = genamp(tiny_project, "build")
    assert done.returncode == 2
    assert "another genamp is at work here" in done.stderr


def test_presets_do_not_mix(tiny_project: Path, genamp) -> None:
    assert genamp(tiny_project, "build", "--preset", "smoke").returncode == 0
    assert not (tiny_project / "_build" / "site").exists()
    page = (tiny_project / "_build/site-smoke/chapters/01_tiny.html").read_text()
    assert "computed with the preset" in page
    board = genamp(tiny_project, "scoreboard", "--preset", "smoke", "--json")
    assert json.loads(board.stdout)[0]["verdict"] == "differs"
    board = genamp(tiny_project, "scoreboard", "--json")
    assert json.loads(board.stdout)[0]["verdict"] == "not run"
