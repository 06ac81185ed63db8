"""Geant4 in a process of its own: `python -m genamp_lib.simulation.geant4`, its only use.

All is in __main__, which nothing imports: importing Geant4's binding starts a download where its
environment is not set, as simulation.showers does.
"""
