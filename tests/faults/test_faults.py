"""Each row of the fault matrix."""

from pathlib import Path

import pytest

from tests.faults.matrix import ROWS, Row, known_stages
from tests.faults.table import rows


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
async def test_what_comes_of_it(row: Row, tmp_path: Path) -> None:
    with known_stages():
        assert await row.does(tmp_path)


def test_names_are_ones_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 25
