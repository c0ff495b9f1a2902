"""Levels of alert: from a caller's evidence, with hysteresis.

A monitor that watches a caller would have `1 / threshold` be its alarm. How far its evidence has come on that way, in
logarithms, is the progress: 1 is an alarm. A caller is on `watch` from a third of the way, `suspect` from two thirds,
`hostile` at the end; he falls back below only once he is a tenth of the way short of it. `hostile` is kept for `calm_s`
after the last query that added to the evidence; then the evidence begins anew, and he is clear.

A cluster of queries is alarming where its evidence passes 1 / `threshold` by as much as there are rows that have joined
some cluster: there are no more of them than that.
"""

import math

from guard.types import Alert, Level

STEPS = {Level.WATCH: 1 / 3, Level.SUSPECT: 2 / 3, Level.HOSTILE: 1.0}
SLACK = 0.1


def progress(log_value: float, threshold: float) -> float:
    """How far evidence M, by its logarithm, has come on the way to 1 / threshold; threshold in (0, 1)."""
    return log_value / -math.log(threshold)


def of_cluster(log_value: float, joined: int) -> float:
    """The logarithm of a cluster's evidence, less that of the number of rows among which one was looked for."""
    return log_value - math.log(2.0 + joined)


def reading(way: float, former: Level = Level.CLEAR) -> Level:
    """The level for a progress, where the former level was this."""
    found = Level.CLEAR
    for level, at in STEPS.items():
        if way >= at - (SLACK if level <= former else 0.0):
            found = level
    return found


def advance(alert: Alert, way: float, *, added: bool, now: float, calm_s: float) -> tuple[Alert, bool]:
    """The alert after a query, and whether the evidence begins anew. added: the query spoke against the caller."""
    if alert.level is not Level.HOSTILE:
        level = reading(way, alert.level)
        return Alert(level, now + calm_s if level is Level.HOSTILE else 0.0), False
    if added:
        return Alert(Level.HOSTILE, max(alert.until, now + calm_s)), False
    if now < alert.until:
        return alert, False
    return Alert(), True
