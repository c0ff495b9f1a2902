"""Wire contracts: generated code, and bytes to numpy."""
