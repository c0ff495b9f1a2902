"""Replays published attacks against an inference endpoint. Sees the wire and nothing else."""
