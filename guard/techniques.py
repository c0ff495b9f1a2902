"""What an attacker seems to be doing, by what fired: technique ids of MITRE ATLAS (https://atlas.mitre.org)."""

import math
from collections.abc import Iterable

from guard import registry
from guard.types import Finding

ATLAS_VERSION = "2026.10"
EVADE_MODEL = "AML.T0015"
BLACK_BOX_OPTIMIZATION = "AML.T0043.001"
EXTRACT_MODEL = "AML.T0024.002"

NAMES = {
    EVADE_MODEL: "Evade AI Model",
    BLACK_BOX_OPTIMIZATION: "Black-Box Optimization",
    EXTRACT_MODEL: "Extract AI Model",
    "AML.T0043": "Craft Adversarial Data",
    "AML.T0024": "Exfiltration via AI Inference API",
}
"""Of each technique, and of those that they are parts of."""

ALERT = "alert"
COHORT = "cohort "
_COPYING = frozenset(
    {
        "coverage",
        "embedding_novelty",
        "embedding_window",
        "extraction_budget",
        "low_confidence",
        "own_neighbours",
        "prada",
    }
)
_LEAST_P = 1e-300


def techniques_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    """MITRE ATLAS ids: a fired detector saw an evasion, a fired monitor the queries that optimise one, or that copy.

    Values out of bounds (the engine's own finding `validation`) are a client's mistake until something says otherwise.
    An alert that fired is put down to the monitor that has come furthest.
    """
    findings = tuple(findings)
    fired = [finding for finding in findings if finding.fired]
    told = {_technique(finding) for finding in fired if finding.stage not in {"validation", ALERT}}
    if any(finding.stage == ALERT for finding in fired):
        leading = leader_of(findings)
        told.add(BLACK_BOX_OPTIMIZATION if leading is None else _technique(leading))
    return tuple(t for t in (EVADE_MODEL, BLACK_BOX_OPTIMIZATION, EXTRACT_MODEL) if t in told)


def _technique(finding: Finding) -> str | None:
    if finding.kind == "detector":
        return EVADE_MODEL
    return technique_of(finding.stage) if finding.kind == "monitor" else None


def technique_of(monitor: str) -> str | None:
    """What a monitor looks for: its class's `technique`, if it has one; else it goes by its name.

    None for the alarm of a cohort, which is no stage.
    """
    if monitor.startswith(COHORT):
        return None
    default = EXTRACT_MODEL if monitor in _COPYING else BLACK_BOX_OPTIMIZATION
    try:
        own: str = getattr(registry.lookup("monitor", monitor), "technique", default)
    except registry.UnknownStage:
        return default
    return own


def progress_of(finding: Finding) -> float:
    """How far a monitor's evidence has come on the way to its alarm, in logarithms: 1 is there; 0 where it cannot."""
    if finding.error is not None or not 0.0 < finding.threshold < 1.0 or not finding.p_values:
        return 0.0
    return math.log(max(finding.p_value, _LEAST_P)) / math.log(finding.threshold)


def leader_of(findings: Iterable[Finding]) -> Finding | None:
    """The monitor that has come furthest; None where none has moved."""
    monitors = [f for f in findings if f.kind == "monitor" and f.stage != ALERT and not f.stage.startswith(COHORT)]
    leading = max(monitors, key=progress_of, default=None)
    return leading if leading is not None and progress_of(leading) > 0.0 else None
