"""From two samples to findings: classifiers, looks and figures in one call, and one HTML page."""

from genamp_lib.report.samples import Comparison, SampleDiagnosis, compare, diagnose
