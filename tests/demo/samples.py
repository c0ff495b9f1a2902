"""A small run's measurements, made by hand: what the report's tests are about."""

import numpy as np

from adversary.attack import REFUSED
from adversary.oracle import Record
from adversary.runner import ANY, NEVER, Outcome
from demo.document import Duel
from demo.measure import Attacked, Clean, Latency
from demo.verdicts import Verdict

Y = np.array([1, 2, 3, 4])


def outcome(adversarial, detected, *, norm="linf"):
    sizes = np.array([0.1, 0.2, 0.3, 0.3])
    return Outcome(
        attack="fgsm", eps=0.3, norm=norm, y=Y, clean=Y, adversarial=np.array(adversarial),
        aim=np.full(4, ANY), size=sizes, linf=sizes,
        l2=10 * sizes, queries=np.array([10, 20, 30, 40]), detected_at=np.array(detected),
        reached_at=np.full(4, NEVER),
        x_adv=np.linspace(0, 1, 4 * 28 * 28, dtype=np.float32).reshape(4, 1, 28, 28),
    )  # fmt: skip


def duel(title="FGSM <eps> 0.3", *, records=()):
    """Bare: three of four fooled. Guarded: two of these refused, one let through."""
    bare = Attacked(outcome([0, 0, 0, 4], [NEVER] * 4), ("",) * 4)
    guarded = Attacked(
        outcome([REFUSED, REFUSED, 0, 4], [1, 3, NEVER, NEVER]), ("a0", "a1", "a2", "a3"), tuple(records)
    )
    return Duel(title, "crafted", 1, bare, guarded, np.array([1, 2, 0, 4]), like_paper=True)


def record(rows, decision, identity):
    return Record(rows, "", 0.0, 0.0, "OK", decision, identity)


VERDICTS = {
    "a0": Verdict("deny", "input", 1.9, 0.001, caller_flagged=False),
    "a1": Verdict("deny", "caller", None, None, caller_flagged=True),
    "a2": Verdict("allow", None, 0.2, 0.05, caller_flagged=False),
    "a3": Verdict("allow", None, 0.1, 0.5, caller_flagged=False),
    "c0": Verdict("allow", None, 0.1, 0.6, caller_flagged=False),
    "c1": Verdict("deny", "input", 1.0, 0.01, caller_flagged=False),
    "c2": Verdict("deny", "caller", 0.1, 0.7, caller_flagged=True),
}
CLEAN_BARE = Clean(np.array([1, 2, 0, 4]), ("",) * 4, np.array([0, 1, 0, 1]))
CLEAN_GUARDED = Clean(np.array([1, REFUSED, REFUSED, 4]), ("c0", "c1", "c2", "lost"), np.array([0, 1, 0, 1]))
LATENCY = Latency(np.array([1.0, 1.0, 2.0, 1.0]), np.array([2.0, 4.0, 6.0, 3.0]))
