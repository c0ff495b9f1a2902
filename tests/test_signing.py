"""Profiles and settings that must be signed: what is taken, and what is not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard import cli, signing
from guard.profile import ProfileError, load_profile
from guard.settings import ConfigError, Model
from guard.signing import Unsigned, signers_of, vouch_of
from tests.proxy import world
from tests.proxy.conftest import world_stages
from tests.proxy.world import guarding, serving

__all__ = ["world_stages"]  # the fixture


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    """-> the files of a private and a public key, made with openssl."""

    def make(name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem"
        size = ["-pkeyopt", "rsa_keygen_bits:2048"] if algorithm == "rsa" else []
        _openssl("genpkey", "-algorithm", algorithm, *size, "-out", str(private))
        _openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
        return private, public

    return make


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture
def profile(tmp_path: Path, world_stages: None) -> Path:
    return Path(world.profile(tmp_path / "profile"))


def test_what_one_of_the_signers_signed_is_taken(keys: Any, profile: Path, tmp_path: Path) -> None:
    (mine, public), (_, other) = keys("mine"), keys("other")
    both = tmp_path / "both.pem"
    both.write_bytes(other.read_bytes() + b"# another\n" + public.read_bytes())
    assert cli.main(["sign", str(profile), "--key", str(mine)]) == 0
    for trusted in (public, both):
        signers = signers_of(trusted, "k")
        assert signers is not None
        assert load_profile(profile, signers.vouch("profile", "m")).input_name == "x"


def test_openssl_signs_as_well(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    file = profile / "profile.json"
    stated = profile.parent / "stated"
    stated.write_bytes(b'guard-signature-1 profile "m"\n' + file.read_bytes())
    _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(mine), "-in", str(stated), "-out", f"{file}.sig")
    signers = signers_of(public, "k")
    assert signers is not None
    load_profile(profile, signers.vouch("profile", "m"))


@pytest.mark.parametrize("wrong", ["no signature", "a stranger's", "changed", "another file's", "cut", "long", "hex"])
def test_what_is_not_signed_is_not_taken(keys: Any, profile: Path, tmp_path: Path, wrong: str) -> None:
    (mine, public), (stranger, _) = keys("mine"), keys("stranger")
    file = profile / "profile.json"
    signature = signing.sign(profile, mine)
    match wrong:
        case "no signature":
            signature.unlink()
        case "a stranger's":
            signing.sign(profile, stranger)
        case "changed":
            document = json.loads(file.read_text())
            file.write_text(json.dumps({**document, "notes": {"a": "b"}}))
        case "another file's":
            (tmp_path / "other").write_bytes(b"other")
            signature.write_bytes(signing.sign(tmp_path / "other", mine).read_bytes())
        case "cut":
            signature.write_bytes(signature.read_bytes()[:63])
        case "long":
            signature.write_bytes(bytes(2 * 1024 * 1024))
        case "hex":
            signature.write_text(signature.read_bytes().hex())
    signers = signers_of(public, "k")
    assert signers is not None
    load_profile(profile)  # the control
    with pytest.raises(ProfileError, match=r"must be signed|by a key that is trusted"):
        load_profile(profile, signers.vouch("profile", "m"))


def test_a_profile_is_no_other_models(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    signers = signers_of(public, "k")
    assert signers is not None
    signing.sign(profile, mine)  # it was made of the model m
    load_profile(profile, signers.vouch("profile", "m"))  # the control
    with pytest.raises(ProfileError, match=r"as profile 'other' by a key that is trusted"):
        load_profile(profile, signers.vouch("profile", "other"))


def test_a_version_in_the_name_keeps_former_profiles_out(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    signers = signers_of(public, "k")

    def vouch(signed_as: str) -> Any:
        return vouch_of(signers, Model(name="m", signed_as=signed_as))

    assert cli.main(["sign", str(profile), "--key", str(mine), "--name", "m@6"]) == 0
    load_profile(profile, vouch("m@6"))
    for later in ("m@7", "m"):
        with pytest.raises(ProfileError, match="by a key that is trusted"):
            load_profile(profile, vouch(later))
    assert vouch_of(None, Model(name="m")) is None


def test_a_kind_and_a_name_cannot_be_mistaken(keys: Any, tmp_path: Path) -> None:
    mine, public = keys("mine")
    signers = signers_of(public, "k")
    assert signers is not None
    file = tmp_path / "m"
    file.write_bytes(b"a: b\n")
    signing.sign(file, mine)
    signers.vouch("settings", "m")(file, file.read_bytes())  # the control
    for vouch in (signers.vouch("profile", "m"), signers.vouch("settings", 'm"\na: b'), signers.vouch("settings", "M")):
        with pytest.raises(Unsigned):
            vouch(file, file.read_bytes())
    with pytest.raises(Unsigned):  # what is said is no part of the file
        signers.vouch("settings", "m")(file, signing.statement("settings", "m", file.read_bytes()))


def test_a_signature_without_a_name_is_to_be_made_anew(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    signers = signers_of(public, "k")
    assert signers is not None
    file = profile / "profile.json"
    _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(mine), "-in", str(file), "-out", f"{file}.sig")
    with pytest.raises(ProfileError, match="sign it anew with `guard sign`"):
        load_profile(profile, signers.vouch("profile", "m"))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"no JSON", b"\xff"])
def test_a_profile_without_a_model_is_not_signed(keys: Any, profile: Path, text: bytes) -> None:
    mine, _ = keys("mine")
    (profile / "profile.json").write_bytes(text)
    assert cli.main(["sign", str(profile), "--key", str(mine)]) == 2
    assert not (profile / "profile.json.sig").exists()


def test_settings_are_signed_under_a_name(keys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of another deployment are not taken, whatever their file is called here."""
    mine, public = keys("mine")
    file, other = tmp_path / "guard.yaml", tmp_path / "other.yaml"
    for one in (file, other):
        one.write_text(yaml.safe_dump({"upstream": {"address": "127.0.0.1:1"}, "unlisted_models": "allow"}))
        signing.sign(one, mine)
    command = ["check", str(file), "--signers", str(public)]
    assert cli.main(command) == 0
    for suffix in ("", ".sig"):
        Path(f"{other}{suffix}").replace(f"{file}{suffix}")
    assert cli.main(command) == 2
    assert "as settings 'guard.yaml' by a key that is trusted" in capsys.readouterr().err
    signing.sign(file, mine, "blue@3")
    assert cli.main([*command, "--signed-as", "blue@3"]) == 0
    assert cli.main([*command, "--signed-as", "blue@4"]) == 2
    assert cli.main(["check", str(file), "--signed-as", "blue@3"]) == 2
    assert "--signed-as: needs --signers" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["there", "away"])
def test_a_signature_takes_the_place_of_a_symlink(keys: Any, profile: Path, tmp_path: Path, target: str) -> None:
    """And does not go where somebody else had it point."""
    mine, public = keys("mine")
    (tmp_path / "there").write_bytes(b"precious")
    beside = profile / "profile.json.sig"
    beside.symlink_to(tmp_path / target)
    before = {file.name for file in profile.iterdir()}
    assert signing.sign(profile, mine) == beside
    assert (tmp_path / "there").read_bytes() == b"precious"
    assert not (tmp_path / "away").exists()
    assert not beside.is_symlink()
    assert {file.name for file in profile.iterdir()} == before
    signers = signers_of(public, "k")
    assert signers is not None
    load_profile(profile, signers.vouch("profile", "m"))


def test_a_signature_that_cannot_be_put_leaves_nothing(keys: Any, profile: Path) -> None:
    mine, _ = keys("mine")
    beside = profile / "profile.json.sig"
    (beside / "taken").mkdir(parents=True)
    before = sorted(profile.iterdir())
    assert cli.main(["sign", str(profile), "--key", str(mine)]) == 2
    assert sorted(profile.iterdir()) == before


def test_files_beside_are_signed_with_it(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    signing.sign(profile, mine)
    (profile / "calibration.npz").write_bytes(b"other scores")
    signers = signers_of(public, "k")
    assert signers is not None
    with pytest.raises(ProfileError, match=r"not the file that profile\.json was"):
        load_profile(profile, signers.vouch("profile", "m"))


@pytest.mark.parametrize("text", ["", "nothing", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_keys_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.pem").write_text(text)
    with pytest.raises(ConfigError, match="signers_file"):
        signers_of(tmp_path / "k.pem", "signers_file")


def test_other_kinds_of_keys(keys: Any, tmp_path: Path) -> None:
    private, public = keys("rsa", "rsa")
    with pytest.raises(ConfigError, match="and no others"):
        signers_of(public, "k")
    (tmp_path / "file").write_text("a")
    with pytest.raises(ConfigError, match="needs an Ed25519 key"):
        signing.sign(tmp_path / "file", private)
    with pytest.raises(ConfigError, match="not a PEM private key"):
        signing.sign(tmp_path / "file", public)
    with pytest.raises(ConfigError, match="cannot read"):
        signers_of(tmp_path / "absent", "k")
    assert signers_of(None, "k") is None


def test_the_text_says_which_file(keys: Any, tmp_path: Path) -> None:
    _, public = keys("mine")
    signers = signers_of(public, "k")
    assert signers is not None
    with pytest.raises(Unsigned, match=r"a\.yaml must be signed: cannot read"):
        signers.vouch("settings", "a.yaml")(tmp_path / "a.yaml", b"")


def test_settings_that_must_be_signed(keys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, public = keys("mine")
    file = tmp_path / "guard.yaml"
    file.write_text(yaml.safe_dump({"upstream": {"address": "127.0.0.1:1"}, "unlisted_models": "allow"}))
    command = ["check", str(file), "--signers", str(public)]
    assert cli.main(command) == 2
    assert "must be signed" in capsys.readouterr().err
    assert cli.main(["sign", str(file), "--key", str(mine)]) == 0
    assert cli.main(command) == 0
    file.write_text(file.read_text() + "workers: 2\n")
    assert cli.main(command) == 2
    assert cli.main(["check", str(file)]) == 0
    assert cli.main(["serve", "--upstream", "127.0.0.1:1", "--signers", str(public)]) == 2
    assert "needs --config" in capsys.readouterr().err


async def test_a_reload_takes_signed_profiles_alone(keys: Any, profile: Path) -> None:
    mine, public = keys("mine")
    signing.sign(profile, mine)
    models = [{"name": "m", "profile": str(profile), "detectors": [{"stage": "test_mean"}]}]
    async with serving() as server:
        made = world.settings(server.address, models=models, signers_file=str(public))
        async with guarding(made) as guarded:
            assert await guarded.app.reload()
            (profile / "profile.json.sig").write_bytes(bytes(64))
            before = guarded.app.runtime
            assert not await guarded.app.reload()
            assert guarded.app.runtime is before
            assert guarded.count("guard_config_reloads_total", result="refused") == 1
