"""Bars that a report must clear: a YAML file of limits, so that a pipeline can gate a deployment.

A bar on what was not measured is missed: a gate that opens because nothing was tested is no gate.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from adversary.campaign import CampaignError, first_error, parse
from adversary.report import (
    Attacked,
    AttackPart,
    Document,
    ExtractionPart,
    InversionPart,
    Median,
    MembershipPart,
    Share,
    Watched,
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AttackBars(_Part):
    """Limits on one attack, or on each. Rates in 1."""

    max_success: float | None = Field(None, ge=0, le=1)
    """On the guarded endpoint."""
    max_reached: float | None = Field(None, ge=0, le=1)
    """On the guarded endpoint: answered wrongly within eps at any query."""
    min_noticed: float | None = Field(None, ge=0, le=1)
    max_queries_to_detection: float | None = Field(None, ge=1)
    """The median of rows until the first was noticed."""
    min_control_success: float | None = Field(None, ge=0, le=1)
    """Below it the attack proves nothing."""
    max_agreement: float | None = Field(None, ge=0, le=1)
    """Of an extraction: of the last copy made through the guarded endpoint with the model."""
    max_auroc: float | None = Field(None, ge=0, le=1)
    """Of a membership inference, on the guarded endpoint."""
    max_advantage: float | None = Field(None, ge=0, le=1)
    """The same."""
    max_recognised: float | None = Field(None, ge=0, le=1)
    """Of an inversion: classes rebuilt through the guarded endpoint that another network recognises."""


class Bars(_Part):
    """The whole file."""

    every_attack: AttackBars = AttackBars()
    attacks: dict[str, AttackBars] = {}
    """By title; beside `every_attack`."""
    min_clean_accuracy: float | None = Field(None, ge=0, le=1)
    """Of honest callers on the guarded endpoint."""
    max_accuracy_loss: float | None = Field(None, ge=0, le=1)
    """Of honest callers, from bare to guarded."""
    max_false_alarms: float | None = Field(None, ge=0, le=1)
    """Clean inputs noticed."""
    max_callers_flagged: float | None = Field(None, ge=0, le=1)
    allow_warnings: bool = True
    """Whether a report with warnings may pass."""


def load(path: Path) -> Bars:
    """Raises CampaignError."""
    try:
        return Bars.model_validate(parse(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise CampaignError("", f"cannot read {path}: {error}") from None
    except pydantic.ValidationError as error:
        raise first_error(error) from None


def missed(bars: Bars, document: Document) -> list[str]:
    """Each missed bar in a line; none: the report clears them all."""
    return [*_attacks(bars, document), *_honest(bars, document), *_warnings(bars, document)]


def _attacks(bars: Bars, document: Document) -> Iterator[str]:
    known = {attack.title: attack for attack in document.all_attacks}
    for name in bars.attacks.keys() - known.keys():
        yield f"{name}: was not measured"
    for failure in document.failures:
        yield f"{failure.unit}: failed"
    if not known:
        yield "no attack was measured"
    for title, attack in known.items():
        for limits in (bars.every_attack, bars.attacks.get(title, AttackBars())):
            yield from (f"{title}: {line}" for line in _attack(limits, attack))


def _attack(limits: AttackBars, attack: Attacked) -> Iterator[str]:
    """Bars that are not about an attack's goal are cleared by it."""
    match attack:
        case AttackPart(guarded=guarded):
            yield from _above("success", guarded.success, limits.max_success)
            yield from _above("reached", guarded.reached, limits.max_reached)
            yield from _below("noticed", guarded.noticed, limits.min_noticed)
            yield from _below("success on the control", attack.control.success, limits.min_control_success)
            yield from _late(guarded.queries_to_detection, limits.max_queries_to_detection)
        case ExtractionPart(guarded=guarded):
            yield from _above("agreement", guarded.agreement, limits.max_agreement)
            yield from _watched(limits, guarded.watched)
        case MembershipPart(guarded=guarded):
            yield from _more("AUROC", guarded.auroc.value, limits.max_auroc)
            yield from _more("advantage", guarded.advantage.value, limits.max_advantage)
            yield from _watched(limits, guarded.watched)
        case InversionPart(guarded=guarded):
            yield from _above("recognised", guarded.recognised, limits.max_recognised)
            yield from _watched(limits, guarded.watched)


def _watched(limits: AttackBars, watched: Watched) -> Iterator[str]:
    yield from _below("noticed", watched.noticed, limits.min_noticed)
    yield from _late(watched.queries_to_detection, limits.max_queries_to_detection)


def _more(name: str, value: float, limit: float | None) -> Iterator[str]:
    if limit is not None and value > limit:
        yield f"{name}: {value:.4f} is above {limit:g}"


def _honest(bars: Bars, document: Document) -> Iterator[str]:
    bare, guarded = document.honest.control.alone, document.honest.guarded.alone
    yield from _below("clean accuracy", guarded.clean_accuracy, bars.min_clean_accuracy)
    yield from _above("false alarms", guarded.flagged, bars.max_false_alarms)
    yield from _above("honest callers flagged", guarded.callers_flagged, bars.max_callers_flagged)
    if bars.max_accuracy_loss is not None:
        rates = bare.clean_accuracy.rate, guarded.clean_accuracy.rate
        if rates[0] is None or rates[1] is None:
            yield "loss of clean accuracy: was not measured"
        elif rates[0] - rates[1] > bars.max_accuracy_loss:
            yield f"loss of clean accuracy: {rates[0] - rates[1]:.4f} is above {bars.max_accuracy_loss:g}"


def _warnings(bars: Bars, document: Document) -> Iterator[str]:
    if not bars.allow_warnings:
        yield from (f"warning: {doubt.text}" for doubt in document.warnings)
        for attack in document.all_attacks:
            yield from (f"{attack.title}: warning: {doubt.text}" for doubt in attack.warnings)


def _above(name: str, share: Share, limit: float | None) -> Iterator[str]:
    yield from _compare(name, share, limit, lambda rate, bound: rate > bound, "above")


def _below(name: str, share: Share, limit: float | None) -> Iterator[str]:
    yield from _compare(name, share, limit, lambda rate, bound: rate < bound, "below")


def _compare(
    name: str, share: Share, limit: float | None, bad: Callable[[float, float], bool], word: str
) -> Iterator[str]:
    if limit is None:
        return
    if share.rate is None:
        yield f"{name}: was not measured"
    elif bad(share.rate, limit):
        yield f"{name}: {share.rate:.4f} of {share.n} is {word} {limit:g}"


def _late(at: Median, limit: float | None) -> Iterator[str]:
    if limit is None:
        return
    if at.median is None:
        yield "queries to detection: never noticed"
    elif at.median > limit:
        yield f"queries to detection: {at.median:g} is above {limit:g}"
