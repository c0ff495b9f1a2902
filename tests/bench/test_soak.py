"""The soak: a short one, and that it fails where something grows."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest

from bench.soak import __main__ as soak
from bench.soak import killed


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return asyncio.run(soak.run(0.1, 1, 0.05, 0.5))


def missed(found: dict[str, Any]) -> set[str]:
    return {what for what, _, held in soak.judged(found) if not held}


def test_a_short_one(found: dict[str, Any]) -> None:
    assert found["wrong"] == 0
    assert found["ends"]["honest OK"] > 20
    assert found["ends"]["attacker PERMISSION_DENIED"] > 0
    assert not missed(found) & {"wrong answers", "attackers refused", "tracebacks in the log"}


@pytest.mark.parametrize(
    ("name", "step", "what"),
    [
        ("rss_mb", 2.0, "resident memory"),
        ("handles", 3, "open files"),
        ("threads", 1, "threads"),
        ("grpc_threads", 5, "gRPC's threads"),
    ],
)
def test_what_grows_is_seen(name: str, step: float, what: str) -> None:
    flat = {
        "at_s": 0.0,
        "rss_mb": 100.0,
        "handles": 40,
        "threads": 9,
        "grpc_threads": 6,
        "p50_ms": 5.0,
        "p99_ms": 9.0,
        "calls": 1,
    }
    ends = {"honest OK": 1, "attacker PERMISSION_DENIED": 1}
    steady = {"samples": [dict(flat) for _ in range(40)], "ends": ends, "wrong": 0, "uninspected": {}, "tracebacks": 0}
    assert not missed(steady)
    growing = copy.deepcopy(steady)
    for i, one in enumerate(growing["samples"]):  # type: ignore[var-annotated, arg-type]
        one[name] += i * step
    assert missed(growing) == {what}
    for key, value, named in (
        ("wrong", 1, "wrong answers"),
        ("uninspected", {"inspection_timeout": 1.0}, "uninspected calls"),
        ("ends", {**ends, "honest UNAVAILABLE": 1}, "honest calls that failed"),
    ):
        assert missed({**steady, key: value}) == {named}


def test_an_attacker_is_detected_although_valkey_is_killed(tmp_path: Path) -> None:
    """One query before he would have been refused; the control has no monitors, and never refuses him."""
    killed.fitted(tmp_path)
    alone = killed.attacked(tmp_path, seed=0)
    assert 2 < alone < 60
    assert killed.attacked(tmp_path, 0, alone - 1, killed.Served.kill_store) <= 2 * alone
    assert killed.attacked(tmp_path, 0, monitors=()) == killed.BUDGET
