"""Why figures are not to be trusted without a second look: what the judge itself can see.

Follows Carlini et al. 2019, arXiv:1902.06705, where it is a matter of counting: an attack that fails on the undefended
control says nothing of the defence; a black-box attack that beats a white-box one shows that gradients are of no use.
"""

from collections.abc import Iterator, Sequence

from adversary.report import (
    Attacked,
    AttackPart,
    Doubt,
    ExtractionPart,
    Failure,
    HonestOn,
    InversionPart,
    MembershipPart,
    Share,
    TargetPart,
)

FEW = 30
FEW_CANDIDATES = 100
FEW_BENIGN = 200
_ACCURATE = 0.5


def of_attack(attack: AttackPart, others: Sequence[AttackPart], usual_budget: int) -> tuple[Doubt, ...]:
    """One attack's; `others`: all of the campaign."""
    doubts = []
    success, n = attack.control.success, attack.control.success.n
    if success.rate is not None and success.rate < attack.expect:
        text = f"succeeded on the control in {_per_cent(success)} of {n}, where {100 * attack.expect:g} % are expected"
        doubts.append(Doubt(code="control_did_not_succeed", text=text))
    if n < FEW:
        doubts.append(Doubt(code="few_samples", text=f"{n} attacked victims; the intervals are wide below {FEW}"))
    if attack.budget < usual_budget:
        doubts.append(_cut(attack.budget, usual_budget))
    stronger = next((other for other in others if _masks(attack, other)), None)
    if stronger is not None:
        text = (
            f"{stronger.title} needs no gradients and does better on the control "
            f"({_per_cent(stronger.control.success)} against {_per_cent(success)}): the gradients may be masked"
        )
        doubts.append(Doubt(code="gradients_masked", text=text))
    return tuple(doubts)


def of_extraction(attack: ExtractionPart, usual_budget: int) -> tuple[Doubt, ...]:
    """A copy's."""
    agreement = attack.control.agreement
    return tuple(
        _leaks(attack, usual_budget, agreement.rate or 0.0, f"agreed with the control in {_per_cent(agreement)}")
    )


def of_membership(attack: MembershipPart, usual_budget: int) -> tuple[Doubt, ...]:
    """A membership inference's."""
    auroc = attack.control.auroc
    doubts = list(_leaks(attack, usual_budget, auroc.value, f"had an AUROC of {auroc.value:.2f} on the control"))
    few = min(attack.control.members, attack.control.outsiders)
    if few < FEW_CANDIDATES:
        text = f"{few} candidates of a kind: too few to tell the true-positive rate at 1 % false positives"
        doubts.append(Doubt(code="few_samples", text=text))
    return tuple(doubts)


def of_inversion(attack: InversionPart, usual_budget: int) -> tuple[Doubt, ...]:
    """An inversion's."""
    seen = attack.control.recognised
    doubts = list(_leaks(attack, usual_budget, seen.rate or 0.0, f"{_per_cent(seen)} recognised on the control"))
    if seen.n < FEW:
        doubts.append(Doubt(code="few_samples", text=f"{seen.n} rebuilt; the intervals are wide below {FEW}"))
    return tuple(doubts)


def _leaks(attack: Attacked, usual_budget: int, reached: float, told: str) -> Iterator[Doubt]:
    if reached < attack.expect:
        yield Doubt(code="control_did_not_succeed", text=f"{told}, where {attack.expect:g} is expected")
    if attack.budget < usual_budget:
        yield _cut(attack.budget, usual_budget)


def _cut(budget: int, usual: int) -> Doubt:
    return Doubt(code="budget_cut", text=f"a budget of {budget:,}, where {usual:,} is usual: more might come of more")


def _masks(attack: AttackPart, other: AttackPart) -> bool:
    """Whether a black-box attack in the same norm, with no larger eps, does better than this white-box one."""
    comparable = (
        attack.family == "white-box"
        and other.access in {"scores", "labels"}
        and other.norm == attack.norm
        and other.eps <= attack.eps
    )
    return comparable and other.control.success.interval_95[0] > attack.control.success.interval_95[1]


def of_campaign(guarded: TargetPart, honest: HonestOn, failures: Sequence[Failure]) -> tuple[Doubt, ...]:
    """The campaign's as a whole."""
    doubts = []
    accuracy = honest.control.alone.clean_accuracy
    if accuracy.rate is not None and accuracy.rate < _ACCURATE:
        text = f"the control answers {_per_cent(accuracy)} of clean inputs rightly: are labels, bounds, layout right?"
        doubts.append(Doubt(code="control_inaccurate", text=text))
    if not guarded.fresh:
        text = "the guarded endpoint lives on between units of work: what it remembers of one may change the next"
        doubts.append(Doubt(code="state_kept", text=text))
    if not guarded.audit:
        text = "the guarded endpoint's audit log was not at hand: what it noticed without refusing is not counted"
        doubts.append(Doubt(code="no_audit", text=text))
    images = honest.guarded.alone.images
    if images < FEW_BENIGN:
        text = f"{images} clean inputs from honest callers: too few to tell a false-alarm rate near 1 %"
        doubts.append(Doubt(code="few_benign", text=text))
    if failures:
        text = f"{len(failures)} units of work failed; what they belong to is missing or incomplete"
        doubts.append(Doubt(code="failed", text=text))
    return tuple(doubts)


def _per_cent(share: Share) -> str:
    return "none" if share.rate is None else f"{100 * share.rate:.0f} %"
