"""A real model attacked through Guard and defended by it: `python -m demo`."""
