"""Figures: labelled axes, the numbers that went in, the same file twice; the explorer's page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import partial

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

from genamp_lib import averaging_amplification, averaging_amplification_from_probabilities
from genamp_lib.amplification.pseudo_experiments import verdict_probabilities
from genamp_lib.datasets import (
    interval_probability,
    mean_squared_deviation,
    model_variance,
    true_amplification,
)
from genamp_lib.plotting import (
    COLOURS,
    explorer,
    mark_n_equiv,
    plot_amplification_map,
    plot_averaging_scan,
    plot_coverage,
    plot_estimate,
    plot_estimated_over_true,
    plot_measured,
    plot_uncertainties,
    plot_verdicts,
    use_style,
    verdict_explorer,
    verdicts,
    weight_explorer,
)

N = np.geomspace(1e2, 1e6, 9)


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    with matplotlib.rc_context():
        use_style()
        yield
    plt.close("all")


def assert_labelled(ax: Axes) -> None:
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_uncertainties_are_drawn_as_given() -> None:
    ax = plot_uncertainties(N, stat=1 / np.sqrt(N), model=0.02, total=np.hypot(0.02, N**-0.5))
    assert_labelled(ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    stat, model, _ = ax.lines
    np.testing.assert_allclose(stat.get_ydata(), 1 / np.sqrt(N))
    np.testing.assert_allclose(model.get_ydata(), 0.02)
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    assert stat.get_color() == COLOURS["stat"]
    assert plot_uncertainties(N, model=0.01, label="again", ax=ax) is ax
    assert ax.lines[-1].get_label().endswith("again")


def test_measured_points_carry_their_intervals() -> None:
    sigma = 1 / np.sqrt(N)
    ax = plot_measured(N, sigma, (0.9 * sigma, 1.2 * sigma), role="stat", label="seen")
    assert_labelled(ax)
    segments = np.array(ax.containers[0].lines[2][0].get_segments())
    np.testing.assert_allclose(segments[:, :, 1], np.stack([0.9 * sigma, 1.2 * sigma], axis=1))


def test_marks_stand_at_their_numbers() -> None:
    ax = mark_n_equiv(plot_uncertainties(N, model=0.01), 7e4, 0.01, n_train=1e3)
    assert [line.get_xdata()[0] for line in ax.lines[1:]] == [7e4, 7e4, 1e3]
    assert len(ax.texts) == 2


def test_estimate_is_drawn_with_its_interval() -> None:
    estimate = averaging_amplification_from_probabilities([0.19, 0.2, 0.185, 0.21], n_train=200)
    ax = plot_estimate(estimate, N)
    assert_labelled(ax)
    assert ax.get_legend() is not None
    (band,) = ax.patches
    edges = np.array([band.get_y(), band.get_y() + band.get_height()])
    # sigma_model = sigma_stat(n_equiv), at both ends of the interval of G.
    wanted = estimate.sigma_stat(np.array(estimate.interval)[::-1] * estimate.n_train)
    np.testing.assert_allclose(edges, wanted)
    assert edges[0] < estimate.sigma_model < edges[1]


def test_estimate_without_upper_limit_is_drawn_too() -> None:
    estimate = averaging_amplification([100, 112, 93, 104], n_generated=1000, n_train=1000)
    ax = plot_estimate(estimate, N)
    assert len(ax.lines) == 2  # neither sigma_model nor its crossing
    ax.figure.canvas.draw()


def test_map_shows_infinity_as_the_end_of_its_scale() -> None:
    edges = np.array([-1.0, 0.0, 1.0])
    values = np.array([[np.nan, 5.0, np.inf], [np.nan, np.nan, 20.0], [np.nan] * 3])
    ax = plot_amplification_map(edges, edges, values, limits=(1, 100), contours=[10])
    assert_labelled(ax)
    shown = ax.collections[0].get_array().reshape(3, 3)
    assert shown[1, 0] == 5
    assert shown[2, 0] == 100
    assert shown.mask.sum() == 6
    colourbar = ax.figure.axes[1]
    assert colourbar.get_ylabel()
    assert colourbar.get_yscale() == "log"


def test_coverage_is_drawn_beside_its_claim() -> None:
    ax = plot_coverage([10, 50], [0.67, 0.69], [0.01, 0.01], nominal=0.6827)
    assert_labelled(ax)
    assert ax.lines[0].get_ydata()[0] == 0.6827
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "50"]


def test_the_same_figure_is_the_same_file() -> None:
    files = []
    for _ in range(2):
        ax = plot_uncertainties(N, stat=1 / np.sqrt(N))
        buffer = io.BytesIO()
        ax.figure.savefig(buffer, format="svg", metadata={"Date": None})
        files.append(buffer.getvalue())
    assert files[0] == files[1]
    assert plt.rcParams["axes.facecolor"] == "none"


def luminance(colour: np.ndarray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("role", COLOURS)
def test_colours_stand_out_in_light_and_dark(role: str) -> None:
    """WCAG asks 3:1 for graphics; dark mode is the CSS filter invert(0.92) hue-rotate(180deg)."""
    colour = np.array(to_rgb(COLOURS[role]))
    assert contrast(colour, np.ones(3)) >= 3
    rotate = np.array(  # of the filter effects specification, at 180 degrees
        [[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]]
    )
    inverted = np.clip(rotate @ (colour * (1 - 2 * 0.92) + 0.92), 0, 1)
    assert contrast(inverted, np.array(to_rgb("#14181e"))) >= 3


def explorer_arguments() -> dict:
    lower, upper = np.array([-1.0, 0.0, 0.5]), np.array([0.5, 1.0])
    n_train, n_generated = np.array([100, 1000]), np.array([1e2, 1e4, 1e6])
    a, b = np.meshgrid(lower, upper, indexing="ij")
    valid = a < b
    a, b = np.where(valid, a, 0.0), np.where(valid, b, 1.0)
    probability = interval_probability(a, b)
    a, b = a[..., np.newaxis], b[..., np.newaxis]
    model = model_variance(a, b, n_train=n_train)
    total = mean_squared_deviation(
        a[..., np.newaxis],
        b[..., np.newaxis],
        n_generated=n_generated,
        n_train=n_train[:, np.newaxis],
    )
    amplification = true_amplification(a, b, n_train=n_train)
    stat = np.sqrt((probability * (1 - probability))[..., np.newaxis] / n_generated)
    for array in (probability, amplification, stat):
        array[~valid] = np.nan
    return {
        "lower": lower,
        "upper": upper,
        "n_train": n_train,
        "n_generated": n_generated,
        "probability": probability,
        "amplification": amplification,
        "sigma_stat": stat,
        "sigma_model": np.sqrt(model),
        "sigma_total": np.sqrt(total),
    }


def explorer_page(start: dict | None = None, **changed: np.ndarray) -> str:
    start = start or {"lower": 0.0, "upper": 0.5, "n_train": 1000}
    return explorer({**explorer_arguments(), **changed}, start=start).data


def table_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])


def test_explorer_holds_the_library_s_numbers() -> None:
    arguments = explorer_arguments()
    page = explorer_page()
    assert "integral <i>I</i> = <b>0.1915</b>" in page
    assert "<i>G</i> = <b>69.9</b>" in page
    assert "<sub>equiv</sub> = <b>69,900</b>" in page
    table = table_of(page)
    entry = table["intervals"][0][1]
    for k in range(2):
        fit = entry["fits"][k]
        np.testing.assert_allclose(fit["total"], arguments["sigma_total"][0, 1, k], rtol=5e-3)
        np.testing.assert_allclose(fit["model"], arguments["sigma_model"][0, 1, k], rtol=5e-3)
        n_equiv = arguments["amplification"][0, 1, k] * arguments["n_train"][k]
        np.testing.assert_allclose(fit["n_equiv"], n_equiv, rtol=5e-3)
    np.testing.assert_allclose(entry["stat"], arguments["sigma_stat"][0, 1, [0, -1]], rtol=5e-3)


def test_explorer_keeps_the_edges_in_order() -> None:
    table = table_of(explorer_page())
    assert table["first_upper"] == [0, 0, 1]
    assert table["last_lower"] == [1, 2]
    assert table["intervals"][2][0] is None
    # A start in the wrong order is mended.
    start = {"lower": 0.5, "upper": 0.5, "n_train": 100}
    page = explorer_page(start)
    assert re.search(r'value="1" data-parameter="upper"', page)


def test_explorer_is_accessible_deterministic_and_asks_nobody() -> None:
    page = explorer_page()
    assert page == explorer_page()
    assert "http" not in page
    assert "//" not in re.sub(r"^\s*//.*$", "", page, flags=re.MULTILINE)
    assert page.count('type="range"') == 3
    for parameter in ("lower", "upper", "n_train"):
        assert re.search(rf'<label>.*<input [^>]*data-parameter="{parameter}"', page)
    assert 'aria-live="polite"' in page
    assert re.search(r'class="genamp-explorer-plot" role="img" aria-label="[^"]{40,}"', page)
    other = explorer_page(n_train=np.array([100, 2000]))
    ids = [re.search(r'id="(genamp-\w+)"', p)[1] for p in (page, other)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"upper": [-2.0, 1.0]}, "must be such that each edge has a partner"),
        ({"sigma_model": np.ones((3, 2))}, r"`sigma_model` must have shape \(3, 2, 2\), got"),
        ({"probability": np.full((3, 2), np.nan)}, "`probability` must be finite where"),
    ],
)
def test_explorer_refuses_tables_with_holes(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explorer_page(**changed)


def cut_page(**changed: object) -> str:
    """Return the page of a tail of three truth events, and of a second, equal case."""
    weights = [0.0, 0.9, 1.1, 3.0, np.inf], [0.4, 0.9, 1.0, 1.0]
    values = [0.1, 0.1, 0.6, 0.9, 7.0], [-2.0, 0.1, 0.6, 0.6]
    case = {"weights": weights, "values": values, "edges": [0.0, 0.5, 1.0], **changed}
    weight_edges = case.pop("weight_edges", [0.5, 1.0, 2.0, 4.0])
    start = case.pop("start", (2.0, np.inf))
    return weight_explorer(
        case.pop("cases", {"mass < 1": tuple(case.values()), "other": tuple(case.values())}),
        weight_edges=weight_edges,
        start=start,
    ).data


def test_cut_explorer_counts_every_event() -> None:
    page = cut_page()
    table = table_of(page)
    truth, generated = np.array(table["cases"][0]["counts"][0]), table["cases"][0]["counts"][1]
    # Bins of weight times bins of mass; what lies beyond the edges is in the outermost bins.
    assert truth.tolist() == [[2, 0], [0, 1], [0, 2]]
    assert generated == [[2, 0], [0, 2], [0, 0]]
    assert table["labels"] == {"lower": ["0", "1", "2"], "upper": ["1", "2", "∞"]}
    assert table["weights"]["edges"] == [0.0, 0.3333, 0.6667, 1.0]
    assert [text for _, text in table["weights"]["ticks"]] == ["1", "2", "3", "4"]
    assert 'value="2" data-parameter="lower"' in page
    assert 'value="2" data-parameter="upper"' in page
    assert 'value="2" data-parameter="lower"' in cut_page(start=(9.0, 9.0))


def test_cut_explorer_is_accessible_and_asks_nobody() -> None:
    page = cut_page()
    assert page == cut_page()
    assert "http" not in page
    assert re.search(r"<label>.*<select [^>]*data-parameter=.case", page)
    assert "mass &lt; 1</option>" in page
    assert page.count('role="img"') == 2
    case = [[1.0], [1.0]], [[0.2], [0.3]], [0.0, 1.0]
    assert "<select" not in cut_page(cases={"mass": case})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cases": {}}, "`cases` must name at least one observable, got none"),
        ({"weights": ([-1.0], [1.0])}, "`truth` must not be negative, got -1; logits become"),
        ({"values": ([0.1, np.nan, 0, 0, 0], [0.1] * 4)}, "`values` of mass < 1 must be finite"),
        ({"values": ([0.1], [0.1] * 4)}, r"one for each of 5 weights, got shape \(1,\)"),
        ({"edges": [0.0, 0.0]}, "`edges of mass < 1` must be at least two increasing numbers"),
        ({"weight_edges": [1.0]}, "`weight_edges` must be at least two increasing numbers"),
        ({"weight_edges": [0.0, 1.0]}, "`weight_edges` must be positive, got 0"),
    ],
)
def test_cut_explorer_refuses_what_it_cannot_count(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut_page(**changed)


START = {"n_train": 1000, "n_holdout": 20_000, "amplification": 3}


@pytest.fixture
def verdict_page(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an explorer with few studies of few cases."""
    monkeypatch.setattr(
        verdicts,
        "verdict_probabilities",
        partial(verdicts.verdict_probabilities, n_experiments=200),
    )
    axes = {"n_train": [1000], "n_holdout": [1000, 20_000], "amplification": [0.1, 3, np.inf]}
    monkeypatch.setattr(verdicts, "AXES", axes)
    return verdict_explorer(start=START, n_generated_ratio=1).data


def test_verdict_explorer_holds_the_library_s_numbers(verdict_page: str) -> None:
    table = table_of(verdict_page)
    shares = verdict_probabilities(
        [1, 20], [0.1, 3, np.inf], n_generated_ratio=1, n_experiments=200
    )
    assert table["percent"] == [(100 * shares).round().astype(int).tolist()]
    assert table["ratios"] == [["1", "20"]]
    assert table["labels"]["amplification"] == ["0.1", "3", "∞"]
    assert table["axes"]["n_holdout"]["ticks"] == [[0.0, "10³"], [0.7686, "10⁴"]]
    yes, no = table["percent"][0][1][1]
    shown = re.findall(r"<b>([^<]*)</b>", verdict_page.split("genamp-explorer-values")[2])
    said = [f"{share}\N{NO-BREAK SPACE}%" for share in (yes, 100 - yes - no, no)]
    assert shown[:4] == ["20", *said]


def test_verdict_explorer_is_accessible_and_asks_nobody(verdict_page: str) -> None:
    assert "http" not in verdict_page
    assert verdict_page.count('role="img"') == 2
    for parameter in START:
        assert re.search(rf'<label>.*<input type="range"[^>]*"{parameter}"', verdict_page)
    still = re.search(r'<noscript><img alt="([^"]*)" src="data:image/png;base64,', verdict_page)
    assert "for 1,000 training events, true G = 3" in still[1]
    with pytest.raises(ValueError, match=r"`start` of n_train must be one of \[1000\], got 7"):
        verdict_explorer(start={**START, "n_train": 7})


def test_verdicts_are_drawn_as_shares_of_all() -> None:
    ax = plot_verdicts([10, 100], [[0.0, 0.5], [0.75, 0.25]], plt.subplots()[1])
    assert_labelled(ax)
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in ax.collections]
    assert tops == [0.75, 0.75, 1.0]


def test_estimates_without_an_interval_are_drawn_without_a_band() -> None:
    rare = averaging_amplification([19, 22, 25, 18], n_generated=1000, n_train=100)
    assert rare.interval == (0.0, np.inf)
    assert not plot_estimate(rare, N).patches
    assert plot_averaging_scan([rare, rare]).figure


def test_estimates_over_the_truth_are_drawn_as_given() -> None:
    true = [[2.0, 1.0, 4.0], [np.inf, 3.0, np.inf], [0.5, 0.0, 0.6]]
    estimated = [[20.0, 10.0, 40.0], [3.0, 2.0, 5.0], [0.4, 0.3, 0.5]]
    ax = plot_estimated_over_true(
        true, estimated, estimators=["fits", "draws", "fits"], cases=["rings", "jets", "rings"]
    )
    assert_labelled(ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    diagonal, *lines = ax.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    edge = ax.get_xlim()[1]
    assert edge > 20.0
    points = [line for line in lines if line.get_marker() != "None"]
    places = [(line.get_xdata().item(), line.get_ydata().item()) for line in points]
    assert places == [(2.0, 20.0), (edge, 3.0), (0.5, 0.4)]  # infinite: at the edge
    colours = [line.get_color() for line in points]
    assert colours[0] == colours[2] != colours[1]
    assert points[0].get_marker() == points[2].get_marker() != points[1].get_marker()
    intervals = [line for line in lines if line.get_marker() == "None"]
    np.testing.assert_array_equal(intervals[0].get_xdata(), [1.0, 4.0])
    np.testing.assert_array_equal(intervals[1].get_ydata(), [10.0, 40.0])
    names = {text.get_text() for box in ax.findobj(Legend) for text in box.get_texts()}
    assert names == {"fits", "draws", "rings", "jets"}
