"""`guard backtest LOG --config NEW.yaml`: what would have fired, had other settings been in force.

The log has, for each recorded decision, scores and p-values of each stage that looked, and the p-values that became
evidence. So thresholds, modes, policies, budgets and whether a stage is used at all are weighed anew: detectors by the
thresholds that the profile named in the settings gives, monitors by evidence added up again from the recorded p-values,
per caller and per cluster, with the levels and calm times of the new settings.

What a log cannot say, and is named: stages that did not look then; rows that view detectors were not asked about, and
would be now; options of a stage, and another profile's p-values (the recorded ones are used, whatever made them).
Callers are taken to have asked the same queries: an attacker who is refused earlier goes on in another way. The
canary counts as everybody, and levels act at once, whatever `lag_rows` is. Of queries with more than 64 fresh rows
the 64 smallest p-values are recorded; the others are taken to lie evenly between the largest of these and 1. The
number of rows that cluster evidence is held against is that of the log's rows that joined one, at most
`history.max_entries`.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guard import alerts, config
from guard.assembly import Cheap, Stage, assemble, credits_component, measures
from guard.cli_callers import safe, table
from guard.events import Event
from guard.evidence import Evidence
from guard.profile import load_profile
from guard.recorded import Completeness, Tally, read
from guard.settings import ConfigError, Model, Settings
from guard.signing import Signers, signers_of, vouch_of
from guard.techniques import ALERT, COHORT
from guard.traces import Credit
from guard.types import Action, Alert, Finding, Level, Mode, OnError, ViewDetector, severest

MONTH_S = 30 * 86_400.0
_ENGINES_OWN = (ALERT, "validation", "inspection")


def backtest_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard backtest`."""
    parser.add_argument("log", type=Path, metavar="LOG", help="an audit log; -: standard input")
    parser.add_argument("--config", type=Path, required=True, metavar="NEW.yaml", help="the settings to try")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="callers to show; default: 20")
    parser.add_argument("--json", action="store_true", help="print JSON")


def backtest(args: argparse.Namespace) -> int:
    """Replay, and print what would have fired. Raises ConfigError, ProfileError."""
    settings, tally = config.load(args.config), Tally()
    replay = Replay(settings)
    try:
        for event in read(args.log, tally):
            if isinstance(event, Event):
                replay.take(event)
            else:
                replay.forgive(event.model, event.caller)
    except OSError as error:
        raise ConfigError("LOG", f"cannot read {args.log}: {error.strerror}") from None
    document = replay.document(max(0, args.limit)) | {"unreadable_lines": tally.unreadable}
    sys.stdout.write((json.dumps(document, indent=2) if args.json else text_of(document)) + "\n")
    return 0


@dataclass(slots=True)
class _Person:
    """A caller as the new settings would have him."""

    since: float
    evidence: dict[str, Evidence] = field(default_factory=dict)
    alert: Alert = field(default_factory=Alert)
    then: Level = Level.CLEAR
    now: Level = Level.CLEAR
    rows: int = 0
    first: dict[str, Any] | None = None


@dataclass(slots=True)
class _Count:
    """Decisions in which a stage fired: then, and now; and what is not known."""

    looked: int = 0
    then: int = 0
    now: int = 0
    unknown_rows: int = 0


class _Model:
    """One model's stages under the new settings, and what they have seen of the log."""

    def __init__(self, settings: Model, max_entries: int, signers: Signers | None) -> None:
        self.settings = settings
        self.stages: tuple[Stage, ...] = ()
        self.cheap: Cheap | None = None
        if settings.profile is not None:
            profile = load_profile(settings.profile, vouch_of(signers, settings))
            self.stages, self.cheap = assemble(settings, profile, b"guard backtest")
        self.detectors = {stage.name: stage for stage in self.stages if stage.kind == "detector"}
        self.monitors = {stage.name: stage for stage in self.stages if stage.kind == "monitor"}
        self.clusters = {name: s for name, s in self.monitors.items() if credits_component(s)}
        enforcing = {name: s for name, s in self.monitors.items() if s.enforces}
        self.alarming = enforcing or self.monitors
        self.mode = Mode.ENFORCE if enforcing else Mode.SHADOW
        self.max_entries, self.joined = max_entries, 0
        self.people: dict[str, _Person] = {}
        self.components: dict[int, Evidence] = {}
        self.counts: dict[tuple[str, str], _Count] = {}

    def count(self, finding: Finding) -> _Count:
        return self.counts.setdefault((finding.kind, finding.stage), _Count())


class Replay:
    """A log taken event by event, in the order of time. Keeps what each caller and each cluster has come to."""

    def __init__(self, settings: Settings) -> None:
        entries = settings.history.max_entries
        signers = signers_of(settings.signers_file, "signers_file")
        self._models = {model.name: _Model(model, entries, signers) for model in settings.models}
        self._actions: Counter[tuple[str, str]] = Counter()
        self._decisions = self._unlisted = self._late = 0
        self._log, self._latest = Completeness(), -math.inf

    def take(self, event: Event) -> None:
        """One decision."""
        model = self._models.get(event.model)
        if model is None:
            self._unlisted += 1
            return
        self._decisions += 1
        self._log.take(event)
        self._late += event.time_unix < self._latest
        self._latest = max(self._latest, event.time_unix)
        action = self._weigh(model, event)
        self._actions[event.action.value, action.value] += 1

    def forgive(self, model: str, caller: str) -> None:
        """An operator did, then."""
        known = self._models.get(model)
        if known is not None and caller in known.people:
            person = known.people[caller]
            person.evidence, person.alert = {}, Alert()

    def _weigh(self, model: _Model, event: Event) -> Action:
        """What would be done, for everybody."""
        p_values = _detectors(model, event)
        actions = [Action.ALLOW, *model.settings.of_everybody]
        for finding in event.findings:
            stage = model.detectors.get(finding.stage) if finding.kind == "detector" else None
            if finding.kind == "detector" and finding.stage not in _ENGINES_OWN:
                count = model.count(finding)
                count.looked += 1
                count.then += finding.fired
                now = stage is not None and any(p <= stage.threshold for p in p_values.get(finding.stage, ()))
                count.now += now
                if now and stage is not None and stage.enforces:
                    actions += model.settings.of_input
            actions += _failed(model, finding)
        actions += _callers(model, event)
        return severest(actions)

    # --- what came of it

    def document(self, limit: int) -> dict[str, Any]:
        """All of it as plain data; `limit` callers a model, those whose level changes first."""
        return {
            "decisions": self._decisions,
            "not_in_settings": self._unlisted,
            "out_of_order": self._late,
            "log": self._log.document(),
            "actions": [{"then": t, "now": n, "decisions": k} for (t, n), k in sorted(self._actions.items())],
            "models": [_model_document(name, model, limit) for name, model in self._models.items()],
        }


def _failed(model: _Model, finding: Finding) -> list[Action]:
    """What a stage's failure then would mean now."""
    if finding.error is None:
        return []
    stage = next((s for s in model.stages if (s.kind, s.name) == (finding.kind, finding.stage)), None)
    return [Action.DENY] if stage is not None and stage.enforces and stage.on_error is OnError.DENY else []


def _detectors(model: _Model, event: Event) -> dict[str, tuple[float, ...]]:
    """The recorded p-values of detectors; of rows that would not be escalated now, 1."""
    found = {f.stage: f for f in event.findings if f.kind == "detector" and f.error is None and f.p_values}
    p_values = {name: finding.p_values for name, finding in found.items()}
    unsure = _unsure(model, p_values)
    for name, stage in model.detectors.items():
        if not isinstance(stage.impl, ViewDetector) or name not in found:
            continue
        finding, rows = found[name], len(p_values[name])
        asked = unsure if unsure is not None and len(unsure) == rows else [True] * rows
        model.count(finding).unknown_rows += sum(
            wanted and math.isnan(score) for wanted, score in zip(asked, finding.scores, strict=False)
        )
        if model.settings.escalate_sample == 0:
            p_values[name] = tuple(p if wanted else 1.0 for p, wanted in zip(p_values[name], asked, strict=True))
    return p_values


def _unsure(model: _Model, p_values: Mapping[str, tuple[float, ...]]) -> list[bool] | None:
    """The rows that view detectors would be asked about; None: all, or it cannot be told."""
    below, cheap = model.settings.escalate_below, [n for n, s in model.detectors.items() if s.sees_input_alone]
    if model.cheap is None or below is None or any(name not in p_values for name in cheap):
        return None
    columns = np.column_stack([p_values[name] for name in cheap])
    return [bool(p <= below) for p in model.cheap.p_values(columns)]


# --- callers and clusters


def _callers(model: _Model, event: Event) -> list[Action]:
    """Evidence added up again, and what follows for this query."""
    for finding in event.findings:
        if finding.kind == "monitor" and finding.stage != ALERT and not finding.stage.startswith(COHORT):
            count = model.count(finding)
            count.looked += 1
            count.then += finding.fired
    if not event.traces and not event.credits:
        return []
    level = _alert(model, event)
    actions = list(model.settings.of(level)) if model.mode is Mode.ENFORCE else []
    if _clusters(model, event) and any(stage.enforces for stage in model.clusters.values()):
        actions += model.settings.of(Level.HOSTILE)
    model.joined = min(model.max_entries, model.joined + sum(t.joined for t in event.traces))
    return actions


def _alert(model: _Model, event: Event) -> Level:
    """The caller's level, as `guard.watching` would have it."""
    person = model.people.setdefault(event.caller, _Person(event.time_unix))
    if person.evidence and event.time_unix - person.since >= MONTH_S:
        person.evidence, person.since = {}, event.time_unix
    before, after = _by_monitor(event.credits, after=False), _by_monitor(event.credits, after=True)
    floor = _measured(model, event)
    way, leader, added = _grow(model, person, before)
    alert, anew = alerts.advance(
        person.alert, way, added=added, now=event.time_unix, calm_s=model.settings.policy.calm_s
    )
    if anew:
        person.evidence, person.since = _by_evidence(before), event.time_unix
    for name, p_values in after.items():
        if name in model.monitors:
            person.evidence[name] = person.evidence.get(name, Evidence()).add(p_values)
    person.alert, level = alert, max(alert.level, floor)
    person.rows = max(person.rows, event.caller_rows)
    person.then = max(person.then, event.level)
    if level > person.now:
        person.now = level
        person.first = {
            "level": level.name.lower(),
            "time": event.time_unix,
            "decision_id": event.decision_id,
            "caller_rows": event.caller_rows,
            "monitor": leader,
        }
    return level


def _grow(model: _Model, person: _Person, before: Mapping[str, tuple[float, ...]]) -> tuple[float, str, bool]:
    """How far the evidence has come, by which monitor, and whether this query spoke against the caller."""
    way, leader, added = 0.0, "", False
    for name, stage in model.monitors.items():
        if credits_component(stage) or measures(stage) or (name not in before and name not in person.evidence):
            continue
        known = person.evidence.get(name, Evidence())
        grown = person.evidence[name] = known.add(before.get(name, ()))
        own = alerts.progress(grown.log_value, stage.threshold)
        model.counts.setdefault(("monitor", name), _Count()).now += own >= 1.0
        if name not in model.alarming:
            continue
        added |= grown.log_value > known.log_value and own >= alerts.STEPS[Level.WATCH]
        if own > way:
            way, leader = own, name
    return way, leader, added


def _measured(model: _Model, event: Event) -> Level:
    """The level that the monitors which measure something ask for."""
    found = {f.stage: f.scores for f in event.findings if f.kind == "monitor" and f.error is None and f.scores}
    levels = [
        Level(stage.impl.level(max(found[name])))
        for name, stage in model.alarming.items()
        if measures(stage) and name in found
    ]
    return max(levels, default=Level.CLEAR)


def _by_evidence(p_values: Mapping[str, tuple[float, ...]]) -> dict[str, Evidence]:
    return {name: Evidence().add(values) for name, values in p_values.items()}


def _clusters(model: _Model, event: Event) -> bool:
    """Whether a cluster that the query joins has come all the way."""
    alarm = False
    for credit in event.credits:
        if credit.cluster < 0 or not model.clusters:
            continue
        grown = model.components.get(credit.cluster, Evidence()).add(filled(credit))
        model.components[credit.cluster] = grown
        log_value = alerts.of_cluster(grown.log_value, model.joined)
        alarm |= any(-log_value <= math.log(stage.threshold) for stage in model.clusters.values())
    if alarm:
        for name in model.clusters:
            model.counts.setdefault(("monitor", name), _Count()).now += 1
    return alarm


def _by_monitor(credited: Iterable[Credit], *, after: bool) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for credit in credited:
        if credit.cluster < 0 and credit.after is after:
            found[credit.monitor] = (*found.get(credit.monitor, ()), *filled(credit))
    return found


def filled(credit: Credit) -> tuple[float, ...]:
    """The p-values, those that were not recorded taken to lie evenly above the largest that was."""
    missing, largest = credit.rows - len(credit.p_values), max(credit.p_values, default=0.0)
    rest = (largest + (1.0 - largest) * (i + 0.5) / missing for i in range(missing))
    return (*credit.p_values, *rest)


# --- as data and as text


def _model_document(name: str, model: _Model, limit: int) -> dict[str, Any]:
    people = sorted(model.people.items(), key=lambda one: (one[1].now == one[1].then, -one[1].now, -one[1].then))
    looked = {key for key, count in model.counts.items() if count.looked}
    untested = [s.key for s in model.stages if s.kind in {"detector", "monitor"} and (s.kind, s.name) not in looked]
    return {
        "model": name,
        "stages": [
            {
                "stage": f"{kind}/{stage}",
                "looked": count.looked,
                "fired_then": count.then,
                "fires_now": count.now if (kind, stage) in {(s.kind, s.name) for s in model.stages} else None,
                "unknown_rows": count.unknown_rows,
            }
            for (kind, stage), count in sorted(model.counts.items())
        ],
        "not_testable": untested + [s.key for s in model.stages if s.kind in {"purifier", "output"}],
        "callers": len(model.people),
        "levels": {
            level.name.lower(): {
                "then": sum(p.then is level for p in model.people.values()),
                "now": sum(p.now is level for p in model.people.values()),
            }
            for level in Level
        },
        "shown": [
            {"caller": caller, "then": p.then.name.lower(), "now": p.now.name.lower(), "rows": p.rows, "first": p.first}
            for caller, p in people[:limit]
            if p.now is not Level.CLEAR or p.then is not Level.CLEAR
        ],
    }


def text_of(document: Mapping[str, Any]) -> str:
    """For a terminal."""
    log = document["log"]
    parts = [f"{document['decisions']} decisions; {_told(log)}"]
    for key, words in (
        ("not_in_settings", "decisions are of models that the settings do not have"),
        ("out_of_order", "events are earlier than the one before: sort the log by time"),
        ("unreadable_lines", "lines are no audit events"),
    ):
        if document[key]:
            parts.append(f"{document[key]} {words}")
    rows = [(one["then"], one["now"], str(one["decisions"])) for one in document["actions"]]
    parts.append(table(("DONE THEN", "NOW", "DECISIONS"), rows))
    return "\n\n".join([*parts, *map(_model_text, document["models"])])


def _told(log: Mapping[str, Any]) -> str:
    advice = "record with `audit.sample_allowed: 1.0`"
    if log["complete"] is None:
        return f"incomplete as far as one can tell ({log['allowed']} allowed queries in it): {advice}"
    if not log["complete"]:
        return f"incomplete, about {log['share']:.0%} of allowed queries: evidence is not what it was; {advice}"
    return "the log seems complete"


def _model_text(model: Mapping[str, Any]) -> str:
    parts = [f"model {safe(model['model'])}, {model['callers']} callers"]
    rows = [
        (
            safe(s["stage"]),
            str(s["looked"]),
            str(s["fired_then"]),
            "off" if s["fires_now"] is None else str(s["fires_now"]),
            f"{s['unknown_rows']} rows" if s["unknown_rows"] else "",
        )
        for s in model["stages"]
    ]
    parts.append(table(("STAGE", "LOOKED", "FIRED THEN", "NOW", "NOT TESTABLE"), rows))
    if model["not_testable"]:
        parts.append(f"not testable from the log: {', '.join(map(safe, model['not_testable']))}")
    levels = [(name, str(n["then"]), str(n["now"])) for name, n in model["levels"].items()]
    parts.append(table(("CALLERS' HIGHEST LEVEL", "THEN", "NOW"), levels))
    if model["shown"]:
        parts.append(table(("CALLER", "THEN", "NOW", "AFTER ROWS", "BY"), [_caller_row(one) for one in model["shown"]]))
    return "\n\n".join(parts)


def _caller_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    first = one["first"] or {"caller_rows": "-", "monitor": "-"}
    return safe(one["caller"]), one["then"], one["now"], str(first["caller_rows"]), safe(first["monitor"]) or "-"
