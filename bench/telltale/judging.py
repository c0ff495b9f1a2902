"""How well what a client sees tells which queries were flagged: a classifier trained on one half of the accounts.

Its features are what came back for a query, for the one before it and for the three after it from the same account
(a decision that is taken late shows later). Numbers are brought to ranks of the training half; what is missing has a
feature of its own. The classifier is a small network; beside it each feature by itself, the best of them on the
training half in whichever direction. The better of the two there is told for the other half.

What the model's own answers foretell cannot be hidden; what Guard's tell `more` is the difference, over the same
queries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adversary.attack import Array
from adversary.gradients import one_thread

AROUND = (-1, 0, 1, 2, 3)
BESIDE = 5
FEWEST = 20
"""Flagged and other queries that each half must have."""
_STEPS, _HIDDEN, _RESAMPLES, _FOLDS = 150, 32, 500, 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """auroc, with its 95 % interval over accounts; by what; n: queries of the judged half, of which so many flagged.

    beside: the same within an account, of queries at most BESIDE apart: which of them was it? Its interval likewise.
    more: auroc less that of the bare model's answers, and its interval; None where nothing is known of these.
    """

    auroc: float
    low: float
    high: float
    beside: float
    beside_low: float
    beside_high: float
    by: str
    n: int
    flagged: int
    more: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The judged half, (M,) each: scores, by what; which of them were flagged, whose they are."""

    scores: Floats
    by: str
    flagged: Array
    account: Array


def auroc(scores: Array, positive: Array) -> float:
    """The chance that a positive one scores above another; ties count half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[place]
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2.0) / (n * (len(positive) - n)))


def features(seen: Array, account: Array) -> Floats:
    """(N, F), (N,) -> (N, len(AROUND) * F), NaN where there is none."""
    parts = []
    for offset in AROUND:
        part = np.full(seen.shape, np.nan)
        for one in np.unique(account):
            places = np.flatnonzero(account == one)
            into = places[max(0, -offset) : len(places) - max(0, offset)]
            part[into] = seen[places[max(0, offset) : len(places) + min(0, offset)]]
        parts.append(part)
    return np.concatenate(parts, axis=1)


def judge(
    seen: Array, account: Array, flagged: Array, names: tuple[str, ...], seed: int, bare: Scored | None = None
) -> Found | None:
    """None where one half has too few of either kind. bare: the same queries by what the model answers alone."""
    one = scored(seen, account, flagged, names, seed)
    return None if one is None else told(one, seed, bare)


def scored(seen: Array, account: Array, flagged: Array, names: tuple[str, ...], seed: int) -> Scored | None:
    """The other half by what is learned on the one; None where a half has too few of either kind."""
    x = features(seen, account)
    accounts = np.random.default_rng([seed, 3]).permutation(np.unique(account))
    learn = np.isin(account, accounts[: len(accounts) // 2])
    if any(min(part.sum(), (~part).sum()) < FEWEST for part in (flagged[learn], flagged[~learn])):
        return None
    ranked = _ranked(x, x[learn])
    single = [auroc(column, flagged[learn]) for column in ranked[learn].T]
    best = int(np.argmax(np.abs(np.array(single) - 0.5)))
    alone = ranked[:, best] * np.sign(single[best] - 0.5)
    folded = _out_of_fold(ranked[learn], flagged[learn], account[learn], seed)
    if auroc(folded, flagged[learn]) >= abs(single[best] - 0.5) + 0.5:
        scores, by = _network(ranked[learn], flagged[learn], ranked[~learn], seed), "a network on all of it"
    else:
        offset, which = divmod(best, len(names))
        scores, by = alone[~learn], f"{names[which]}{_when(AROUND[offset])}"
    return Scored(scores, by, flagged[~learn], account[~learn])


def told(one: Scored, seed: int, bare: Scored | None = None) -> Found:
    """In numbers."""
    scores, flagged = one.scores, one.flagged
    low, high = _interval(lambda some, _: _whole(scores[some], flagged[some]), one.account, seed)
    near = _interval(lambda some, whose: beside(scores[some], flagged[some], whose), one.account, seed)
    more = None
    if bare is not None:
        known = bare.scores
        apart = _interval(
            lambda some, _: _whole(scores[some], flagged[some]) - _whole(known[some], flagged[some]), one.account, seed
        )
        more = auroc(scores, flagged) - auroc(known, flagged), *apart
    return Found(
        auroc(scores, flagged), low, high, beside(scores, flagged, one.account), *near, one.by, len(flagged),
        int(flagged.sum()), more,
    )  # fmt: skip


def beside(scores: Array, flagged: Array, account: Array) -> float:
    """How often a flagged query scores above one of the same account that was sent shortly before or after it."""
    above, pairs = 0.0, 0
    for one in np.unique(account):
        places = np.flatnonzero(account == one)
        apart = np.abs(np.subtract.outer(np.arange(len(places)), np.arange(len(places)))) <= BESIDE
        valid = apart & np.logical_and.outer(flagged[places], ~flagged[places])
        higher = np.sign(np.subtract.outer(scores[places], scores[places]))
        above += float(((higher + 1.0) / 2.0)[valid].sum())
        pairs += int(valid.sum())
    return above / pairs if pairs else float("nan")


def _when(offset: int) -> str:
    return "" if offset == 0 else f" of the query {abs(offset)} {'before' if offset < 0 else 'after'}"


def _ranked(x: Array, reference: Array) -> Floats:
    """Each column as its place among the reference's, in [-1, 1], 0 where it is missing; and whether it is."""
    missing = np.isnan(x)
    columns = []
    for column, known in zip(x.T, reference.T, strict=True):
        order = np.sort(known[~np.isnan(known)])
        half = np.searchsorted(order, column, "left") + np.searchsorted(order, column, "right")
        columns.append(half / max(1, len(order)) - 1.0)
    placed = np.where(missing, 0.0, np.stack(columns, axis=1))
    return np.concatenate([placed, missing.astype(np.float64)], axis=1)


def _out_of_fold(x: Floats, flagged: Array, account: Array, seed: int) -> Floats:
    scores, fold = np.zeros(len(x)), account % _FOLDS
    for one in np.unique(fold):
        within = fold != one
        if 0 < flagged[within].sum() < within.sum():
            scores[~within] = _network(x[within], flagged[within], x[~within], seed)
    return scores


def _network(x: Floats, flagged: Array, others: Floats, seed: int) -> Floats:
    """The logits of the others."""
    with one_thread():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], _HIDDEN), torch.nn.ReLU(), torch.nn.Linear(_HIDDEN, 1))
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
        inputs, wanted = torch.tensor(x, dtype=torch.float32), torch.tensor(flagged, dtype=torch.float32)
        weight = torch.tensor(float((~flagged).sum() / max(1, flagged.sum())))
        for _ in range(_STEPS):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(inputs)[:, 0], wanted, pos_weight=weight)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            return np.asarray(net(torch.tensor(others, dtype=torch.float32))[:, 0].numpy(), np.float64)


def _whole(scores: Array, flagged: Array) -> float:
    return auroc(scores, flagged) if 0 < flagged.sum() < len(flagged) else float("nan")


def _interval(tell: Callable[[Array, Array], float], account: Array, seed: int) -> tuple[float, float]:
    """Whole accounts are drawn, and one that is drawn twice is two. tell: of some queries, and whose they are."""
    rng, groups = np.random.default_rng([seed, 4]), [np.flatnonzero(account == one) for one in np.unique(account)]
    found = []
    for _ in range(_RESAMPLES):
        drawn = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        whose = np.repeat(np.arange(len(drawn)), [len(group) for group in drawn])
        found.append(tell(np.concatenate(drawn), whose))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)
