"""Skips where the plane cannot be used, and says why."""

import pytest

from guard.proxy.fast import library


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if library.unusable is not None:
        for item in items:
            if "tests/proxy/fast" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=library.unusable))
