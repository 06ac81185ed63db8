"""Intervals of averaging and of the AUC hold the truth where events carry weights."""

import numpy as np

from genamp_lib.store import ArtefactStore
from genamp_lib.studies.ch10_weighted import coverage


def test_intervals_of_weighted_events_hold_the_truth(tmp_path):
    """Three coverages of 100 experiments for each kind of weights: 4.6 sigma, five times in 2e6.

    Errors that took exponential weights for none would be too small by sqrt(2), and hold 0.52.
    """
    found = coverage(
        ArtefactStore(published=tmp_path, local=tmp_path),
        amplifications=[1.0],
        n_train=1000,
        n_members=10,
        areas=[0.6],
        n_events=1000,
        confidence=0.6827,
        n_experiments=100,
        seed=4,
    )
    for kind, held in found.items():
        assert held.shape == (3,)
        assert abs(held.mean() - 0.6827) <= 4.6 * np.sqrt(0.6827 * 0.3173 / 300), kind
