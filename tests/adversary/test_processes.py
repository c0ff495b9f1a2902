import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from adversary import processes
from adversary.victims.mnist import CHECKPOINT

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_ends_with_the_block(tmp_path):
    with processes.child(SLEEPER, tmp_path / "log", {}) as process:
        assert alive(process.pid)
    assert not alive(process.pid)


def test_a_child_ends_with_a_failure(tmp_path):
    def fail():
        with processes.child(SLEEPER, tmp_path / "log", {}) as process:
            started.append(process.pid)
            raise KeyboardInterrupt

    started: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not alive(started[0])


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_DRAIN_S", 0.5)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    with processes.child([sys.executable, "-c", stubborn], tmp_path / "log", {}) as process:
        until = time.monotonic() + 30
        while "up" not in (tmp_path / "log").read_text() and time.monotonic() < until:
            time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL


def test_a_child_dies_even_with_a_killed_parent(tmp_path):
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from adversary import processes
        with processes.child(sys.argv[2:], Path(sys.argv[1]), {}) as process:
            print(process.pid, flush=True)
            time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log"), *SLEEPER], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)


def test_settings_of_somebody_elses_guard_stay_out(monkeypatch):
    monkeypatch.setenv("GUARD_LIMITS__MAX_ROWS", "1")
    monkeypatch.setenv("GUARD_CONFIG", "other.yaml")
    env = processes.environment("a secret of the test")
    assert [name for name in env if name.startswith("GUARD_")] == ["GUARD_SECRET"]
    assert env["PATH"] == os.environ["PATH"]


def test_a_guard_that_does_not_start_says_why(tmp_path):
    settings = tmp_path / "guard.yaml"
    settings.write_text("nonsense: 1\n")
    env = processes.environment("a secret of the test")
    failing = pytest.raises(processes.ChildFailed, match="nonsense: unknown key")
    with failing, processes.serving(settings, tmp_path / "log", env):
        pass


def test_a_fit_that_fails_says_why(tmp_path):
    env = processes.environment("a secret of the test")
    arguments = ["--model", str(CHECKPOINT), "--clean", str(tmp_path / "none.npz"), "--out", str(tmp_path / "p")]
    with pytest.raises(processes.ChildFailed, match=r"none\.npz"):
        processes.fit(arguments, tmp_path / "log", env, lambda _: None)
