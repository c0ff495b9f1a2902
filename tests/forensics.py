"""A small story of an attack, for tests of what explains it: five queries, each a near-repeat of the one before."""

from guard.events import Event
from guard.traces import Cluster, Credit, Trace
from guard.types import Action, Finding, Level, Mode

ATTACKER = "peer:10.0.0.1"
LEVELS = (Level.CLEAR, Level.CLEAR, Level.WATCH, Level.SUSPECT, Level.HOSTILE)
MONITOR = "test_overlap"


def decision_id(i: int) -> str:
    return f"{i:032x}"


def step(i: int, caller: str = ATTACKER, model: str = "m", **changes) -> Event:
    """The i-th query: alarming from the second on."""
    level, former = LEVELS[i], LEVELS[max(0, i - 1)]
    p = 1.0 if i == 0 else 0.002
    denied = level is Level.HOSTILE
    trace = Trace(0, 100 + i)
    if i:
        trace = Trace(0, 100 + i, False, 99 + i, "ab" * 8, 20, 0.01, 0.9, 100, True)
    values = {
        "time_unix": 1_700_000_000.0 + i,
        "decision_id": decision_id(i),
        "caller": caller,
        "model": model,
        "version": "",
        "action": Action.DENY if denied else Action.ALLOW,
        "would_be": Action.DENY if denied else Action.ALLOW,
        "enforced": True,
        "findings": (Finding(MONITOR, "monitor", Mode.ENFORCE, (float(i),), (10.0 ** (-i),), 0.001),),
        "rows": 1,
        "level": level,
        "former": former,
        "caller_rows": i,
        "traces": (trace,),
        "clusters": (Cluster(100, i, 1),) if i else (),
        "credits": (Credit(MONITOR, (p,), 1),),
    }
    return Event(**(values | changes))


def story() -> list[Event]:
    return [step(i) for i in range(5)]
