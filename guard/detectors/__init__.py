"""Detectors: score one input, or the model's answers on several views of it."""
