"""Which requests are heard: those to an own name, from an own page, with the address's token, by who may join.

A page of another origin can have a browser ask for anything (RFC 6454), and a name of its own lead here (DNS
rebinding): the Host, Origin, Sec-Fetch-Site and Referer headers tell. Knows no server and no socket; time is an
argument.
"""

from __future__ import annotations

import hmac
import re
import secrets
import socket
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from avlab.stream.joining import CLASS_USER, CODE_LETTERS, read_code
from avlab.stream.places import is_loopback
from avlab.stream.sockets.addresses import EVERY_ADDRESS
from avlab.wire.admission import FORBIDDEN, UNAUTHORIZED, Admission
from avlab.wire.units import NS
from avlab.wire.urls import ip_address, same_host

TOKEN_LENGTH = 12
"""Letters of `CODE_LETTERS`, in small letters: 50 bits, and still to be typed on a phone."""

TICKET_NS = 12 * 3600 * NS
"""How long a page is known again by the cookie that it was given."""

MOST_TICKETS = 4096
"""That are known; beyond, the oldest are good no more."""

HTTP_PORT = 80

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@?#]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Denied:
    """How a request is to be refused: a status of HTTP, a sentence, and the values of WWW-Authenticate headers."""

    status: int
    words: str
    challenges: tuple[str, ...] = ()
    wrong: bool = False
    """Whether it was a wrong guess at a password."""


def new_token() -> str:
    """What an address has that nobody guesses."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(TOKEN_LENGTH)).lower()


class Gate:
    """Judges requests to a server that was told to listen on `host`. `token` is empty where only this machine can ask.

    `by_code` is whether a class's code lets in, typed into the page, `by_name` whether a user's name and password do.
    One thread's.
    """

    def __init__(self, host: str, *, admission: Admission | None, by_code: bool = False, by_name: bool = False) -> None:
        self.token = "" if host == "localhost" or is_loopback(host) else new_token()
        self.by_code, self.by_name = by_code, by_name
        self.port = 0
        """Where it listens, once it does."""
        self._host, self._admission = host, admission
        self._tickets: OrderedDict[str, int] = OrderedDict()  # until when each is good
        name = socket.gethostname().lower()
        self._names = {name, f"{name}.local", host.lower()} - {"", ".local", *EVERY_ADDRESS}

    @property
    def cookie(self) -> str:
        """The name of the cookie that has a ticket: cookies of one host are for all its ports (RFC 6265 8.5)."""
        return f"avlab-{self.port}"

    @property
    def asks(self) -> bool:
        """Whether only some may join."""
        return self._admission is not None

    # ---- where a request comes from

    def check_place(self, headers: Mapping[str, str], *, local: str, page: bool, websocket: bool) -> Denied | None:
        """Whether a request asks for an own name, and no page of another origin has it made: None, or the refusal.

        `local` is the address of this machine at which it came. A link on another page may lead to a `page`, and to
        nothing else. Browsers send an Origin with each WebSocket (RFC 6455 4.1): a `websocket` without is refused.
        """
        host = headers.get("Host", "")
        asked = _place_of(host)
        if asked is None or asked[1] != self.port or not self._own(asked[0], local):
            return Denied(
                FORBIDDEN,
                "The Host of this request is none of this server's: use the address that the server printed.",
            )
        origin = headers.get("Origin")
        other = Denied(FORBIDDEN, "This request comes from a page of another origin, and is refused.")
        if (origin is None and websocket) or (origin is not None and not _same_origin(origin, asked)):
            return other
        if page and headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document":
            return None
        if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return other
        referrer = headers.get("Referer")
        if not page and referrer is not None and not _same_origin(referrer, asked):
            return other
        return None

    def _own(self, name: str, local: str) -> bool:
        """Whether this machine goes by that name where it was asked at this address."""
        if ip_address(name) is not None:
            return same_host(name, local.partition("%")[0]) or (is_loopback(name) and is_loopback(local))
        return name in self._names or (name == "localhost" and is_loopback(local))

    def check_token(self, told: str) -> Denied | None:
        """Whether an address has the token that it needs."""
        if hmac.compare_digest(told.lower().encode("utf-8", "replace"), self.token.encode()):
            return None
        return Denied(FORBIDDEN, "This address is not complete: use all of the address that the server printed.")

    # ---- who asks

    def check_person(
        self, method: str, uri: str, *, authorization: str | None, ticket: str | None, host: str, now_ns: int
    ) -> Denied | None:
        """Whether a request comes from somebody who may join: by a ticket, or by Digest (RFC 7616)."""
        if self._admission is None or self._known(ticket, now_ns):
            return None
        refusal = self._admission.check(method, uri, authorization, host=host, now_ns=now_ns)
        if refusal is None:
            return None
        words = refusal.reason or "This server wants a user name and a password"
        if self.by_code and not refusal.reason:
            words += f"; for a class the user is {CLASS_USER!r} and the password its code"
        return Denied(refusal.status, f"{words}.", refusal.challenges, refusal.wrong)

    def check_code(self, code: str, *, host: str, now_ns: int) -> Denied | None:
        """Whether what was typed into the page is the class's code."""
        try:
            told = read_code(code)
        except ValueError as error:
            return Denied(FORBIDDEN, f"{error}.")
        if self._admission is None or not self.by_code:
            return None
        refusal = self._admission.check_password(CLASS_USER, told, host=host, now_ns=now_ns)
        if refusal is None:
            return None
        words = "This is not the class's code" if refusal.status == UNAUTHORIZED else refusal.reason
        return Denied(FORBIDDEN, f"{words}.", wrong=refusal.wrong)

    def ticket(self, now_ns: int) -> str:
        """What a page that may join is known by from now on."""
        made = secrets.token_urlsafe(24)
        self._tickets[made] = now_ns + TICKET_NS
        while len(self._tickets) > MOST_TICKETS:
            self._tickets.popitem(last=False)
        return made

    def _known(self, ticket: str | None, now_ns: int) -> bool:
        return ticket is not None and now_ns < self._tickets.get(ticket, 0)


def _place_of(authority: str) -> tuple[str, int] | None:
    """The host, in lower case and without brackets, and the port of a Host header; None for what is none."""
    match = _AUTHORITY.fullmatch(authority.strip())
    if match is None:
        return None
    return match[1].strip("[]").lower().removesuffix("."), int(match[2] or HTTP_PORT)


def _same_origin(url: str, asked: tuple[str, int]) -> bool:
    """Whether an origin, or an address on a page of it, is that of this server (RFC 6454 4)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and _place_of(parts.netloc) == asked
