"""Array work stays on the thread that asks: seen by what the libraries' own threads did in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from guard import cli, fit, threads
from guard.proxy import app, supervisor, worker
from guard.proxy.post import Post

WORK = """
import sys, threading, time
from pathlib import Path
import numpy as np
from guard import threads
from guard.sketching import Sketcher

def others():
    found = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != threading.get_native_id()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in found)

if sys.argv[1] == "alone":
    threads.alone()
sketcher, x = Sketcher(bytes(32)), np.random.default_rng(0).random((32, 64, 64, 3), dtype=np.float32)
sketcher(x)
time.sleep(0.5)  # threads that were made spin for a moment
before = others()
for _ in range(50):
    sketcher(x)
print(others() - before)
"""

several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the libraries start no threads on one core")


def others_ns(way: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", WORK, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=plain)
    return int(done.stdout)


@several
def test_no_other_thread_works_for_a_query() -> None:
    assert others_ns("as they come") > 5_000_000  # the control
    assert others_ns("alone") < 5_000_000


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order."""
    found: list[str] = []
    monkeypatch.setattr(threads, "alone", lambda: found.append("alone"))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_serving_begins_with_it(told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int) -> None:
    monkeypatch.setattr(app, "run", lambda *_: told.append("served") or 0)
    monkeypatch.setattr(supervisor, "run", lambda *_: told.append("served") or 0)
    file = tmp_path / "guard.yaml"
    file.write_text(json.dumps({"upstream": {"address": "127.0.0.1:1"}, "workers": workers}))
    assert cli.main(["serve", "--config", str(file)]) == 0
    assert told == ["alone", "served"]


def test_fitting_begins_with_it(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "run", lambda _: told.append("fitted") or 0)
    words = ["fit", "--upstream", "127.0.0.1:1", "--model", "m", "--clean", "clean.npz", "--out", "profile"]
    assert cli.main(words) == 0
    assert told == ["alone", "fitted"]


def test_a_worker_begins_with_it(told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def runner(**_: Any) -> None:
        raise Ended

    monkeypatch.setattr(worker.asyncio, "Runner", runner)
    monkeypatch.setattr(worker.metrics, "join", lambda *_: None)
    post = Post(tmp_path, 0, "127.0.0.1:0")
    post.settings.parent.mkdir(parents=True, exist_ok=True)
    post.settings.write_text(json.dumps({"upstream": {"address": "127.0.0.1:1"}}))
    with pytest.raises(Ended):
        worker.main([str(tmp_path), "0", "127.0.0.1:0", "error"])
    assert told == ["alone"]


def test_every_library_that_is_there_is_told() -> None:
    before, count = threadpool_info(), cv2.getNumThreads()
    try:
        threads.alone()
        assert {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"} == {1}
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(count)
        threadpool_limits(limits={one["prefix"]: one["num_threads"] for one in before})
