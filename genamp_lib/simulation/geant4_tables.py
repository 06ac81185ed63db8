"""Low-energy cross sections of argon and lead from published formulas, as files that Geant4 reads.

Geant4's own data files are a download of gigabytes from one server. These stand in for the few of
them that showers in lead and liquid argon need; everything else is computed by Geant4's code. What
comes out is "Geant4 with analytic low-energy tables", not Geant4: data/README.md says what differs.

Not for running Geant4: simulation.geant4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ARGON, LEAD = 18, 82
ATOMIC_MASS = {ARGON: 39.95, LEAD: 207.2}  # g / mol
ELECTRON_MASS = 0.51099895  # MeV
FINE_STRUCTURE = 1 / 137.035999
ELECTRON_RADIUS = 2.8179403262e-13  # cm
AVOGADRO = 6.02214076e23
CM2_PER_BARN = 1e-24
MM2_PER_BARN = 1e-22

# Below the first energy the cross section is Born's, above the second it is the screened one.
BORN_BELOW, SCREENED_ABOVE = 1.0, 10.0  # MeV
# Towards softer photons screening stops the logarithm of Born's cross section.
SOFTEST_BORN = 0.05
# The smallest fraction of the table, which Geant4 takes the logarithm of.
FRACTIONS = np.array(
    [
        *(1e-12, 0.0125, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45),
        *(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.99, 0.995),
        *(0.999, 0.9995, 0.9999, 1.0),
    ]
)
BREMSSTRAHLUNG_ENERGIES = np.logspace(-3, 4, 57)  # MeV
# Biggs and Lighthill, SAND87-0070 (1990): lower end in keV; c1, c2, c3, c4 in cm2/g keV^i.
PHOTOABSORPTION = {
    ARGON: (
        (0.01576, -82938, 5719.86, -110.097, 0.666784),
        (0.04, -1400.97, 957.677, -78.4181, 1.79696),
        (0.245, -224.395, 1387.97, 2570.94, -511.288),
        (3.203, -14.4597, 435.89, 65778.4, -72838.3),
        (20, 0.878579, -300.093, 76818.2, -121897),
        (100, 0.0677884, -26.9494, 50688.8, 528087),
        (500, 0.0259794, 34.5392, 10589.7, 1.06797e7),
    ),
    LEAD: (
        (0.01, 1568.68, 0, 0, 0),
        (0.0311, -9649.06, 1869.62, -77.5944, 0.94231),
        (0.095, 16086.8, -5853.82, 714.756, -26.7146),
        (0.413, -2193.56, 12387.5, -5416.91, 679.263),
        (2.484, -401.519, 11727.6, 23155.3, -7953.4),
        (3.066, 67.4764, 678.763, 140072, -243651),
        (13.035, -71.2357, 7124.57, 293041, -277844),
        (15.2, -136.273, 19916, 272045, -488602),
        (15.861, -8.20435, 4057.18, 794840, -4.11417e6),
        (88.004, 7.59347, 4691.06, 6.42771e6, -1.74665e8),
        (500, 4.23915, 8881.21, 4.75304e6, 3.44731e7),
    ),
}
# Energy of the first excited level of the main isotopes in MeV, and the capture of neutrons of
# 0.0253 eV in barn (Mughabghab, Atlas of Neutron Resonances).
FIRST_LEVEL = {ARGON: 1.46, LEAD: 2.6}
THERMAL_CAPTURE = {ARGON: 0.66, LEAD: 0.17}
# Geant4 reads neutron tables of all elements, used or not; it has no more than these.
LARGEST_Z = 100
NUCLEAR_RADIUS = 1.3  # fm, of one nucleon
NEUTRON_MASS = 939.565  # MeV
HBAR_C = 197.327  # MeV fm


def bremsstrahlung(z: int, energy: ArrayLike, fraction: ArrayLike) -> Array:
    """Return beta^2 / Z^2 k dsigma/dk, the scaled spectrum of photons of electrons, in millibarn.

    Above 10 MeV the screened cross section of Tsai, Rev. Mod. Phys. 46 (1974) 815, Eqs. (3.38) to
    (3.41), with his Coulomb correction. Below 1 MeV the unscreened Born cross section, 3BN of Koch
    and Motz, Rev. Mod. Phys. 31 (1959) 920, times the factor of Elwert, Ann. Phys. 34 (1939) 178,
    and 1 + 1/Z for the atom's electrons. In between both, weighted linearly in log(energy). The
    energy of the electron is kinetic, in MeV, `fraction` the photon's part of it; z is at least 5.

    Against Seltzer and Berger, At. Data Nucl. Data Tables 35 (1986) 345, from which Geant4's own
    files come: within 5 % from 10 MeV up for fractions to a half; lead at 1 MeV is 10 % above at
    a tenth and 19 % below at a half of the energy.

    >>> bremsstrahlung(LEAD, 1000.0, 0.5).round(2)  # Seltzer and Berger: 7.31
    np.float64(7.46)
    """
    energy, fraction = np.asarray(energy, dtype=np.float64), np.asarray(fraction, dtype=np.float64)
    above = np.log(energy / BORN_BELOW) / np.log(SCREENED_ABOVE / BORN_BELOW)
    share = np.clip(above, 0, 1)
    return share * _screened(z, energy, fraction) + (1 - share) * _born(z, energy, fraction)


def _screened(z: int, energy: Array, fraction: Array) -> Array:
    total = energy + ELECTRON_MASS
    y = fraction * energy / total
    delta = y / np.maximum(total * (1 - y), 1e-9)
    gamma = 100 * ELECTRON_MASS * delta / z ** (1 / 3)
    epsilon = 100 * ELECTRON_MASS * delta / z ** (2 / 3)
    phi = 16.863 - 2 * np.log1p((0.55846 * gamma) ** 2)
    phi += 2.4 * np.exp(-0.9 * gamma) + 1.6 * np.exp(-1.5 * gamma)
    psi = 24.34 - 2 * np.log1p((3.621 * epsilon) ** 2)
    psi += 2.8 * np.exp(-8 * epsilon) + 1.2 * np.exp(-29.2 * epsilon)
    phi_difference = 2 / (3 + 19.5 * gamma + 18 * gamma**2)
    psi_difference = 2 / (3 + 120 * epsilon + 1200 * epsilon**2)
    nucleus = phi / 4 - np.log(z) / 3 - coulomb_correction(z)
    electrons = (psi / 4 - 2 * np.log(z) / 3) / z
    result = (1 - y + 0.75 * y**2) * (nucleus + electrons)
    result += (1 - y) * (phi_difference + psi_difference / z) / 8
    beta2 = energy * (energy + 2 * ELECTRON_MASS) / total**2
    scale = 16 / 3 * FINE_STRUCTURE * ELECTRON_RADIUS**2 / CM2_PER_BARN * 1e3
    # At the tip of the spectrum the high-energy formula goes below zero.
    return scale * beta2 * np.maximum(result, 0.02)


def _born(z: int, energy: Array, fraction: Array) -> Array:
    fraction = np.clip(fraction, SOFTEST_BORN, 1 - 1e-6)
    before = energy / ELECTRON_MASS + 1  # total energies and momenta in electron masses
    k = fraction * energy / ELECTRON_MASS
    after = before - k
    p0, p = np.sqrt(before**2 - 1), np.sqrt(after**2 - 1)
    log_all = 2 * np.log((before * after + p0 * p - 1) / k)
    log0, log = 2 * np.arccosh(before), 2 * np.arccosh(after)
    both, p0p = before * after, p0 * p
    bracket = 8 * both / (3 * p0p) + k**2 * (both**2 + p0p**2) / p0p**3
    bracket += (
        k
        / (2 * p0p)
        * ((both + p0**2) / p0**3 * log0 - (both + p**2) / p**3 * log + 2 * k * both / p0p**2)
    )
    result = 4 / 3 - 2 * both * (p**2 + p0**2) / p0p**2
    result += log0 * after / p0**3 + log * before / p**3 - log0 * log / p0p
    result += log_all * bracket
    beta0, beta = p0 / before, p / after
    strength = 2 * np.pi * FINE_STRUCTURE * z
    elwert = beta0 * np.expm1(-strength / beta0) / (beta * np.expm1(-strength / beta))
    scale = FINE_STRUCTURE * ELECTRON_RADIUS**2 / CM2_PER_BARN * 1e3
    return scale * beta0**2 * p / p0 * result * elwert * (1 + 1 / z)


def coulomb_correction(z: int) -> float:
    """Return f(Z) of Davies, Bethe and Maximon, Phys. Rev. 93 (1954) 788.

    >>> round(coulomb_correction(LEAD), 3)
    0.332
    """
    a2 = (FINE_STRUCTURE * z) ** 2
    return a2 * (1 / (1 + a2) + 0.20206 - 0.0369 * a2 + 0.0083 * a2**2 - 0.002 * a2**3)


def photoelectric(z: int, energy: ArrayLike) -> Array:
    """Return the cross section of the photoelectric effect in cm2/g for photons of some MeV.

    c1/E + c2/E^2 + c3/E^3 + c4/E^4 with the coefficients of Biggs and Lighthill, Sandia report
    SAND87-0070 (1990), those that Geant4 itself has in its code. Zero below 10 eV.

    >>> photoelectric(LEAD, [0.1, 1.0]).round(4)  # XCOM of NIST: 5.237 and 0.0181
    array([5.2261, 0.0179])
    """
    table = np.array(PHOTOABSORPTION[z])
    kev = np.asarray(energy, dtype=np.float64) * 1e3
    interval = np.searchsorted(table[:, 0], kev, side="right") - 1
    coefficients = table[np.maximum(interval, 0), 1:]
    powers = kev[..., None] ** -np.arange(1, 5)
    return np.where(interval < 0, 0.0, np.maximum((coefficients * powers).sum(axis=-1), 0.0))


def neutron_cross_sections(z: int, energy: ArrayLike) -> dict[str, Array]:
    """Return elastic, inelastic and capture cross sections of neutrons up to 20 MeV, in barn.

    The black nucleus of Blatt and Weisskopf, Theoretical Nuclear Physics (1952), sec. VIII.4:
    inelastic pi (R + lambda)^2 with R = 1.3 fm A^(1/3), from the first excited level on, the
    threshold smoothed over 1.5 MeV; elastic the same with lambda at most R, which is 4 pi R^2 of a
    hard sphere for slow neutrons. Capture is 1/v. There are no resonances. Of elements that are
    not in the calorimeter, mass, level and capture are rough.

    >>> neutron_cross_sections(LEAD, 14.0)["inelastic"].round(2)  # measured: 2.5 b
    np.float64(2.49)
    """
    energy = np.asarray(energy, dtype=np.float64)
    wavelength = HBAR_C / np.sqrt(2 * NEUTRON_MASS * energy)  # over 2 pi, in fm
    nucleus = NUCLEAR_RADIUS * ATOMIC_MASS.get(z, 2.0 * z + 0.0059 * z**2.2) ** (1 / 3)
    barn_per_fm2 = 0.01
    rise = -np.expm1(-np.maximum(energy - FIRST_LEVEL.get(z, 1.5), 0) / 1.5)
    return {
        "elastic": np.pi * (nucleus + np.minimum(wavelength, nucleus)) ** 2 * barn_per_fm2,
        "inelastic": np.pi * (nucleus + wavelength) ** 2 * barn_per_fm2 * rise,
        "capture": THERMAL_CAPTURE.get(z, 1.0) * np.sqrt(0.0253e-6 / energy),
    }


def write_tables(folder: Path) -> dict[str, str]:
    """Write the files into `folder` and return the environment with which Geant4 finds them."""
    folders = {
        "G4LEDATA": folder / "low_energy",
        "G4PARTICLEXSDATA": folder / "neutrons",
        "G4ENSDFSTATEDATA": folder / "levels",
        "G4LEVELGAMMADATA": folder / "levels",
    }
    for inner in ("low_energy/brem_SB", "low_energy/epics2017/phot", "neutrons/neutron", "levels"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    # No excited levels beyond those in Geant4's code.
    (folder / "levels" / "ENSDFSTATE.dat").write_text("")
    for z in (ARGON, LEAD):
        _write_bremsstrahlung(z, folder / "low_energy" / "brem_SB" / f"br{z}")
        _write_photoelectric(z, folder / "low_energy" / "epics2017" / "phot")
    for z in range(1, LARGEST_Z + 1):
        _write_neutrons(z, folder / "neutrons" / "neutron")
    # Geant4's binding looks for all of its data sets here, and asks for a download if unset.
    return {"GEANT4_DATA_DIR": str(folder)} | {name: str(path) for name, path in folders.items()}


def _write_bremsstrahlung(z: int, path: Path) -> None:
    table = bremsstrahlung(z, BREMSSTRAHLUNG_ENERGIES[:, None], FRACTIONS)
    lines = [f"2 {len(FRACTIONS)} {len(BREMSSTRAHLUNG_ENERGIES)}", _row(FRACTIONS, ".6g")]
    lines += [_row(np.log(BREMSSTRAHLUNG_ENERGIES), ".8g"), *(_row(row, ".6g") for row in table)]
    path.write_text("\n".join(lines) + "\n")


def _write_photoelectric(z: int, folder: Path) -> None:
    edges = np.array(PHOTOABSORPTION[z])[:, 0] / 1e3
    edges = edges[edges > 1e-4]
    energy = np.unique(np.r_[np.logspace(-4, 5, 361), edges * (1 - 1e-6), edges * (1 + 1e-6)])
    barn = photoelectric(z, energy) * ATOMIC_MASS[z] / AVOGADRO / CM2_PER_BARN
    (folder / f"pe-cs-{z}.dat").write_text(
        _vector(energy, np.maximum(energy**3 * barn, 1e-30), ".9g")
    )
    # The parametrised fits per shell are put out of reach: one shell of 10 eV, from 1e9 MeV on.
    for name, threshold in (("high", 1e9), ("low", 9e8)):
        (folder / f"pe-{name}-{z}.dat").write_text(f"1 1 {threshold}\n1e-05 0 0 0 0 0 0\n")


def _write_neutrons(z: int, folder: Path) -> None:
    energy = np.logspace(-11, np.log10(20), 200)
    sections = neutron_cross_sections(z, energy)
    for name, file in (("elastic", "el"), ("inelastic", "inel"), ("capture", "cap")):
        mm2 = np.maximum(sections[name], 1e-12) * MM2_PER_BARN
        (folder / f"{file}{z}").write_text(_vector(energy, mm2, ".6g"))


def _row(values: Array, spec: str) -> str:
    return " ".join(format(value, spec) for value in values)


def _vector(energy: Array, values: Array, spec: str) -> str:
    """A table as Geant4's G4PhysicsVector writes it."""
    lines = [f"{energy[0]:.9g} {energy[-1]:.9g} {len(energy)}", f"{len(energy)}"]
    lines += [f"{e:.9g} {value:{spec}}" for e, value in zip(energy, values, strict=True)]
    return "\n".join(lines) + "\n"
