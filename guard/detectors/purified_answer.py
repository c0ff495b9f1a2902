"""Purify and compare: how far the model's answer moves when a purifier has been over the input.

Source:  feature squeezing's idea (Xu, Evans, Qi 2018, arXiv:1704.01155) with any purifier; with a learned denoiser
         after Liao et al. 2018, arXiv:1712.02976.
Answers: perturbations that the purifier takes away. Known bypass: an attack through the purifier (BPDA, Athalye,
         Carlini, Wagner 2018, arXiv:1802.00420) that keeps both answers.
Args:    probs, view_probs[0]: (N, C), rows sum to 1; the view is taken of (N, ...) unit form, where the purifier can.
Returns: (N,) L1 gap in [0, 2], or Jensen-Shannon divergence in [0, ln 2]; higher = more suspicious.
Cost:    the purifier's, and one extra upstream row an input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from guard import registry
from guard.detectors._answers import jensen_shannon, l1, log_of
from guard.registry import register
from guard.types import Array, Equipment, Material, Purifier


@register("detector", "purified_answer")
@dataclass(frozen=True)
class PurifiedAnswer:
    """purifier: its name; options: its own; divergence: of the two answers."""

    opt_in: ClassVar[bool] = True  # not fitted unless somebody asks for it: which purifier is a choice
    purifier: str = "median"
    options: dict[str, Any] = field(default_factory=dict)
    divergence: Literal["l1", "js"] = "l1"

    def __post_init__(self) -> None:
        _build(self.purifier, self.options)

    @property
    def needs(self) -> tuple[str, ...]:
        """The purifier's networks."""
        return tuple(getattr(_build(self.purifier, self.options), "needs", ()))

    @property
    def needs_images(self) -> bool:
        """Whether the purifier does."""
        return bool(getattr(_build(self.purifier, self.options), "needs_images", False))

    @property
    def learn(self) -> Callable[[Material], Mapping[str, Array]] | None:
        """The purifier's; None where it learns nothing."""
        learn: Callable[[Material], Mapping[str, Array]] | None
        learn = getattr(_build(self.purifier, self.options), "learn", None)
        return learn

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work, with the purifier at work."""
        stage = _build(self.purifier, self.options)
        working = stage.equip(equipment) if hasattr(stage, "equip") else stage
        _refuse_votes(self.purifier, working)
        return _Working(working, self.divergence)


@dataclass(frozen=True, eq=False)
class _Working:
    purifier: Purifier
    divergence: str

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> purified. Raises ValueError where the purifier does."""
        return (self.purifier.purify(x),)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        """(N, C) on x and on the purified x -> (N,)."""
        if self.divergence == "js":
            return jensen_shannon(log_of(probs), log_of(view_probs[0]))
        return l1(probs, view_probs[0])


def _build(name: str, options: Mapping[str, Any]) -> Any:
    """The purifier with these options. Raises ValueError, with words."""
    if name not in registry.names("purifier"):
        registry.load()
    try:
        cls = registry.lookup("purifier", name)
    except registry.UnknownStage as error:
        raise ValueError(str(error)) from None
    _refuse_votes(name, cls)
    known = [option.name for option in fields(cls)]
    for key in options:
        if key not in known:
            raise ValueError(f"options.{key}: {name} has: {', '.join(known) or 'no options'}")
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _refuse_votes(name: str, purifier: Any) -> None:
    if hasattr(purifier, "copies"):
        raise ValueError(f"{name} votes over several copies of an input: there is no one purified input to compare")
