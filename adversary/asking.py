"""An endpoint while one unit of work asks it: served for the unit alone, or living on; and what was noticed there."""

import secrets
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adversary import serving
from adversary.attack import Array
from adversary.campaign import Identities, Model
from adversary.oracle import Endpoint, Oracle, Record
from adversary.runner import NEVER
from adversary.serving import Place, Verdict, Verdicts
from adversary.tls import Tls

_PLAIN = Verdict(flagged=False, caller=False)


@dataclass(slots=True)
class Site:
    """verdicts: None until the endpoint has ended, and for good where its own audit log is not at hand."""

    endpoint: Endpoint
    place: Place
    identities: Identities
    nonce: str
    verdicts: Verdicts | None = None

    def oracle(self, kind: str, callers: int, budget: int) -> Oracle:
        """Asks as so many callers of a kind; keys of a file are dealt out from a place of the kind's own."""
        names = [f"{kind}-{i}{self.nonce}" for i in range(callers)]
        if self.place.keys:
            first = zlib.crc32(kind.encode())
            names = [self.place.keys[(first + i) % len(self.place.keys)] for i in range(callers)]
        header = self.identities.header.lower()
        identities = tuple((*self.place.headers, (header, name)) for name in names)
        return Oracle(replace(self.endpoint, identities=identities), budget)

    def noticed(self, records: Sequence[Record]) -> "Noticed":
        """What came of some calls."""
        return Noticed(tuple(records), tuple(self._verdict(record) for record in records))

    def _verdict(self, record: Record) -> Verdict:
        if self.verdicts is None:
            return Verdict(record.refused, caller=False)
        said = self.verdicts.get(record.decision_id, _PLAIN)
        return Verdict(said.flagged or record.refused, said.caller)


@dataclass(frozen=True, slots=True)
class Noticed:
    """Some calls, and a verdict on each: by Guard's audit log where it is at hand, else by what the client saw."""

    records: tuple[Record, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def flagged(self) -> Array:
        """(calls,) whether each was."""
        return np.array([verdict.flagged for verdict in self.verdicts], bool)

    @property
    def caller_flagged(self) -> Array:
        """(calls,) whether each was because of its caller."""
        return np.array([verdict.caller for verdict in self.verdicts], bool)

    @property
    def rows(self) -> int:
        """Rows sent."""
        return sum(record.rows for record in self.records)

    @property
    def flagged_rows(self) -> int:
        """Rows in flagged calls."""
        return sum(record.rows for record, verdict in zip(self.records, self.verdicts, strict=True) if verdict.flagged)

    @property
    def refused_rows(self) -> int:
        """Rows in calls that were not answered."""
        return sum(record.rows for record in self.records if record.refused)

    @staticmethod
    def arrays(trails: Sequence["Noticed"]) -> dict[str, Array]:
        """(trails,) each: when each was first noticed, rows sent, rows in flagged calls, rows that were refused."""
        values = np.array([(t.first_flag, t.rows, t.flagged_rows, t.refused_rows) for t in trails], np.int64)
        return dict(zip(("flagged_at", "sent", "flagged_rows", "refused_rows"), values.reshape(-1, 4).T, strict=True))

    @property
    def first_flag(self) -> int:
        """Rows sent until the first flagged call, its own included; NEVER without one."""
        rows = 0
        for record, verdict in zip(self.records, self.verdicts, strict=True):
            rows += record.rows
            if verdict.flagged:
                return rows
        return NEVER


@contextmanager
def opened(place: Place, model: Model, identities: Identities) -> Iterator[Site]:
    """The endpoint; one that is served for the unit ends with the block, and then its verdicts are known.

    Where the endpoint lives on, callers get names that were never used.
    """
    if place.settings is None:
        yield Site(_endpoint(model, place.address, place.tls), place, identities, f"-{secrets.token_hex(4)}")
        return
    with tempfile.TemporaryDirectory(prefix="adversary-") as directory:
        with serving.served(place.settings, place.secret, Path(directory)) as (address, audit):
            site = Site(_endpoint(model, address, None), place, identities, "")
            yield site
        site.verdicts = serving.verdicts(audit)


def _endpoint(model: Model, address: str, tls: Tls | None) -> Endpoint:
    return Endpoint(
        address,
        model.name,
        model.version,
        model.input,
        model.output,
        encoding=model.encoding,
        low=model.low,
        high=model.high,
        mean=model.mean,
        std=model.std,
        layout=model.layout,
        meaning=model.meaning,
        tls=tls,
    )
