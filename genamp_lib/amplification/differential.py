"""Differential amplification: how far is one statistic's distribution off? Paper A, Eqs. 31-37."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genamp_lib.amplification import _bridge
from genamp_lib.amplification._event_weights import check_event_weights, effective_count
from genamp_lib.amplification._members import (
    check_confidence,
    check_positive,
    check_positive_integer,
)
from genamp_lib.amplification._pairs import (
    MeanSquare,
    mean_square,
    mean_square_to_cdf,
    tie_probability,
)
from genamp_lib.amplification._segments import check_values, finite_floats
from genamp_lib.amplification.differential_estimate import (
    CramerVonMisesEstimate,
    DifferentialEstimate,
)
from genamp_lib.amplification.kolmogorov import effective_size, finite_size_shift
from genamp_lib.amplification.repeats import RepeatCounter, RepeatedEvents
from genamp_lib.amplification.streaming import KolmogorovAccumulator

Cdf: TypeAlias = Callable[[NDArray[np.float64]], ArrayLike]

# The distributions are asymptotic ones with a correction for size; see the coverage tests.
FEWEST_EVENTS = 10
# Above this probability that two events have equal values, distances are visibly (3 % in the mean)
# smaller than Kolmogorov's law for continuous statistics says.
COARSE = 0.002


def differential_amplification(
    train: ArrayLike,
    generated: ArrayLike | KolmogorovAccumulator,
    *,
    holdout: ArrayLike | None = None,
    cdf: Cdf | None = None,
    n_before_cut: int | None = None,
    repeats: RepeatedEvents | None = None,
    weights: Mapping[str, ArrayLike] | None = None,
    confidence: float = 0.68,
) -> DifferentialEstimate:
    """Estimate the amplification from one summary statistic of every event.

    Eqs. (31)-(36) of paper A. M is the Kolmogorov-Smirnov distance of the generated sample to a
    reference, n_eff = n_reference n_generated / (n_reference + n_generated), and K = M sqrt(n_eff)
    plus what the steps of finite samples take from it. n_equiv true events have an expected K^2 of
    about <K>^2 (1 + n_eff/n_equiv), so 1/n_equiv = ((K/<K>)^2 - 1) / n_eff. The reference is

    - `holdout`, true events that the generator has not seen: what decides;
    - `cdf`, the distribution function of the truth: in a toy;
    - else `train`, as in the paper. The generator was fitted to it, so M comes out too small and G
      too large; such an estimate never says "amplifies".

    With `train`, arrays and a holdout, generated events that repeat training events are found
    (`repeated_events`): such a generator inherits the luck of its training sample, and is not
    called amplifying. Differences to the paper:

    - Eq. (37) is no confidence band (`paper_band`). The interval here rests on exact quantiles of
      K. It is a bound: it covers at least the stated fraction for any generator, 0.84 to 1 of 0.68
      for wrong generators in the cases tried, and exactly that for a perfect one.
    - The verdict uses `limits`, each of which errs in at most 2.3 % of cases, not the interval.
    - `cramer_von_mises` is the same for the mean square difference. Its G is another quantity,
      never less than 0.22 times the G here: smaller for a shift or a change of width, larger for a
      narrow peak out of place. Estimates of 1/G have no bias there; from M, for G near 1 and 1000
      reference events, G is 0.5 (events missing at one end) to 1.3 times (a narrow peak) the true
      one.

    The statistic must be one number per event, made in the same way for all samples; for classifier
    scores, by a classifier that was trained on neither sample (cross-fitting).

    Args:
        train: The statistic for the training sample, 1D; or only the number of training events,
            when the reference is another one.
        generated: The statistic for the generated sample, 1D; or a `KolmogorovAccumulator`
            whose reference is the sample that the estimate is to use.
        holdout: The statistic for true events that the generator has not seen, 1D.
        cdf: Distribution function of the statistic for the truth, continuous, vectorised.
        n_before_cut: Number of generated events before a cut on them, if there was one; the
            estimate then carries the surviving fraction. Cutting on the likelihood ratio raises G
            largely by construction.
        repeats: What `repeated_events` or a `RepeatCounter` found, for whole events or where
            `generated` is an accumulator; by default that of the statistic, unless that takes too
            few values to exclude repeats.
        weights: "train", "generated" or "holdout" -> weights of its events, of any sign; samples
            that are not named are unweighted. n = (sum w)^2 / sum w^2 takes the place of a number
            of events; where weights depend on the statistic, the interval is a wider bound.
        confidence: Confidence level of the interval.

    Returns:
        The estimate; `reference` says what it was measured against.

    Raises:
        ValueError: A sample has fewer than 10 events, only one value, or values that are not
            finite; the holdout shares events with the training sample; an argument is out of range
            or does not go with another one.
        TypeError: An argument holds no real numbers.

    >>> rng = np.random.default_rng(1)
    >>> train, holdout, generated = (rng.normal(size=n) for n in (1000, 20_000, 100_000))
    >>> differential_amplification(train, generated + 0.03, holdout=holdout)
    <DifferentialEstimate G = 3.06 [1.68, 9.45] at 68 %, amplifies; against 20000 holdout events,
    n_generated=100000, n_train=1000>
    """
    confidence = check_confidence(confidence)
    if holdout is not None and cdf is not None:
        raise ValueError("`holdout` must not be given together with `cdf`: there is one reference.")
    training = None if np.ndim(train) == 0 else _sample("train", train)
    if training is None and holdout is None and cdf is None:
        raise ValueError(
            "`train` must be the training sample when there is neither `holdout` nor `cdf`, "
            f"got {train!r}."
        )
    n_train = check_positive_integer("train", train) if training is None else len(training)
    values = None
    if not isinstance(generated, KolmogorovAccumulator):
        values = _sample("generated", generated)
    if holdout is not None:
        holdout = _sample("holdout", holdout)
    event_weights = _checked_weights(
        weights, {"train": training, "generated": values, "holdout": holdout}
    )
    known: dict[str, Any] = {"n_train": n_train, "confidence": confidence, "sums": {}}
    if "train" in event_weights:
        own = event_weights["train"]
        totals = float(own.sum()), float((own**2).sum())
        known["n_train"] = _at_least(effective_count("weights of train", *totals))
        known["sums"]["train"] = (n_train, *totals)
    if cdf is not None:
        if values is None or event_weights:
            wanted = "an array" if values is None else "unweighted"
            raise ValueError(f"`generated` must be {wanted} when the reference is a `cdf`.")
        distance, mean = _to_cdf(np.sort(finite_floats("generated", values)), cdf)
        known |= {"reference": "cdf", "n_reference": math.inf, "n_generated": len(values)}
    else:
        name = "train" if holdout is None else "holdout"
        reference = training if holdout is None else holdout
        # Training and holdout events are alike only if both have weights, or none.
        alike = ("train" in event_weights) == ("holdout" in event_weights)
        looks = holdout is not None and training is not None and alike
        counter = RepeatCounter(training, reference) if looks else None  # refuses shared events
        accumulator = _accumulated(
            name, reference, generated if values is None else values, event_weights
        )
        counts, squares = accumulator.cumulative_counts(), accumulator.cumulative_squares()
        totals = accumulator.totals()
        known |= {"reference": name, "n_reference": len(reference)}
        known |= {"n_generated": accumulator.n_generated}
        known["coarse"] = tie_probability(counts[0], squares[0]) > COARSE
        if event_weights or accumulator.is_weighted:
            *sizes, known["uneven"] = accumulator.effective_counts()
            known |= zip(("n_reference", "n_generated"), map(_at_least, sizes), strict=True)
        distance = accumulator.distance()
        mean = mean_square(*counts, totals[0], (*squares, totals[1]))
        if name in event_weights:
            known["sums"][name] = (len(reference), *accumulator.reference_totals())
        if accumulator.is_weighted:
            known["sums"]["generated"] = (accumulator.n_generated, *totals)
        if looks and values is not None and repeats is None:
            counter.update(values)
            repeats = counter.repeats()
            if known["coarse"] and not repeats.found:
                repeats = None  # few values hide them
    if n_before_cut is not None:
        n_before_cut = check_positive_integer("n_before_cut", n_before_cut)
        n_kept = generated.n_generated if values is None else len(values)
        if n_before_cut < n_kept:
            raise ValueError(
                f"`n_before_cut` must be at least the number of generated events, {n_kept}, got "
                f"{n_before_cut}."
            )
        known["survival_fraction"] = n_kept / n_before_cut
    train_distance = distance if known["reference"] == "train" else None
    if train_distance is None and training is not None and values is not None:
        train_distance = _accumulated("train", training, values, event_weights).distance()
    return _estimate(distance, mean, train_distance=train_distance, repeats=repeats, **known)


def differential_intervals(
    distances: ArrayLike,
    *,
    n_reference: float,
    n_generated: float = math.inf,
    n_train: int,
    confidence: float = 0.68,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (amplification, low, high) for many Kolmogorov-Smirnov distances at once.

    `n_reference` or `n_generated` is infinite where that distribution is known. The statistic is
    continuous.

    >>> numbers = differential_intervals(0.0279, n_reference=1000, n_train=1000)
    >>> [round(float(number), 1) for number in numbers]
    [22.8, 0.3, inf]
    """
    n_train = check_positive_integer("n_train", n_train)
    confidence = check_confidence(confidence)
    check_positive(n_reference=n_reference, n_generated=n_generated)
    if math.isinf(n_reference) and math.isinf(n_generated):
        raise ValueError("`n_reference` or `n_generated` must be finite, got infinity for both.")
    distances = np.asarray(distances, dtype=np.float64)
    if not ((distances >= 0) & (distances <= 1)).all():
        raise ValueError("`distances` must be between 0 and 1.")
    n_effective = effective_size(n_reference, n_generated)
    return _bridge.amplification_intervals(
        distances * math.sqrt(n_effective) + finite_size_shift(n_reference, n_generated),
        n_effective=n_effective,
        n_train=n_train,
        confidence=confidence,
    )


def _accumulated(
    name: str,
    reference: NDArray,
    generated: NDArray | KolmogorovAccumulator,
    weights: Mapping[str, NDArray],
) -> KolmogorovAccumulator:
    accumulator = KolmogorovAccumulator(reference, weights=weights.get(name))
    if not isinstance(generated, KolmogorovAccumulator):
        accumulator.update(generated, weights.get("generated"))
        return accumulator
    if not np.array_equal(generated._identity, accumulator._identity):
        raise ValueError(
            f"`generated` must be an accumulator made with the {name} sample as its reference, "
            "got one with another reference, or other weights of it."
        )
    if generated.n_generated < FEWEST_EVENTS:
        raise ValueError(
            f"`generated` must hold at least {FEWEST_EVENTS} events, got {generated.n_generated}."
        )
    return generated


def _to_cdf(values: NDArray[np.floating], cdf: Cdf) -> tuple[float, MeanSquare]:
    """Return both distances of sorted events to a known distribution function."""
    try:
        truth = np.asarray(cdf(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`cdf` must be a function of an array, got an error: {error}") from error
    if truth.shape != values.shape:
        raise ValueError(
            f"`cdf` must return an array of the shape it is given, got {truth.shape} for "
            f"{values.shape}."
        )
    # The negation catches NaN.
    if not (truth.min() >= 0 and truth.max() <= 1 and np.diff(truth).min() >= 0):
        raise ValueError("`cdf` must rise from 0 to 1, got values that fall, leave [0, 1] or NaN.")
    j, n = np.arange(len(values)), len(values)
    distance = float(max(((j + 1) / n - truth).max(), (truth - j / n).max()))
    return distance, mean_square_to_cdf(truth)


def _estimate(
    distance: float,
    mean: MeanSquare,
    *,
    coarse: bool = False,
    uneven: bool = False,
    **known: Any,
) -> DifferentialEstimate:
    n_train, confidence = known["n_train"], known["confidence"]
    sizes = known["n_reference"], known["n_generated"]
    n_effective = effective_size(*sizes)
    scaled = distance * math.sqrt(n_effective) + float(finite_size_shift(*sizes))

    def edges(intervals: Callable[..., Any], *found: float, **options: bool) -> list[Any]:
        """Return the amplification, its interval and its one-sided limits."""
        options |= {"n_effective": n_effective, "n_train": n_train}
        (amplification, *interval), (_, *limits) = (
            map(float, intervals(*found, confidence=level, **options))
            for level in (confidence, None)
        )
        return [amplification, tuple(interval), tuple(limits)]

    found = edges(_bridge.amplification_intervals, scaled, continuous=not (coarse or uneven))
    companion = None
    if not (coarse or uneven):
        unit = n_effective / (6 * mean.null)  # null is 1/6 up to ties
        companion = CramerVonMisesEstimate(
            n_train * mean.square / mean.null,
            *edges(_bridge.mean_square_intervals, unit * mean.square, unit**2 * mean.variance)[1:],
            confidence=confidence,
        )
    return DifferentialEstimate(
        *found,
        distance=distance,
        scaled_distance=scaled,
        coarse=coarse,
        uneven=uneven,
        cramer_von_mises=companion,
        **known,
    )


def _checked_weights(
    weights: Mapping[str, ArrayLike] | None, samples: Mapping[str, NDArray | None]
) -> dict[str, NDArray[np.float64]]:
    """Return weights by sample; each must be of a sample that is given as an array."""
    checked = {}
    for name, own in (weights or {}).items():
        if samples.get(name) is None:
            arrays = ", ".join(one for one, sample in samples.items() if sample is not None)
            raise ValueError(f"`weights` must be of samples given as arrays, {arrays}, got {name}.")
        checked[name] = check_event_weights(f"weights[{name!r}]", own, len(samples[name]))
    return checked


def _at_least(n_effective: float) -> int:
    """Return a whole effective number of events; refuse too few."""
    if n_effective < FEWEST_EVENTS:
        raise ValueError(
            f"`weights` must be worth at least {FEWEST_EVENTS} unweighted events, got "
            f"{n_effective:.3g}."
        )
    return round(n_effective)


def _sample(name: str, values: ArrayLike) -> NDArray[np.floating]:
    checked = check_values(name, values)
    if len(checked) < FEWEST_EVENTS:
        raise ValueError(f"`{name}` must hold at least {FEWEST_EVENTS} events, got {len(checked)}.")
    if name == "generated":
        return checked  # finite is checked block by block
    finite_floats(name, checked)
    if checked.min() == checked.max():
        raise ValueError(
            f"`{name}` must hold at least two different values, got {checked[0]:g} everywhere."
        )
    return checked
