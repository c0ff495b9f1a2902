"""The attack that tests of shared history send: steps of noise around one image. And who is attacked."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.servers.models import images

MONITORS = ("fingerprint", "similarity_graph")
QUERIES = 60


def attack(seed: int = 2) -> np.ndarray:
    """(QUERIES, 1, 28, 28)."""
    noise = np.random.default_rng(seed).standard_normal((QUERIES, 1, 28, 28))
    return np.clip(images(1, seed=5) + 0.003 * noise, 0, 1).astype(np.float32)


def model(file: Path, profile: Path, *monitors: str, on_error: str = "allow", name: str = "digits") -> dict[str, Any]:
    """Settings of the digit classifier that enforce these monitors."""
    stages = [{"stage": stage, "on_error": on_error} for stage in monitors]
    served = {"embedded": {"file": str(file)}, "profile": str(profile)}
    return {"name": name, **served, "mode": "enforce", "monitors": stages, "policy": {"lag_rows": 1}}
