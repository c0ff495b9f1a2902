"""Stages with a network, at work on one device, and callers who ask them again and again.

A caller asks, waits for the answer and asks again (a closed loop), each in a thread, as queries are inspected. Rows are
32x32x3 images of noise, drawn once by the seed; every call brings one, that no network has seen before it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from bench import profiles
from guard import networks
from guard.batching import Gathering
from guard.detectors.pid import Pid
from guard.networks import CUDA, Networks
from guard.purifiers.learned_denoiser import LearnedDenoiser
from guard.types import Equipment

SHAPE, CLASSES, SEED = (32, 32, 3), 10, 0
STAGES = ("detector pid", "purifier learned_denoiser")
_HERE = Path(profiles.__file__).parent
_FILES = {"auxiliary": "cifar10_auxiliary.onnx", "denoiser": "cifar10_denoiser.onnx"}
_INPUTS = 64  # of a caller

Use = Callable[[Array], Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One stage of one device, with batching or without. runs: rows of each run since they were last cleared."""

    use: Use
    runs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of so many callers. seconds: of each call. cpu_s: of this process, a call."""

    calls_per_s: float
    cpu_s: float
    seconds: Array
    rows_per_run: float


def devices() -> tuple[str, ...]:
    """What there is: "cpu", and "cuda" where a session really runs there."""
    return ("cpu", "cuda") if _on(networks.load(_HERE / _FILES["auxiliary"])) == CUDA else ("cpu",)


def _on(network: networks.OnnxNetwork) -> str:
    return str(network._session.get_providers()[0])  # noqa: SLF001


@contextmanager
def _device(device: str) -> Iterator[None]:
    """Sessions that are loaded meanwhile are of that device, and of no other that is there."""
    kept, known = networks.CUDA, dict(networks._sessions)  # noqa: SLF001
    networks._sessions.clear()  # noqa: SLF001
    networks.CUDA = CUDA if device == "cuda" else "none"
    try:
        yield
    finally:
        networks.CUDA = kept
        networks._sessions.clear()  # noqa: SLF001
        networks._sessions.update(known)  # noqa: SLF001


def stages(device: str, how: Gathering) -> dict[str, Loaded]:
    """Every stage at work, with networks of its own."""
    runs: list[float] = []
    with _device(device):
        loader = Networks(_counting(how, runs))
        loaded = {name: loader.load(_HERE / file, name) for name, file in _FILES.items()}
    pid = Pid(measure="margin").equip(Equipment(loaded))
    denoiser = LearnedDenoiser().equip(Equipment(loaded))
    answer = np.random.default_rng(SEED).dirichlet(np.ones(CLASSES), 1)
    return {
        STAGES[0]: Loaded(lambda x: pid.score_answer(x, answer), runs),
        STAGES[1]: Loaded(denoiser.purify, runs),
    }


def _counting(how: Gathering, runs: list[float]) -> Gathering:
    return Gathering(
        max_wait_s=how.max_wait_s,
        max_rows=how.max_rows,
        where=how.where,
        patience_s=60.0,
        on_run=lambda _, rows: runs.append(rows),
    )


def inputs(callers: int) -> list[list[Array]]:
    """Each caller's."""
    rng = np.random.default_rng(SEED)
    return [[rng.random((1, *SHAPE), dtype=np.float32) for _ in range(_INPUTS)] for _ in range(callers)]


def drive(loaded: Loaded, callers: list[list[Array]], seconds: float) -> Load:
    """All callers at once for so long."""
    loaded.runs.clear()
    taken: list[list[float]] = [[] for _ in callers]
    together = threading.Barrier(len(callers) + 1)

    def ask(xs: list[Array], times: list[float]) -> None:
        together.wait()
        ends, number = time.perf_counter() + seconds, 0
        while (began := time.perf_counter()) < ends or not times:
            loaded.use(xs[number % len(xs)])
            times.append(time.perf_counter() - began)
            number += 1

    threads = [threading.Thread(target=ask, args=one) for one in zip(callers, taken, strict=True)]
    for thread in threads:
        thread.start()
    together.wait()
    began, spent = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    wall, cpu, calls = time.perf_counter() - began, time.process_time() - spent, sum(map(len, taken))
    rows = calls / len(loaded.runs) if loaded.runs else 1.0
    return Load(calls / wall, cpu / calls, np.concatenate([np.array(times) for times in taken]), rows)
