"""(kind, name) -> stage class.

A stage is a frozen dataclass whose fields are its options in the settings file. It registers itself when its module is
imported; `load()` imports the stages that ship with Guard and those that other distributions announce under the entry
point group `guard.stages`. A second stage under one name is an error, never an override.
"""

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from guard.types import KINDS, Kind

T = TypeVar("T")

_stages: dict[tuple[Kind, str], type[Any]] = {}
_PACKAGES: dict[Kind, str] = {
    "detector": "guard.detectors",
    "purifier": "guard.purifiers",
    "monitor": "guard.monitors",
    "output": "guard.outputs",
}


class DuplicateStage(RuntimeError):
    """Two stages claim one (kind, name)."""


class UnknownStage(KeyError):
    """No stage of this kind has this name."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(f"no {kind} is called {name!r}; there are: {', '.join(names(kind)) or 'none'}")

    def __str__(self) -> str:
        return str(self.args[0])


def register(kind: Kind, name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator that makes a frozen dataclass a stage."""

    def enter(cls: type[T]) -> type[T]:
        if kind not in KINDS:
            raise TypeError(f"{kind!r} is not a kind of stage: {', '.join(KINDS)}")
        if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError(f"stage {name!r}: {cls.__qualname__} must be a frozen dataclass")
        if (kind, name) in _stages:
            raise DuplicateStage(f"{kind} {name!r} is already {_stages[kind, name].__module__}")
        _stages[kind, name] = cls
        return cls

    return enter


def load() -> None:
    """Import every stage: Guard's own, then those of other distributions."""
    for package in _PACKAGES.values():
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    for entry in importlib.metadata.entry_points(group="guard.stages"):
        entry.load()


def names(kind: Kind) -> tuple[str, ...]:
    """The names of a kind's stages, sorted."""
    return tuple(sorted(name for k, name in _stages if k == kind))


def lookup(kind: Kind, name: str) -> type[Any]:
    """The class registered under (kind, name); raises UnknownStage."""
    try:
        return _stages[kind, name]
    except KeyError:
        raise UnknownStage(kind, name) from None
