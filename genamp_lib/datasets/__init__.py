"""Where events come from: closed forms, shipped or public samples. Not for making: simulation."""

from genamp_lib.datasets.events import Events, load_top_pairs, load_z_jets
from genamp_lib.datasets.gaussian import (
    interval_probability,
    interval_probability_slope,
    mean_squared_deviation,
    model_variance,
    true_amplification,
)
from genamp_lib.datasets.jets import (
    JET_OBSERVABLES,
    Jets,
    load_jets,
    observables_from_particles,
    relative_mass,
)
from genamp_lib.datasets.kinematics import delta_r, mass_of_sum
from genamp_lib.datasets.peaks import Peak, find_peak
from genamp_lib.datasets.public import fetch_public, verify_public
from genamp_lib.datasets.rings import Ring, radius
from genamp_lib.datasets.showers import Showers, load_showers, shower_observables
from genamp_lib.datasets.sources import (
    DataSource,
    find_source,
    list_samples,
    sample_checksum,
    sample_path,
)
