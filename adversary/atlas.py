"""Attacks by MITRE ATLAS technique (https://atlas.mitre.org), the version pinned."""

from dataclasses import dataclass

from adversary.catalogue import Entry

VERSION = "2026.10"


@dataclass(frozen=True, slots=True)
class Technique:
    """Its id and name."""

    id: str
    name: str


EVADE = Technique("AML.T0015", "Evade AI Model")
WHITE_BOX = Technique("AML.T0043.000", "White-Box Optimization")
BLACK_BOX = Technique("AML.T0043.001", "Black-Box Optimization")
TRANSFER = Technique("AML.T0043.002", "Black-Box Transfer")
TRIGGER = Technique("AML.T0043.004", "Insert Backdoor Trigger")
POISON = Technique("AML.T0020", "Poison Training Data")
MEMBERSHIP = Technique("AML.T0024.000", "Infer Training Data Membership")
INVERT = Technique("AML.T0024.001", "Invert AI Model")
EXTRACT = Technique("AML.T0024.002", "Extract AI Model")

_BY_FAMILY = {
    "transfer": (TRANSFER, EVADE),
    "backdoor": (TRIGGER, POISON, EVADE),
    "extraction": (EXTRACT,),
    "membership": (MEMBERSHIP,),
    "inversion": (INVERT,),
    "privacy": (MEMBERSHIP, INVERT),
}


def techniques(entry: Entry) -> tuple[Technique, ...]:
    """By family; an evasion of no family of its own by what it sees."""
    by_access = (WHITE_BOX, EVADE) if entry.access == "gradients" else (BLACK_BOX, EVADE)
    return _BY_FAMILY.get(entry.family, by_access)
