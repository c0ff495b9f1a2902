"""Coverage-guided fuzzing of everything that parses bytes from outside. `python -m tests.fuzz TARGET`."""
