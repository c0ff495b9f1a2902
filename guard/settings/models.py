"""A model: its stages, its profile, what is asked of its inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, model_validator

from guard import registry
from guard.settings.base import ConfigError, Section, first_error
from guard.settings.policy import Budget, Challenge, Policy, several
from guard.settings.transport import Embedded, Upstream
from guard.types import Action, Kind, Level, Mode, OnError, When


class Stage(Section):
    """One stage of a model."""

    stage: str
    """Its registered name."""
    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode: in a shadow model no stage acts."""
    on_error: OnError = OnError.ALLOW
    """What a failure of this stage means for the query, where the stage enforces."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The stage's own options."""


class Detector(Stage):
    """A stage that scores an input."""

    weight: float = Field(1.0, gt=0)
    """Its share of the model's false-positive budget, relative to the other detectors'."""


class Monitor(Stage):
    """A stage that judges a caller by its queries over time."""


class Acting(Stage):
    """A stage that changes an input or an answer."""

    when: When = When.SUSPICIOUS
    """`always`, or only where the policy asks for it."""


class Output(Acting):
    """An output protection."""

    degree: int = Field(1, ge=1, le=3)
    """From which degree on it acts, where suspicious answers are degraded: 1 those of callers on watch, 2 of suspect
    ones, 3 of hostile ones and answers to inputs that were flagged themselves."""


class Validation(Section):
    """Checks of values against the profile. What fails is INVALID_ARGUMENT where this enforces."""

    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode. `shadow` records a finding and forwards, `off` does not look."""
    finite: bool = True
    """Refuse NaN and infinities."""
    bounds: bool = True
    """Refuse values outside the profile's bounds, where the profile knows them for sure."""


class Images(Section):
    """Encoded images (JPEG, PNG) in BYTES inputs, decoded for inspection."""

    max_pixels: int = Field(4096 * 4096, ge=1)
    """Larger images are refused before they are decoded."""
    max_bytes: int = Field(16 * 1024 * 1024, ge=1)
    """Larger encoded images are refused."""


class Model(Section):
    """One guarded model."""

    name: str = Field(min_length=1)
    """As callers name it."""
    upstream: Upstream | None = None
    """Its server, if not the default upstream."""
    embedded: Embedded | None = None
    """Serve it in this process instead."""
    profile: Path | None = None
    """What `guard fit` wrote. Needed by every detector and monitor."""
    signed_as: str | None = Field(None, min_length=1)
    """With `signers_file`: the name that the profile must be signed as; default: `name`. With a version in it, such as
    `resnet@7`, no former profile is taken."""
    on_profile_mismatch: OnError = OnError.ALLOW
    """If the profile was not made for what is served: forward uninspected (counted, alarmed) or refuse calls."""
    mode: Mode = Mode.SHADOW
    """The most that any stage of this model may do."""
    canary: float = Field(1.0, ge=0, le=1)
    """The share of callers (by a keyed hash) for whom enforcement is real; the others are in shadow."""
    false_positive_rate: float = Field(0.01, gt=0, lt=1)
    """The share of clean inputs that the detectors together may flag."""
    escalate_below: float | None = Field(None, gt=0, le=1)
    """Ask view detectors (extra upstream rows) only about inputs to which the detectors that look at the input alone
    give together a p-value of at most this; default: about every input."""
    escalate_sample: float = Field(0.0, ge=0, le=1)
    """With `escalate_below`: the share of all other inputs (by a keyed hash) that they are asked about, too."""
    extra_rows: Literal["ride", "beside"] = "ride"
    """How rows that detectors ask the model about travel, where the answer waits for them: behind the caller's own in
    one call, if the profile says that the model batches and they fit (a batched row's answer can differ in its last
    bits, as with any dynamic batcher), or always in calls beside the caller's, whose answer then stays bit-equal."""
    false_alarms_per_caller_month: float = Field(0.001, gt=0, lt=1)
    """The share of benign callers that the monitors together may call hostile within 30 days."""
    false_alarms_per_month: float = Field(0.01, gt=0, lt=1)
    """How many clusters of benign queries, of all callers together, may be called an attack within 30 days."""
    validation: Validation = Validation()
    images: Images = Images()
    detectors: tuple[Detector, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    purifiers: tuple[Acting, ...] = ()
    """Applied in this order."""
    outputs: tuple[Output, ...] = ()
    """Applied in this order."""
    policy: Policy = Policy()
    budget: Budget = Budget()
    challenge: Challenge = Challenge()

    @property
    def of_input(self) -> frozenset[Action]:
        """What is done about an input that a detector flagged: without a word of the policy, the mildest that helps."""
        if self.policy.on_input is not None:
            return several(self.policy.on_input)
        if any(one.mode is Mode.ENFORCE and one.when is When.SUSPICIOUS for one in self.purifiers):
            return frozenset({Action.PURIFY})
        return frozenset({Action.DEGRADE if self._can_degrade(Level.HOSTILE) else Action.DENY})

    def of(self, level: Level) -> frozenset[Action]:
        """What is done about queries of a caller on this level."""
        if level is Level.SUSPECT and self.policy.on_suspect is None:
            return frozenset({Action.DEGRADE if self._can_degrade(level) else Action.ALLOW})
        policy = self.policy
        return several((policy.on_clear, policy.on_watch, policy.on_suspect, policy.on_hostile)[level] or Action.ALLOW)

    @property
    def of_everybody(self) -> frozenset[Action]:
        """What is done about each query."""
        return self.of(Level.CLEAR)

    @property
    def challenges(self) -> bool:
        """Whether it ever asks for proof of work."""
        return any(Action.CHALLENGE in do for do in (self.of_input, *map(self.of, Level)))

    @property
    def remembers(self) -> bool:
        """Whether anything is kept of callers between calls: evidence, what they have used up, proofs."""
        asked = (self.of_input, *map(self.of, Level))
        watched = any(monitor.mode is not Mode.OFF for monitor in self.monitors)
        rationed = not self.budget.unlimited or any(Action.THROTTLE in do for do in asked)
        return watched or rationed or self.challenges

    def _can_degrade(self, level: Level) -> bool:
        """Whether an output protection acts on suspicious answers to a caller on this level, and only on these."""
        return any(
            output.mode is Mode.ENFORCE and output.when is When.SUSPICIOUS and output.degree <= level
            for output in self.outputs
        )

    def _degraded_by_nothing(self) -> str | None:
        """The key of a policy that degrades, where no output protection acts to that degree."""
        if not self.outputs or any(output.when is When.ALWAYS for output in self.outputs):
            return None
        least = min(output.degree for output in self.outputs)
        of_levels = {"on_watch": Level.WATCH, "on_suspect": Level.SUSPECT, "on_hostile": Level.HOSTILE}
        degrees = {key: (self.of(level), int(level)) for key, level in of_levels.items() if self.monitors}
        if self.detectors:
            degrees["on_input"] = (self.of_input, int(Level.HOSTILE))
        return next((key for key, (do, degree) in degrees.items() if Action.DEGRADE in do and degree < least), None)

    @model_validator(mode="after")
    def _coherent(self) -> "Model":
        if self.upstream is not None and self.embedded is not None:
            raise ValueError("upstream and embedded exclude each other")
        if (self.detectors or self.monitors or self.purifiers or self.outputs) and self.profile is None:
            raise ValueError("stages need a profile: run `guard fit` and set `profile`")
        if self.escalate_sample and self.escalate_below is None:
            raise ValueError("escalate_sample goes with escalate_below")
        for kind in ("detectors", "monitors", "purifiers", "outputs"):
            stages = [stage.stage for stage in getattr(self, kind)]
            if len(set(stages)) != len(stages):
                raise ValueError(f"{kind}: a stage is listed twice")
        return self

    @model_validator(mode="after")
    def _able(self) -> "Model":
        """The policy asks for nothing that nobody does."""
        asked = set[Action]()
        if self.detectors:
            asked |= self.of_input
        if self.monitors:
            asked = asked.union(*map(self.of, Level))
        if Action.PURIFY in asked and not self.purifiers:
            raise ValueError("policy says purify, but there is no purifier")
        if Action.DEGRADE in asked and not self.outputs:
            raise ValueError("policy says degrade, but there is no output protection")
        idle = self._degraded_by_nothing()
        if idle is not None:
            raise ValueError(f"policy.{idle} says degrade, but every output protection has a higher degree")
        if Action.CHALLENGE in self.of_everybody and self.profile is None:
            raise ValueError("policy.on_clear says challenge, which needs a profile")
        if self.budget.bits_per_day is not None and self.profile is None:
            raise ValueError("budget.bits_per_day needs a profile, which says what answers mean")
        return self


def build_stage(kind: Kind, name: str, options: Mapping[str, Any], path: str = "") -> Any:
    """The stage with these options; raises ConfigError with the option's path."""
    if name not in registry.names(kind):
        registry.load()
    try:
        cls = registry.lookup(kind, name)
    except registry.UnknownStage as error:
        raise ConfigError(f"{path}.stage" if path else "stage", str(error)) from None
    where = f"{path}.options" if path else "options"
    known = cls.__dataclass_fields__
    for key in options:
        if key not in known:
            raise ConfigError(f"{where}.{key}", f"unknown option; {name} has: {', '.join(known) or 'none'}")
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(options))
    except pydantic.ValidationError as error:
        raise first_error(error, where) from None


STAGE_LISTS: tuple[tuple[str, Kind], ...] = (
    ("detectors", "detector"),
    ("monitors", "monitor"),
    ("purifiers", "purifier"),
    ("outputs", "output"),
)
