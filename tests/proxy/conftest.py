import pytest

from guard import registry
from tests.proxy import world


@pytest.fixture
def world_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of `tests.proxy.world`, registered for one test."""
    monkeypatch.setattr(registry, "_stages", registry._stages | world.STAGES)
