import pytest

from guard import registry
from tests.core.helpers import STAGES
from tests.proxy import world


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small stages, registered for one test."""
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)


@pytest.fixture
def world_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of `tests.proxy.world`, registered for one test."""
    monkeypatch.setattr(registry, "_stages", registry._stages | world.STAGES)
