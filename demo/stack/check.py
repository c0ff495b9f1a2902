"""Does the stack show what happens? Traffic, an attack, every expression asked of the real Prometheus, alerts watched.

Clean digits go through tritonclient all the time, of a few callers; meanwhile `adversary replay smoke` attacks. Every
panel must have data, every rule must evaluate, and an alert must go from pending to firing.
"""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from adversary.data import mnist
from demo.stack import files, queries
from demo.stack.queries import Query
from demo.stack.running import GUARD, PROMETHEUS, TRITON

_CALLERS = 5
_PAUSE_S = 0.1
_VICTIMS = 3
_ODD_EVERY = 20
_POLL_S = 2.0
_FIRES_S = 600.0
_PAGE = """# The stack under attack

Made by `make stack-check`: a real Triton, Guard, Valkey and Prometheus, clean digits from five callers through
tritonclient and now and then a bad request, and `adversary replay smoke --victims 3` beside them. Every expression of
the dashboard and of the rules was asked of that Prometheus again and again meanwhile. How to read and load what is
asked: [observe](../observe.md).

Clean calls answered: {clean}; refused: {refused}. Panels without data: {empty}.
Recording rules with data: {filled} of {records} (a share of failures has none while nothing fails).
Expressions that failed: {failed}.{wrong}

## Alerts seen

| alert | states, in this order |
|---|---|
{alerts}

## Panels

The most series that each of their expressions had at once. `0 (none)`: nothing of the kind happened, and the panel
shows the 0 that its expression ends with.

| panel | series by expression |
|---|---|
{panels}
"""


@dataclass
class Seen:
    """What came of it. states: of each alert, in the order of their first sight. data: series that each query had."""

    clean: int = 0
    refused: int = 0
    states: dict[str, list[str]] = field(default_factory=dict)
    data: dict[Query, int] = field(default_factory=dict)
    errors: dict[Query, str] = field(default_factory=dict)


def run(out: Path, docs: Path | None, say: Callable[[str], None]) -> int:
    """0 where every panel had data, every rule could be evaluated, and an alert fired."""
    seen = Seen()
    asked = [*queries.panels(), *queries.rules()]
    with _traffic(seen), _watching(seen, asked):
        say("clean traffic alone, for half a minute")
        time.sleep(30)
        say("adversary replay smoke")
        attack = _attack(out)
        until = time.monotonic() + _FIRES_S
        while time.monotonic() < until and not (fired(seen) and attack.poll() is not None):
            time.sleep(_POLL_S)
        attack.terminate()
        attack.wait(30)
    text = report(seen, asked)
    (out / "check.md").write_text(text, encoding="utf-8")
    if docs is not None:
        docs.write_text(text, encoding="utf-8")
    say(f"{out / 'check.md'}\n{text}")
    good = not seen.errors and fired(seen) and seen.clean and attack.returncode == 0 and not empty(seen, asked)
    return 0 if good else 1


def _attack(out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "adversary", "replay", "smoke", "--out", str(out / f"smoke-{int(time.time())}")]
    command += ["--guarded", GUARD, "--control", TRITON, "--model-name", files.MODEL, "--victims", str(_VICTIMS)]
    with (out / "adversary.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command


@contextmanager
def _traffic(seen: Seen) -> Iterator[None]:
    """Clean digits until the block ends."""
    done, x = threading.Event(), mnist.unit(mnist.load().test.images)

    def send() -> None:
        with InferenceServerClient(GUARD) as client:
            for i in range(len(x)):
                if done.wait(_PAUSE_S):
                    return
                tensor = InferInput("image", [1, *x.shape[1:]], "FP32")
                tensor.set_data_from_numpy(np.ascontiguousarray(x[i : i + 1]))
                try:
                    client.infer(files.MODEL, [tensor], headers={"x-api-key": f"clean-{i % _CALLERS}"})
                    seen.clean += 1
                except InferenceServerException:
                    seen.refused += 1
                if i % _ODD_EVERY == 0:
                    _odd(client)

    with _thread(send, done):
        yield


def _odd(client: InferenceServerClient) -> None:
    """What is refused of anybody: an input of the wrong shape, a method that is not let through."""
    flat = InferInput("image", [1, 784], "FP32")
    flat.set_data_from_numpy(np.zeros((1, 784), np.float32))
    with suppress(InferenceServerException):
        client.infer(files.MODEL, [flat])
    with suppress(InferenceServerException):
        client.unload_model(files.MODEL)


@contextmanager
def _watching(seen: Seen, asked: list[Query]) -> Iterator[None]:
    """Ask for everything again and again until the block ends: what ever had data has data."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            for alert in queries.ask(PROMETHEUS, "alerts")["alerts"]:
                states = seen.states.setdefault(alert["labels"]["alertname"], [])
                if alert["state"] not in states:
                    states.append(alert["state"])
            for query in asked:
                _look(seen, query)

    with _thread(watch, done):
        yield


def _look(seen: Seen, query: Query) -> None:
    try:
        found = [value for value in queries.series(PROMETHEUS, query.bare) if not math.isnan(value)]
        seen.data[query] = max(seen.data.get(query, 0), len(found))
        if query.bare != query.expr and not queries.series(PROMETHEUS, query.expr):
            seen.errors[query] = "nothing, not even 0"
    except OSError as error:
        seen.errors[query] = str(error)


@contextmanager
def _thread(work: Callable[[], None], done: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)


def fired(seen: Seen) -> list[str]:
    """Alerts that were pending, then firing."""
    return [name for name, states in seen.states.items() if states == ["pending", "firing"]]


def empty(seen: Seen, asked: list[Query]) -> list[str]:
    """Panels of which no query had data, and which do not count what is good not to happen."""
    titles: dict[str, bool] = {}
    for query in asked:
        if query.of == "panel":
            has = bool(seen.data.get(query)) or query.bare != query.expr
            titles[query.where] = titles.get(query.where, False) or has
    return [title for title, has in titles.items() if not has]


def report(seen: Seen, asked: list[Query]) -> str:
    """The page of docs/results."""
    rows = [f"| {name} | {' → '.join(states)} |" for name, states in sorted(seen.states.items())]
    panels: dict[str, list[Query]] = {}
    for query in asked:
        if query.of == "panel":
            panels.setdefault(query.where, []).append(query)
    shown = [f"| {title} | {', '.join(_told(seen, query) for query in of)} |" for title, of in panels.items()]
    records = [query for query in asked if query.of == "record"]
    filled = sum(bool(seen.data.get(query)) for query in records)
    wrong = [f"- {query.of} {query.where}: {error}" for query, error in seen.errors.items()]
    return _PAGE.format(
        clean=seen.clean,
        refused=seen.refused,
        empty=len(empty(seen, asked)),
        filled=filled,
        records=len(records),
        failed=len(wrong),
        wrong="".join(f"\n{line}" for line in wrong),
        alerts="\n".join(rows),
        panels="\n".join(shown),
    )


def _told(seen: Seen, query: Query) -> str:
    found = seen.data.get(query, 0)
    return "0 (none)" if not found and query.bare != query.expr else str(found)
