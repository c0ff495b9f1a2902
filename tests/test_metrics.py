import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from guard import metrics as metrics_module
from guard.metrics import Metrics

LABELS = {  # the contract: dashboards and alerts are written against it
    "grpc_server_started": ("grpc_type", "grpc_service", "grpc_method"),
    "grpc_server_handled": ("grpc_type", "grpc_service", "grpc_method", "grpc_code"),
    "grpc_server_handling_seconds": ("grpc_type", "grpc_service", "grpc_method"),
    "guard_decisions": ("model", "action", "would_be"),
    "guard_findings": ("model", "kind", "stage", "mode"),
    "guard_stage_errors": ("model", "stage"),
    "guard_inspection_seconds": ("model",),
    "guard_added_seconds": ("model",),
    "guard_phase_seconds": ("model", "phase"),
    "guard_internal_errors": (),
    "guard_alarmed_queries": ("model", "level"),
    "guard_caller_level_changes": ("model", "level"),
    "guard_extraction_estimate_ratio": ("model",),
    "guard_invalid_queries": ("model",),
    "guard_uninspected": ("model", "reason"),
    "guard_denied_methods": ("grpc_method",),
    "guard_upstream_calls": ("model", "purpose", "grpc_code"),
    "guard_upstream_seconds": ("model", "purpose"),
    "guard_network_batch_rows": ("network",),
    "guard_network_wait_seconds": ("network",),
    "guard_network_unbatched": ("network", "reason"),
    "guard_rows": ("model",),
    "guard_extra_rows": ("model", "how"),
    "guard_config_reloads": ("result",),
    "guard_rejected_calls": ("reason",),
    "guard_stream_messages": (),
    "guard_rationed_calls": ("model", "what", "outcome"),
    "guard_unrationed_calls": ("model",),
    "guard_challenges": ("model", "outcome"),
    "guard_identities": ("source",),
    "guard_audit_events": ("outcome",),
    "guard_audit_deliveries": ("sink", "outcome"),
    "guard_spans": ("outcome",),
    "guard_untraced_calls": (),
    "guard_quarantined_rows": ("what", "outcome"),
    "guard_quarantine_failures": (),
    "guard_store_evicted": ("what",),
    "guard_store_away": (),
    "guard_worker_restarts": ("worker",),
    "guard_watch_lost": (),
    "guard_admin_refused": ("reason",),
    "guard_profile_mismatch": ("model",),
    "guard_drift_distance": ("model", "stage"),
    "guard_drift_alarm": ("model", "stage"),
    "guard_model_ready": ("model",),
    "guard_workers": ("state",),
    "guard_calls_in_flight": (),
    "guard_calls_queued": (),
    "guard_store_entries": (),
    "guard_info": ("version", "config_digest"),
    "guard_plane": ("plane",),
    "guard_provider": ("model", "provider"),
}


def own(metrics: Metrics) -> dict[str, object]:
    """The families that are Guard's, by name."""
    text, _ = metrics.exposition()
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    return {name: family for name, family in families.items() if name.startswith(("guard_", "grpc_"))}


def objects(metrics: Metrics) -> dict[str, object]:
    """The prometheus objects, by their name."""
    return {value._name: value for value in vars(metrics).values() if hasattr(value, "_labelnames")}


def test_names_and_labels_are_the_contract():
    assert {name: metric._labelnames for name, metric in objects(Metrics()).items()} == LABELS


def test_no_caller_is_a_label():
    assert not {"caller", "client", "peer", "decision_id"} & {label for labels in LABELS.values() for label in labels}


def test_naming_rules():
    for name, family in own(Metrics()).items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|millis|minutes|kb|mb|percent)(_|$)", name), "base units only"
        if family.type == "histogram":
            assert name.endswith(("_seconds", "_rows", "_ratio"))


def test_counters_end_in_total():
    text = Metrics().exposition()[0].decode()
    counters = re.findall(r"^# TYPE ((?:guard|grpc)_\S+) counter$", text, re.MULTILINE)
    assert counters
    assert all(name.endswith("_total") for name in counters)
    others = re.findall(r"^# TYPE ((?:guard|grpc)_\S+) (?!counter)\w+$", text, re.MULTILINE)
    assert others
    assert not any(name.endswith("_total") for name in others)


def test_no_created_series():
    metrics = Metrics()
    metrics.invalid.labels("m").inc()
    assert b"_created" not in metrics.exposition()[0]


def test_process_metrics_are_there():
    text = Metrics().exposition()[0]
    assert b"process_resident_memory_bytes" in text
    assert b"python_info" in text


def test_two_do_not_share_counts():
    first, second = Metrics(), Metrics()
    first.watch_lost.inc()
    assert b"guard_watch_lost_total 1.0" in first.exposition()[0]
    assert b"guard_watch_lost_total 0.0" in second.exposition()[0]


def test_info_shows_what_is_in_force_only():
    metrics = Metrics()
    metrics.show_info("1.0", "aa")
    metrics.show_info("1.0", "bb")
    text = metrics.exposition()[0].decode()
    assert 'guard_info{config_digest="bb",version="1.0"} 1.0' in text
    assert "aa" not in re.findall(r"guard_info\{.*", text)[0]


def test_label_values_cannot_inject_lines():
    metrics = Metrics()
    metrics.invalid.labels('m"} 1\nevil_total 9').inc()
    assert not re.search(r"^evil_total", metrics.exposition()[0].decode(), re.MULTILINE)


WORKER = """
import sys
from guard import metrics as metrics_module
from guard.metrics import Metrics
m = Metrics()
n = int(sys.argv[1])
m.decisions.labels("m", "deny", "deny").inc(n)
m.inspection_seconds.labels("m").observe(0.01)
m.in_flight.inc(n)
m.model_ready.labels("m").set(n > 2)
m.profile_mismatch.labels("m").set(n > 2)
m.show_info("1.0", "old")
m.show_info("1.0", "new")
print("up", flush=True)
command = sys.stdin.readline().strip()
if command == "scrape":
    text, kind = m.exposition()
    sys.stdout.write(text.decode())
elif command == "close":
    m.close()
"""


class Worker:
    def __init__(self, number: int, directory: Path) -> None:
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def end(self, command: str) -> str:
        return self.process.communicate(command + "\n", timeout=60)[0]


@pytest.fixture
def directory(tmp_path):
    return tmp_path


def test_several_processes_add_up(directory):
    first, second = Worker(2, directory), Worker(3, directory)
    text = first.end("scrape")
    second.end("stay")
    assert 'guard_decisions_total{action="deny",model="m",would_be="deny"} 5.0' in text
    assert 'guard_inspection_seconds_count{model="m"} 2.0' in text
    assert "guard_calls_in_flight 5.0" in text
    assert 'guard_model_ready{model="m"} 0.0' in text, "ready is what every process is"
    assert 'guard_profile_mismatch{model="m"} 1.0' in text, "one is enough to alarm"
    assert 'guard_info{config_digest="new",version="1.0"} 1.0' in text
    assert 'guard_info{config_digest="old",version="1.0"} 0.0' in text
    assert "pid=" not in text


def test_a_closed_process_leaves_counters_and_takes_gauges_away(directory):
    Worker(3, directory).end("close")
    text = Worker(2, directory).end("scrape")
    assert 'guard_decisions_total{action="deny",model="m",would_be="deny"} 5.0' in text
    assert "guard_calls_in_flight 2.0" in text


def test_a_model_that_is_gone_alarms_nobody() -> None:
    metrics = Metrics()
    for name in ("kept", "gone"):
        metrics.model_ready.labels(name).set(0)
        metrics.drift_alarm.labels(name, "pid").set(1)
    metrics.forget_model("gone", ["pid", "never looked at"])
    told = metrics.exposition()[0].decode()
    assert 'guard_drift_alarm{model="kept",stage="pid"} 1.0' in told
    assert 'model="gone"' not in told


def test_why_calls_are_turned_away_is_told_in_full() -> None:
    """The help names the reasons that the proxy counts, and no others."""
    proxy = Path(metrics_module.__file__).parent / "proxy"
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(proxy.rglob("*.py")))
    counted = set(re.findall(r'(?:_rejected\(runtime, |rejected\.labels\()"(\w+)"', code))
    assert 'rejected.labels(f"inspection_{reason}")' in code
    counted |= {"inspection_timeout", "inspection_error"}
    told = Metrics().rejected._documentation
    named = [name for part in re.findall(r": ([a-z_, ]+)", told) for name in part.split(", ")]
    assert {name.split()[0] for name in named if name} == counted
