"""What is asked of the http wire's web server, and the answers: the page and its files, pictures in parts, a WebSocket.

Each request passes the gate before anything else. No answer lets another origin read it: there is no CORS header, and
browsers are told not to show it on other pages.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any

from tornado import web
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from avlab.stream.http.gate import TICKET_NS, Denied
from avlab.stream.http.viewers import Viewer
from avlab.wire import multipart
from avlab.wire.text import person
from avlab.wire.units import NS
from avlab.wire.urls import ip_address

if TYPE_CHECKING:
    from avlab.stream.http.site import Site

MAX_MESSAGE = 1 << 10
"""Bytes of what a page says over its WebSocket."""

MESSAGES_A_SECOND = 20
"""More than that says no page of ours."""

PING_S = 20.0
"""How often a page's browser is asked whether it is still there."""

TYPES: Mapping[str, str] = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The page's files, and what they are."""

NORMAL, VIOLATION, AGAIN = 1000, 1008, 1013
"""Why a WebSocket is closed (RFC 6455 7.4.1, and IANA's registry)."""


def application(site: Site) -> web.Application:
    """All that can be asked for, below the address's token where it has one."""
    start = r"/([^/]{1,64})/" if site.gate.token else r"/()"
    given = {"site": site}
    handlers: list[Any] = [
        (start, _Page, given),
        (rf"{start}stream", _PartsResponse, given),
        (rf"{start}live", _Live, given),
        (rf"{start}hello", _Hello, given),
        (rf"{start}join", _Join, given),
        (rf"{start}login", _Login, given),
        (rf"{start}(page\.css|page\.js|icon\.svg)", _PageFile, given),
    ]
    if site.gate.token:
        handlers.append((r"/([^/]{1,64})", _Slash, given))
    return web.Application(
        handlers,
        default_handler_class=_Nothing,
        default_handler_args=given,
        log_function=lambda handler: None,
        websocket_ping_interval=min(PING_S, site.session_timeout),
        websocket_max_message_size=MAX_MESSAGE,
    )


class _Handler(web.RequestHandler):
    """What all requests have in common: they are let in or refused, and nobody else reads the answers."""

    is_page = is_websocket = False
    open_to_all = False
    """Whether who may join is not asked: for what is the same for everybody."""

    def initialize(self, site: Site) -> None:
        self.site = site

    def set_default_headers(self) -> None:
        host = self.request.headers.get("Host", "")
        sockets = f" ws://{host}" if host.replace(".", "").replace(":", "").replace("-", "").isalnum() else ""
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self'{sockets}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        for name, value in (
            ("Server", "avlab"),
            ("Connection", "close"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Security-Policy", policy),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ):
            self.set_header(name, value)

    def prepare(self) -> None:
        connection: Any = self.request.connection
        local = self.site.asked(connection.stream)
        ip = ip_address(self.request.remote_ip or "")
        self.host = str(ip or self.request.remote_ip)
        denied = self._denied(local)
        if denied is not None:
            self.deny(denied)

    def _denied(self, local: str) -> Denied | None:
        gate, request = self.site.gate, self.request
        page = self.is_page and request.method in ("GET", "HEAD")
        denied = gate.check_place(request.headers, local=local, page=page, websocket=self.is_websocket)
        denied = denied or gate.check_token(self.path_args[0] if self.path_args else "")
        return denied or (None if self.open_to_all else self.person_denied())

    def person_denied(self) -> Denied | None:
        """Why who asks may not join; None when they may."""
        request, gate = self.request, self.site.gate
        return gate.check_person(
            request.method or "",
            request.uri or "",
            authorization=request.headers.get("Authorization"),
            ticket=self.get_cookie(gate.cookie),
            host=self.host,
            now_ns=self.site.clock.now_ns(),
        )

    def finish(self, chunk: Any = None) -> asyncio.Future[None]:
        """The answer is whole. One request a connection: none that waits for another takes anybody's place."""
        done = super().finish(chunk)
        if self.get_status() != 101:  # Switching Protocols, to a WebSocket's
            connection: Any = self.request.connection
            stream = connection.stream
            done.add_done_callback(lambda future: (future.exception(), stream.close()))
        return done

    def compute_etag(self) -> None:
        """None: nothing is kept."""

    def deny(self, denied: Denied) -> None:
        """Refuse the request."""
        if denied.wrong:
            self.site.tell("client refused", f"{self.host}: a wrong guess at how to join")
        self.set_status(denied.status)
        for challenge in denied.challenges:
            self.add_header("WWW-Authenticate", challenge)
        self.finish(f"{denied.words}\n")

    def give_ticket(self) -> None:
        """Have the browser known again: it need not prove itself with every request, and cannot with a WebSocket."""
        gate = self.site.gate
        if gate.asks:
            self.set_cookie(
                gate.cookie,
                gate.ticket(self.site.clock.now_ns()),
                path=f"/{gate.token}/" if gate.token else "/",
                max_age=TICKET_NS // NS,
                httponly=True,
                samesite="Lax",
            )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish(f"{status_code} {responses.get(status_code, '')}\n")

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Nothing is printed: what nobody has foreseen is a notice."""
        if isinstance(value, Exception) and not isinstance(value, web.HTTPError | OSError):  # OSError: gone
            self.site.blame(getattr(self, "host", "a client"), value)

    def head(self, *args: str) -> None:
        self.finish()


class _Nothing(_Handler):
    """What there is not."""

    open_to_all = True

    def _denied(self, local: str) -> Denied | None:
        denied = self.site.gate.check_place(self.request.headers, local=local, page=False, websocket=False)
        if denied is None and self.site.gate.token:
            denied = self.site.gate.check_token(self.request.path.partition("/")[2].partition("/")[0])
        return denied or Denied(404, "There is nothing at this address.")


class _Slash(_Handler):
    """The page's address without its last slash."""

    is_page = open_to_all = True

    def get(self, token: str) -> None:
        self.redirect(f"/{self.site.gate.token}/")


class _Page(_Handler):
    """The page; or the pictures in parts, for a player that was given the page's address and asks for them."""

    is_page = True

    def person_denied(self) -> Denied | None:
        """A class's page is for everybody, as the code is typed into it."""
        return None if self.site.gate.by_code and not self.for_player else super().person_denied()

    @property
    def for_player(self) -> bool:
        """Whether a player asks."""
        accepted = self.request.headers.get("Accept", "")
        return multipart.MEDIA_TYPE in accepted and "text/html" not in accepted

    async def get(self, token: str) -> None:
        if self.for_player:
            await _send_parts(self)
            return
        if not self.site.gate.by_code:
            self.give_ticket()
        self.set_header("Content-Type", TYPES["page.html"])
        self.finish(self.site.files["page.html"])


class _PageFile(_Handler):
    """What the page is made of, the same for everybody."""

    open_to_all = True

    def get(self, token: str, name: str) -> None:
        self.set_header("Content-Type", TYPES[name])
        self.finish(self.site.files[name])


class _Hello(_Handler):
    """What the page asks first: what there is, or what it takes to see it."""

    open_to_all = True

    def get(self, token: str) -> None:
        self.set_header("Content-Type", "application/json")
        if self.person_denied() is not None:
            gate = self.site.gate
            self.finish(json.dumps({"asks": "code" if gate.by_code else "login", "login": gate.by_name}))
            return
        full = self.site.refusal(self.host)
        self.finish(json.dumps(self.site.shown._asdict() | {"asks": None, "full": full and full.words}))


class _Join(_Handler):
    """A class's code, typed into the page."""

    open_to_all = True

    def post(self, token: str) -> None:
        code = self.get_body_argument("code", "")
        denied = self.site.gate.check_code(code, host=self.host, now_ns=self.site.clock.now_ns())
        if denied is not None:
            self.deny(denied)
            return
        self.give_ticket()
        self.set_status(204)
        self.finish()


class _Login(_Handler):
    """A user's name and password, which the browser asks for."""

    is_page = True

    def get(self, token: str) -> None:
        self.give_ticket()
        self.redirect("./")


class _PartsResponse(_Handler):
    """The pictures in parts."""

    async def get(self, token: str) -> None:
        await _send_parts(self)

    def head(self, *args: str) -> None:
        self.set_header("Content-Type", multipart.CONTENT_TYPE)
        self.finish()


async def _send_parts(handler: _Page | _PartsResponse) -> None:
    site = handler.site
    if not site.shown.pictures:
        handler.deny(Denied(404, "There are no pictures in this stream, only sound: open its page."))
        return
    if (denied := site.refusal(handler.host)) is not None:
        handler.deny(denied)
        return
    connection: Any = handler.request.connection
    viewer = site.enter(handler.host, in_parts=True, close=connection.stream.close)
    handler.on_connection_close = viewer.leave  # type: ignore[method-assign]
    handler.set_header("Content-Type", multipart.CONTENT_TYPE)
    try:
        handler.write(multipart.OPENING)
        await handler.flush()
        while (unit := await viewer.next(site.clock.now_ns)) is not None:
            if not isinstance(unit, str):
                handler.write(unit.part)
                await handler.flush()
            viewer.written(unit)
        if not viewer.gone:
            await handler.finish(multipart.CLOSING)
    except StreamClosedError:
        return
    finally:
        site.left(viewer)


class _Live(_Handler, WebSocketHandler):
    """The page's own: pictures, sound once it is asked for, numbers."""

    is_websocket = True

    def _denied(self, local: str) -> Denied | None:
        return super()._denied(local) or self.site.refusal(self.host)

    def check_origin(self, origin: str) -> bool:
        """The gate has seen to it."""
        return True

    def open(self, token: str) -> None:
        connection: Any = self.ws_connection
        self._said: deque[int] = deque(maxlen=MESSAGES_A_SECOND)
        self.set_nodelay(True)
        self._viewer = self.site.enter(self.host, in_parts=False, close=connection.stream.close)
        self._sending = asyncio.ensure_future(self._send(self._viewer))

    async def _send(self, viewer: Viewer) -> None:
        site = self.site
        try:
            while (unit := await viewer.next(site.clock.now_ns)) is not None:
                if isinstance(unit, str):
                    await self.write_message(unit)
                else:
                    await self.write_message(unit.message, binary=True)
                viewer.written(unit)
            self.close(NORMAL, "end")
        except (WebSocketClosedError, StreamClosedError):
            return
        except Exception as error:
            site.blame(self.host, error)
            self.close(AGAIN)
        finally:
            site.left(viewer)

    def on_message(self, message: str | bytes) -> None:
        now_ns = self.site.clock.now_ns()
        often = len(self._said) == MESSAGES_A_SECOND and now_ns - self._said[0] < NS
        self._said.append(now_ns)
        wants = _wants(message)
        if wants is None or often:
            self.close(VIOLATION)
            return
        self._viewer.sees = wants.get("pictures", self._viewer.sees) is True
        self._viewer.hears = wants.get("sound", self._viewer.hears) is True
        if isinstance(name := wants.get("name"), str):
            self._viewer.name = person(name)

    def on_close(self) -> None:
        if hasattr(self, "_viewer"):
            self._viewer.leave()


def _wants(message: str | bytes) -> dict[str, Any] | None:
    """What a page says it wants; None for what no page of ours says."""
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
