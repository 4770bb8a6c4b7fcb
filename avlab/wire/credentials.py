"""Credentials in RTSP's headers (RFC 2326 12.5, RFC 2617) and addresses: found in a stream as it is cut, and blanked.

Pure. For captures, which are handed around: sizes stay as they are, so that numbers and lengths still fit.
"""

from __future__ import annotations

import re

_HEADER = re.compile(rb"[ \t]*(?:proxy-)?authorization[ \t]*:", re.IGNORECASE)
_LOGIN = re.compile(rb"//[^/?#\s]*@")
_UNFINISHED = re.compile(rb"//?[^/?#\s@]*\Z")
_LONGEST_LOGIN = 1024

_LONGEST = 96
"""Bytes of a line within which the header's name ends."""


class Blanking:
    """One direction of a connection: text in lines, and between them interleaved packets (RFC 2326 10.12)."""

    def __init__(self) -> None:
        self._line = b""  # the beginning of the line that is under way
        self._authority = b""  # the beginning of what may be a user and a password in an address
        self._secret = self._continues = False
        self._packet = b""  # the four bytes before an interleaved packet, as far as they have come
        self._skip = 0  # bytes of it that are to come

    def blanked(self, data: bytes) -> bytes:
        """The same bytes, with stars for the value of Authorization and Proxy-Authorization, and for a user and a
        password in an address.

        Of an address that is cut within what may be a password, or a port, the rest of the piece is stars in any case.
        """
        out, at = bytearray(data), 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
            elif self._packet or (not self._line and not self._secret and data[at] == 0x24):
                step = min(4 - len(self._packet), len(data) - at)
                self._packet += data[at : at + step]
                at += step
                if len(self._packet) == 4:
                    self._skip = int.from_bytes(self._packet[2:], "big")
                    self._packet, self._continues = b"", False
            else:
                at = self._text(data, at, out)
        return bytes(out)

    def _text(self, data: bytes, at: int, out: bytearray) -> int:
        """Up to the line's end, or as much of the line as there is; where it goes on."""
        end = data.find(b"\n", at) + 1 or len(data)
        from_here = at
        if not self._secret:
            if not self._line and self._continues and data[at] in b" \t":  # a folded line
                self._secret = True
            else:
                known = len(self._line)
                self._line += data[at : min(end, at + _LONGEST - known)]
                if (found := _HEADER.match(self._line)) is not None:
                    self._secret, from_here = True, at + found.end() - known
        if self._secret:
            for place in range(max(at, from_here), end):
                if data[place] not in b"\r\n":
                    out[place] = 0x2A
        else:
            self._logins(data, at, end, out)
        if data[end - 1] == 0x0A:
            self._continues, self._secret, self._line = self._secret, False, b""
        return end

    def _logins(self, data: bytes, at: int, end: int, out: bytearray) -> None:
        """Blank users and passwords in the addresses of a line, or of as much of it as there is."""
        text = self._authority + data[at:end]
        shift = at - len(self._authority)
        spans = [(found.start() + 2, found.end() - 1) for found in _LOGIN.finditer(text)]
        unfinished = _UNFINISHED.search(text)
        self._authority = b"" if unfinished is None else unfinished[0][-_LONGEST_LOGIN:]
        if self._authority.startswith(b"//") and b":" in self._authority:
            spans.append((len(text) - len(self._authority) + self._authority.index(b":") + 1, len(text)))
        for first, last in spans:
            first, last = max(at, shift + first), max(at, shift + last)
            out[first:last] = b"*" * (last - first)
