"""`guard simulate --trace T --policy P`: who would have received what, had another policy been in force.

P is a settings file, or a part of one: what stands below one model there, its `policy` at least, with `mode: enforce`
where it says none. Neither profiles nor secrets are read.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard import config, rationing
from guard.cli_callers import safe, table
from guard.events import Event, instant
from guard.recorded import Tally, read
from guard.settings import ConfigError, History
from guard.simulation import OUTCOMES, Caller, Replay, Rules, Simulation, rules_of
from guard.types import Action, Mode, OnError

_SAME_QUERIES = "callers are taken to have asked the same: who is refused, or told less, goes on in another way"
_AS_RECORDED = "findings and levels are those recorded: `guard backtest` weighs thresholds and evidence anew"


def simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard simulate`."""
    parser.add_argument("--trace", type=Path, required=True, metavar="LOG", help="an audit log; -: standard input")
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="FILE.yaml",
        help="settings, or a model's part of them: policy: ...",
    )
    parser.add_argument("--model", metavar="NAME", help="of this model only; needed where only the trace has several")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="callers to show; default: 20")
    parser.add_argument("--json", action="store_true", help="print JSON")


def simulate(args: argparse.Namespace) -> int:
    """Replay, and print who would have received what. Raises ConfigError."""
    simulation, tally = _simulation(args.policy, args.model), Tally()
    try:
        for event in read(args.trace, tally):
            if isinstance(event, Event):
                simulation.take(event)
    except OSError as error:
        raise ConfigError("--trace", f"cannot read {args.trace}: {error.strerror}") from None
    if args.model is not None and not simulation.models and simulation.others:
        known = ", ".join(map(safe, sorted(simulation.others)))
        raise ConfigError("--model", f"the trace has nothing of {args.model!a}; it has: {known}")
    document = document_of(simulation, tally, max(0, args.limit))
    sys.stdout.write((json.dumps(document, indent=2) if args.json else text_of(document)) + "\n")
    return 0


def _simulation(path: Path, model: str | None) -> Simulation:
    """By what the policy file says. Raises ConfigError."""
    tree = config.read(path)
    if "models" in tree:
        settings = config.load(path)
        rules = rules_of(settings)
        if model is not None and model not in rules:
            raise ConfigError("--model", f"the settings have no model {model!a}; they have: {', '.join(rules)}")
        rules = rules if model is None else {model: rules[model]}
        return Simulation(rules, max_callers=settings.history.max_callers)
    if "policy" not in tree:
        raise ConfigError("policy", "is missing: the file is neither settings with `models` nor a part with `policy`")
    named = tree.get("name") if model is None else model
    one = config.model_of(
        {"mode": Mode.ENFORCE, "profile": "unread", **tree, "name": "any" if named is None else named}
    )
    rule = Rules(one, whole=False, on_timeout=OnError.DENY)  # those alone are recorded that were refused
    most = History().max_callers
    return (
        Simulation({}, one=rule, max_callers=most) if named is None else Simulation({one.name: rule}, max_callers=most)
    )


# --- as data


def document_of(simulation: Simulation, tally: Tally, limit: int) -> dict[str, Any]:
    """All of it; `limit` callers a model, those who receive something else on most rows first."""
    return {
        "decisions": simulation.decisions,
        "from": instant(simulation.first) if simulation.decisions else None,
        "to": instant(simulation.latest) if simulation.decisions else None,
        "log": simulation.log.document(),
        "other_models": simulation.others.total(),
        "out_of_order": simulation.late,
        "unreadable_lines": tally.unreadable + simulation.unsound,
        "notes": _notes(simulation, tally),
        "models": [_document(model, limit) for _, model in sorted(simulation.models.items())],
    }


def _document(model: Replay, limit: int) -> dict[str, Any]:
    callers = model.callers
    rows = {when: sum((getattr(one, when) for one in callers.values()), Counter[str]()) for when in ("then", "now")}
    delayed = model.responses[Action.DELAY]
    delays = {name: rationing.delay_s(model.settings.policy, draw) for name, draw in _DRAWS.items()}
    return {
        "model": model.name,
        "queries": model.changes.total(),
        "rows": rows["then"].total(),
        "callers": len(callers),
        "callers_changed": sum(one.changed > 0 for one in callers.values()),
        "rows_changed": sum(one.changed for one in callers.values()),
        "shown": [_caller(name, callers[name], delays["expected"]) for name in _most_affected(model)[:limit]],
        "received": [
            {
                "what": what,
                "queries": {when: model.queries[when][what] for when in ("then", "now")},
                "rows": {when: rows[when][what] for when in ("then", "now")},
            }
            for what in OUTCOMES
            if rows["then"][what] or rows["now"][what]
        ],
        "changes": [
            {"then": then, "now": now, "queries": queries} for (then, now), queries in sorted(model.changes.items())
        ],
        "responses": {action.value: model.responses[action] for action in Action if model.responses[action]},
        "held_back_s": {name: delayed * one for name, one in delays.items()},
        "protections": [
            {
                "stage": one.stage,
                "when": one.when.value,
                "degree": one.degree,
                "queries": model.acted[one.stage][0],
                "rows": model.acted[one.stage][1],
            }
            for one in model.outputs
        ],
        "notes": _model_notes(model),
    }


_DRAWS = {"least": 0.0, "expected": 0.5, "most": 1.0}


def _most_affected(model: Replay) -> list[str]:
    def key(name: str) -> tuple[int, int, str]:
        one = model.callers[name]
        return -one.changed, one.now[Action.ALLOW] - one.now.total(), name

    return sorted(model.callers, key=key)


def _caller(name: str, one: Caller, delay_s: float) -> dict[str, Any]:
    return {
        "caller": name,
        "level": one.level.name.lower(),
        "exempt": one.exempt,
        "queries": one.queries,
        "rows": one.then.total(),
        "rows_changed": one.changed,
        "then": {what: one.then[what] for what in OUTCOMES if one.then[what]},
        "now": {what: one.now[what] for what in OUTCOMES if one.now[what]},
        "held_back_s": one.delays * delay_s,
    }


# --- what a trace cannot say


def _notes(simulation: Simulation, tally: Tally) -> list[str]:
    evicted, unreadable = simulation.evicted.total(), tally.unreadable + simulation.unsound
    notes = (
        (True, _SAME_QUERIES),
        (True, _AS_RECORDED),
        (not simulation.log.document()["complete"], _incomplete(simulation.log.document())),
        (simulation.others, f"{simulation.others.total()} decisions are of models that the policy file does not mean"),
        (simulation.late, f"{simulation.late} events are earlier than the one before: sort the trace by time"),
        (unreadable, f"{unreadable} lines are no audit events"),
        (evicted, f"{evicted} callers' budgets were evicted, as history.max_callers would have it"),
    )
    return [text for applies, text in notes if applies]


def _incomplete(log: Mapping[str, Any]) -> str:
    advice = "budgets and rows count too low; record with `audit.sample_allowed: 1.0`"
    if log["complete"] is None:
        return f"incomplete as far as one can tell ({log['allowed']} allowed queries in it): {advice}"
    return f"about {log['share'] or 0.0:.0%} of allowed queries are recorded: {advice}"


def _model_notes(model: Replay) -> list[str]:
    settings, told = model.settings, model.told
    degraded, delayed = model.responses[Action.DEGRADE], model.responses[Action.DELAY]
    always, unlisted, asked = ", ".join(model.always), ", ".join(map(safe, sorted(model.unlisted))), _asked(model)
    several = (
        "only the most suspicious are recorded: those alone are counted as degraded, unless the caller's level is why"
    )
    notes = (
        (settings.mode is not Mode.ENFORCE, f"`mode: {settings.mode.value}`: nothing is done; try `enforce`"),
        (_leaves_open(model), "unset, `on_input` and `on_suspect` follow from purifiers and outputs: none is listed"),
        (True, "what was acted upon is as recorded: another `lag_rows` is not replayed"),
        (settings.canary < 1.0, f"the canary of {settings.canary:g} counts as everybody"),
        (settings.budget.bits_per_day is not None, "`bits_per_day` is not replayed: a trace has no answers"),
        (not settings.budget.unlimited, "calls that were refused for a budget then are not in the trace"),
        (told["let through"], f"{told['let through']} queries are past the budget, and let through"),
        (told["exempt"], f"{told['exempt']} queries are of exempt callers"),
        (told["unlooked"], f"{told['unlooked']} queries were refused then: what needs an answer did not look"),
        (told["uplifted"], f"{told['uplifted']} queries were recorded in shadow: what was found on them acts here"),
        (told["in shadow"], f"{told['in shadow']} findings were in shadow beside stages that enforced, and are still"),
        (unlisted, f"not in the settings, so it counts for nothing: {unlisted}"),
        (told["failed"], f"{told['failed']} failures of stages that the policy file does not list are let through"),
        (told["invalid"], f"{told['invalid']} queries had values that `validation` may refuse, whatever the policy"),
        (always, f"`when: always`, so on allowed queries, too: {always}"),
        (degraded and not settings.outputs, "no `outputs` in the policy file: what degraded answers lose is not known"),
        (told["unprotected"], f"{told['unprotected']} queries are degraded by nothing: no degree is so low"),
        (told["many rows"], f"of the rows of {told['many rows']} large queries {several}"),
        (delayed, "answers are held back for less near a deadline, and not at all past `limits.max_delayed_calls`"),
        (asked, f"whether a caller would do what he is asked for, and be answered, is not known: {asked}"),
    )  # fmt: skip
    return [text for applies, text in notes if applies]


def _leaves_open(model: Replay) -> bool:
    """Whether a default depends on stages that the policy file does not list, and may be there."""
    settings = model.settings
    unset = settings.policy.on_input is None or settings.policy.on_suspect is None
    return unset and not model.rules.whole and not settings.purifiers and not settings.outputs


def _asked(model: Replay) -> str:
    """Refusals that a caller can do something about at once."""
    some = [action for action in Action if Action.THROTTLE.severity < action.severity < Action.DENY.severity]
    return ", ".join(one.value for one in some if model.queries["then"][one] or model.queries["now"][one])


# --- as text


def text_of(document: Mapping[str, Any]) -> str:
    """For a terminal."""
    span = f", {document['from']} to {document['to']}" if document["decisions"] else ""
    parts = [f"{document['decisions']} decisions{span}", *map(_model_text, document["models"])]
    return "\n\n".join([*parts, _told(document["notes"])])


def _told(notes: list[str]) -> str:
    return "\n".join(f"note: {note}" for note in notes)


def _model_text(model: Mapping[str, Any]) -> str:
    asked = f"{model['queries']} queries, {model['rows']} rows of {model['callers']} callers"
    changed = f"{model['callers_changed']} of them receive something else, on {model['rows_changed']} rows"
    parts = [f"model {safe(model['model'])}: {asked}; {changed}"]
    whats = [one["what"] for one in model["received"]]
    if model["shown"]:
        late = model["held_back_s"]["most"] > 0.0
        head = ("CALLER", "LEVEL", "ROWS", *map(str.upper, whats), *(("HELD BACK",) if late else ()))
        parts.append(table(head, [_caller_row(one, whats, late=late) for one in model["shown"]]))
        if len(model["shown"]) < model["callers"]:
            parts.append(f"{model['callers'] - len(model['shown'])} callers are left out (--limit)")
    rows = [
        (one["what"], *(str(one[of][when]) for of in ("queries", "rows") for when in _WHEN))
        for one in model["received"]
    ]
    parts.append(table(("RECEIVED", "QUERIES THEN", "NOW", "ROWS THEN", "NOW"), rows))
    if model["responses"]:
        parts.append(_together(model))
    if model["protections"]:
        rows = [
            (safe(one["stage"]), one["when"], str(one["degree"]), str(one["queries"]), str(one["rows"]))
            for one in model["protections"]
        ]
        parts.append(table(("PROTECTION", "WHEN", "FROM DEGREE", "QUERIES", "ROWS"), rows))
    return "\n\n".join([*parts, *([_told(model["notes"])] if model["notes"] else [])])


_WHEN = ("then", "now")


def _caller_row(one: Mapping[str, Any], whats: list[str], *, late: bool) -> tuple[str, ...]:
    cells = [_cell(one["then"].get(what, 0), one["now"].get(what, 0)) for what in whats]
    name = safe(one["caller"]) + (" (exempt)" if one["exempt"] else "")
    return name, one["level"], str(one["rows"]), *cells, *((f"{one['held_back_s']:.1f} s",) if late else ())


def _cell(then: int, now: int) -> str:
    return (str(now) if now else "-") if then == now else f"{then} -> {now}"


def _together(model: Mapping[str, Any]) -> str:
    """All that is done with what is answered: the table above has the severest alone."""
    done = ", ".join(f"{action} {queries}" for action, queries in model["responses"].items())
    lines = [f"done with queries that are answered now: {done}"]
    held = model["held_back_s"]
    if held["most"] > 0.0:
        lines.append(
            f"held back: {held['least']:.1f} to {held['most']:.1f} s in all, {held['expected']:.1f} s expected"
        )
    return "\n".join(lines)
