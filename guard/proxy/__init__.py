"""The proxy: all I/O, no judgement."""
