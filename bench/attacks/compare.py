"""Two sides of one attack: success, queries, l2, how far apart they are, and whether that is within the bar."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from adversary import judge, report_compare
from adversary.attack import Array
from adversary.report import Median, Share
from adversary.runner import NEVER

POINTS = 3.0
QUERIES = 0.2
_SEED = 20
_TAILS = (0.025, 0.975)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Side(_Part):
    """What an attack came to."""

    success: Share
    """The last input, asked afresh at the served model, was answered wrongly within eps."""
    queries: Median
    """Until the first wrong answer within eps, of the victims where there was one; none of white-box attacks."""
    l2: Median
    """Of the successes."""
    cost: Median
    """Gradients, or queries, as spent."""


class Ratio(_Part):
    """Our median queries over theirs; the interval is a bootstrap over victims."""

    value: float
    interval_95: tuple[float, float]


class Compared(_Part):
    """One attack: ours and a library's."""

    attack: str
    title: str
    access: str
    norm: str
    eps: float
    budget: int
    library: str
    version: str
    name: str
    options: dict[str, Any]
    differs: str
    ours: Side
    theirs: Side
    points: float | None
    """Our success less theirs."""
    difference: str
    """The same in words, with Newcombe's interval."""
    ratio: Ratio | None
    rows: Median
    """What the library asked for, images it had asked for before included."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def success_within(self) -> bool:
        """Within 3 points."""
        return self.points is not None and abs(self.points) <= POINTS + 1e-9

    @computed_field  # type: ignore[prop-decorator]
    @property
    def queries_within(self) -> bool:
        """Within 20 %."""
        return self.ratio is not None and abs(self.ratio.value - 1.0) <= QUERIES + 1e-9

    @computed_field  # type: ignore[prop-decorator]
    @property
    def within(self) -> bool:
        """The bar."""
        return self.success_within or self.queries_within


class Document(_Part):
    """A comparison, and what made it."""

    campaign: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    data: str
    model_sha256: str
    command: str
    machine: str
    versions: dict[str, str]
    attacks: tuple[Compared, ...]


def side(success: Array, reached_at: Array, l2: Array, cost: Array, *, asks: bool) -> Side:
    """(N,) each, of the victims that were attacked."""
    reached = reached_at[reached_at != NEVER] if asks else reached_at[:0]
    return Side(
        success=judge.share(success),
        queries=judge.median(reached),
        l2=judge.median(l2[success]),
        cost=judge.median(cost),
    )


def points(ours: Share, theirs: Share) -> float | None:
    """Ours less theirs."""
    return None if ours.rate is None or theirs.rate is None else 100.0 * (ours.rate - theirs.rate)


def difference(ours: Share, theirs: Share) -> str:
    """The same with its interval."""
    return report_compare.difference(theirs, ours)


def ratio(ours: Array, theirs: Array) -> Ratio | None:
    """(N,) queries until success of the same victims, NEVER where there was none -> ours over theirs."""
    if not ((ours != NEVER).any() and (theirs != NEVER).any()):
        return None
    drawn = np.random.default_rng(_SEED).integers(len(ours), size=(judge.RESAMPLES, len(ours)))
    found = _median(ours[drawn]) / _median(theirs[drawn])
    low, high = np.nanquantile(found, _TAILS)
    return Ratio(value=float(_median(ours) / _median(theirs)), interval_95=(float(low), float(high)))


def _median(reached_at: Array) -> Array:
    """Over the last axis, of those that were reached; not a number where none was."""
    values = np.where(reached_at == NEVER, np.nan, reached_at.astype(np.float64))
    empty = np.asarray(np.isnan(values).all(axis=-1))
    return np.asarray(np.where(empty, np.nan, np.nanmedian(np.where(empty[..., None], 0.0, values), axis=-1)))
