"""Targets that a campaign serves: Guard's settings made ready, its profile fitted, the child process, its audit log."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from adversary import processes
from adversary.attack import Array
from adversary.campaign import CampaignError, Model, Serve
from adversary.data import cache
from adversary.shelf import digest, key
from adversary.tls import Tls

_DRAIN_S = 1.0  # nobody calls when it ends
_AUDIT_QUEUE = 1_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target is to be found.

    address:   of an endpoint that lives on, whoever started it; "" where `settings` is to be served for each unit.
    settings:  Guard's, ready but for the place of its audit log.
    headers:   sent with every call.
    keys:      callers' keys from the campaign's file; none: they are made up.
    tls:       how the connection is protected; None: plain text.
    """

    address: str
    settings: Mapping[str, Any] | None
    secret: str
    headers: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Guard's audit log says of one decision: something was done or would have been, and because of the caller."""

    flagged: bool
    caller: bool


Verdicts = Mapping[str, Verdict]


def settings_of(serve: Serve, model: Model, profile: Path | None) -> dict[str, Any]:
    """Guard's settings as they are written, with what the campaign sets. Raises CampaignError."""
    tree: dict[str, Any] = {"models": [{"name": model.name}]}
    if serve.settings is not None:
        try:
            read = yaml.safe_load(serve.settings.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise CampaignError("serve.settings", f"cannot read {serve.settings}: {error}") from None
        tree = read if isinstance(read, dict) else {}
    models = [dict(entry) for entry in tree.get("models", []) if entry.get("name") == model.name]
    if len(models) != 1:
        raise CampaignError("serve.settings", f"{serve.settings} has no model {model.name!r}")
    served = models[0]
    served.pop("upstream", None)
    served["embedded"] = {**(served.get("embedded") or {}), "file": str(model.onnx)}
    if profile is not None:
        served["profile"] = str(profile)
    limits = {**(tree.get("limits") or {}), "drain_s": _DRAIN_S}
    set_here = {"listen": {"address": "127.0.0.1:0"}, "admin": {"http": None, "grpc": None}, "limits": limits}
    return {**tree, "models": [served], **set_here}


@contextmanager
def served(settings: Mapping[str, Any], secret: str, directory: Path) -> Iterator[tuple[str, Path]]:
    """`guard serve`; yields its address and its audit log, which is whole once the block is left."""
    directory.mkdir(parents=True, exist_ok=True)
    audit, config = directory / "audit.jsonl", directory / "guard.yaml"
    audit.touch()
    tree = {**settings, "audit": {"file": str(audit), "max_queued": _AUDIT_QUEUE}}
    config.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    with processes.serving(config, directory / "guard.log", processes.environment(secret)) as address:
        yield address, audit


def verdicts(audit: Path) -> dict[str, Verdict]:
    """Decision id -> verdict. What is not in it was a plain allow."""
    with audit.open(encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    return {event["decision_id"]: _verdict(event) for event in events if event.get("event") == "guard.decision"}


def _verdict(event: Mapping[str, Any]) -> Verdict:
    flagged = (event["action"], event["would_be"]) != ("allow", "allow")
    return Verdict(flagged, flagged and event["reason"] == "caller")


def fitted(serve: Serve, model: Model, clean: Array, directory: Path, say: Callable[[str], None]) -> tuple[Path, str]:
    """What `guard fit` learns of the model from clean inputs, cached -> the profile's directory and its name."""
    settings = settings_of(serve, model, None)
    name = key(model=model.model_dump(mode="json", exclude={"onnx"}), file=cache.sha256(_content(model.onnx)),
               clean=digest(clean), settings=without_paths(settings), guard=code_digest("guard"))  # fmt: skip
    place = cache.root() / "profiles" / name
    if (place / "profile.json").is_file():
        return place, name
    place.parent.mkdir(parents=True, exist_ok=True)
    say(f"guard fit on {len(clean):,} clean inputs ...")
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fitting-") as temporary:
        file, config, out = Path(temporary) / "clean.npz", Path(temporary) / "guard.yaml", Path(temporary) / "profile"
        np.savez(file, **{model.input or "x": np.asarray(model.form.of(clean), np.float32)})  # type: ignore[arg-type]
        config.write_text(yaml.safe_dump(settings_of(serve, model, out)), encoding="utf-8")  # it wants one to be named
        arguments = ["--model", str(model.onnx), "--model-name", model.name, "--clean", str(file), "--out", str(out)]
        arguments += ["--config", str(config), *(["--input", model.input] if model.input else [])]
        log, env = directory / "fit.log", processes.environment("nothing is hashed while fitting")
        processes.fit(arguments, log, env, lambda _: None)
        with suppress(FileNotFoundError):
            shutil.rmtree(place)
        out.rename(place)
    return place, name


def without_paths(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same without where the model and its profile lie on this machine."""
    models = [
        {**model, "embedded": {**model["embedded"], "file": ""}, "profile": bool(model.get("profile"))}
        for model in settings["models"]
    ]
    return {**settings, "models": models}


def _content(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError as error:
        raise CampaignError("model.onnx", f"cannot read {path}: {error}") from None


def code_digest(package: str, without: Sequence[str] = ()) -> str:
    """SHA-256 over a package's sources: other code does it anew. without: how names begin that do not count."""
    spec = importlib.util.find_spec(package)
    roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    together = hashlib.sha256()
    for root in roots:
        for file in sorted(file for file in root.rglob("*.py") if not file.name.startswith(tuple(without))):
            together.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return together.hexdigest()
