"""The pure core: a query and what its stages say of it become a decision.

No I/O, no clock, no randomness but keyed hashes. Four plain calls around the caller's I/O:

    admit    validate, bring into unit form                       (InvalidQuery ends it here)
    sketch   what the monitors want looked up                     (then: one round trip to the store)
    decide   monitors, detectors, policy, purifiers               (then: the upstream is called, or not)
    conclude view detectors, policy again, output protections     (then: the answer leaves)

Evidence. A detector's score becomes a conformal p-value and fires at its share of the model's false-positive budget,
set so that all of them together flag a clean row at that rate (`guard.assembly`). Detectors look at the input alone, at
the input and its answer, or at the answers to further inputs; with `escalate_below` the last are for rows alone of
which the first are unsure. They judge the input as it came: where a purified one is forwarded, the model is asked about
the original, too. What monitors say is weighed by `guard.watching`.
The budget counts rows, not calls: putting a row into a batch gains a caller nothing.

Errors. A stage that raises, or returns another shape or NaN, yields a finding with an error; where the stage enforces
and says `on_error: deny`, the query is refused. A stage never ends a query in any other way.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from guard import timing
from guard.assembly import Loaded, Stage, assemble, capped, credits_component, estimates
from guard.keyed import draws
from guard.networks import Networks
from guard.profile import (
    Meaning,
    Profile,
    ProfileError,
    Space,
    as_probabilities,
    from_probabilities,
    to_probabilities,
)
from guard.settings import Model
from guard.sketching import Sketcher
from guard.techniques import ALERT
from guard.types import (
    NO_UPDATE,
    Action,
    Answer,
    Array,
    Bools,
    Conclusion,
    Decision,
    Finding,
    Floats,
    History,
    InvalidQuery,
    KeyedOutput,
    Kind,
    Level,
    Mode,
    Query,
    Sketches,
    ViewDetector,
    VotingPurifier,
    When,
    severest,
    speaking,
)
from guard.watching import Watching
from guard.weighing import Weighing, acted_on, acting


class StageError(RuntimeError):
    """A stage did not keep its contract. Stays inside: it becomes a finding."""


_PRICES = 32  # steps of a challenge's price by an estimate
_REFERENCE = "reference"  # the input as it came, asked about where another is forwarded


class _Weighed(TypedDict):
    """What findings come to: these fields of a `Decision`."""

    findings: tuple[Finding, ...]
    action: Action
    responses: frozenset[Action]
    would_be: Action
    suspicious: Bools
    degrees: NDArray[np.int64]


class Engine:
    """One model's defence. Safe to share between threads: it keeps nothing.

    Raises ConfigError or ProfileError where settings and profile do not fit together.
    """

    def __init__(self, settings: Model, profile: Profile, secret: bytes, networks: Networks | None = None) -> None:
        """networks: shared with other engines; None: this one has its own."""
        self.settings = settings
        self.profile = profile
        self._secret = hashlib.blake2b(secret, key=b"guard engine", digest_size=32).digest()
        self._space: Space = profile.space
        self._datatype = next((t.datatype for t in profile.metadata.outputs if t.name == profile.output_name), "")
        self.stages: tuple[Stage, ...]
        loaded = Loaded(profile, networks)
        self.stages, self._cheap = assemble(settings, profile, self._secret, loaded)
        monitors = self._of("monitor")
        sketcher = sketcher_of(loaded, self._secret, self.stages)
        self._watching = Watching(monitors, settings, sketcher, self._score, self._secret)
        on_error = {(stage.kind, stage.name): stage.on_error for stage in self.stages}
        clusters = frozenset(stage.name for stage in monitors if credits_component(stage))
        self._weighing = Weighing(settings, on_error, clusters)
        self._detectors = tuple(s for s in self._of("detector") if s.sees_input_alone)
        self._view_detectors = tuple(s for s in self._of("detector") if isinstance(s.impl, ViewDetector))
        self._answer_detectors = tuple(
            s for s in self._of("detector") if not s.sees_input_alone and s not in self._view_detectors
        )
        self._purifiers = tuple(s for s in self._of("purifier") if not isinstance(s.impl, VotingPurifier))
        self._voters = tuple(s for s in self._of("purifier") if isinstance(s.impl, VotingPurifier))
        self._outputs = self._of("output")
        self._light = not monitors and all(getattr(s.impl, "light", False) for s in self.stages)
        self._protects = any(s.enforces for s in (*self._outputs, *self._voters))
        self._asks = bool(self._view_detectors or self._answer_detectors or self._voters)
        self._estimates = frozenset(s.name for s in monitors if s.enforces and estimates(s))
        self._counts_bits = settings.budget.bits_per_day is not None
        self._validates = capped(settings.validation.mode, settings.mode)
        self._of_everybody, self._of_input = settings.of_everybody, settings.of_input
        self._looks = bool(self.stages) or self._counts_bits or self._of_everybody != {Action.ALLOW}
        self._check()

    def _check(self) -> None:
        readers = (*self._view_detectors, *self._answer_detectors, *self._voters, *self._outputs)
        if self.profile.meaning == "labels" and readers:
            names = ", ".join(s.name for s in readers)
            raise ProfileError(f"the model answers with labels only, which {names} cannot work with")
        if len(self._voters) > 1:
            raise ProfileError(f"one voting purifier at most, not {', '.join(s.name for s in self._voters)}")

    def _of(self, kind: Kind) -> tuple[Stage, ...]:
        return tuple(s for s in self.stages if s.kind == kind)

    @property
    def reads_answers(self) -> bool:
        """Whether any stage needs the model's answer as an array."""
        judges = self._view_detectors or self._answer_detectors or self._voters or self._outputs
        return bool(judges) or self._counts_bits or self._watching.reads_answers

    @property
    def remembers(self) -> bool:
        """Whether there are monitors, so that there is something to look up."""
        return self._watching.reads_answers

    def most_bits(self, rows: int) -> float:
        """The most that an answer to so many rows can tell; 0 where nobody counts."""
        return _information(None, rows, self.profile.classes, self.profile.meaning) if self._counts_bits else 0.0

    def least_bits(self, rows: int) -> float:
        """What the labels alone tell; 0 where nobody counts."""
        return _information(None, rows, self.profile.classes, "labels") if self._counts_bits else 0.0

    @property
    def light(self) -> bool:
        """Whether a few small rows take less than handing them to a thread does: all stages say so, none looks back."""
        return self._light

    @property
    def holds_answers(self) -> bool:
        """Whether a detector looks at the answer to the input itself, with or without views."""
        return bool(self._answer_detectors)

    # --- before the upstream is called

    def admit(self, query: Query) -> Query:
        """Validate the input and bring it into unit form. Raises InvalidQuery."""
        if query.unit is not None:
            return query
        unit = self._space.to_unit(query.x)
        unit.flags.writeable = False
        return replace(query, unit=unit, invalid=self._validate(query.x, query.caller, query.now))

    def _validate(self, x: Array, caller: str, now: float) -> bool:
        """Whether values are invalid where validation is in shadow. Raises InvalidQuery where it enforces."""
        checks, mode = self.settings.validation, self._validates
        if mode is Mode.OFF:
            self._space.check(x, finite=False, bounds=False)
        else:
            try:
                self._space.check(x, finite=checks.finite, bounds=checks.bounds)
            except InvalidQuery:
                if mode is Mode.ENFORCE and self.enforces_for(caller, now):
                    raise
                return True
        return False

    def vet(self, x: Array, caller: str, now: float) -> bool:
        """Whether a query is forwarded as it came and there is nothing to tell of it, without its unit form.

        False where there is more to it: stages, a policy for everybody, values that break the rules in shadow. Raises
        InvalidQuery.
        """
        return not (self._looks or self._validate(x, caller, now))

    def sketch(self, query: Query) -> Sketches:
        """What monitors want looked up and kept of each row; empty where there are none, or where that fails.

        Raises InvalidQuery.
        """
        unit = _unit(self.admit(query))
        try:
            return self._watching.sketch(unit)
        except Exception:  # noqa: BLE001 - a network is foreign code; `decide` reports what is missing
            return ()

    def decide(self, query: Query, history: History | None, sketches: Sketches | None = None) -> Decision:
        """Everything that can be said before the model has answered."""
        decision = self._first(query, history, sketches, self._detectors, draws=True)
        if decision.action is Action.DENY:
            return decision
        return self._plan_views(self._purify(decision))

    def foresee(self, query: Query, history: History | None, sketches: Sketches) -> Decision:
        """What will be decided, as far as it matters to whether the query is challenged.

        What is done about the caller does not change with it: else who pays for nothing could ask until it is drawn.
        For a look that the store forgets (`Store.exchange` without `remember`): there is nothing to tell it.
        """
        looking = self._detectors if Action.CHALLENGE in self._of_input else ()
        return replace(self._first(query, history, sketches, looking, draws=False), seen=(), update=NO_UPDATE)

    def _first(
        self,
        query: Query,
        history: History | None,
        sketches: Sketches | None,
        detectors: tuple[Stage, ...],
        *,
        draws: bool,
    ) -> Decision:
        """What monitors and these detectors say, and what follows; not yet what is sent."""
        query = self.admit(query)
        unit = _unit(query)
        sketches = self.sketch(query) if sketches is None else sketches
        enforced = self.enforces_for(query.caller, query.now)
        judged = self._watching.judge(query, sketches, history, draws=draws)
        findings = list(judged.findings)
        if query.invalid:
            findings.append(Finding("validation", "detector", Mode.SHADOW, p_values=(0.0,)))
        findings += [self._score(stage, len(unit), partial(stage.impl.score, unit)) for stage in detectors]
        return Decision(
            query,
            enforced=enforced,
            seen=judged.seen,
            past=judged.past,
            update=judged.update,
            level=judged.level,
            components={} if history is None else history.components,
            progress=self._progress(judged.findings),
            **self._weighed(tuple(findings), enforced, frozenset(), len(unit)),
        )

    def _progress(self, findings: tuple[Finding, ...]) -> float:
        """How far a caller has come on the way to a copy: by an estimate, or by the level that is acted upon.

        It is told by a puzzle's price, so it is in steps that a single query hardly moves.
        """
        if not findings:
            return 0.0
        begin = self.settings.challenge.grows_from
        level = next((acting(finding) for finding in findings if finding.stage == ALERT), Level.CLEAR)
        estimated = [max(f.scores) for f in findings if f.stage in self._estimates and f.scores]
        steps = [math.floor(_PRICES * (one - begin) / (1.0 - begin)) / _PRICES for one in estimated]
        return min(1.0, max((level / Level.HOSTILE, *steps)))

    def enforces_for(self, caller: str, now: float) -> bool:
        """Whether enforcement is real for him, at that time."""
        exempt = self.settings.policy.exempts(caller, now)
        return self.settings.mode is Mode.ENFORCE and not exempt and self._in_canary(caller)

    def _in_canary(self, caller: str) -> bool:
        share = self.settings.canary
        return share >= 1.0 or draws(caller.encode(), self._secret, b"guard canary")[0] < share

    def _score(self, stage: Stage, rows: int, score: Callable[[], Array]) -> Finding:
        """Run one scoring stage and calibrate what it says."""
        try:
            scores = _rows_of_finite(timing.run(stage.kind, stage.name, score), rows)
        except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
            return stage.finding(error=_name(error))
        return stage.finding(scores=tuple(scores.tolist()), p_values=stage.calibration.plain(scores))

    # --- policy

    def _weigh(self, decision: Decision, findings: tuple[Finding, ...]) -> Decision:
        """Fold findings into what is done, and what would be done if every stage enforced, for everyone."""
        weighed = self._weighed(findings, decision.enforced, decision.settled, len(decision.query.x))
        return replace(decision, **weighed)

    def _weighed(
        self, findings: tuple[Finding, ...], enforced: bool, settled: frozenset[Action], rows: int
    ) -> _Weighed:
        heard = speaking(findings)
        acting = [f for f in heard if f.mode is Mode.ENFORCE] if enforced else []
        everybody = self._of_everybody
        responses = self._weighing.responses(acting) | (everybody if enforced else frozenset())
        responses -= settled
        degrees = self._weighing.degrees(acting, rows)
        return {
            "findings": findings,
            "action": severest(responses),
            "responses": responses,
            "would_be": severest(self._weighing.responses(heard) - {Action.ALLOW} or everybody | {Action.ALLOW}),
            "suspicious": degrees > 0,
            "degrees": degrees,
        }

    # --- purifiers and views

    def _purify(self, decision: Decision) -> Decision:
        """What to send instead: `always` purifies every row, `suspicious` the flagged ones if policy asks."""
        if not decision.enforced:
            return decision
        rows = decision.suspicious & (Action.PURIFY in decision.responses)
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
            chosen = _chosen(current, rows)
            try:
                clean = _same_kind(timing.run(stage.kind, stage.name, stage.impl.purify, chosen), chosen)
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed.append(stage.finding(error=_name(error)))
                continue
            acted = True
            if chosen is current:  # all of them
                current = clean
            else:
                current = current.copy()
                current[rows] = clean
        return (current if acted else None), tuple(failed)

    def _plan_views(self, decision: Decision) -> Decision:
        """What else to ask the model: views, copies to vote on, and a standby in case a detector fires."""
        protecting = decision.enforced and self._protects
        if not self._asks:
            none = np.zeros(len(decision.query.x), np.bool_)
            return replace(decision, view_rows=none, looked=none, voted=none, waits=protecting)
        looked, voted, may_vote = self._escalated(decision), self._voted(decision), self._may_vote(decision)
        rows = looked | may_vote
        unit = _unit(decision.query)
        makers: list[tuple[str, Stage | None, Callable[[Array], tuple[Array, ...]]]] = []
        if looked.any():
            makers += [(s.key, s, s.impl.views) for s in self._view_detectors]
        if decision.x is not None and (self._answer_detectors or (makers and looked.any())):
            makers, rows = [(_REFERENCE, None, _itself), *makers], np.ones_like(rows)
        if may_vote.any():
            makers += [(s.key, s, s.impl.copies) for s in self._voters if s.enforces]
        views, counts, failed = self._make_views(makers, _chosen(unit, rows), decision)
        if failed:
            decision = self._weigh(decision, decision.findings + failed)
        if decision.action is Action.DENY:
            return decision
        enforcing = decision.enforced and (
            any(s.enforces and s.key in counts for s in self._view_detectors)
            or any(s.enforces for s in self._answer_detectors)
        )
        decision = replace(
            decision,
            views=views,
            view_rows=rows,
            looked=looked,
            voted=voted,
            view_counts=counts,
            waits=enforcing or protecting,
        )
        return self._plan_standby(decision) if enforcing else decision

    def _make_views(
        self,
        makers: "list[tuple[str, Stage | None, Callable[[Array], tuple[Array, ...]]]]",
        unit: Floats,
        decision: Decision,
    ) -> tuple[tuple[Array, ...], dict[str, int], tuple[Finding, ...]]:
        """The further inputs in the model's own form, how many are whose, and who failed."""
        views: list[Array] = []
        counts: dict[str, int] = {}
        failed: list[Finding] = []
        for key, stage, make in makers:
            try:
                views_of = make(unit) if stage is None else timing.run(stage.kind, stage.name, make, unit)
                made = [_same_kind(view, unit) for view in views_of]
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed += [] if stage is None else [stage.finding(error=_name(error))]
                continue
            counts[key] = len(made)
            views += [self._space.from_unit(view, decision.query.x) for view in made]
        return tuple(views), counts, tuple(failed)

    def _escalated(self, decision: Decision) -> Bools:
        """(N,) rows that view detectors look at."""
        rows = len(decision.query.x)
        if not self._view_detectors or self._cheap is None:
            return np.full(rows, bool(self._view_detectors))
        own = {f.stage: f for f in decision.findings if f.kind == "detector" and f.error is None}
        columns = [own[s.name].p_values if s.name in own else (0.0,) * rows for s in self._detectors]
        unsure = self._cheap.p_values(np.column_stack(columns)) <= (self.settings.escalate_below or 0.0)
        return np.asarray(unsure | self._sampled(_unit(decision.query)))

    def _sampled(self, unit: Floats) -> Bools:
        """A share of all rows, by a keyed hash: the same row always, or never."""
        share = self.settings.escalate_sample
        if share == 0:
            return np.zeros(len(unit), np.bool_)
        drawn = [draws(row.tobytes(), self._secret, b"guard sample")[0] for row in unit]
        return np.asarray(np.array(drawn) < share, dtype=np.bool_)

    def _voted(self, decision: Decision) -> Bools:
        """(N,) rows whose answer will be a vote, as far as is known."""
        none = np.zeros(len(decision.query.x), np.bool_)
        if not decision.enforced or not any(s.enforces for s in self._voters):
            return none
        if any(s.when is When.ALWAYS for s in self._voters):
            return ~none
        return decision.suspicious if Action.PURIFY in decision.responses else none

    def _may_vote(self, decision: Decision) -> Bools:
        """(N,) rows whose answer may yet turn out to be a vote: all, where detectors have still to speak."""
        voted = self._voted(decision)
        later = any(s.enforces for s in (*self._view_detectors, *self._answer_detectors))
        asked = decision.enforced and Action.PURIFY in self._of_input
        if later and asked and any(s.enforces for s in self._voters):
            return np.ones_like(voted)
        return voted

    def _plan_standby(self, decision: Decision) -> Decision:
        if Action.PURIFY not in self._of_input or decision.suspicious.all():
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
        own = self._read(answer.y)
        watched, update = self._watching.conclude(decision.seen, decision.past, self._said(answer.y, own))
        given = self._given(decision, answer)
        probs = given.get(_REFERENCE, (own,))[0]
        if _REFERENCE in decision.view_counts and _REFERENCE not in given:
            probs = None
        unit = _unit(decision.query)
        found = [self._hold(stage, unit, probs) for stage in self._answer_detectors]
        found += [
            self._compare(stage, probs, given.get(stage.key), decision)
            for stage in self._view_detectors
            if stage.key in decision.view_counts  # else `decide` has its error, or nobody was asked
        ]
        decision = self._weigh(decision, (*decision.findings, *found, *watched))
        return replace(self._answer(decision, answer, own, given), update=update)

    def _given(self, decision: Decision, answer: Answer) -> dict[str, tuple[Floats, ...]]:
        """The answers to each stage's further inputs, of the rows of `view_rows`; without those that lack one."""
        views, given, start = [self._read(view) for view in answer.views], {}, 0
        rows = int(decision.view_rows.sum())
        for key, count in decision.view_counts.items():
            own = tuple(view for view in views[start : start + count] if view is not None and len(view) == rows)
            start += count
            if len(own) == count:
                given[key] = own
        return given

    def _hold(self, stage: Stage, unit: Floats, probs: Floats | None) -> Finding:
        if probs is None or len(probs) != len(unit):
            return stage.finding(error="no answer to look at")
        return self._score(stage, len(unit), partial(stage.impl.score_answer, unit, probs))

    def _read(self, y: Array | None) -> Floats | None:
        if y is None:
            return None
        try:
            return to_probabilities(y, self.profile.meaning)
        except ValueError:
            return None

    def _said(self, y: Array | None, own: Floats | None) -> Floats | None:
        """The answer for monitors, which read labels, too; own: what else was read."""
        if y is None or self.profile.meaning != "labels":
            return own
        try:
            return as_probabilities(y, self.profile.meaning, self.profile.classes)
        except ValueError:
            return None

    def _compare(
        self, stage: Stage, probs: Floats | None, given: tuple[Floats, ...] | None, decision: Decision
    ) -> Finding:
        rows = decision.view_rows
        if probs is None or given is None or len(probs) != len(rows):
            return stage.finding(error="no answer to compare")
        own = probs[rows]
        if any(view.shape != own.shape for view in given):
            return stage.finding(error="no answer to compare")
        finding = self._score(stage, len(own), partial(stage.impl.score_views, own, given))
        return finding if finding.error is not None else _spread(finding, rows, decision.looked)

    def _answer(
        self, decision: Decision, answer: Answer, own: Floats | None, given: dict[str, tuple[Floats, ...]]
    ) -> Conclusion:
        """Choose and protect the answer of a weighed decision. own: `answer.y`, read."""
        y, use_standby = answer.y, False
        if Action.PURIFY in decision.responses and decision.standby is not None:
            if answer.standby is None:
                decision = self._without_standby(decision)
            else:
                y, use_standby = answer.standby, True
        probs = self._read(y) if use_standby else own
        decision, probs, voted = self._vote(decision, probs, given)
        protected, failed = self._protect(decision, y, probs, voted)
        if failed:
            decision = self._weigh(decision, decision.findings + failed)
        if decision.action is Action.DENY:
            protected, use_standby = None, False
        bits = 0.0
        if self._counts_bits and decision.action is not Action.DENY:
            left = probs if protected is None else self._read(protected)
            bits = _information(left, len(decision.query.x), self.profile.classes, self.profile.meaning)
        return Conclusion(
            decision, decision.action, decision.would_be, decision.findings, use_standby, protected, bits=bits
        )

    def _vote(
        self, decision: Decision, probs: Floats | None, given: dict[str, tuple[Floats, ...]]
    ) -> tuple[Decision, Floats | None, Bools]:
        """The answers with the votes in their rows, and which rows these are."""
        rows = decision.voted | self._voted(decision)
        voted = np.zeros_like(rows)
        for stage in self._voters:
            if not rows.any() or stage.key not in decision.view_counts or decision.action is Action.DENY:
                continue
            try:
                ballots = _ballots(given.get(stage.key), probs, rows)
                own = _distribution(timing.run(stage.kind, stage.name, stage.impl.vote, ballots), ballots[0])
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                decision = self._weigh(decision, (*decision.findings, stage.finding(error=_name(error))))
                continue
            probs, voted = np.array(probs), rows
            probs[rows] = own[rows[decision.view_rows]]
        return decision, probs, voted

    def _without_standby(self, decision: Decision) -> Decision:
        """The purified input got no answer: each purifier's `on_error` says what that means."""
        failed = tuple(s.finding(error="no answer to the purified input") for s in self._purifiers if s.enforces)
        return self._weigh(decision, decision.findings + failed)

    def _protect(
        self, decision: Decision, y: Array | None, probs: Floats | None, voted: Bools
    ) -> tuple[Array | None, tuple[Finding, ...]]:
        """The (N, C) output with votes and protections, in its own meaning and dtype; None where nothing changed."""
        if not decision.enforced or decision.action is Action.DENY:
            return None, ()
        rows = decision.suspicious
        degrees = decision.degrees * (Action.DEGRADE in decision.responses)
        stages = [(s, acted_on(s.when, s.degree, degrees)) for s in self._outputs if s.enforces]
        stages = [(stage, chosen) for stage, chosen in stages if chosen.any()]
        if y is None or probs is None or len(probs) != len(rows):
            return None, tuple(stage.finding(error="no answer to protect") for stage, _ in stages)
        current, changed, failed = probs, voted.copy(), []
        for stage, chosen in stages:
            try:
                unit = _unit(decision.query)
                made = timing.run(stage.kind, stage.name, _protected, stage, unit, current, chosen)
                current = _distribution(made, current)
            except Exception as error:  # noqa: BLE001 - a stage is foreign code; its failure is a finding
                failed.append(stage.finding(error=_name(error)))
                continue
            changed |= chosen
        if not changed.any():
            return None, tuple(failed)
        protected = np.array(y)
        protected[changed] = from_probabilities(current[changed], self.profile.meaning, y, self._datatype)
        return protected, tuple(failed)


def sketcher_of(loaded: Loaded, secret: bytes, stages: tuple[Stage, ...]) -> Sketcher:
    """What sketches rows for this model's monitors; with embeddings where one of them needs these."""
    needed = any("auxiliary" in stage.needs for stage in stages if stage.kind == "monitor")
    return Sketcher(secret, loaded["auxiliary"] if needed else None)


def _unit(query: Query) -> Floats:
    """The unit form of an admitted query."""
    return cast("Floats", query.unit)


def _chosen(unit: Floats, rows: Bools) -> Floats:
    """Those rows; the array itself where it is all of them, so that networks know it again."""
    return unit if rows.all() else unit[rows]


def _name(error: Exception) -> str:
    """A stage's failure in words that hold nothing of the client's data."""
    return str(error) if isinstance(error, StageError) else type(error).__name__


def _spread(finding: Finding, rows: Bools, looked: Bools) -> Finding:
    """A finding on some rows as one on all: p-value 1 and no score where nobody looked."""
    scores, p_values = np.full(len(rows), np.nan), np.ones(len(rows))
    scores[rows], p_values[rows] = finding.scores, finding.p_values
    scores[~looked], p_values[~looked] = np.nan, 1.0
    return replace(finding, scores=tuple(map(float, scores)), p_values=tuple(map(float, p_values)))


def _ballots(given: tuple[Floats, ...] | None, probs: Floats | None, rows: Bools) -> tuple[Floats, ...]:
    if given is None or probs is None or len(probs) != len(rows):
        raise StageError("no answers to vote on")
    return given


def _protected(stage: Stage, unit: Floats, probs: Floats, chosen: Bools) -> Array:
    made: Array
    if isinstance(stage.impl, KeyedOutput):
        made = stage.impl.protect_keyed(unit, probs, chosen)
    else:
        made = stage.impl.protect(probs, chosen)
    return made


def _information(probs: Floats | None, rows: int, classes: int, meaning: Meaning) -> float:
    """Bits in an answer: log2(classes) a row for its label, and the entropy of its probabilities; None: the most."""
    label = rows * math.log2(max(2, classes))
    if meaning == "labels":
        return label
    if probs is None:
        return 2.0 * label
    return label - float((probs * np.log2(np.where(probs > 0.0, probs, 1.0))).sum())


def _itself(x: Array) -> tuple[Array, ...]:
    return (x,)


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
