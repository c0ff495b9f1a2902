"""What is done about inputs and callers: the response ladder, budgets, proof of work."""

from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from guard.settings.base import Section
from guard.types import Action, Mode


class Exemption(Section):
    """A caller for whom nothing is enforced until a day. What would be done is recorded; that he is exempt, too."""

    caller: str = Field(min_length=1, max_length=256)
    """As events name him."""
    until: AwareDatetime
    """With a time zone: `2027-01-31T00:00:00Z`."""
    reason: str = Field(min_length=1, max_length=500)
    approved_by: tuple[str, ...] = Field(min_length=1, max_length=8)
    """Who answers for it; two, where your rules want two."""


Response = Action | tuple[Action, ...]
"""One action, or several that are done together."""


class Policy(Section):
    """What is done where something fired in a stage that enforces: one action, or a list of them."""

    on_input: Response | None = None
    """A detector fired on this input. Unset: `purify` where a purifier waits for that, else `degrade` where an
    output protection does, else `deny`: a refusal tells an attacker which input it was, and the others hardly do."""
    on_clear: Literal[Action.ALLOW, Action.CHALLENGE] = Action.ALLOW
    """What is asked of everybody, whatever is known of him, beside what the keys below say. Extraction with the model's
    own kind of inputs cannot be told from use by looks; what answers cost can grow with how many were had."""
    on_watch: Response = Action.ALLOW
    """The caller's evidence is a third of the way (in logarithms) to an alarm."""
    on_suspect: Response | None = None
    """It is two thirds of the way. Unset: `degrade` where an output protection of degree 1 or 2 can, else `allow`."""
    on_hostile: Response = Action.DENY
    """It has come all the way; or this query joins a cluster of queries whose evidence has."""
    calm_s: float = Field(3600.0, gt=0, le=30 * 86_400)
    """How long after the last query that spoke against him a hostile caller stays so; then his evidence begins anew."""
    lag_rows: int = Field(8, ge=1, le=1000)
    """What is done about a caller follows his level at rows drawn at random, so many apart in the mean; and a row that
    joins an alarming cluster is held against its caller for up to twice as many rows. 1: at once, which lets callers
    read off which query it was."""
    delay_s: float = Field(1.0, gt=0, le=60)
    """`delay` holds an answer back for half of this up to all of it, and never for more than half of what is left until
    its deadline."""
    throttle_rows_per_s: float = Field(0.2, gt=0)
    """`throttle` answers a caller so many rows in the long run; past it, calls are RESOURCE_EXHAUSTED."""
    throttle_burst_rows: float = Field(5.0, ge=1)
    """So many rows at once, after a rest. A query with more is never answered."""
    exempt: tuple[Exemption, ...] = Field((), max_length=100)
    """Callers for whom nothing is enforced, for a time."""

    def exempts(self, caller: str, now: float) -> bool:
        """Whether he is exempt now, in seconds since 1970."""
        return any(one.caller == caller and now < one.until.timestamp() for one in self.exempt)


def several(response: Response) -> frozenset[Action]:
    """The actions of it."""
    return frozenset((response,) if isinstance(response, Action) else response)


class Budget(Section):
    """What each caller may have of a model; past it, calls are RESOURCE_EXHAUSTED, and say when to come back.

    Budgets fill up again evenly; a caller who rests for long has them whole. Unset: no limit.
    """

    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode. `shadow` counts what would be refused."""
    rows_per_s: float | None = Field(None, gt=0)
    """In the long run."""
    burst_rows: float = Field(100.0, ge=1)
    """With `rows_per_s`: so many at once. A query with more is never answered."""
    rows_per_day: float | None = Field(None, ge=1)
    bits_per_day: float | None = Field(None, gt=0)
    """Of information in answers as they left: log2(classes) a row, and the entropy of its probabilities."""

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.mode is Mode.OFF or (self.rows_per_s is self.rows_per_day is self.bits_per_day is None)


class Challenge(Section):
    """The puzzles of `challenge`: work that a caller's computer does before he is answered, in SHA-256 hashes.

    A row costs `hashes_per_row * growth ** progress`. Progress goes from 0 to 1: on the way from `grows_from` to 1, of
    what the monitor `extraction_budget` estimates, where it enforces; else, and where that is more, by the caller's
    level: 0, 1/3 on watch, 2/3 suspect, 1 hostile.
    """

    hashes_per_row: float = Field(4000.0, ge=16, le=2**32)
    """Expected work for one row at no progress: 4,000 are about 2 ms of one core in the Python client."""
    growth: float = Field(1000.0, ge=1, le=1e6)
    """At the end a row costs so many times as much as at the beginning."""
    grows_from: float = Field(0.5, ge=0, lt=1)
    """Up to this estimate a row costs what it costs at first: what callers come to who only use the model."""
    max_hashes_per_row: float = Field(4_000_000.0, ge=16, le=2**40)
    """Never more than this."""
    ttl_s: float = Field(120.0, ge=1, le=3600)
    """How long a puzzle is good. Its solution is good once."""
    stream_rows: int = Field(32, ge=1, le=65_536)
    """For how many rows the puzzle is that a stream is ended with: metadata travel once a stream."""

    @model_validator(mode="after")
    def _ordered(self) -> "Challenge":
        if self.max_hashes_per_row < self.hashes_per_row:
            raise ValueError("max_hashes_per_row must be at least hashes_per_row")
        return self

    def hashes(self, progress: float) -> float:
        """Expected work for one row of a caller who has come so far."""
        return float(min(self.max_hashes_per_row, self.hashes_per_row * self.growth ** max(0.0, min(1.0, progress))))
