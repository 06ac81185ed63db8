"""Training throughput of ParticleNet-Lite beside the one that lloca ships, on one thread.

    pip install lloca
    python benchmarks/particlenet_speed.py            # two minutes, one core
    python benchmarks/particlenet_speed.py --quick    # fewer steps, to see that it runs

lloca's network is given identity frames, which it passes through, and the same neighbours, widths,
head and dropout. Both take the same jets, step by step in turn in one run: forward, loss, backward,
Adam. Processor time, so that a busy machine slows both alike; the median of the steps.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from genamp_lib.datasets import load_jets
from genamp_lib.networks.particlenet import ParticleNetLite, Particles, particle_inputs

BATCHES = (256, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    n_steps = 3 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    torch.manual_seed(1)
    sample = load_jets(n_jets=max(BATCHES))
    jets = particle_inputs(sample.particles, sample.jets)
    table = Table(title=f"jets per second of processor time in training, {platform.machine()}")
    for column in ("batch", "lloca", "genamp", "ratio"):
        table.add_column(column, justify="right")
    for size in BATCHES:
        steps = [lloca_step(jets[:size]), genamp_step(jets[:size])]
        seconds: list[list[float]] = [[], []]
        for number in range(1 + n_steps):
            for step, times in zip(steps, seconds, strict=True):
                start = time.process_time()
                step()
                if number:  # the first one is for memory and caches
                    times.append(time.process_time() - start)
        peer, ours = (size / statistics.median(times) for times in seconds)
        table.add_row(str(size), f"{peer:.0f}", f"{ours:.0f}", f"{ours / peer:.2f}")
    Console().print(table)


def genamp_step(jets: Particles) -> Callable[[], None]:
    network = ParticleNetLite()
    return _step(network, lambda: network(jets), len(jets))


def lloca_step(jets: Particles) -> Callable[[], None]:
    try:
        from lloca.backbone.particlenet import ParticleNet
        from lloca.framesnet.frames import Frames
    except ImportError as error:
        raise SystemExit(f"needs lloca ({error}); run `pip install lloca`") from None
    network = ParticleNet(
        input_dims=7,
        hidden_reps_list=["7x0n", "32x0n"],
        num_classes=1,
        use_fusion=False,
    )
    points, features = jets.coordinates.mT.contiguous(), jets.features.mT.contiguous()
    mask = jets.mask[:, None, :]
    frames = Frames(is_identity=True, shape=(jets.mask.numel(),), device="cpu", dtype=torch.float32)
    return _step(
        network, lambda: network(points, features, frames, mask=mask).squeeze(-1), len(jets)
    )


def _step(
    network: torch.nn.Module, forward: Callable[[], torch.Tensor], n_jets: int
) -> Callable[[], None]:
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    labels = (torch.arange(n_jets) % 2).float()
    loss_of = torch.nn.BCEWithLogitsLoss()

    def step() -> None:
        optimiser.zero_grad()
        loss_of(forward(), labels).backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
