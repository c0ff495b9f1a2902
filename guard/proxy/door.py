"""Who may look: the admin token, how often a wrong one may be tried, and sessions of those who look at the page.

Every comparison takes the same time wherever two tokens differ. Of one visitor TRIES wrong ones may come at once, and
one more each RETRY_S; past that no token of his is looked at, the right one neither, or the limit would limit nothing.
Sessions that have begun go on meanwhile. A visitor is the gRPC listener, this host, or an address elsewhere; of these
ADDRESSES are told apart, and those beyond are one visitor together, so that nobody makes more tries by coming from
everywhere. Known limit: whoever is on this host, or behind the same address, can keep others there out.

A session stands for the token where the page is concerned, and nowhere else: it is random, ends after SESSION_S, with
Guard, or when its owner signs out; of more than SESSIONS the oldest ends. Kept are digests alone.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

TRIES = 10
RETRY_S = 5.0
ADDRESSES = 256
SESSIONS = 64
SESSION_S = 12 * 3600.0
GRPC, HERE, ELSEWHERE = "grpc", "here", "elsewhere"
"""Visitors that are no address: of the gRPC listener, of this host, of more addresses than are told apart."""


def visitor(address: str) -> str:
    """Whom an IP address stands for: all of loopback is one, and so is a network of IPv6 that one host may have."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ELSEWHERE
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return HERE
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))  # noqa: PLR2004


class Knock(Enum):
    """What came of a knock; `value`: the reason it is counted under where it was refused."""

    OPEN = "open"
    SHUT = "no_token_set"
    MISSING = "missing"
    WRONG = "wrong"
    WAIT = "too_many"


def has_token(header: str | None, token: str) -> bool:
    """Whether an authorization header carries the bearer token; takes the same time wherever they differ."""
    scheme, given = _parts(header)
    right = hmac.compare_digest(given.encode(errors="surrogatepass"), token.encode())
    return right and scheme == "bearer"


def _parts(header: str | None) -> tuple[str, str]:
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower(), given.strip()


class Door:
    """One for all listeners of a Guard; tries are counted by visitor. token: None: nobody may look."""

    def __init__(
        self, token: str | None, refused: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._token, self._refused, self._clock = token, refused, clock
        self._tries: dict[str, tuple[float, float]] = {}
        """What is left to a visitor, and since when; who is not here has them all."""
        self._sessions: OrderedDict[bytes, float] = OrderedDict()

    def knock(self, header: str | None, who: str) -> Knock:
        """With the token in an authorization header. who: `visitor`, or GRPC."""
        found = self._knock(header, who)
        if found is not Knock.OPEN:
            self._refused(found.value)
        return found

    def _knock(self, header: str | None, who: str) -> Knock:
        if self._token is None:
            return Knock.SHUT
        scheme, given = _parts(header)
        if scheme != "bearer" or not given:  # no token was tried
            return Knock.MISSING
        now = self._clock()
        who = self._told_apart(who, now)
        left = self._left(who, now)
        if left < 1.0:
            return Knock.WAIT
        if has_token(header, self._token):
            return Knock.OPEN
        self._tries[who] = left - 1.0, now
        return Knock.WRONG

    def _left(self, who: str, now: float) -> float:
        left, at = self._tries.get(who, (float(TRIES), now))
        return min(float(TRIES), left + (now - at) / RETRY_S)

    def _told_apart(self, who: str, now: float) -> str:
        """The visitor; ELSEWHERE for an address that there is no room for."""
        if who in self._tries or who in {GRPC, HERE}:
            return who
        if len(self._tries) >= ADDRESSES:
            self._tries = {one: kept for one, kept in self._tries.items() if self._left(one, now) < TRIES}
        return who if len(self._tries) < ADDRESSES else ELSEWHERE

    # --- sessions

    def seat(self) -> str:
        """A session for somebody who has knocked."""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock() + SESSION_S
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def look(self, header: str | None, who: str) -> Knock:
        """The same with a session, or the token."""
        return Knock.OPEN if self._is_seated(header) else self.knock(header, who)

    def leave(self, header: str | None) -> None:
        """End the session in the header, if there is one."""
        self._sessions.pop(_digest(_parts(header)[1]), None)

    def _is_seated(self, header: str | None) -> bool:
        scheme, given = _parts(header)
        until = self._sessions.get(_digest(given))  # looked up by its digest: what differs where tells nothing
        return scheme == "bearer" and until is not None and self._clock() < until


def _digest(session: str) -> bytes:
    return hashlib.sha256(session.encode(errors="surrogatepass")).digest()
