"""`diagnose` names planted flaws and is silent without one. Weights from the exact density ratio,
with the noise that a classifier adds, so that nothing is trained here.

A null is called different when one of ten tests is above three standard deviations after allowing
for ten, in 0.13 % of nulls at most; the seed of the one here is fixed.
"""

import numpy as np
import pytest

from genamp_lib.diagnostics import diagnose

NAMES = [f"x{i}" for i in range(10)]


def events(rng, n):
    sample = rng.normal(size=(n, 10))
    sample[:, 4] = 91.0 + 2.5 * sample[:, 4]
    sample[:, 7] = rng.exponential(size=n)
    return sample


def table(sample):
    return dict(zip(NAMES, sample.T, strict=True))


def smeared(rng, sample):
    sample[:, 4] *= rng.normal(1, 0.05, len(sample))
    return sample


def peak_ratio(sample):
    z = sample[:, 4] - 91.0
    narrow, wide = 2.5, np.hypot(2.5, 91 * 0.05)
    return np.exp(-(z**2) / 2 * (narrow**-2 - wide**-2)) * wide / narrow


FLAWS = {
    "smeared feature": ("x4", smeared, peak_ratio),
    "missing tail": (
        "x7",
        lambda rng, s: s[s[:, 7] < 3],
        lambda s: np.where(s[:, 7] < 3, 0.95, 20.0),
    ),
    "missing feature": (
        "x3",
        lambda rng, s: s[(s[:, 3] < 0.5) | (s[:, 3] > 1)],
        lambda s: np.where((s[:, 3] < 0.5) | (s[:, 3] > 1), 0.85, 20.0),
    ),
    "wrong boundary": (
        "x7",
        lambda rng, s: np.where(np.arange(10) == 7, s - 0.05, s),
        lambda s: np.where(s[:, 7] < 0, 0.02, 1.05),
    ),
}


def weights(rng, ratio, sample):
    return ratio(sample) * np.exp(rng.normal(0, 0.05, len(sample)))


@pytest.mark.parametrize("mode", FLAWS)
def test_a_planted_flaw_is_named_first(mode):
    rng = np.random.default_rng(21)
    observable, flaw, ratio = FLAWS[mode]
    truth, generated = events(rng, 8000), flaw(rng, events(rng, 8000))
    result = diagnose(
        weights(rng, ratio, truth), weights(rng, ratio, generated), table(truth), table(generated)
    )
    assert result.verdict == "differs"
    assert result.findings[0].mode == mode
    assert {one.observable for one in result.findings} == {observable}
    assert result.observables[0] == observable
    assert mode in result.findings[0].text
    assert result.closure[observable].p_value_before < 1e-4


def test_the_same_truth_is_called_so():
    rng = np.random.default_rng(22)
    truth, generated = events(rng, 5000), events(rng, 5000)
    noise = np.exp(rng.normal(0, 0.1, (2, 5000)))
    result = diagnose(*noise, table(truth), table(generated))
    assert result.verdict == "no difference found"
    assert result.findings == ()


def test_no_overlap():
    rng = np.random.default_rng(23)
    truth, generated = events(rng, 500), events(rng, 500)
    generated[:, 2] += 100
    for low, high in ((0.0, np.inf), (1e-9, 1e9)):
        result = diagnose(np.full(500, high), np.full(500, low), table(truth), table(generated))
        assert result.verdict == "separated"
        assert result.observables[0] == "x2"
        assert any("hardly overlap" in note for note in result.notes)
        assert (low == 0.0) == (not result.closure)
        assert result.to_dict()["auc"] == 1.0


def test_weights_that_say_nothing():
    rng = np.random.default_rng(24)
    truth, generated = events(rng, 60), events(rng, 40)
    result = diagnose(np.ones(60), np.ones(40), table(truth), table(generated))
    assert result.verdict == "no difference found"


@pytest.mark.parametrize("which", ["all truth", "all generated", "some", "all zero"])
def test_weights_of_zero_and_infinity(which):
    rng = np.random.default_rng(26)
    truth, generated = events(rng, 60), events(rng, 40)
    weights = [np.exp(rng.normal(0, 0.1, n)) for n in (60, 40)]
    for k, name in enumerate(("all truth", "all generated")):
        if which == name:
            weights[k][:] = np.inf
        elif which == "some":
            weights[k][:2], weights[k][2:5] = 0.0, np.inf
        elif which == "all zero":
            weights[k][:] = 0.0
    result = diagnose(*weights, table(truth), table(generated))
    assert (result.verdict == "separated") == (which == "all truth")
    assert np.isfinite(result.calibration.edges).all()
    no_reweighting = any("no reweighting closure" in note for note in result.notes)
    assert no_reweighting == (which != "all truth") == (result.overfitting is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, g: (np.ones(9), np.ones(30), t, g), "at least 20 events each"),
        (lambda t, g: (np.ones(30), np.ones(30), t, {"x0": g["x0"]}), "the same observables"),
        (lambda t, g: (np.ones(31), np.ones(30), t, g), "one value of x0 per weight"),
        (lambda t, g: (np.ones(30), np.ones(30), {**t, "x1": t["x1"] / 0.0}, g), "must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input(change, message):
    rng = np.random.default_rng(25)
    with pytest.raises(ValueError, match=message):
        diagnose(*change(table(events(rng, 30)), table(events(rng, 30))))
