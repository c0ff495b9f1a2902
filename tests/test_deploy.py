"""What is in deploy/ is valid and fits together: manifests, the settings in them, who may reach whom, and secrets."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from guard import config
from guard.settings import Settings
from guard.stores.client import Server, StoreAway
from guard.stores.valkey import ValkeyStore
from tests.servers import install, valkey
from tests.stores.contract import ask, row
from tests.stores.test_valkey_access import USER, allowed

DEPLOY = Path(__file__).parent.parent / "deploy"
SHARED = DEPLOY / "shared-history.yaml"
VERSIONS = ("1.29", kubernetes_validate.latest_version())  # native sidecars began with 1.29
ROOTLESS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def objects(*files: Path) -> list[dict[str, Any]]:
    return [
        one
        for file in files or sorted(DEPLOY.glob("*.yaml"))
        for one in yaml.safe_load_all(file.read_text())
        if "kind" in one
    ]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in objects(SHARED) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pods() -> list[dict[str, Any]]:
    """The specs of all pods."""
    return [
        one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        for one in objects()
        if one["kind"] in {"Pod", "Deployment"}
    ]


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (*pod.get("initContainers", ()), *pod["containers"])


def settings() -> Settings:
    return config.load(None, {}, yaml.safe_load(named("ConfigMap", "guard")["data"]["guard.yaml"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    assert len(objects()) > 8
    for one in objects():
        kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_manifest_is_seen() -> None:
    wrong = objects(DEPLOY / "kubernetes-pod.yaml")[0]
    wrong["spec"]["initContainers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_containers_have_least_privilege() -> None:
    assert len(pods()) == 3
    for pod in pods():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["enableServiceLinks"] is False
        for one in containers(pod):
            context = one["securityContext"]
            assert context.items() >= ROOTLESS.items()
            assert context["runAsUser"] > 0
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            written = [mount for mount in one["volumeMounts"] if not mount.get("readOnly")]
            assert all("emptyDir" in volumes[mount["name"]] for mount in written)
            assert context["readOnlyRootFilesystem"]
            assert one["resources"]["limits"]["memory"]
    for name in ("mnist", "valkey"):
        assert named("Deployment", name)["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_no_manifest_holds_a_secret() -> None:
    assert "Secret" not in {one["kind"] for one in objects()}
    assert not [one for pod in pods() for c in containers(pod) for one in c.get("env", ()) if "value" in one]


def mounted(pod: dict[str, Any], container: dict[str, Any]) -> set[str]:
    """The files that the manifest puts into a container, as far as it says their names."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secrets = {"guard": ["secret"], "valkey-users": ["users.acl"], "valkey-tls": ["tls.crt", "tls.key", "ca.crt"]}
    found = set()
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "projected" in volume:
            names = [item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
        elif "secret" in volume:
            names = secrets[volume["secret"]["secretName"]]
        elif volume.get("configMap", {}).get("name") in {"guard", "valkey"}:
            names = list(named("ConfigMap", volume["configMap"]["name"])["data"])
        else:
            names = []
        found |= {mount["mountPath"], *(f"{mount['mountPath']}/{name}" for name in names)}
    return found


def test_the_settings_are_valid_and_name_what_is_mounted() -> None:
    made = settings()
    pod = named("Deployment", "mnist")["spec"]["template"]["spec"]
    files = mounted(pod, pod["initContainers"][0])
    store = made.history.valkey
    assert {str(store.password_file), str(store.ca_file), str(made.secret_file), str(made.models[0].profile)} <= files
    assert pod["initContainers"][0]["args"][-1] in files
    assert not {file for file in files if file.endswith(("tls.key", "users.acl"))}
    server = named("Deployment", "valkey")["spec"]["template"]["spec"]
    told = re.findall(r" (/etc\S+)$", named("ConfigMap", "valkey")["data"]["valkey.conf"], re.MULTILINE)
    assert len(told) == 4
    assert {*told, server["containers"][0]["command"][-1]} <= mounted(server, server["containers"][0])


def test_names_lead_to_pods() -> None:
    for name, (port, labels) in {"mnist": ("grpc", {"app": "mnist"}), "valkey": ("valkey", {"app": "valkey"})}.items():
        service, pod = named("Service", name)["spec"], named("Deployment", name)["spec"]["template"]
        assert service["selector"] == labels == pod["metadata"]["labels"]
        ports = {one["name"]: one["containerPort"] for c in containers(pod["spec"]) for one in c.get("ports", ())}
        assert ports[service["ports"][0]["targetPort"]] == service["ports"][0]["port"]
        assert service["ports"][0]["name"] == port
    assert settings().history.valkey.addresses == (f"valkey:{named('Service', 'valkey')['spec']['ports'][0]['port']}",)


def test_only_guard_reaches_the_valkey() -> None:
    policy = named("NetworkPolicy", "valkey")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app": "valkey"}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "egress" not in policy  # so none
    ((rule),) = policy["ingress"]
    assert rule == {"from": [{"podSelector": {"matchLabels": {"app": "mnist"}}}], "ports": [{"port": 6379}]}
    allowed_out = named("NetworkPolicy", "mnist")["spec"]["egress"]
    assert [port["port"] for one in allowed_out for port in one["ports"]] == [6379, 53, 53]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What the commands at the head of the file make, but for kubectl's part: users.acl and password."""
    lines = [line[4:] for line in SHARED.read_text().splitlines() if line.startswith("#   ")]
    commands = [re.sub(r"\| kubectl .*--from-file=(\w+)=/dev/stdin", r"> \1", one) for one in lines]
    commands = [one for one in commands if not one.startswith("kubectl")]
    assert len(lines) == len(commands) + 1 == 9
    subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=tmp_path, check=True)
    return tmp_path


def test_the_commands_make_the_documented_user(secrets: Path) -> None:
    default, user = (secrets / "users.acl").read_text().splitlines()
    assert default == "user default off"
    assert allowed(user) == allowed(USER)
    assert {one for one in user.split() if one[0] not in "#+"} == {one for one in USER.split() if one[0] != "+"}
    assert len((secrets / "secret").read_text().strip()) == len((secrets / "password").read_text()) == 64


@pytest.fixture
def certificate(secrets: Path) -> Path:
    """As somebody else would issue it: tls.crt, tls.key, ca.crt, beside what the commands make."""
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=valkey")
    names = ("-addext", "subjectAltName=DNS:valkey,IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt")
    subprocess.run(["openssl", "req", "-x509", *made, *names], cwd=secrets, check=True, capture_output=True)
    (secrets / "ca.crt").write_bytes((secrets / "tls.crt").read_bytes())
    return secrets


async def test_the_server_and_the_settings_work_together(certificate: Path) -> None:
    """On a real Redis, whose server has TLS: the same configuration, but for where files and the address are."""
    program = install.redis() or pytest.skip("there is no redis-server, and it is not ours to install one")
    port, conf = valkey.free_port(), named("ConfigMap", "valkey")["data"]["valkey.conf"]
    conf = re.sub(r"/etc/valkey-(users|tls)", str(certificate), conf).replace("tls-port 6379", f"tls-port {port}")
    (certificate / "valkey.conf").write_text(conf)
    plain = settings().history.valkey.model_dump(exclude={"timeout_s", "on_away"})
    own = {name: certificate / plain[name].name for name in ("password_file", "ca_file")}
    server = Server(**plain | own | {"addresses": (f"127.0.0.1:{port}",)})
    with valkey.start(certificate, "--include", str(certificate / "valkey.conf"), port=port, program=program):
        store = ValkeyStore(server, timeout_s=5.0)
        assert await ask(store, row(1, 2), row(1, 3)) == [(0, False), (1, False)]
        await store.close()
        (certificate / "password").write_text("a guess")
        stranger = ValkeyStore(server, timeout_s=5.0)
        with pytest.raises(StoreAway, match="wrong user or password"):
            await ask(stranger, row(1, 2))
        await stranger.close()
