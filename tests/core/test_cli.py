"""The command line without a server: checking, the schema, and what the flags of `serve` stand for."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import guard
from guard import cli, kernels
from guard.profile import save_profile
from guard.settings import ConfigError, Settings
from tests.core.helpers import MeanDetector, OverlapMonitor, profile_of

pytestmark = pytest.mark.usefixtures("stages")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    fitted = profile_of(
        {
            ("detector", "test_mean"): (MeanDetector(2.0), range(200)),
            ("monitor", "test_overlap"): (OverlapMonitor(), range(200)),
        }
    )
    save_profile(fitted, tmp_path / "profile")
    return tmp_path / "profile"


def write(tmp_path: Path, **tree: Any) -> str:
    (tmp_path / "guard.yaml").write_text(yaml.safe_dump({"upstream": {"address": "127.0.0.1:1"}} | tree))
    return str(tmp_path / "guard.yaml")


def served(monkeypatch: pytest.MonkeyPatch, *argv: str) -> Settings:
    """The settings that `guard serve` would run with."""
    from guard.proxy import app

    seen: list[Settings] = []

    def run(settings: Settings, load: Callable[[], Settings]) -> int:
        assert load() == settings
        seen.append(settings)
        return 0

    monkeypatch.setattr(app, "run", run)
    assert cli.main(["serve", *argv]) == 0
    return seen[0]


def test_check_says_good(tmp_path: Path, profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"stage": "test_mean", "options": {"scale": 2.0}}
    file = write(tmp_path, models=[{"name": "m", "profile": str(profile), "detectors": [stage]}, {"name": "n"}])
    assert cli.main(["check", file]) == 0
    assert "good, 2 models, 1 stages" in capsys.readouterr().out
    assert cli.main(["check", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["mode"] == "shadow"


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"colour": 1}, "guard check: colour: unknown key"),
        ({"models": [{"name": "m", "profile": "absent"}]}, "cannot read absent"),
        ({"models": [{"name": "m", "profile": "PROFILE", "detectors": [{"stage": "test_mean"}]}]}, "fitted with"),
        ({"secret_file": "absent"}, "cannot read the secret"),
        ({"admin": {"token_file": "absent"}}, "cannot read the secret"),
    ],
)
def test_check_says_what_is_wrong(
    tmp_path: Path, profile: Path, capsys: pytest.CaptureFixture[str], tree: dict[str, Any], text: str
) -> None:
    file = write(tmp_path, **json.loads(json.dumps(tree).replace("PROFILE", str(profile))))
    assert cli.main(["check", file]) == 2
    assert text in capsys.readouterr().err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Guard settings"


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["guard", "--version"])
    for compiled, told in ((kernels.compiled, ""), (None, ", without compiled kernels")):
        monkeypatch.setattr(kernels, "compiled", compiled)
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        assert capsys.readouterr().out.strip() == f"guard {guard.__version__}{told}"


def test_an_upstream_alone_is_a_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = served(monkeypatch, "--upstream", "127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert settings.unlisted_models == "allow"
    assert settings.listen.address == "127.0.0.1:0"


def test_a_model_file_is_served_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = served(monkeypatch, "--model", "dir/net.onnx").models
    assert model.name == "net"
    assert model.embedded is not None
    assert model.detectors == ()
    assert served(monkeypatch, "--model", "net.onnx", "--model-name", "m").models[0].name == "m"


def test_a_profile_puts_its_stages_in_shadow(monkeypatch: pytest.MonkeyPatch, profile: Path) -> None:
    flags = ("--upstream", "127.0.0.1:1", "--profile", str(profile), "--model-name", "m")
    settings = served(monkeypatch, *flags)
    (model,) = settings.models
    assert model.mode == "shadow"
    assert [(d.stage, d.options) for d in model.detectors] == [("test_mean", {"scale": 2.0})]
    assert [m.stage for m in model.monitors] == ["test_overlap"]
    assert settings.unlisted_models == "deny"


def test_flags_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: Path
) -> None:
    with pytest.raises(ConfigError, match="needs --model-name"):
        cli._base(cli._parser("serve").parse_args(["serve", "--profile", str(profile)]))
    assert cli.main(["serve", "--config", write(tmp_path), "--model", "x.onnx"]) == 2
    assert "exclude it" in capsys.readouterr().err


def test_the_file_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUARD_CONFIG", write(tmp_path, limits={"max_rows": 3}))
    assert served(monkeypatch).limits.max_rows == 3
