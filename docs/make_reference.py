"""Write the generated parts of the docs: the settings from their own schema, the metrics from their declarations.

`--check` compares instead.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from guard import config, registry
from guard.metrics import Metrics
from guard.types import KINDS

DOCS = Path(__file__).parent
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}

Schema = dict[str, Any]


def sections(schema: Schema) -> dict[str, list[str]]:
    """Every mapping of the file by its definition's name, parents first, with all the paths it stands at."""
    found: dict[str, list[str]] = {}

    def walk(path: str, node: Schema) -> None:
        for key, value in node["properties"].items():
            for name, inside in references(value):
                target = schema["$defs"][name]
                if "properties" in target:
                    place = f"{path}.{key}".strip(".") + ("[]" if inside else "")
                    known = name in found
                    found.setdefault(name, []).append(place)
                    if not known:
                        walk(place, target)

    walk("", schema)
    return found


def references(value: Schema, *, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """The definitions that a value refers to, and whether as an entry of a list."""
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2], inside
    for alternative in value.get("anyOf", []) + value.get("oneOf", []):
        yield from references(alternative, inside=inside)
    if "items" in value:
        yield from references(value["items"], inside=True)


def type_of(value: Schema, schema: Schema) -> str:
    """What a value may be, in few words."""
    if "$ref" in value:
        target = schema["$defs"][value["$ref"].rpartition("/")[2]]
        return type_of(target, schema) if "enum" in target else "mapping"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if alternatives := value.get("anyOf", []) + value.get("oneOf", []):
        named = [type_of(one, schema) for one in alternatives if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(named))
    if value.get("type") == "array":
        return f"list of {type_of(value['items'], schema)}" if "items" in value else "list"
    name = "path" if value.get("format") == "path" else {"object": "mapping"}.get(value["type"], value["type"])
    bounds = [text.format(value[key]) for key, text in BOUNDS.items() if key in value]
    return " ".join([name, ", ".join(bounds)]).strip()


def default_of(key: str, value: Schema, node: Schema) -> str:
    """What holds where the key is left out."""
    if key in node.get("required", []):
        return "required"
    if "default" not in value or isinstance(value["default"], dict):
        return ""
    return "none" if value["default"] in (None, []) else f"`{json.dumps(value['default'])}`".replace('"', "")


def meaning_of(value: Schema, schema: Schema) -> str:
    """A key's own words, else those of the mapping that it takes."""
    words = value.get("description")
    if words is None and "items" not in value:
        words = next((schema["$defs"][name].get("description", "") for name, _ in references(value)), "")
    return " ".join((words or "").split()).replace("|", "\\|")


def rows(node: Schema, schema: Schema) -> Iterator[str]:
    """A table of a mapping's keys."""
    yield "| key | what | default | |"
    yield "|---|---|---|---|"
    for key, value in node["properties"].items():
        yield f"| `{key}` | {type_of(value, schema)} | {default_of(key, value, node)} | {meaning_of(value, schema)} |"


def about(cls: type) -> str:
    """A stage's first line: what it does."""
    return (sys.modules[cls.__module__].__doc__ or "").splitlines()[0].rstrip(".")


def stages(schema: Schema) -> Iterator[str]:
    """Every stage, with its options, as its class declares them."""
    for definition, kinds in (("Detector", ["detector"]), ("Monitor", ["monitor"]), ("Acting", ["purifier", "output"])):
        for condition in schema["$defs"][definition]["allOf"]:
            name = condition["if"]["properties"]["stage"]["const"]
            (kind,) = (k for k in KINDS if k in kinds and name in registry.names(k))
            options = condition["then"]["properties"]["options"]
            yield f"\n#### {kind} `{name}`\n"
            yield f"{about(registry.lookup(kind, name))}.\n"
            if "\n" in options["description"]:
                yield f"```text\n{options['description']}\n```\n"
            if options.get("properties"):
                yield from rows(options, schema)
            else:
                yield "No options."


def reference() -> str:
    """The whole section."""
    schema = config.schema()
    lines = ["Made from the settings' schema by `make reference`; `guard schema` prints the schema itself."]
    lines += ["\n### The file\n", *rows(schema, schema)]
    for name, paths in sections(schema).items():
        node = schema["$defs"][name]
        kind = node["properties"].get("kind", {}).get("const")
        title = ", ".join(f"`{path}`" for path in paths) + (f" of kind `{kind}`" if kind else "")
        lines.append(f"\n### {title}\n")
        lines += [f"{node['description']}\n", *rows(node, schema)]
    lines.append("\n### Stages and their options")
    lines.extend(stages(schema))
    return "\n".join(lines).strip() + "\n"


def metrics() -> str:
    """A table of every metric that Guard declares."""
    lines = ["| metric | type | labels | |", "|---|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - no public way
            lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Put each generated part between its marks; the exit status says whether a check found a stale one."""
    stale = 0
    for page, mark, part in ((DOCS / "configure.md", "reference", reference), (DOCS / "api.md", "metrics", metrics)):
        begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
        old = page.read_text(encoding="utf-8")
        before, _, rest = old.partition(begin)
        new = f"{before}{begin}\n{part()}{end}{rest.partition(end)[2]}"
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
        elif new != old:
            stale = 1
            sys.stderr.write(f"{page} is stale: make reference\n")
    return stale


if __name__ == "__main__":
    sys.exit(main())
