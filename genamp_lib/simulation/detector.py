"""The detector response of the Delphes ATLAS card, as formulas on arrays. No tracks, no field.

All numbers are those of cards/delphes_card_ATLAS.tcl in https://github.com/delphes/delphes (JHEP
02, 057, 2014). Two things differ, as Delphes itself cannot be installed with pip:

- Energies are smeared for each particle, not for each calorimeter tower. So the noise term of the
  hadronic calorimeter (1.59 GeV for a tower with |eta| < 1.7) is left out, and the threshold of a
  tower, 0.5 GeV, is one of a particle.
- There is no magnetic field: charged particles go straight.

Energies, pt and resolutions are in GeV; `rng` is a NumPy generator; all functions are vectorised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALORIMETER_ABS_ETA_MAX = 4.9
ENERGY_MIN = 0.5  # GeV, of the electromagnetic towers in the card
# The card gives K0S and Lambda, where they do not decay, to both calorimeters; here they decay.
ELECTROMAGNETIC = (11, 22, 111)
INVISIBLE = (12, 13, 14, 16)
FLAVOUR_DELTA_R = 0.5
FLAVOUR_PT_MIN = 1.0  # GeV, of a parton
FLAVOUR_ABS_ETA_MAX = 2.5  # of a parton
MUON_MASS = 0.1056584  # GeV
# Modules ECal and HCal by regions: largest |eta|, and what grows with the energy and with its
# square root, in GeV.
Regions = tuple[tuple[float, float, float], ...]
ELECTROMAGNETIC_REGIONS = ((3.2, 0.0017, 0.101), (4.9, 0.0350, 0.285))
# Without the noise of a tower.
HADRONIC_REGIONS = ((1.7, 0.0302, 0.5205), (3.2, 0.0500, 0.706), (4.9, 0.09420, 1.00))


def resolution(energy: ArrayLike, eta: ArrayLike, regions: Regions) -> NDArray[np.float64]:
    """Return the standard deviation of an energy in a calorimeter; 0 beyond |eta| = 4.9.

    >>> resolution([100.0, 100.0], [0.0, 4.0], ELECTROMAGNETIC_REGIONS).round(3)
    array([1.024, 4.514])
    """
    energy = np.asarray(energy, dtype=np.float64)
    is_inside = [np.abs(eta) <= edge for edge, _, _ in regions]
    return np.select(
        is_inside,
        [np.sqrt(energy**2 * linear**2 + energy * root**2) for _, linear, root in regions],
    )


def log_normal(mean: ArrayLike, std: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw positive numbers of given mean and standard deviation, as Delphes smears.

    If x is log-normal, log x has the variance s^2 = log(1 + std^2 / mean^2) and the mean
    log(mean) - s^2 / 2.
    """
    mean = np.asarray(mean, dtype=np.float64)
    variance = np.log1p((np.asarray(std) / mean) ** 2)
    return mean * np.exp(np.sqrt(variance) * rng.standard_normal(mean.shape) - variance / 2)


def calorimeter_response(
    energy: NDArray, eta: NDArray, pdg_id: NDArray, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return measured over true energy of particles; 0 for what the calorimeters do not see.

    Electrons, photons and pi0 have the electromagnetic resolution, all else but muons and
    neutrinos the hadronic one; the sign of an id does not matter.
    """
    abs_id = np.abs(pdg_id)
    seen = (np.abs(eta) <= CALORIMETER_ABS_ETA_MAX) & ~np.isin(abs_id, INVISIBLE)
    energy, eta = energy[seen], eta[seen]
    sigma = np.where(
        np.isin(abs_id[seen], ELECTROMAGNETIC),
        resolution(energy, eta, ELECTROMAGNETIC_REGIONS),
        resolution(energy, eta, HADRONIC_REGIONS),
    )
    measured = log_normal(energy, sigma, rng)
    response = np.zeros(len(seen))
    response[seen] = np.where(measured > ENERGY_MIN, measured / energy, 0.0)
    return response


def jet_energy_scale(pt: ArrayLike, eta: ArrayLike) -> NDArray[np.float64]:
    """Return the factor on the four-momentum of a jet; module JetEnergyScale of the card.

    >>> jet_energy_scale([25.0, 100.0], [0.0, 2.5]).round(4)
    array([1.1662, 1.0308])
    """
    return np.sqrt((3.0 - 0.2 * np.abs(eta)) ** 2 / np.asarray(pt, dtype=np.float64) + 1.0)


def tagging_efficiency(pt: ArrayLike, flavour: ArrayLike) -> NDArray[np.float64]:
    """Return the probability of a b-tag of jets of flavour 5, 4 or any other; module BTagging.

    >>> tagging_efficiency([100.0, 100.0, 100.0], [5, 4, 0]).round(4)
    array([0.7283, 0.1439, 0.0027])
    """
    pt, flavour = np.asarray(pt, dtype=np.float64), np.asarray(flavour)
    bottom = 0.80 * np.tanh(0.003 * pt) * (30 / (1 + 0.086 * pt))
    charm = 0.20 * np.tanh(0.02 * pt) / (1 + 0.0034 * pt)
    return np.select([flavour == 5, flavour == 4], [bottom, charm], 0.002 + 7.3e-6 * pt)


def muon_efficiency(pt: ArrayLike, eta: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that a muon is found: track times identification, pt > 10 GeV.

    Modules MuonTrackingEfficiency and MuonEfficiency of the card; no isolation.

    >>> muon_efficiency([40.0, 40.0, 40.0, 9.0], [1.0, 2.0, 2.6, 0.0])
    array([0.9405, 0.833 , 0.    , 0.    ])
    """
    abs_eta = np.abs(eta)
    efficiency = np.select([abs_eta <= 1.5, abs_eta <= 2.5], [0.99 * 0.95, 0.98 * 0.85], 0.0)
    return np.where(np.asarray(pt) > 10.0, efficiency, 0.0)


def muon_resolution(pt: ArrayLike, eta: ArrayLike) -> NDArray[np.float64]:
    """Return the relative standard deviation of a muon's pt; module MuonMomentumSmearing.

    >>> muon_resolution([50.0, 50.0, 50.0], [0.0, 1.0, 2.0]).round(5)
    array([0.01118, 0.01677, 0.03052])
    """
    pt, abs_eta = np.asarray(pt, dtype=np.float64), np.abs(eta)
    central = np.sqrt(0.01**2 + pt**2 * 1.0e-4**2)
    barrel = np.sqrt(0.015**2 + pt**2 * 1.5e-4**2)
    endcap = np.sqrt(0.025**2 + pt**2 * 3.5e-4**2)
    return np.select([abs_eta <= 0.5, abs_eta <= 1.5, abs_eta <= 2.5], [central, barrel, endcap])
