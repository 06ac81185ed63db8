"""Arrays in, Axes out."""

from genamp_lib.plotting.amplification import (
    mark_n_equiv,
    plot_amplification_map,
    plot_amplifications,
    plot_averaging_scan,
    plot_coverage,
    plot_estimate,
    plot_measured,
    plot_uncertainties,
)
from genamp_lib.plotting.differential import (
    plot_distance_band,
    plot_distance_curve,
    plot_distance_sketch,
    plot_empirical_cdf,
    plot_expected_distance,
)
from genamp_lib.plotting.interactive import explorer
from genamp_lib.plotting.overview import plot_estimated_over_true
from genamp_lib.plotting.spectra import plot_members, plot_spectra
from genamp_lib.plotting.style import COLOURS, use_style
from genamp_lib.plotting.verdicts import plot_verdicts, verdict_explorer
from genamp_lib.plotting.weight_cut import weight_explorer
from genamp_lib.plotting.weights import (
    plot_calibration,
    plot_closure,
    plot_distribution,
    plot_four_panels,
    plot_roc,
)
