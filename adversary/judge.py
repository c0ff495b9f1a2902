"""The judge: from the arrays of finished units to figures with intervals. The same arrays give the same figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adversary.attack import REFUSED, Array
from adversary.report import Curve, Honest, Median, Share, Side, Watched
from adversary.runner import NEVER, allowed, attacked, fell
from adversary.scores import Rate, rate

RESAMPLES = 2000
_BOOTSTRAP_SEED = 95
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All victims of one attack on one endpoint, over chunks and seeds; each (N,) but x_adv: see `Outcome`."""

    y: Array
    clean: Array
    adversarial: Array
    aim: Array
    size: Array
    linf: Array
    l2: Array
    queries: Array
    reached_at: Array
    refused_at: Array
    flagged_at: Array
    sent: Array
    flagged_rows: Array
    x_adv: Array
    eps: float

    @property
    def attacked(self) -> Array:
        """(N,) answered rightly as they are."""
        return attacked(self.y, self.clean, self.aim)

    @property
    def success(self) -> Array:
        """(N,) the final input, asked afresh, was answered wrongly within eps."""
        return self.attacked & fell(self.y, self.adversarial, self.aim) & (self.size <= allowed(self.eps))


def gather(units: Sequence[Mapping[str, Array]], eps: float) -> Evidence:
    """The units of one attack on one endpoint -> their evidence."""
    names = [name for name in Evidence.__dataclass_fields__ if name != "eps"]
    return Evidence(**{name: np.concatenate([unit[name] for unit in units]) for name in names}, eps=eps)


def side(evidence: Evidence) -> Side:
    """What the attack came to."""
    won, tried = evidence.success, evidence.attacked
    reached, flagged = (at[tried] for at in (evidence.reached_at, evidence.flagged_at))
    return Side(
        victims=len(evidence.y),
        answered_rightly=share(evidence.clean == evidence.y),
        success=share(won[tried]),
        reached=share(reached != NEVER),
        robust_accuracy=share((evidence.clean == evidence.y) & ~won),
        noticed=share(flagged != NEVER),
        flagged_queries=counted(evidence.flagged_rows, evidence.sent),
        cost=median(evidence.queries[tried]),
        queries_to_success=median(reached[reached != NEVER]),
        queries_to_detection=median(flagged[flagged != NEVER]),
        size=median(evidence.size[won]),
        linf=median(evidence.linf[won]),
        l2=median(evidence.l2[won]),
        success_by_queries=curve(reached),
        noticed_by_queries=curve(flagged),
    )


def watched(units: Sequence[Mapping[str, Array]]) -> Watched:
    """What was noticed of some runs: units with flagged_at, sent, flagged_rows and refused_rows, a value a run."""
    at, sent, flagged, refused = (
        np.concatenate([unit[name] for unit in units])
        for name in ("flagged_at", "sent", "flagged_rows", "refused_rows")
    )
    return Watched(
        runs=len(at),
        sent=int(sent.sum()),
        noticed=share(at != NEVER),
        queries_to_detection=median(at[at != NEVER]),
        flagged_queries=counted(flagged, sent),
        refused_queries=counted(refused, sent),
    )


def counted(hits: Array, of: Array) -> Share:
    """Counts of some runs -> their share in all."""
    return _share(Rate(int(hits.sum()), int(of.sum())))


def honest(y: Array, labels: Array, flagged: Array, callers: Array) -> Honest:
    """callers: (C,) whether each was flagged for who he is."""
    return Honest(
        images=len(y),
        clean_accuracy=share(labels == y),
        refused=share(labels == REFUSED),
        flagged=share(flagged),
        callers_flagged=share(callers),
    )


def share(flags: Array) -> Share:
    """(N,) truths -> their share."""
    return _share(rate(flags))


def _share(found: Rate) -> Share:
    low, high = found.interval
    return Share(hits=found.hits, n=found.n, rate=found.value if found.n else None, interval_95=(low, high))


def median(values: Array) -> Median:
    """With a percentile bootstrap interval. A size of infinity has no place in JSON: no median is told then."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return Median(n=0, median=None, interval_95=None)
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(drawn, _TAILS)
    return Median(n=len(values), median=float(np.median(values)), interval_95=(float(low), float(high)))


def curve(at: Array) -> Curve:
    """(N,) when it came to each victim, NEVER where it did not -> the share to whom it had come, by rows sent."""
    steps = np.unique(at[at != NEVER])
    found = [rate((at != NEVER) & (at <= step)) for step in steps]
    return Curve(
        queries=tuple(int(step) for step in steps),
        share=tuple(one.value for one in found),
        low=tuple(one.interval[0] for one in found),
        high=tuple(one.interval[1] for one in found),
    )
