"""Session descriptions (RFC 4566) as RTSP uses them (RFC 2326 appendix C), and ranges of normal play time.

Pure: text in, values out, and back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, NamedTuple

from avlab.wire.rtp import FIRST_DYNAMIC, JPEG, L16_MONO, L16_STEREO, VIDEO_CLOCK
from avlab.wire.units import NS, WireError

MAX_TEXT = 64 << 10
MAX_MEDIA = 32
"""Characters of the largest description that is read, and how many of its media are; further ones are passed over."""

MAX_CLOCK_RATE = 1_000_000_000
"""Ticks a second of the fastest media clock that is taken for one."""

MAX_BANDWIDTH = 1 << 36
"""Of the largest bandwidth that is taken for one, in its own unit."""


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

PLAIN, FEEDBACK = "RTP/AVP", "RTP/AVPF"
"""The profiles of media that are not encrypted (RFC 3551, RFC 4585): with the latter, receivers say at once what they
miss."""

RTCP_BITS = (20_000, 100_000)
"""What a sender and its receivers may spend on RTCP where there is feedback, bits a second: the latter is a NACK each
10 ms, and less than a twentieth of any stream worth repairing (RFC 3550 6.2)."""

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


_CLOCK = re.compile(
    r"\s*clock\s*=\s*([0-9]{8}T[0-9]{6})(\.[0-9]{0,9})?Z\s*-\s*([0-9]{8}T[0-9]{6})(\.[0-9]{0,9})?Z\s*(?:;.*)?",
    re.ASCII | re.IGNORECASE,
)


def clock_length_ns(value: str) -> int | None:
    """How long a range of absolute time is (RFC 2326 3.7), as in `clock=20240101T120000Z-20240101T120530.5Z`, of a
    recording that a camera plays again; None for one without an end, and for what is none."""
    match = _CLOCK.fullmatch(value)
    if match is None:
        return None
    start, start_part, end, end_part = match.groups()
    try:
        seconds = (datetime.strptime(end, _DATE) - datetime.strptime(start, _DATE)).total_seconds()
    except ValueError:  # a month 13, say
        return None
    parts = Decimal(f"0{end_part or ''}") - Decimal(f"0{start_part or ''}")
    return round((Decimal(seconds) + parts) * NS)


_DATE = "%Y%m%dT%H%M%S"


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
    protocol: str = PLAIN
    control: str = ""
    """Relative or absolute address for SETUP; see `resolve_control`."""
    framerate: float | None = None
    """Frames a second, when the sender says so."""
    address: str = ""
    """Of its own `c=` line, else that of the session."""
    rtcp_bits: tuple[int, int] | None = None
    """RTCP's bandwidth, in bits a second: the sender's, and that of all receivers (RFC 3556); None: not told."""
    others: tuple[tuple[int, Format], ...] = ()
    """The further payload types of the `m=` line that have a meaning, such as those of repairs."""
    attributes: Attributes = ()
    """All other `a=` lines."""

    @property
    def repairs(self) -> dict[str, int]:
        """The repairs that are offered, and the payload type of each: `rtx` (RFC 4588 section 8), `fec` (RFC 5109).

        Anyone's own is there by its name, in small letters: its format is X-<name>, and it says whose repair it is.
        """
        found = {}
        for payload_type, form in self.others:
            encoding = form.encoding.upper()
            if encoding == "ULPFEC":
                found["fec"] = payload_type
            elif self.parameters(payload_type).get("apt") != str(self.payload_type):
                continue
            elif encoding == "RTX":
                found["rtx"] = payload_type
            elif encoding.startswith("X-"):
                found.setdefault(encoding[2:].lower(), payload_type)
        return found

    @property
    def feedback(self) -> bool:
        """Whether receivers are to say at once what they miss (RFC 4585 4.1)."""
        return self.protocol.upper() == FEEDBACK

    def again_from(self, ssrc: int | None) -> int | None:
        """The source of what the source `ssrc` sends again, where an `ssrc-group` pairs the two (RFC 5576 4.2)."""
        for name, value in self.attributes:
            words = value.split()
            if name.lower() == "ssrc-group" and len(words) == 3 and words[0].upper() == "FID":
                first, second = (_number(word, 0xFFFFFFFF) for word in words[1:])
                if first is not None and first == ssrc:
                    return second
        return None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the pictures, where an attribute tells them: `x-dimensions` or `framesize` (3GPP 26.234).

        For JPEG over 2,040 pixels, whose packets cannot say it (RFC 2435 3.1.5).
        """
        for name, value in self.attributes:
            if name == "x-dimensions":
                match = re.fullmatch(r"\s*([0-9]{1,5})\s*,\s*([0-9]{1,5})\s*", value, re.ASCII)
            elif name == "framesize":
                match = re.fullmatch(rf"\s*{self.payload_type}\s+([0-9]{{1,5}})-([0-9]{{1,5}})\s*", value, re.ASCII)
            else:
                continue
            if match is not None and int(match[1]) and int(match[2]):
                return int(match[1]), int(match[2])
        return None

    @property
    def tells_times(self) -> bool:
        """Whether receivers are asked to tell their time, and will be answered (RFC 3611 5.1)."""
        return asks_for_times(self.attributes)

    def parameters(self, payload_type: int) -> dict[str, str]:
        """What an fmtp line says of a payload type besides, by names in lower case; empty where there is none."""
        lines = (value.partition(" ") for name, value in self.attributes if name == "fmtp")
        words = next((parameters for number, _, parameters in lines if number == str(payload_type)), "").split(";")
        pairs = (word.partition("=") for word in words if word.strip())
        return {name.strip().lower(): value.strip() for name, _, value in pairs}


TIMES_ASKED: Attributes = (("rtcp-xr", "rcvr-rtt=sender"),)
"""Receivers may tell their time in RTCP, and the sender answers them (RFC 3611 5.1)."""


def asks_for_times(attributes: Attributes) -> bool:
    """Whether a medium's attributes, or a session's, ask receivers for their time."""
    words = (word for name, value in attributes if name == "rtcp-xr" for word in value.split())
    return any(word.split("=")[0] == "rcvr-rtt" for word in words)


def repair_offer(
    payload_type: int,
    clock_rate: int,
    *,
    rtx: int,
    fec: int,
    keep_ms: int,
    own: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """`others` and `attributes` of a medium that can be repaired either way, with the payload types `rtx` and `fec`.

    `keep_ms` is how long packets are kept to be sent again. `own` has the payload types of repairs of anyone's own, by
    name. Who knows none of this takes the medium as it is.
    """
    return {
        "others": (
            (rtx, Format("rtx", clock_rate)),
            (fec, Format("ulpfec", clock_rate)),
            *((number, Format(f"X-{name}", clock_rate)) for name, number in own.items()),
        ),
        "attributes": (
            ("rtcp-fb", f"{payload_type} nack"),
            ("fmtp", f"{rtx} apt={payload_type};rtx-time={keep_ms}"),
            *(("fmtp", f"{number} apt={payload_type}") for number in own.values()),
        ),
    }


def with_feedback(media: Media, *, ssrc: int, rtx_ssrc: int, cname: str) -> Media:
    """A medium that is sent again on request, as RFC 4585 (4.1) and RFC 4588 (8.6) describe it: under RTP/AVPF.

    `ssrc` and `rtx_ssrc` are the sources of the medium and of what is sent again, both of `cname` (RFC 5576 4.1, 4.2).
    Receivers are given the bandwidth for a NACK at once: by RFC 4585 (3.5) it decides how soon after another one may
    go, and what GStreamer takes by itself is half a second's worth.
    """
    sources = (
        ("ssrc-group", f"FID {ssrc} {rtx_ssrc}"),
        ("ssrc", f"{ssrc} cname:{cname}"),
        ("ssrc", f"{rtx_ssrc} cname:{cname}"),
    )
    return replace(media, protocol=FEEDBACK, rtcp_bits=RTCP_BITS, attributes=(*media.attributes, *sources))


def without_feedback(media: Media) -> Media:
    """A medium for who knows RTP/AVP alone, without the attributes that have no meaning there (RFC 4585 4.2)."""
    return replace(
        media, protocol=PLAIN, attributes=tuple(pair for pair in media.attributes if pair[0].lower() != "rtcp-fb")
    )


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
    """The address of the whole session; empty for none, where there is no RTSP."""
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
    ]
    if session.control:
        lines.append(f"a=control:{session.control}")
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
    if media.rtcp_bits is not None:
        yield from (f"b={name}:{bits}" for name, bits in zip(("RS", "RR"), media.rtcp_bits, strict=True))
    # The medium's own comes last: some clients take the last rtpmap of a medium for the medium's, whatever its number.
    for number, form in (*media.others, (media.payload_type, Format(media.encoding, media.clock_rate, media.channels))):
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
    bandwidths: dict[str, int] = field(default_factory=dict)


def parse(text: str) -> SessionDescription:
    """Read a description. One line that is odd refuses nothing that the others say: it is passed over.

    So are lines that nothing here needs, media that cannot be played, and whatever cameras write besides. WireError
    when nothing of it is a description, or it is too long.
    """
    if len(text) > MAX_TEXT:
        raise WireError(f"The session description has {len(text)} characters; {MAX_TEXT} is the most.")
    name, origin, session_id, version, understood = "-", "127.0.0.1", 0, 0, False
    sections = [_Section()]
    for key, value in _lines(text):
        understood = understood or key == "m" or (key == "v" and value == "0")
        if key == "m":
            sections.append(_parse_media(value))
        elif key == "a":
            _take_attribute(sections[-1], value)
        elif key == "c":
            sections[-1].address = _parse_connection(value) or sections[-1].address
        elif key == "b":
            sections[-1].bandwidths |= _parse_bandwidth(value)
        elif key == "s" and len(sections) == 1:
            name = value or "-"
        elif key == "o" and len(sections) == 1:
            session_id, version, origin = _parse_origin(value)
    if not understood:
        raise WireError("This is no session description: it has neither a line v=0 nor a medium.")
    session, *media = sections
    return SessionDescription(
        name=name,
        session_id=session_id,
        version=version,
        origin=origin,
        address=session.address or "0.0.0.0",
        control=session.known.get("control", "*"),
        range=_parse_range(session.known.get("range")),
        media=tuple(_finish(section, session.address) for section in media[:MAX_MEDIA]),
        attributes=tuple(session.others),
    )


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The lines of the form x=value, as letter and value; whatever ends them, and whatever stands around them.

    Letters are small ones (RFC 4566 section 5). A capital can stand for nothing else, and is read as if it were one.
    """
    for line in re.split(r"[\r\n\0]+", text.lstrip("\ufeff")):
        key, equals, value = line.partition("=")
        if equals and len(key.strip()) == 1:
            yield key.strip().lower(), value.strip()


def _parse_connection(value: str) -> str:
    """The address of "IN IP4 224.2.0.1/127", without the number of hops, which belongs to multicast; "" for none."""
    words = value.split()
    return words[-1].partition("/")[0] if len(words) >= 3 else ""


def _parse_bandwidth(value: str) -> dict[str, int]:
    """The bandwidth of "RR:3000", by its name; nothing when it does not say that."""
    name, _, bits = value.partition(":")
    number = _number(bits.strip(), MAX_BANDWIDTH)
    return {} if number is None else {name.strip().upper(): number}


def _parse_origin(value: str) -> tuple[int, int, str]:
    """Session id, version and address. Both numbers are NTP times by custom; some senders write other things."""
    words = value.split()
    if len(words) != 6:
        return 0, 0, "127.0.0.1"
    numbers = [int(word) if re.fullmatch(r"[0-9]{1,20}", word, re.ASCII) else 0 for word in words[1:3]]
    return numbers[0], numbers[1], words[5]


def _parse_range(value: str | None) -> NptRange | None:
    """What the session says it can play; another unit than npt is no reason not to play it."""
    try:
        return None if value is None else NptRange.parse(value)
    except WireError:
        return None


def _parse_media(value: str) -> _Section:
    """As much of an m= line as can be: it is a medium in any case, so that what follows is not the one's before."""
    words = value.split()
    if len(words) > 1 and re.match("[A-Za-z]+/", words[1]):  # its port was left out, which is SETUP's to tell
        words.insert(1, "0")
    kind, port, protocol = [*words, "", "", ""][:3]
    section = _Section(("control", "framerate", "rtpmap"), kind.lower(), protocol=protocol or "RTP/AVP")
    section.port = _number(port.partition("/")[0], 65535) or 0
    if section.protocol.upper().startswith("RTP/"):
        numbers = (_number(word, 127) for word in words[3:])
        section.formats = [number for number in numbers if number is not None]
    return section


def _take_attribute(section: _Section, value: str) -> None:
    name, _, value = value.partition(":")
    name, value = name.strip(), value.strip()
    if name.lower() not in section.kept:
        section.others.append((name, value))
    elif name.lower() == "rtpmap":
        section.rtpmaps |= _parse_rtpmap(value)
    else:
        section.known[name.lower()] = value


def _parse_rtpmap(value: str) -> dict[int, Format]:
    """`96 L16/48000/2` as what 96 means; nothing when it does not say that.

    One without a clock rate, as some cameras write, leaves a static payload type as it is; JPEG has one clock alone.
    """
    payload_type, form = [*value.split(None, 1), "", ""][:2]
    encoding, *numbers = [part.strip() for part in form.split("/")]
    number = _number(payload_type, 127)
    if number is None or not encoding:
        return {}
    rate, channels = (_leading_number(numbers[at]) if at < len(numbers) else None for at in (0, 1))
    usual = STATIC_FORMATS.get(number, Format("", 0))
    if rate is None and encoding.upper() == usual.encoding:
        rate, channels = usual.clock_rate, channels or usual.channels
    elif rate is None and encoding.upper() == STATIC_FORMATS[JPEG].encoding:
        rate = VIDEO_CLOCK
    if not rate or rate > MAX_CLOCK_RATE or channels == 0 or (channels or 1) > 255:
        return {}
    return {number: Format(encoding.upper(), rate, channels or 1)}


def _finish(section: _Section, session_address: str) -> Media:
    """The medium with the first of its formats that is understood, else with the first.

    An m= line that names no format that can be is taken at the word of its rtpmaps.
    """
    formats = STATIC_FORMATS | section.rtpmaps
    numbers = section.formats or list(section.rtpmaps)
    payload_type = next((number for number in numbers if number in formats), None)
    if payload_type is None:
        payload_type = numbers[0] if numbers else FIRST_DYNAMIC
    form = formats.get(payload_type, Format("", 0))
    bits = section.bandwidths.get("RS"), section.bandwidths.get("RR")
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
        rtcp_bits=None if bits[0] is None or bits[1] is None else (bits[0], bits[1]),
        others=tuple((n, formats[n]) for n in numbers if n != payload_type and n in formats),
        attributes=tuple(section.others),
    )


def _parse_framerate(value: str | None) -> float | None:
    """Frames a second, or None when it is not said or not a usable number: pictures carry their own times."""
    try:
        number = Decimal(value or "")
    except InvalidOperation:
        return None
    return float(number) if number.is_finite() and 0.001 <= number <= 100_000 else None


def _number(text: str, most: int) -> int | None:
    """A number from 0 to `most`; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) and int(text) <= most else None


def _leading_number(text: str) -> int | None:
    """The number that a text begins with, as "90000.0" does."""
    match = re.match(r"[0-9]{1,12}(?![0-9])", text, re.ASCII)
    return int(match[0]) if match else None


def resolve_control(base_url: str, control: str) -> str:
    """The address that SETUP or PLAY names, from Content-Base (else the DESCRIBE address) and a control attribute.

    RFC 2326 C.1.1: "*" or nothing is the base itself, an absolute address is itself. A relative one is appended after
    a slash, and after the base's query where it has one, as FFmpeg and live555 do and as the cameras that they are
    tried with expect, though the rules of RFC 1808 would replace the base's last part. One that begins with the base's
    own path is an absolute path; one that is only a query is appended as it is.
    """
    if control in ("", "*"):
        return base_url
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", control):
        return control
    if control.startswith("?"):
        return base_url + control
    host = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*", base_url)
    path = base_url[host.end() :].partition("?")[0].rstrip("/") if host else ""
    if host and path and (control + "/").startswith(path + "/"):
        return host[0] + control
    return base_url.rstrip("/") + "/" + control.lstrip("/")
