"""Reading the settings: one YAML file, GUARD_* overrides over it, unknown keys refused with their path."""

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from guard import registry
from guard.settings import STAGE_LISTS, ConfigError, Model, Settings, build_stage, first_error
from guard.types import Kind

ENV_PREFIX = "GUARD_"
RESERVED_ENV = frozenset({"GUARD_CONFIG", "GUARD_SECRET", "GUARD_ADMIN_TOKEN"})  # read where they are used


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConfigError("", f"a key that is no name (line {key_node.start_mark.line + 1})")
            if key in seen:
                raise ConfigError(str(key), f"given twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse(text: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError("", f"not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("", "the file must be a mapping")
    return tree


def _override(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    """GUARD_LIMITS__MAX_ROWS=8 sets limits.max_rows; GUARD_MODELS__0__MODE=enforce the first model's mode."""
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in RESERVED_ENV:
            continue
        keys = variable.removeprefix(ENV_PREFIX).lower().split("__")
        node: Any = tree
        for key in keys[:-1]:
            node = _child(node, key, variable)
        value = yaml.safe_load(environ[variable])
        if isinstance(node, list):
            _child(node, keys[-1], variable)
            node[int(keys[-1])] = value
        else:
            node[keys[-1]] = value


def _child(node: Any, key: str, variable: str) -> Any:
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(variable, f"there is no entry {key}")
        return node[int(key)]
    if node.get(key) is None:
        node[key] = {}
    if not isinstance(node[key], dict | list):
        raise ConfigError(variable, f"{key} is not a mapping")
    return node[key]


def validate(tree: Mapping[str, Any]) -> Settings:
    """A parsed tree -> settings, every stage's options included. Raises ConfigError."""
    try:
        settings = Settings.model_validate(tree)
    except pydantic.ValidationError as error:
        raise first_error(error) from None
    for i, model in enumerate(settings.models):
        _check_stages(model, f"models.{i}.")
    return settings


def model_of(tree: Mapping[str, Any]) -> Model:
    """One entry of `models` by itself, every stage's options included. Raises ConfigError."""
    registry.load()
    try:
        model = Model.model_validate(tree)
    except pydantic.ValidationError as error:
        raise first_error(error) from None
    _check_stages(model, "")
    return model


def _check_stages(model: Model, prefix: str) -> None:
    for attribute, kind in STAGE_LISTS:
        for j, stage in enumerate(getattr(model, attribute)):
            build_stage(kind, stage.stage, stage.options, f"{prefix}{attribute}.{j}")


def read(path: Path, vouch: Callable[[Path, bytes], None] | None = None) -> dict[str, Any]:
    """A file's tree as it stands. Raises ConfigError.

    vouch: looks at the bytes first; raises ValueError where they may not be used.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"cannot read {path}: {error}") from None
    if vouch is not None:
        try:
            vouch(path, raw)
        except ValueError as error:
            raise ConfigError("", str(error)) from None
    return _parse(text)


def load(
    path: Path | None,
    environ: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
    vouch: Callable[[Path, bytes], None] | None = None,
) -> Settings:
    """Read the file (None: none), lay `base` under it and GUARD_* over it. Raises ConfigError. vouch: as in `read`.

    Relative paths in the file are relative to the working directory, as everywhere on a command line.
    """
    registry.load()
    tree = {**(base or {}), **({} if path is None else read(path, vouch))}
    _override(tree, os.environ if environ is None else environ)
    return validate(tree)


def schema() -> dict[str, Any]:
    """JSON Schema of the file, with each registered stage's options."""
    registry.load()
    document = Settings.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "Guard settings"
    groups: dict[str, list[Kind]] = {"Detector": ["detector"], "Monitor": ["monitor"], "Acting": ["purifier", "output"]}
    for definition, kinds in groups.items():
        stages = [(name, registry.lookup(kind, name)) for kind in kinds for name in registry.names(kind)]
        document["$defs"][definition]["properties"]["stage"]["enum"] = [name for name, _ in stages]
        document["$defs"][definition]["allOf"] = [
            {
                "if": {"properties": {"stage": {"const": name}}},
                "then": {
                    "properties": {
                        "options": {**pydantic.TypeAdapter(cls).json_schema(), "additionalProperties": False}
                    }
                },
            }
            for name, cls in stages
        ]
    return document


def public(settings: Settings) -> dict[str, Any]:
    """The settings as plain data for showing: where secrets lie is named, what they are is never read here."""
    return settings.model_dump(mode="json")


def digest(settings: Settings) -> str:
    """A short digest of the settings in force."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_secret(
    file: Path | None, variable: str, environ: Mapping[str, str] | None = None, *, where: str
) -> str | None:
    """A secret from the environment or a file, without surrounding white space; None where neither is set.

    where: the key that names the file. Raises ConfigError, with nothing of the secret.
    """
    value, source = (os.environ if environ is None else environ).get(variable), variable
    if value is None and file is not None:
        source = where
        try:
            value = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(where, f"cannot read the secret in {file}: {reason}") from None
    if value is None:
        return None
    if not value.strip():
        raise ConfigError(source, "the secret is empty" if source == variable else f"the secret in {file} is empty")
    return value.strip()
