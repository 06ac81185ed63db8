"""What learns a density or a ratio of densities."""
