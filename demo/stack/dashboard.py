"""`python -m demo.stack.dashboard` writes deploy/grafana/guard.json from `demo.stack.panels`; --check compares."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.stack.panels import ROWS, Panel

FILE = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "guard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHT = 8
_WIDTH = 24


def dashboard() -> dict[str, Any]:
    """Grafana's model of it."""
    return {
        "uid": "guard",
        "title": "Guard",
        "description": "What Guard carries, what it costs, what it decides and against whom.",
        "tags": ["guard"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts()]},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
    return [
        source,
        {**_choice("job", "Job", "label_values(guard_info, job)"), "allValue": None},  # not those of other programs
        _choice("model", "Model", 'label_values(guard_model_ready{job=~"$job"}, model)'),
    ]


def _choice(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts", "enable": True, "datasource": SOURCE, "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Guard.*",alertstate="firing"}', "titleFormat": "{{alertname}}",
    }  # fmt: skip


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left = number + 1, top + 1, 0
        width = _WIDTH // (len(panels) if len(panels) in {2, 3, 4} else 3)
        for panel in panels:
            if left + width > _WIDTH:
                left, top = 0, top + _HEIGHT
            yield _panel(panel, number, {"h": _HEIGHT, "w": width, "x": left, "y": top})
            number, left = number + 1, left + width
        top += _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 30}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        raise SystemExit(FILE.read_text(encoding="utf-8") != text())
    FILE.write_text(text(), encoding="utf-8")
