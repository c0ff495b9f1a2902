"""Settings: one file, overrides, errors that name the key."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import guard
from guard import config
from guard.settings import Challenge, ConfigError, Model, Settings, build_stage
from guard.types import Action, Bucket, Level

BASE: dict[str, Any] = {"upstream": {"address": "127.0.0.1:8001"}}


def model(**values: Any) -> dict[str, Any]:
    return BASE | {"models": [{"name": "m", "profile": "p"} | values]}


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "guard.yaml"
    file.write_text(text)
    return config.load(file, environ or {})


def test_defaults_are_safe(tmp_path: Path) -> None:
    settings = load(tmp_path, "upstream: {address: 127.0.0.1:8001}\nmodels: [{name: m}]\n")
    assert settings.listen.address.startswith("127.0.0.1:")
    assert str(settings.admin.http).startswith("127.0.0.1:")
    assert str(settings.admin.grpc).startswith("127.0.0.1:")
    assert settings.models[0].mode == "shadow"
    assert settings.unlisted_models == "deny"
    assert settings.methods.allow == ()
    assert guard.load_settings is config.load


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize(
    ("tree", "path", "text"),
    [
        ({}, "", "nothing to guard"),
        (BASE | {"history": {"store": "valkey", "valkey": {"timeout_s": 1.0}}}, "", "less than limits"),
        (
            BASE | {"batching": {"max_wait_us": 50_000}, "limits": {"inspection_timeout_s": 0.05}},
            "",
            "batching.max_wait",
        ),
        (BASE | {"colour": 1}, "colour", "unknown key"),
        ({"upstream": {"address": "a", "tls": {"x": 1}}}, "upstream.tls.x", "unknown key"),
        (BASE | {"limits": {"max_rows": 0}}, "limits.max_rows", "greater than or equal to 1"),
        (BASE | {"identity": {"chain": [{"kind": "guess"}]}}, "identity.chain.0", "guess"),
        (
            BASE | {"identity": {"chain": [{"kind": "jwt", "keys_file": "k", "algorithms": ["HS256"]}]}},
            "algorithms",
            "",
        ),
        (BASE | {"identity": {"chain": [{"kind": "header", "header": "h", "trusted_peers": []}]}}, "trusted_peers", ""),
        (BASE | {"listen": {"tls": {"cert_file": "c", "key_file": "k", "require_client_cert": True}}}, "", "client_ca"),
        ({"upstream": {"address": "a", "tls": {"cert_file": "c"}}}, "upstream.tls", "go together"),
        ({"models": [{"name": "m"}]}, "", "neither an upstream nor a file"),
        (BASE | {"models": [{"name": "m"}, {"name": "m"}]}, "", "listed twice"),
        (
            {"models": [{"name": "m", "upstream": {"address": "a"}, "embedded": {"file": "f"}}]},
            "models.0",
            "exclude each other",
        ),
        (BASE | {"models": [{"name": "m", "detectors": [{"stage": "test_mean"}]}]}, "models.0", "need a profile"),
        (model(detectors=[{"stage": "nope"}]), "models.0.detectors.0.stage", "no detector is called 'nope'"),
        (
            model(detectors=[{"stage": "test_mean", "options": {"x": 1}}]),
            "models.0.detectors.0.options.x",
            "unknown option; test_mean has: scale",
        ),
        (
            model(purifiers=[{"stage": "test_halve", "options": {"x": 1}}]),
            "models.0.purifiers.0.options.x",
            "has: none",
        ),
        (
            model(detectors=[{"stage": "test_mean", "options": {"scale": "big"}}]),
            "models.0.detectors.0.options.scale",
            "valid number",
        ),
        (model(detectors=[{"stage": "test_mean"}, {"stage": "test_mean"}]), "models.0", "listed twice"),
        (model(detectors=[{"stage": "test_mean"}], policy={"on_input": "purify"}), "models.0", "no purifier"),
        (model(detectors=[{"stage": "test_mean"}], policy={"on_input": "degrade"}), "models.0", "no output protection"),
        (model(monitors=[{"stage": "test_overlap"}], policy={"on_hostile": "degrade"}), "models.0", "no output"),
        (model(policy={"on_clear": "challenge"}, profile=None), "models.0", "needs a profile"),
        (model(policy={"on_clear": "deny"}), "models.0.policy.on_clear", "allow"),
        (
            model(challenge={"hashes_per_row": 10_000, "max_hashes_per_row": 5000}),
            "models.0.challenge",
            "at least hashes_per_row",
        ),
        (model(challenge={"growth": 0.5}), "models.0.challenge.growth", "greater than or equal to 1"),
    ],
)
def test_errors_name_the_key(tmp_path: Path, tree: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, yaml.safe_dump(tree))
    assert path in error.value.path
    assert text in str(error.value)


@pytest.mark.usefixtures("stages")
def test_a_stage_gets_its_options(tmp_path: Path) -> None:
    settings = load(tmp_path, yaml.safe_dump(model(detectors=[{"stage": "test_mean", "options": {"scale": 2}}])))
    stage = settings.models[0].detectors[0]
    assert build_stage("detector", stage.stage, stage.options).scale == 2.0
    with pytest.raises(ConfigError, match=r"^stage: no output"):
        build_stage("output", "none", {})
    with pytest.raises(ConfigError, match=r"^options\.scale"):
        build_stage("detector", "test_mean", {"scale": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- 1", "must be a mapping"),
        ("upstream: {address: a}\nupstream: {address: b}", r"upstream: given twice \(line 2\)"),
        ("listen: {a:,{b: 1}}", r"a key that is no name \(line 1\)"),
        ("listen: !!python/object:os.system {}", "not YAML"),
    ],
)
def test_what_is_not_a_settings_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path / "absent.yaml", {})
    (tmp_path / "guard.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(tmp_path / "guard.yaml", {})


def test_an_empty_file_falls_back_to_the_flags(tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text("# nothing yet\n")
    assert config.load(tmp_path / "guard.yaml", {}, BASE).upstream is not None
    assert config.load(None, {}, BASE).upstream is not None


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {
        "GUARD_LIMITS__MAX_ROWS": "8",
        "GUARD_MODELS__0__MODE": "enforce",
        "GUARD_METHODS__ALLOW__0": "TraceSetting",
        "GUARD_UPSTREAM__TLS__SERVER_NAME": "triton",
        "GUARD_SECRET": "not a setting",
        "HOME": "/",
    }
    text = "upstream: {address: a, tls: null}\nmodels: [{name: m}]\nmethods: {allow: [LogSettings]}\n"
    settings = load(tmp_path, text, environ)
    assert settings.limits.max_rows == 8
    assert settings.models[0].mode == "enforce"
    assert settings.methods.allow == ("TraceSetting",)
    assert settings.upstream is not None
    assert settings.upstream.tls is not None
    assert settings.upstream.tls.server_name == "triton"


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("GUARD_LIMIT__MAX_ROWS", "limit"),
        ("GUARD_MODELS__1__MODE", "GUARD_MODELS__1__MODE"),
        ("GUARD_MODELS__X__MODE", "GUARD_MODELS__X__MODE"),
        ("GUARD_MODELS__7", "GUARD_MODELS__7"),
        ("GUARD_UPSTREAM__ADDRESS__HOST", "GUARD_UPSTREAM__ADDRESS__HOST"),
    ],
)
def test_an_override_of_nothing_is_an_error(tmp_path: Path, variable: str, path: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "upstream: {address: a}\nmodels: [{name: m}]\n", {variable: "1"})
    assert error.value.path == path


@pytest.mark.usefixtures("stages")
def test_the_schema_accepts_what_load_accepts_and_refuses_what_it_refuses() -> None:
    validator = jsonschema.Draft202012Validator(config.schema())
    validator.check_schema(config.schema())
    good = model(detectors=[{"stage": "test_mean", "options": {"scale": 2.0}}])
    assert not list(validator.iter_errors(good))
    for bad in (
        BASE | {"colour": 1},
        model(detectors=[{"stage": "nope"}]),
        model(detectors=[{"stage": "test_mean", "options": {"x": 1}}]),
        model(detectors=[{"stage": "test_mean", "options": {"scale": "big"}}]),
    ):
        assert list(validator.iter_errors(bad)), bad


def test_callers_may_be_asked_for_certificates() -> None:
    tls = {"cert_file": "c", "key_file": "k", "client_ca_file": "a", "require_client_cert": True}
    assert config.validate(BASE | {"listen": {"tls": tls}}).listen.tls is not None


def test_public_is_plain_and_the_digest_follows_the_settings() -> None:
    one, two = config.validate(BASE), config.validate(BASE | {"limits": {"max_rows": 7}})
    assert json.loads(json.dumps(config.public(one)))["upstream"]["address"] == "127.0.0.1:8001"
    assert config.digest(one) == config.digest(config.validate(BASE)) != config.digest(two)


def test_a_mistake_below_a_key_is_named_with_it() -> None:
    error = ConfigError("token_file", "is away").below("tracing.to")
    assert (error.path, str(error)) == ("tracing.to.token_file", "tracing.to.token_file: is away")
    assert str(ConfigError("", "is away").below("tracing.to")) == "tracing.to: is away"


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from file\n")

    def read(file: Path | None, environ: dict[str, str]) -> str | None:
        return config.read_secret(file, "GUARD_SECRET", environ, where="secret_file")

    assert read(None, {}) is None
    assert read(file, {}) == "from file"
    assert read(file, {"GUARD_SECRET": "from env"}) == "from env"
    with pytest.raises(ConfigError, match=r"^GUARD_SECRET: the secret is empty$"):
        read(None, {"GUARD_SECRET": " "})
    with pytest.raises(ConfigError, match=r"^secret_file: cannot read the secret in .*absent: No such file"):
        read(tmp_path / "absent", {})
    file.write_bytes(b"\n")
    with pytest.raises(ConfigError, match=r"^secret_file: the secret in .*secret is empty$"):
        read(file, {})
    file.write_bytes(b"key\xff")
    with pytest.raises(ConfigError, match=r"^secret_file: cannot read the secret in .*secret: not UTF-8$"):
        read(file, {})


def test_the_package_names_only_what_it_has() -> None:
    assert set(guard.__all__) >= {"Engine", "load_profile"}
    for name in guard.__all__:
        assert getattr(guard, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = guard.nothing


@pytest.mark.parametrize(
    ("budget", "unlimited"),
    [
        ({}, True),
        ({"burst_rows": 5}, True),
        ({"rows_per_s": 1}, False),
        ({"rows_per_day": 10}, False),
        ({"bits_per_day": 10}, False),
        ({"rows_per_s": 1, "mode": "off"}, True),
    ],
)
def test_a_budget_without_a_limit(budget: dict[str, Any], unlimited: bool) -> None:
    assert config.validate(model(budget=budget)).models[0].budget.unlimited is unlimited


@pytest.mark.parametrize(
    ("quarantine", "message"),
    [
        ({"payload": True}, "payload needs a url"),
        ({"url": "ftp://somewhere"}, "url"),
        ({"url": "s3://key:secret@bucket/p"}, "url"),
        ({"url": "s3://bucket/p", "s3": {"kms_key_id": "k"}}, "kms_key_id goes with"),
    ],
)
def test_a_quarantine_that_cannot_be(quarantine: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.validate(BASE | {"quarantine": quarantine})


def test_a_quarantine(tmp_path: Path) -> None:
    kms = {"server_side_encryption": "aws:kms", "kms_key_id": "k"}
    made = config.validate(BASE | {"quarantine": {"url": "s3://bucket/p", "s3": kms}})
    assert made.quarantine.s3.kms_key_id == "k"
    assert config.validate(BASE | {"quarantine": {"url": str(tmp_path), "payload": True}}).quarantine.payload
    assert config.validate(BASE).quarantine.url is None


@pytest.mark.parametrize("until", ["2027-01-01", "2027-01-01T00:00:00"])
def test_an_exemption_ends_at_a_time_in_a_zone(until: str) -> None:
    exempt = {"caller": "c", "until": until, "reason": "r", "approved_by": ["a"]}
    with pytest.raises(ConfigError, match=r"exempt\.0\.until"):
        config.validate(model(policy={"exempt": [exempt]}))


@pytest.mark.parametrize(
    "values", [{"rate_per_s": 0.0}, {"burst": float("inf")}, {"cost": -1.0}, {"cost": float("nan")}]
)
def test_a_bucket_of_nothing(values: dict[str, float]) -> None:
    assert Bucket("n", 1.0, 1.0).cost == 1.0
    with pytest.raises(ValueError, match="a bucket's rate and burst must be above 0"):
        Bucket(**{"name": "n", "rate_per_s": 1.0, "burst": 1.0, **values})


@pytest.mark.parametrize("key", ["rows_per_s", "rows_per_day", "bits_per_day", "burst_rows"])
def test_no_limit_is_said_by_leaving_it_out_not_by_infinity(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        config.validate(model(budget={key: float("inf")}))


def test_bits_need_a_profile_that_says_what_answers_mean() -> None:
    tree = BASE | {"models": [{"name": "m", "budget": {"bits_per_day": 5}}]}
    with pytest.raises(ConfigError, match="bits_per_day needs a profile"):
        config.validate(tree)


@pytest.mark.usefixtures("stages")
def test_one_entry_of_models_is_read_by_the_same_rules() -> None:
    one = config.model_of({"name": "m", "profile": "p", "outputs": [{"stage": "test_uniform", "degree": 2}]})
    assert (one.outputs[0].degree, one.mode) == (2, "shadow")


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"name": "m", "policy": {"on_input": "explode"}}, "policy.on_input"),
        ({"name": "m", "profile": "p", "detectors": [{"stage": "nonesuch"}]}, "detectors.0.stage"),
        (
            {"name": "m", "profile": "p", "detectors": [{"stage": "test_mean", "options": {"colour": 1}}]},
            "detectors.0.options.colour",
        ),
    ],
)
def test_its_errors_name_the_key_within_it(tree: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.model_of(tree)
    assert caught.value.path.startswith(path)


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize(
    ("policy", "outputs", "complaint"),
    [
        ({"on_watch": "degrade"}, [{"stage": "test_uniform", "degree": 2}], "on_watch"),
        ({"on_suspect": ["degrade", "delay"]}, [{"stage": "test_uniform", "degree": 3}], "on_suspect"),
        ({"on_hostile": "degrade"}, [{"stage": "test_uniform", "degree": 3}], None),
        ({"on_watch": "degrade"}, [{"stage": "test_uniform", "degree": 3, "when": "always"}], None),
        ({"on_watch": "degrade"}, [{"stage": "test_echo"}, {"stage": "test_uniform", "degree": 3}], None),
    ],
)
def test_what_is_to_be_degraded_can_be(policy: Any, outputs: Any, complaint: str | None) -> None:
    tree = model(policy=policy, outputs=outputs, monitors=[{"stage": "test_overlap"}])
    if complaint is None:
        assert config.validate(tree).models[0].outputs
    else:
        with pytest.raises(ConfigError, match=f"policy.{complaint} says degrade"):
            config.validate(tree)


@pytest.mark.parametrize(
    ("progress", "hashes"),
    [(0.0, 1000.0), (-1.0, 1000.0), (0.5, 8000.0), (0.75, 22_627.417), (1.0, 40_000.0), (2.0, 40_000.0)],
)
def test_a_row_costs_more_with_progress_up_to_a_bound(progress: float, hashes: float) -> None:
    challenge = Challenge(hashes_per_row=1000, growth=64, max_hashes_per_row=40_000)
    assert challenge.hashes(progress) == pytest.approx(hashes)


def policy_of(**values: Any) -> Model:
    return Model.model_validate({"name": "m", "profile": "p", "policy": values})


def test_who_is_challenged() -> None:
    assert not policy_of().challenges
    for key in ("on_input", "on_clear", "on_watch", "on_suspect", "on_hostile"):
        assert policy_of(**{key: "challenge"}).challenges
    assert policy_of(on_watch=["degrade", "challenge"]).challenges
    assert policy_of(on_clear="challenge").of_everybody == {Action.CHALLENGE}
    assert policy_of(on_clear="challenge").of(Level.WATCH) == {Action.ALLOW}


TWO = BASE | {"workers": 2}
ENFORCING = {"name": "n", "profile": "p", "mode": "enforce"}


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize(
    "remembers",
    [
        {"monitors": [{"stage": "test_overlap"}]},
        {"budget": {"rows_per_day": 10}},
        {"detectors": [{"stage": "test_mean"}], "policy": {"on_input": ["throttle"]}},
        {"policy": {"on_clear": "challenge"}},
    ],
)
def test_several_workers_share_what_they_remember(remembers: dict[str, Any]) -> None:
    tree = TWO | {"models": [{"name": "m"}, ENFORCING | remembers]}
    with pytest.raises(ConfigError, match=r"^history\.store: memory is each worker's own, .* models\.1 remembers"):
        config.validate(tree)
    assert config.validate(tree | {"workers": 1}).workers == 1
    assert config.validate(tree | {"history": {"store": "valkey"}}).workers == 2


@pytest.mark.usefixtures("stages")
def test_several_workers_that_remember_nothing_need_no_store() -> None:
    idle = {"monitors": [{"stage": "test_overlap", "mode": "off"}], "detectors": [{"stage": "test_mean"}]}
    assert config.validate(TWO | {"models": [{"name": "m"}, ENFORCING | idle]}).workers == 2


def test_several_workers_share_no_unix_socket() -> None:
    with pytest.raises(ConfigError, match=r"^listen\.address: a Unix socket has one listener"):
        config.validate(TWO | {"listen": {"address": "unix:/run/guard.sock"}})
