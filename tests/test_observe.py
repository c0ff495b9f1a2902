"""The dashboard, the rules and the stack's files: valid, and about metrics that exist, with labels that they have."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.stack import check, dashboard, files, queries, running
from guard import config
from guard.metrics import Metrics
from tests.servers import install

DEPLOY = files.DEPLOY
RULES = DEPLOY / "prometheus"
FOREIGN = {"ALERTS": {"alertname", "alertstate"}, "up": set(), "process_cpu_seconds_total": set()}
FOREIGN |= {"process_resident_memory_bytes": set()}
SCRAPED = {"job", "instance"}
WORDS = {"sum", "min", "max", "by", "on", "and", "or", "unless", "rate", "increase", "histogram_quantile", "vector"}
WORDS |= {"offset", "group_left", "min_over_time"}
TOKEN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def known() -> dict[str, set[str]]:
    """Each series' labels: Guard's metrics, what Prometheus and its client add, what the rules record."""
    series = dict(FOREIGN)
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[metric._type]
            for suffix in suffixes:
                series[metric._name + suffix] = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
    for rule in queries.rules():
        if rule.of == "record":
            series[rule.where] = {label for by in re.findall(r"sum by \(([^)]*)\)", rule.expr) for label in names(by)}
    return series


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def strangers(expr: str, series: dict[str, set[str]]) -> Iterator[str]:
    """Metrics that do not exist, and labels that none of the expression's metrics has."""
    grouped = {label for by in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", expr) for label in names(by)}
    for metric, chosen in re.findall(r"([a-zA-Z_:]\w*(?::\w+)*)\{([^}]*)\}", expr):
        labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", chosen))
        yield from (f"{metric}.{label}" for label in labels - series.get(metric, set()) - SCRAPED)
    plain = re.sub(r"\{[^}]*\}|\[[^]]*\]|offset \w+|(?:by|on|group_left) \([^)]*\)", " ", expr)
    used = {token for token in TOKEN.findall(plain) if token not in WORDS}
    yield from used - set(series)
    yield from grouped - SCRAPED - {label for metric in used for label in series.get(metric, set())}


QUERIES = [*queries.panels(), *queries.rules()]


def test_what_is_asked_for_exists() -> None:
    series = known()
    assert len(QUERIES) > 60
    assert {query: found for query in QUERIES if (found := list(strangers(query.expr, series)))} == {}


def test_what_is_recorded_is_asked_for() -> None:
    """A rule that no alert and no panel uses is work for nobody."""
    asked = [name for query in QUERIES if query.of != "record" for name in TOKEN.findall(query.expr)]
    assert {query.where for query in QUERIES if query.of == "record"} - set(asked) == set()


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("sum by (job) (rate(guard_rows_totals[5m]))", "guard_rows_totals"),
        ('sum by (job) (rate(guard_rows_total{caller="a"}[5m]))', "guard_rows_total.caller"),
        ("sum by (stage) (rate(guard_rows_total[5m]))", "stage"),
        ("guard:nobody:recorded > 1", "guard:nobody:recorded"),
    ],
)
def test_what_does_not_exist_is_seen(expr: str, found: str) -> None:
    assert found in list(strangers(expr, known()))


def test_the_dashboard_is_what_its_panels_say() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text(), "run python -m demo.stack.dashboard"


def test_the_dashboard_fits_together() -> None:
    board = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "job", "model"}
    assert "max_" in str(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_settings_that_panels_name_exist() -> None:
    reference = (DEPLOY.parent / "docs" / "configure.md").read_text(encoding="utf-8")
    named = re.findall(r"limits\.(\w+)", dashboard.text())
    assert named
    assert all(f"| `{name}` |" in reference for name in named)


# --- rules


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((RULES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def test_each_alert_is_explained() -> None:
    page = (DEPLOY.parent / "docs" / "runbooks.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (Guard\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(parts) == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
        for word in ("**Means.**", "**See.**", "**Do.**", "**Silence.**"):
            assert word in parts[alert["alert"]], alert["alert"]


def test_the_commands_that_runbooks_name_exist() -> None:
    named = set(
        re.findall(r"`guard ([a-z-]+)", (Path(__file__).parent.parent / "docs/runbooks.md").read_text(encoding="utf-8"))
    )
    told = subprocess.run(
        [str(Path(sys.executable).with_name("guard")), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {"top", "callers", "explain"} <= named
    assert named <= set(re.findall(r"^    ([a-z-]+) ", told, re.MULTILINE)), told


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """And may have more, that say where: `ALERT fires where ...`."""
    cases = {
        case["name"]: case["promql_expr_test"][0]["exp_samples"]
        for file in RULES.glob("tests/*.yaml")
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
    }
    for name in (alert["alert"] for alert in alerts()):
        assert any(name in sample["labels"] for sample in cases.pop(f"{name} fires"))
        assert cases.pop(f"{name} stays quiet") == []
        for more in [case for case in cases if case.startswith((f"{name} fires where ", f"{name} stays quiet where "))]:
            assert any(name in sample["labels"] for sample in cases.pop(more)) == (f"{name} fires" in more)
    assert not cases


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = install.prometheus()
    if found is None:
        pytest.skip("no promtool: install the package prometheus")
    return found / "promtool"


def test_promtool_likes_the_rules(promtool: Path) -> None:
    subprocess.run([promtool, "check", "config", RULES / "prometheus.yaml"], check=True)
    done = subprocess.run(
        [promtool, "test", "rules", *sorted(RULES.glob("tests/*.yaml"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_sees_a_broken_rule(promtool: Path, tmp_path: Path) -> None:
    text = (RULES / "alerts.yaml").read_text(encoding="utf-8")
    (tmp_path / "alerts.yaml").write_text(text.replace("guard_profile_mismatch) == 1", "guard_profile_mismatch) == 2"))
    (tmp_path / "recording.yaml").write_text((RULES / "recording.yaml").read_text(encoding="utf-8"))
    (tmp_path / "tests").mkdir()
    case = tmp_path / "tests" / "health.yaml"
    tree = yaml.safe_load((RULES / "tests" / "health.yaml").read_text(encoding="utf-8"))
    tree["tests"] = [one for one in tree["tests"] if one["name"].startswith("GuardModelUndefended")]
    case.write_text(yaml.safe_dump(tree))
    done = subprocess.run([promtool, "test", "rules", case], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "GuardModelUndefended" in done.stdout + done.stderr


# --- the check of the stack


def test_a_panel_without_data_is_seen() -> None:
    asked = list(queries.panels())
    seen = check.Seen(states={"GuardDown": ["firing"], "GuardCallerHostile": ["pending", "firing"]})
    seen.data = dict.fromkeys(asked, 1)
    assert check.empty(seen, asked) == []
    assert check.fired(seen) == ["GuardCallerHostile"], "what was firing from the beginning proves nothing"
    seen.data = {query: 1 for query in asked if query.where not in {"Rows", "Drift alarms"}}
    assert check.empty(seen, asked) == ["Drift alarms"], "of Rows, one expression may count nothing"
    assert "| Drift alarms | 0 |" in check.report(seen, asked)
    assert "| GuardCallerHostile | pending → firing |" in check.report(seen, asked)


# --- Compose, and the same as plain processes


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_every_container_is_locked() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].partition(":")[0]) > 0
        assert re.search(r":[\w.-]*\d", service["image"]) or "build" in service, "a version, not latest"
        assert name == "pod" or {"healthcheck", "network_mode"} <= set(service)
        assert name == "pod" or not service.get("ports"), "nothing else is published"
        assert not any("PASSWORD" in key or "SECRET" in key for key in service.get("environment", {}))


def test_ports_are_published_on_loopback_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose()["services"]["pod"]["ports"])
    words = " ".join(compose()["services"]["triton"]["command"])
    assert "--grpc-address=127.0.0.1" in words
    assert "--http-address=127.0.0.1" in words
    assert "127.0.0.1" in compose()["services"]["valkey"]["command"]


def test_what_is_mounted_is_there_or_made() -> None:
    made = {"models", "profile", "guard.env", "grafana.env"}
    for service in compose()["services"].values():
        mounts = [mount.split(":")[0] for mount in service.get("volumes", ()) if mount.startswith(".")]
        for path in [*mounts, *service.get("env_file", ())]:
            place = (DEPLOY / path).resolve()
            built = place.parent == files.ROOT / "build" / "stack"
            assert place.name in made if built else place.exists(), path


def test_both_stacks_are_one(tmp_path: Path) -> None:
    """Compose's settings are those of the plain processes, but for where published ports listen."""
    services = compose()["services"]
    plain = config.load(DEPLOY / "stack" / "guard.yaml", {})
    changed = services["guard"]["environment"]
    in_compose = config.load(DEPLOY / "stack" / "guard.yaml", changed)
    assert set(changed) == {"GUARD_LISTEN__ADDRESS", "GUARD_ADMIN__HTTP", "GUARD_AUDIT__FILE"}
    for part in ("models", "upstream", "history", "identity", "limits"):
        assert getattr(in_compose, part) == getattr(plain, part)
    assert plain.listen.address == running.GUARD
    assert plain.admin.http == running.METRICS
    assert plain.upstream is not None
    assert plain.upstream.address == running.TRITON
    assert plain.history.valkey.addresses == (running.VALKEY,)
    scraped = yaml.safe_load((RULES / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": [running.METRICS]}]
    assert changed["GUARD_LISTEN__ADDRESS"].rpartition(":")[2] == running.GUARD.rpartition(":")[2]
    assert f"--grpc-port={running.TRITON.rpartition(':')[2]}" in services["triton"]["command"]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["url"] == f"http://{running.PROMETHEUS}"


def test_the_models_differ_in_their_backend_alone(tmp_path: Path) -> None:
    python = files.repositories(tmp_path)
    mine, theirs = ((place / "mnist/config.pbtxt").read_text() for place in (python, tmp_path / "models"))
    assert mine != theirs
    assert mine.replace('"python"', '"onnxruntime"') == theirs
    assert (python / "mnist/1/model.py").exists()
    assert not (tmp_path / "models/mnist/1/model.py").exists()


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    made = files.keys(tmp_path)
    assert files.keys(tmp_path) == made
    assert set(made) == {"GUARD_SECRET", "GUARD_ADMIN_TOKEN"}
    for name in ("guard.env", "grafana.env"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_compose_is_read_by_its_own_words() -> None:
    """Every dependency and volume is defined; conditions need a health check."""
    tree = compose()
    for name, service in tree["services"].items():
        for other in service.get("depends_on", ()):
            assert other in tree["services"], name
            condition = service["depends_on"][other]["condition"] if isinstance(service["depends_on"], dict) else ""
            assert condition != "service_healthy" or "healthcheck" in tree["services"][other]
        named = [mount.split(":")[0] for mount in service.get("volumes", ()) if not mount.startswith(".")]
        assert set(named) <= set(tree["volumes"])
