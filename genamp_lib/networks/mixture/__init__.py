"""Gaussian mixtures whose parameters an autoregressive transformer gives: density, fit, regions."""
