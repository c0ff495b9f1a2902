"""The two Guards of the demo: their settings. `adversary.processes` runs them."""

from pathlib import Path
from typing import Any

from demo.plan import FALSE_POSITIVE_RATE, MODEL


def settings(file: Path, profile: Path | None, audit: Path) -> dict[str, Any]:
    """The settings of one Guard: the bare one serves and looks at nothing."""
    model: dict[str, Any] = {"name": MODEL, "embedded": {"file": str(file)}}
    if profile is not None:
        model |= {
            "profile": str(profile),
            "mode": "enforce",
            "false_positive_rate": FALSE_POSITIVE_RATE,
            "detectors": [{"stage": "feature_squeezing"}],
            "monitors": [{"stage": "fingerprint"}],
            "policy": {"on_input": "deny", "on_hostile": "deny", "lag_rows": 1},
        }
    return {
        "listen": {"address": "127.0.0.1:0"},
        "models": [model],
        "identity": {"chain": [{"kind": "api_key"}]},
        "admin": {"http": None, "grpc": None},
        "audit": {"file": str(audit), "sample_allowed": 1.0 if profile is not None else 0.0, "max_queued": 100_000},
    }
