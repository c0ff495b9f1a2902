import importlib.metadata
from dataclasses import dataclass
from typing import Any

import pytest

from guard import registry


@dataclass(frozen=True)
class Stage:
    bits: int = 1


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_stages", {})


def test_a_stage_is_found_under_its_kind_and_name() -> None:
    assert registry.register("purifier", "b")(Stage) is Stage
    registry.register("purifier", "a")(Stage)
    registry.register("detector", "c")(Stage)
    assert registry.lookup("purifier", "b") is Stage
    assert registry.names("purifier") == ("a", "b")


def test_a_second_stage_under_one_name_is_an_error() -> None:
    registry.register("purifier", "a")(Stage)
    with pytest.raises(registry.DuplicateStage, match=r"purifier 'a' is already .*test_registry"):
        registry.register("purifier", "a")(Stage)
    registry.register("output", "a")(Stage)


def test_an_unknown_stage_names_the_known_ones() -> None:
    with pytest.raises(registry.UnknownStage, match="no output is called 'x'; there are: none"):
        registry.lookup("output", "x")
    registry.register("output", "a")(Stage)
    with pytest.raises(registry.UnknownStage, match="there are: a"):
        registry.lookup("output", "x")


def test_only_frozen_dataclasses_of_a_known_kind() -> None:
    class Plain: ...

    @dataclass
    class Thawed: ...

    with pytest.raises(TypeError, match="not a kind"):
        registry.register("filter", "a")(Stage)  # type: ignore[arg-type]
    for cls in (Plain, Thawed):
        with pytest.raises(TypeError, match="must be a frozen dataclass"):
            registry.register("output", "a")(cls)


def test_load_takes_stages_of_other_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def load(self) -> None:
            registry.register("output", "foreign")(Stage)

    def entry_points(*, group: str) -> list[Any]:
        assert group == "guard.stages"
        return [Entry()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry.load()
    assert registry.lookup("output", "foreign") is Stage
