"""How the averaging estimate scales with the numbers of generated and training events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genamp_lib import averaging_amplification, averaging_amplification_from_probabilities

N_GENERATED = 1000

# Members' counts in two regions; members that are all alike have no scale to test, and neither
# have regions with fewer than 20 expected training events: n_train starts at 200.
counts = st.lists(
    st.tuples(st.integers(100, 400), st.integers(100, 400)), min_size=3, max_size=12
).filter(lambda rows: all(len(set(column)) > 2 for column in zip(*rows, strict=True)))


@given(rows=counts, n_train=st.integers(200, 10**5), factor=st.integers(10**5, 10**7))
@settings(deadline=None, max_examples=50)
def test_counts_and_n_generated_that_grow_together_leave_g(rows, n_train, factor):
    """Fractions stay; what is left of counting noise goes with 1 / factor."""
    table = np.array(rows)
    exact = averaging_amplification_from_probabilities(table / N_GENERATED, n_train=n_train)
    once, twice = (
        averaging_amplification(table * k, n_generated=N_GENERATED * k, n_train=n_train)
        for k in (factor, 2 * factor)
    )
    noise = exact.event_variance / (N_GENERATED * factor) / exact.total_variance
    assert once.amplification == pytest.approx(exact.amplification, rel=2 * noise + 1e-9)
    assert twice.amplification == pytest.approx(once.amplification, rel=2 * noise + 1e-9)
    assert twice.verdict == once.verdict or min(abs(np.log(once.interval))) < 0.01
    assert once.interval == pytest.approx(exact.interval, rel=0.01)


@given(rows=counts, n_train=st.integers(200, 10**5), factor=st.integers(2, 1000))
@settings(deadline=None, max_examples=50)
def test_at_fixed_spread_n_equiv_is_fixed_and_at_fixed_g_goes_with_n_train(rows, n_train, factor):
    """A spread is worth some number of events whoever trained; a G that times the training."""
    few, many = (
        averaging_amplification(rows, n_generated=N_GENERATED, n_train=n)
        for n in (n_train, factor * n_train)
    )
    assert many.n_equiv == pytest.approx(few.n_equiv)
    assert many.amplification * factor == pytest.approx(few.amplification)
    # Members trained on `factor` times the events scatter less by its root: the same G.
    table = np.array(rows) / N_GENERATED
    mean = table.mean(axis=0)
    closer = mean + (table - mean) / np.sqrt(factor)
    wide, narrow = (
        averaging_amplification_from_probabilities(values, n_train=n)
        for values, n in ((table, n_train), (closer, factor * n_train))
    )
    assert narrow.amplification == pytest.approx(wide.amplification)
    assert narrow.n_equiv == pytest.approx(factor * wide.n_equiv)
    assert narrow.interval == pytest.approx(wide.interval)
