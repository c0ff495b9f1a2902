from pathlib import Path

import pytest

from adversary.victims.mnist import CHECKPOINT
from demo import processes
from guard import config


@pytest.mark.parametrize("profile", [None, Path("profile")])
def test_the_settings_are_guards(profile, tmp_path):
    config.registry.load()
    settings = config.validate(processes.settings(CHECKPOINT, profile, tmp_path / "audit.jsonl"))
    assert settings.listen.address == "127.0.0.1:0"
    assert (settings.admin.http, settings.admin.grpc) == (None, None)
    model = settings.models[0]
    assert bool(model.detectors) == bool(model.monitors) == (profile is not None)
    if profile is not None:
        assert model.mode == "enforce"
        assert {stage.mode for stage in (*model.detectors, *model.monitors)} == {"enforce"}
