"""Evasion attacks: inputs that the model gets wrong."""
