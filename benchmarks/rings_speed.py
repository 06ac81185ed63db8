"""Mixture transformers: training many at once, sampling, probabilities of regions, beside peers.

    OMP_NUM_THREADS=1 python benchmarks/rings_speed.py            # three minutes of one core
    OMP_NUM_THREADS=1 python benchmarks/rings_speed.py --quick    # to see that it runs

All times are core-seconds of this process, the least of some repetitions that take turns with the
peers'; every ratio is of one run. That the numbers agree is checked first.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import zuko
from rich.console import Console
from rich.table import Table
from scipy.stats import ks_2samp
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from genamp_lib.datasets import Ring, radius
from genamp_lib.networks.mixture.ensemble import (
    EnsembleSettings,
    EnsembleTask,
    fit_ensemble,
    independent_sets,
)
from genamp_lib.networks.mixture.regions import region_probabilities
from genamp_lib.networks.mixture.transformer import MixtureTransformer, MixtureTransformerSettings

N_TRAIN = 1000
CHUNK = 8192
WANTED_ERROR = 1e-4


def core_seconds(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least time of each; they take turns, so that what else runs here meets all of them."""
    best = dict.fromkeys(functions, math.inf)
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            function()
            best[name] = min(best[name], time.process_time() - start)
    return best


def task(n_features: int, n_members: int, n_steps: int) -> EnsembleTask:
    events = Ring(n_features, "sphere").sample(n_members * N_TRAIN, seed=1)
    return EnsembleTask(
        independent_sets(events, n_members),
        seed=1,
        network=MixtureTransformerSettings.for_ring(n_features),
        training=EnsembleSettings(n_steps=n_steps),
    )


def training(table: Table, n_steps: int, repeats: int) -> None:
    for n_features in (2, 4):
        times = core_seconds(
            {str(n): partial(fit_ensemble, task(n_features, n, n_steps)) for n in (1, 10, 40)},
            repeats,
        )
        one = times["1"] / n_steps * 1e3
        for n in (10, 40):
            ours = times[str(n)] / n_steps / n * 1e3
            table.add_row(
                f"{n_features}D: training, ms per step and network, {n} at once",
                "one after another",
                f"{one:.2f}",
                f"{ours:.3f}",
                f"{one / ours:.1f}",
            )


@torch.no_grad()
def naive_sample(model: MixtureTransformer, n_generated: int, generator: torch.Generator):
    """Sample one network as in a textbook: for each feature all tokens so far, nothing cached."""
    settings, t = model.settings, {name: x[0] for name, x in model.tensors().items()}
    parts = []
    for start in range(0, n_generated, CHUNK):
        events = torch.zeros(min(CHUNK, n_generated - start), 1)  # the start token's value
        for i in range(settings.n_features):
            tokens = events[..., None] * t["embedding"] + t["position"][: i + 1]
            for layer in range(settings.n_layers):
                inputs = layer_norm(tokens, (settings.width,))
                query, key, value = (
                    (inputs @ t[f"{layer}.{name}"])
                    .unflatten(-1, (settings.n_heads, -1))
                    .transpose(1, 2)
                    for name in ("query", "key", "value")
                )
                mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
                tokens = tokens + mixed.transpose(1, 2).flatten(2) @ t[f"{layer}.mix_heads"]
                inputs = layer_norm(tokens, (settings.width,))
                hidden = inputs @ t[f"{layer}.hidden"] + t[f"{layer}.hidden_bias"]
                tokens = tokens + gelu(hidden, approximate="tanh") @ t[f"{layer}.output"]
            last = layer_norm(tokens[:, -1], (settings.width,))
            output = last @ t["mixture"].mT + t["mixture_bias"][:, 0]
            logits, means, logarithms = output.chunk(3, -1)
            uniforms = torch.rand(len(events), 1, generator=generator)
            chosen = (uniforms > logits.softmax(-1).cumsum(-1)[:, :-1]).sum(1, keepdim=True)
            normals = torch.randn(len(events), 1, generator=generator)
            sigmas = logarithms.exp() + settings.min_sigma
            new = means.gather(1, chosen) + sigmas.gather(1, chosen) * normals
            events = torch.cat([events, new], dim=1)
        parts.append(events[:, 1:])
    return torch.cat(parts)


def flow_like(n_features: int, n_parameters: int, kind: str) -> torch.nn.Module:
    """Return the zuko flow of two transformations whose size is closest to that of a network."""

    def build(n_hidden: int) -> torch.nn.Module:
        hidden = (n_hidden, n_hidden)
        if kind != "NAF":
            make = getattr(zuko.flows, kind)
            return make(n_features, transforms=2, hidden_features=hidden)
        network = {"hidden_features": (8, 8)}
        return zuko.flows.NAF(
            n_features, signal=4, transforms=2, hidden_features=hidden, network=network
        )

    sizes = {n: sum(p.numel() for p in build(n).parameters()) for n in range(4, 129, 4)}
    return build(min(sizes, key=lambda n: abs(sizes[n] - n_parameters)))


def flow_sample(flow: torch.nn.Module, n_generated: int) -> None:
    with torch.no_grad():
        for start in range(0, n_generated, CHUNK):
            flow().sample((min(CHUNK, n_generated - start),))


def sampling(table: Table, model: MixtureTransformer, n: int, repeats: int) -> None:
    settings, generator = model.settings, torch.Generator().manual_seed(1)
    ours = radius(model.sample(n, generator=generator)[0])
    naive = radius(naive_sample(model, n, generator))
    if ks_2samp(ours, naive).pvalue < 1e-5:
        sys.exit("error: the samples of the naive sampler have another distribution")
    flows = {
        f"zuko {kind}": flow_like(settings.n_features, settings.n_parameters, kind)
        for kind in ("MAF", "NSF", "NAF")
    }
    # The NAF inverts by bisection: fewer events tell its rate.
    sizes = {"zuko MAF": n, "zuko NSF": n, "zuko NAF": n // 20}
    times = core_seconds(
        {
            "ours": partial(model.sample, n, generator=generator),
            "without cache": partial(naive_sample, model, n, generator),
            **{name: partial(flow_sample, flow, sizes[name]) for name, flow in flows.items()},
        },
        repeats,
    )
    rates = {name: sizes.get(name, n) / seconds for name, seconds in times.items()}
    for name in ("without cache", *flows):
        count = sum(p.numel() for p in flows[name].parameters()) if name in flows else 0
        table.add_row(
            f"{settings.n_features}D: events per core-second, {settings.n_parameters} parameters",
            f"{name}, {count} parameters" if count else name,
            f"{rates[name]:.2e}",
            f"{rates['ours']:.2e}",
            f"{rates['ours'] / rates[name]:.1f}",
        )


def regions(table: Table, model: MixtureTransformer, repeats: int) -> None:
    n_features = model.settings.n_features
    edges, generator = Ring(n_features).radial_edges(), torch.Generator().manual_seed(2)
    best = region_probabilities(model, edges, n_points=2**15, n_scrambles=16, seed=99)
    wanted, wanted_error = best.probabilities, np.sqrt(np.mean(best.errors**2))
    for n_points in (1024, 4096):
        ours = partial(region_probabilities, model, edges, n_points=n_points)
        square = np.mean([(ours(seed=s).probabilities - wanted) ** 2 for s in range(10)])
        error = math.sqrt(max(square - wanted_error**2, 1e-14))
        # Events whose counts in a region of probability 0.05 have the same error; their time is
        # that of fewer, scaled.
        n_events = int(0.05 * 0.95 / error**2)
        some = min(n_events, 20 * CHUNK)
        times = core_seconds(
            {"ours": ours, "peer": partial(count, model, some, edges, generator)}, repeats
        )
        peer = times["peer"] * n_events / some
        table.add_row(
            f"{n_features}D: core-seconds for 20 regions, error {error:.1e}",
            f"{n_events:.1e} sampled events",
            f"{peer:.2f}",
            f"{times['ours']:.4f}",
            f"{peer / times['ours']:.0f}",
        )


def count(
    model: MixtureTransformer, n_generated: int, edges: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    return np.histogram(radius(model.sample(n_generated, generator=generator)[0]), edges)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    table = Table(title=f"{platform.machine()}, torch {torch.__version__}, zuko {zuko.__version__}")
    for column in ("task", "peer", "peer's", "genamp", "ratio"):
        table.add_column(column, justify="left" if column in ("task", "peer") else "right")
    repeats = 1 if quick else 5
    training(table, 5 if quick else 100, repeats)
    n_steps = {2: 20, 4: 20} if quick else {2: 2000, 4: 1200}
    models = {d: fit_ensemble(task(d, 1, n_steps[d])).model for d in (2, 4)}
    for model in models.values():
        sampling(table, model, 2 * CHUNK if quick else 20 * CHUNK, repeats)
    for model in models.values():
        regions(table, model, repeats)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
