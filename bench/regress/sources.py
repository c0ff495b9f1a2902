"""Where ratios come from: quick runs of benches, each a process, whose JSON becomes ratios by round.

Only ratios: of a cost over a control of the same round. What a machine is worth cancels out, most of it at least.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Found = dict[str, list[float]]
_PEERS = ("grpc.aio", "Guard, pass", "Guard, inspect", "Guard, monitors", "Guard, purify")


class Failed(RuntimeError):
    """A bench that gave no figures, in its own last words."""


@dataclass(frozen=True, slots=True)
class Source:
    """arguments: of python. ratios: from what it prints."""

    arguments: tuple[str, ...]
    ratios: Callable[[Mapping[str, Any]], Found]

    def run(self) -> Found:
        """Raises Failed."""
        done = subprocess.run([sys.executable, *self.arguments], capture_output=True, check=False)
        try:
            return self.ratios(json.loads(done.stdout))
        except (ValueError, KeyError, IndexError):
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise Failed(words[-1] if words else f"it ended with {done.returncode}") from None


def _over(own: Sequence[float], control: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(own, control, strict=True)]


def of_proxy(told: Mapping[str, Any]) -> Found:
    """CPU of a call through Guard, over grpc.aio that passes bytes through."""
    found: Found = {}
    for shape, one in told["shapes"].items():
        for at_once, peers in one["again"].items():
            us = {name: [took["cpu_us"] for took in taken] for name, taken in peers.items()}
            for name in us.keys() - {_PEERS[0], "no proxy"}:
                found[f"{shape}, {at_once} in flight: {name} over {_PEERS[0]}"] = _over(us[name], us[_PEERS[0]])
    return dict(sorted(found.items()))


def of_kernels(told: Mapping[str, Any]) -> Found:
    """Each compiled kernel over its numpy twin."""
    return {f"{name}: kernel over numpy": _over(us["kernel"], us["plain"]) for name, us in told["pairs"].items()}


def of_growth(told: Mapping[str, Any]) -> Found:
    """The largest size over the least, of each thing that grows; memory past its bound; two workers over one."""
    found = dict(_grown(told["queries"]["us"], "a query, {what} {last} over {first}"))
    for what, held in told["memory"].items():
        size = list(held.values())
        found[f"memory, {what} four times the bound over at it"] = [size[-1] / size[3]]
    kinds = told.get("workers", {"kinds": {}})["kinds"]
    taken = {
        kind: {count: [took["us"] for took in taken] for count, taken in one["taken"].items()}
        for kind, one in kinds.items()
    }
    return found | dict(_grown(taken, "a call ({what}), {last} workers over {first}"))


def _grown(sizes: Mapping[str, Mapping[str, Sequence[float]]], words: str) -> Iterator[tuple[str, list[float]]]:
    for what, us in sizes.items():
        first, *_, last = us
        yield words.format(what=what, first=first, last=last), _over(us[last], us[first])


def of_allocator(told: Mapping[str, Any]) -> Found:
    """Putting a large message together anew: memory kept over not."""
    ways = told["ways"]
    return {
        f"{work}: kept over system": _over(*([one[work]["us"] for one in ways[way]] for way in ("mallopt", "system")))
        for work in ways["system"][0]
        if work.startswith("602 KB, rebuild")
    }


SOURCES: Mapping[str, Source] = {
    "bench.proxy": Source(
        (
            "-m",
            "bench.proxy",
            "--quick",
            "--rounds",
            "5",
            "--json",
            *(word for name in _PEERS for word in ("--only", name)),
        ),
        of_proxy,
    ),
    "bench.kernels": Source(("-m", "bench.kernels", "--json"), of_kernels),
    "bench.growth": Source(("-m", "bench.growth", "--quick", "--json"), of_growth),
    "bench.allocator": Source(("-m", "bench.allocator", "--quick", "--rounds", "3", "--json"), of_allocator),
}
