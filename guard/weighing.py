"""What a policy says of what stages found: findings become responses, and degrees of rows.

Pure. The engine weighs each query with it; so does what replays recorded findings (`guard.simulation`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guard.settings import Model
from guard.techniques import ALERT
from guard.types import Action, Bools, Finding, Kind, Level, Mode, OnError, When

MOST_DEGRADED = 3


@dataclass(frozen=True, slots=True)
class Weighing:
    """One model's.

    on_error: what a stage's failure means; one that is not in it fails open.
    clusters: the monitors whose findings speak against a cluster of queries.
    """

    settings: Model
    on_error: Mapping[tuple[Kind, str], OnError] = field(default_factory=dict)
    clusters: frozenset[str] = frozenset()
    _of: Mapping[Level, frozenset[Action]] = field(init=False, repr=False, compare=False)
    _of_input: frozenset[Action] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_of", {level: self.settings.of(level) for level in Level})
        object.__setattr__(self, "_of_input", self.settings.of_input)

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
        """What the policy says of a finding that fired. Monitors speak through the caller's level alone.

        A monitor of clusters in shadow may have no part in that level, and says what it would mean.
        """
        if finding.kind != "monitor":
            return self._of_input
        if finding.stage in self.clusters and finding.mode is Mode.SHADOW:
            return self._of[Level.HOSTILE]
        return self._of[acting(finding)] if finding.stage == ALERT else frozenset()

    def degrees(self, findings: Iterable[Finding], rows: int) -> NDArray[np.int64]:
        """(N,) of flagged rows: of a caller who is alarming all, to the degree of his level; 3 for those that fired."""
        degrees = np.zeros(rows, np.int64)
        for finding in findings:
            if finding.stage == ALERT:
                np.maximum(degrees, int(acting(finding)) if finding.fired else 0, out=degrees)
            elif finding.kind != "monitor" and finding.p_values:
                degrees[np.asarray(finding.p_values) <= finding.threshold] = MOST_DEGRADED
        return degrees

    def alert(self, mode: Mode, level: Level, acting: Level, p_value: float) -> Finding:
        """The finding that tells of a caller's level, and of the one that is acted upon.

        It fires where the policy does anything about the latter.
        """
        everybody = self._of[Level.CLEAR] if acting is Level.CLEAR else frozenset()
        acts = bool(self._of[acting] - {Action.ALLOW} - everybody)
        return Finding(ALERT, "monitor", mode, (float(level), float(acting)), (p_value,), 1.0 if acts else 0.0)


def acting(alert: Finding) -> Level:
    """The level that is acted upon; the score before it is what the evidence says."""
    return Level(int(alert.scores[-1]))


def acted_on(when: When, degree: int, degrees: NDArray[np.int64]) -> Bools:
    """(N,) the rows that an output protection acts on. degrees: (N,), 0 where nothing is to be degraded."""
    return np.ones(len(degrees), np.bool_) if when is When.ALWAYS else degrees >= degree
