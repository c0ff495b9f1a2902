import pytest

from guard import registry
from tests.core.helpers import STAGES


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small stages, registered for one test."""
    monkeypatch.setattr(registry, "_stages", registry._stages | STAGES)
