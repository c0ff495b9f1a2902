"""Attacks on privacy: what a model has learned from, and what it takes for a class."""
