"""What is counted of a decision: labels come from closed lists."""

from types import SimpleNamespace

from guard.events import Event
from guard.metrics import Metrics
from guard.proxy.record import record
from guard.types import Action, Finding, Level, Mode


def test_no_caller_makes_a_series_of_his_cohort() -> None:
    metrics, told = Metrics(), []
    sink = SimpleNamespace(record=told.append, publish=told.append)
    runtime = SimpleNamespace(metrics=metrics, audit=sink, journal=sink, lately=sink, watchers=sink)
    for i in range(3):
        finding = Finding(f"cohort network:10.0.{i}.0/24", "monitor", Mode.SHADOW, (1.0,), (0.0,), 0.0)
        event = Event(0.0, "id", "caller", "m", "", Action.ALLOW, Action.ALLOW, enforced=True, findings=(finding,))
        record(runtime, "m", event)
    text = metrics.exposition()[0].decode()
    assert 'guard_findings_total{kind="monitor",mode="shadow",model="m",stage="cohort"} 3.0' in text
    assert "10.0." not in text
    assert len(told) == 12


def test_levels_and_estimates_are_counted() -> None:
    metrics, told = Metrics(), []
    sink = SimpleNamespace(record=told.append, publish=told.append)
    runtime = SimpleNamespace(metrics=metrics, audit=sink, journal=sink, lately=sink, watchers=sink)
    estimate = Finding("extraction_budget", "monitor", Mode.SHADOW, (0.62,), (1.0,))
    for former, level in ((Level.CLEAR, Level.WATCH), (Level.WATCH, Level.WATCH), (Level.WATCH, Level.CLEAR)):
        event = Event(
            0.0, "id", "caller", "m", "", Action.ALLOW, Action.ALLOW, enforced=True, findings=(estimate,),
            level=level, former=former,
        )  # fmt: skip
        record(runtime, "m", event)
    text = metrics.exposition()[0].decode()
    assert 'guard_alarmed_queries_total{level="watch",model="m"} 2.0' in text
    assert 'guard_caller_level_changes_total{level="watch",model="m"} 1.0' in text
    assert 'guard_caller_level_changes_total{level="clear",model="m"} 1.0' in text
    assert 'guard_extraction_estimate_ratio_bucket{le="0.6",model="m"} 0.0' in text
    assert 'guard_extraction_estimate_ratio_bucket{le="0.7",model="m"} 3.0' in text
