"""The response `challenge`: who asks is told a puzzle, and answered once he brings its solution.

The puzzle travels in a refusal's status details, and ahead of the next call in the trailer of an answer that was paid
for; the solution in the metadata `guard-proof`. Nothing is kept of a puzzle (`guard.puzzles`): any process with the
same secret takes its solution, for the caller and the model that it was made for, until it ends. That a solution is
good once is the store's to know. While the store is away and keeps nothing locally, solutions are taken as often as
they come, and counted: nobody is locked out.

A proof is looked at, and spent, before the query is: so the query need not be remembered where it is refused for want
of one (`Engine.foresee`), and a row is counted in the call that had an answer, not in the one that was turned away.
Prices move. A proof is taken while its rows cost less than `STALE` times what was worked for; else one could collect
cheap puzzles at the beginning and solve them at the end. A query whose proof falls short is remembered, and counts as
answered; but then, and beside it, his queries are foreseen, too, until one has paid: what is remembered costs others
nothing.
Known bypass: SHA-256 on a GPU is thousands of times as fast as in the Python client; and many accounts, each of which
begins with cheap rows.
"""

import logging
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from guard.metrics import Metrics
from guard.proxy import status
from guard.proxy.models import GuardedModel
from guard.proxy.seam import Metadata, Reply
from guard.puzzles import MAX_PROOF_CHARS, Issuer, Puzzle, read_proof
from guard.types import Action, Decision, Store

STALE = 2.0
_DOUBTED = 10_000  # callers
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Purse:
    """What a call, or a stream, brought along. text: as it came; looked: whether it was judged.

    hashes:  worked for each row; 0: nothing.
    rows:    that are still paid for, of `model`.
    outcome: why there is nothing: `none`, `wrong`, `expired`, `spent`; `short` where there is too little.
    streams: whether all messages of a stream have this one purse.
    """

    text: str = ""
    streams: bool = False
    looked: bool = False
    hashes: float = 0.0
    rows: int = 0
    model: str = ""
    outcome: str = "none"


def purse_of(metadata: Metadata, *, streams: bool) -> Purse:
    """Of a caller's metadata. Several proofs are none."""
    texts = [value for key, value in metadata if key == status.PROOF_KEY]
    if len(texts) != 1 or not isinstance(texts[0], str) or len(texts[0]) > MAX_PROOF_CHARS:
        return Purse("", streams, outcome="wrong" if texts else "none")
    return Purse(texts[0], streams)


@dataclass(eq=False)
class Challenges:
    """Of one version of the settings. doubted: models and callers a query of whom has not been seen to have paid."""

    store: Store
    metrics: Metrics
    secret: bytes
    issuer: Issuer = field(init=False)
    doubted: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.issuer = Issuer(self.secret)

    def may(self, model: GuardedModel, caller: str) -> bool:
        """Whether he may be challenged."""
        return model.challenges and model.enforces_for(caller, time.time())

    def foresees(self, model: GuardedModel, caller: str, paid: float) -> bool:
        """Whether to see what is decided on a query before it is remembered."""
        if not self.may(model, caller):
            return False
        if not paid or (model.name, caller) in self.doubted:
            return True
        self.doubted[model.name, caller] = None
        if len(self.doubted) > _DOUBTED:
            self.doubted.popitem(last=False)
        return False

    def is_short(self, model: GuardedModel, paid: float, progress: float) -> bool:
        """Whether less was worked for each row than it costs."""
        return paid * STALE <= model.settings.challenge.hashes(progress)

    async def pay(self, model: GuardedModel, caller: str, purse: Purse, rows: int) -> float:
        """What was worked for each row of a query, in hashes; 0 where nothing was, or for fewer rows."""
        if not purse.looked:
            purse.looked = True
            await self._look(model, caller, purse)
        if purse.model != model.name or purse.rows < rows:
            purse.outcome = "short" if purse.model else purse.outcome
            return 0.0
        purse.rows -= rows
        return purse.hashes

    async def _look(self, model: GuardedModel, caller: str, purse: Purse) -> None:
        if not purse.text:
            return
        proof, now = read_proof(purse.text), time.time()
        if proof is None or not self.issuer.knows(proof.puzzle, model.name, caller):
            purse.outcome = "wrong"
        elif proof.puzzle.expires <= now:
            purse.outcome = "expired"
        elif not proof.good:
            purse.outcome = "wrong"
        elif not await self._is_first(model.name, caller, proof.puzzle, now):
            purse.outcome = "spent"
        else:
            purse.model, purse.rows = model.name, proof.puzzle.rows
            purse.hashes = proof.puzzle.hashes / max(1, proof.puzzle.rows)

    async def _is_first(self, model: str, caller: str, puzzle: Puzzle, now: float) -> bool:
        try:
            return await self.store.once(model, caller, puzzle.nonce, float(puzzle.expires), now)
        except (OSError, RuntimeError) as error:
            _log.warning("the store failed: %s", type(error).__name__)
            self.metrics.unrationed.labels(model).inc()
            return True

    def demand(
        self, model: GuardedModel, caller: str, purse: Purse, rows: int, paid: float, progress: float
    ) -> Reply | None:
        """The refusal with a puzzle, where less was paid than a query costs. paid: of each row (`pay`)."""
        if not self.is_short(model, paid, progress):
            self.doubted.pop((model.name, caller), None)
            self._count(model, "solved")
            return None
        self._count(model, "short" if paid else purse.outcome)
        most = max(rows, model.settings.challenge.stream_rows) if purse.streams else rows
        return status.unproved(self._puzzle(model, caller, most, model.settings.challenge.hashes(progress)))

    def ahead(self, model: GuardedModel, decision: Decision, rows: int) -> Metadata:
        """The trailer of an answer that was paid for: a puzzle for a next query like it."""
        if Action.CHALLENGE not in decision.settled:
            return ()
        price = model.settings.challenge.hashes(decision.progress)
        return ((status.PUZZLE_KEY, self._puzzle(model, decision.query.caller, rows, price).text),)

    def _puzzle(self, model: GuardedModel, caller: str, rows: int, price: float) -> Puzzle:
        ttl_s, nonce = model.settings.challenge.ttl_s, secrets.token_bytes(16)
        return self.issuer.issue(
            model.name, caller, rows=rows, hashes=price * rows, ttl_s=ttl_s, nonce=nonce, now=time.time()
        )

    def _count(self, model: GuardedModel, outcome: str) -> None:
        self.metrics.challenges.labels(model.name, outcome).inc()
