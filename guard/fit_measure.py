"""What the fitted profile does to clean rows that it was not fitted with: the engine itself, in shadow, over them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guard.calibration import wilson_interval
from guard.engine import Engine
from guard.fit_monitors import at_once
from guard.fit_stages import Chosen, Progress, chunks
from guard.fit_subject import Positions, Subject
from guard.profile import Profile, stage_key
from guard.settings import Detector, Model, Monitor
from guard.stores.memory import MemoryStore
from guard.types import Answer, Array, Conclusion, Mode, Query

_SECRET = b"guard fit: held-out rows"
_SCOPE, _CALLER = "fit", "clean"


@dataclass(frozen=True, slots=True)
class Rate:
    """Flagged rows of so many, with the 95 % Wilson interval."""

    flagged: int
    rows: int

    @property
    def rate(self) -> float:
        """The share of flagged rows, 0 where there are none."""
        return self.flagged / self.rows if self.rows else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson."""
        return wilson_interval(self.flagged, self.rows)


@dataclass(frozen=True, slots=True)
class Measured:
    """total: rows that any detector flagged. stages: detectors', by key.

    caller_p_values: by monitor, what one caller who sends all held-out rows ends with at worst.
    """

    total: Rate
    stages: dict[str, Rate]
    caller_p_values: dict[str, float]


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    flagged: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    callers: dict[str, float] = field(default_factory=dict)

    def add(self, conclusion: Conclusion, profile: Profile) -> None:
        rows = len(conclusion.decision.query.x)
        any_detector = np.zeros(rows, dtype=np.bool_)
        for finding in conclusion.findings:
            if finding.error is not None:
                raise RuntimeError(f"{finding.stage}: {finding.error}")
            key = stage_key(finding.kind, finding.stage)
            if finding.kind == "monitor":
                if key in profile.stages:
                    self.callers[finding.stage] = min(self.callers.get(finding.stage, 1.0), finding.p_value)
                continue
            hits = np.asarray(finding.p_values) <= finding.threshold
            any_detector |= hits
            self.stages[key] = self.stages.get(key, 0) + int(hits.sum())
        self.rows += rows
        self.flagged += int(any_detector.sum())


def shadow(profile: Profile, chosen: tuple[Chosen, ...], rate: float) -> Model:
    """Settings under which every fitted stage runs and none acts."""
    wanted = [stage.wanted for stage in chosen]
    return Model(
        name=profile.metadata.name,
        profile=Path(),
        mode=Mode.SHADOW,
        false_positive_rate=rate,
        detectors=tuple(
            Detector(stage=w.name, options=dict(w.options), weight=w.weight) for w in wanted if w.kind == "detector"
        ),
        monitors=tuple(Monitor(stage=w.name, options=dict(w.options)) for w in wanted if w.kind == "monitor"),
    )


def measure(
    subject: Subject, profile: Profile, settings: Model, fitted: Positions, held_out: Positions, *, progress: Progress
) -> Measured:
    """Run the engine over the held-out rows as one caller's queries, after another's who sent the fitted ones."""
    engine = Engine(settings, profile, _SECRET)
    store = MemoryStore(max_entries=max(1, len(fitted) + len(held_out)))
    for i, some in enumerate(chunks(fitted)) if settings.monitors else ():
        sketches = engine.sketch(_query(subject.seen(some)[0], profile))
        at_once(store.exchange(_SCOPE, f"others {i}", (), sketches, 0.0))
    tally = _Tally()
    progress("measuring", 0, len(held_out))
    for some in chunks(held_out):
        tally.add(_one(subject, profile, engine, store, some), profile)
        progress("measuring", tally.rows, len(held_out))
    rates = {key: Rate(flagged, tally.rows) for key, flagged in tally.stages.items()}
    return Measured(Rate(tally.flagged, tally.rows), rates, tally.callers)


def _query(x: Array, profile: Profile) -> Query:
    return Query(x=x, caller="clean", model=profile.metadata.name, decision_id="fit")


def _one(subject: Subject, profile: Profile, engine: Engine, store: MemoryStore, rows: Positions) -> Conclusion:
    """What the proxy does with one call."""
    x, formats = subject.seen(rows)
    query = engine.admit(_query(x, profile))
    sketches = engine.sketch(query)
    history = at_once(store.exchange(_SCOPE, _CALLER, (), sketches, 0.0))
    decision = engine.decide(query, history, sketches)
    at_once(store.credit(_SCOPE, _CALLER, (), decision.update, 0.0))
    y = subject.answer(rows) if engine.reads_answers else None
    views = tuple(subject.answer(rows, view, formats) for view in decision.views)
    conclusion = engine.conclude(decision, Answer(y, views))
    at_once(store.credit(_SCOPE, _CALLER, (), conclusion.update, 0.0))
    return conclusion
