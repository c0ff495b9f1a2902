"""Who vouches for a file sees its bytes before they are read, and what he refuses is not read."""

from pathlib import Path

import pytest

from guard import config
from guard.profile import ProfileError, load_profile, save_profile
from guard.settings import ConfigError
from tests.core.helpers import MeanDetector, profile_of

pytestmark = pytest.mark.usefixtures("stages")


def refuse(path: Path, raw: bytes) -> None:
    raise ValueError(f"{path.name}: {len(raw)} bytes by nobody")


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "guard.yaml"
    file.write_text("upstream: {address: 'a:1'}\nunlisted_models: allow\n")
    seen: list[tuple[Path, bytes]] = []
    settings = config.load(file, {}, vouch=lambda path, raw: seen.append((path, raw)))
    assert settings == config.load(file, {})
    assert seen == [(file, file.read_bytes())]
    file.write_text("not: [YAML")
    with pytest.raises(ConfigError, match=r"guard\.yaml: 10 bytes by nobody"):
        config.load(file, {}, vouch=refuse)


def test_profiles(tmp_path: Path) -> None:
    save_profile(profile_of({("detector", "test_mean"): (MeanDetector(2.0), range(200))}), tmp_path)
    seen: list[Path] = []
    assert load_profile(tmp_path, lambda path, _: seen.append(path)).digest == load_profile(tmp_path).digest
    assert seen == [tmp_path / "profile.json"]
    with pytest.raises(ProfileError, match=r"profile\.json: \d+ bytes by nobody"):
        load_profile(tmp_path, refuse)


def test_a_name_to_be_signed_as_is_not_asked_for_in_vain() -> None:
    tree = {"upstream": {"address": "127.0.0.1:1"}, "models": [{"name": "m", "signed_as": "m@7"}]}
    with pytest.raises(ConfigError, match="signed_as needs a signers_file"):
        config.validate(tree)
    assert config.validate({**tree, "signers_file": "k"}).models[0].signed_as == "m@7"
