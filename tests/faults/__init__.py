"""The fault matrix: each row injects one fault for real, and says what came of it. `python -m tests.faults`."""
