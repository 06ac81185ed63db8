"""results.json: what is written is read back; numbers carry the digits they deserve."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from genamp_lib import averaging_amplification
from genamp_lib._project import GenampError
from genamp_lib.book.results import RUN_FOLDER_VARIABLE, Result, Results, read_results, show_table
from genamp_lib.diagnostics import binomial_interval


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (70.44723, None, "70.447"),
        (71.23, (58.1, 88.34), "71 [58, 88]"),
        (0.50734, (0.5052, 0.5094), "0.5073 [0.5052, 0.5094]"),
        (0.00031, (0.00028, 0.00035), "0.000310 [0.000280, 0.000350]"),
        (12.0, (3.4, math.inf), "12.0 [3.4, ∞]"),
        (math.inf, (3.4, math.inf), "∞ [3.400, ∞]"),
        (1234567.0, (1200000.0, 1270000.0), "1235000 [1200000, 1270000]"),
        (0.0, (0.0, 0.012), "0.000 [0.000, 0.012]"),
        (-0.5, (-1.5, 0.5), "-0.5 [-1.5, 0.5]"),
        (1.0, (1.0, 1.0), "1.000 [1.000, 1.000]"),
    ],
)
def test_text(value: float, interval: tuple[float, float] | None, text: str) -> None:
    assert Result("x", value, interval, None, "", "").text == text


def test_write_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    results = Results(chapter="01_tiny", seed=3)
    results.add("limit", math.inf, interval=(2.0, math.inf), meaning="a limit", unit="GeV")
    results.add("exact", 0.1, meaning="a number")
    results.write()
    back = read_results(tmp_path / "results.json")
    assert back == {"limit": results["limit"], "exact": results["exact"]}


def test_verbs_compute_the_interval() -> None:
    results = Results(chapter="01_tiny", seed=3)
    results.add("error", 0.9, error=0.2, within=(0.0, 1.0), meaning="a number")
    results.add_spread("spread", [3.0, 1.0, 2.0], meaning="three numbers")
    results.add_fraction("fraction", 9, 12, meaning="a share")
    estimate = averaging_amplification(
        [[400], [410], [390]], n_generated=1000, n_train=10, confidence=0.9
    )
    results.add_estimate("estimate", estimate, meaning="G")
    assert results["error"].interval == (0.9 - 0.2, 1.0)
    assert results["spread"].value == 2.0
    assert results["spread"].interval == pytest.approx((2 - 0.6827, 2 + 0.6827))
    assert results["fraction"].value == 0.75
    assert results["fraction"].interval == binomial_interval(9, 12)
    assert results["estimate"].value == estimate.amplification
    assert results["estimate"].interval == estimate.interval
    assert results["estimate"].confidence == 0.9


def test_a_table_links_its_results_where_a_page_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Result("half", 0.5, (0.4, 0.6), 0.6827, "", "a half")
    monkeypatch.delenv(RUN_FOLDER_VARIABLE, raising=False)
    assert show_table(["", "G"], [["a", half]]).data.endswith(
        "|---|---|\n| a | 0.50 [0.40, 0.60] |"
    )
    shown = show_table(["", "G"], [["a", half]], name="tab-g", caption="All.").data
    assert shown.startswith("**tab-g.** All.\n\n|  | G |\n|---|---|\n")
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, "anywhere")
    shown = show_table(["", "G"], [["a", half]], name="tab-g", caption="All.").data
    assert shown.startswith(":::{table} All.\n:name: tab-g\n\n|  | G |")
    assert "| a | {result}`half` |\n:::" in shown


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("not a name", 1.0, None),
        ("taken", 1.0, None),
        ("x", math.nan, None),
        ("x", 1.0, (2.0, 1.0)),
        ("x", 1.0, (math.nan, 1.0)),
    ],
)
def test_wrong_numbers_are_refused(
    name: str, value: float, interval: tuple[float, float] | None
) -> None:
    results = Results(chapter="c", seed=1)
    results.add("taken", 1.0, meaning="")
    with pytest.raises(ValueError, match=r"`name` must be a new|must be a number with an ordered"):
        results.add(name, value, interval=interval, meaning="")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"results": [1]}')
    with pytest.raises(GenampError, match=r"must be a chapter's results\.json"):
        read_results(tmp_path / "results.json")
