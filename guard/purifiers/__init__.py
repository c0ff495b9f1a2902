"""Purifiers: take a perturbation away."""
