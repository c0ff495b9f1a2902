"""Output protections: change what an answer gives away."""
