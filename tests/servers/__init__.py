"""Real model servers for the tests: their environments, their models, their processes."""
