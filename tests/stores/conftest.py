"""A profile of the digit classifier with the two monitors that one begins with, for tests through a whole Guard."""

from pathlib import Path

import pytest

from tests.servers import guard
from tests.stores.attack import MONITORS


@pytest.fixture(scope="session")
def digits_profile(digits_file: Path, clean_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fitted")
    stages = [word for name in MONITORS for word in ("--stage", f"monitor/{name}")]
    guard.fit(["--model", str(digits_file), "--clean", str(clean_file), "--out", "profile", *stages], directory)
    return directory / "profile"
