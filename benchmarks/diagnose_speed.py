"""Speed and power of the classifiers of `genamp diagnose` beside two peers.

    python benchmarks/diagnose_speed.py speed            # 2 x 20,000 x 6 and 2 x 100,000 x 20
    python benchmarks/diagnose_speed.py whole            # the command, from files to the report
    python benchmarks/diagnose_speed.py power            # 8 pairs of samples of each small flaw

What they measure is kept for the site. Peers: `cross_fitted_logits`, which fits one network after
the other with the paper's settings, and scikit-learn's gradient boosting, cross-validated; for
`power` also tests of two samples, which `pip install -c constraints.txt -r
benchmarks/requirements.txt` installs. The power of a classifier is the largest of ten significances
that `genamp_lib.diagnose` computes of the weights alone, after allowing for ten.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kept import keep, keep_power
from peers import METHODS, TESTS
from rich.console import Console
from rich.table import Table
from scipy.special import log_ndtr, ndtri

from genamp_lib.diagnostics import (
    auc_from_weights,
    auc_interval,
    likelihood_ratio_weights,
    weight_slices,
)
from genamp_lib.diagnostics.clustering import allowing_for
from genamp_lib.diagnostics.diagnosis import FRACTIONS

N_EVENTS, N_REPEATS, FIRST_SEED = 5000, 8, 100


def events(rng: np.random.Generator, n: int, correlation: float = 0.5) -> np.ndarray:
    """Six features: Gaussian, exponential, correlated with the first, uniform, two peaks, tails."""
    x = np.empty((n, 6))
    x[:, 0] = rng.normal(size=n)
    x[:, 1] = rng.exponential(size=n)
    x[:, 2] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    x[:, 3] = rng.uniform(size=n)
    x[:, 4] = rng.choice([-1.5, 1.5], n) + rng.normal(0, 0.6, n)
    x[:, 5] = np.exp(0.5 * x[:, 1] + rng.normal(0, 0.8, n))
    return x


def changed(column: int, change: Callable) -> Callable:
    def flaw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = events(rng, n)
        x[:, column] = change(x[:, column], rng)
        return x

    return flaw


def without(keep: Callable) -> Callable:
    def flaw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = events(rng, 2 * n)
        return x[keep(x, rng)][:n]

    return flaw


FLAWS = {
    "shift by 0.12": changed(0, lambda x, rng: x + 0.12),
    "15 % too wide": changed(0, lambda x, rng: 1.15 * x),
    "correlation 0.38 for 0.5": lambda rng, n: events(rng, n, 0.38),
    "tail of 3 % cut": without(lambda x, rng: x[:, 1] < -np.log(0.03)),
    "boundaries smeared by 0.08": changed(3, lambda x, rng: x + rng.normal(0, 0.08, len(x))),
    "hole of 9 % in two features": without(
        lambda x, rng: (abs(x[:, 0] - 0.3) > 0.4) | (abs(x[:, 4] - 1.5) > 0.5)
    ),
    "corner of two features, too few": without(
        lambda x, rng: ~((x[:, 0] > 1) & (x[:, 4] > 1.2) & (rng.random(len(x)) < 0.7))
    ),
    "nothing": events,
}


def strongest(logits: tuple[np.ndarray, np.ndarray]) -> float:
    truth, generated = (likelihood_ratio_weights(one) for one in logits)
    low, high = auc_interval(truth, generated, cross_fitted=True)
    excesses = [(auc_from_weights(truth, generated) - 0.5) / ((high - low) / 2)]
    for fraction in FRACTIONS:
        n = round(fraction * N_EVENTS)
        slices = weight_slices(truth, generated, n_small=n, n_large=n)
        excesses += [one.significance(cross_fitted=True) for one in slices]
    return allowing_for(float(log_ndtr(-max(excesses))), 10)


def significance(name: str, samples: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    if name in TESTS:
        return float(-ndtri(np.clip(TESTS[name](*samples, seed=seed), 1e-300, 1 - 1e-16)))
    return strongest(METHODS[name](*samples, seed=seed))


def power(names: list[str]) -> None:
    rows, seconds = {}, dict.fromkeys(names, 0.0)
    table = Table(title=f"mean significance, pairs found of {N_REPEATS} at three; CPU seconds")
    for column in ("flaw", *names):
        table.add_column(column)
    for number, (flaw, make) in enumerate(FLAWS.items()):
        cells, rows[flaw] = [], {}
        for name in names:
            start, found = time.process_time(), []
            for repeat in range(N_REPEATS):
                rng = np.random.default_rng([FIRST_SEED, number, repeat])
                samples = events(rng, N_EVENTS), make(rng, N_EVENTS)
                found.append(significance(name, samples, repeat))
            spent = (time.process_time() - start) / N_REPEATS
            seconds[name] += spent / len(FLAWS)
            rows[flaw][name] = sum(one > 3 for one in found)
            cells.append(f"{np.mean(found):.1f}, {rows[flaw][name]}; {spent:.1f} s")
        table.add_row(flaw, *cells)
        Console(width=110).print(flaw, *cells)
    Console(width=110).print(table)
    keep_power(rows, seconds, N_REPEATS)


def speed(names: list[str]) -> None:
    for n_events, n_features in ((20_000, 6), (100_000, 20)):
        rng = np.random.default_rng(1)
        samples = [rng.normal(size=(n_events, n_features)) for _ in range(2)]
        samples[1][:, 0] += 0.05
        taken, size = {}, f"2 x {n_events:,} x {n_features}"
        for name in names:
            start = time.process_time()
            METHODS[name](*samples, seed=1)
            taken[name] = time.process_time() - start
            print(f"{size}: {name} {taken[name]:.1f} CPU s", flush=True)
        for name in {"networks", "trees"} & taken.keys() if "boosted" in taken else ():
            peer = "scikit-learn's gradient boosting, cross-validated"
            keep(f"{name} of genamp diagnose, {size}", peer, taken["boosted"], taken[name], "CPU s")


def whole(_: list[str]) -> None:
    """Measure the command, and cross-validated boosting with its imports, as processes."""
    boost = "import numpy as np; from peers import boosted; "
    boost += "boosted(np.load('truth.npy'), np.load('generated.npy'), seed=1)"
    command = "from genamp_lib.cli import main; main(['diagnose', 'truth.npy', 'generated.npy'])"
    for n_events, n_features in ((20_000, 6), (100_000, 20)):
        rng = np.random.default_rng(1)
        with tempfile.TemporaryDirectory() as folder:
            for name, shift in (("truth", 0.0), ("generated", 0.05)):
                sample = rng.normal(size=(n_events, n_features))
                sample[:, 0] += shift
                np.save(Path(folder) / f"{name}.npy", sample)
            theirs, ours = (cpu_seconds(code, folder) for code in (boost, command))
        peer = "scikit-learn's gradient boosting, cross-validated"
        task = f"genamp diagnose as a whole, 2 x {n_events:,} x {n_features}"
        print(f"{task}: {ours:.1f} CPU s; {peer} {theirs:.1f}", flush=True)
        keep(task, peer, theirs, ours, "CPU s")


def cpu_seconds(code: str, folder: str) -> float:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "power", "whole"))
    parser.add_argument("methods", nargs="*", help="by default all")
    arguments = parser.parse_args()
    every = [*METHODS, *TESTS] if arguments.what == "power" else list(METHODS)
    {"speed": speed, "power": power, "whole": whole}[arguments.what](arguments.methods or every)
