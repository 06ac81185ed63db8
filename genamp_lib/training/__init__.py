"""Fit networks, resume, keep what was fitted. Not for network definitions: models."""
