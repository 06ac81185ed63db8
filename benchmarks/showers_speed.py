"""Showers per second of processor time, beside the same calorimeter scored step by step in Python.

    python benchmarks/showers_speed.py            # about two minutes, one core
    python benchmarks/showers_speed.py --quick    # a few showers, to see that it runs

The peer is how Geant4 is usually read out from Python: a stepping action that takes deposit and
position of every step and adds it to a cell. Geometry, physics, cuts, energies and random numbers
are the same, so both find the same showers, which is checked. Each pair is measured in one run, in
turn, both with the second that a process takes to start. Needs the extra [simulate].
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from genamp_lib.simulation import showers
from genamp_lib.simulation.showers import run_geant4

N_SHOWERS = {"eplus": 10, "gamma": 10, "piplus": 40}
LAYERS = ("layer_0", "layer_1", "layer_2", "overflow")
REPEATS = 2
PEER = "--peer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    table = Table(title=f"showers of 1 to 100 GeV per second of a core, {platform.machine()}")
    for column in ("particle", "steps in Python", "genamp", "ratio"):
        table.add_column(column, justify="left" if column == "particle" else "right")
    for particle, n_showers in N_SHOWERS.items():
        n, rates = max(n_showers // scale, 2), []
        for seed in range(1, REPEATS + 1):
            energies = np.random.default_rng(seed).uniform(*showers.ENERGY_RANGE, n)
            seconds, ours = timed(lambda e=energies, s=seed, p=particle: run_geant4(p, e, s))
            with patch.object(showers, "PROCESS", (__file__, PEER)):
                peer_seconds, theirs = timed(
                    lambda e=energies, s=seed, p=particle: run_geant4(p, e, s)
                )
            for name in LAYERS:
                np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)
            rates.append((n / peer_seconds, n / seconds))
        peer, genamp = np.median(rates, axis=0)
        table.add_row(particle, f"{peer:.2f}", f"{genamp:.2f}", f"{genamp / peer:.2f}")
    Console(width=90).print(table)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of the processes that `function` starts, and what it returns."""
    start = os.times()
    result = function()
    end = os.times()
    seconds = end.children_user - start.children_user
    return seconds + end.children_system - start.children_system, result


def score_by_steps() -> None:
    """Be the peer: take a request as genamp_lib.simulation.geant4 does, and answer it."""
    import geant4_pybind as g4

    from genamp_lib.simulation.geant4 import __main__ as geant4_process

    class Unscored(geant4_process.Calorimeter):
        def ConstructSDandField(self) -> None:
            pass

    class Cells(geant4_process.ReadOut):
        def EndOfEventAction(self, event: Any) -> None:
            self.event += 1

    class Steps(g4.G4UserSteppingAction):
        def __init__(self, request: dict[str, Any], cells: Cells) -> None:
            super().__init__()
            self.cells, self.half = cells, request["core_width_mm"] / 2
            self.pitches = [(480 / n_x, 480 / n_y) for n_x, n_y in cells.shapes]

        def UserSteppingAction(self, step: Any) -> None:
            deposit = step.GetTotalEnergyDeposit()
            if deposit == 0:
                return
            at = step.GetPreStepPoint().GetPosition()
            to = step.GetPostStepPoint().GetPosition()
            z = (at.z + to.z) / 2
            layer = (z > -150) + (z > 197)
            dx, dy = self.pitches[layer]
            n_x, n_y = self.cells.shapes[layer]
            i = int(((at.x + to.x) / 2 + self.half) // dx)
            j = int(((at.y + to.y) / 2 + self.half) // dy)
            if 0 <= i < n_x and 0 <= j < n_y:
                self.cells.layers[layer][self.cells.event, i * n_y + j] += deposit
            else:
                self.cells.overflow[self.cells.event, layer] += deposit

    class WithSteps(geant4_process.Actions):
        def Build(self) -> None:
            super().Build()
            self.steps = Steps(self.request, self.read_out)
            self.SetUserAction(self.steps)

    with (
        patch.object(geant4_process, "Calorimeter", Unscored),
        patch.object(geant4_process, "ReadOut", Cells),
        patch.object(geant4_process, "Actions", WithSteps),
    ):
        geant4_process.main()


if __name__ == "__main__":
    if sys.argv[1:] == [PEER]:
        score_by_steps()
    else:
        main()
