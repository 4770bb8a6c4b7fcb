"""What a server sends on its RTSP connection, read liberally: answers and packets, and whatever else is between them.

Pure: bytes in, events out; and what is said to a server that asks by itself. Requests of clients are read by
`rtsp.MessageReader`, which refuses what this passes over: of an answer a client needs a few words, and a server that
adds others is still one that plays.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress

from avlab.wire.rtsp import (
    MAX_BODY,
    MAX_HEADERS,
    Event,
    EventReader,
    Headers,
    Interleaved,
    Request,
    Response,
    RtspError,
    SessionHeader,
    parse_head,
    parse_start,
)

MAX_STRAY = 256 << 10
"""Bytes passed over in a row until the connection is given up: four of the largest packets."""

_ONCE = ("cseq", "session", "content-length", "content-type", "content-base", "content-location", "location", "range")
"""Headers that have one value: the first, when a server writes them twice."""

MOST_SEEN = 64
"""Sources kept of what looks like a packet out of step, and is followed by nothing that is known."""

_RTCP = 192  # stands for all of its packet types
_LEAST = 8
"""Bytes of the smallest RTP or RTCP packet that is looked for: a BYE."""

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_ANSWER = re.compile(rb"RTSP/[0-9]\.[0-9]\s+[1-9][0-9]{2}", re.IGNORECASE)
_MESSAGE = re.compile(rb"RTSP/[0-9]\.|[A-Z_]{3,20} (?:rtsp[su]?://|\*|/)", re.IGNORECASE)
_BEGINNING = re.compile(rb"[A-Za-z_][ -~]{0,30}")
_BEGINNINGS = b"$\r\nRAGOS"
"""How that begins which may follow a packet: another one, an answer, or what servers ask of clients."""
_LONGEST_FOLLOWING = 11
_FOLLOWING = re.compile(rb"\r?\n(?=RTSP/[0-9]\.[0-9] )")
_SIGNS = re.compile(rb"\$|RTSP/", re.IGNORECASE)
_OTHERS = re.compile(rb"HTTP/[0-9]|SSH-|220[ -]|<[!A-Za-z]")
"""How servers of other kinds begin, which is sooner said than waited for."""


class Answers(EventReader):
    """Turns the bytes of a client's connection, however cut, into the answers and packets that they hold.

    Between packets and before answers there may be bytes that belong to neither: the way back into step is found at
    the next answer, or at a packet that is where it should be: on a channel that is known, with the version of RTP, and
    either of a source that was heard before, or met twice, or followed by another one or by an answer. Packets on
    channels that were not agreed on are passed over and counted. Held at any time are at most one head and one body,
    or one packet, beside the bytes just fed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels: Collection[int] = ()
        """The channels that were agreed on; while there are none, any may be."""
        self.skipped = 0
        """Bytes passed over so far."""
        self.unclaimed: Counter[int] = Counter()
        """How many packets were passed over on each channel that was not agreed on (RFC 2326 10.12)."""
        self._searched = 0  # bytes of the head already searched for its end; all of them, once its end was found
        self._wanted = 0  # bytes of the whole message, once its head was read; -1 when that does not tell
        self._body = self._looked = 0  # then: where the body begins, and up to where it is searched for its end
        self._stray = 0  # bytes passed over since the last event
        self._sample = b""  # how they began
        self._lost = False  # whether the way back into step is looked for
        self._heard = False  # whether anything was understood yet
        self._last: dict[int, bytes] = {}  # the last packet of each channel
        self._sources: set[tuple[int, bytes]] = set()  # theirs, once they are asked for
        self._ssrcs: set[bytes] = set()
        self._seen: deque[tuple[int, bytes]] = deque(maxlen=MOST_SEEN)  # sources of what may have been packets

    @property
    def open_ended(self) -> bool:
        """Whether an answer's head is here, and a body whose length it does not tell."""
        return self._wanted < 0

    @property
    def stray(self) -> bytes:
        """How that began which was passed over last; empty while all is in step."""
        return self._sample if self._stray else b""

    def end(self) -> list[Event]:
        """Nothing more comes: the answer whose body is as long as what is here, if there is one."""
        if self.error is not None or not self._wanted:
            return []
        start, items = parse_head(self._buffer[: self._searched].decode("utf-8", "replace"))
        event = parse_start(start, _headers(items), bytes(self._buffer[self._body :]))
        self._buffer.clear()
        self._searched = self._wanted = 0
        return [event]

    def _read(self, position: int) -> tuple[Event | None, int]:
        event, position = self._find_step(position) if self._lost else self._read_in_step(position)
        if event is not None:
            self._heard, self._stray = True, 0
        return event, position

    def _read_in_step(self, position: int) -> tuple[Event | None, int]:
        buffer = self._buffer
        size = len(buffer)
        while True:
            while position < size and buffer[position] in b"\r\n":
                position += 1
            if position == size:
                return None, position
            if buffer[position] != 0x24:  # "$"
                if self._wanted or _MESSAGE.match(buffer, position):
                    return self._read_message(position)
                if size < position + 32 and _BEGINNING.fullmatch(buffer, position):
                    return None, position  # of a message, perhaps
                break
            if size < position + 5:
                return None, position
            channel = buffer[position + 1]
            end = position + 4 + (buffer[position + 2] << 8 | buffer[position + 3])
            is_rtp = buffer[position + 4] & 0xC0 == 0x80
            if self._known(channel):
                if not is_rtp and end != position + 4:
                    break
                if size < end:
                    return None, position
                data = bytes(buffer[position + 4 : end])
                self._last[channel] = data
                return Interleaved(channel, data), end
            if not is_rtp or end < position + 4 + _LEAST:
                break
            if size <= end:
                return None, position
            if buffer[end] not in _BEGINNINGS:  # it is no packet, or has another length
                break
            self.unclaimed[channel] += 1
            self._heard, self._stray, position = True, 0, end
        self._lost = True
        return self._find_step(position)

    def _known(self, channel: int) -> bool:
        return not self.channels or channel in self.channels

    def _may_be_on(self, channel: int) -> bool:
        return self._known(channel) or channel in self.unclaimed

    def _read_message(self, position: int) -> tuple[Event | None, int]:
        buffer = self._buffer
        size = len(buffer) - position
        if size < self._wanted:
            return None, position
        if (
            self._wanted < 0
            and size - self._body <= MAX_BODY
            and not _FOLLOWING.search(buffer, position + self._looked)
        ):
            self._looked = max(self._body, size - _LONGEST_FOLLOWING)
            return None, position
        # A head is searched once: from three bytes before the end of what was searched, where its end may begin.
        match = _HEAD_END.search(buffer, max(position, position + self._searched - 3))
        head_end = match.start() if match else len(buffer)
        if head_end - position > MAX_HEADERS:
            raise RtspError(f"The RTSP message's headers are over {MAX_HEADERS} bytes.", 413)
        if match is None:
            self._searched = head_end - position
            return None, position
        start, items = parse_head(buffer[position:head_end].decode("utf-8", "replace"))
        headers = _headers(items)
        length = _body_length(headers)
        if self.channels and (length is None or length > MAX_BODY):
            length = 0  # packets follow; the one body that counts came before there were any
        elif length is not None and length > MAX_BODY:
            raise RtspError(f"The RTSP message's body is {length} bytes; {MAX_BODY} is the most.", 413)
        if length is None:
            following = _FOLLOWING.search(buffer, match.end())
            if following is None and len(buffer) - match.end() > MAX_BODY:
                raise RtspError(f"The RTSP message's body is over {MAX_BODY} bytes.", 413)
            end = following.end() if following else len(buffer) + 1
        else:
            end = match.end() + length
        if len(buffer) < end:
            self._searched = head_end - position
            self._wanted = end - position if length is not None else -1
            self._body = self._looked = match.end() - position
            return None, position
        self._searched = self._wanted = 0
        return parse_start(start, headers, bytes(buffer[match.end() : end])), end

    # ---- out of step

    def _find_step(self, position: int) -> tuple[Event | None, int]:
        """Pass over bytes up to where it goes on, as far as that can be told yet."""
        buffer = self._buffer
        if not self._heard and _OTHERS.match(buffer, position):
            line = bytes(buffer[position : position + 60]).splitlines()[0].decode("ascii", "replace")
            raise RtspError(f"This is no RTSP message: its first line is {line!r}.")
        self._sources = {source for packet in self._last.values() if (source := _source(packet)) is not None}
        self._ssrcs = {ssrc for _, ssrc in self._sources}
        found = undecided = None
        for sign in _SIGNS.finditer(buffer, position):
            at = sign.start()
            good = self._goes_on_at(at)
            if good is False and undecided is None:  # so that it is passed over now
                good = self._met_twice(at)
            if good:
                found = at
                break
            if good is None and undecided is None:
                undecided = at
        stop = found if found is not None else undecided
        if stop is None:  # the last bytes may begin a sign
            stop = max(position, len(buffer) - 4)
        self._pass_over(position, stop)
        if found is None:
            return None, stop
        self._lost = False
        return self._read_in_step(stop)

    def _goes_on_at(self, at: int) -> bool | None:
        """Whether an answer or a packet begins there; None when that cannot be told yet."""
        buffer = self._buffer
        size = len(buffer)
        if buffer[at] != 0x24:
            return True if _ANSWER.match(buffer, at) else None if size < at + 12 else False
        if size < at + 5:
            return None
        length = buffer[at + 2] << 8 | buffer[at + 3]
        if not self._may_be_on(buffer[at + 1]) or length < _LEAST or buffer[at + 4] & 0xC0 != 0x80:
            return False
        source = _source(buffer[at + 4 : at + 16])
        if source is not None and (source in self._sources or (source[0] == _RTCP and source[1] in self._ssrcs)):
            return True
        end = at + 4 + length
        if size < end + 2:
            return None if size <= end or buffer[end] in b"$R\r\n" else False
        follows = bytes(buffer[end : end + 2])
        return (follows[:1] == b"$" and self._may_be_on(follows[1])) or follows in (b"RT", b"\r\n")

    def _met_twice(self, at: int) -> bool:
        """Whether what looks like a packet, with strays behind it, is of a source that another one was of.

        Chance does not make up the same source twice. Asked once of each place.
        """
        buffer = self._buffer
        if buffer[at] != 0x24 or buffer[at + 1] not in self.channels or buffer[at + 4] & 0xC0 != 0x80:
            return False
        source = _source(buffer[at + 4 : at + 4 + (buffer[at + 2] << 8 | buffer[at + 3])][:12])
        if source is None or source[0] == _RTCP:
            return False
        twice = source in self._seen
        self._seen.append(source)
        return twice

    def _pass_over(self, position: int, stop: int) -> None:
        if not self._stray:
            self._sample = bytes(self._buffer[position : min(stop, position + 24)])
        self._stray += stop - position
        self.skipped += stop - position
        if self._stray > MAX_STRAY:
            raise RtspError(
                f"This is no RTSP: {self._stray} bytes had to be passed over, the first of them {self._sample!r}."
            )


ASKED_OF_CLIENTS = ("OPTIONS", "ANNOUNCE", "GET_PARAMETER", "SET_PARAMETER")
"""What a server may ask, and a client has an answer to (RFC 2326 10.1, 10.3, 10.8, 10.9)."""


def reply_to(request: Request) -> Response:
    """What is said to a server that asks by itself (RFC 2326 section 10): that one is there, and has no parameters."""
    headers = {}
    if number := re.match(r"\s*([0-9]{1,10})", request.headers.get("CSeq", ""), re.ASCII):
        headers["CSeq"] = number[1]
    with suppress(RtspError):
        headers["Session"] = SessionHeader.parse(request.headers.get("Session", "")).id
    status = 200
    if "Require" in request.headers:  # nothing that could be required is known here (12.32)
        status, headers["Unsupported"] = 551, request.headers["Require"]
    elif request.method not in ASKED_OF_CLIENTS:
        status = 501
    elif request.method == "OPTIONS":
        headers["Public"] = ", ".join(ASKED_OF_CLIENTS)
    elif request.body and request.method != "ANNOUNCE":
        status = 451
    return Response(status, "", Headers(headers))


def _source(packet: bytes | bytearray) -> tuple[int, bytes] | None:
    """The payload type and the SSRC of an RTP packet, or the SSRC of an RTCP one; None when they are not all there."""
    if len(packet) >= _LEAST and 192 <= packet[1] <= 223:  # RFC 5761 section 4
        return _RTCP, bytes(packet[4:8])
    return (packet[1] & 0x7F, bytes(packet[8:12])) if len(packet) >= 12 else None


def _headers(items: list[tuple[str, str]]) -> Headers:
    """The headers of an answer: of those that have one value the first counts."""
    seen: set[str] = set()
    kept = []
    for name, value in items:
        if name.lower() not in _ONCE or name.lower() not in seen:
            kept.append((name, value))
        seen.add(name.lower())
    return Headers(kept)


def _body_length(headers: Headers) -> int | None:
    """The bytes of the body; None when it has a kind and no length, so that only its end can tell."""
    match = re.match(r"\s*([0-9]{1,12})(?![0-9])", headers.get("content-length", ""), re.ASCII)
    if match is None:
        return None if "sdp" in headers.get("content-type", "").lower() else 0
    return int(match[1])
