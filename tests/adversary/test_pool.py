"""Units of work in this process, in several, and on what looks like Ray."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from adversary import pool
from adversary.campaign import Attack, Benign, Identities, Model
from adversary.unit import Task, Unit
from adversary.victims.mnist import CHECKPOINT
from adversary.work import Done, Failed


def tasks(n, name="fgsm"):
    """Crafting units, each on an image of its own."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        arrays = {"x": rng.uniform(size=(1, 1, 28, 28)).astype(np.float32), "y": np.array([i % 10])}
        model, unit = Model(name="mnist", onnx=CHECKPOINT), Unit("craft", "", name, 0, i, i + 1)
        made.append(Task(unit, model, None, Attack(attack=name), Benign(), Identities(), arrays, 10))
    return made


def results(made):
    return {unit: done.arrays["x_adv"] for unit, done in made if isinstance(done, Done)}


def test_several_processes_find_what_one_does():
    one = results(pool.here(lambda *_: None)(tasks(3)))
    several = results(pool.local(2)(tasks(3)))
    assert one.keys() == several.keys()
    assert all(np.array_equal(one[unit], several[unit]) for unit in one)


def test_a_failure_in_a_process_is_a_result():
    broken = Task(Unit("craft", "", "fgsm", 0, 0, 1), Model(name="m", torch="none:f"), None, Attack(attack="fgsm"),
                  Benign(), Identities(), tasks(1)[0].arrays, 10)  # fmt: skip
    ((unit, failed),) = pool.local(1)([broken])
    assert unit == broken.unit
    assert isinstance(failed, Failed)
    assert "model.torch" in failed.reason


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_die_with_a_killed_parent(tmp_path):
    code = textwrap.dedent("""
        import time
        from adversary import pool
        from tests.adversary import test_pool

        if __name__ == "__main__":
            for _ in pool.local(2)(test_pool.tasks(2)):
                print("up", flush=True)
                time.sleep(600)
    """)
    script = tmp_path / "parent.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    workers = children(parent.pid)
    assert workers
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


# --- Ray


class FakeRay:
    """As much of Ray as the pool uses; results are made when they are waited for."""

    def __init__(self, up=True):
        self.up, self.calls = up, []

    def init(self, address, log_to_driver):
        self.calls.append(f"init {address}")
        if not self.up:
            raise ConnectionError("nobody there")

    def remote(self, **options):
        assert options == {"num_cpus": 1}

        @dataclass(frozen=True)
        class Remote:
            function: object

            def remote(self, task):
                return Reference(self.function, task)

        @dataclass(frozen=True, eq=False)
        class Reference:
            function: object
            task: Task

        return Remote

    def wait(self, references, num_returns):
        assert num_returns == 1
        return references[-1:], references[:-1]

    def get(self, reference):
        return reference.function(reference.task)

    def shutdown(self):
        self.calls.append("shutdown")


def test_ray_does_the_same(monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    found = results(pool.on_ray("10.0.0.1:6379")(tasks(3)))
    assert len(found) == 3
    here = results(pool.here(lambda *_: None)(tasks(3)))
    assert all(np.array_equal(found[unit], here[unit]) for unit in here)
    assert ray.calls == ["init 10.0.0.1:6379", "shutdown"]


def test_without_ray_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(pool.RayMissing, match="pip install ray"):
        pool.on_ray("auto")


def test_a_cluster_out_of_reach_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay(up=False))
    with pytest.raises(pool.RayMissing, match="no Ray cluster at here:1"):
        list(pool.on_ray("here:1")(tasks(1)))
