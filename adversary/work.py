"""One unit of work done: crafted, asked, sent or hunted. What comes back are arrays; no clock is in them.

A hunt has company: after every so many rows of the attack an honest caller sends one clean input of his own.
"""

import importlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adversary import asking, runner
from adversary.asking import Site
from adversary.attack import REFUSED, Array
from adversary.campaign import Attack, CampaignError, Model
from adversary.oracle import Oracle, reply_labels
from adversary.plan import Task, budget_of, eps_of
from adversary.runner import Outcome, Tell

Arrays = dict[str, Array]
Later = Callable[[], Arrays]
"""The arrays, once the endpoint has ended and its verdicts are known."""


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """arrays: what the unit found; seconds: what it took."""

    arrays: Arrays
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that came to nothing, and why: the others go on, and the next start tries again."""

    reason: str


def attempt(task: Task, tell: Tell = lambda _done, _of, _won: None) -> Done | Failed:
    """Whatever an attack or an endpoint does, the campaign goes on."""
    try:
        return do(task, tell)
    except Exception as error:  # noqa: BLE001 - it is told, and the exit status says so
        return Failed(f"{type(error).__name__}: {error}")


def do(task: Task, tell: Tell = lambda _done, _of, _won: None) -> Done:
    """The unit, whatever it is."""
    started = time.monotonic()
    if task.place is None:
        return Done(_craft(task), time.monotonic() - started)
    work = {"clean": _clean, "benign": _benign, "send": _send, "hunt": _hunt}[task.unit.kind]
    with asking.opened(task.place, task.model, task.identities) as at:
        later = work(task, at, tell)
    return Done(later(), time.monotonic() - started)


def torch_model(model: Model) -> Any:
    """The victim as a torch module, by the campaign's own loader."""
    module, _, function = model.torch.partition(":")
    try:
        load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise CampaignError("model.torch", f"cannot load {model.torch}: {error}") from None
    return load(model.onnx)


def _attack_of(task: Task) -> Attack:
    if task.attack is None:
        raise CampaignError("attacks", f"{task.unit.name} has no attack")
    return task.attack


def _per_victim(task: Task) -> Arrays:
    return {name.removeprefix("per_victim."): x for name, x in task.arrays.items() if name.startswith("per_victim.")}


def _craft(task: Task) -> Arrays:
    attack = _attack_of(task)
    x_adv, queries = runner.craft(
        attack.entry,
        _surrogate(task) if attack.entry.family == "transfer" else torch_model(task.model),
        task.arrays["x"],
        task.arrays["y"],
        eps=eps_of(attack),
        budget=budget_of(attack),
        seed=task.unit.seed,
        **attack.options,
        **_per_victim(task),
    )
    return {"x_adv": x_adv, "queries": queries}


def _surrogate(task: Task) -> Any:
    from adversary import surrogate  # noqa: PLC0415 - torch only where it is needed

    return surrogate.fit(task.arrays["own_x"], task.arrays["own_y"], task.unit.seed)


def _clean(task: Task, at: Site, _tell: Tell) -> Later:
    x = task.arrays["x"]
    with at.oracle(f"clean-{task.unit.seed}", len(x), len(x)) as oracle:
        labels = runner.ask_singly(oracle, x)
    return lambda: {"labels": labels}


def _benign(task: Task, at: Site, tell: Tell) -> Later:
    x, y, callers = task.arrays["x"], task.arrays["y"], task.benign.callers
    labels = np.full(len(x), REFUSED, np.int64)
    with at.oracle("benign", callers, len(x)) as oracle:
        for i, row in enumerate(x):
            oracle.use(i)
            labels[i] = oracle.labels(row[None])[0]
            tell(i + 1, len(x), 0)
        records = oracle.records

    def later() -> Arrays:
        noticed = at.noticed(records)
        return {
            "y": y,
            "labels": labels,
            "caller": np.arange(len(x)) % callers,
            "flagged": noticed.flagged,
            "caller_flagged": noticed.caller_flagged,
        }

    return later


def _send(task: Task, at: Site, _tell: Tell) -> Later:
    attack, arrays = _attack_of(task), task.arrays
    with at.oracle(_kind(task), _callers(task), len(arrays["x"])) as oracle:
        outcome = runner.judge(
            attack.entry,
            oracle,
            arrays["x"],
            arrays["y"],
            x_adv=arrays["x_adv"],
            eps=eps_of(attack),
            queries=arrays["queries"],
            clean=arrays["clean"],
        )
    return lambda: _attacked(outcome, at)


def _hunt(task: Task, at: Site, tell: Tell) -> Later:
    attack, arrays, budget = _attack_of(task), task.arrays, budget_of(_attack_of(task))
    x, beside = arrays["x"], arrays["beside_x"]
    with (
        at.oracle(_kind(task), _callers(task), len(x) * (budget + 1)) as oracle,
        at.oracle(f"beside-{_kind(task)}", 1, len(beside)) as honest,
    ):
        company = _Company(honest, beside, task.benign.every)
        oracle.pause = company.turn
        outcome = runner.hunt(
            attack.entry,
            oracle,
            x,
            arrays["y"],
            eps=eps_of(attack),
            budget=budget,
            seed=task.unit.seed,
            clean=arrays["clean"],
            first=task.unit.start,
            per_victim=_per_victim(task),
            tell=tell,
            **attack.options,
        )

    def later() -> Arrays:
        labels = np.array(company.labels, np.int64)
        noticed = at.noticed(honest.records)
        return {
            **_attacked(outcome, at),
            "beside_y": arrays["beside_y"][: len(labels)],
            "beside_labels": labels,
            "beside_flagged": noticed.flagged,
            "beside_caller_flagged": noticed.caller_flagged,
        }

    return later


def _kind(task: Task) -> str:
    unit = task.unit
    return "".join(c if c.isalnum() else "-" for c in f"{unit.attack}-{unit.seed}-{unit.start}")


def _callers(task: Task) -> int:
    """One a victim, or one for all; an attack that splits itself over several callers has so many for each."""
    several = inspect.signature(_attack_of(task).entry.load()).parameters.get("identities")
    split = 1 if several is None else int(_attack_of(task).options.get("identities", several.default))
    return split * (1 if task.identities.per == "attack" else len(task.arrays["x"]))


@dataclass(slots=True)
class _Company:
    """An honest caller who has his turn after every `every` rows of somebody else's."""

    oracle: Oracle
    x: Array
    every: int
    labels: list[int] = field(default_factory=list)
    rows: int = 0

    def turn(self, rows: int) -> None:
        """So many rows were sent."""
        self.rows += rows
        while self.every and len(self.labels) < min(self.rows // self.every, len(self.x)):
            reply = self.oracle.query(self.x[len(self.labels)][None])
            self.labels.append(int(reply_labels(reply, 1)[0]))


def _attacked(outcome: Outcome, at: Site) -> Arrays:
    trails = [at.noticed(trail) for trail in outcome.trails]
    values = ("y", "clean", "adversarial", "size", "linf", "l2", "queries", "reached_at", "x_adv")
    return {
        **{name: getattr(outcome, name) for name in values},
        "refused_at": outcome.detected_at,
        "flagged_at": np.array([trail.first_flag for trail in trails], np.int64),
        "sent": np.array([trail.rows for trail in trails], np.int64),
        "flagged_rows": np.array([trail.flagged_rows for trail in trails], np.int64),
    }
