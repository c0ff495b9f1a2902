"""One unit of work done: crafted, asked, sent, hunted or what else its kind says. What comes back are arrays.

No clock is in them. Who attacks by queries has company: after every so many rows of the attack an honest caller sends
one clean input of his own.
"""

import importlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adversary import asking, runner, runner_extraction, runner_inversion, runner_membership
from adversary.asking import Noticed, Site
from adversary.attack import REFUSED, Array
from adversary.campaign import Attack, CampaignError, Model
from adversary.oracle import Oracle, Record, reply_labels
from adversary.runner import Outcome, Tell
from adversary.unit import Kind, Task, budget_of, eps_of, wants

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
    work = _WORK[task.unit.kind]
    with asking.opened(task.place, task.model, task.identities) as at:
        later = work(task, at, tell)
    return Done(later(), time.monotonic() - started)


def torch_model(model: Model) -> Any:
    """The victim as a torch module, by the campaign's own loader."""
    return torch_module(model.torch, model.onnx)


def torch_module(loader: str, onnx: Path | None) -> Any:
    """module:function, called with the file. Raises CampaignError."""
    module, _, function = loader.partition(":")
    try:
        load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise CampaignError("model.torch", f"cannot load {loader}: {error}") from None
    return load(onnx)


def _attack_of(task: Task) -> Attack:
    if task.attack is None:
        raise CampaignError("attacks", f"{task.unit.name} has no attack")
    return task.attack


def _per_victim(task: Task) -> Arrays:
    return {name.removeprefix("per_victim."): x for name, x in task.arrays.items() if name.startswith("per_victim.")}


def _craft(task: Task) -> Arrays:
    attack = _attack_of(task)
    done = runner.craft(
        attack.entry,
        _model_for(task, attack),
        task.arrays["x"],
        task.arrays["y"],
        eps=eps_of(attack),
        budget=budget_of(attack),
        seed=task.unit.seed,
        **_options(task),
    )
    aim = np.full(len(done.x_adv), runner.ANY, np.int64) if done.aim is None else done.aim
    return {"x_adv": done.x_adv, "queries": done.queries, "aim": aim}


def _options(task: Task) -> dict[str, Any]:
    """The campaign's, those with a row a victim, and what the attack's signature asks for."""
    attack = _attack_of(task)
    known = {"own_x": task.arrays.get("own_x"), "own_y": task.arrays.get("own_y"), "classes": task.classes}
    asked = {name: value for name, value in known.items() if name in wants(attack.entry)}
    return {**attack.options, **_per_victim(task), **asked}


def _model_for(task: Task, attack: Attack) -> Any:
    if attack.entry.access == "nothing":
        return None
    return _surrogate(task) if attack.entry.family == "transfer" else torch_model(task.model)


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
            aim=arrays["aim"],
        )
    return lambda: _attacked(outcome, at)


def _hunt(task: Task, at: Site, tell: Tell) -> Later:
    attack, arrays, budget = _attack_of(task), task.arrays, budget_of(_attack_of(task))
    n = len(arrays["x"])
    with _accompanied(task, at, n + budget if attack.entry.joint else n * (budget + 1)) as (oracle, company):
        known: dict[str, Any] = {"eps": eps_of(attack), "budget": budget, "seed": task.unit.seed}
        options = {**known, "clean": arrays["clean"], "tell": tell}
        if attack.entry.joint:
            options |= _options(task)
            outcome = runner.hunt_together(attack.entry, oracle, arrays["x"], arrays["y"], **options)
        else:
            shared = {name: value for name, value in _options(task).items() if name not in attack.per_victim}
            options |= {"first": task.unit.start, "per_victim": _per_victim(task), **shared}
            outcome = runner.hunt(attack.entry, oracle, arrays["x"], arrays["y"], **options)
    return lambda: {**_attacked(outcome, at), **company.found(at)}


def _steal(task: Task, at: Site, tell: Tell) -> Later:
    attack, arrays, budget = _attack_of(task), task.arrays, budget_of(_attack_of(task))
    with _accompanied(task, at, budget) as (oracle, company):
        theft = runner_extraction.steal(
            attack.entry, oracle, arrays["pool"], arrays["pool_y"], judged=arrays["x"], budget=budget,
            seed=task.unit.seed, tell=tell, **_options(task),
        )  # fmt: skip
    found = {"y": arrays["y"], "bare": arrays["clean"], "copied": theft.labels}
    counts = {"spent": theft.sent, "answered": theft.answered}
    return lambda: {**found, **counts, **_watched([theft.trail], at), **company.found(at)}


def _infer(task: Task, at: Site, tell: Tell) -> Later:
    attack, arrays, budget = _attack_of(task), task.arrays, budget_of(_attack_of(task))
    x = arrays["candidates"]
    with _accompanied(task, at, len(x) * budget) as (oracle, company):
        inference = runner_membership.infer(
            attack.entry, oracle, x, arrays["candidates_y"], budget=budget, seed=task.unit.seed, tell=tell,
            **_options(task),
        )  # fmt: skip
    found = {"member": arrays["member"], "scores": inference.scores, "queries": inference.queries}
    return lambda: {**found, **_watched([inference.trail], at), **company.found(at)}


def _invert(task: Task, at: Site, tell: Tell) -> Later:
    attack, arrays, budget = _attack_of(task), task.arrays, budget_of(_attack_of(task))
    start, real_x, real_y = arrays["start"], arrays["real_x"], arrays["real_y"]
    with _accompanied(task, at, len(start) * (budget + 1)) as (oracle, company):
        rebuilt = runner_inversion.invert(
            attack.entry, oracle, start, arrays["wanted"], budget=budget, seed=task.unit.seed, tell=tell,
            **_options(task),
        )  # fmt: skip
    found = {
        "rebuilt": rebuilt.x,
        "y": rebuilt.y,
        "answered": rebuilt.answered,
        "queries": rebuilt.queries,
        "recognised": runner_inversion.recognised(rebuilt.x, real_x, real_y, task.unit.seed),
        "likeness": runner_inversion.likeness(rebuilt.x, real_x, real_y, task.classes),
    }
    return lambda: {**found, **_watched(rebuilt.trails, at), **company.found(at)}


@contextmanager
def _accompanied(task: Task, at: Site, budget: int) -> Iterator[tuple[Oracle, "_Company"]]:
    """An attacker's oracle, and the honest caller who has his turn between the attacker's calls."""
    beside = task.arrays["beside_x"]
    with (
        at.oracle(_kind(task), _callers(task), budget) as oracle,
        at.oracle(f"beside-{_kind(task)}", 1, len(beside)) as honest,
    ):
        company = _Company(honest, beside, task.arrays["beside_y"], task.benign.every)
        oracle.pause = company.turn
        yield oracle, company


def _kind(task: Task) -> str:
    unit = task.unit
    return "".join(c if c.isalnum() else "-" for c in f"{unit.attack}-{unit.seed}-{unit.start}")


def _callers(task: Task) -> int:
    """One a victim, or one for all; an attack that splits itself over several callers has so many for each.

    A thief, and who tests candidates for membership, is one caller.
    """
    attack = _attack_of(task)
    several = inspect.signature(attack.entry.function).parameters.get("identities")
    split = 1 if several is None else int(attack.options.get("identities", several.default))
    alone = task.identities.per == "attack" or task.unit.kind in {"steal", "infer"}
    return split * (1 if alone else task.unit.stop - task.unit.start)


@dataclass(slots=True)
class _Company:
    """An honest caller who has his turn after every `every` rows of somebody else's."""

    oracle: Oracle
    x: Array
    y: Array
    every: int
    labels: list[int] = field(default_factory=list)
    rows: int = 0

    def turn(self, rows: int) -> None:
        """So many rows were sent."""
        self.rows += rows
        while self.every and len(self.labels) < min(self.rows // self.every, len(self.x)):
            reply = self.oracle.query(self.x[len(self.labels)][None])
            self.labels.append(int(reply_labels(reply, 1)[0]))

    def found(self, at: Site) -> Arrays:
        """What he met, once the verdicts are known."""
        labels = np.array(self.labels, np.int64)
        noticed = at.noticed(self.oracle.records)
        return {
            "beside_y": self.y[: len(labels)],
            "beside_labels": labels,
            "beside_flagged": noticed.flagged,
            "beside_caller_flagged": noticed.caller_flagged,
        }


def _attacked(outcome: Outcome, at: Site) -> Arrays:
    values = ("y", "clean", "adversarial", "aim", "size", "linf", "l2", "queries", "reached_at", "x_adv")
    found = {name: getattr(outcome, name) for name in values}
    return {**found, "refused_at": outcome.detected_at, **_watched(outcome.trails, at)}


def _watched(trails: Sequence[tuple[Record, ...]], at: Site) -> Arrays:
    """What was noticed of each trail."""
    return Noticed.arrays([at.noticed(trail) for trail in trails])


_WORK: dict[Kind, Callable[[Task, Site, Tell], Later]] = {
    "clean": _clean, "benign": _benign, "send": _send, "hunt": _hunt, "steal": _steal, "infer": _infer,
    "invert": _invert,
}  # fmt: skip
