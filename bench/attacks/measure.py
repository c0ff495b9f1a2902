"""Ours through the wire, as the campaign runs them, and a library's on the same victims; one judge for both.

A library works on the torch model of the very file that is served. What it hands back is clipped, measured, and sent
to the served model, as ours is.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from adversary import asking, judge, runner, serving
from adversary.asking import Site
from adversary.attack import Array, BudgetSpent
from adversary.campaign import CONTROL, Attack, Campaign, title
from adversary.catalogue import Entry
from adversary.gradients import one_thread
from adversary.judge import Evidence
from adversary.replay import Replayed
from adversary.runner import NEVER, Outcome
from adversary.serving import Place
from adversary.unit import Unit, budget_of, eps_of
from bench.attacks.gauge import Answer, Gauge, Reached
from bench.attacks.peers import Given, Options, Peer, Prey, Sees

# --- ours


def _units(done: Replayed, attack: Attack) -> list[Unit]:
    return [unit for unit in done.found if (unit.target, unit.attack) == (CONTROL, title(attack))]


def ours(done: Replayed, attack: Attack) -> Evidence:
    """What the campaign found on the bare model, of the victims that were attacked."""
    whole = judge.gather([done.found[unit] for unit in _units(done, attack)], eps_of(attack))
    rows = {name: getattr(whole, name)[whole.attacked] for name in Evidence.__dataclass_fields__ if name != "eps"}
    return Evidence(**rows, eps=whole.eps)


def prey(done: Replayed, attack: Attack) -> Prey:
    """The very victims."""
    needed = [(unit, [done.found[other] for other in done.plan.needs(unit)]) for unit in _units(done, attack)]
    tasks = [done.plan.task(unit, found, None).arrays for unit, found in needed]
    right = np.concatenate([task["clean"] == task["y"] for task in tasks])
    names = ("x", "y", *(("per_victim.starts",) if "per_victim.starts" in tasks[0] else ()))
    x, y, *starts = (np.concatenate([task[name] for task in tasks])[right] for name in names)
    classes = int(done.inputs.y.max()) + 1
    return Prey(x, y, eps_of(attack), done.campaign.seeds[0], classes, starts[0] if starts else None)


def given(attack: Attack) -> Given:
    """What ours is given."""
    parameters = inspect.signature(attack.entry.load()).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return Given(eps_of(attack), budget_of(attack), {**defaults, **attack.options})


# --- a library's


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a library's attack came to, (N,) each but x_adv.

    queries, rows:  distinct images asked for, and all of them; of an attack by gradients, for how many of them the
                    model was run, the same for all.
    reached_at:     queries until the first wrong answer within eps; NEVER without one.
    """

    x_adv: Array
    queries: Array
    rows: Array
    reached_at: Array


def found(peer: Peer, model: nn.Module, attack: Attack, prey: Prey, options: Options) -> Found:
    """Run it, on one thread."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(prey.seed)
        if peer.sees == "model":
            return _crafted(peer, model, prey, options)
        gauges = [
            _asked(peer, answering(model, peer.sees), attack, prey, options, victim) for victim in range(len(prey.x))
        ]
    x_adv = np.concatenate([gauge.x if gauge.nearest is None else gauge.nearest for gauge in gauges])
    counts = ([getattr(gauge, name) for gauge in gauges] for name in ("queries", "rows", "reached_at"))
    return Found(x_adv, *(np.array(values, np.int64) for values in counts))


def _crafted(peer: Peer, model: nn.Module, prey: Prey, options: Options) -> Found:
    counting = _Counting(model)
    x_adv = peer.run(counting, prey, options)
    spent = np.full(len(prey.x), counting.gradients)
    return Found(x_adv, spent, spent, np.full(len(prey.x), NEVER))


def _asked(peer: Peer, answer: Answer, attack: Attack, prey: Prey, options: Options, i: int) -> Gauge:
    """One victim."""
    one = slice(i, i + 1)
    gauge = Gauge(answer, prey.x[one], int(prey.y[i]), attack.entry.norm, prey.eps, budget_of(attack))
    np.random.seed([prey.seed, i])  # noqa: NPY002 - what the libraries draw from
    with suppress(Reached, BudgetSpent):
        start = None if prey.start is None else _wrong(gauge, prey.start[one])
        peer.run(gauge, replace(prey, x=prey.x[one], y=prey.y[one], start=start), options)
    return gauge


def _wrong(gauge: Gauge, start: Array) -> Array | None:
    """A start that is answered rightly is none: a library would give up, ours goes from noise."""
    return None if int(np.argmax(gauge(start)[0])) == gauge.y else start


def answering(model: nn.Module, sees: Sees) -> Answer:
    """The torch model as an endpoint that tells so much."""

    def answer(x: Array) -> Array:
        with torch.no_grad():
            logits = model(torch.from_numpy(x)).double()
        if sees == "labels":
            return np.asarray(np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(1).numpy()])
        shown = torch.log_softmax(logits, 1)
        return np.asarray((shown if sees == "log-probabilities" else shown.exp()).numpy())

    return answer


class _Counting(nn.Module):
    """How often the model is run for a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.gradients += int(x.requires_grad and torch.is_grad_enabled())
        logits: Tensor = self.model(x)
        return logits


# --- the judge


@contextmanager
def bare(campaign: Campaign) -> Iterator[Site]:
    """The campaign's control endpoint, served anew where the campaign serves it."""
    target = campaign.targets.control
    settings = None if target.serve is None else serving.settings_of(target.serve, campaign.model, None)
    headers = tuple((key.lower(), value) for key, value in sorted(target.headers.items()))
    place = Place(target.address or "", settings, "nothing is hashed here", headers, ())
    with asking.opened(place, campaign.model, campaign.identities) as site:
        yield site


def judged(entry: Entry, site: Site, prey: Prey, found: Found) -> Outcome:
    """As ours is judged."""
    with site.oracle("bench", 1, len(prey.x)) as oracle:
        outcome = runner.judge(
            entry, oracle, prey.x, prey.y, x_adv=found.x_adv, eps=prey.eps, queries=found.queries, clean=prey.y
        )
    return replace(outcome, reached_at=found.reached_at)
