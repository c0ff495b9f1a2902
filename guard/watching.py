"""What the monitors make of a query and of its caller: the engine's part that looks back.

A monitor's scores become p-values by what `guard fit` saw on clean inputs, and p-values become evidence
(`guard.evidence`), of the caller and of each of his cohorts; of a monitor that judges clusters, of the cluster that a
row joins, whoever sent it. Exact repeats are retries, and no evidence; nor are answers to the next frame of a film.

A caller's evidence is weighed against the rate of false alarms that the operator allows him a month, so it begins anew
after a month. The evidence of a cluster is weighed against the rate allowed for all of them together, of which there
are as many as rows that have joined one, at most: that number stands for how often one was looked for.

Where exchangeability fails. Near-repeats of one caller are not like clean rows that were drawn one by one. What a
camera makes of a scene is told apart by its motion (`guard.linking`); sensor noise over a scene at rest is not, and
looks like an attack: leave cameras that stand still out, or send them without the monitors of near-repeats.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from guard import alerts, keyed, timing
from guard.assembly import Stage, compares, credits_component, measures, searches
from guard.evidence import Evidence
from guard.linking import links, moved
from guard.nearness import Nearness
from guard.settings import Model
from guard.sketching import Sketcher
from guard.techniques import COHORT
from guard.types import (
    NO_PAST,
    NO_UPDATE,
    Alert,
    AnswerMonitor,
    Array,
    Finding,
    Floats,
    History,
    Kept,
    Level,
    Mode,
    Monitor,
    Past,
    Query,
    Seen,
    Sketches,
    Update,
    WindowMonitor,
)
from guard.weighing import Weighing

MONTH_S = 30 * 86_400.0
_LEAST = 1e-300
_NEVER = (1.0, 1.0, 1.0)
_NO_EVIDENCE = Evidence()

Score = Callable[[Stage, int, Callable[[], Array]], Finding]
"""Runs one scoring stage; its p-values are the scores' own."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What monitors make of a query before it is answered."""

    findings: tuple[Finding, ...] = ()
    seen: tuple[Seen, ...] = ()
    past: Past = NO_PAST
    update: Update = NO_UPDATE
    level: Level = Level.CLEAR


class Watching:
    """A model's monitors. Keeps nothing."""

    def __init__(
        self, stages: Sequence[Stage], settings: Model, sketcher: Sketcher, score: Score, secret: bytes
    ) -> None:
        self._settings, self._sketcher, self._score, self._secret = settings, sketcher, score, secret
        self._stages = tuple(stages)
        self._rows = tuple(s for s in stages if isinstance(s.impl, Monitor) and not credits_component(s))
        self._clusters = tuple(s for s in stages if isinstance(s.impl, Monitor) and credits_component(s))
        self._answers = tuple(s for s in stages if isinstance(s.impl, AnswerMonitor))
        self._windows = tuple(s for s in stages if isinstance(s.impl, WindowMonitor))
        self._nearness = {
            s.name: Nearness.of(s.calibration, s.among) for s in stages if searches(s.impl) or s in self._clusters
        }
        enforcing = tuple(s for s in stages if s.enforces)
        self._alarming = enforcing or self._stages
        self._sees_near = any(searches(s.impl) for s in self._alarming)
        self._tests = tuple(s for s in self._alarming if not credits_component(s) and not measures(s))
        self._measuring = tuple(s for s in self._alarming if measures(s))
        self._alarming_clusters = frozenset(stage.name for stage in self._alarming if credits_component(stage))
        self._mode = Mode.ENFORCE if enforcing else Mode.SHADOW

    @property
    def reads_answers(self) -> bool:
        """Whether the model's answers matter."""
        return bool(self._stages)

    def sketch(self, unit: Floats) -> Sketches:
        """(N, ...) unit form -> one sketch a row; empty where nobody looks."""
        return timing.run("monitor", "sketch", self._sketcher, unit) if self._stages and len(unit) else ()

    # --- before the answer

    def judge(self, query: Query, sketches: Sketches, history: History | None, *, draws: bool = True) -> Judged:
        """history: None where there is none, because sketching or the store failed.

        draws: whether what is done about the caller may change with this query.
        """
        if not self._stages:
            return Judged()
        if history is None or len(history.matches) != len(sketches) or len(sketches) != len(query.x):
            return Judged(tuple(stage.finding(error="no history") for stage in self._stages))
        past, fresh_month = history.caller, False
        seen = links(sketches, history.matches, past.recent)
        if past.evidence and query.now - past.since >= MONTH_S:
            past, fresh_month = replace(past, evidence={}), True
        found: list[Finding] = []
        evidence: dict[str, tuple[float, ...]] = {}
        totals: dict[str, Evidence] = {}
        for stage in self._rows:
            finding = self._score(stage, len(seen), partial(stage.impl.judge, seen, past))
            found.append(self._credit(stage, finding, seen, past, evidence, totals, history))
        judged: dict[str, tuple[int, float]] = {}
        for stage in self._windows:
            finding, due = self._window(stage, past, totals)
            found.append(finding)
            judged.update(due)
        joins, components = self._join(seen, history, found)
        extra = {name: (*evidence.get(name, ()), p) for name, (_, p) in judged.items()}
        found += self._cohorts(history, evidence | extra)
        update = Update(evidence, judged, components, joins, restart=fresh_month)
        return self._alert(Judged(tuple(found), seen, past, update), totals, query, draws=draws)

    def _credit(
        self,
        stage: Stage,
        finding: Finding,
        seen: Sequence[Seen],
        past: Past,
        evidence: dict[str, tuple[float, ...]],
        totals: dict[str, Evidence],
        history: History | None = None,
    ) -> Finding:
        """The finding on the caller, instead of that on the rows.

        The p-values of fresh rows go into `evidence`, what they make of the caller's into `totals`. Of a stage that
        searches they are for as many rows as the store holds: the nearest of more than `guard fit` had is nearer.
        """
        if finding.error is not None:
            return finding
        if measures(stage):  # it measures something, and is no test
            return stage.finding(scores=finding.scores)
        p_values = finding.p_values
        if history is not None and searches(stage.impl):
            nearness, others = self._nearness[stage.name], _others(history)
            p_values = tuple(nearness.p_value(score, others) for score in finding.scores)
        same = self._same(stage)
        fresh = tuple([p for p, row in zip(p_values, seen, strict=True) if not same(row)])
        evidence[stage.name] = fresh
        total = totals[stage.name] = past.evidence.get(stage.name, _NO_EVIDENCE).add(fresh)
        return stage.finding(scores=finding.scores, p_values=(total.p_value,))

    def _same(self, stage: Stage) -> Callable[[Seen], bool]:
        """Which rows are the same again to a stage.

        What is beside another is, but for those that compare neighbours; as long as somebody sees that it is near.
        """
        if stage not in self._answers:
            return _is_duplicate
        return repeats if self._sees_near and not compares(stage) else _follows

    def _window(
        self, stage: Stage, past: Past, totals: dict[str, Evidence]
    ) -> tuple[Finding, dict[str, tuple[int, float]]]:
        """What there is to say of the caller, and the window that is due."""
        size, done = stage.impl.window, past.judged.get(stage.name, 0)
        known = past.evidence.get(stage.name, _NO_EVIDENCE)
        if past.rows - done < size or len(past.recent) < size:
            return stage.finding(p_values=(known.p_value,)), {}
        finding = self._score(stage, 1, lambda: np.array([stage.impl.judge_window(past.recent.last(size))]))
        if finding.error is not None:
            return finding, {}
        p = finding.p_values[0]
        total = totals[stage.name] = known.add((p,))
        return replace(finding, p_values=(total.p_value,)), {stage.name: (past.rows, p)}

    def _join(
        self, seen: Sequence[Seen], history: History, found: list[Finding]
    ) -> tuple[dict[int, int], dict[int, tuple[float, ...]]]:
        """Which rows join which cluster, and what that adds to it."""
        joins: dict[int, int] = {}
        credited: dict[int, list[float]] = {}
        for stage in self._clusters:
            finding = self._score(stage, len(seen), partial(stage.impl.judge, seen, history.caller))
            if finding.error is not None:
                found.append(finding)
                continue
            p_values, known = np.ones(len(seen)), dict[int, Evidence]()
            for i, row in enumerate(seen):
                if row.link is None or row.match.duplicate or not stage.impl.joins(row):
                    continue
                number = joins.get(row.link.neighbour.number, row.link.neighbour.component)
                joins[row.match.number] = number
                p = self._nearness[stage.name].p_near(finding.scores[i], _others(history))
                credited.setdefault(number, []).append(p)
                known[number] = _of(known, number, history).add((p,))
                p_values[i] = _p_value(alerts.of_cluster(known[number].log_value, history.joined))
            found.append(replace(finding, p_values=tuple(map(float, p_values))))
        return joins, {number: tuple(values) for number, values in credited.items()}

    def _cohorts(self, history: History, evidence: Mapping[str, tuple[float, ...]]) -> list[Finding]:
        """Told, never acted upon: one bad caller must not bring down his neighbours."""
        found = []
        for name, past in history.cohorts.items():
            ways = {
                stage.name: alerts.progress(
                    past.evidence.get(stage.name, _NO_EVIDENCE).add(evidence.get(stage.name, ())).log_value,
                    stage.threshold,
                )
                for stage in self._tests
            }
            worst = max(ways, key=lambda key: ways[key], default=None)
            if worst is not None and ways[worst] >= 1.0:
                found.append(Finding(COHORT + name, "monitor", Mode.SHADOW, (ways[worst],), (0.0,), 0.0))
        return found

    def _alert(self, judged: Judged, totals: Mapping[str, Evidence], query: Query, *, draws: bool) -> Judged:
        """With the caller's level, and the finding that tells of it."""
        past, most, way, added = judged.past, 0.0, 0.0, False
        for stage in self._tests:
            before = past.evidence.get(stage.name, _NO_EVIDENCE)
            after = totals.get(stage.name, before)
            value = after.log_value
            own = alerts.progress(value, stage.threshold)
            most, way = max(most, value), max(way, own)
            added |= own >= alerts.STEPS[Level.WATCH] and value > before.log_value
        calm_s = self._settings.policy.calm_s
        alert, anew = alerts.advance(past.alert, way, added=added, now=query.now, calm_s=calm_s)
        level, clusters = alert.level, self._alarming_clusters
        if self._measuring:
            by_name = {finding.stage: finding for finding in judged.findings}
            level = max(level, *(_measured(stage, by_name.get(stage.name)) for stage in self._measuring))
        joined = sum(
            p <= found.threshold for found in judged.findings if found.stage in clusters for p in found.p_values
        )
        alert, acting = alerts.act(
            alert,
            level,
            rows=len(judged.seen),
            joined=joined,
            lag_rows=self._settings.policy.lag_rows,
            draws=self._drawn(query) if draws and (joined or level is not alert.acting) else _NEVER,
        )
        known, said = past.alert, judged.update
        same = alert.level is known.level and alert.until == known.until
        update = Update(
            said.evidence, said.judged, said.components, said.joins,
            alert=None if same else Alert(alert.level, alert.until),
            acting=None if alert.acting is known.acting else alert.acting,
            held=None if alert.held == known.held else alert.held,
            restart=said.restart or anew,
        )  # fmt: skip
        if max(level, acting) is Level.CLEAR:
            return Judged(judged.findings, judged.seen, past, update)
        finding = Weighing(self._settings).alert(self._mode, level, acting, max(_LEAST, math.exp(-most)))
        return Judged((*judged.findings, finding), judged.seen, past, update, level)

    def _drawn(self, query: Query) -> tuple[float, float, float]:
        first, second, third = keyed.draws(
            f"{query.caller}\n{query.decision_id}".encode(), self._secret, b"guard lag", 3
        )
        return first, second, third

    # --- after the answer

    def conclude(self, seen: tuple[Seen, ...], past: Past, probs: Floats | None) -> tuple[tuple[Finding, ...], Update]:
        """probs: (N, C), rows that sum to 1; None where there is no answer that can be read."""
        if not seen:
            return (), NO_UPDATE
        if probs is None or len(probs) != len(seen):
            return tuple(stage.finding(error="no answer to look at") for stage in self._answers), unanswered(seen)
        found: list[Finding] = []
        evidence: dict[str, tuple[float, ...]] = {}
        for stage in self._answers:
            finding = self._score(stage, len(seen), partial(stage.impl.judge_answers, seen, past, probs))
            found.append(self._credit(stage, finding, seen, past, evidence, {}))
        kept = _fresh(seen, probs.argmax(axis=1), probs.max(axis=1))
        return tuple(found), Update(evidence=evidence, answered=kept)


def _others(history: History) -> int:
    """How many rows there are but the caller's own: who sends much, and nothing alike, makes nothing nearer."""
    return max(0, history.entries - history.caller.rows)


def _is_duplicate(row: Seen) -> bool:
    return row.match.duplicate


def _follows(row: Seen) -> bool:
    """Whether a row is the same again: exactly, or the next frame of the same scene.

    The answer to it says nothing new then; how near it lies does: it was near, and motion explains that.
    """
    return row.match.duplicate or row.follows or moved(row.link)


def repeats(row: Seen) -> bool:
    """The same, or nearly one of the caller's latest rows that were heard: odd or not, that was said then.

    That rows lie so near to each other speaks against a caller by itself, where motion does not explain it.
    """
    return row.beside or _follows(row)


def unanswered(seen: Sequence[Seen]) -> Update:
    """Fresh rows whose answers nobody has seen are the caller's all the same."""
    return Update(answered=_fresh(seen, np.full(len(seen), -1), np.full(len(seen), np.nan)))


def _fresh(seen: Sequence[Seen], labels: Array, confidences: Array) -> tuple[Kept, ...]:
    return tuple(
        Kept(
            row.match.number,
            row.sketch.position,
            row.sketch.embedding,
            int(labels[i]),
            float(confidences[i]),
            row.heard,
        )
        for i, row in enumerate(seen)
        if not row.match.duplicate
    )


def _of(known: Mapping[int, Evidence], number: int, history: History) -> Evidence:
    if number in known:
        return known[number]
    component = history.components.get(number)
    return Evidence() if component is None else component.evidence


def _p_value(log_value: float) -> float:
    return max(_LEAST, math.exp(-max(0.0, min(690.0, log_value))))


def _measured(stage: Stage, finding: Finding | None) -> Level:
    if finding is None or not finding.scores:
        return Level.CLEAR
    level: Any = stage.impl.level(max(finding.scores))
    return Level(level)
