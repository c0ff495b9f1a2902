"""The same for attacks that are no evasions: a copy, a membership inference, an inversion, each on both sides."""

import numpy as np

from adversary import judge_leaks, report
from adversary.judge_document import Judged, Rebuilt
from adversary.runner import NEVER
from tests.adversary import samples


def watched(flagged=NEVER, runs=1):
    return {
        "flagged_at": np.full(runs, flagged), "sent": np.full(runs, 1000),
        "flagged_rows": np.full(runs, 0 if flagged == NEVER else 500),
        "refused_rows": np.full(runs, 0 if flagged == NEVER else 250),
    }  # fmt: skip


def copying(right, flagged=NEVER, n=100):
    """Two copies, the first half as good as the last, which agrees on `right` of n."""
    bare = np.zeros(n, int)
    copies = np.stack([np.where(np.arange(n) < r, 0, 1) for r in (right // 2, right)])
    return {**watched(flagged), "y": bare, "bare": bare, "spent": np.array([100, 1000]),
            "answered": np.array([100, 900]), "copied": copies}  # fmt: skip


def guessing(right, n=200):
    member = np.arange(n) % 2 == 0
    scores = np.where(np.arange(n) < right, np.where(member, 1.0, -1.0), 0.0)
    return {**watched(7), "member": member, "scores": scores, "queries": np.ones(n, int)}


def mirroring(right, n=3):
    y = np.arange(n)
    seen = np.where(y < right, y, (y + 1) % n)
    likeness = np.eye(n) * np.where(y < right, 0.9, -0.9)[:, None]
    return {**watched(40, n), "y": y, "answered": y, "recognised": seen, "likeness": likeness,
            "queries": np.full(n, 500)}  # fmt: skip


def _told(title, attack, family, access, budget):
    return {
        "title": title, "attack": attack, "family": family, "access": access, "origin": "own", "source": "some <paper>",
        "atlas": (report.Technique(id="AML.T0024.002", name="Extract AI Model"),), "budget": budget, "options": {},
        "expect": 0.8, "warnings": (),
    }  # fmt: skip


def copy(bare=90, guarded=40, title="thief <1>", flagged=30):
    sides = (judge_leaks.copied([copying(*side)], [0]) for side in ((bare,), (guarded, flagged)))
    control, behind = sides
    told = _told(title, "knockoff-random", "extraction", "scores", 1000)
    return report.ExtractionPart(**told, control=control, guarded=behind)


def membership(bare=160, guarded=40):
    told = _told("guesser", "membership-confidence", "membership", "scores", 1)
    control, behind = (judge_leaks.inferred([guessing(right)]) for right in (bare, guarded))
    return report.MembershipPart(**told, control=control, guarded=behind)


def inversion(bare=3, guarded=1):
    told = _told("mirror", "inversion", "inversion", "scores", 500)
    control, behind = (judge_leaks.inverted([mirroring(right)]) for right in (bare, guarded))
    return report.InversionPart(**told, control=control, guarded=behind)


PARTS = {"extractions": (copy(),), "memberships": (membership(),), "inversions": (inversion(),)}


def judged(**changed):
    """Everything: the evasions of `samples` and these."""
    made = samples.judged(**{**PARTS, **changed})
    side = Rebuilt(samples.X[:3], np.arange(3), np.arange(3), np.array([0, 1, 1]))
    return Judged(made.document, made.evidence, made.inputs, {"mirror": {"control": side, "guarded": side}})
