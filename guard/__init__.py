"""Guard: a gRPC proxy that defends a served model, and the same defence as a library."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Answer", "Engine", "Query", "__version__", "load_profile", "load_settings"]

_HOMES = {
    "Engine": ("guard.engine", "Engine"),
    "Query": ("guard.types", "Query"),
    "Answer": ("guard.types", "Answer"),
    "load_profile": ("guard.profile", "load_profile"),
    "load_settings": ("guard.config", "load"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import guard` costs nothing."""
    import importlib  # noqa: PLC0415

    if name not in _HOMES:
        raise AttributeError(f"module 'guard' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
