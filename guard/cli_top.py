"""`guard top`: one Guard as it works, in the terminal: what the page of the admin port shows, from the same place.

On a terminal the screen is drawn anew every few seconds; elsewhere plain text follows plain text, or with `--json` one
document a line. Where Guard is away that is said, and it is asked again, less and less often; with `--once` it is an
error.
"""

import argparse
import contextlib
import http.client
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from guard import config, top
from guard.settings import ConfigError

ADMIN_HTTP = "127.0.0.1:9464"
TIMEOUT_S = 10.0
LONGEST_S = 30.0
MAX_BYTES = 16 * 1024 * 1024


class Away(Exception):
    """Guard does not answer, or not now. The text says why."""


class Refused(Exception):
    """It answers, and asking again would not help. The text says why."""


def top_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard top`."""
    parser.add_argument(
        "--admin", metavar="HOST:PORT", default=ADMIN_HTTP, help=f"admin.http of Guard; default: {ADMIN_HTTP}"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the admin token; default: $GUARD_ADMIN_TOKEN")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks; default: 2")
    parser.add_argument("--once", action="store_true", help="look once; exit status 1 where Guard is away")
    parser.add_argument("--json", action="store_true", help="print what is shown as JSON, one document a line")


def run(args: argparse.Namespace) -> int:
    """0 once it is left, or has looked once; 1 where Guard refuses, or is away with --once."""
    guard = _guard(args)
    if args.every < 0.5:  # noqa: PLR2004 - Guard makes no newer document more often
        raise ConfigError("--every", "must be at least 0.5")
    console = Console(markup=False, highlight=False)
    try:
        if args.once:
            _print(console, guard.look(), None, args)
        elif args.json or not console.is_terminal:
            _follow(guard, args, console)
        else:
            _live(guard, args, console)
    except (Away, Refused) as error:
        sys.stderr.write(f"guard top: {error}\n")
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        _quiet()
    return 0


def _guard(args: argparse.Namespace) -> "Guard":
    token = config.read_secret(args.token_file, "GUARD_ADMIN_TOKEN", where="--token-file")
    if token is None:
        raise ConfigError("--token-file", "the admin token is needed: --token-file or GUARD_ADMIN_TOKEN")
    host, colon, port = args.admin.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError("--admin", f"{args.admin!r} is not HOST:PORT")
    if not token.isascii() or not token.isprintable():
        raise ConfigError("--token-file", "a token that can be sent is printable ASCII")
    return Guard(host.strip("[]"), int(port), token)


def _quiet() -> None:
    """Whoever read the output is gone: nothing more is to be written there."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


@dataclass(frozen=True, slots=True)
class Guard:
    """One Guard's admin port."""

    host: str
    port: int
    token: str

    def look(self) -> dict[str, Any]:
        """What it shows now. Raises Away, Refused."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/overview", headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
                raise Refused(f"what answers on {self.host}:{self.port} is no admin.http") from None
            why = getattr(error, "strerror", None) or type(error).__name__
            raise Away(f"Guard does not answer on {self.host}:{self.port}: {why}") from None
        finally:
            connection.close()
        return _document(answer.status, body)


def _document(status: int, body: bytes) -> dict[str, Any]:
    said = body.decode(errors="replace").strip()
    if status in {http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS}:
        raise Away(f"Guard says: {top.safe(said[:200])}")
    if status == http.HTTPStatus.UNAUTHORIZED:
        raise Refused("the token is not Guard's")
    if status == http.HTTPStatus.NOT_FOUND:
        raise Refused("this Guard shows nothing: admin.page is false, or --admin is not its admin.http")
    if status != http.HTTPStatus.OK:
        raise Refused(f"Guard answers {status}: {top.safe(said[:200])}")
    try:
        told = json.loads(body)
    except ValueError:
        raise Refused("what answers is no Guard") from None
    if not isinstance(told, dict) or "counts" not in told:
        raise Refused("what answers is no Guard")
    return told


@dataclass(slots=True)
class Seen:
    """The latest look, and the one before it; Guard makes one document for all who ask within a second."""

    latest: dict[str, Any] | None = None
    former: dict[str, Any] | None = None

    def add(self, look: dict[str, Any]) -> None:
        """One more."""
        if self.latest is None or look["time"] > self.latest["time"]:
            self.latest, self.former = look, self.latest


def _looks(guard: Guard, every_s: float) -> Iterator[dict[str, Any] | Away]:
    """For ever; where it is away, why, and less and less often. Raises Refused."""
    wait_s = every_s
    while True:
        try:
            yield guard.look()
            wait_s = every_s
        except Away as away:
            yield away
            wait_s = min(LONGEST_S, 2 * wait_s)
        time.sleep(wait_s)


def _follow(guard: Guard, args: argparse.Namespace, console: Console) -> None:
    seen = Seen()
    for look in _looks(guard, args.every):
        if isinstance(look, Away):
            sys.stderr.write(f"guard top: {look}\n")
        else:
            seen.add(look)
            _print(console, look, seen.former, args)


def _print(console: Console, look: dict[str, Any], former: dict[str, Any] | None, args: argparse.Namespace) -> None:
    if args.json:
        sys.stdout.write(json.dumps(look) + "\n")
        sys.stdout.flush()
    else:
        console.print(top.screen(look, former))


def _live(guard: Guard, args: argparse.Namespace, console: Console) -> None:
    shown: RenderableType = "asking Guard ..."
    seen = Seen()
    with Live(shown, console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        for look in _looks(guard, args.every):
            if isinstance(look, Away):
                shown = top.away(str(look), seen.latest)
            else:
                seen.add(look)
                shown = top.screen(look, seen.former, console.height)
            live.update(shown, refresh=True)
