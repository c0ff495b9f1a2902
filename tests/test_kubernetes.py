"""The chart, kustomize and the plain manifests: rendered by real tools, valid, of least privilege; copies are fresh."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import check, made
from guard import config
from guard.proxy.health import OWN
from tests.servers import kubernetes

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rendered() -> dict[str, Objects]:
    return check.rendered()


def test_everything_is_valid(rendered: dict[str, Objects]) -> None:
    assert [what for name, objects in rendered.items() for what in check.problems(name, objects)] == []
    kinds = {one["kind"] for objects in rendered.values() for one in objects}
    assert kinds >= {
        "Deployment", "StatefulSet", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget",
        "HorizontalPodAutoscaler", "PodMonitor", "PrometheusRule", "ServingRuntime", "InferenceService",
    }  # fmt: skip


def broken(objects: Objects, kind: str, *path: str | int, value: object) -> Objects:
    """The objects with one thing changed; None: taken away."""
    changed = copy.deepcopy(objects)
    at: Any = next(one for one in changed if one["kind"] == kind and one["metadata"]["name"] != "valkey")
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return changed


POD = ("spec", "template", "spec")
GUARD = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("where", "kind", "path", "value", "what"),
    [
        ("kustomize base", "Deployment", (*GUARD, "readinesProbe"), {}, "readinesProbe"),
        ("kustomize base", "Deployment", (*GUARD, "livenessProbe"), None, "no probe"),
        ("kustomize base", "Deployment", (*GUARD, "securityContext", "capabilities"), None, "capabilities"),
        ("kustomize base", "Deployment", (*GUARD, "securityContext", "readOnlyRootFilesystem"), False, "writes to"),
        ("kustomize base", "Deployment", (*GUARD, "securityContext", "runAsUser"), 0, "as root"),
        ("kustomize base", "Deployment", (*GUARD, "resources", "requests"), None, "asks for nothing"),
        ("kustomize base", "Deployment", (*GUARD, "volumeMounts", 2), None, "$TMPDIR"),
        ("kustomize base", "Deployment", (*GUARD, "volumeMounts", 1), None, "is not mounted"),
        ("kustomize base", "Deployment", (*POD, "volumes", 0), None, "no volume"),
        ("kustomize base", "Deployment", (*POD, "automountServiceAccountToken"), True, "a token"),
        ("kustomize base", "Deployment", (*POD, "terminationGracePeriodSeconds"), 30, "before it has drained"),
        ("kustomize base", "Deployment", (*POD, "terminationGracePeriodSeconds"), 50, "before it has drained"),
        ("kustomize triton", "Deployment", (*GUARD, "lifecycle"), None, "['triton'] end in the wrong order"),
        (
            "kustomize triton", "Deployment", (*POD, "initContainers", 0, "lifecycle"), None,
            "['guard'] end in the wrong order",
        ),
        (
            "kustomize kserve-collocated", "InferenceService",
            ("spec", "predictor", "containers", 0, "readinessProbe"), None, "where nothing listens",
        ),
        (
            "kustomize kserve-collocated", "InferenceService", ("spec", "predictor", "labels"), {},
            "PodDisruptionBudget guard-sidecar: selects no pod",
        ),
        ("kustomize base", "ConfigMap", ("data", "guard.yaml"), "upstraem: {}", "upstraem"),
        ("kustomize base", "Service", ("spec", "selector"), {"app": "nobody"}, "selects no pod"),
        ("kustomize triton", "PodMonitor", ("spec", "podMetricsEndpoints", 0, "prot"), "metrics", "prot"),
        ("kustomize triton", "PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), None, "expr"),
        (
            "kustomize kserve-runtime", "ServingRuntime", ("spec", "containers", 0, "securityContext"), None,
            "kserve-container runs as root",
        ),
        ("kustomize kserve-collocated", "InferenceService", ("spec", "predictor", "conatiners"), [], "conatiners"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_seen(
    rendered: dict[str, Objects], where: str, kind: str, path: tuple[str | int, ...], value: object, what: str
) -> None:
    found = check.problems(where, broken(rendered[where], kind, *path, value=value))
    assert any(what in one for one in found), found


def test_nothing_goes_around_guard(rendered: dict[str, Objects]) -> None:
    """Beside Guard a server binds loopback and has no port; behind a gateway a policy lets Guard alone in."""
    for name in ("helm sidecar", "kustomize triton", "kustomize kserve-runtime", "kustomize kserve-collocated"):
        (server,) = servers(rendered[name])
        assert "--grpc-address=127.0.0.1" in server["args"]
        assert "ports" not in server
    (mlserver,) = servers(rendered["kustomize mlserver"])
    assert {"name": "MLSERVER_HOST", "value": "127.0.0.1"} in mlserver["env"]
    for name, policy in (("helm gateway", "guard-to-triton"), ("kustomize base", "guard-to-servers")):
        (found,) = (one for one in rendered[name] if one["metadata"]["name"] == policy)
        ((rule,),) = (found["spec"]["ingress"],)
        (peer,) = rule["from"]
        (guard,) = (one for one in rendered[name] if one["kind"] == "Deployment")
        wanted = peer["podSelector"]["matchLabels"].items()
        assert wanted <= guard["spec"]["template"]["metadata"]["labels"].items()


def servers(objects: Objects) -> list[dict[str, Any]]:
    pods = [pod for one in objects if one["kind"] != "StatefulSet" and (pod := check.template(one))]
    found = [one for pod in pods for one in check.containers(pod["spec"])]
    return [one for one in found if one["name"] not in {"guard", "transformer-container", "valkey"}]


def test_other_settings_are_other_pods(rendered: dict[str, Objects]) -> None:
    sums = {
        one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for name in ("helm several", "helm gateway", "helm sidecar")
        for one in rendered[name]
        if one["kind"] == "Deployment"
    }
    assert len(sums) == 3


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ("modes: gateway", "modes"),
        ("drainSeconds: -1", "drainSeconds"),
        ("resources: {limits: {}, requests: null}", "requests"),
        ("tls: {clientCaSecret: ca}", "goes with tls.secretName"),
        ("valkey: {enabled: true}", "valkey.addresses, or valkey.bundled"),
        ("secret: {existingSecret: ''}\nvalkey: {enabled: true, bundled: true}", "need the same secret"),
        ("config: {upstream: {address: 'a:1'}}\nprofiles: [{name: a}]", "one of configMap"),
        ("", "config.upstream.address: the model server"),
        ("config: {models: [{name: a, upstream: {address: 'a:1'}}, {name: b}]}", "config.upstream.address: the model"),
        ("config: {models: [{name: a, upstream: {dialect: triton}}]}", "config.upstream.address: the model"),
        ("config: {upstream: {dialect: triton}, models: [{name: a, upstream: {address: 'a:1'}}]}", "is needed where"),
        (
            "{upstreamTls: {secretName: a}, config: {models: [{name: a, upstream: {address: 'a:1'}}]}}",
            "is needed where",
        ),
        ("config: {upstream: {address: 'a:1'}, limits: null}", "limits"),
        ("config: null", "config"),
        ("{mode: sidecar, server: {image: a, port: 9464}}", "is Guard's own"),
        ("{readinessService: m, tls: {secretName: a}, config: {upstream: {address: 'a:1'}}}", "speaks no TLS"),
        ("mode: sidecar", "server.image"),
        ("{mode: sidecar, config: {upstream: {address: 'a:1'}}}", "server.port on loopback"),
        ("config: {listen: {address: '0.0.0.0:1'}}", "config.listen.address: ports"),
        ("config: {listen: {tls: {cert_file: /a}}}", "config.listen.tls: ports"),
        ("config: {admin: {http: null}}", "config.admin.http: ports"),
        ("config: {limits: {drain_s: 3}}", "config.limits.drain_s: ports"),
        ("config: {secret_file: /a}", "the chart mounts secret.existingSecret"),
    ],
)
def test_the_chart_refuses(tmp_path: Path, values: str, what: str) -> None:
    (tmp_path / "values.yaml").write_text(values)
    with pytest.raises(RuntimeError, match=what):
        kubernetes.run(
            kubernetes.helm(), "template", "guard", str(check.CHART), "--values", str(tmp_path / "values.yaml")
        )


def test_a_parent_chart_takes_the_parts(tmp_path: Path) -> None:
    """As docs/kubernetes.md says: the container and its volumes in a pod of one's own."""
    page = (check.DEPLOY.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (values,) = re.findall(r"`(guard: \{mode: parts.*\})`", page)
    chart, template = (part.partition("```")[0] for part in page.split("```yml\n")[1:3])
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(chart.replace("REPOSITORY", str(check.DEPLOY / "helm")))
    (tmp_path / "templates" / "pod.yaml").write_text(template)
    (tmp_path / "values.yaml").write_text(values)
    kubernetes.run(kubernetes.helm(), "dependency", "build", "--skip-refresh", str(tmp_path))
    text = kubernetes.run(kubernetes.helm(), "template", "mine", str(tmp_path))
    objects = [one for one in yaml.safe_load_all(text) if one]
    assert {one["kind"] for one in objects} == {"ConfigMap", "Pod"}
    assert check.problems("parts", objects) == []


def test_copies_are_fresh() -> None:
    assert made.stale() == [], "python -m deploy.check --write"


def test_the_table_has_every_value() -> None:
    text = (check.CHART / "values.yaml").read_text()
    keys = {key for key, _, _ in made.table(text)}
    tree = yaml.safe_load(text)
    leaves = {key for key, value in tree.items() if not isinstance(value, dict) or not value} | {"resources", "config"}
    below = {f"{key}.{leaf}" for key in tree.keys() - leaves for leaf in tree[key]}
    assert keys == leaves | below


def test_valkey_s_settings_are_those_of_the_plain_manifest(rendered: dict[str, Objects]) -> None:
    confs = {
        one["data"]["valkey.conf"]
        for objects in rendered.values()
        for one in objects
        if one["kind"] == "ConfigMap" and "valkey.conf" in one["data"]
    }
    assert len(confs) == 1


def test_the_gateway_s_settings_are_what_its_parts_say(rendered: dict[str, Objects]) -> None:
    objects = rendered["kustomize gateway"]
    named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    pod = named["Deployment", "guard"]["spec"]["template"]["spec"]
    (text,) = (one["data"]["guard.yaml"] for one in objects if "guard.yaml" in one.get("data", {}))
    env = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    made_of = config.load(None, env, yaml.safe_load(text))
    assert made_of.history.store == "valkey"
    assert made_of.listen.tls is not None
    assert made_of.listen.tls.require_client_cert
    assert "grpc" not in pod["containers"][0]["readinessProbe"]  # the kubelet's speaks no TLS


def test_a_gateway_is_ready_without_its_servers_a_sidecar_with_its_own(rendered: dict[str, Objects]) -> None:
    """Else one server that is away takes the models of all others out of service."""

    def probe(name: str, *path: str | int) -> Any:
        (found,) = (
            one for one in rendered[name] if one["kind"] == "Deployment" and one["metadata"]["name"] != "valkey"
        )
        at = found["spec"]["template"]["spec"]
        for key in path:
            at = at[key]
        at = at["readinessProbe"]
        return at.get("grpc") or at["httpGet"]["path"]

    gateway, sidecar = ("containers", 0), ("initContainers", 0)
    own = {"port": 9000, "service": OWN}
    assert probe("kustomize base", *gateway) == probe("helm several", *gateway) == own
    assert probe("kustomize gateway", *gateway) == probe("helm gateway", *gateway) == "/readyz/any"  # TLS
    assert probe("kustomize triton", *sidecar) == probe("helm sidecar", *sidecar) == {"port": 9000}


def test_a_secret_is_mounted_as_far_as_it_is_read(rendered: dict[str, Objects]) -> None:
    """Of the server's the CA alone, unless Guard shows a certificate of its own."""
    (mutual,) = (one for one in rendered["helm gateway"] if one["kind"] == "Deployment")
    volumes = {one["name"]: one for one in mutual["spec"]["template"]["spec"]["volumes"]}
    assert [one["key"] for one in volumes["guard-upstream"]["secret"]["items"]] == ["ca.crt", "tls.crt", "tls.key"]
    text = kubernetes.run(
        kubernetes.helm(), "template", "guard", str(check.CHART), "--values", str(check.CHART / "ci" / "several.yaml"),
        "--set", "upstreamTls.secretName=ca", "--set", "config.upstream.address=triton:8001",
    )  # fmt: skip
    objects = [one for one in yaml.safe_load_all(text) if one]
    assert check.problems("several", objects) == []
    (plain,) = (one for one in objects if one["kind"] == "Deployment")
    volumes = {one["name"]: one for one in plain["spec"]["template"]["spec"]["volumes"]}
    assert [one["key"] for one in volumes["guard-upstream"]["secret"]["items"]] == ["ca.crt"]


def test_both_ways_of_kustomize_stand_beside_each_other(rendered: dict[str, Objects]) -> None:
    """In one namespace no object of the one overwrites one of the other's, but those that are equal."""
    gateway, sidecar = (
        {(one["kind"], one["metadata"]["name"]): one for one in rendered[name] if one["kind"] != "ConfigMap"}
        for name in ("kustomize gateway", "kustomize triton")
    )
    both = gateway.keys() & sidecar.keys()
    assert {kind for kind, _ in both} >= {"NetworkPolicy", "PrometheusRule"}  # the Valkey's, and the rules
    assert [key for key in both if gateway[key] != sidecar[key]] == []


def test_hooks_are_everywhere_the_same(rendered: dict[str, Objects]) -> None:
    """Those of the plain pod, which tests/test_sidecar_end.py runs."""
    found: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
    for objects in rendered.values():
        for pod in filter(None, map(check.template, objects)):
            for one in check.containers(pod["spec"]):
                if hook := one.get("lifecycle", {}).get("preStop"):
                    found[one["name"] == "guard"].add(tuple(hook["exec"]["command"]))
    assert {len(commands) for commands in found.values()} == {1}
