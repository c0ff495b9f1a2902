import json
from pathlib import Path

import pytest

from adversary import serving
from adversary.campaign import CampaignError, Model, Serve
from adversary.serving import Verdict
from guard import config

MODEL = Model(name="mnist", onnx=Path("/models/m.onnx"))


def written(tmp_path, text):
    path = tmp_path / "guard.yaml"
    path.write_text(text)
    return Serve(settings=path)


def test_bare_settings_are_guards_own_and_look_at_nothing():
    tree = serving.settings_of(Serve(), MODEL, None)
    settings = config.validate(tree)
    assert settings.listen.address == "127.0.0.1:0"
    assert (settings.admin.http, settings.admin.grpc) == (None, None)
    assert settings.models[0].embedded.file == MODEL.onnx
    assert settings.models[0].profile is None


def test_a_file_keeps_what_the_campaign_does_not_set(tmp_path):
    serve = written(
        tmp_path,
        "listen: {address: '0.0.0.0:1'}\nlimits: {max_rows: 7}\nmodels:\n- {name: other, upstream: {address: 'a:1'}}\n"
        "- {name: mnist, upstream: {address: 'a:1'}, embedded: {max_batch_rows: 3}, mode: enforce}\n",
    )
    tree = serving.settings_of(serve, MODEL, Path("/p"))
    assert tree["models"] == [
        {
            "name": "mnist",
            "embedded": {"max_batch_rows": 3, "file": "/models/m.onnx"},
            "mode": "enforce",
            "profile": "/p",
        }
    ]
    assert tree["listen"] == {"address": "127.0.0.1:0"}
    assert tree["limits"] == {"max_rows": 7, "drain_s": 1.0}
    plain = serving.without_paths(tree)
    assert plain["models"][0]["embedded"]["file"] == ""
    assert plain["models"][0]["profile"] is True


@pytest.mark.parametrize("text", ["models: []", "models: [{name: other}]", "[", "- 1"])
def test_a_file_without_the_model_is_refused(tmp_path, text):
    with pytest.raises(CampaignError, match=r"serve\.settings"):
        serving.settings_of(written(tmp_path, text), MODEL, None)


def test_the_shipped_settings_are_guards(monkeypatch):
    config.registry.load()
    path = Path(serving.__file__).parent / "campaigns" / "settings" / "mnist.yaml"
    settings = config.validate(serving.settings_of(Serve(settings=path), MODEL, Path("profile")))
    model = settings.models[0]
    assert model.mode == "enforce"
    assert model.detectors
    assert model.monitors


def event(decision_id, action, would_be, reason):
    return {"event": "guard.decision", "decision_id": decision_id, "action": action, "would_be": would_be,
            "reason": reason}  # fmt: skip


def test_the_audit_log_is_read(tmp_path):
    lines = [
        event("a", "allow", "allow", None), event("b", "deny", "deny", "input"), event("c", "allow", "deny", "caller"),
        event("d", "allow", "allow", "caller"), {"event": "something.else"},
    ]  # fmt: skip
    audit = tmp_path / "audit.jsonl"
    audit.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert serving.verdicts(audit) == {
        "a": Verdict(flagged=False, caller=False),
        "b": Verdict(flagged=True, caller=False),
        "c": Verdict(flagged=True, caller=True),
        "d": Verdict(flagged=False, caller=False),
    }


def test_a_codes_digest_knows_its_sources(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "a_package_of_the_test"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "sub" / "work.py").write_text("1")
    (package / "report.py").write_text("1")
    before = serving.code_digest(package.name, ("report",))
    (package / "report.py").write_text("2")
    assert serving.code_digest(package.name, ("report",)) == before
    assert serving.code_digest(package.name) != before
    (package / "sub" / "work.py").write_text("2")
    assert serving.code_digest(package.name, ("report",)) != before
