"""Flow matching for top pairs: coordinates, architectures, fit, solver, kept members."""
