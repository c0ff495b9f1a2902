"""The words that stages, engine and proxy share: frozen, numpy and the standard library only.

Shapes. A stage sees inputs in *unit form*: images as (N, H, W, C) float32 in [0, 1], anything else as (N, D) float32.
The engine converts between unit form and the model's own layout, dtype and bounds (see `guard.profile.Space`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

Kind = Literal["detector", "purifier", "monitor", "output"]
KINDS: tuple[Kind, ...] = ("detector", "purifier", "monitor", "output")


class Mode(StrEnum):
    """What a stage's finding may do: act, be recorded, or nothing at all."""

    OFF = "off"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class OnError(StrEnum):
    """What a stage that failed means for the query: fail open or fail closed."""

    ALLOW = "allow"
    DENY = "deny"


class When(StrEnum):
    """Whether a purifier or an output protection acts on every query or on suspicious ones only."""

    ALWAYS = "always"
    SUSPICIOUS = "suspicious"


class Action(StrEnum):
    """What is done with a query, from least to most severe."""

    ALLOW = "allow"
    PURIFY = "purify"
    DEGRADE = "degrade"
    DENY = "deny"

    @property
    def severity(self) -> int:
        """0 for allow up to 3 for deny."""
        return list(Action).index(self)


class InvalidQuery(ValueError):
    """Bad input from a client. The text is safe to send back: it says nothing the client does not know."""


@dataclass(frozen=True, slots=True)
class Query:
    """One inference call as the engine sees it.

    x:       the inspected input, in the model's own layout, dtype and bounds, first axis = rows.
    caller:  opaque, stable identity of the caller.
    model:   the served model's name.
    unit:    x in unit form, float32; `Engine.admit` fills it in.
    invalid: values break the profile's rules, where validation is in shadow; `Engine.admit` fills it in.
    """

    x: Array
    caller: str
    model: str
    decision_id: str
    unit: Floats | None = None
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a monitor keeps of one row instead of the row.

    digest:  identifies the exact row (keyed, so that it means nothing elsewhere).
    hashes:  (S,) uint64, similar rows share many.
    """

    digest: bytes
    hashes: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Match:
    """What the store knows about one sketched row.

    overlap:    the largest number of hashes shared with one earlier row of any caller.
    duplicate:  the same row was seen before: a retry, not evidence.
    """

    overlap: int = 0
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """The store's answer for one monitor: one match a row, and the caller's evidence before this query."""

    matches: tuple[Match, ...]
    log_sum: float = -np.inf
    count: int = 0


Sketches = Mapping[str, tuple[Sketch, ...]]  # by stage name
Histories = Mapping[str, History]  # by stage name


@dataclass(frozen=True, slots=True)
class Finding:
    """What one stage found.

    scores, p_values:  one value a row; p-values are conformal (monitors: 1 / evidence of the caller, one value). A row
                       that a view detector was not asked about has p-value 1 and no score (NaN).
    threshold:         a row fires at p <= threshold.
    error:             why there is no score; never shown to a client.
    """

    stage: str
    kind: Kind
    mode: Mode
    scores: tuple[float, ...] = ()
    p_values: tuple[float, ...] = ()
    threshold: float = 0.0
    error: str | None = None

    @property
    def fired(self) -> bool:
        """Whether any row fired."""
        return any(p <= self.threshold for p in self.p_values)

    @property
    def p_value(self) -> float:
        """The smallest p-value, 1.0 where there is none."""
        return min(self.p_values, default=1.0)


def _none() -> Bools:
    return np.zeros(0, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do before the model has answered.

    action:    what is done so far (DENY: nothing is forwarded).
    would_be:  what it would be if every shadow stage enforced, for everyone.
    enforced:  whether enforcement is real for this caller: the model enforces, and the canary has him.
    x:         what to send instead of the query's input; None: the original bytes.
    standby:   a purified input to send alongside, whose answer is used if a view detector fires; None: none.
    views:     further inputs on which view detectors, then voting purifiers, want the model's answers, in stage order;
               each of the rows of `view_rows` alone.
    view_rows: (N,) the rows that `views` are of.
    looked:    (N,) the rows that view detectors judge.
    view_counts: by stage (`detector/NAME`, `purifier/NAME`), how many of `views` are its own.
    voted:     (N,) rows whose answer is the vote of the voting purifiers' copies.
    waits:     whether the answer must be held until the conclusion; else it may leave at once.
    suspicious: (N,) rows that an enforcing stage has flagged.
    evidence:  by monitor, the e-values (log) to credit to the caller, one a fresh row.
    """

    query: Query
    action: Action
    would_be: Action
    enforced: bool
    findings: tuple[Finding, ...] = ()
    x: Array | None = None
    standby: Array | None = None
    views: tuple[Array, ...] = ()
    view_rows: Bools = field(default_factory=_none)
    looked: Bools = field(default_factory=_none)
    view_counts: Mapping[str, int] = field(default_factory=dict)
    voted: Bools = field(default_factory=_none)
    waits: bool = False
    suspicious: Bools = field(default_factory=_none)
    evidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the served model said, in its own dtype and meaning (logits or probabilities).

    y:       (N, C) the answer to the forwarded input; None where it is missing or of another form.
    views:   the answers to `Decision.views`, in order, of the rows of `Decision.view_rows`; None where a call failed.
    standby: the answer to `Decision.standby`.
    """

    y: Array | None
    views: tuple[Array | None, ...] = ()
    standby: Array | None = None


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What to do after the model has answered.

    use_standby:  answer with the standby's response instead of the original's.
    y:            (N, C) to put in place of the classification output; None: the answer's bytes stay untouched.
    """

    decision: Decision
    action: Action
    would_be: Action
    findings: tuple[Finding, ...]
    use_standby: bool = False
    y: Array | None = None


class Store(Protocol):
    """The one thing that remembers. Bounded; what it evicts is counted. `now` is in seconds, any monotonic origin."""

    async def exchange(
        self, scope: str, caller: str, sketches: Sketches, now: float, *, remember: bool = True
    ) -> Histories:
        """Look the sketches up, then (unless told not to) keep them. One round trip."""
        ...

    async def credit(self, scope: str, caller: str, evidence: Mapping[str, tuple[float, ...]], now: float) -> None:
        """Add log e-values to the caller's evidence, by monitor."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...


@runtime_checkable
class Detector(Protocol):
    """Scores an input alone."""

    def score(self, x: Array) -> Array:
        """(N, ...) unit form -> (N,), higher = more suspicious."""
        ...


@runtime_checkable
class AnswerDetector(Protocol):
    """Holds an input against the model's answer to it; no further inputs."""

    def score_answer(self, x: Array, probs: Array) -> Array:
        """(N, ...) unit form, (N, C) rows that sum to 1 -> (N,), higher = more suspicious."""
        ...


@runtime_checkable
class ViewDetector(Protocol):
    """Compares the model's answers on several views of an input."""

    def views(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> further inputs of the same shape, unit form."""
        ...

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        """(N, C) answers on x and on each view, rows sum to 1 -> (N,), higher = more suspicious."""
        ...


@runtime_checkable
class VotingPurifier(Protocol):
    """Answers with what the model makes of several copies of an input."""

    def copies(self, x: Array) -> tuple[Array, ...]:
        """(N, ...) unit form -> further inputs of the same shape, unit form."""
        ...

    def vote(self, copy_probs: tuple[Array, ...]) -> Array:
        """(N, C) answers on each copy, rows sum to 1 -> (N, C) rows that sum to 1."""
        ...


class Purifier(Protocol):
    """Takes a perturbation away."""

    def purify(self, x: Array) -> Array:
        """(N, ...) unit form -> the same shape, dtype and bounds."""
        ...


class Network(Protocol):
    """A network of the profile. Rows are independent of each other and of how they are batched."""

    def __call__(self, x: Array) -> Mapping[str, Array]:
        """(N, ...) unit form -> outputs by name, (N, ...) float32."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Equipment:
    """What a stage works with beyond its options.

    networks: of the profile, those that the stage needs.
    arrays:   what its `learn` returned at `guard fit`.
    secret:   32 bytes that key what is random; the stage's own.
    """

    networks: Mapping[str, Network] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    secret: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What `guard fit` lets a stage, or a network, learn from: clean rows that calibrate nothing.

    x:       (N, ...) unit form.
    probs:   (N, C) the served model's answers, rows sum to 1; None where it answers with labels only.
    classes: how many there are.
    seed:    of everything that is random.
    """

    x: Array
    probs: Array | None
    classes: int
    networks: Mapping[str, Network] = field(default_factory=dict)
    seed: int = 0


@runtime_checkable
class Fitted(Protocol):
    """A stage that works with networks, with arrays that it learned, or with a secret.

    It may also have `needs`, the names of its networks, and `learn(material) -> arrays`.
    """

    def equip(self, equipment: Equipment) -> Any:
        """The working stage. Raises ValueError, in words, for what it cannot serve."""
        ...


class Monitor(Protocol):
    """Judges a query by what came before it. Pure on both sides of the store."""

    def sketch(self, x: Array, secret: bytes) -> tuple[Sketch, ...]:
        """(N, ...) unit form -> one sketch a row."""
        ...

    def judge(self, sketches: tuple[Sketch, ...], history: History) -> Array:
        """-> (N,), higher = more suspicious; compared with the same score on benign traffic."""
        ...


class Output(Protocol):
    """Changes what an answer gives away."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C) rows summing to 1, (N,) rows to protect -> (N, C) rows summing to 1, argmax kept."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a served model: OIP datatype name, shape with -1 for a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a served model says of itself."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Batching:
    """How a served model takes rows.

    max_rows:  of one call; None: no limit is known; 0 and 1: it does not batch, a call has the rows of one query.
    stateful:  calls belong to sequences, each moves a state.
    decoupled: one call may get any number of answers.
    """

    max_rows: int | None = None
    stateful: bool = False
    decoupled: bool = False

    @property
    def takes_more(self) -> bool:
        """Whether rows may be added to a caller's own."""
        return (self.max_rows is None or self.max_rows > 1) and not self.stateful and not self.decoupled
