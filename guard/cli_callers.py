"""`guard callers | explain | forgive`: who is probing, why Guard thinks so, and letting him begin anew."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guard import config, explaining
from guard.client import GuardClient
from guard.explaining import Caller, Explained, Explanation, Linked
from guard.recorded import Tally
from guard.settings import ConfigError
from guard.types import Level

ADMIN = "127.0.0.1:9465"
_DECISION = re.compile(r"[0-9a-f]{32}(\.\d+)?")
_LINKS_SHOWN = 8


def _connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--admin", metavar="HOST:PORT", default=ADMIN, help=f"Guard's own API; default: {ADMIN}")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the admin token; default: $GUARD_ADMIN_TOKEN")


def callers_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard callers`."""
    _connection(parser)
    parser.add_argument("--model", default="", metavar="NAME", help="of this model only")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many; default: 20")
    parser.add_argument("--level", default="clear", choices=[level.name.lower() for level in Level], help="at least")
    parser.add_argument("--json", action="store_true", help="print JSON")


def explain_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard explain`."""
    _connection(parser)
    parser.add_argument("subject", metavar="DECISION_ID|CALLER")
    parser.add_argument("--model", default="", metavar="NAME", help="of this model only")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="a caller's latest N decisions; default: 20")
    parser.add_argument("--log", type=Path, metavar="FILE", help="explain from a recorded audit log instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def forgive_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard forgive`."""
    _connection(parser)
    parser.add_argument("caller", metavar="CALLER")
    parser.add_argument("--model", required=True, metavar="NAME")


def callers(args: argparse.Namespace) -> int:
    """Print who has evidence against him, the most alarming first."""
    with _connected(args) as guard:
        found = guard.callers(args.model, limit=_positive(args.limit), min_level=Level[args.level.upper()])
    _print(_plain(found) if args.json else callers_table(found))
    return 0


def explain(args: argparse.Namespace) -> int:
    """Print why."""
    named = "decision_id" if _DECISION.fullmatch(args.subject) else "caller"
    wanted = {named: args.subject, "model": args.model, "limit": _positive(args.limit)}
    if args.log is None:
        with _connected(args) as guard:
            found: Explanation | None = guard.explain(**wanted)
    else:
        tally = Tally()
        try:
            found = explaining.from_log(args.log, tally, **wanted)
        except OSError as error:
            raise ConfigError("--log", f"cannot read {args.log}: {error.strerror}") from None
        if tally.unreadable:
            sys.stderr.write(f"guard explain: {tally.unreadable} lines are no audit events\n")
    if found is None:
        sys.stderr.write(f"guard explain: {args.log} has nothing of it\n")
        return 1
    _print(_plain(found) if args.json else explanation_text(found))
    return 0


def forgive(args: argparse.Namespace) -> int:
    """Let a caller begin anew; exit status 1 where nothing was known of him."""
    with _connected(args) as guard:
        forgiven = guard.forgive(args.model, args.caller)
    _print("forgiven" if forgiven else "nothing is known of that caller")
    return 0 if forgiven else 1


def _connected(args: argparse.Namespace) -> GuardClient:
    token = config.read_secret(args.token_file, "GUARD_ADMIN_TOKEN", where="--token-file")
    if token is None:
        raise ConfigError("--token-file", "the admin token is needed: --token-file or GUARD_ADMIN_TOKEN")
    return GuardClient(args.admin, token)


def _positive(limit: int) -> int:
    if not 1 <= limit <= 2**31 - 1:
        raise ConfigError("--limit", "must be at least 1")
    return limit


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


# --- as JSON


def _plain(thing: Any) -> str:
    return json.dumps(_json(thing if isinstance(thing, tuple) else asdict(thing)), indent=2)


def _json(value: Any) -> Any:
    """Plain data: levels by their names, times in ISO 8601, null for NaN."""
    if hasattr(value, "__dataclass_fields__"):
        return _json(asdict(value))
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, Level):
        return value.name.lower()
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    return value.isoformat() if hasattr(value, "isoformat") else value


# --- as text


def safe(text: str) -> str:
    """What callers name, without anything that a terminal would obey."""
    return json.dumps(text)[1:-1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def callers_table(found: Sequence[Caller]) -> str:
    """One line a caller; evidence is e to the power of the number beside each monitor."""
    if not found:
        return "no callers are known"
    head = ("CALLER", "MODEL", "LEVEL", "ROWS", "SINCE", "EVIDENCE (ln)")
    return table(head, [_caller_row(one) for one in found])


def _caller_row(one: Caller) -> tuple[str, ...]:
    strongest = sorted(one.evidence, key=lambda known: -known.log_value)
    told = ", ".join(f"{safe(known.monitor)} {known.log_value:.1f}" for known in strongest if known.log_value > 0.0)
    since = one.since.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return safe(one.caller), safe(one.model), one.level.name.lower(), str(one.rows), since, told or "-"


def explanation_text(found: Explanation) -> str:
    """All of it, in a few lines a decision."""
    parts = [f"caller {safe(found.caller)}"]
    if found.state:
        parts.append(callers_table(found.state))
    if found.crossings:
        head = ("ROSE TO", "AT", "AFTER ROWS", "BY", "ATLAS", "IN DECISION")
        rows = [
            (
                crossing.level.name.lower(),
                crossing.time.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00"),
                str(crossing.caller_rows),
                safe(crossing.monitor) or "-",
                safe(crossing.technique) or "-",
                safe(crossing.decision_id),
            )
            for crossing in found.crossings
        ]
        parts.append(table(head, rows))
    if found.left_out:
        parts.append(f"{found.left_out} earlier decisions are left out (--limit)")
    return "\n\n".join([*parts, *map(_decision_text, found.decisions)])


def _decision_text(one: Explained) -> str:
    moment = one.time.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    acted = one.action.value if one.action is one.would_be else f"{one.action.value} (would be {one.would_be.value})"
    rose = f" (was {one.former.name.lower()})" if one.former is not one.level else ""
    lines = [
        f"{safe(one.decision_id)}  {moment}  {safe(one.model)}: {acted}, {one.level.name.lower()}{rose}, "
        f"after {one.caller_rows} rows  {' '.join(map(safe, one.techniques))}".rstrip()
    ]
    lines += [
        f"  {finding.kind} {safe(finding.stage)}: p {finding.p_value:.3g} at {finding.threshold:.3g}"
        + (f", failed: {safe(finding.error)}" if finding.error else ", fired" if finding.fired else "")
        for finding in one.findings
    ]
    lines += [f"  {_link_text(link)}" for link in one.links[:_LINKS_SHOWN]]
    if len(one.links) > _LINKS_SHOWN:
        lines.append(f"  and {len(one.links) - _LINKS_SHOWN} rows more (--json has them)")
    lines += [f"  cluster {c.number}: {c.rows} rows of {c.owners} callers before" for c in one.clusters]
    return "\n".join(lines)


def _link_text(link: Linked) -> str:
    trace = link.trace
    if trace.duplicate:
        return f"row {trace.row}: an exact repeat"
    if trace.neighbour < 0:
        return f"row {trace.row} (number {trace.number}): nothing near"
    whence = f" (decision {safe(link.decision_id)}, row {link.decision_row})" if link.decision_id else ""
    joined = "joined" if trace.joined else "near"
    return (
        f"row {trace.row} (number {trace.number}): follows {trace.neighbour}{whence} of {safe(trace.owner)}, distance "
        f"{trace.distance:.3g}, {trace.unexplained:.0%} unexplained, {joined} cluster {trace.cluster}"
    )
