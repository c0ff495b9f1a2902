"""The pure core: a query and what its stages say of it become a decision.

No I/O, no clock, no randomness but keyed hashes. Four plain calls around the caller's I/O:

    admit    validate, bring into unit form                       (InvalidQuery ends it here)
    sketch   what the monitors want looked up                     (then: one round trip to the store)
    decide   monitors, detectors, policy, purifiers               (then: the upstream is called, or not)
    conclude view detectors, policy again, output protections     (then: the answer leaves)

Evidence. A detector's score becomes a conformal p-value and fires at its share of the model's false-positive budget
(Bonferroni: shares sum to the budget, so that the rate of flagged clean rows stays below it however the detectors
depend on each other). A monitor's p-values are accumulated over the caller's queries (`guard.calibration.Evidence`).
The budget counts rows, not calls: putting a row into a batch gains a caller nothing.

Errors. A stage that raises, or returns another shape or NaN, yields a finding with an error; where the stage enforces
and says `on_error: deny`, the query is refused. A stage never ends a query in any other way.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration, Evidence, log_e_value
from guard.profile import Profile, ProfileError, Space, from_probabilities, to_probabilities
from guard.settings import STAGE_LISTS, Model, build_stage
from guard.types import (
    Action,
    Answer,
    Array,
    Bools,
    Conclusion,
    Decision,
    Finding,
    Floats,
    Histories,
    InvalidQuery,
    Kind,
    Mode,
    OnError,
    Query,
    Sketches,
    ViewDetector,
    When,
)


class StageError(RuntimeError):
    """A stage did not keep its contract. Stays inside: it becomes a finding."""


_UNCALIBRATED = Calibration.of(np.zeros(1))  # of purifiers and outputs, which do not score


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """One stage as the settings want it. `threshold`: its share of the budget, where it scores."""

    name: str
    kind: Kind
    impl: Any
    mode: Mode
    on_error: OnError
    when: When = When.SUSPICIOUS
    threshold: float = 0.0
    calibration: Calibration = _UNCALIBRATED

    @property
    def enforces(self) -> bool:
        return self.mode is Mode.ENFORCE

    def finding(self, **values: Any) -> Finding:
        return Finding(self.name, self.kind, self.mode, threshold=self.threshold, **values)


class Engine:
    """One model's defence. Safe to share between threads: it keeps nothing.

    Raises ConfigError or ProfileError where settings and profile do not fit together.
    """

    def __init__(self, settings: Model, profile: Profile, secret: bytes) -> None:
        self.settings = settings
        self.profile = profile
        self._secret = hashlib.blake2b(secret, key=b"guard engine", digest_size=32).digest()
        self._space: Space = profile.space
        stages = _assemble(settings, profile)
        self.stages: tuple[_Stage, ...] = tuple(s for s in stages if s.mode is not Mode.OFF)
        self._monitors = self._of("monitor")
        self._detectors = tuple(s for s in self._of("detector") if not isinstance(s.impl, ViewDetector))
        self._view_detectors = tuple(s for s in self._of("detector") if isinstance(s.impl, ViewDetector))
        self._purifiers = self._of("purifier")
        self._outputs = self._of("output")
        if profile.meaning == "labels" and (self._view_detectors or self._outputs):
            names = ", ".join(s.name for s in (*self._view_detectors, *self._outputs))
            raise ProfileError(f"the model answers with labels only, which {names} cannot work with")

    def _of(self, kind: Kind) -> tuple[_Stage, ...]:
        return tuple(s for s in self.stages if s.kind == kind)

    @property
    def reads_answers(self) -> bool:
        """Whether any stage needs the model's answer as an array."""
        return bool(self._view_detectors or self._outputs)

    # --- before the upstream is called

    def admit(self, query: Query) -> Query:
        """Validate the input and bring it into unit form. Raises InvalidQuery."""
        if query.unit is not None:
            return query
        unit = self._space.to_unit(query.x)
        unit.flags.writeable = False
        return replace(query, unit=unit, invalid=self._validate(query))

    def _validate(self, query: Query) -> bool:
        """Whether values are invalid where validation is in shadow. Raises InvalidQuery where it enforces."""
        checks = self.settings.validation
        mode = _capped(checks.mode, self.settings.mode)
        if mode is not Mode.OFF:
            try:
                self._space.check(query.x, finite=checks.finite, bounds=checks.bounds)
            except InvalidQuery:
                if mode is Mode.ENFORCE:
                    raise
                return True
        return False

    def sketch(self, query: Query) -> Sketches:
        """What each monitor wants looked up and kept. A monitor that fails here is missing, and found failing below."""
        unit = _unit(self.admit(query))
        sketches = {}
        for stage in self._monitors:
            try:
                made = tuple(stage.impl.sketch(unit, self._secret))
            except Exception:  # noqa: BLE001, S112 - a stage is foreign code; `decide` reports it
                continue
            if len(made) == len(unit):
                sketches[stage.name] = made
        return sketches

    def decide(self, query: Query, histories: Histories, sketches: Sketches | None = None) -> Decision:
        """Everything that can be said before the model has answered."""
        query = self.admit(query)
        unit = _unit(query)
        sketches = self.sketch(query) if sketches is None else sketches
        enforced = self.settings.mode is Mode.ENFORCE and self._in_canary(query.caller)
        findings, evidence = self._judge_caller(sketches, histories)
        if query.invalid:
            findings.append(Finding("validation", "detector", Mode.SHADOW, p_values=(0.0,)))
        findings += [self._score(stage, len(unit), partial(stage.impl.score, unit)) for stage in self._detectors]
        decision = self._weigh(
            Decision(query, Action.ALLOW, Action.ALLOW, enforced, evidence=evidence), tuple(findings)
        )
        if decision.action is Action.DENY:
            return decision
        return self._plan_views(self._purify(decision))

    def _in_canary(self, caller: str) -> bool:
        digest = hashlib.blake2b(caller.encode(), key=self._secret, digest_size=8, person=b"guard canary").digest()
        return int.from_bytes(digest, "big") < self.settings.canary * 2**64

    def _judge_caller(
        self, sketches: Sketches, histories: Histories
    ) -> tuple[list[Finding], dict[str, tuple[float, ...]]]:
        findings, evidence = [], {}
        for stage in self._monitors:
            history = histories.get(stage.name)
            if stage.name not in sketches or history is None:
                findings.append(stage.finding(error="no sketch" if stage.name not in sketches else "no history"))
                continue
            seen = sketches[stage.name]
            finding = self._score(stage, len(seen), partial(stage.impl.judge, seen, history))
            if finding.error is None:
                fresh = [p for p, match in zip(finding.p_values, history.matches, strict=True) if not match.duplicate]
                evidence[stage.name] = tuple(log_e_value(p) for p in fresh)
                total = Evidence(history.log_sum, history.count).add(evidence[stage.name])
                finding = replace(finding, p_values=(total.p_value,))
            findings.append(finding)
        return findings, evidence

    def _score(self, stage: _Stage, rows: int, score: Callable[[], Array]) -> Finding:
        """Run one scoring stage and calibrate what it says."""
        try:
            scores = _rows_of_finite(score(), rows)
        except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
            return stage.finding(error=_name(error))
        p_values = stage.calibration.p_values(scores)
        return stage.finding(scores=tuple(map(float, scores)), p_values=tuple(map(float, p_values)))

    # --- policy

    def _weigh(self, decision: Decision, findings: tuple[Finding, ...]) -> Decision:
        """Fold findings into what is done, and what would be done if every stage enforced, for everyone."""
        rows = len(decision.query.x)
        acting = [f for f in findings if f.mode is Mode.ENFORCE] if decision.enforced else []
        return replace(
            decision,
            findings=findings,
            action=self._action(acting),
            would_be=self._action(findings),
            suspicious=_suspicious(acting, rows),
        )

    def _action(self, findings: "list[Finding] | tuple[Finding, ...]") -> Action:
        actions = [Action.ALLOW]
        for finding in findings:
            if finding.error is not None and self._on_error(finding) is OnError.DENY:
                actions.append(Action.DENY)
            if finding.fired:
                policy = self.settings.policy
                actions.append(policy.on_caller if finding.kind == "monitor" else policy.on_input)
        return max(actions, key=lambda action: action.severity)

    def _on_error(self, finding: Finding) -> OnError:
        return next(s.on_error for s in self.stages if (s.kind, s.name) == (finding.kind, finding.stage))

    # --- purifiers and views

    def _purify(self, decision: Decision) -> Decision:
        """What to send instead: `always` purifies every row, `suspicious` the flagged ones if policy asks."""
        if not decision.enforced:
            return decision
        rows = decision.suspicious if decision.action is Action.PURIFY else np.zeros_like(decision.suspicious)
        purified, failed = self._run_purifiers(_unit(decision.query), rows)
        if failed:
            decision = self._weigh(decision, decision.findings + failed)
        if decision.action is Action.DENY or purified is None:
            return decision
        return replace(decision, x=self._space.from_unit(purified, decision.query.x))

    def _run_purifiers(self, unit: Floats, suspicious: Bools) -> tuple[Floats | None, tuple[Finding, ...]]:
        """The purified rows, None where no purifier acted; and the findings of those that failed."""
        current, failed, acted = unit, [], False
        for stage in self._purifiers:
            rows = np.ones(len(unit), np.bool_) if stage.when is When.ALWAYS else suspicious
            if not stage.enforces or not rows.any():
                continue
            try:
                clean = _same_kind(stage.impl.purify(current[rows]), current[rows])
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed.append(stage.finding(error=_name(error)))
                continue
            current, acted = current.copy(), True
            current[rows] = clean
        return (current if acted else None), tuple(failed)

    def _plan_views(self, decision: Decision) -> Decision:
        """What else to ask the model: views for the view detectors, a standby in case they fire and policy purifies."""
        unit = _unit(decision.query)
        views: list[Array] = []
        counts: dict[str, int] = {}
        failed: list[Finding] = []
        for stage in self._view_detectors:
            try:
                made = [_same_kind(view, unit) for view in stage.impl.views(unit)]
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed.append(stage.finding(error=_name(error)))
                continue
            counts[stage.name] = len(made)
            views += [self._space.from_unit(view, decision.query.x) for view in made]
        if failed:
            decision = self._weigh(decision, decision.findings + tuple(failed))
        enforcing = decision.enforced and any(s.enforces for s in self._view_detectors if s.name in counts)
        protecting = decision.enforced and any(s.enforces for s in self._outputs)
        if decision.action is Action.DENY:
            return decision
        decision = replace(decision, views=tuple(views), view_counts=counts, waits=enforcing or protecting)
        return self._plan_standby(decision) if enforcing else decision

    def _plan_standby(self, decision: Decision) -> Decision:
        if self.settings.policy.on_input is not Action.PURIFY or decision.suspicious.all():
            return decision
        purified, failed = self._run_purifiers(_unit(decision.query), np.ones_like(decision.suspicious))
        if failed:
            decision = self._weigh(decision, decision.findings + failed)
        if decision.action is Action.DENY:
            return replace(decision, views=(), view_counts={}, waits=False)
        if purified is None:
            return decision
        return replace(decision, standby=self._space.from_unit(purified, decision.query.x))

    # --- after the upstream has answered

    def conclude(self, decision: Decision, answer: Answer) -> Conclusion:
        """What the answer adds, and what leaves. A denied decision stays denied."""
        if decision.action is Action.DENY:
            return Conclusion(decision, Action.DENY, decision.would_be, decision.findings)
        probs, views = self._read(answer.y), [self._read(view) for view in answer.views]
        found, start = [], 0
        for stage in self._view_detectors:
            if stage.name not in decision.view_counts:
                continue  # `decide` has its error
            own = views[start : start + decision.view_counts[stage.name]]
            start += decision.view_counts[stage.name]
            found.append(self._compare(stage, probs, own, len(decision.query.x)))
        decision = self._weigh(decision, decision.findings + tuple(found))
        return self._answer(decision, answer, probs)

    def _read(self, y: Array | None) -> Floats | None:
        if y is None:
            return None
        try:
            return to_probabilities(y, self.profile.meaning)
        except ValueError:
            return None

    def _compare(self, stage: _Stage, probs: Floats | None, views: list[Floats | None], rows: int) -> Finding:
        answered = tuple(view for view in views if view is not None and probs is not None and view.shape == probs.shape)
        if probs is None or len(answered) < len(views):
            return stage.finding(error="no answer to compare")
        return self._score(stage, rows, partial(stage.impl.score_views, probs, answered))

    def _answer(self, decision: Decision, answer: Answer, probs: Floats | None) -> Conclusion:
        """Choose and protect the answer of a weighed decision."""
        y, use_standby = answer.y, False
        if decision.action is Action.PURIFY and decision.standby is not None:
            if answer.standby is None:
                decision = self._without_standby(decision)
            else:
                y, probs, use_standby = answer.standby, self._read(answer.standby), True
        protected, failed = self._protect(decision, y, probs)
        if failed:
            decision = self._weigh(decision, decision.findings + failed)
        if decision.action is Action.DENY:
            protected, use_standby = None, False
        return Conclusion(decision, decision.action, decision.would_be, decision.findings, use_standby, protected)

    def _without_standby(self, decision: Decision) -> Decision:
        """The purified input got no answer: each purifier's `on_error` says what that means."""
        failed = tuple(s.finding(error="no answer to the purified input") for s in self._purifiers if s.enforces)
        return self._weigh(decision, decision.findings + failed)

    def _protect(
        self, decision: Decision, y: Array | None, probs: Floats | None
    ) -> tuple[Array | None, tuple[Finding, ...]]:
        """The protected (N, C) output in its own meaning and dtype, None where nothing changed."""
        if not decision.enforced or decision.action is Action.DENY:
            return None, ()
        rows = decision.suspicious if decision.action is Action.DEGRADE else np.zeros_like(decision.suspicious)
        stages = [(s, rows if s.when is When.SUSPICIOUS else np.ones_like(rows)) for s in self._outputs if s.enforces]
        stages = [(stage, chosen) for stage, chosen in stages if chosen.any()]
        if y is None or probs is None or len(probs) != len(rows):
            return None, tuple(stage.finding(error="no answer to protect") for stage, _ in stages)
        current, changed, failed = probs, np.zeros_like(rows), []
        for stage, chosen in stages:
            try:
                current = _distribution(stage.impl.protect(current, chosen), current)
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed.append(stage.finding(error=_name(error)))
                continue
            changed |= chosen
        if not changed.any():
            return None, tuple(failed)
        protected = np.array(y)
        protected[changed] = from_probabilities(current[changed], self.profile.meaning, y)
        return protected, tuple(failed)


def _unit(query: Query) -> Floats:
    """The unit form of an admitted query."""
    return cast("Floats", query.unit)


def _name(error: Exception) -> str:
    """A stage's failure in words that hold nothing of the client's data."""
    return str(error) if isinstance(error, StageError) else type(error).__name__


def _suspicious(findings: "list[Finding]", rows: int) -> Bools:
    flagged = np.zeros(rows, np.bool_)
    for finding in findings:
        if finding.kind == "monitor":
            flagged |= finding.fired
        elif finding.p_values:
            flagged |= np.asarray(finding.p_values) <= finding.threshold
    return flagged


def _rows_of_finite(scores: Array, rows: int) -> NDArray[np.float64]:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (rows,):
        raise StageError(f"returned shape {scores.shape} for {rows} rows")
    if not np.isfinite(scores).all():
        raise StageError("returned NaN or infinity")
    return scores


def _same_kind(made: Array, like: Array) -> Floats:
    """A stage's rows in unit form: the shape of `like`, finite, clipped."""
    made = np.asarray(made, dtype=np.float32)
    if made.shape != like.shape:
        raise StageError(f"returned shape {made.shape} for {like.shape}")
    if not np.isfinite(made).all():
        raise StageError("returned NaN or infinity")
    return np.clip(made, 0.0, 1.0)


def _distribution(made: Array, like: Array) -> Floats:
    made = np.asarray(made, dtype=np.float64)
    if made.shape != like.shape:
        raise StageError(f"returned shape {made.shape} for {like.shape}")
    if not np.isfinite(made).all() or (made < 0).any() or (np.abs(made.sum(axis=1) - 1.0) > 1e-6).any():  # noqa: PLR2004
        raise StageError("returned rows that are no distribution")
    return made


def _capped(mode: Mode, cap: Mode) -> Mode:
    order = list(Mode)
    return order[min(order.index(mode), order.index(cap))]


def _assemble(settings: Model, profile: Profile) -> list[_Stage]:
    """The settings' stages, built, calibrated, with their share of the budget."""
    weights = sum(d.weight for d in settings.detectors if _capped(d.mode, settings.mode) is not Mode.OFF)
    watching = sum(1 for m in settings.monitors if _capped(m.mode, settings.mode) is not Mode.OFF)
    stages = []
    for attribute, kind in STAGE_LISTS:
        for i, entry in enumerate(getattr(settings, attribute)):
            impl = build_stage(kind, entry.stage, entry.options, f"{attribute}.{i}")
            if getattr(impl, "needs_images", False) and not profile.space.is_image:
                raise ProfileError(f"{kind} {entry.stage!r} works on images only, and the model takes vectors")
            mode = _capped(entry.mode, settings.mode)
            common = {"name": entry.stage, "kind": kind, "impl": impl, "mode": mode, "on_error": entry.on_error}
            if mode is Mode.OFF or kind in {"purifier", "output"}:
                stages.append(_Stage(**common, when=getattr(entry, "when", When.SUSPICIOUS)))
                continue
            share = entry.weight / weights if kind == "detector" else 1.0 / watching
            rate = settings.false_positive_rate if kind == "detector" else settings.caller_false_alarm_rate
            calibration = profile.calibration(kind, entry.stage, impl)
            if kind == "detector" and share * rate < calibration.least:
                raise ProfileError(
                    f"detector {entry.stage!r} can never fire: its share of the budget is {share * rate:g}, and "
                    f"its {calibration.scores.size} clean inputs cannot show less than {calibration.least:g}; "
                    f"fit with at least {int(np.ceil(1 / (share * rate))) - 1}"
                )
            stages.append(_Stage(**common, threshold=share * rate, calibration=calibration))
    return stages
