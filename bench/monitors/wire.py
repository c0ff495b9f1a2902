"""A slice through the wire: `guard serve` in a process of its own, asked by the adversary's oracle over gRPC.

The attacks are those of the plain runs, with the calls as large as they make them; a refusal does not end them. Beside
it a control without Guard's stages, where the same attacks must succeed and nobody may be refused.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adversary import runner, serving, shelf
from adversary.attack import Array
from adversary.oracle import Endpoint, Oracle
from bench.monitors.attacks import SEED, victims
from bench.monitors.ground import ground
from bench.monitors.guarded import DEFAULT, Defence, make, place, print_of, settings_of
from bench.monitors.kept import once
from bench.monitors.planned import planned

_SECRET = "a bench needs none that is secret"
_MOST = 2_000  # queries a run


@dataclass(frozen=True, slots=True)
class Wired:
    """Some runs of one attack. guarded: else the control."""

    data: str
    attack: str
    runs: int
    guarded: bool
    seed: int = SEED
    defence: Defence = DEFAULT

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.attack} through the wire, {'guarded' if self.guarded else 'control'}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 5.0 + 4.0 * self.runs

    @property
    def name(self) -> str:
        """Under which it is kept."""
        guard = print_of(self.data, self.defence) if self.guarded else {"victim": ground(self.data).sha256}
        key = shelf.key(
            run=[self.attack, self.runs, self.seed, _MOST], served=serving.code_digest("guard"), guard=guard
        )
        return f"{self.data}_wire_{self.attack}_{'guarded' if self.guarded else 'control'}_{key}"

    def do(self) -> None:
        """Run them, unless that is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """(N,) each: reached and refused, in rows; success, at the end; caller: whether Guard blames him."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            with serving.served(self._settings(), _SECRET, Path(directory)) as (address, audit):
                outcome = self._hunted(address)
            said = serving.verdicts(audit)
        caller = [any(said[r.decision_id].caller for r in trail if r.decision_id in said) for trail in outcome.trails]
        return {
            "reached": outcome.reached_at, "refused": outcome.detected_at, "success": outcome.success,
            "caller": np.array(caller, bool),
        }  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        model: dict[str, Any] = {"name": self.data, "embedded": {"file": str(ground(self.data).onnx)}}
        if self.guarded:
            make(self.data, self.defence)
            model |= {**settings_of(self.data, self.defence), "profile": str(place(self.data, self.defence))}
        return {
            "listen": {"address": "127.0.0.1:0"},
            "admin": {"http": None, "grpc": None},
            "models": [model],
            "identity": {"chain": [{"kind": "api_key"}]},
            "limits": {"inspection_timeout_s": 60, "drain_s": 1.0},
        }

    def _hunted(self, address: str) -> runner.Outcome:
        plan, rows = planned(self.data, self.attack), victims(ground(self.data), self.runs, self.seed)
        budget = min(plan.budget, _MOST)
        callers = tuple((("x-api-key", f"attacker-{i}"),) for i in range(self.runs))
        starts = {"starts": rows.starts} if plan.started else {}
        with Oracle(Endpoint(address, self.data, identities=callers), self.runs * (budget + 2)) as oracle:
            return runner.hunt(
                plan.entry, oracle, rows.x, rows.y, eps=plan.eps, budget=budget, seed=self.seed, clean=rows.y,
                per_victim=starts, **plan.options,
            )  # fmt: skip
