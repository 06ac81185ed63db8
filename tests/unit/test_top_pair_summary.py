"""Means and errors over members of an ensemble of top-pair generators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests_support import separated_jets

from genamp_lib.datasets.peaks import Peak
from genamp_lib.studies.ch11_members import (
    MemberQuality,
    peaks_of,
    summarise_members,
    summarise_truth,
)
from genamp_lib.studies.ch11_quality import Quality

QUALITY = Quality(
    ks={"m_t": 0.03},
    ks_of_train={"m_t": 0.01},
    auc=0.55,
    auc_interval=(0.546, 0.554),
    outside=0.1,
    close=0.5,
)
MEMBER = MemberQuality(
    quality=QUALITY,
    peaks={"m_w": Peak(80.0, 0.3, 20.0, 2.0), "m_t": Peak(172.0, 0.6, 45.0, 4.0)},
    densities={},
)
NUMBERS = {"n_generated": 400, "n_before_cuts": 2500, "n_holdout": 400}


def test_one_member_has_statistical_errors() -> None:
    summary = summarise_members([MEMBER], **NUMBERS)
    assert summary["AUC of a classifier"] == pytest.approx((0.55, 0.004))
    assert summary["KS m_t"] == pytest.approx((0.03, 0.5 * (2 / 400) ** 0.5))
    assert summary["closer than 0.5, before the cuts"] == pytest.approx((0.5, 0.01))
    assert summary["outside of the cuts"] == pytest.approx((0.1, 0.006))
    assert summary["top peak, width / GeV"] == pytest.approx((45.0, 4.0))
    assert summary["W peak, position / GeV"] == pytest.approx((80.0, 0.3))


def test_more_members_have_their_spread() -> None:
    other = replace(MEMBER, quality=replace(QUALITY, auc=0.556))
    mean, error = summarise_members([MEMBER, other], **NUMBERS)["AUC of a classifier"]
    assert mean == pytest.approx(0.553)
    # Both have the same statistical error.
    assert error == pytest.approx(np.hypot(0.004, 0.006 / 2**0.5))


def test_a_perfect_generator() -> None:
    holdout = separated_jets(3000, 1)
    truth = summarise_truth(MEMBER, holdout)
    assert list(truth) == list(summarise_members([MEMBER], **NUMBERS))
    assert truth["AUC of a classifier"] == (0.5, 0.0)
    assert truth["KS m_t"] == (0.01, 0.0)
    assert truth["outside of the cuts"] == (0.0, 0.0)
    peak = peaks_of(holdout)["m_w"]
    assert truth["W peak, width / GeV"] == (peak.width, peak.width_error)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_wrong_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got 0"):
        summarise_members([MEMBER], **{**NUMBERS, name: 0})
    with pytest.raises(ValueError, match="`members` must not be empty"):
        summarise_members([], **NUMBERS)
