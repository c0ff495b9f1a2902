"""The page to look at: its files, its sessions, what it shows, pictures of flagged inputs. Nothing can be changed here.

The files are the same for everybody and say nothing of this Guard; all else is behind the token, or a session that was
begun with it. Sessions travel in a header and are kept in the tab: no cookie, which a browser would send to every port
of the host. So no other page can use them, and there is no forgery to fear.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from importlib import resources

from guard.places import Place
from guard.proxy import pictures
from guard.proxy.admin_http import Request, Response, refused, text
from guard.proxy.aside import Aside, Busy
from guard.proxy.door import SESSION_S, Door, Knock
from guard.proxy.overview import Away, Overview
from guard.proxy.pictures import NoPicture, NotThere
from guard.quarantining import open_place
from guard.settings import ConfigError
from guard.settings import Quarantine as QuarantineSettings

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PICTURE_S = 8.0
"""The longest that a picture is waited for, the pictures before it included."""
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PICTURE = re.compile(r"/pictures/([0-9a-f]{32}(?:\.\d{1,18})?)/(\d{1,9})")
_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}


class AdminPage:
    """What is answered. quarantine: its settings in force."""

    def __init__(self, door: Door, overview: Overview, quarantine: Callable[[], QuarantineSettings]) -> None:
        self._door, self._overview, self._quarantine = door, overview, quarantine
        folder = resources.files("guard.proxy") / "static"
        self._files = {
            path: Response(HTTPStatus.OK, (folder / name).read_bytes(), kind, _HEADERS)
            for path, (name, kind) in _FILES.items()
        }
        self._opened: tuple[QuarantineSettings, Place | None] | None = None
        self._drawing = Aside("guard-pictures", PICTURE_S)

    async def run(self) -> None:
        """What goes on while nobody looks."""
        await self._overview.run()

    async def answer(self, request: Request) -> Response | None:
        """None: no path of the page's."""
        file = self._files.get(request.path)
        picture = _PICTURE.fullmatch(request.path)
        if request.path == "/session":
            return self._session(request)
        if file is None and picture is None and request.path != "/overview":
            return None
        if request.method not in {"GET", "HEAD"}:
            return _not_allowed("GET, HEAD")
        if file is not None:
            return file
        knock = self._door.look(request.headers.get("authorization"), request.visitor)
        if knock is not Knock.OPEN:
            return refused(knock)
        return await (self._shown() if picture is None else self._picture(picture[1], int(picture[2])))

    def _session(self, request: Request) -> Response:
        header = request.headers.get("authorization")
        if request.method == "DELETE":
            self._door.leave(header)
            return Response(HTTPStatus.NO_CONTENT)
        if request.method != "POST":
            return _not_allowed("POST, DELETE")
        knock = self._door.knock(header, request.visitor)
        if knock is not Knock.OPEN:
            return refused(knock)
        return _json(json.dumps({"session": self._door.seat(), "seconds": SESSION_S}).encode())

    async def _shown(self) -> Response:
        try:
            return _json(await self._overview.document())
        except Away:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "no worker answers")

    async def _picture(self, decision_id: str, row: int) -> Response:
        """Of decisions that were shown, and no others."""
        known = self._overview.pictures.get(decision_id)
        if known is None:
            return text(HTTPStatus.NOT_FOUND, "not found")
        try:
            drawn = await self._drawing.run(partial(self._draw, decision_id, row, known))
        except NoPicture:
            return text(HTTPStatus.NOT_FOUND, "no picture")
        except NotThere:  # the quarantine is written a moment later: no mistake of who asks
            return Response(HTTPStatus.NO_CONTENT)
        except Busy:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the quarantine is busy")
        except (OSError, ConfigError):
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "the quarantine is away")
        return Response(HTTPStatus.OK, drawn, "image/png", _HEADERS)

    def _draw(self, decision_id: str, row: int, known: tuple[float, dict[str, object]]) -> bytes:
        place = self._place()
        if place is None:
            raise NoPicture
        return pictures.draw(place, decision_id, known[0], row, known[1])

    def _place(self) -> Place | None:
        settings = self._quarantine()
        if self._opened is None or self._opened[0] != settings:
            self._opened = settings, open_place(settings)
        return self._opened[1]


def _json(body: bytes) -> Response:
    return Response(HTTPStatus.OK, body, "application/json", _HEADERS)


def _not_allowed(methods: str) -> Response:
    return text(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", {"Allow": methods})
