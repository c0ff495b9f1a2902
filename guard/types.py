"""The words that stages, engine and proxy share: frozen, numpy and the standard library only.

Shapes. A stage sees inputs in *unit form*: images as (N, H, W, C) float32 in [0, 1], anything else as (N, D) float32.
The engine converts between unit form and the model's own layout, dtype and bounds (see `guard.profile.Space`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from guard.evidence import Evidence

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
    DELAY = "delay"
    THROTTLE = "throttle"
    CHALLENGE = "challenge"
    DENY = "deny"

    @property
    def severity(self) -> int:
        """0 for allow up to 6 for deny."""
        return _SEVERITIES[self]


_SEVERITIES = {action: place for place, action in enumerate(Action)}


def severest(actions: Iterable[Action]) -> Action:
    """The most severe of them; allow where there are none."""
    return max(actions, key=_SEVERITIES.__getitem__, default=Action.ALLOW)


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
    now:     seconds since 1970.
    """

    x: Array
    caller: str
    model: str
    decision_id: str
    unit: Floats | None = None
    invalid: bool = False
    now: float = 0.0


class Level(IntEnum):
    """How alarming a caller is; what it means for his queries is the policy's to say."""

    CLEAR = 0
    WATCH = 1
    SUSPECT = 2
    HOSTILE = 3


def _nothing(dtype: np.dtype[Any], shape: tuple[int, ...] = (0,)) -> NDArray[Any]:
    """No values, for everybody."""
    array = np.zeros(shape, dtype)
    array.flags.writeable = False
    return array


_NO_FLOATS = _nothing(np.dtype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What is kept of one row instead of the row, and what it is looked up by.

    digest:    identifies the exact row (keyed, so that it means nothing elsewhere).
    hashes:    (S,) uint64, similar rows share many.
    position:  (D,) float32, a keyed random projection: distances between rows are nearly those between positions.
    motions:   (K, D) float32, how the position moves as the row is shifted, zoomed, brightened; never kept.
    embedding: (E,) float32 of length 1, by the profile's auxiliary network; empty without one.
    grain:     how far, squared, rounding to 8 bits alone moves a position; 0 where the row's values are not rounded.
    """

    digest: bytes
    hashes: NDArray[np.uint64]
    position: Floats = field(default_factory=lambda: _NO_FLOATS)
    motions: Floats = field(default_factory=lambda: _NO_FLOATS)
    embedding: Floats = field(default_factory=lambda: _NO_FLOATS)
    grain: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """An earlier row, of any caller, that shares hashes with the one in question.

    number:    the store's own, of the row.
    overlap:   how many hashes they share.
    component: the number of the first row of the cluster that it belongs to; its own, where it is the first.
    label:     what the model answered; -1 where that is not known (yet).
    owner:     8 bytes that stand for the caller who sent it.
    """

    number: int
    overlap: int
    position: Floats
    component: int
    label: int
    owner: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """What the store knows about one sketched row.

    overlap:    the largest number of hashes shared with one earlier row of any caller.
    duplicate:  the same row was seen before: a retry, not evidence.
    number:     the store's own, of this row.
    neighbours: those that share most, at most 8, most first; none for a duplicate.
    """

    overlap: int = 0
    duplicate: bool = False
    number: int = -1
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """A cluster of similar rows: each joined its nearest earlier one.

    rows:   how many. owners: of how many callers, counted up to 64.
    """

    evidence: Evidence = field(default_factory=Evidence)
    rows: int = 1
    owners: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """The latest rows of one caller that were answered, oldest first, exact repeats left out.

    positions:  (M, D) float32. embeddings: (M, E) float32.
    labels:     (M,) int64, the model's answers; confidences: (M,) float64, its largest probability, NaN where unknown.
    heard:      (M,) whether what was answered was judged, or motion explains the row from one of which it was.
    """

    positions: Floats
    embeddings: Floats
    labels: NDArray[np.int64]
    confidences: NDArray[np.float64]
    heard: Bools

    def __len__(self) -> int:
        return len(self.labels)

    def last(self, rows: int) -> "Recent":
        """The latest so many."""
        return self.part(slice(max(0, len(self) - rows), None))

    def part(self, chosen: "slice | NDArray[Any]") -> "Recent":
        """Some of them."""
        return Recent(
            self.positions[chosen],
            self.embeddings[chosen],
            self.labels[chosen],
            self.confidences[chosen],
            self.heard[chosen],
        )


_EMPTY: Mapping[Any, Any] = MappingProxyType({})
_NO_ROWS, _NO_DEGREES = _nothing(np.dtype(np.bool_)), _nothing(np.dtype(np.int64))
_NO_RECENT = Recent(
    *(_nothing(np.dtype(np.float32), (0, 0)),) * 2, _NO_DEGREES, _nothing(np.dtype(np.float64)), _NO_ROWS
)


@dataclass(frozen=True, slots=True)
class Alert:
    """A caller's level, and until when (in the store's seconds) it holds at least.

    acting: the level that the policy acts upon: it follows the other at rows drawn at random.
    held:   so many further rows are treated as a hostile caller's, since one joined an alarming cluster.
    """

    level: Level = Level.CLEAR
    until: float = 0.0
    acting: Level = Level.CLEAR
    held: int = 0

    @property
    def outcast(self) -> bool:
        """Whether stores remember none of his rows.

        An exact repeat of a remembered row is no evidence: who has nothing more to lose would ask ahead for another.
        """
        return Level.HOSTILE in {self.level, self.acting} or self.held > 0


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What is known of one caller, or of one cohort of callers, before this query.

    evidence: by monitor. since: when it began.
    rows:     fresh rows that were answered since he was first seen.
    judged:   by window monitor, how many of `rows` its windows have covered.
    recent:   of a caller only; empty for a cohort.
    """

    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    alert: Alert = Alert()
    since: float = 0.0
    rows: int = 0
    judged: Mapping[str, int] = field(default_factory=dict)
    recent: Recent = _NO_RECENT


NO_PAST = Past(_EMPTY, judged=_EMPTY)
"""Of whom nothing is known."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The store's answer to one query.

    matches:    one a row.
    components: of all neighbours, by number.
    cohorts:    by name, the caller's groups and `global`.
    entries:    how many rows the store holds of this model. joined: how many of them have joined another's cluster.
    """

    matches: tuple[Match, ...] = ()
    components: Mapping[int, Component] = field(default_factory=dict)
    caller: Past = NO_PAST
    cohorts: Mapping[str, Past] = field(default_factory=dict)
    entries: int = 0
    joined: int = 0


Sketches = tuple[Sketch, ...]  # one a row


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """How a row lies to the nearest of its neighbours.

    distance:    between them, relative to the row's own length; 0 where positions are equal though the rows are not.
    unexplained: the share of the difference, squared, that no small shift, zoom or change of brightness explains.
    """

    neighbour: Neighbour
    distance: float
    unexplained: float


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One row beside what came before it.

    link:    None for a duplicate, and where nothing is near.
    follows: it is the next frame after one of the caller's own latest rows, though its link does not say so.
    beside:  it is nearly one of these, whatever moved it.
    heard:   see `Recent`.
    """

    sketch: Sketch
    match: Match
    link: Link | None = None
    follows: bool = False
    beside: bool = False
    heard: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A fresh row that was answered, as the caller's recent rows keep it."""

    number: int
    position: Floats
    embedding: Floats
    label: int
    confidence: float
    heard: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What the store is told once a query is decided, and again once it is answered.

    evidence:   by monitor, p-values to credit to the caller and his cohorts.
    judged:     by window monitor, up to which of the caller's rows, and the p-value to credit; nothing is credited
                where the store knows of a later judgement (two replicas looked at the same window).
    components: by number, p-values to credit, one a row that joins: the number of rows grows by that.
    joins:      by the number of a row, that of the component it joins.
    answered:   the fresh rows that were answered.
    alert:      the caller's new one, but for what is acted upon; None: as it was.
    acting, held: of the caller's alert; None: as it was, whatever other queries have written meanwhile.
    restart:    the caller's evidence begins anew, before `evidence` is added.
    """

    evidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    judged: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    components: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    joins: Mapping[int, int] = field(default_factory=dict)
    answered: tuple[Kept, ...] = ()
    alert: Alert | None = None
    acting: Level | None = None
    held: int | None = None
    restart: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        said = (
            self.judged,
            self.components,
            self.joins,
            self.answered,
            self.alert,
            self.restart,
            *self.evidence.values(),
        )
        return self.acting is None and self.held is None and not any(said)

    def applied(self, alert: Alert) -> Alert:
        """The caller's alert once it is told."""
        new = alert if self.alert is None else self.alert
        acting = alert.acting if self.acting is None else self.acting
        return Alert(new.level, new.until, acting, alert.held if self.held is None else self.held)


NO_UPDATE = Update(_EMPTY, _EMPTY, _EMPTY, _EMPTY)
"""Nothing to tell."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a caller may spend: `burst` at once, `rate_per_s` in the long run. Raises ValueError where that is nothing.

    name: what it counts; one number a caller and scope.
    cost: of this query; 0: only look whether anything is left. Above the burst it is never to be had.
    """

    name: str
    rate_per_s: float
    burst: float
    cost: float = 1.0

    def __post_init__(self) -> None:
        """NaN and infinity would stay in a store for good."""
        if not (0.0 < self.rate_per_s < math.inf and 0.0 < self.burst < math.inf and 0.0 <= self.cost < math.inf):
            raise ValueError("a bucket's rate and burst must be above 0, its cost at least 0, all of them finite")


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
        for p in self.p_values:  # noqa: SIM110 - it is asked again and again, and `any` makes a generator each time
            if p <= self.threshold:
                return True
        return False

    @property
    def p_value(self) -> float:
        """The smallest p-value, 1.0 where there is none."""
        return min(self.p_values, default=1.0)


def speaking(findings: Iterable[Finding]) -> list[Finding]:
    """Those that fired or failed: of no others anything follows."""
    return [finding for finding in findings if finding.error is not None or finding.fired]


@dataclass(frozen=True, slots=True)
class Flagged:
    """One row: its place in the query, the digest of its content (`guard.content`), and what fired on it."""

    row: int
    sha256: str
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do before the model has answered.

    action:    what is done so far (DENY: nothing is forwarded): the severest of `responses`.
    responses: all that is done; more than one where the policy lists several, or several things were found.
    settled:   responses that turned out not to be needed (`without`).
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
    degrees:   (N,) how much each of them is degraded, where that is done: 1 to 3 by the caller's level, 3 where the row
               itself was flagged; 0 elsewhere.
    seen:      (N,) each row beside what came before; empty where no monitor looks.
    past:      what is known of the caller.
    components: the clusters of the rows' neighbours, by number, as they were before.
    update:    what to tell the store now.
    level:     the caller's, this query counted.
    progress:  how far he has come on the way to a copy, this query counted, 0 to 1: what a challenge's work follows.
    """

    query: Query
    action: Action
    would_be: Action
    enforced: bool
    findings: tuple[Finding, ...] = ()
    x: Array | None = None
    standby: Array | None = None
    views: tuple[Array, ...] = ()
    view_rows: Bools = field(default_factory=lambda: _NO_ROWS)
    looked: Bools = field(default_factory=lambda: _NO_ROWS)
    view_counts: Mapping[str, int] = field(default_factory=dict)
    voted: Bools = field(default_factory=lambda: _NO_ROWS)
    waits: bool = False
    suspicious: Bools = field(default_factory=lambda: _NO_ROWS)
    degrees: NDArray[np.int64] = field(default_factory=lambda: _NO_DEGREES)
    responses: frozenset[Action] = frozenset()
    settled: frozenset[Action] = frozenset()
    seen: tuple[Seen, ...] = ()
    past: Past = NO_PAST
    components: Mapping[int, Component] = field(default_factory=dict)
    update: Update = NO_UPDATE
    level: Level = Level.CLEAR
    progress: float = 0.0


def without(decision: Decision, response: Action) -> Decision:
    """The decision once it is settled that one of its responses need not be."""
    rest = decision.responses - {response}
    return replace(decision, responses=rest, action=severest(rest), settled=decision.settled | {response})


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
    update:       what to tell the store, now that the answer is known.
    bits:         of information in the answer as it leaves: log2 of the number of classes a row, and its entropy.
    """

    decision: Decision
    action: Action
    would_be: Action
    findings: tuple[Finding, ...]
    use_standby: bool = False
    y: Array | None = None
    update: Update = NO_UPDATE
    bits: float = 0.0


class Store(Protocol):
    """The one thing that remembers. Bounded; what it evicts is counted. `now` is in seconds since 1970.

    scope: keeps models apart. cohorts: names of the caller's groups, `global` among them.
    Raises OSError where it is away, within its own deadline.
    """

    local: bool
    """Whether it is in this process, so that nobody waits for it."""

    async def exchange(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, *,
        remember: bool = True,
    ) -> History:  # fmt: skip
        """Look the rows up, then (unless told not to) keep them. One round trip.

        Rows further up in the same query count as earlier ones (an attacker may batch). An exact repeat is a duplicate:
        it is not kept again, but its age starts anew.
        """
        ...

    async def credit(
        self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float
    ) -> None:  # fmt: skip
        """Write down what a decision, or an answer, adds."""
        ...

    async def callers(self, scope: str) -> list[tuple[str, Past]]:
        """Everybody who is known under the scope, with what is known of him."""
        ...

    async def past(self, scope: str, caller: str) -> Past | None:
        """What is known of him; None where nothing is."""
        ...

    async def forget(self, scope: str, caller: str) -> bool:
        """His evidence, his alert and his recent rows go; whether there was anything. Rows and clusters stay."""
        ...

    async def take(
        self, scope: str, caller: str, buckets: tuple[Bucket, ...], now: float, *, force: bool = False
    ) -> tuple[float, ...]:  # fmt: skip
        """For each bucket the seconds until its cost could be had: 0 everywhere, and all is taken; or nothing is.

        Infinite where the cost is above the burst. force: taken in any case (debt, at most one burst deep), for what is
        known only afterwards. No two of the buckets have one name. `forget` leaves them as they are: to forgive
        evidence is not to grant a budget anew. One that the store has evicted is full. One round trip.
        """
        ...

    async def once(self, scope: str, caller: str, token: bytes, until: float, now: float) -> bool:
        """Whether the token comes for the first time; it is remembered until then. One round trip.

        One that the store has evicted before is new again.
        """
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


class FileNetwork(Network, Protocol):
    """A network of any file, which says what it takes and gives; sizes without rows, -1 where they are free."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its input."""
        ...

    @property
    def outputs(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of each."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Equipment:
    """What a stage works with beyond its options.

    networks: of the profile, those that the stage needs.
    arrays:   what its `learn` returned at `guard fit`.
    secret:   32 bytes that key what is random; the stage's own.
    load:     gets the network of a file, shared with other stages (raises ValueError, with words); None: nothing does.
    """

    networks: Mapping[str, Network] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    secret: bytes = b""
    load: Callable[[Path], FileNetwork] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What `guard fit` lets a stage, or a network, learn from: clean rows that calibrate nothing.

    x:         (N, ...) unit form.
    probs:     (N, C) the served model's answers, rows sum to 1; None where it answers with labels only.
    classes:   how many there are.
    seed:      of everything that is random.
    tell:      what is being done, how much of it, of how much: for what takes long.
    positions: (N, ...) unit form -> positions (N, D) as sketches have them, one array for each of several secrets.
    """

    x: Array
    probs: Array | None
    classes: int
    networks: Mapping[str, Network] = field(default_factory=dict)
    seed: int = 0
    tell: Callable[[str, int, int], None] = lambda *_: None
    positions: Callable[[Array], Sequence[Floats]] = lambda _: ()


@runtime_checkable
class Fitted(Protocol):
    """A stage that works with networks, with arrays that it learned, or with a secret.

    It may also have `needs`, the names of its networks, and `learn(material) -> arrays`.
    """

    def equip(self, equipment: Equipment) -> Any:
        """The working stage. Raises ValueError, in words, for what it cannot serve."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """Judges each row by what came before it. Has no state: that is the store's."""

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        """-> (N,), higher = more suspicious; compared with the same score on benign traffic."""
        ...


@runtime_checkable
class AnswerMonitor(Protocol):
    """Judges each row by what came before it and by the model's answer."""

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        """probs: (N, C) rows that sum to 1 (of a model that answers with labels: 0 and 1) -> (N,)."""
        ...


@runtime_checkable
class WindowMonitor(Protocol):
    """Judges a caller's latest rows together, once `window` further ones were answered."""

    @property
    def window(self) -> int:
        """How many rows one judgement is about, at most 256; no row is in two."""
        ...

    def judge_window(self, recent: Recent) -> float:
        """`window` rows -> a score, higher = more suspicious; compared with windows of benign traffic."""
        ...


class Output(Protocol):
    """Changes what an answer gives away."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        """(N, C) rows summing to 1, (N,) rows to protect -> (N, C) rows summing to 1, argmax kept."""
        ...


@runtime_checkable
class KeyedOutput(Protocol):
    """Changes what an answer gives away by noise that is the same for the same input (`guard.keyed`)."""

    def protect_keyed(self, x: Array, probs: Array, suspicion: Bools) -> Array:
        """(N, ...) the inputs as they came, unit form; the rest as `Output.protect`."""
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
