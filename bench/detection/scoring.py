"""What the engine that serves says of clean and of adversarial inputs: every detector's scores and p-values.

Every detector of the profile runs in shadow on every row, batch by batch; what a row's decision is at a budget follows
from its p-values and the thresholds that the engine sets for that budget.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from adversary.attack import Array
from adversary.scores import Rate, rate
from bench.detection import stagework
from guard.assembly import Cheap, Stage, assemble
from guard.engine import Engine
from guard.profile import Profile
from guard.settings import Detector, Model
from guard.types import Answer, Conclusion, Mode, Query, ViewDetector

BATCH = 32
_SECRET = b"bench.detection: the secret that attackers do not know"


Weights = Mapping[str, float]


def settings(
    profile: Profile,
    budget: float,
    *,
    only: Sequence[str] = (),
    below: float | None = None,
    weights: Weights = MappingProxyType({}),
) -> Model:
    """Every detector of the profile, or those named, in shadow; `weights` other than 1, by name."""
    entries = [
        Detector(stage=key.partition("/")[2], options=dict(fit.options), weight=weights.get(key.partition("/")[2], 1.0))
        for key, fit in profile.stages.items()
        if key.startswith("detector/") and (not only or key.partition("/")[2] in only)
    ]
    return Model(
        name=profile.metadata.name,
        profile=Path(),
        mode=Mode.SHADOW,
        false_positive_rate=budget,
        detectors=tuple(entries),
        escalate_below=below,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """By detector, (N,) each; upstream_rows: that an input cost beyond its own."""

    scores: Mapping[str, Array]
    p_values: Mapping[str, Array]
    upstream_rows: float = 0.0

    def __len__(self) -> int:
        return len(next(iter(self.scores.values()), ()))


def joined(parts: Sequence[Said]) -> Said:
    """Pieces of one set, in order."""
    names = list(parts[0].scores)
    rows = sum(len(part) * part.upstream_rows for part in parts) / max(1, sum(len(part) for part in parts))
    return Said(
        {name: np.concatenate([part.scores[name] for part in parts]) for name in names},
        {name: np.concatenate([part.p_values[name] for part in parts]) for name in names},
        rows,
    )


def say(engine: Engine, upstream: stagework.Upstream, x: Array, batch: int = BATCH) -> Said:
    """Run the engine over (N, C, H, W) rows, so many to a call. Raises RuntimeError where a stage fails."""
    calls, asked = [], 0
    for at in range(0, len(x), batch):
        rows = np.ascontiguousarray(x[at : at + batch])
        conclusion = _one(engine, upstream, rows)
        asked += int(conclusion.decision.view_rows.sum()) * len(conclusion.decision.views)
        calls.append({f.stage: f for f in conclusion.findings if f.kind == "detector"})
        for finding in conclusion.findings:
            if finding.error is not None:
                raise RuntimeError(f"{finding.stage}: {finding.error}")
    names = [stage.name for stage in engine.stages if stage.kind == "detector"]
    return Said(
        {name: _gathered(call[name].scores for call in calls) for name in names},
        {name: _gathered(call[name].p_values for call in calls) for name in names},
        asked / max(1, len(x)),
    )


def _gathered(parts: Iterable[Sequence[float]]) -> Array:
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _one(engine: Engine, upstream: stagework.Upstream, x: Array) -> Conclusion:
    """What the proxy does with one call."""
    query = engine.admit(Query(x=x, caller="bench", model=engine.settings.name, decision_id="bench"))
    decision = engine.decide(query, None)
    views = tuple(upstream.answers(view) for view in decision.views)
    return engine.conclude(decision, Answer(upstream.answers(x), views))


def engine(profile: Profile, budget: float = 0.05) -> Engine:
    """With every detector."""
    return Engine(settings(profile, budget), profile, _SECRET)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """The thresholds that the engine sets for a budget; with `below`, who is looked at more closely."""

    budget: float
    stages: tuple[Stage, ...]
    cheap: Cheap | None
    below: float | None

    def flagged(self, said: Said) -> Array:
        """(N,) whether any detector fires on a row."""
        fired = np.zeros(len(said), bool)
        looked = self.escalated(said)
        for stage in self.stages:
            hit = np.asarray(said.p_values[stage.name] <= stage.threshold)
            fired |= hit & looked if isinstance(stage.impl, ViewDetector) else hit
        return fired

    def escalated(self, said: Said) -> Array:
        """(N,) rows that view detectors look at."""
        if self.cheap is None:
            return np.ones(len(said), bool)
        seen = [said.p_values[stage.name] for stage in self.stages if stage.sees_input_alone]
        return np.asarray(self.cheap.p_values(np.column_stack(seen)) <= (self.below or 0.0))

    def rate(self, said: Said) -> Rate:
        """Of flagged rows."""
        return rate(self.flagged(said))


def rule(
    profile: Profile,
    budget: float,
    *,
    only: Sequence[str] = (),
    below: float | None = None,
    weights: Weights = MappingProxyType({}),
) -> Rule:
    """What the engine would do at this budget, all detectors together. Raises ProfileError."""
    stages, cheap = assemble(settings(profile, budget, only=only, below=below, weights=weights), profile, _SECRET)
    return Rule(budget, tuple(stage for stage in stages if stage.kind == "detector"), cheap, below)
