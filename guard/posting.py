"""POST to one receiver, from one thread: TLS, a token and headers from files, a bounded number of attempts.

Tried again: what could not be sent, or was not answered, and statuses that say so; after 0.5, 1, 2 ... s, or as
`Retry-After` asks, LONGEST_WAIT_S at most. Not once `hurry` was called: what waits for an attempt then is given up.
Files that change are read again; a version that cannot be used is logged once, and the former one goes on.
Errors: `Undelivered`, and its text names neither the URL nor a header.
"""

import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guard import reloading
from guard.delivering import Undelivered
from guard.reloading import Fingerprint
from guard.settings import ClientTls, ConfigError, Receiver

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_TAKEN = range(200, 300)
_log = logging.getLogger(__name__)


class Poster:
    """One receiver. retried: the statuses after which it is asked again. path: where the URL has none.

    Raises ConfigError where urllib3 is missing, or with the receiver's key whose file or variable cannot be used.
    """

    def __init__(
        self,
        settings: Receiver,
        extra: str,
        *,
        path: str = "",
        retried: frozenset[int] = RETRIED,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        try:
            import urllib3  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError("", f"needs the extra `{extra}`: pip install '.[{extra}]' in a clone") from None
        self._library, self._settings, self._retried = urllib3, settings, retried
        self._first_wait_s = first_wait_s
        parts = urlsplit(settings.url)
        self._url = settings.url if parts.path.strip("/") else settings.url.rstrip("/") + path
        self._hurried = threading.Event()
        self._seen, self._complaint = self._fingerprints(), ""
        self._headers, self._pool = self._made()

    def _fingerprints(self) -> tuple[Fingerprint, ...]:
        """Raises ConfigError."""
        settings, tls = self._settings, self._settings.tls
        files = {
            "tls.ca_file": tls.ca_file,
            "tls.cert_file": tls.cert_file,
            "tls.key_file": tls.key_file,
            "headers_file": settings.headers_file,
            "token_file": settings.token_file,
        }
        seen = []
        for key, file in files.items():
            if file is not None:
                with _naming(key, file):
                    seen.append(reloading.fingerprint(file))
        return tuple(seen)

    def _made(self) -> tuple[dict[str, str], Any]:
        """Headers and connections by the files as they are. Raises ConfigError."""
        headers, options = _headers(self._settings), dict[str, Any]()
        if self._settings.url.startswith("https://"):
            options["ssl_context"], name = _context(self._settings.tls), self._settings.tls.server_name
            if name is not None:
                options |= {"server_hostname": name, "assert_hostname": name}
        timeout = self._library.Timeout(connect=self._settings.timeout_s, read=self._settings.timeout_s)
        return headers, self._library.PoolManager(num_pools=1, maxsize=1, timeout=timeout, retries=False, **options)

    def _refresh(self) -> None:
        """Read files again that have changed."""
        try:
            seen = self._fingerprints()
            made = None if seen == self._seen else self._made()
        except ConfigError as error:
            if str(error) != self._complaint:
                _log.error("kept the old version: %s", error)
            self._complaint = str(error)
            return
        self._complaint = ""
        if made is not None:
            self._pool.clear()
            self._seen = seen
            self._headers, self._pool = made

    def hurry(self) -> None:
        """Try nothing again from now on."""
        self._hurried.set()

    def close(self) -> None:
        """Release the connection."""
        self._pool.clear()

    def post(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The receiver's answer. Raises Undelivered."""
        wait_s, why, away = self._first_wait_s, "", True
        for attempt in range(1, self._settings.attempts + 1):
            status, why, asked_s, answer = self._once(body, headers)
            if status in _TAKEN:
                return answer
            away = status == 0 or status in self._retried
            if not away or attempt == self._settings.attempts:
                break
            if self._hurried.wait(min(LONGEST_WAIT_S, max(wait_s, asked_s))):
                break
            wait_s *= 2.0
        raise Undelivered(why, away=away)

    def _once(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, float, bytes]:
        """Status (0: none), what became of it, how long to wait before the next attempt, the answer."""
        errors = self._library.exceptions
        self._refresh()
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={**self._headers, "user-agent": "guard", **headers},
                redirect=False,
                preload_content=False,
            )
            try:
                content = self._read(answer)
                asked = answer.headers.get("retry-after", "")
            finally:
                answer.release_conn()
        except (OSError, ValueError, errors.HTTPError) as error:
            return 0, type(error).__name__, 0.0, b""
        return answer.status, f"status {answer.status}", float(asked) if asked.isdecimal() else 0.0, content

    def _read(self, answer: Any) -> bytes:
        """Of what it says a bounded part, for a bounded time; a connection that says more is not used again."""
        content, until = b"", time.monotonic() + self._settings.timeout_s
        while part := answer.read1(MAX_ANSWER_BYTES):
            content += part
            if len(content) > MAX_ANSWER_BYTES or time.monotonic() > until:
                answer.close()
                break
        return content[:MAX_ANSWER_BYTES]


def _context(tls: ClientTls) -> ssl.SSLContext:
    """Raises ConfigError."""
    with _naming("tls.ca_file", tls.ca_file):
        context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None:
        with _naming("tls.cert_file", tls.cert_file, f" with {tls.key_file}"):
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context


def _headers(settings: Receiver) -> dict[str, str]:
    """Raises ConfigError."""
    made = dict[str, str]()
    if settings.headers_env is not None:
        text = os.environ.get(settings.headers_env, "")
        with _naming("headers_env", settings.headers_env):
            if not text.strip():
                raise Unusable("not set, or empty")
            made |= _parsed(text)
    if settings.headers_file is not None:
        with _naming("headers_file", settings.headers_file):
            made |= _parsed(reloading.read(settings.headers_file).decode("ascii"))
    if settings.token_file is not None:
        with _naming("token_file", settings.token_file):
            made["authorization"] = f"Bearer {_token(reloading.read(settings.token_file).decode('ascii'))}"
    return made


def _parsed(text: str) -> dict[str, str]:
    """Raises Unusable."""
    made = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, colon, value = line.partition(":")
        if line.strip() and (not colon or not name.strip() or not value.isprintable()):
            raise Unusable(f"line {number} is not NAME: VALUE")
        if line.strip():
            made[name.strip().lower()] = value.strip()
    return made


def _token(text: str) -> str:
    """Raises Unusable."""
    token = text.strip()
    if not token or not token.isprintable() or " " in token:
        raise Unusable("not one word")
    return token


class Unusable(ValueError):
    """What a file or variable holds. Its text says nothing of that."""


@contextlib.contextmanager
def _naming(key: str, source: Path | str | None, more: str = "") -> Iterator[None]:
    """What goes wrong with it becomes a ConfigError that names the key and the source, and nothing of what it holds."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError):
            why = "not a PEM file that can be used"
        elif isinstance(error, OSError):
            why = error.strerror or type(error).__name__
        else:
            why = str(error) if isinstance(error, Unusable) else "not ASCII, or too large"
        raise ConfigError(key, f"cannot use {source}{more}: {why}") from None
