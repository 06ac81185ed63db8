"""How often does `genamp diagnose` ring where nothing is wrong? All seeds are fixed.

    python benchmarks/diagnose_nulls.py looks 5000        # cheap looks: a quarter of an hour
    python benchmarks/diagnose_nulls.py classifier 200    # networks and trees: half an hour
    python benchmarks/diagnose_nulls.py auc 200           # coverage of the interval of the AUC

Both samples of a pair are drawn from one density. Dimensions 1 to 50, 500 to 20,000 events of
unequal numbers; Gaussian, correlated, discrete, rounded, heavy-tailed features, features with a
code for missing values, constant ones, and mixtures of all. An alarm at 1 % is a p-value below 1 %
after allowing for all that was looked at; "found" is three standard deviations, 0.13 %.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from scipy.special import ndtr
from scipy.stats import kstest

from genamp_lib.diagnostics import (
    auc_from_weights,
    auc_interval,
    cheap_looks,
    diagnose,
    likelihood_ratio_weights,
    normal_scores,
)
from genamp_lib.diagnostics.looks import Looks
from genamp_lib.networks.tabular import boosted_logits, fold_numbers_of_groups, network_logits

LOOKS_SEED, CLASSIFIER_SEED, AUC_SEED = 20_000, 30_000, 40_000
KINDS = ("Gaussian", "correlated", "discrete", "rounded", "heavy-tailed", "with a code", "mixture")
DIMENSIONS, N_EVENTS = (1, 2, 3, 5, 10, 20, 50), (500, 1000, 2000, 5000, 10_000, 20_000)


def column(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    if kind == "discrete":
        return rng.poisson(rng.choice([0.3, 3.0]) * np.ones(n)).astype(float)
    if kind == "rounded":
        return np.round(rng.normal(size=n), 2)
    if kind == "heavy-tailed":
        return rng.standard_cauchy(n)
    if kind == "with a code":
        return np.where(rng.random(n) < 0.05, -999.0, rng.exponential(size=n))
    if kind == "constant":
        return np.full(n, 3.0)
    return rng.normal(size=n)


def pair(rng: np.random.Generator, most: float) -> tuple[str, np.ndarray, np.ndarray]:
    """Draw two samples of one density, of at most `most` events times dimensions squared."""
    kind = str(rng.choice(KINDS))
    while True:
        d, n = int(rng.choice(DIMENSIONS)), int(rng.choice(N_EVENTS))
        if n * d**2 <= most:
            break
    n_truth = int(n * rng.choice([0.5, 1.0, 1.0, 1.0]))
    kinds = [kind] * d
    if kind == "mixture":
        kinds = [str(one) for one in rng.choice([*KINDS[2:6], "Gaussian", "constant"], d)]
    both = np.stack([column(one, rng, n_truth + n) for one in kinds], axis=1)
    if kind == "correlated":
        both = both + 1.5 * rng.normal(size=(len(both), 1))
    varies = both.max(axis=0) > both.min(axis=0)
    if not varies.any():
        return pair(rng, most)
    if d > 1 and kind == "mixture":
        varies[0] = True  # the library takes a constant feature, the command line leaves it out
    both = both[:, varies]
    return f"{kind}, {d}, {n_truth}, {n}", both[:n_truth], both[n_truth:]


def names_of(sample: np.ndarray) -> list[str]:
    return [f"x{i}" for i in range(sample.shape[1])]


def p_of(looks: Looks) -> float:
    best = max(found[0].significance for found in looks.findings.values() if found)
    return float(min(looks.n_looks * ndtr(-best), 1.0)) if best else 1.0


def looks(n_pairs: int, first: int) -> None:
    p_values, which = [], Counter()
    for number in range(first, first + n_pairs):
        rng = np.random.default_rng([LOOKS_SEED, number])
        case, truth, generated = pair(rng, 2e6)
        result = cheap_looks(truth, generated, names_of(truth))
        p_values.append(p_of(result))
        if p_values[-1] < 0.01:
            best = max((f[0] for f in result.findings.values() if f), key=lambda f: f.significance)
            which[best.mode] += 1
            print(f"alarm at p = {p_values[-1]:.2g} in pair {number} ({case}): {best.text}")
    p = np.array(p_values)
    for level in (0.05, 0.01, 0.00135):
        print(f"p < {level}: {(p < level).sum()} of {len(p)}")
    print(dict(which))


def fits(truth: np.ndarray, generated: np.ndarray, seed: int) -> list[list[np.ndarray]]:
    folds = fold_numbers_of_groups([len(truth), len(generated)], None, seed=seed)
    scores = normal_scores(truth, generated)
    both = (
        network_logits(*scores, folds, seed=seed),
        boosted_logits(*scores, folds, seed=seed),
    )
    return [[likelihood_ratio_weights(one) for one in logits] for logits in both]


def classifier(n_pairs: int, first: int) -> None:
    rows = []
    for number in range(first, first + n_pairs):
        rng = np.random.default_rng([CLASSIFIER_SEED, number])
        case, truth, generated = pair(rng, 5e7)
        weights, trees = fits(truth, generated, number)
        names = names_of(truth)
        tables = [dict(zip(names, x.T, strict=True)) for x in (truth, generated)]
        result = diagnose(*weights, *tables, second=trees)
        n_looks = 10 + cheap_looks(truth, generated, names).n_looks
        own = {name: ndtr(-z) / n_looks for name, z in result.significance.items()}
        networks = min(9 * min(own[name] for name in ("small", "large", "auc")), 1.0)
        low, high = result.auc_interval
        rows.append(
            (
                networks,
                own["second classifier"],
                float(ndtr(-max(result.significance.values()))),
                result.calibration.p_value,
                low <= 0.5 <= high,
                result.verdict != "no difference found",
                bool(result.overfitting and result.overfitting.is_overfitted),
            )
        )
        print(number, case, " ".join(f"{value:.3g}" for value in rows[-1]), flush=True)
    p_net, p_trees, p_all, p_cal, covered, differs, noise = np.array(rows, dtype=float).T
    n = len(rows)
    print(f"networks, p < 1 %: {(p_net < 0.01).sum()} of {n}")
    print(f"trees, p < 1 %: {(p_trees < 0.01).sum()} of {n}")
    print(f"all looks, p < 1 %: {(p_all < 0.01).sum()} of {n}; verdicts: {differs.sum():.0f}")
    print(f"AUC interval holds 1/2: {covered.mean():.3f} at a stated 0.683")
    print(
        f"calibration p-values: below 5 % {(p_cal < 0.05).mean():.3f}, "
        f"distance from uniform {kstest(p_cal, 'uniform').statistic:.3f}"
    )
    print(f"called overfitted: {noise.sum():.0f} of {n}")


def auc(n_pairs: int, first: int) -> None:
    """The interval's target is the AUC expected of such samples: the mean of all."""
    for shift in (0.0, 0.2, 0.5, 1.5):
        values, intervals = [], []
        for number in range(first, first + n_pairs):
            rng = np.random.default_rng([AUC_SEED, number, round(100 * shift)])
            truth, generated = rng.normal(size=(2, 1000, 3))
            generated[:, 0] += shift
            weights = fits(truth, generated, number)[0]
            values.append(auc_from_weights(*weights))
            intervals.append(auc_interval(*weights, cross_fitted=True))
        target = np.mean(values) if shift else 0.5
        low, high = np.array(intervals).T
        share = ((low <= target) & (target <= high)).mean()
        ratio = np.std(values) / np.mean((high - low) / 2)
        print(
            f"shift {shift}: AUC {np.mean(values):.3f}, interval covers {share:.3f} at a stated "
            f"0.683; spread over stated error {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("looks", "classifier", "auc"))
    parser.add_argument("n_pairs", type=int)
    parser.add_argument("--first", type=int, default=0, help="Number of the first pair.")
    arguments = parser.parse_args()
    {"looks": looks, "classifier": classifier, "auc": auc}[arguments.what](
        arguments.n_pairs, arguments.first
    )
