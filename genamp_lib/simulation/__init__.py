"""First-principles generators for the shipped samples (extra [simulate])."""
