"""Amplification factors in rows: what is drawn where, open ends included."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from genamp_lib.plotting import plot_amplifications


@pytest.fixture
def ax():
    names = ["closed", "open", "far"]
    ax = plot_amplifications(
        names,
        [2.0, np.inf, 0.01],
        [[1.0, 5.0], [0.8, np.inf], [0.005, 0.02]],
        verdicts=["amplifies", "undecided", "does not amplify"],
        label="series",
        offset=0.25,
    )
    yield ax
    plt.close(ax.figure)


def test_lines_span_the_intervals_inside_the_limits(ax):
    (lines,) = ax.collections
    spans = [segment[:, 0].tolist() for segment in lines.get_segments()]
    assert spans == [[1.0, 5.0], [0.8, 100.0], [0.1, 0.1]]


def test_arrows_mark_what_goes_on_and_infinity_has_no_marker(ax):
    marks = {line.get_marker(): line.get_xydata().tolist() for line in ax.lines[1:]}
    assert marks["<"] == [[0.1, 2.25]]
    assert marks[">"] == [[100.0, 1.25]]
    assert marks["o"] == [[2.0, 0.25]]


def test_rows_run_from_the_top_and_carry_their_verdicts(ax):
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["closed", "open", "far"]
    assert [t.get_text() for t in ax.texts] == ["amplifies", "undecided", "does not amplify"]
    assert ax.get_legend_handles_labels()[1] == ["series"]
