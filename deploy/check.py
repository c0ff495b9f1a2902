"""Are the manifests good? `python -m deploy.check` renders all and says what is wrong; `--write` makes what is made.

Rendered are the chart (with each file of ci/), the base and the examples of kustomize, and the plain
files. Checked are: Kubernetes' own schemas, strictly, of three versions; the least privilege of every container; that
settings load, and name files that are mounted; that Services and policies find pods. The kinds of the Prometheus
operator are checked against deploy/crds.json, which has the fields that are used here and no others; KServe's kinds as
the pods that they describe. No cluster is asked: what admission or a controller would say stays open.
"""

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import yaml

from deploy import made
from guard import config
from guard.proxy.app import LINGER_S
from guard.proxy.supervisor import OVERTIME_S
from guard.settings import ConfigError, Settings
from tests.servers import kubernetes

DEPLOY = Path(__file__).parent
CHART, KUSTOMIZE = DEPLOY / "helm" / "guard", DEPLOY / "kustomize"
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())  # native sidecars began with 1.29
LATER = {"helm image": ("1.33", "1.35", VERSIONS[-1])}  # image volumes did with 1.33
CRDS = json.loads((DEPLOY / "crds.json").read_text())
PREDICTOR = {"minReplicas", "maxReplicas", "model", "labels"}  # of KServe's predictor; all else is the pod's
RUNTIME = {"supportedModelFormats", "protocolVersions"}

_LOOPBACK = "127.0.0.1:"

Object = dict[str, Any]


def rendered() -> dict[str, list[Object]]:
    """All that an operator could apply, by where it comes from."""
    helm, kubectl = kubernetes.helm(), kubernetes.kubectl()
    found = {path.name: _load(path.read_text()) for path in DEPLOY.glob("*.yaml")}
    found = {name: objects for name, objects in found.items() if objects}
    for name, options in values().items():
        kubernetes.run(helm, "lint", "--strict", "--quiet", str(CHART), *options)
        found[f"helm {name}"] = _load(kubernetes.run(helm, "template", "guard", str(CHART), *options))
    for directory in (KUSTOMIZE / "base", *sorted((KUSTOMIZE / "examples").iterdir())):
        found[f"kustomize {directory.name}"] = _load(kubernetes.run(kubectl, "kustomize", str(directory)))
    return found


def values() -> dict[str, list[str]]:
    """The values that the chart is rendered with; its own alone name no server, and are refused."""
    return {file.stem: ["--values", str(file)] for file in sorted((CHART / "ci").glob("*.yaml"))}


def _load(text: str) -> list[Object]:
    return [
        one
        for one in yaml.load_all(text, yaml.CSafeLoader)
        if isinstance(one, dict) and "kind" in one and "apiVersion" in one
    ]


def problems(name: str, objects: list[Object]) -> list[str]:
    """What is wrong with them."""
    pods = [(one, pod) for one in objects if (pod := template(one))]
    return [
        f"{name}: {what}"
        for found in (
            *(_schema(one, LATER.get(name, VERSIONS)) for one in objects),
            *(_least(one, pod) for one, pod in pods),
            *(_settings(one, pod["spec"], objects) for one, pod in pods),
            _found(objects, [pod for _, pod in pods]),
        )
        for what in found
    ]


def title(one: Object) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def template(one: Object) -> Object | None:
    """The pod that an object describes."""
    spec = one.get("spec", {})
    if one["kind"] == "InferenceService":
        pod = {key: value for key, value in spec["predictor"].items() if key not in PREDICTOR}
        labels = {"labels": spec["predictor"].get("labels", {})}
        return {"metadata": labels, "spec": pod} if "containers" in pod else None
    if one["kind"] == "ServingRuntime":
        return {"metadata": {}, "spec": {key: value for key, value in spec.items() if key not in RUNTIME}}
    return one if one["kind"] == "Pod" else spec.get("template")


def _schema(one: Object, versions: tuple[str, ...]) -> Iterator[str]:
    group = one["apiVersion"].partition("/")[0]
    if group == "monitoring.coreos.com":
        errors = jsonschema.Draft7Validator(CRDS[one["kind"]]).iter_errors(one)
        yield from (f"{title(one)}: {error.json_path}: {error.message}" for error in errors)
        return
    if group in {"serving.kserve.io", "kustomize.config.k8s.io"}:
        pod = template(one)
        one = {"apiVersion": "v1", "kind": "Pod", "metadata": one["metadata"], "spec": pod["spec"]} if pod else {}
    for version in versions if one else ():
        if complaint := _complaint(json.dumps(one), version):
            yield f"{title(one)}, Kubernetes {version}: {complaint}"


@functools.cache  # many places have the same object
def _complaint(one: str, version: str) -> str:
    try:
        kubernetes_validate.validate(json.loads(one), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{list(error.path)}: {error.message}"
    return ""


def containers(pod: Mapping[str, Any]) -> Iterator[Object]:
    yield from (*pod.get("initContainers", ()), *pod["containers"])


def _least(one: Object, pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    if one["kind"] != "ServingRuntime":  # what is the pod's stands in the InferenceService
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
            yield f"{title(one)}: the pod has a token or the names of services"
        if spec["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{title(one)}: no seccomp profile"
    for container in containers(spec):
        context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        where = f"{title(one)}: {container['name']}"
        asked = container.get("resources", {})
        good = {
            "runs as root": context.get("runAsNonRoot") and context.get("runAsUser", 0) > 0,
            "may gain privileges": context.get("allowPrivilegeEscalation") is False,
            "writes to its root": context.get("readOnlyRootFilesystem"),
            "has capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            "asks for nothing": {"cpu", "memory"} <= set(asked.get("requests", {})),
            "has no bound of memory": "memory" in asked.get("limits", {}),
            "has no probe": container["name"] not in {"guard", "valkey"} or "livenessProbe" in container,
        }
        yield from (f"{where} {what}" for what, is_good in good.items() if not is_good)


def _settings(one: Object, pod: Object, objects: list[Object]) -> Iterator[str]:
    """guard.yaml of the pod's ConfigMap under the container's environment, and what it names."""
    maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in containers(pod):
        if "/etc/guard/guard.yaml" not in container.get("args", ()):
            continue
        mounts = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container["volumeMounts"]}
        if missing := [path for path, volume in mounts.items() if volume is None]:
            yield f"{title(one)}: no volume for {missing}"
        if not (mounts.get("/tmp") or {}).get("emptyDir"):
            yield f"{title(one)}: workers cannot write to $TMPDIR"
        source = (mounts.get("/etc/guard") or {}).get("configMap", {}).get("name")
        if source not in maps:
            if one["kind"] != "Pod":  # the one plain pod leaves it to the reader
                yield f"{title(one)}: no ConfigMap {source}"
            continue
        env = {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}
        try:
            settings = config.load(None, env, yaml.safe_load(maps[source]["guard.yaml"]))
        except ConfigError as error:
            yield f"{title(one)}: {error}"
            continue
        named = [path for path in _paths(settings.model_dump()) if not any(path.is_relative_to(at) for at in mounts)]
        yield from (f"{title(one)}: {path} is not mounted" for path in named)
        ended_s = settings.limits.drain_s + LINGER_S + OVERTIME_S
        if one["kind"] != "ServingRuntime" and pod["terminationGracePeriodSeconds"] <= ended_s:
            yield f"{title(one)}: killed before it has drained"
        if one["kind"] != "Deployment" or "initContainers" in pod:
            yield from (f"{title(one)}: {what}" for what in _beside(pod, settings))


def _beside(pod: Object, settings: Settings) -> Iterator[str]:
    """What is wrong with a pod of a server and Guard."""
    if unhooked := [each["name"] for each in hookless(pod)]:
        yield f"{unhooked} end in the wrong order"
    asked = [settings.upstream, *(model.upstream for model in settings.models)]
    yield from (f"a sidecar that asks {one.address}" for one in asked if one and not one.address.startswith(_LOOPBACK))
    for container in containers(pod):  # KServe asks a port of the pod's address where nothing is said
        if container["name"] == "kserve-container" and "exec" not in container.get("readinessProbe", {}):
            yield "kserve-container is asked where nothing listens"


def hookless(pod: Object) -> Iterator[Object]:
    """Containers of a pod with Guard beside a server that end too soon, or too late.

    A plain container of Guard's gets SIGTERM when the others do. As a native sidecar it gets it when these have ended.
    """
    for container in containers(pod):
        is_plain_guard = container["name"] == "transformer-container"
        if "preStop" not in container.get("lifecycle", {}) and not is_plain_guard:
            yield container


def _paths(tree: object) -> Iterator[Path]:
    if isinstance(tree, Path):
        yield tree
    for below in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        yield from _paths(below)


def _found(objects: list[Object], pods: list[Object]) -> Iterator[str]:
    """Services and disruption budgets select pods that are there, by ports that these have."""
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    labels += [one["spec"]["predictor"].get("labels", {}) for one in objects if one["kind"] == "InferenceService"]
    for one in objects:
        selector = one.get("spec", {}).get("selector", {})
        wanted = selector if one["kind"] == "Service" else selector.get("matchLabels", {})
        if one["kind"] in {"Service", "PodDisruptionBudget"} and not any(
            wanted.items() <= have.items() for have in labels
        ):
            yield f"{title(one)}: selects no pod"
        if one["kind"] == "Secret":
            yield f"{title(one)}: a secret in a manifest"


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        for path, text in made.all_files().items():
            path.write_text(text)
    wrong = [f"{path} is stale: python -m deploy.check --write" for path in made.stale()]
    everything = rendered()
    wrong += [what for name, objects in everything.items() for what in problems(name, objects)]
    sys.stdout.writelines(f"{what}\n" for what in wrong)
    count = sum(map(len, everything.values()))
    print(f"{count} objects from {len(everything)} places, Kubernetes {', '.join(VERSIONS)}: {len(wrong)} problems")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
