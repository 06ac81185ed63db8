"""Paper A's estimators: counts and scores in, amplification out (numpy and scipy only)."""
