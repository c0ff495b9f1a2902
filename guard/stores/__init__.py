"""Stores: where monitors keep history."""
