"""Training and sampling of conditional flows beside zuko's of the same size, on one thread.

    python benchmarks/conditional_flow.py            # two minutes, one core: Z bosons with one jet
    python benchmarks/conditional_flow.py --showers  # five minutes: calorimeter showers, and Geant4
    python benchmarks/conditional_flow.py --quick    # fewer steps, to see that it runs

`NSF` with two passes is the autoregressive way to a coupling, `GeneralCouplingTransform` the direct
one. All take the same events, step by step in turn in one run: density, backward, Adam; then
inverse. Processor time, so that a busy machine slows all alike; the median of the steps. Geant4
makes photons of 1 to 100 GeV in the same run, as `genamp data simulate showers` does.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import zuko
from rich.console import Console
from rich.table import Table
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform

from genamp_lib.networks.conditional_flow import ConditionalFlow, ConditionalFlowSettings
from genamp_lib.simulation.showers import ENERGY_RANGE, run_geant4


@dataclass(frozen=True)
class Size:
    """Features, conditions, network and events of one comparison."""

    n_features: int
    n_conditions: int
    n_transforms: int
    n_bins: int
    hidden: tuple[int, ...]
    batch: int
    sampled: int


Z_JETS = Size(9, 1, 10, 10, (64, 64, 64), batch=512, sampled=2000)
SHOWERS = Size(507, 1, 6, 8, (32, 32), batch=64, sampled=500)
N_GEANT4 = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--showers", action="store_true")
    options = parser.parse_args()
    size = SHOWERS if options.showers else Z_JETS
    torch.set_num_threads(1)
    torch.manual_seed(1)
    table = Table(title=f"events per second of processor time, {platform.machine()}")
    for column in ("flow", "parameters", "training", "ratio", "sampling", "ratio"):
        table.add_column(column, justify="right")
    flows = {"NSF, two passes": nsf(size), "coupling": coupling(size), "genamp": ours(size)}
    works = {name: works_of(flow, size) for name, flow in flows.items()}
    seconds: dict[tuple[str, int], list[float]] = {(name, k): [] for name in flows for k in (0, 1)}
    for number in range(1 + (7 if options.quick else 25)):
        for (name, k), times in seconds.items():
            start = time.process_time()
            works[name][k]()
            if number:  # the first one is for memory and caches
                times.append(time.process_time() - start)
    median = {which: statistics.median(times) for which, times in seconds.items()}
    for name, flow in flows.items():
        row = [name, str(sum(parameter.numel() for parameter in flow.parameters()))]
        for k, n_events in enumerate((size.batch, size.sampled)):
            ratio = median[name, k] / median["genamp", k]
            row += [f"{n_events / median[name, k]:.0f}", f"{ratio:.1f}"]
        table.add_row(*row)
    if options.showers:
        rate = geant4_rate(N_GEANT4 // 10 if options.quick else N_GEANT4)
        ratio = size.sampled / median["genamp", 1] / rate
        table.add_row("Geant4", "", "", "", f"{rate:.1f}", f"{ratio:.0f}")
    Console(width=90).print(table)


def geant4_rate(n_showers: int) -> float:
    """Photons per second of processor time of the process that makes them."""
    energies = np.random.default_rng(1).uniform(*ENERGY_RANGE, n_showers)
    start = os.times()
    run_geant4("gamma", energies, 1)
    end = os.times()
    children = end.children_user - start.children_user
    return n_showers / (children + end.children_system - start.children_system)


def works_of(
    flow: torch.nn.Module, size: Size
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of training, and a draw of events."""
    events, conditions = (torch.randn(size.batch, n) for n in (size.n_features, size.n_conditions))
    wanted, source = torch.randn(size.sampled, size.n_conditions), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3, fused=True)
    ours = isinstance(flow, ConditionalFlow)

    def train() -> None:
        optimiser.zero_grad()
        log_prob = flow.log_prob(events, conditions) if ours else flow(conditions).log_prob(events)
        (-log_prob.mean()).backward()
        optimiser.step()

    @torch.no_grad()
    def sample() -> torch.Tensor:
        return flow.sample(wanted, generator=source) if ours else flow(wanted).sample()

    return train, sample


def ours(size: Size) -> ConditionalFlow:
    settings = ConditionalFlowSettings(
        n_transforms=size.n_transforms,
        n_layers=len(size.hidden),
        n_hidden=size.hidden[0],
        n_bins=size.n_bins,
    )
    return ConditionalFlow(size.n_features, size.n_conditions, settings)


def nsf(size: Size) -> zuko.flows.NSF:
    return zuko.flows.NSF(
        size.n_features,
        size.n_conditions,
        bins=size.n_bins,
        transforms=size.n_transforms,
        hidden_features=size.hidden,
        passes=2,
    )


def coupling(size: Size) -> zuko.flows.Flow:
    transforms = [
        GeneralCouplingTransform(
            size.n_features,
            size.n_conditions,
            mask=torch.arange(size.n_features) % 2 == number % 2,
            univariate=MonotonicRQSTransform,
            shapes=[(size.n_bins,), (size.n_bins,), (size.n_bins - 1,)],
            hidden_features=size.hidden,
        )
        for number in range(size.n_transforms)
    ]
    zeros, ones = torch.zeros(size.n_features), torch.ones(size.n_features)
    return zuko.flows.Flow(
        transforms, UnconditionalDistribution(zuko.distributions.DiagNormal, zeros, ones)
    )


if __name__ == "__main__":
    main()
