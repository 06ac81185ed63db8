"""Showers in the CaloGAN calorimeter with Geant4: one shard of them.

The data of sec. 4 of paper B: lead and liquid argon in three layers of cells, M. Paganini,
L. de Oliveira, B. Nachman, Phys. Rev. D 97 (2018) 014021. Needs the extra [simulate]. Not for many
shards (simulation.samples), not for reading them (datasets.showers). How the showers differ
from the paper's: data/README.md.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from genamp_lib._project import GenampError
from genamp_lib.datasets.showers import CORE_WIDTH, LAYER_SHAPES, PARTICLES
from genamp_lib.simulation.geant4_tables import write_tables

# Raise it whenever the code below, in geant4 or in geant4_tables changes the numbers.
CHAIN_VERSION = 1
PACKAGES = ("geant4-pybind",)
GEANT4_NAMES = dict(zip(PARTICLES, ("e+", "gamma", "pi+"), strict=True))
ENERGY_RANGE = (1.0, 100.0)  # GeV, kinetic

WIDTH, DEPTH = 1000.0, 480.0  # mm
# 80 times 2 mm of lead and 4 mm of liquid argon, cut after 90 and after 437 mm. The second cut is
# inside a gap: plates before it, its first 3 mm, its last 1 mm, plates behind it.
SECTIONS = (
    {"layer": 0, "n_plates": 15, "lead_mm": 2.0, "argon_mm": 4.0},
    {"layer": 1, "n_plates": 57, "lead_mm": 2.0, "argon_mm": 4.0},
    {"layer": 1, "n_plates": 1, "lead_mm": 2.0, "argon_mm": 3.0},
    {"layer": 2, "n_plates": 1, "lead_mm": 0.0, "argon_mm": 1.0},
    {"layer": 2, "n_plates": 7, "lead_mm": 2.0, "argon_mm": 4.0},
)
ELECTROMAGNETIC = ("G4EmStandardPhysics_option1",)
# Those of the physics list FTFP_BERT, but for reactions of photons and electrons with nuclei.
HADRONIC = (
    "G4DecayPhysics",
    "G4HadronElasticPhysics",
    "G4HadronPhysicsFTFP_BERT",
    "G4StoppingPhysics",
)

# What runs Geant4: arguments of Python.
PROCESS = ("-m", "genamp_lib.simulation.geant4")


def chain_settings(
    particle: str, showers_per_shard: int, *, energy_range: Sequence[float] = ENERGY_RANGE
) -> dict[str, Any]:
    """Return all that the showers of a shard depend on besides its seed."""
    return {
        "chain": "Geant4 11.4 with analytic low-energy tables",
        "chain_version": CHAIN_VERSION,
        "particle": particle,
        "showers_per_shard": showers_per_shard,
        "energy_gev": [float(energy) for energy in energy_range],
        "energy_distribution": "uniform",
        "calorimeter": "CaloGAN: 80 x (2 mm lead, 4 mm liquid argon), 1 m x 1 m, cells in +-240 mm",
        "scored": "all deposits, in lead and in argon",
        "physics": _physics(particle),
        "production_cut": "Geant4's default, 0.7 mm",
        "tables": "bremsstrahlung, photoelectric effect, neutrons below 20 MeV: geant4_tables.py",
        "versions": {package: version(package) for package in PACKAGES},
    }


def _physics(particle: str) -> list[str]:
    return [*ELECTROMAGNETIC, *(HADRONIC if particle == "piplus" else ())]


def make_showers(
    index: int,
    seed: int,
    *,
    particle: str,
    n_showers: int,
    energy_range: Sequence[float] = ENERGY_RANGE,
) -> dict[str, np.ndarray]:
    """Simulate one shard of showers from nothing but its seed, 1 to 900,000,000.

    Kinetic energies in GeV are uniform within the range. Returns arrays of float32, not rounded:
    `energy` (n,) in GeV; `layer_0` (n, 3, 96), `layer_1` (n, 12, 12), `layer_2` (n, 12, 6) and
    `overflow` (n, 3) in MeV.
    """
    energies = np.random.default_rng([seed, 1]).uniform(*energy_range, n_showers)
    arrays = run_geant4(particle, energies, seed)
    return {"energy": energies.astype(np.float32)} | {
        name: array.astype(np.float32) for name, array in arrays.items()
    }


def run_geant4(particle: str, energies: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Shoot particles of energies in GeV into the calorimeter, in a process of its own.

    Returns the layers and the overflow in MeV, float64. What Geant4 says last is the error's text.
    """
    request = {
        "particle": GEANT4_NAMES[particle],
        "energies_gev": [float(energy) for energy in energies],
        "seed": int(seed),
        "width_mm": WIDTH,
        "depth_mm": DEPTH,
        "core_width_mm": CORE_WIDTH,
        "sections": [
            {**section, "cells": list(LAYER_SHAPES[section["layer"]])} for section in SECTIONS
        ],
        "physics": _physics(particle),
    }
    with TemporaryDirectory(prefix="genamp-geant4-") as folder:
        # Without CI, which makes Geant4's binding download its data sets unasked.
        environment = {name: value for name, value in os.environ.items() if name != "CI"}
        done = subprocess.run(
            [sys.executable, *PROCESS],
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment | write_tables(Path(folder)),
            check=False,
        )
    if done.returncode == 0:
        try:
            with np.load(io.BytesIO(done.stdout)) as arrays:
                return dict(arrays)
        except (ValueError, OSError, zipfile.BadZipFile):
            pass
    raise GenampError(
        f"Geant4 stopped with code {done.returncode} at {particle} showers of seed {seed}: "
        f"{_reason(done.stderr.decode(errors='replace'))}"
    )


def _reason(log: str) -> str:
    """Return one line of what Geant4 or Python said last."""
    found = re.findall(r"G4Exception : (\S+)\s+issued by : (.*)\n(.*)", log)
    if found:
        code, place, text = found[-1]
        return f"{text.strip()} ({code} in {place.strip()})"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
