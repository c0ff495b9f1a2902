"""Who may look: the admin token, how often a wrong one may be tried, and sessions of those who look at the page.

Every comparison takes the same time wherever two tokens differ. TRIES wrong ones may come at once, and one more each
RETRY_S; past that no token is looked at, the right one neither, or the limit would limit nothing. Sessions that have
begun go on meanwhile.

A session stands for the token where the page is concerned, and nowhere else: it is random, ends after SESSION_S, with
Guard, or when its owner signs out; of more than SESSIONS the oldest ends. Kept are digests alone.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

TRIES = 10
RETRY_S = 5.0
SESSIONS = 64
SESSION_S = 12 * 3600.0


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
    """One for all listeners of a Guard: tries are counted together. token: None: nobody may look."""

    def __init__(
        self, token: str | None, refused: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._token, self._refused, self._clock = token, refused, clock
        self._tries, self._at = float(TRIES), clock()
        self._sessions: OrderedDict[bytes, float] = OrderedDict()

    def knock(self, header: str | None) -> Knock:
        """With the token in an authorization header."""
        found = self._knock(header)
        if found is not Knock.OPEN:
            self._refused(found.value)
        return found

    def _knock(self, header: str | None) -> Knock:
        if self._token is None:
            return Knock.SHUT
        scheme, given = _parts(header)
        if scheme != "bearer" or not given:  # no token was tried
            return Knock.MISSING
        now = self._clock()
        self._tries, self._at = min(float(TRIES), self._tries + (now - self._at) / RETRY_S), now
        if self._tries < 1.0:
            return Knock.WAIT
        if has_token(header, self._token):
            return Knock.OPEN
        self._tries -= 1.0
        return Knock.WRONG

    # --- sessions

    def seat(self) -> str:
        """A session for somebody who has knocked."""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock() + SESSION_S
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def look(self, header: str | None) -> Knock:
        """The same with a session, or the token."""
        return Knock.OPEN if self._is_seated(header) else self.knock(header)

    def leave(self, header: str | None) -> None:
        """End the session in the header, if there is one."""
        self._sessions.pop(_digest(_parts(header)[1]), None)

    def _is_seated(self, header: str | None) -> bool:
        scheme, given = _parts(header)
        until = self._sessions.get(_digest(given))  # looked up by its digest: what differs where tells nothing
        return scheme == "bearer" and until is not None and self._clock() < until


def _digest(session: str) -> bytes:
    return hashlib.sha256(session.encode(errors="surrogatepass")).digest()
