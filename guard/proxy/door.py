"""Who may look: the admin token, how often a wrong one may be tried, and sessions of those who look at the page.

Every comparison takes the same time wherever two tokens differ. Of one visitor TRIES wrong ones may come at once, and
one more each RETRY_S; past that no token of his is looked at, the right one neither, or the limit would limit nothing.
Sessions that have begun go on meanwhile. A visitor is the gRPC listener, this host, or an address elsewhere, and all of
elsewhere together have MANY times as many tries: nobody makes more by coming from everywhere. Known limits: whoever is
on this host, or behind the same address, can keep others there out, and whoever has many addresses all but this host.

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
MANY = 10
SESSIONS = 64
SESSION_S = 12 * 3600.0
GRPC, HERE, ELSEWHERE = "grpc", "here", "elsewhere"
"""Visitors that are no address: of the gRPC listener, of this host, and all others together."""
_IPV6_PREFIX = 56
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def visitor(address: str) -> str:
    """Whom an IP address stands for: all of loopback is one, and so is a network of IPv6 that one customer may have."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ELSEWHERE
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return HERE
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_link_local or ip in _NAT64:
        return str(ip)
    return str(ipaddress.ip_network((ip, _IPV6_PREFIX), strict=False))


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
        charged = (who,) if who in {GRPC, HERE, ELSEWHERE} else (who, ELSEWHERE)
        left = {one: self._left(one, now) for one in charged}
        if min(left.values()) < 1.0:
            return Knock.WAIT
        if has_token(header, self._token):
            return Knock.OPEN
        self._tries |= {one: (tries - 1.0, now) for one, tries in left.items()}
        self._forget(now)
        return Knock.WRONG

    def _left(self, who: str, now: float) -> float:
        times = MANY if who == ELSEWHERE else 1
        most = float(times * TRIES)
        left, at = self._tries.get(who, (most, now))
        return min(most, left + times * (now - at) / RETRY_S)

    def _forget(self, now: float) -> None:
        """Who has all his tries again. As all together have few, those who have not are few, too."""
        if len(self._tries) > 2 * MANY * TRIES:
            self._tries = {
                one: kept for one, kept in self._tries.items() if one == ELSEWHERE or self._left(one, now) < TRIES
            }

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
