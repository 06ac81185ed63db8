"""Training and sampling of conditional flows beside zuko's of the same size, on one thread.

    python benchmarks/conditional_flow.py            # two minutes, one core
    python benchmarks/conditional_flow.py --quick    # fewer steps, to see that it runs

Nine features and one condition, ten transformations with networks of three layers of 64 nodes, ten
bins: the flow of Z bosons with one jet. `NSF` with two passes is the autoregressive way to a
coupling, `GeneralCouplingTransform` the direct one. All take the same events, step by step in turn
in one run: density, backward, Adam; then inverse. Processor time, so that a busy machine slows all
alike; the median of the steps.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import zuko
from rich.console import Console
from rich.table import Table
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import UnconditionalDistribution
from zuko.transforms import MonotonicRQSTransform

from genamp_lib.networks.conditional_flow import ConditionalFlow, ConditionalFlowSettings

N_FEATURES, N_CONDITIONS, N_TRANSFORMS, N_BINS, HIDDEN = 9, 1, 10, 10, (64, 64, 64)
BATCH, N_SAMPLED = 512, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    n_steps = 7 if parser.parse_args().quick else 25
    torch.set_num_threads(1)
    torch.manual_seed(1)
    table = Table(title=f"events per second of processor time, {platform.machine()}")
    for column in ("flow", "parameters", "training", "ratio", "sampling", "ratio"):
        table.add_column(column, justify="right")
    flows = {"NSF, two passes": nsf(), "coupling": coupling(), "genamp": ours()}
    works = {name: works_of(flow) for name, flow in flows.items()}
    seconds: dict[tuple[str, int], list[float]] = {(name, k): [] for name in flows for k in (0, 1)}
    for number in range(1 + n_steps):
        for (name, k), times in seconds.items():
            start = time.process_time()
            works[name][k]()
            if number:  # the first one is for memory and caches
                times.append(time.process_time() - start)
    median = {which: statistics.median(times) for which, times in seconds.items()}
    for name, flow in flows.items():
        row = [name, str(sum(parameter.numel() for parameter in flow.parameters()))]
        for k, size in enumerate((BATCH, N_SAMPLED)):
            row += [f"{size / median[name, k]:.0f}", f"{median[name, k] / median['genamp', k]:.1f}"]
        table.add_row(*row)
    Console().print(table)


def works_of(flow: torch.nn.Module) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of training, and a draw of events."""
    events, conditions = torch.randn(BATCH, N_FEATURES), torch.randn(BATCH, N_CONDITIONS)
    wanted, source = torch.randn(N_SAMPLED, N_CONDITIONS), torch.Generator().manual_seed(1)
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


def ours() -> ConditionalFlow:
    settings = ConditionalFlowSettings(
        n_transforms=N_TRANSFORMS, n_layers=len(HIDDEN), n_hidden=HIDDEN[0], n_bins=N_BINS
    )
    return ConditionalFlow(N_FEATURES, N_CONDITIONS, settings)


def nsf() -> zuko.flows.NSF:
    return zuko.flows.NSF(
        N_FEATURES,
        N_CONDITIONS,
        bins=N_BINS,
        transforms=N_TRANSFORMS,
        hidden_features=HIDDEN,
        passes=2,
    )


def coupling() -> zuko.flows.Flow:
    transforms = [
        GeneralCouplingTransform(
            N_FEATURES,
            N_CONDITIONS,
            mask=torch.arange(N_FEATURES) % 2 == number % 2,
            univariate=MonotonicRQSTransform,
            shapes=[(N_BINS,), (N_BINS,), (N_BINS - 1,)],
            hidden_features=HIDDEN,
        )
        for number in range(N_TRANSFORMS)
    ]
    zeros, ones = torch.zeros(N_FEATURES), torch.ones(N_FEATURES)
    return zuko.flows.Flow(
        transforms, UnconditionalDistribution(zuko.distributions.DiagNormal, zeros, ones)
    )


if __name__ == "__main__":
    main()
