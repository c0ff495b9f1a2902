"""A recorded trace through a policy: what each query would have received.

What stages found and which level a caller had stay as they were recorded; what follows from it is weighed anew, by what
the engine and the proxy weigh with: `guard.weighing`, `guard.rationing`, and token buckets that fill up by the trace's
own times.

Which findings act. Of a settings file: those of stages that enforce there. Of a part of one, what it lists acts by what
it says; what it does not list as it did then, and everything where the whole model was in shadow then.

What a trace cannot say is told as notes. The canary counts as everybody. A query whose answer is withheld for a
response between `throttle` and `deny` counts as withheld, whatever its caller might have done about it.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from guard import rationing, registry
from guard.assembly import capped
from guard.events import MAX_ROWS, Event
from guard.recorded import Completeness
from guard.settings import STAGE_LISTS, ConfigError, Model, Settings
from guard.stores.buckets import Buckets
from guard.techniques import ALERT, COHORT
from guard.types import Action, Bucket, Finding, Kind, Level, Mode, OnError, When, severest
from guard.weighing import Weighing, acted_on, acting

BUDGET = "budget"
"""What a query receives for which the caller's budget has not enough left; else it receives an action."""
OUTCOMES = (*(action.value for action in Action), BUDGET)
MOST_ROWS = 2**31
_VALIDATION, _INSPECTION = "validation", "inspection"
_OF_NO_ROWS = frozenset({ALERT, _VALIDATION})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy file says of one model.

    whole:      whether it is all that is said of the model; else the trace says the rest.
    on_timeout: what an inspection that failed as a whole means.
    """

    model: Model
    whole: bool = True
    on_timeout: OnError = OnError.ALLOW

    @property
    def modes(self) -> dict[tuple[Kind, str], Mode]:
        """Of the stages that it lists, capped by the model's."""
        return {
            (kind, entry.stage): capped(entry.mode, self.model.mode)
            for attribute, kind in STAGE_LISTS
            for entry in getattr(self.model, attribute)
        }

    @property
    def on_error(self) -> dict[tuple[Kind, str], OnError]:
        """What a failure of a stage means, of those that it lists."""
        listed: dict[tuple[Kind, str], OnError] = {
            (kind, entry.stage): entry.on_error
            for attribute, kind in STAGE_LISTS
            for entry in getattr(self.model, attribute)
        }
        return {**listed, ("detector", _INSPECTION): self.on_timeout}


def rules_of(settings: Settings) -> dict[str, Rules]:
    """Of each model of a settings file."""
    return {one.name: Rules(one, on_timeout=settings.limits.on_inspection_timeout) for one in settings.models}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a query would have received.

    name:        one of OUTCOMES.
    answered:    whether the model answers, in whatever way.
    responses:   all that is done together, where it is.
    protections: the rows that each output protection acts on.
    """

    name: str = Action.ALLOW.value
    answered: bool = True
    responses: frozenset[Action] = frozenset()
    protections: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Caller:
    """Rows that a caller received, by outcome."""

    queries: int = 0
    then: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    delays: int = 0
    level: Level = Level.CLEAR
    exempt: bool = False


class Replay:
    """One model's policy, and what it has come to so far."""

    def __init__(self, name: str, rules: Rules, buckets: Buckets) -> None:
        self.name, self.rules, self.settings, self._buckets = name, rules, rules.model, buckets
        self._modes, self._on_error = rules.modes, rules.on_error
        self._budget = self.settings.budget.model_copy(update={"bits_per_day": None})  # no trace has bits
        self._budget_mode = capped(self._budget.mode, self.settings.mode)
        self.outputs = tuple(one for one in self.settings.outputs if self._enforces("output", one.stage))
        purifiers = tuple(one for one in self.settings.purifiers if self._enforces("purifier", one.stage))
        self.always = [one.stage for one in (*purifiers, *self.outputs) if one.when is When.ALWAYS]
        self.callers: dict[str, Caller] = {}
        self.queries = {"then": Counter[str](), "now": Counter[str]()}
        self.changes: Counter[tuple[str, str]] = Counter()
        self.responses: Counter[Action] = Counter()
        self.acted = {one.stage: [0, 0] for one in self.outputs}  # queries, rows
        self.told: Counter[str] = Counter()  # what notes are about
        self.unlisted: set[str] = set()

    def _enforces(self, kind: Kind, stage: str) -> bool:
        return self._modes[kind, stage] is Mode.ENFORCE

    def take(self, event: Event) -> None:
        """One decision."""
        exempt = self.settings.policy.exempts(event.caller, event.time_unix)
        outcome = self._received(event, enforced=self.settings.mode is Mode.ENFORCE and not exempt)
        rows, then, now = max(1, event.rows), event.action.value, outcome.name
        caller = self.callers.setdefault(event.caller, Caller())
        caller.queries += 1
        caller.then[then] += rows
        caller.now[now] += rows
        caller.changed += rows * (then != now)
        caller.delays += Action.DELAY in outcome.responses
        caller.level, caller.exempt = max(caller.level, event.level), caller.exempt or exempt
        self.queries["then"][then] += 1
        self.queries["now"][now] += 1
        self.changes[then, now] += 1
        self.responses.update(outcome.responses - {Action.ALLOW})
        for stage, number in outcome.protections.items():
            self.acted[stage][0] += 1
            self.acted[stage][1] += number
        self.told["exempt"] += exempt
        self.told["unlooked"] += _is_refusal(event.action) and outcome.answered
        degraded = Action.DEGRADE in outcome.responses
        self.told["unprotected"] += degraded and bool(self.outputs) and not outcome.protections

    def _received(self, event: Event, *, enforced: bool) -> Outcome:
        """What the proxy would make of the query: budget, policy, throttle, in this order."""
        if not self._affords(event, enforced=enforced):
            return Outcome(BUDGET, answered=False)
        if not enforced:
            return Outcome()
        findings = self._acting(event)
        weighing = Weighing(self.settings, self._on_error)
        responses = weighing.responses(findings) | self.settings.of(Level.CLEAR)
        if severest(responses) is Action.THROTTLE and self._affords_throttled(event):
            responses -= {Action.THROTTLE}
        action = severest(responses)
        if _is_refusal(action):
            return Outcome(action.value, answered=False)
        protections = self._protections(event, weighing, findings, responses)
        return Outcome(action.value, responses=responses, protections=protections)

    def _affords(self, event: Event, *, enforced: bool) -> bool:
        if self._budget.unlimited or self._budget_mode is Mode.OFF:
            return True
        if self._takes(event, rationing.of_budget(self._budget, max(1, event.rows), 0.0)):
            return True
        if enforced and self._budget_mode is Mode.ENFORCE:
            return False
        self.told["let through"] += 1
        return True

    def _affords_throttled(self, event: Event) -> bool:
        return self._takes(event, (rationing.of_throttle(self.settings.policy, max(1, event.rows)),))

    def _takes(self, event: Event, buckets: tuple[Bucket, ...]) -> bool:
        return not any(self._buckets.take((self.name, event.caller), buckets, event.time_unix, force=False))

    # --- findings as they would act

    def _acting(self, event: Event) -> list[Finding]:
        """Those of stages that would enforce."""
        in_shadow = not event.enforced and all(f.mode is not Mode.ENFORCE for f in event.findings)
        found = []
        for finding in event.findings:
            if finding.stage.startswith(COHORT):  # told, never acted upon
                continue
            if finding.stage == _VALIDATION:
                self.told["invalid"] += 1
                continue
            mode = self._mode(finding, in_shadow=in_shadow)
            if mode is Mode.ENFORCE and finding.stage == ALERT:
                found.append(Weighing(self.settings).alert(mode, event.level, acting(finding), finding.p_value))
            elif mode is Mode.ENFORCE:
                found.append(replace(finding, mode=mode))
            self.told["failed"] += mode is Mode.ENFORCE and self._is_unknown_failure(finding)
        self.told["uplifted"] += in_shadow and not self.rules.whole and bool(found)
        return found

    def _mode(self, finding: Finding, *, in_shadow: bool) -> Mode:
        listed = self._listed_mode(finding)
        if listed is not None:
            return listed
        if self.rules.whole:
            self.unlisted |= {f"{finding.kind}/{finding.stage}"} - {f"monitor/{ALERT}"}
            return Mode.OFF
        if in_shadow and finding.mode is Mode.SHADOW:
            return self.settings.mode
        self.told["in shadow"] += finding.mode is Mode.SHADOW and (finding.fired or finding.stage == ALERT)
        return capped(finding.mode, self.settings.mode)

    def _listed_mode(self, finding: Finding) -> Mode | None:
        """What the policy file says of the stage; an alert is all monitors'."""
        if finding.stage == _INSPECTION:
            return self.settings.mode
        if finding.stage != ALERT:
            return self._modes.get((finding.kind, finding.stage))
        modes = [mode for (kind, _), mode in self._modes.items() if kind == "monitor"]
        order = list(Mode)
        return max(modes, key=order.index) if modes else None

    def _is_unknown_failure(self, finding: Finding) -> bool:
        return finding.error is not None and (finding.kind, finding.stage) not in self._on_error

    # --- protections

    def _protections(
        self, event: Event, weighing: Weighing, findings: list[Finding], responses: frozenset[Action]
    ) -> dict[str, int]:
        """How many rows each acts on; of rows that are not recorded, those of a caller on an alarming level alone."""
        kept = len(event.kept_rows) or event.rows
        asked = Action.DEGRADE in responses
        known = weighing.degrees(findings, kept) * asked
        other = weighing.degrees([f for f in findings if f.stage == ALERT], 1) * asked
        self.told["many rows"] += event.rows > kept and asked
        acted = {
            one.stage: int(acted_on(one.when, one.degree, known).sum())
            + (event.rows - kept) * int(acted_on(one.when, one.degree, other).sum())
            for one in self.outputs
        }
        return {stage: rows for stage, rows in acted.items() if rows}


class Simulation:
    """A trace taken event by event, in the order of time.

    rules: by model. one: the rules of whichever model the trace has, where the policy file does not say of which.
    """

    def __init__(self, rules: Mapping[str, Rules], *, one: Rules | None = None, max_callers: int = 100_000) -> None:
        self._rules, self._one = rules, one
        self.evicted: Counter[str] = Counter()
        self._buckets = Buckets(max_callers, lambda what: self.evicted.update([what]))
        self.models: dict[str, Replay] = {}
        self.others: Counter[str] = Counter()
        self.log, self.decisions, self.unsound, self.late = Completeness(), 0, 0, 0
        self.first, self.latest = math.inf, -math.inf

    def take(self, event: Event) -> None:
        """One decision. Raises ConfigError where there are several models, and nobody says which is meant."""
        if not _is_sound(event):
            self.unsound += 1
            return
        model = self._model(event.model)
        if model is None:
            self.others[event.model] += 1
            return
        self.decisions += 1
        self.log.take(event)
        self.late += event.time_unix < self.latest
        self.first, self.latest = min(self.first, event.time_unix), max(self.latest, event.time_unix)
        model.take(event)

    def _model(self, name: str) -> Replay | None:
        if name in self.models:
            return self.models[name]
        rules = self._rules.get(name)
        if rules is None and self._one is not None:
            if self.models:
                known = next(iter(self.models))
                raise ConfigError(
                    "--model", f"the trace has several models, {known!a} and {name!a} at least: say which"
                )
            rules = self._one
        if rules is None:
            return None
        return self.models.setdefault(name, Replay(name, rules, self._buckets))


def _is_sound(event: Event) -> bool:
    """Whether its findings are of its rows: a log is data from elsewhere."""
    rows, kept = event.rows, len(event.kept_rows)
    if not 0 <= rows <= MOST_ROWS or kept > rows or (rows > MAX_ROWS and not kept):
        return False
    return all(
        len(finding.p_values) in {0, kept or rows}
        for finding in event.findings
        if finding.stage not in _OF_NO_ROWS and (finding.kind != "monitor" or _speaks_of_clusters(finding.stage))
    )


def _speaks_of_clusters(monitor: str) -> bool:
    if monitor == ALERT or monitor.startswith(COHORT):
        return False
    try:
        return getattr(registry.lookup("monitor", monitor), "credits", "caller") == "component"
    except registry.UnknownStage:
        return False


def _is_refusal(action: Action) -> bool:
    """Whether nothing is answered."""
    return action.severity >= Action.THROTTLE.severity
