"""POST to one receiver, from one thread: TLS, a token and headers from files, a bounded number of attempts.

Tried again: what could not be sent, or was not answered, and statuses that say so; after 0.5, 1, 2 ... s, or as
`Retry-After` asks, LONGEST_WAIT_S at most. Not once `hurry` was called. Files that change are read again; a version
that cannot be used is logged, and the former one goes on.
Errors: `Undelivered`, and its text names neither the URL nor a header.
"""

import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guard import reloading
from guard.delivering import Undelivered
from guard.settings import ConfigError, Receiver

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_TAKEN = range(200, 300)
_log = logging.getLogger(__name__)


class Poster:
    """One receiver. retried: the statuses after which it is asked again. path: where the URL has none.

    Raises ConfigError where urllib3 is missing or a file cannot be used.
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
            raise ConfigError("", f"needs the extra `{extra}`: pip install 'guard-sidecar[{extra}]'") from None
        self._library, self._settings, self._retried = urllib3, settings, retried
        self._first_wait_s = first_wait_s
        parts = urlsplit(settings.url)
        self._url = settings.url if parts.path.strip("/") else settings.url.rstrip("/") + path
        self._hurried = threading.Event()
        tls = settings.tls
        named = (tls.ca_file, tls.cert_file, tls.key_file, settings.headers_file, settings.token_file)
        self._files = tuple(file for file in named if file is not None)
        try:
            self._seen = reloading.fingerprint(*self._files)
            self._headers, self._pool = self._made()
        except (OSError, ValueError) as error:
            raise ConfigError("", f"cannot use {_named(error)}: {type(error).__name__}") from None

    def _made(self) -> tuple[dict[str, str], Any]:
        """Headers and connections by the files as they are. Raises OSError, ValueError; ssl.SSLError is an OSError."""
        headers = _headers(self._settings)
        tls, options = self._settings.tls, dict[str, Any]()
        if self._settings.url.startswith("https://"):
            context = ssl.create_default_context(cafile=tls.ca_file)
            if tls.cert_file is not None:
                context.load_cert_chain(tls.cert_file, tls.key_file)
            options["ssl_context"] = context
            if tls.server_name is not None:
                options |= {"server_hostname": tls.server_name, "assert_hostname": tls.server_name}
        timeout = self._library.Timeout(connect=self._settings.timeout_s, read=self._settings.timeout_s)
        return headers, self._library.PoolManager(num_pools=1, maxsize=1, timeout=timeout, retries=False, **options)

    def _refresh(self) -> None:
        """Read files again that have changed."""
        try:
            seen = reloading.fingerprint(*self._files)
            if seen == self._seen:
                return
            self._seen = seen
            made = self._made()
        except (OSError, ValueError) as error:
            _log.error("kept the old version: cannot use %s: %s", _named(error), type(error).__name__)
            return
        self._pool.clear()
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
            if not away or attempt == self._settings.attempts or self._hurried.is_set():
                break
            self._hurried.wait(min(LONGEST_WAIT_S, max(wait_s, asked_s)))
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


def _headers(settings: Receiver) -> dict[str, str]:
    """Raises OSError, ValueError."""
    text = os.environ.get(settings.headers_env, "") if settings.headers_env is not None else ""
    if settings.headers_env is not None and not text.strip():
        raise ValueError(settings.headers_env)
    if settings.headers_file is not None:
        text += "\n" + reloading.read(settings.headers_file).decode("ascii")
    made = {}
    for line in filter(str.strip, text.splitlines()):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or not value.isprintable():
            raise ValueError("headers")
        made[name.strip().lower()] = value.strip()
    if settings.token_file is not None:
        made["authorization"] = f"Bearer {_token(settings.token_file)}"
    return made


def _token(file: Path) -> str:
    token = reloading.read(file).decode("ascii").strip()
    if not token or not token.isprintable() or " " in token:
        raise ValueError(str(file))
    return token


def _named(error: OSError | ValueError) -> str:
    named = getattr(error, "filename", None)
    return str(named) if named else "its headers, token or certificates"
