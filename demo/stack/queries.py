"""The PromQL of the dashboard and of the rules, and a Prometheus to ask."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.stack.dashboard import FILE
from demo.stack.panels import NONE

RULES = FILE.parent.parent / "prometheus"
_VARIABLES = {"$__rate_interval": "1m", "$job": "guard", "$model": ".*"}


@dataclass(frozen=True, slots=True)
class Query:
    """One expression. where: its panel, or the rule's name. of: `panel`, `record` or `alert`."""

    of: str
    where: str
    expr: str

    @property
    def bare(self) -> str:
        """Without the 0 that stands for nothing to count."""
        return self.expr.removesuffix(NONE)


def panels(file: Path = FILE) -> Iterator[Query]:
    """What the dashboard asks, its variables replaced by everything."""
    for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            expr: str = target["expr"]
            for name, value in _VARIABLES.items():
                expr = expr.replace(name, value)
            yield Query("panel", panel["title"], expr)


def rules() -> Iterator[Query]:
    """What the rules ask."""
    for name in ("recording.yaml", "alerts.yaml"):
        for group in yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                of = "record" if "record" in rule else "alert"
                yield Query(of, rule[of], rule["expr"])


def ask(address: str, path: str, **parameters: str) -> Any:
    """`data` of an answer of Prometheus's API. Raises OSError."""
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def series(address: str, expr: str) -> list[float]:
    """The values now, one a series."""
    return [float(one["value"][1]) for one in ask(address, "query", query=expr)["result"]]
