"""The whole comparison: the campaign's control, then library after library. What is found is kept as it is found."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adversary import judge, serving, shelf, work
from adversary.asking import Site
from adversary.campaign import CONTROL, Attack, Campaign, Written, title
from adversary.judge_document import machine
from adversary.progress import Screen
from adversary.replay import How, Replayed, replay
from adversary.shelf import Arrays, Shelf
from bench.attacks import measure
from bench.attacks.compare import Compared, Document, difference, points, ratio, side
from bench.attacks.libraries import PEERS
from bench.attacks.peers import Options, Peer, Prey

Pair = tuple[Attack, Peer]
_BESIDE = {"torch", "numpy", "onnxruntime"}


class NotMeasured(RuntimeError):
    """Some unit of the campaign failed."""


def pairs(campaign: Campaign, only: Sequence[str] = ()) -> list[Pair]:
    """Those attacks of a campaign that a library has, too; `only` some, by name or title."""
    chosen = [attack for attack in campaign.attacks if not only or {attack.attack, title(attack)} & set(only)]
    return [(attack, peer) for attack in chosen for peer in PEERS if peer.attack == attack.attack]


def run(written: Written, directory: Path, chosen: Sequence[Pair], screen: Screen, command: str = "") -> Document:
    """What `directory` has is not done again. Raises NotMeasured, and whatever `replay` raises."""
    campaign = written.campaign
    titles = {title(attack) for attack, _ in chosen}
    done = replay(campaign, directory, How(), screen, lambda unit: unit.target == CONTROL and unit.attack in titles)
    if done.failures:
        raise NotMeasured("; ".join(f"{unit.name}: {reason}" for unit, reason in done.failures.items()))
    with shelf.open_shelf(directory) as kept, measure.bare(campaign) as site:
        bench = _Bench(done, site, kept, screen)
        attacks = tuple(bench.compared(attack, peer) for attack, peer in chosen)
    libraries = {peer.library for _, peer in chosen}
    return Document(
        campaign=campaign.name,
        overrides=written.overrides,
        seeds=campaign.seeds,
        data=done.inputs.source,
        model_sha256=done.model_sha256,
        command=command,
        machine=machine(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in _BESIDE | libraries}},
        attacks=attacks,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """What all comparisons share."""

    done: Replayed
    site: Site
    kept: Shelf
    screen: Screen

    def compared(self, attack: Attack, peer: Peer) -> Compared:
        """One attack."""
        given, asks = measure.given(attack), attack.entry.access != "gradients"
        options, own = peer.options(given), measure.ours(self.done, attack)
        found = self._theirs(attack, peer, options)
        mine = side(own.success, own.reached_at, own.l2, own.queries, asks=asks)
        theirs = side(found["success"], found["reached_at"], found["l2"], found["queries"], asks=asks)
        return Compared(
            attack=attack.attack,
            title=title(attack),
            access=attack.entry.access,
            norm=attack.entry.norm,
            eps=given.eps,
            budget=given.budget,
            library=peer.library,
            version=_version(peer.library),
            name=peer.name,
            options=options,
            differs=peer.differs,
            ours=mine,
            theirs=theirs,
            points=points(mine.success, theirs.success),
            difference=difference(mine.success, theirs.success),
            ratio=ratio(own.reached_at, found["reached_at"]) if asks else None,
            rows=judge.median(found["rows"]),
        )

    def _theirs(self, attack: Attack, peer: Peer, options: Options) -> Arrays:
        """(N,) each: success, reached_at, l2, queries, rows."""
        prey = measure.prey(self.done, attack)
        name = f"peer_{title(attack)}_{peer.library}_{self._key(attack, peer, options, prey)}"
        stored = self.kept.get(name)
        if stored is not None:
            return stored[0]
        self.screen.say(f"{title(attack)}: {peer.name} of {peer.library} on {len(prey.x)} victims")
        found = measure.found(peer, work.torch_model(self.done.campaign.model), attack, prey, options)
        outcome = measure.judged(attack.entry, self.site, prey, found)
        arrays = {
            **{name: getattr(outcome, name) for name in ("success", "reached_at", "l2", "queries", "x_adv")},
            "rows": found.rows,
        }
        self.kept.put(name, arrays, {"options": str(options)})
        return arrays

    def _key(self, attack: Attack, peer: Peer, options: Options, prey: Prey) -> str:
        parts = [prey.x, prey.y, np.zeros(0) if prey.start is None else prey.start]
        return shelf.key(
            code=serving.code_digest("bench.attacks", ("compare", "run", "table", "__main__")),
            model=self.done.model_sha256,
            library=[peer.library, _version(peer.library), peer.name, str(options)],
            bounds=[prey.eps, measure.given(attack).budget, prey.seed],
            rows=[shelf.digest(part) for part in parts],
        )


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""
