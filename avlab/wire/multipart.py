"""JPEG pictures one after the other over HTTP, as multipart/x-mixed-replace (RFC 2046 5.1): what cameras send. Pure.

What is written keeps to the RFC. What is read need not: cameras leave out lengths or tell wrong ones, write boundaries
in another way than they announce them, and put text before the first part. A part is never larger than `MAX_PART`.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from avlab.wire.units import WireError

MEDIA_TYPE = "multipart/x-mixed-replace"
BOUNDARY = "avlab-picture"
CONTENT_TYPE = f"{MEDIA_TYPE}; boundary={BOUNDARY}"
"""The value of the header that announces what is written here."""

OPENING, CLOSING = f"--{BOUNDARY}".encode(), b"--\r\n"
"""What comes before the first part and behind the last one."""

MAX_PART = 8 << 20
"""Bytes of the largest part that is read; larger ones are passed over."""

MAX_HEADERS = 16 << 10
"""Bytes of one part's headers."""

MAX_PREAMBLE = 64 << 10
"""Bytes before the first part."""

MAX_LINE = 1024
"""Bytes of a line in which a boundary is looked for."""

PICTURES = frozenset(("", "image/jpeg", "image/jpg", "image/pjpeg", "application/octet-stream"))
"""Types of parts that may be a JPEG; some cameras tell none."""

_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*(.*)", re.DOTALL)
_BOUNDARY = re.compile(r';[ \t]*boundary[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"?|([^;]*))', re.IGNORECASE)
_AFTER_BOUNDARY = b"\r\n\t -"
_END_OF_IMAGE = b"\xff\xd9"  # ITU-T T.81 B.1.1.3


class BodyPart(NamedTuple):
    """One part: its type in lower case, without parameters, and its bytes."""

    kind: str
    data: bytes

    @property
    def picture(self) -> bool:
        """Whether it may be a JPEG."""
        return self.kind in PICTURES


def part(jpeg: bytes) -> bytes:
    """A picture as a part, to be written after `OPENING` or another part.

    The boundary that ends it is in it, so that whoever looks for that need not wait for the next picture.
    """
    head = f"\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return b"%b%b\r\n%b" % (head.encode(), jpeg, OPENING)


def media_type(content_type: str) -> str:
    """The type of a Content-Type header, in lower case and without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def boundary_of(content_type: str) -> str | None:
    """The boundary that a Content-Type header announces; None where it announces none."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    quoted, plain = match.groups()
    text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain.strip()
    return text or None


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    COUNTED = auto()  # in a part whose length is told
    UNCOUNTED = auto()  # in a part that ends with the next boundary
    SKIPPED = auto()  # in what is passed over up to the next boundary
    BOUNDARY = auto()  # a boundary is to come next
    OVER = auto()


class MultipartReader:
    """Takes a body apart, however it is cut. `boundary` is what the header announced, None where it announced none.

    Parts leave as soon as they are whole: with a length at once, without at the boundary after them. A picture whose
    length does not fit, as it does not end like a JPEG there, goes on to the next boundary.
    """

    def __init__(self, boundary: str | None, *, most: int = MAX_PART) -> None:
        self._most = most
        self._buffer = bytearray()
        self._state = _State.PREAMBLE
        self._known: set[bytes] = set()  # the delimiters that the header may mean
        if boundary is not None:
            named = boundary.encode("latin-1", "replace").strip()
            self._known = {b"--" + named} | ({named} if len(named) > 2 else set())
        self._delimiter = b""
        self._likely = b""  # a line of the preamble that may be one
        self._passed = 0  # bytes of the preamble, or of a part's headers
        self._kind, self._length = "", 0
        self._looked = 0  # how much of the buffer holds no delimiter
        self.too_large = 0
        """How many parts were passed over."""

    @property
    def over(self) -> bool:
        """Whether the boundary has come that says that no part follows."""
        return self._state is _State.OVER

    @property
    def held(self) -> int:
        """Bytes that are kept until more of them come."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[BodyPart]:
        """Take more of the body: the parts that are whole with it. WireError for what is not in parts at all."""
        self._buffer += data
        steps = {
            _State.PREAMBLE: self._preamble,
            _State.HEADERS: self._headers,
            _State.COUNTED: self._counted,
            _State.UNCOUNTED: self._uncounted,
            _State.SKIPPED: self._skipped,
            _State.BOUNDARY: self._boundary,
        }
        parts: list[BodyPart] = []
        while (step := steps.get(self._state)) is not None and step(parts):
            pass
        if self.over:
            self._buffer.clear()
        return parts

    def end(self) -> tuple[list[BodyPart], bool]:
        """The body has ended: the last parts, as far as they are whole, and whether one was cut short. WireError."""
        if self._state in (_State.PREAMBLE, _State.HEADERS, _State.OVER):
            return [], False
        if self._state is _State.COUNTED:  # its length may have been a wrong one
            self._state = _State.UNCOUNTED
        parts = self.feed(b"\n")  # a last line may be without its end
        data = bytes(self._buffer[:-1])
        if self._state is _State.UNCOUNTED and _ends_like_a_jpeg(data):
            return [*parts, BodyPart(self._kind, data)], False
        return parts, self._state is _State.SKIPPED or (self._state is _State.UNCOUNTED and bool(data.strip()))

    # ---- one step in each state: whether it went on to another, or further

    def _preamble(self, parts: list[BodyPart]) -> bool:
        line = self._line(MAX_PREAMBLE)
        if line is None:
            return False
        said = line.rstrip()
        if said in self._known or (not self._known and _like_a_delimiter(said)):
            self._delimiter = said
            self._go(_State.HEADERS)
        elif said.endswith(b"--") and said[:-2] in self._known:
            self._go(_State.OVER)
        elif self._likely and _HEADER.fullmatch(said):  # none that was announced, and yet it is one
            self._delimiter = self._likely
            self._go(_State.HEADERS)
            self._header(said)
        else:
            self._likely = said if _like_a_delimiter(said) else b""
        return True

    def _headers(self, parts: list[BodyPart]) -> bool:
        if self._buffer[:2] == b"\xff\xd8":  # no line at all between boundary and picture
            self._begin_part()
            return True
        line = self._line(MAX_HEADERS)
        if line is None:
            return False
        said = line.rstrip()
        if not said:
            self._begin_part()
        elif said == self._delimiter:  # a part of nothing
            self._go(_State.HEADERS)
        elif said == self._delimiter + b"--":
            self._go(_State.OVER)
        else:
            self._header(said)
        return True

    def _header(self, line: bytes) -> None:
        match = _HEADER.fullmatch(line)
        if match is None:
            return
        name, value = match[1].lower(), match[2].strip()
        if name == b"content-type":
            self._kind = media_type(value.decode("latin-1"))
        elif name == b"content-length" and re.fullmatch(rb"[0-9]{1,18}", value):
            self._length = int(value)

    def _begin_part(self) -> None:
        self._looked = 0
        if self._length > self._most:
            self.too_large += 1
            self._state = _State.SKIPPED
        else:
            self._state = _State.COUNTED if self._length else _State.UNCOUNTED

    def _counted(self, parts: list[BodyPart]) -> bool:
        if len(self._buffer) < self._length:
            return False
        data = bytes(self._buffer[: self._length])
        if self._kind in PICTURES and not _ends_like_a_jpeg(data):
            self._state = _State.UNCOUNTED
            return True
        del self._buffer[: self._length]
        parts.append(BodyPart(self._kind, data))
        self._state = _State.BOUNDARY
        return True

    def _uncounted(self, parts: list[BodyPart]) -> bool:
        at = self._find()
        if (len(self._buffer) - len(self._delimiter) - 1 if at is None else at) > self._most + 2:
            self.too_large += 1
            self._state = _State.SKIPPED
            return True
        if at is None:
            return False
        data = bytes(self._buffer[:at])
        del self._buffer[:at]
        data = data.removesuffix(b"\n").removesuffix(b"\r")  # which belong to the boundary
        if data:
            parts.append(BodyPart(self._kind, data))
        self._state = _State.BOUNDARY
        return True

    def _skipped(self, parts: list[BodyPart]) -> bool:
        at = self._find()
        gone = max(0, len(self._buffer) - len(self._delimiter)) if at is None else at
        del self._buffer[:gone]
        self._looked = max(0, self._looked - gone)
        if at is None:
            return False
        self._state = _State.BOUNDARY
        return True

    def _boundary(self, parts: list[BodyPart]) -> bool:
        blanks = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
        del self._buffer[:blanks]
        end = self._buffer.find(b"\n", 0, MAX_LINE)
        start = bytes(self._buffer[: len(self._delimiter)])
        if not self._delimiter.startswith(start) or (end < 0 and len(self._buffer) >= MAX_LINE):
            self._looked = 0
            self._state = _State.SKIPPED  # something else follows than was told
            return True
        if end < 0:
            return False
        said = bytes(self._buffer[:end]).rstrip()
        if said == self._delimiter:
            del self._buffer[: end + 1]
            self._go(_State.HEADERS)
        elif said == self._delimiter + b"--":
            self._go(_State.OVER)
        else:
            self._looked = 1
            self._state = _State.SKIPPED
        return True

    # ---- within

    def _go(self, state: _State) -> None:
        self._state, self._passed = state, 0
        self._kind, self._length = "", 0

    def _line(self, most: int) -> bytes | None:
        """The next line, with its end; None before it is whole. WireError when there are too many bytes of them."""
        end = self._buffer.find(b"\n", self._looked) + 1
        self._looked = 0 if end else len(self._buffer)
        if self._passed + (end or len(self._buffer)) > most:
            what = "before the first part" if self._state is _State.PREAMBLE else "of a part's headers"
            raise WireError(f"More than {most:,} bytes {what}: this is no stream of pictures in parts.")
        if not end:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._passed += end
        return line

    def _find(self) -> int | None:
        """Where the next delimiter is in the buffer; None where there is none that is whole."""
        size = len(self._delimiter)
        while (at := self._buffer.find(self._delimiter, self._looked)) >= 0:
            after = self._buffer[at + size : at + size + 1]
            if not after:  # whether it is one is known by what follows
                self._looked = at
                return None
            if after in _AFTER_BOUNDARY:
                self._looked = 0
                return at
            self._looked = at + 1
        self._looked = max(self._looked, len(self._buffer) - size + 1, 0)
        return None


def _like_a_delimiter(line: bytes) -> bool:
    """Whether a line may be one (RFC 2046 5.1.1 has up to 70 characters after the hyphens)."""
    return 3 <= len(line) <= 200 and line.startswith(b"--") and not line.endswith(b"--")


def _ends_like_a_jpeg(data: bytes) -> bool:
    """Whether an end-of-image marker is at the end, but for bytes that fill it up."""
    return data[-64:].rstrip(b"\0\r\n ").endswith(_END_OF_IMAGE)
