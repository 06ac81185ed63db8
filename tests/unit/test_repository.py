"""What a clone must be: small enough, whole, and free of what belongs to one machine."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from bs4 import BeautifulSoup
from packaging.specifiers import SpecifierSet
from tests_support import ROOT

from genamp_lib._project import read_json, sha256_of_file
from genamp_lib.book.site import _html

MEGABYTE = 1_000_000


def tracked() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    try:
        done = subprocess.run(
            [*command, "--exclude-standard"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the tracked files are not known")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_data_keeps_its_budget() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in tracked()}
    assert sum(size for name, size in sizes.items() if name.startswith("data/")) < 100 * MEGABYTE
    assert not {name: size for name, size in sizes.items() if size > 15 * MEGABYTE}


def test_published_artefacts_are_as_recorded() -> None:
    for record in sorted((ROOT / "data" / "artefacts").glob("*.json")):
        content = read_json(record)
        assert content["sha256"] == sha256_of_file(record.with_suffix(".safetensors")), record
        assert record.stem == f"{content['name']}-{content['key']}"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    required = [*project["dependencies"], *(name for extra in extras for name in extra)]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    for requirement in (one for one in required if not one.startswith("genamp[")):
        name = re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
        assert re.search(rf"^{re.escape(name)}==", pins, flags=re.MULTILINE), name


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_hashes_of_the_versions_that_make_installs() -> None:
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    locked = re.findall(r"^([^\s#=]+==\S+) (?:;.*)?\\\n +--hash=sha256:\w{64}", lock, re.MULTILINE)
    assert len(locked) == len(re.findall(r"^\S+==", lock, re.MULTILINE)) > 150
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert pins[1:] == locked


def test_the_pins_allow_the_oldest_python() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    installed = {normal(d.name): d for d in metadata.distributions() if d.name}
    checked = 0
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", pins, flags=re.MULTILINE):
        found = installed.get(name)
        if found is not None and found.version == version:
            checked += 1
            allowed = SpecifierSet(found.metadata.get("Requires-Python") or "")
            assert "3.11.2" in allowed, name  # of Debian 12
    assert checked > 100


def test_both_papers_can_be_found() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for paper, year, arxiv in zip(
        citation["references"], (2025, 2024), ("2509.08048", "2305.16774"), strict=True
    ):
        assert paper["year"] == year
        assert {"type": "other", "value": f"arXiv:{arxiv}"} in paper["identifiers"]
        _, entry = bibliography.split(f"title = {{{paper['title']}}}")
        assert f"year = {{{year}}}" in entry.split("\n}")[0]
        assert f"eprint = {{{arxiv}}}" in entry.split("\n}")[0]


def test_no_path_of_one_machine_is_in_the_sources() -> None:
    pattern = re.compile(r"(/home/|/Users/|/root/|/tmp/)\w")
    found = [
        name
        for name in tracked()
        if name.endswith((".py", ".md", ".yml", ".toml", ".json", ".txt", ".cff"))
        and not name.startswith("tests/")
        and pattern.search((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert not found


def test_argument_descriptions_stand_alone() -> None:
    """Of all that the API pages name: "Seed of the draws", not "Of the draws"."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "book" / "api").glob("*.md"))
    named = re.findall(r"genamp_lib((?:\.\w+)+)", pages)
    paths = set()
    for name in named:
        *parts, last = name.split(".")[1:]
        base = ROOT.joinpath("genamp_lib", *parts)
        modules = [*(base / last).glob("*.py"), *base.glob(f"{last}.py")]
        paths.update(modules or [base.with_suffix(".py"), *base.glob("*.py")])
    files = {path: path.read_text(encoding="utf-8") for path in paths if path.is_file()}
    assert len(files) > 40
    clipped = re.compile(r"^ +`{0,2}\w+`{0,2}: (?:Of|How) .*", flags=re.MULTILINE)
    found = {path: clipped.findall(text) for path, text in files.items()}
    assert not {str(path): lines for path, lines in found.items() if lines}


def test_power_of_the_site_has_every_peer_and_finds_nothing_in_nothing() -> None:
    """Of 40 pairs without a flaw two or more are called different in 0.2 % of all runs."""
    kept = read_json(ROOT / "book" / "power.json")
    pinned = (ROOT / "benchmarks" / "requirements.txt").read_text(encoding="utf-8")
    assert {"networks", "trees", "PQMass"} < kept["seconds"].keys()
    assert any(name.startswith("hyppo") for name in kept["seconds"])
    assert {"hyppo", "pqm"} == set(re.findall(r"^(\w+)==", pinned, re.MULTILINE))
    for found in kept["found"].values():
        assert found.keys() == kept["seconds"].keys()
        assert all(0 <= one <= kept["n_pairs"] for one in found.values())
    assert sum(kept["found"]["nothing"].values()) <= 1
    assert "{genamp} power" in (ROOT / "book" / "evidence.md").read_text(encoding="utf-8")
    rows = BeautifulSoup(_html().power(kept), "html.parser").select("tr")
    assert len(rows) == len(kept["found"]) + 2
    for row, (flaw, found) in zip(rows[1:], kept["found"].items(), strict=False):
        assert row.td.text == flaw
        assert row.find_all("td")[1].text == f"{found['networks']} of {kept['n_pairs']}"


def test_benchmarks_of_the_site_name_task_peer_machine_and_date() -> None:
    rows = read_json(ROOT / "book" / "benchmarks.json")
    assert len({row["task"] for row in rows}) == len(rows) > 0
    for row in rows:
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"], rel=0.02)
        assert row["peer"]
        assert row["machine"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])


def test_a_plain_sphinx_gets_the_settings_of_the_book() -> None:
    book = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))
    given, own = runpy.run_path(str(ROOT / "book" / "conf.py")), book["sphinx"]["config"]
    assert {name: given[name] for name in own if name != "extensions"} == {
        name: value for name, value in own.items() if name != "extensions"
    }
    assert given["html_title"] == book["title"]
    assert given["nb_execution_mode"] == "off"
    # What make site-sphinx installs is what they need.
    named = {re.sub("[_.]", "-", one) for one in given["extensions"]} - {
        "genamp-lib-book-extension"
    }
    needed = {one for one in named if not one.startswith("sphinx-ext-")}
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    installed = re.search(r"pip install .* sphinx (.*\\\n.*)", make)[1].replace("\\", "").split()
    assert set(installed) == needed
