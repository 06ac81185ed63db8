"""A sampling calorimeter in Geant4, in a process of its own.

Takes a request as JSON on stdin, gives the arrays as .npz on stdout; what Geant4 prints goes to
stderr. In its own process because Geant4 aborts where it cannot go on and runs once per process.
simulation.showers starts it and knows what the request says; not to be imported.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import geant4_pybind as g4
import numpy as np

MM = g4.mm


class Calorimeter(g4.G4VUserDetectorConstruction):
    """Sections one behind the other, each a core of cells in a frame, both of plates along z.

    Cells, plates and their order are nested replicas, so that Geant4 finds its way by arithmetic
    and its scorers, in C++, take the cell from copy numbers.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.request = request
        self.kept: list[Any] = []  # Python must not collect what Geant4 points to
        self.plates: dict[str, list[str]] = {}  # volumes of lead and argon of a core or a frame

    def Construct(self) -> Any:  # noqa: D102 (Geant4's name)
        size, depth = self.request["width_mm"], self.request["depth_mm"]
        core = self.request["core_width_mm"]
        lead = g4.G4NistManager.Instance().FindOrBuildMaterial("G4_Pb")
        argon, vacuum = (
            g4.G4Material(name, 18.0, 39.95 * g4.gram / g4.mole, density * g4.gram / g4.cm3)
            for name, density in (("liquidArgon", 1.39), ("vacuum", 1e-25))
        )
        self.kept += [lead, argon, vacuum]
        self.materials = {"lead": lead, "argon": argon, "vacuum": vacuum}
        world = self._box("world", 0.6 * size, 0.6 * size, 0.6 * depth, "vacuum")
        placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "world", None, False, 0)
        z = -depth / 2
        for index, section in enumerate(self.request["sections"]):
            half = section["n_plates"] * (section["lead_mm"] + section["argon_mm"]) / 2
            mother = self._box(f"section{index}", size / 2, size / 2, half, "vacuum")
            self._place(mother, world, z=z + half)
            z += 2 * half
            cells = self._box(f"cells{index}", core / 2, core / 2, half, "vacuum")
            self._place(cells, mother)
            n_x, n_y = section["cells"]
            dx, dy = core / n_x, core / n_y
            column = self._box(f"column{index}", dx / 2, core / 2, half, "vacuum")
            self._replicate(column, cells, g4.EAxis.kXAxis, n_x, dx)
            cell = self._box(f"cell{index}", dx / 2, dy / 2, half, "vacuum")
            self._replicate(cell, column, g4.EAxis.kYAxis, n_y, dy)
            self._fill(cell, dx / 2, dy / 2, section, f"core{index}")
            rim = (size - core) / 4  # half the width of the frame
            middle = core / 2 + rim
            for side, (x, y, half_x, half_y) in enumerate(
                (
                    (-middle, 0, rim, size / 2),
                    (middle, 0, rim, size / 2),
                    (0, -middle, core / 2, rim),
                    (0, middle, core / 2, rim),
                )
            ):
                frame = self._box(f"side{side}", half_x, half_y, half, "vacuum")
                self._place(frame, mother, x=x, y=y)
                self._fill(frame, half_x, half_y, section, f"frame{index}", f"side{side}")
        self.kept.append(placed)
        return placed

    def ConstructSDandField(self) -> None:  # noqa: D102
        manager = g4.G4SDManager.GetSDMpointer()
        for index, section in enumerate(self.request["sections"]):
            n_x, n_y = section["cells"]
            # From a plate upwards: the pair of plates, the cell (1), the column (2) and so on.
            core = g4.G4PSEnergyDeposit3D("deposit", n_x, n_y, 1, 3, 2, 0)
            frame = g4.G4PSEnergyDeposit("deposit", 0)
            for name, scorer in (("core", core), ("frame", frame)):
                detector = g4.G4MultiFunctionalDetector(f"{name}{index}")
                manager.AddNewDetector(detector)
                detector.RegisterPrimitive(scorer)
                self.kept += [detector, scorer]
                for volume in self.plates[f"{name}{index}"]:
                    self.SetSensitiveDetector(volume, detector)

    def _fill(
        self,
        mother: Any,
        half_x: float,
        half_y: float,
        section: dict[str, Any],
        group: str,
        part: str = "",
    ) -> None:
        name = group + part
        lead, argon = section["lead_mm"], section["argon_mm"]
        pair = self._box(f"{name}pair", half_x, half_y, (lead + argon) / 2, "vacuum")
        self._replicate(pair, mother, g4.EAxis.kZAxis, section["n_plates"], lead + argon)
        for material, thickness, z in (("lead", lead, -argon / 2), ("argon", argon, lead / 2)):
            if thickness > 0:
                plate = self._box(f"{name}{material}", half_x, half_y, thickness / 2, material)
                self._place(plate, pair, z=z)
                self.plates.setdefault(group, []).append(f"{name}{material}")

    def _box(self, name: str, x: float, y: float, z: float, material: str) -> Any:
        solid = g4.G4Box(name, x * MM, y * MM, z * MM)
        volume = g4.G4LogicalVolume(solid, self.materials[material], name)
        self.kept += [solid, volume]
        return volume

    def _place(self, volume: Any, mother: Any, x: float = 0, y: float = 0, z: float = 0) -> None:
        at = g4.G4ThreeVector(x * MM, y * MM, z * MM)
        name = volume.GetName()
        self.kept.append(g4.G4PVPlacement(None, at, volume, name, mother, False, 0))

    def _replicate(self, volume: Any, mother: Any, axis: Any, n: int, pitch: float) -> None:
        self.kept.append(g4.G4PVReplica(volume.GetName(), volume, mother, axis, n, pitch * MM))


class Physics(g4.G4VModularPhysicsList):
    """The constructors of the request, by name, in order."""

    def __init__(self, constructors: list[str]) -> None:
        super().__init__()
        for name in constructors:
            self.RegisterPhysics(getattr(g4, name)())


class Gun(g4.G4VUserPrimaryGeneratorAction):
    """One particle per event along z, at the centre of the front, with the energies of a list."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.energies = iter(request["energies_gev"])
        self.gun = g4.G4ParticleGun(1)
        table = g4.G4ParticleTable.GetParticleTable()
        self.gun.SetParticleDefinition(table.FindParticle(request["particle"]))
        self.gun.SetParticlePosition(g4.G4ThreeVector(0, 0, -0.6 * request["depth_mm"] * MM))
        self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(0, 0, 1))

    def GeneratePrimaries(self, event: Any) -> None:  # noqa: D102
        self.gun.SetParticleEnergy(next(self.energies) * g4.GeV)
        self.gun.GeneratePrimaryVertex(event)


class ReadOut(g4.G4UserEventAction):
    """At the end of an event: deposits of cells and frames from the C++ scorers into arrays."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.sections, n = request["sections"], len(request["energies_gev"])
        shapes = {section["layer"]: section["cells"] for section in self.sections}
        self.layers = [np.zeros((n, np.prod(shapes[layer]))) for layer in sorted(shapes)]
        self.shapes = [tuple(shapes[layer]) for layer in sorted(shapes)]
        self.overflow = np.zeros((n, len(shapes)))
        self.event = 0

    def EndOfEventAction(self, event: Any) -> None:  # noqa: D102
        collections = event.GetHCofThisEvent()
        for index, section in enumerate(self.sections):
            layer = self.layers[section["layer"]][self.event]
            for cell, deposit in collections.GetHC(2 * index):
                layer[cell] += deposit
            for _, deposit in collections.GetHC(2 * index + 1):
                self.overflow[self.event, section["layer"]] += deposit
        self.event += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Deposits in MeV."""
        layers = {
            f"layer_{i}": flat.reshape(-1, *shape)
            for i, (flat, shape) in enumerate(zip(self.layers, self.shapes, strict=True))
        }
        return {**layers, "overflow": self.overflow}


class Actions(g4.G4VUserActionInitialization):
    """What is done with events and steps."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__()
        self.gun, self.read_out = Gun(request), None
        self.request = request

    def Build(self) -> None:  # noqa: D102
        self.read_out = ReadOut(self.request)
        self.SetUserAction(self.gun)
        self.SetUserAction(self.read_out)

    def arrays(self) -> dict[str, np.ndarray]:
        """What was read out."""
        return self.read_out.arrays()


def run(request: dict[str, Any]) -> dict[str, np.ndarray]:
    """Shoot the particles of the request and return the arrays."""
    g4.G4Random.setTheSeed(request["seed"])
    manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
    calorimeter, physics = Calorimeter(request), Physics(request["physics"])
    manager.SetUserInitialization(calorimeter)
    manager.SetUserInitialization(physics)
    actions = Actions(request)
    manager.SetUserInitialization(actions)
    manager.Initialize()
    manager.BeamOn(len(request["energies_gev"]))
    return actions.arrays()


def main() -> None:
    """Read the request, shoot, write the arrays."""
    results = os.dup(1)
    os.dup2(2, 1)  # Geant4 prints to stdout
    request = json.load(sys.stdin)
    buffer = io.BytesIO()
    np.savez(buffer, **run(request))
    with os.fdopen(results, "wb") as stream:
        stream.write(buffer.getvalue())
    sys.stdout.flush()
    os._exit(0)  # Geant4 deletes its objects in an order of its own, after Python did


if __name__ == "__main__":
    main()
