"""Who does the units of work: this process, several local ones, or a Ray cluster. Results come back in any order.

Workers die with the run, however that ends.
"""

import ctypes
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

from adversary.runner import Tell
from adversary.unit import Task, Unit
from adversary.work import Done, Failed, attempt

_PR_SET_PDEATHSIG = 1
TellUnit = Callable[[Unit, int, int, int], None]
"""(unit, victims done, of how many, of them successful), while a unit is at work."""

Result = tuple[Unit, Done | Failed]
Pool = Callable[[Sequence[Task]], Iterator[Result]]


class RayMissing(RuntimeError):
    """--ray was asked for where Ray is not installed, or its cluster is out of reach."""


def here(tell: TellUnit) -> Pool:
    """One unit after the other in this process."""

    def run(tasks: Sequence[Task]) -> Iterator[Result]:
        for task in tasks:
            yield task.unit, attempt(task, _telling(tell, task.unit))

    return run


def _telling(tell: TellUnit, unit: Unit) -> Tell:
    return lambda done, of, won: tell(unit, done, of, won)


def local(jobs: int) -> Pool:
    """So many processes on this machine."""

    def run(tasks: Sequence[Task]) -> Iterator[Result]:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(jobs, max(1, len(tasks))), mp_context=spawn, initializer=_die_with_parent)
        try:
            futures = {pool.submit(attempt, task): task.unit for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise
        pool.shutdown()

    return run


def _die_with_parent() -> None:
    """Linux kills a worker whose parent is gone; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:  # it went before it was asked for
        os._exit(1)


def on_ray(address: str) -> Pool:
    """A Ray cluster whose machines see the same files. Raises RayMissing."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise RayMissing("--ray needs Ray: pip install ray; --jobs N uses this machine's processes") from None

    def run(tasks: Sequence[Task]) -> Iterator[Result]:
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RayMissing(f"no Ray cluster at {address}: {error}") from None
        try:
            yield from _results(ray, tasks)
        finally:
            ray.shutdown()

    return run


def _results(ray: Any, tasks: Iterable[Task]) -> Iterator[Result]:
    remote = ray.remote(num_cpus=1)(attempt)
    waiting = {remote.remote(task): task.unit for task in tasks}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for reference in ready:
            yield waiting.pop(reference), ray.get(reference)
