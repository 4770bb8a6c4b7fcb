"""How people in a room join a server: addresses, a class's code, and both as a QR code, in text or as a picture."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from avlab.stream.joining import CLASS_USER
from avlab.stream.sockets.addresses import EVERY_ADDRESS, first_address, own_addresses

if TYPE_CHECKING:
    import segno

QUIET_ZONE = 4
"""Light modules around a QR code, of which it needs as many (ISO/IEC 18004)."""

BLACK_ON_WHITE, AS_BEFORE = "\x1b[30;107m", "\x1b[0m"

HALVES = {(0, 0): " ", (1, 0): "\u2580", (0, 1): "\u2584", (1, 1): "\u2588"}
"""Two modules above each other are one character."""


class Invitation:
    """What to tell people who are to join. `str()` has it in lines, a notebook shows it as a page; `repr` has no code.

    `url` is where the server is for this machine, `host` what it was told to listen on, `code` the class's, or empty.
    """

    def __init__(self, url: str, host: str, code: str = "") -> None:
        self.code = code
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._path = f":{parts.port}{parts.path}"
        self._hosts = [urlsplit(url).netloc.rpartition(":")[0]]
        if host in EVERY_ADDRESS:
            found = [own.in_url for own in own_addresses(host) if own.kind == "global"]
            first = first_address(host)
            self._hosts = sorted(found, key=lambda each: each != first) or self._hosts

    @property
    def addresses(self) -> list[str]:
        """Where the server is for other machines, the likeliest first; for this one alone where it has no network."""
        return [f"{self._scheme}://{host}{self._path}" for host in self._hosts]

    @property
    def links(self) -> list[str]:
        """The same with the code, as any player takes it, or a page: behind a #, which browsers tell nobody."""
        if self._scheme == "http":
            return [f"{address}#{self.code}" if self.code else address for address in self.addresses]
        login = f"{CLASS_USER}:{self.code}@" if self.code else ""
        return [f"{self._scheme}://{login}{host}{self._path}" for host in self._hosts]

    @property
    def lines(self) -> list[str]:
        """How to join, in words."""
        first, link = self.addresses[0], self.links[0]
        if self._scheme == "http":
            code = f" --code {self.code}" if self.code else ""
            told = [f"class code: {self.code}"] if self.code else []
            return [*told, f"open it in any browser, on a phone too: {first}", f"or: avlab play {first}{code}"]
        if not self.code:
            return [f"play it: avlab play {first}"]
        return [
            f"class code: {self.code}",
            f"join with avlab: avlab play {first} --code {self.code}",
            f"join with any other player: {link}",
        ]

    def qr(self, *, colours: bool = False) -> str:
        """The first of `links` as a QR code of half blocks, dark on light; with `colours` for a terminal of any."""
        rows = [list(row) for row in self._made().matrix_iter(border=QUIET_ZONE)]
        if len(rows) % 2:
            rows.append([0] * len(rows[0]))
        lines = [
            "".join(HALVES[bool(above), bool(below)] for above, below in zip(*pair, strict=True))
            for pair in zip(rows[::2], rows[1::2], strict=True)
        ]
        return "\n".join(f"{BLACK_ON_WHITE}{line}{AS_BEFORE}" for line in lines) if colours else "\n".join(lines)

    def svg(self) -> str:
        """The first of `links` as a QR code, a picture in SVG."""
        out = io.BytesIO()
        self._made().save(
            out, kind="svg", scale=5, border=QUIET_ZONE, light="#fff", xmldecl=False, svgns=True, nl=False
        )
        return out.getvalue().decode()

    def _made(self) -> segno.QRCode:
        import segno  # for who asks for one

        return segno.make(self.links[0], micro=False, error="m")

    def __str__(self) -> str:
        return "\n".join([*self.lines, self.qr()])

    def __repr__(self) -> str:
        return f"<Invitation to {self.addresses[0]}>"

    def _repr_html_(self) -> str:
        return f"<div>{self.svg()}{_paragraphs(self.lines)}</div>"


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
