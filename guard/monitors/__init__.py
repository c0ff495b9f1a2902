"""Monitors: judge a caller by its queries over time."""
