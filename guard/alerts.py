"""Levels of alert: from a caller's evidence, with hysteresis.

A monitor that watches a caller would have `1 / threshold` be its alarm. How far its evidence has come on that way, in
logarithms, is the progress: 1 is an alarm. A caller is on `watch` from a third of the way, `suspect` from two thirds,
`hostile` at the end; he falls back below only once he is a tenth of the way short of it. `hostile` is kept for `calm_s`
after the last query that added to the evidence; then the evidence begins anew, and he is clear.

A cluster of queries is alarming where its evidence passes 1 / `threshold` by as much as there are rows that have joined
some cluster: there are no more of them than that.

What is done about a caller changes at coarse times that are drawn at random, never because of the query that changed
his level: each row may be the one at which the policy takes note, `lag_rows` of them in the mean. Who joins an alarming
cluster is, from a row drawn likewise, treated as hostile for a number of rows that is drawn, too, whatever they are. So
what became of a query says little of what was thought of it, and nothing of what a neighbour of it would meet with.
"""

import math
from dataclasses import replace

from guard.types import Alert, Level

STEPS = {Level.WATCH: 1 / 3, Level.SUSPECT: 2 / 3, Level.HOSTILE: 1.0}
SLACK = 0.1
_BEGINS = 0.5
"""How likely a row that joins an alarming cluster is to be the first of those that are held against its caller."""


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
        until = now + calm_s if level is Level.HOSTILE else 0.0
        same = level is alert.level and until == alert.until
        return alert if same else replace(alert, level=level, until=until), False
    if added:
        return replace(alert, until=max(alert.until, now + calm_s)), False
    if now < alert.until:
        return alert, False
    return Alert(), True


def act(
    alert: Alert, level: Level, *, rows: int, joined: int, lag_rows: int, draws: tuple[float, float, float]
) -> tuple[Alert, Level]:
    """The alert after a query of so many rows, and the level that the policy acts upon.

    level:  by the evidence, this query's counted. joined: how many of its rows joined an alarming cluster.
    draws:  uniform in [0, 1), and nobody's to foretell.
    """
    if lag_rows == 1:
        return replace(alert, acting=Level.CLEAR, held=0), Level.HOSTILE if joined else level
    acting = level if draws[0] < _any(1.0 / lag_rows, rows) else alert.acting
    held = alert.held
    if not held and draws[1] < _any(_BEGINS, joined):
        held = 1 + int(2 * lag_rows * draws[2])
    left = max(0, held - rows)
    if acting is not alert.acting or left != alert.held:
        alert = replace(alert, acting=acting, held=left)
    return alert, Level.HOSTILE if held else acting


def _any(chance: float, times: int) -> float:
    """How likely it is that something comes about at least once."""
    return float(1.0 - (1.0 - chance) ** times)
