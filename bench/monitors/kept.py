"""What units have made, looked up before it is made."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from adversary.attack import Array
from adversary.shelf import Shelf
from bench.monitors.ground import home

Made = tuple[dict[str, Array], dict[str, Any]]


class Unit(Protocol):
    """What is kept under a name that all that decides it makes up."""

    @property
    def name(self) -> str:
        """Under which it is kept."""
        ...


def with_facts(unit: Unit, make: Callable[[], tuple[Mapping[str, Array], Mapping[str, Any]]]) -> Made:
    """Arrays and facts of the shelf, or made and put there."""
    shelf, name = Shelf(home()), unit.name
    stored = shelf.get(name)
    if stored is not None:
        return stored
    arrays, facts = make()
    told = {"unit": repr(unit), **facts}
    shelf.put(name, arrays, told)
    return dict(arrays), told


def once(unit: Unit, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays of the shelf, or made and put there."""
    return with_facts(unit, lambda: (make(), {}))[0]
