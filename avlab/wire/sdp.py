"""Session descriptions (RFC 4566) as RTSP uses them (RFC 2326 appendix C), and ranges of normal play time.

Pure: text in, values out, and back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from avlab.wire.rtp import FIRST_DYNAMIC, JPEG, L16_MONO, L16_STEREO, VIDEO_CLOCK
from avlab.wire.units import NS, WireError

MAX_TEXT = 64 << 10
MAX_MEDIA = 32
"""Characters and media of the largest description that is read."""


class Format(NamedTuple):
    """What a payload type means."""

    encoding: str
    clock_rate: int
    channels: int = 1


STATIC_FORMATS = {
    0: Format("PCMU", 8000),
    3: Format("GSM", 8000),
    4: Format("G723", 8000),
    5: Format("DVI4", 8000),
    6: Format("DVI4", 16000),
    7: Format("LPC", 8000),
    8: Format("PCMA", 8000),
    9: Format("G722", 8000),
    L16_STEREO: Format("L16", 44100, 2),
    L16_MONO: Format("L16", 44100),
    12: Format("QCELP", 8000),
    13: Format("CN", 8000),
    14: Format("MPA", 90000),
    15: Format("G728", 8000),
    16: Format("DVI4", 11025),
    17: Format("DVI4", 22050),
    18: Format("G729", 8000),
    25: Format("CELB", 90000),
    JPEG: Format("JPEG", VIDEO_CLOCK),
    28: Format("NV", 90000),
    31: Format("H261", 90000),
    32: Format("MPV", 90000),
    33: Format("MP2T", 90000),
    34: Format("H263", 90000),
}
"""Payload types that need no rtpmap (RFC 3551 section 6)."""

Attributes = tuple[tuple[str, str], ...]
"""Names and values in order; a flag such as `recvonly` has the value ""."""


# ---- normal play time


@dataclass(frozen=True, slots=True)
class NptRange:
    """A span of normal play time in nanoseconds (RFC 2326 3.6); `start_ns` None is now, `end_ns` None is open."""

    start_ns: int | None = 0
    end_ns: int | None = None

    @classmethod
    def parse(cls, value: str) -> NptRange:
        """Read `npt=0-20`, `npt=now-`, `npt=12.5-`, `npt=-30` or hours as in `npt=0:01:30-`. Raises WireError."""
        unit, _, span = value.partition(";")[0].partition("=")  # after ";" an RTSP header may bid a time of action
        start, dash, end = span.partition("-")
        if unit.strip().lower() != "npt" or not dash or not (start.strip() or end.strip()):
            raise WireError(f"The range {value[:60]!r} is not understood; write it as npt=0-20, npt=12.5- or npt=now-.")
        return cls(_parse_npt(start), _parse_npt(end))

    def serialize(self) -> str:
        """As a Range header or attribute has it: `npt=12.5-20`, `npt=now-`."""
        start = "now" if self.start_ns is None else _npt_text(self.start_ns)
        return f"npt={start}-{'' if self.end_ns is None else _npt_text(self.end_ns)}"


_NPT = re.compile(r"(?:([0-9]{1,9}):([0-5]?[0-9]):)?([0-9]{1,12}(?:\.[0-9]{0,12})?)", re.ASCII)


def _parse_npt(text: str) -> int | None:
    text = text.strip()
    if text in ("", "now"):
        return None
    match = _NPT.fullmatch(text)
    if match is None:
        raise WireError(f"The time {text[:40]!r} is not normal play time; write seconds as 12.5 or as 0:00:12.5.")
    hours, minutes, seconds = match.groups()
    return (int(hours or 0) * 3600 + int(minutes or 0) * 60) * NS + round(Decimal(seconds) * NS)


def _npt_text(ns: int) -> str:
    seconds, rest = divmod(ns, NS)
    return f"{seconds}.{rest:09d}".rstrip("0").rstrip(".")


# ---- descriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One stream of a session, with the first format of its `m=` line that is understood."""

    kind: str
    """video, audio, or another that is passed over."""
    payload_type: int
    encoding: str
    """In capitals: JPEG, L16; empty when no rtpmap and no static payload type names it."""
    clock_rate: int
    """Ticks a second of the RTP timestamps; for sound the sample rate. 0 when unknown."""
    channels: int = 1
    port: int = 0
    """0 where SETUP tells the ports, as in RTSP."""
    protocol: str = "RTP/AVP"
    control: str = ""
    """Relative or absolute address for SETUP; see `resolve_control`."""
    framerate: float | None = None
    """Frames a second, when the sender says so."""
    address: str = ""
    """Of its own `c=` line, else that of the session."""
    others: tuple[tuple[int, Format], ...] = ()
    """The further payload types of the `m=` line that have a meaning, such as those of repairs."""
    attributes: Attributes = ()
    """All other `a=` lines."""

    @property
    def repairs(self) -> dict[str, int]:
        """The repairs that are offered, and the payload type of each: `rtx` (RFC 4588 section 8), `fec` (RFC 5109)."""
        found = {}
        for payload_type, form in self.others:
            if form.encoding.upper() == "ULPFEC":
                found["fec"] = payload_type
            elif form.encoding.upper() == "RTX" and self._format_parameters(payload_type).get("apt") == str(
                self.payload_type
            ):
                found["rtx"] = payload_type
        return found

    def _format_parameters(self, payload_type: int) -> dict[str, str]:
        lines = (value.partition(" ") for name, value in self.attributes if name == "fmtp")
        words = next((parameters for number, _, parameters in lines if number == str(payload_type)), "").split(";")
        return {name.strip().lower(): value.strip() for name, _, value in (word.partition("=") for word in words)}


def repair_offer(payload_type: int, clock_rate: int, *, rtx: int, fec: int, keep_ms: int) -> dict[str, Any]:
    """`others` and `attributes` of a medium that can be repaired either way, with the payload types `rtx` and `fec`.

    `keep_ms` is how long packets are kept to be sent again. Who knows none of this takes the medium as it is.
    """
    return {
        "others": ((rtx, Format("rtx", clock_rate)), (fec, Format("ulpfec", clock_rate))),
        "attributes": (("rtcp-fb", f"{payload_type} nack"), ("fmtp", f"{rtx} apt={payload_type};rtx-time={keep_ms}")),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDescription:
    """A whole description."""

    name: str = "-"
    session_id: int = 0
    version: int = 0
    origin: str = "127.0.0.1"
    """The address of the `o=` line."""
    address: str = "0.0.0.0"
    """The address of the `c=` line; 0.0.0.0 where SETUP tells it."""
    control: str = "*"
    """The address of the whole session."""
    range: NptRange | None = None
    """What can be played; without an end when it is live."""
    media: tuple[Media, ...] = ()
    attributes: Attributes = ()
    """All other `a=` lines before the first `m=`."""


def serialize(session: SessionDescription) -> str:
    """The description as text, lines ended by CRLF. Raises WireError for a value that would break a line."""
    lines = [
        "v=0",
        f"o=- {session.session_id} {session.version} IN {_address(session.origin)}",
        f"s={session.name or '-'}",
        f"c=IN {_address(session.address)}",
        "t=0 0",
        f"a=control:{session.control}",
    ]
    if session.range is not None:
        lines.append(f"a=range:{session.range.serialize()}")
    lines += _attribute_lines(session.attributes)
    for media in session.media:
        lines += _media_lines(media, session.address)
    for line in lines:
        if "\r" in line or "\n" in line:
            raise WireError(f"A line of a session description must not contain a line break: {line!r}.")
    return "\r\n".join([*lines, ""])


def _media_lines(media: Media, address: str) -> Iterator[str]:
    numbers = " ".join(str(number) for number in (media.payload_type, *(number for number, _ in media.others)))
    yield f"m={media.kind} {media.port} {media.protocol} {numbers}"
    if media.address and media.address != address:
        yield f"c=IN {_address(media.address)}"
    for number, form in ((media.payload_type, Format(media.encoding, media.clock_rate, media.channels)), *media.others):
        if form.encoding:
            channels = f"/{form.channels}" if form.channels != 1 else ""
            yield f"a=rtpmap:{number} {form.encoding}/{form.clock_rate}{channels}"
    if media.control:
        yield f"a=control:{media.control}"
    if media.framerate is not None:
        yield f"a=framerate:{media.framerate:.6g}"
    yield from _attribute_lines(media.attributes)


def _attribute_lines(attributes: Attributes) -> Iterator[str]:
    return (f"a={name}:{value}" if value else f"a={name}" for name, value in attributes)


def _address(address: str) -> str:
    return f"IP6 {address}" if ":" in address else f"IP4 {address}"


@dataclass(slots=True)
class _Section:
    """The lines of the session, or of one medium, as read; `kept` are the attributes with a meaning there."""

    kept: tuple[str, ...] = ("control", "range")
    kind: str = ""
    port: int = 0
    protocol: str = ""
    formats: list[int] = field(default_factory=list)
    rtpmaps: dict[int, Format] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    others: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


def parse(text: str) -> SessionDescription:
    """Read a description; lines that nothing here needs are passed over. Raises WireError."""
    if len(text) > MAX_TEXT:
        raise WireError(f"The session description has {len(text)} characters; {MAX_TEXT} is the most.")
    name, origin, session_id, version = "-", "127.0.0.1", 0, 0
    sections = [_Section()]
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines or lines[0].strip() != "v=0":
        raise WireError("This is no session description: its first line is not v=0.")
    for line in lines[1:]:
        key, equals, value = line.partition("=")
        if not equals or len(key) != 1:
            raise WireError(f"The session description has a line that is not of the form x=value: {line[:60]!r}.")
        value = value.strip()
        if key == "m":
            sections.append(_parse_media(value))
            if len(sections) > MAX_MEDIA + 1:
                raise WireError(f"The session description has more than {MAX_MEDIA} media.")
        elif key == "a":
            _take_attribute(sections[-1], value)
        elif key == "c":
            # "IN IP4 224.2.0.1/127": the number of hops belongs to multicast and is left off.
            sections[-1].address = value.split()[-1].partition("/")[0] if value else ""
        elif key == "s" and len(sections) == 1:
            name = value or "-"
        elif key == "o" and len(sections) == 1:
            session_id, version, origin = _parse_origin(value)
    session, *media = sections
    return SessionDescription(
        name=name,
        session_id=session_id,
        version=version,
        origin=origin,
        address=session.address or "0.0.0.0",
        control=session.known.get("control", "*"),
        range=_parse_range(session.known.get("range")),
        media=tuple(_finish(section, session.address) for section in media),
        attributes=tuple(session.others),
    )


def _parse_origin(value: str) -> tuple[int, int, str]:
    """Session id, version and address. Both numbers are NTP times by custom; some senders write other things."""
    words = value.split()
    if len(words) != 6:
        return 0, 0, "127.0.0.1"
    numbers = [int(word) if re.fullmatch(r"[0-9]{1,20}", word) else 0 for word in words[1:3]]
    return numbers[0], numbers[1], words[5]


def _parse_range(value: str | None) -> NptRange | None:
    """What the session says it can play; another unit than npt is no reason not to play it."""
    try:
        return None if value is None else NptRange.parse(value)
    except WireError:
        return None


def _parse_media(value: str) -> _Section:
    words = value.split()
    if len(words) < 4:
        raise WireError(f"The line m={value[:60]} lacks its port, protocol or formats.")
    kind, port, protocol, *formats = words
    number = _number(port.partition("/")[0], "port", 65535)
    section = _Section(("control", "framerate", "rtpmap"), kind, number, protocol)
    if protocol.upper().startswith("RTP/"):
        section.formats = [_number(word, "payload type", 127) for word in formats]
    return section


def _take_attribute(section: _Section, value: str) -> None:
    name, _, value = value.partition(":")
    value = value.strip()
    if name not in section.kept:
        section.others.append((name, value))
    elif name == "rtpmap":
        payload_type, form = _parse_rtpmap(value)
        section.rtpmaps[payload_type] = form
    else:
        section.known[name] = value


def _parse_rtpmap(value: str) -> tuple[int, Format]:
    payload_type, _, form = value.partition(" ")
    encoding, *numbers = form.strip().split("/")
    if not encoding or len(numbers) not in (1, 2):
        raise WireError(f"The line a=rtpmap:{value[:60]} is not of the form 96 L16/48000/2.")
    channels = _number(numbers[1], "channel count", 255) if len(numbers) == 2 else 1
    rate = _number(numbers[0], "clock rate", 1_000_000_000)
    if not rate or not channels:
        raise WireError(f"The line a=rtpmap:{value[:60]} has a clock rate or channel count of 0.")
    return _number(payload_type, "payload type", 127), Format(encoding.upper(), rate, channels)


def _finish(section: _Section, session_address: str) -> Media:
    """The medium with the first of its formats that is understood, else with the first."""
    formats = STATIC_FORMATS | section.rtpmaps
    payload_type = next((number for number in section.formats if number in formats), None)
    if payload_type is None:
        payload_type = section.formats[0] if section.formats else FIRST_DYNAMIC
    form = formats.get(payload_type, Format("", 0))
    return Media(
        kind=section.kind,
        port=section.port,
        protocol=section.protocol,
        payload_type=payload_type,
        encoding=form.encoding,
        clock_rate=form.clock_rate,
        channels=form.channels,
        control=section.known.get("control", ""),
        framerate=_parse_framerate(section.known.get("framerate")),
        address=section.address or session_address,
        others=tuple((n, formats[n]) for n in section.formats if n != payload_type and n in formats),
        attributes=tuple(section.others),
    )


def _parse_framerate(value: str | None) -> float | None:
    """Frames a second, or None when it is not said or not a usable number: pictures carry their own times."""
    try:
        number = Decimal(value or "")
    except InvalidOperation:
        return None
    return float(number) if number.is_finite() and 0.001 <= number <= 100_000 else None


def _number(text: str, name: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) > most:
        raise WireError(f"The session description's {name} {text[:20]!r} is not a number from 0 to {most}.")
    return int(text)


def resolve_control(base_url: str, control: str) -> str:
    """The address that SETUP or PLAY names, from Content-Base (else the DESCRIBE address) and a control attribute.

    RFC 2326 C.1.1: "*" or nothing is the base itself, an absolute address is itself. A relative one is appended
    after a slash, as all peers do, though the rules of RFC 1808 would replace the base's last part.
    """
    if control in ("", "*"):
        return base_url
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", control):
        return control
    if control.startswith("/"):
        host = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*", base_url)
        return (host[0] if host else "") + control
    return base_url.rstrip("/") + "/" + control
