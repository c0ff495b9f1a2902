"""Files in deploy/ that are made from others: the chart's table of values, and Prometheus' rules where tools want them.

deploy/prometheus/{recording,alerts}.yaml are the one source of the rules. A chart may read only its own files, and
kustomize none outside of its directory: so there are copies, held equal by a test.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent
CHART = DEPLOY / "helm" / "guard"
RULES = ("recording", "alerts")
_KEY = re.compile(r"^( *)([A-Za-z]+):(?: (.*))?$")


def all_files() -> dict[Path, str]:
    """What each should say."""
    rules = {name: (DEPLOY / "prometheus" / f"{name}.yaml").read_text(encoding="utf-8") for name in RULES}
    return {
        CHART / "README.md": _readme(),
        **{CHART / "files" / f"{name}.yaml": text for name, text in rules.items()},
        DEPLOY / "kustomize" / "components" / "monitoring" / "rules.yaml": "---\n".join(
            f"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: guard-{name}\nspec:\n"
            + "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))
            for name, text in rules.items()
        ),
    }


def stale() -> list[Path]:
    """Those that say something else."""
    return [path for path, text in all_files().items() if not path.exists() or path.read_text("utf-8") != text]


def table(text: str) -> list[tuple[str, Any, str]]:
    """Key, default and comment of each value that has a comment; what is below such a key is its default."""
    tree = yaml.safe_load(text)
    rows: list[tuple[str, Any, str]] = []
    comment: list[str] = []
    path: list[str] = []
    inside = -1  # of a key with a comment: what is below has none
    for line in text.splitlines():
        found = _KEY.match(line)
        depth = (len(line) - len(line.lstrip())) // 2
        if line.strip().startswith("#"):
            comment.append(line.strip("# "))
        elif found is None or (0 <= inside < depth):
            comment = []
        else:
            path = [*path[:depth], found[2]]
            value: Any = tree
            for key in path:
                value = value[key]
            if comment:
                rows.append((".".join(path), value, " ".join(comment)))
            inside = depth if comment or not isinstance(value, dict) else -1
            comment = []
    return rows


def _readme() -> str:
    rows = table((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = [f"| `{key}` | {_shown(default)} | {what} |" for key, default, what in rows]
    return "\n".join([_HEAD, "| value | default | |", "|---|---|---|", *lines, ""])


def _shown(default: object) -> str:
    text = json.dumps(default)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


_HEAD = """# The chart `guard`

```sh
helm install guard deploy/helm/guard --values my.yaml
```

What it makes, and what was checked of it: [docs/kubernetes.md](../../../docs/kubernetes.md). Values that begin from
something useful are in [ci/](ci). The table is made from values.yaml by `python -m deploy.check --write`.
"""
