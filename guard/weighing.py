"""What a policy says of what stages found: findings become responses, and degrees of rows.

Pure. The engine weighs each query with it; so does what replays recorded findings (`guard.simulation`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guard.settings import Policy
from guard.techniques import ALERT
from guard.types import Action, Bools, Finding, Kind, Level, Mode, OnError, When

MOST_DEGRADED = 3


@dataclass(frozen=True, slots=True)
class Weighing:
    """One model's.

    clusters: the monitors whose findings speak against a cluster of queries.
    on_error: what a stage's failure means; one that is not in it fails open.
    """

    policy: Policy
    clusters: frozenset[str] = frozenset()
    on_error: Mapping[tuple[Kind, str], OnError] = field(default_factory=dict)

    def responses(self, findings: Iterable[Finding]) -> frozenset[Action]:
        """All that is done, where these findings act; allow is always among them."""
        actions = {Action.ALLOW}
        for finding in findings:
            if finding.error is not None and self.on_error.get((finding.kind, finding.stage)) is OnError.DENY:
                actions.add(Action.DENY)
            if finding.fired:
                actions |= self._meant(finding)
        return frozenset(actions)

    def _meant(self, finding: Finding) -> frozenset[Action]:
        """What the policy says of a finding that fired. A monitor of the caller speaks through his level alone."""
        if finding.kind != "monitor":
            return self.policy.of_input
        if finding.stage == ALERT:
            return self.policy.of(Level(int(finding.scores[0])))
        return self.policy.of(Level.HOSTILE) if finding.stage in self.clusters else frozenset()

    def degrees(self, findings: Iterable[Finding], rows: int) -> NDArray[np.int64]:
        """(N,) of flagged rows: of a caller who is alarming all, to the degree of his level; 3 for those that fired."""
        degrees = np.zeros(rows, np.int64)
        for finding in findings:
            if finding.stage == ALERT:
                np.maximum(degrees, int(finding.scores[0]) if finding.fired else 0, out=degrees)
            elif finding.kind == "monitor" and finding.stage not in self.clusters:
                continue
            elif finding.p_values:
                degrees[np.asarray(finding.p_values) <= finding.threshold] = MOST_DEGRADED
        return degrees

    def alert(self, mode: Mode, level: Level, p_value: float) -> Finding:
        """The finding that tells of a caller's level; it fires where the policy does anything about it."""
        acts = bool(self.policy.of(level) - {Action.ALLOW})
        return Finding(ALERT, "monitor", mode, (float(level),), (p_value,), 1.0 if acts else 0.0)


def acted_on(when: When, degree: int, degrees: NDArray[np.int64]) -> Bools:
    """(N,) the rows that an output protection acts on. degrees: (N,), 0 where nothing is to be degraded."""
    return np.ones(len(degrees), np.bool_) if when is When.ALWAYS else degrees >= degree
