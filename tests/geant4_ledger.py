"""Geant4 in a process of its own, as genamp starts it, that also adds up every step in Python.

The same deposits as `steps_layer_0` and so on, and `ledger` (n, 3), in MeV: what was deposited, the
kinetic energy that escaped and, negative, what escaped positrons leave unannihilated.
"""

import geant4_pybind as g4
import numpy as np

from genamp_lib.simulation.geant4 import __main__ as process


class Ledger(g4.G4UserSteppingAction):
    """Every step once more in Python, by position: slow, to check the scorers and the energy."""

    def __init__(self, request, read_out):
        super().__init__()
        self.read_out = read_out
        n, core = len(request["energies_gev"]), request["core_width_mm"]
        self.layers = [np.zeros((n, *shape)) for shape in read_out.shapes]
        self.overflow = np.zeros((n, len(read_out.shapes)))
        self.ledger = np.zeros((n, 3))
        self.pitches = [(core / n_x, core / n_y) for n_x, n_y in read_out.shapes]
        self.half = core / 2
        depths = np.zeros(len(read_out.shapes))
        for section in request["sections"]:
            pitch = section["lead_mm"] + section["argon_mm"]
            depths[section["layer"]] += section["n_plates"] * pitch
        self.edges = (np.cumsum(depths)[:-1] - request["depth_mm"] / 2).tolist()
        self.half_depth = request["depth_mm"] / 2

    def UserSteppingAction(self, step):
        event = self.read_out.event
        deposit = step.GetTotalEnergyDeposit()
        before, after = step.GetPreStepPoint(), step.GetPostStepPoint()
        if deposit > 0:
            at, to = before.GetPosition(), after.GetPosition()
            x, y, z = (at.x + to.x) / 2, (at.y + to.y) / 2, (at.z + to.z) / 2
            self.ledger[event, 0] += deposit
            layer = sum(z > edge for edge in self.edges)
            i = int((x + self.half) // self.pitches[layer][0])
            j = int((y + self.half) // self.pitches[layer][1])
            n_x, n_y = self.read_out.shapes[layer]
            if 0 <= i < n_x and 0 <= j < n_y:
                self.layers[layer][event, i, j] += deposit
            else:
                self.overflow[event, layer] += deposit
        if after.GetStepStatus() == g4.G4StepStatus.fWorldBoundary:
            self.ledger[event, 1] += after.GetKineticEnergy()
            if step.GetTrack().GetParticleDefinition().GetParticleName() == "e+":
                # It does not annihilate in here.
                self.ledger[event, 2] -= 2 * g4.electron_mass_c2

    def arrays(self):
        """The same deposits, and what left, in MeV."""
        layers = {f"steps_layer_{i}": layer for i, layer in enumerate(self.layers)}
        return {**layers, "steps_overflow": self.overflow, "ledger": self.ledger}


class Actions(process.Actions):
    def Build(self):
        super().Build()
        self.ledger = Ledger(self.request, self.read_out)
        self.SetUserAction(self.ledger)

    def arrays(self):
        return super().arrays() | self.ledger.arrays()


if __name__ == "__main__":
    process.Actions = Actions
    process.main()
