"""RTSP 1.0 (RFC 2326): requests, responses and interleaved packets as bytes, the headers' values, session states.

Pure: bytes in, events out. What a method does to a stream is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from avlab.wire.units import WireError

MAX_HEADERS = 16 << 10
MAX_BODY = 64 << 10
"""Bytes of the largest head, line and headers together, and of the largest body that is read."""

DEFAULT_PORT = 554
DEFAULT_TIMEOUT = 60
"""Seconds after which a silent session ends, when its Session header names no other time (RFC 2326 12.37)."""

PRODUCT = "avlab"
"""What avlab's clients and servers call themselves (RFC 2326 12.36 and 12.41; RFC 8866 6.4)."""

REPAIR_HEADER = "X-Repair"
"""In SETUP, which of the repairs in the description a client wants, by name: `rtx`, `fec`, anyone's own, or several
with commas between, or `none`; in the answer what it gets, and the SSRC of what is a stream of its own, as in
`rtx;ssrc=1234ABCD`. RFC 2326 has no word for it; headers that the other side may ignore can be added (1.5). A client
without it that asks for RTP/AVPF has its NACKs answered (RFC 4585, RFC 4588)."""

NO_REPAIR = "none"
"""What a client that wants no repair writes there."""

STATUS = {
    100: "Continue",
    200: "OK",
    201: "Created",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    303: "See Other",
    304: "Not Modified",
    305: "Use Proxy",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Time-out",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    415: "Unsupported Media Type",
    416: "Blocksize Not Understood",
    451: "Parameter Not Understood",
    452: "Conference Not Found",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    456: "Header Field Not Valid for Resource",
    457: "Invalid Range",
    458: "Parameter Is Read-Only",
    459: "Aggregate Operation Not Allowed",
    460: "Only Aggregate Operation Allowed",
    461: "Unsupported Transport",
    462: "Destination Unreachable",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
    551: "Option not supported",
}
"""Status codes and their reasons (RFC 2326 7.1.1)."""


class RtspError(WireError):
    """A message or a method that is refused; `status` is the code a server answers with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


# ---- messages


class Headers(Mapping[str, str]):
    """Header names and values; names differ in nothing by their case. A name given twice has its values joined by
    a comma (RFC 2616 4.2), and keeps its lines. Raises RtspError for a name or value that would break the message.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._items: dict[str, tuple[str, tuple[str, ...]]] = {}
        pairs = items.lines() if isinstance(items, Headers) else items.items() if isinstance(items, Mapping) else items
        for name, value in pairs:
            if not _TOKEN.fullmatch(name) or "\r" in value or "\n" in value:
                raise RtspError(f"The header {name[:40]!r} has a name or a value that RTSP does not allow.")
            first, values = self._items.get(name.lower(), (name, ()))
            self._items[name.lower()] = first, (*values, value)

    def lines(self) -> Iterator[tuple[str, str]]:
        """A name and a value for each line: challenges are read by many clients only where each has a line."""
        return ((name, value) for name, values in self._items.values() for value in values)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._items[name.lower()][1])

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._items

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        mine, theirs = ({str(name).lower(): value for name, value in side.items()} for side in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({dict(self)})"


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")


class _Message:
    """What requests and responses have in common."""

    __slots__ = ()
    headers: Headers
    body: bytes

    @property
    def cseq(self) -> int:
        """The number that a request and its response share (RFC 2326 12.17). Raises RtspError when there is none."""
        value = self.headers.get("CSeq", "")
        if not re.fullmatch(r"[0-9]{1,10}", value.strip()):
            raise RtspError(f"An RTSP message needs a CSeq header with a number, not {value[:40]!r}.")
        return int(value)

    def _serialize(self, start: str) -> bytes:
        if "\r" in start or "\n" in start:
            raise RtspError(f"The first line of an RTSP message must not contain a line break: {start[:60]!r}.")
        lines = [start, *(f"{name}: {value}" for name, value in self.headers.lines() if name.lower() != _LENGTH)]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + self.body


_LENGTH = "content-length"


@dataclass(frozen=True, slots=True)
class Request(_Message):
    """A method asked of an address (RFC 2326 section 6). `Content-Length` is made from the body."""

    method: str
    uri: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def serialize(self) -> bytes:
        """The message's bytes. Raises RtspError for a method or an address that would break its first line."""
        if not _TOKEN.fullmatch(self.method) or not self.uri or re.search(r"\s", self.uri):
            raise RtspError(f"{self.method[:20]!r} of {self.uri[:60]!r} is no RTSP request: no blanks are allowed.")
        return self._serialize(f"{self.method} {self.uri} RTSP/1.0")


@dataclass(frozen=True, slots=True)
class Response(_Message):
    """The answer to a request (RFC 2326 section 7); an empty reason stands for the usual one."""

    status: int
    reason: str = ""
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def serialize(self) -> bytes:
        """The message's bytes. Raises RtspError when the status is not of three digits."""
        if not 100 <= self.status <= 999:
            raise RtspError(f"An RTSP status has three digits, not {self.status}.")
        return self._serialize(f"RTSP/1.0 {self.status} {self.reason or STATUS.get(self.status, 'Unknown')}")


class Interleaved(NamedTuple):
    """One RTP or RTCP packet on the RTSP connection (RFC 2326 10.12). A named tuple, as thousands come in a second."""

    channel: int
    data: bytes

    def serialize(self) -> bytes:
        """The packet with its four bytes of frame."""
        return interleave(self.channel, self.data)


Event: TypeAlias = Request | Response | Interleaved


def without_credentials(uri: str) -> str:
    """An address without the `user:password@` that it may have."""
    return CREDENTIALS.sub("//", uri, count=1)


CREDENTIALS = re.compile(r"//[^/?#\s]*@")
"""What is to be replaced by `//` in an address, or in words that cite one, before anybody reads it."""


def interleave(channel: int, packet: bytes) -> bytes:
    """Frame a packet for the RTSP connection: `$`, channel, length (RFC 2326 10.12). Raises WireError on size."""
    if not 0 <= channel <= 255 or len(packet) > 0xFFFF:
        raise WireError(
            f"An interleaved packet has a channel of 0 to 255 and at most 65535 bytes, not {channel} and {len(packet)}."
        )
    return b"$" + bytes((channel, len(packet) >> 8, len(packet) & 0xFF)) + packet


class EventReader:
    """The bytes of one connection, however cut, as events; who derives from it says in `_read` what begins where."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.error: RtspError | None = None
        """Why nothing more can be read of this connection."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order.

        Raises RtspError when nothing can be understood of the bytes or they break a bound, and again on every later
        call. Events read before the fault in the same call are returned first; `error` is set by then.
        """
        events: list[Event] = []
        if self.error is None:
            self._buffer += data
            try:
                self._read_all(events)
            except RtspError as error:
                self.error = error
                self._buffer.clear()
        if self.error is not None and not events:
            raise self.error
        return events

    def _read_all(self, events: list[Event]) -> None:
        position = 0
        try:
            while True:
                event, position = self._read(position)
                if event is None:
                    return
                events.append(event)
        finally:
            del self._buffer[:position]

    def _read(self, position: int) -> tuple[Event | None, int]:
        """The event at `position` of the buffer and where the next begins; None when it is not all there."""
        raise NotImplementedError


class MessageReader(EventReader):
    """Turns the bytes of one connection, however cut, into the messages and packets that they hold.

    Held at any time are at most one head and one body, or one packet, beside the bytes just fed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._searched = 0  # bytes of the head already searched for its end
        self._wanted = 0  # bytes of the whole message, once its head was read

    def _read(self, position: int) -> tuple[Event | None, int]:
        buffer = self._buffer
        size = len(buffer)
        # Blank lines before a message are to be ignored (RFC 2616 4.1).
        while position < size and buffer[position] in b"\r\n":
            position += 1
        if position < size and buffer[position] == 0x24:  # "$"
            if size < position + 4:
                return None, position
            end = position + 4 + (buffer[position + 2] << 8 | buffer[position + 3])
            if size < end:
                return None, position
            return Interleaved(buffer[position + 1], bytes(buffer[position + 4 : end])), end
        return self._read_message(position)

    def _read_message(self, position: int) -> tuple[Event | None, int]:
        buffer = self._buffer
        if len(buffer) - position < self._wanted:
            return None, position
        # A head is searched once: from three bytes before the end of what was searched, where its end may begin.
        match = _HEAD_END.search(buffer, max(position, position + self._searched - 3))
        head_end = match.start() if match else len(buffer)
        if head_end - position > MAX_HEADERS:
            raise RtspError(f"The RTSP message's headers are over {MAX_HEADERS} bytes.", 413)
        self._searched = head_end - position
        if match is None:
            return None, position
        start, items = parse_head(buffer[position:head_end].decode("utf-8", "replace"))
        headers = Headers(items)
        end = match.end() + _body_length(headers)
        if len(buffer) < end:
            self._wanted = end - position
            return None, position
        self._searched = self._wanted = 0
        return parse_start(start, headers, bytes(buffer[match.end() : end])), end


_HEAD_END = re.compile(rb"\r?\n\r?\n")


def parse_head(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The first line, and the headers that can be read, in order. Lines may end in LF alone (RFC 2326 section 4), and
    a line that begins with a blank goes on the one before (RFC 2616 4.2).

    Lines that are no headers are passed over: some cameras put a date on one of its own.
    """
    start, *lines = re.sub(r"\n[ \t]+", " ", text.replace("\r\n", "\n").replace("\r", " ")).split("\n")
    pairs = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    return start.strip(), [(name, value) for name, value in pairs if _TOKEN.fullmatch(name)]


def _body_length(headers: Headers) -> int:
    value = headers.get(_LENGTH, "0")
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise RtspError(f"The Content-Length {value[:40]!r} is not a number.")
    if int(value) > MAX_BODY:
        raise RtspError(f"The RTSP message's body is {value} bytes; {MAX_BODY} is the most.", 413)
    return int(value)


def parse_start(line: str, headers: Headers, body: bytes) -> Request | Response:
    """The message with this first line. An answer may name another version, and no reason; a request may not.

    Raises RtspError for a line that begins no message.
    """
    if match := re.fullmatch(r"RTSP/[0-9]\.[0-9]\s+([1-9][0-9]{2})(?![0-9])\s*(.*)", line, re.ASCII | re.IGNORECASE):
        return Response(int(match[1]), match[2], headers, body)
    match = re.fullmatch(r"(\S+) +(\S+) +(\S+)", line)
    if match is None or not _TOKEN.fullmatch(match[1]):
        raise RtspError(f"This is no RTSP message: its first line is {CREDENTIALS.sub('//', line)[:60]!r}.")
    if not re.fullmatch(r"RTSP/1\.[0-9]", match[3]):
        raise RtspError(f"RTSP/1.0 is spoken here, not {CREDENTIALS.sub('//', match[3])[:20]!r}.", 505)
    return Request(match[1], match[2], headers, body)


# ---- the values of headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """One way to carry a stream (RFC 2326 12.39). Pairs are for RTP and RTCP."""

    profile: str = "RTP/AVP"
    lower: str = "UDP"
    """UDP or TCP; another is kept as it came."""
    unicast: bool = True
    client_port: tuple[int, int] | None = None
    server_port: tuple[int, int] | None = None
    port: tuple[int, int] | None = None
    """A group's."""
    ttl: int | None = None
    """How many routers a group's packets pass, and one."""
    interleaved: tuple[int, int] | None = None
    """Channels on the RTSP connection."""
    ssrc: int | None = None
    mode: str = ""
    """PLAY when it is not said."""
    source: str = ""
    destination: str = ""

    def serialize(self) -> str:
        """As the Transport header has it."""
        parts = [self.profile if self.lower == "UDP" else f"{self.profile}/{self.lower}"]
        parts.append("unicast" if self.unicast else "multicast")
        if self.destination:
            parts.append(f"destination={self.destination}")
        if self.source:
            parts.append(f"source={self.source}")
        for name in ("interleaved", "port", "client_port", "server_port"):
            pair = getattr(self, name)
            if pair is not None:
                parts.append(f"{name}={pair[0]}-{pair[1]}")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl}")
        if self.ssrc is not None:
            parts.append(f"ssrc={self.ssrc:08X}")
        if self.mode:
            parts.append(f'mode="{self.mode}"')
        return ";".join(parts)


def parse_transport(value: str) -> list[Transport]:
    """The transports of a header, the most wanted first; parameters that are not known are passed over.

    Raises RtspError for one with a port or channel that cannot be.
    """
    return [_parse_one_transport(part) for part in _split(value, ",")]


def transports_offered(value: str) -> list[Transport]:
    """Those of a header's transports that are understood, the most wanted first; RtspError when there is none."""
    found: list[Transport] = []
    refusal: RtspError | None = None
    for part in _split(value, ","):
        try:
            found.append(_parse_one_transport(part))
        except RtspError as error:
            refusal = refusal or error
    if refusal is not None and not found:
        raise refusal
    return found


def _parse_one_transport(text: str) -> Transport:
    spec, *parameters = _split(text, ";") or [""]
    words = spec.upper().split("/")
    if len(words) not in (2, 3) or not all(words):
        raise RtspError(f"The transport {spec[:40]!r} is not of the form RTP/AVP or RTP/AVP/TCP.", 461)
    given = {
        name.strip().lower(): value.strip().strip('"') for name, _, value in (p.partition("=") for p in parameters)
    }
    ssrc = given.get("ssrc", "")
    return Transport(
        profile="/".join(words[:2]),
        lower=words[2] if len(words) == 3 else "UDP",
        # Multicast would be the default; clients that say neither mean unicast all the same.
        unicast="multicast" not in given,
        client_port=_parse_pair(given, "client_port", 65535),
        server_port=_parse_pair(given, "server_port", 65535),
        port=_parse_pair(given, "port", 65535),
        ttl=int(given["ttl"]) if re.fullmatch(r"[0-9]{1,3}", given.get("ttl", ""), re.ASCII) else None,
        interleaved=_parse_pair(given, "interleaved", 255),
        # Some servers write an SSRC that is not eight hexadecimal digits; the packets tell it anyway.
        ssrc=int(ssrc, 16) if re.fullmatch(r"[0-9A-Fa-f]{1,8}", ssrc) else None,
        mode=given.get("mode", "").upper(),
        source=given.get("source", ""),
        destination=given.get("destination", ""),
    )


def _parse_pair(given: Mapping[str, str], name: str, most: int) -> tuple[int, int] | None:
    """`8000-8001`, or `8000` for itself and the next."""
    if name not in given:
        return None
    match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", given[name])
    if match:
        low = int(match[1])
        high = int(match[2]) if match[2] else low + 1
        if low <= most and high <= most:
            return low, high
    raise RtspError(f"The transport's {name} is {given[name][:20]!r}, which is no pair of numbers up to {most}.")


@dataclass(frozen=True, slots=True)
class RtpInfo:
    """Where a stream starts to play (RFC 2326 12.33): the first packet's sequence number and timestamp."""

    url: str
    seq: int | None = None
    rtptime: int | None = None


def parse_blocksize(value: str) -> int:
    """Bytes of media a packet, without RTP's header, as a client asks for them (RFC 2326 12.7).

    Raises RtspError, with the status that is there for it, for anything but a positive decimal number.
    """
    if not re.fullmatch(r"0*[1-9][0-9]{0,9}", value.strip(), re.ASCII):
        raise RtspError(f"A Blocksize is a positive number of bytes, not {value[:40]!r}.", 416)
    return int(value)


def repair_wishes(value: str) -> list[str]:
    """The names in a client's header."""
    return [name for entry in value.split(",") if (name := entry.partition(";")[0].strip().lower())]


def repair_ssrcs(value: str) -> dict[str, int]:
    """From a server's header, the source of each repair that is told of."""
    found = {}
    for entry in value.split(","):
        name, _, rest = entry.partition(";")
        if match := re.fullmatch(r"\s*ssrc=([0-9A-Fa-f]{8})\s*", rest, re.ASCII):
            found[name.strip().lower()] = int(match[1], 16)
    return found


def serialize_rtp_info(infos: Iterable[RtpInfo]) -> str:
    """As the RTP-Info header has it."""
    return ",".join(
        f"url={info.url}"
        + (f";seq={info.seq}" if info.seq is not None else "")
        + (f";rtptime={info.rtptime}" if info.rtptime is not None else "")
        for info in infos
    )


def split_rtp_info(value: str) -> list[str]:
    """The entries of an RTP-Info header. An address may contain commas and semicolons: one begins at ",url=" alone."""
    return re.split(r",\s*(?=url=)", value.strip(), flags=re.IGNORECASE)


def parse_rtp_info(value: str) -> list[RtpInfo]:
    """The streams of an RTP-Info header; raises RtspError for a number that does not fit 16 and 32 bits."""
    infos = []
    for entry in split_rtp_info(value):
        numbers: dict[str, int] = {}
        address = []
        for part in entry.split(";"):
            name, _, text = part.strip().partition("=")
            bits = {"seq": 16, "rtptime": 32}.get(name.lower())
            if bits is None:
                address.append(part.strip())
            elif text:
                if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >> bits:
                    raise RtspError(f"RTP-Info's {name} {text[:20]!r} is not a number of {bits} bits.")
                numbers[name.lower()] = int(text)
        url = ";".join(address)
        if url[:4].lower() != "url=":
            raise RtspError(f"The RTP-Info {entry[:60]!r} has no url.")
        infos.append(RtpInfo(url[4:].strip('"'), numbers.get("seq"), numbers.get("rtptime")))
    return infos


@dataclass(frozen=True, slots=True)
class SessionHeader:
    """A session's name and the seconds of silence after which the server ends it (RFC 2326 12.37)."""

    id: str
    timeout: int = DEFAULT_TIMEOUT

    def serialize(self) -> str:
        """As a response's Session header has it; a request's is the id alone."""
        return f"{self.id};timeout={self.timeout}"

    @classmethod
    def parse(cls, value: str) -> SessionHeader:
        """Read a Session header; raises RtspError when it names no session."""
        name, *parameters = (part.strip() for part in value.split(";"))
        if not re.fullmatch(r"[!-~]{1,256}", name):
            raise RtspError(f"The Session header {value[:40]!r} names no session.", 454)
        for parameter in parameters:
            if match := re.fullmatch(r"timeout\s*=\s*([0-9]{1,9})", parameter, re.IGNORECASE):
                return cls(name, int(match[1]))
        return cls(name)


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that stand outside quotation marks, without those that are empty."""
    parts = re.findall(rf'(?:"[^"]*"|[^{separator}"]|")+', text)
    return [part.strip() for part in parts if part.strip()]


# ---- the server's session, RFC 2326 A.2


class State(StrEnum):
    """What a session can be in. Recording is left out."""

    INIT = "Init"
    READY = "Ready"
    PLAYING = "Playing"


TRANSITIONS = {
    State.INIT: {"SETUP": State.READY, "TEARDOWN": State.INIT},
    State.READY: {"SETUP": State.READY, "PLAY": State.PLAYING, "TEARDOWN": State.INIT},
    State.PLAYING: {"SETUP": State.PLAYING, "PLAY": State.PLAYING, "PAUSE": State.READY, "TEARDOWN": State.INIT},
}
"""The state after a method that succeeded, by the state before. A method that is not there is refused with 455."""

METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER")
"""The methods that the server offers, as the Public header names them (RFC 2326 10.1)."""

SESSION_METHODS = ("SETUP", "PLAY", "PAUSE", "TEARDOWN")
"""Those that change the session's state; the others may come at any time."""


def allowed(state: State) -> tuple[str, ...]:
    """The offered methods that may come now, as the Allow header of a 455 names them."""
    return tuple(method for method in METHODS if method not in SESSION_METHODS or method in TRANSITIONS[state])


def next_state(state: State, method: str) -> State:
    """The state after `method` succeeded. Raises RtspError: 455 when it may not come now, 501 when it is unknown."""
    if method not in METHODS:
        raise RtspError(f"The method {method[:40]} is not implemented; there are {', '.join(METHODS)}.", 501)
    if method not in SESSION_METHODS:
        return state
    if method not in TRANSITIONS[state]:
        raise RtspError(f"{method} is not valid while the session is {state}; {', '.join(allowed(state))} are.", 455)
    return TRANSITIONS[state][method]


def transitions_table() -> str:
    """The state table in Markdown, for the documentation: a row a state, a column a method."""
    lines = [f"| state | {' | '.join(SESSION_METHODS)} |", "|---" * (len(SESSION_METHODS) + 1) + "|"]
    lines += [
        f"| {state} | {' | '.join(row.get(method, '455') for method in SESSION_METHODS)} |"
        for state, row in TRANSITIONS.items()
    ]
    return "\n".join(lines)
