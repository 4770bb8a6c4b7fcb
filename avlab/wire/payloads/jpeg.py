"""RTP payload format for JPEG (RFC 2435): a JPEG to fragments, and fragments back to a JPEG.

Pure: no codec. A JPEG's headers are read and rebuilt here; its entropy-coded scan travels as it is.
"""

from __future__ import annotations

import functools
import struct
from bisect import bisect_right
from collections.abc import MutableMapping
from typing import NamedTuple

import numpy as np

from avlab.wire.batch import Batch
from avlab.wire.rtp import (
    HEADER,
    HEADER_BYTES,
    JPEG,
    MARKER,
    MAX_PACKET,
    REPAIR_BYTES,
    VERSION_2,
    Packed,
    repeats,
)
from avlab.wire.units import JPEG_CODING, WireError

MAX_SIDE = 2040
"""Pixels of the longest side: the header counts eights in one byte (RFC 2435 3.1.5)."""

MAX_SCAN = 4 << 20
MAX_FRAGMENTS = 8192
"""Bytes and fragments of the largest frame sent or reassembled, so that no peer makes a receiver hold more."""

IN_BAND_Q = 255
"""The Q that says: tables come with each frame. 128 to 254 may be cached, so a moving quality must not use them."""

_RESTART = 64
"""Types 64 to 127 are types 0 to 63 with a restart header (RFC 2435 3.1.3)."""

_HEADER = struct.Struct("!IBBBB")  # type-specific (8 bits) and fragment offset (24), type, Q, width / 8, height / 8
_DATA = HEADER_BYTES + _HEADER.size  # where a packet's data begins that has nothing more
_OFFSET = struct.Struct("!I")  # the first four bytes of that
_TABLES_HEADER = struct.Struct("!BBH")  # must be zero, precision, length

# Quantisation tables of RFC 2435 appendix A in zigzag order: luminance, then chrominance (ITU-T T.81 K.1, K.2).
_BASE_TABLES = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d5157"
    "5f626768673e4d71797064785c656763"
    "1112121815182f1a1a2f6342384263636363636363636363636363636363636363636363636363636363636363636363"
    "63636363636363636363636363636363"
)

# The Huffman tables that RFC 2435 takes for granted (appendix B, ITU-T T.81 K.3 to K.6), each as it stands in a DHT
# segment: how many codes of each length from 1 to 16, then their values. By class and destination.
_DC_VALUES = "000102030405060708090a0b"
_HUFFMAN = {
    0x00: bytes.fromhex("00010501010101010100000000000000" + _DC_VALUES),
    0x10: bytes.fromhex(
        "0002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f0"
        "2433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a63646566676869"
        "6a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5"
        "c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    ),
    0x01: bytes.fromhex("00030101010101010101010000000000" + _DC_VALUES),
    0x11: bytes.fromhex(
        "00020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0"
        "156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768"
        "696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3"
        "c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
    ),
}

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF0, _SOF1, _DHT, _SOS, _DQT, _DRI = 0xC0, 0xC1, 0xC4, 0xDA, 0xDB, 0xDD
_SOS_MARKER = bytes((0xFF, _SOS))
_SOS_BYTES = 14  # of the segment, marker included, for three planes (T.81 B.2.3)
_SUBSAMPLING = {0x21: 0, 0x22: 1}  # luminance's sampling factors to RFC 2435's type: 4:2:2, 4:2:0


# ---- what a JPEG is


class JpegInfo(NamedTuple):
    """What a receiver has to be told of a JPEG."""

    width: int
    height: int
    type: int
    """0 for 4:2:2, 1 for 4:2:0 (RFC 2435 4.1)."""
    tables: bytes
    """128 bytes: the luminance and the chrominance quantisation table, in zigzag order."""
    scan: int
    """Where the entropy-coded scan begins."""
    end: int
    """Where the scan ends: the place of the EOI marker."""
    restart_interval: int
    """MCUs between restart markers; 0 when there are none."""


def check_jpeg(jpeg: bytes) -> JpegInfo:
    """Read a JPEG's headers. Raises WireError, with the remedy, for what RFC 2435 cannot carry (section 4.1)."""
    # Frames of one size and quality begin with the same bytes, up to the scan: these are read once for all of them.
    head = jpeg[: jpeg.find(_SOS_MARKER) + _SOS_BYTES]
    try:
        width, height, kind, tables, position, restart_interval = _read_headers(head)
    except WireError:  # or what was found stands inside another segment
        width, height, kind, tables, position, restart_interval = _read_headers.__wrapped__(jpeg)
    return JpegInfo(width, height, kind, tables, position, _end_of_scan(jpeg, position), restart_interval)


def _end_of_scan(jpeg: bytes, position: int) -> int:
    """Where the scan that begins at `position` ends: at the last EOI. WireError.

    From the end it is found at once, and what may stand between the first and it, such as a camera's second picture,
    counts as padding to a decoder (RFC 2435 3.1.9).
    """
    end = jpeg.rfind(_EOI, position)
    if end <= position:
        raise WireError("This JPEG is cut short: no EOI marker follows its scan.")
    if end - position > MAX_SCAN:
        raise WireError(f"This JPEG has {end - position} bytes and {MAX_SCAN} is the most; lower its quality or width.")
    return end


@functools.lru_cache(maxsize=64)
def _read_headers(jpeg: bytes) -> tuple[int, int, int, bytes, int, int]:
    """What stands before a JPEG's scan: `JpegInfo` but for the scan's end. Raises WireError as `check_jpeg` does."""
    if jpeg[:2] != _SOI:
        raise WireError("This is no JPEG: it does not begin with FF D8.")
    tables: dict[int, bytes] = {}
    huffman = dict(_HUFFMAN)  # a JPEG without DHT means the standard tables
    sof = b""
    restart_interval = 0
    position = 2
    while True:
        marker, body, position = _segment(jpeg, position)
        if marker == _DQT:
            tables |= _read_dqt(body)
        elif marker == _DHT:
            huffman |= _read_dht(body)
        elif marker == _DRI:
            restart_interval = int.from_bytes(body[:2], "big")
        elif marker in (_SOF0, _SOF1):
            sof = body
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            raise WireError(_wrong_process(marker))
        elif marker == _SOS:
            break
    width, height, kind, selectors = _check_frame(sof)
    _check_scan(body, sof, huffman)
    if selectors[1] != selectors[2] and tables.get(selectors[1]) != tables.get(selectors[2]):
        raise WireError(
            "This JPEG has three quantisation tables and RTP carries two; encode both colour planes with one table."
        )
    if selectors[0] not in tables or selectors[1] not in tables:
        raise WireError("This JPEG has no quantisation table for one of its planes; encode it as a complete file.")
    return width, height, kind, tables[selectors[0]] + tables[selectors[1]], position, restart_interval


def _segment(jpeg: bytes, position: int) -> tuple[int, bytes, int]:
    """The marker segment at `position`: its marker, its body, and where the next begins."""
    while jpeg[position : position + 2] == b"\xff\xff":  # fill bytes (T.81 B.1.1.2)
        position += 1
    if len(jpeg) < position + 4 or jpeg[position] != 0xFF:
        raise WireError("This JPEG is damaged or cut short: its headers end before the picture begins.")
    end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    if end < position + 4 or end > len(jpeg):
        raise WireError("This JPEG is damaged or cut short: a header is longer than what is there.")
    return jpeg[position + 1], jpeg[position + 4 : end], end


def _wrong_process(marker: int) -> str:
    coding = "arithmetic-coded" if marker >= 0xC9 else "progressive" if marker in (0xC2, 0xC6) else "lossless"
    return f"This JPEG is {coding} and RTP carries baseline JPEG alone; encode it as baseline."


def _read_dqt(body: bytes) -> dict[int, bytes]:
    tables = {}
    position = 0
    while position < len(body):
        if body[position] >> 4:
            raise WireError("This JPEG has 16-bit quantisation tables; encode it as baseline or with a higher quality.")
        table = body[position + 1 : position + 65]
        if len(table) < 64:
            raise WireError("This JPEG is damaged: a quantisation table is cut short.")
        tables[body[position]] = table
        position += 65
    return tables


def _read_dht(body: bytes) -> dict[int, bytes]:
    tables = {}
    position = 0
    while position < len(body):
        end = position + 17 + sum(body[position + 1 : position + 17])
        if end > len(body):
            raise WireError("This JPEG is damaged: a Huffman table is cut short.")
        tables[body[position]] = body[position + 1 : end]
        position = end
    return tables


def _check_frame(sof: bytes) -> tuple[int, int, int, tuple[int, int, int]]:
    """Width, height, RFC 2435's type and the three planes' table selectors from a frame header (T.81 B.2.2)."""
    if len(sof) < 6 or len(sof) != 6 + 3 * sof[5]:
        raise WireError("This JPEG is damaged: its frame header is missing or cut short.")
    precision, height, width, planes = struct.unpack_from("!BHHB", sof)
    if precision != 8:
        raise WireError(f"This JPEG has {precision} bits a sample and RTP carries 8; encode it with 8.")
    if planes == 1:
        raise WireError("This JPEG is grayscale and RTP carries colour alone; convert it to colour before encoding.")
    if planes != 3:
        raise WireError(f"This JPEG has {planes} planes and RTP carries three; encode it as YCbCr.")
    factors = sof[7], sof[10], sof[13]
    if factors[0] not in _SUBSAMPLING or factors[1:] != (0x11, 0x11):
        raise WireError(
            "This JPEG's colour is sampled as "
            + ", ".join(f"{factor >> 4}x{factor & 15}" for factor in factors)
            + (" (4:4:4)" if len(set(factors)) == 1 else "")
            + " and RTP carries 4:2:0 and 4:2:2 alone; encode it as 4:2:0."
        )
    for name, side in (("width", width), ("height", height)):
        if side % 8 or not 8 <= side <= MAX_SIDE:
            raise WireError(
                f"This JPEG's {name} is {side} and RTP carries multiples of 8 from 8 to {MAX_SIDE}; scale it first."
            )
    return width, height, _SUBSAMPLING[factors[0]], (sof[8], sof[11], sof[14])


def _check_scan(sos: bytes, sof: bytes, huffman: dict[int, bytes]) -> None:
    """One scan of all three planes in the frame's order, coded with the standard Huffman tables."""
    if len(sos) < 10 or sos[0] != 3 or (sos[1], sos[3], sos[5]) != (sof[6], sof[9], sof[12]):
        raise WireError("This JPEG has a scan for each plane and RTP carries one of all three; encode it interleaved.")
    for plane, standard in ((2, 0), (4, 1), (6, 1)):
        dc, ac = sos[plane] >> 4, 0x10 | (sos[plane] & 15)
        if huffman.get(dc) != _HUFFMAN[standard] or huffman.get(ac) != _HUFFMAN[0x10 | standard]:
            raise WireError(
                "This JPEG has Huffman tables of its own and RTP carries the standard ones alone; encode it without "
                "optimisation (FFmpeg: -huffman default)."
            )


@functools.cache
def derived_tables(q: int) -> bytes:
    """The two quantisation tables that Q from 1 to 99 stands for, 128 bytes (RFC 2435 appendix A).

    They are those of libjpeg for the quality of the same number. Raises WireError for another Q.
    """
    if not 1 <= q <= 99:
        raise WireError(f"Tables are derived from a Q of 1 to 99, not {q}.")
    scale = 5000 // q if q < 50 else 200 - 2 * q
    return bytes(min(255, max(1, (value * scale + 50) // 100)) for value in _BASE_TABLES)


@functools.cache
def _derived_q() -> dict[bytes, int]:
    return {derived_tables(q): q for q in range(1, 100)}


# ---- a JPEG to packets


def packed(jpeg: bytes, *, payload_type: int = JPEG, packet_size: int = MAX_PACKET) -> Packed:
    """A JPEG as RTP packets of at most `packet_size` bytes, `REPAIR_BYTES` less (RFC 2435 3.1).

    Raises WireError as `check_jpeg` does.
    """
    global _last_beginning
    known = _last_beginning
    if known is not None and known.payload_type == payload_type and jpeg.startswith(known.headers):
        begins, end = known, _end_of_scan(jpeg, known.scan)
    else:
        info = check_jpeg(jpeg)
        begins, end = _beginning(jpeg, info, payload_type), info.end
        _last_beginning = begins
    head, extra, first = begins.head, begins.extra, begins.scan
    size = packet_size - REPAIR_BYTES
    room = size - len(head)
    second = first + room - len(extra)  # where the second packet's data begins
    count = 1 + max(0, -(-(end - second) // room))
    if count == 1:
        data = _marked(head) + extra + jpeg[first:end]
        return Packed(Batch(data, len(data)))
    last = second + (count - 2) * room
    scan = memoryview(jpeg)
    parts: list[bytes | memoryview] = [b""] * (2 * count)  # headers and what is behind each
    parts[::2] = _heads(head, second - first, room, count)
    parts[1] = extra + jpeg[first:second]
    parts[3:-2:2] = map(scan.__getitem__, map(slice, range(second, last, room), range(second + room, last + 1, room)))
    parts[-1] = scan[last:end]
    return Packed(Batch(b"".join(parts), size))


class _Beginning(NamedTuple):
    """What all JPEGs that begin with the same headers have in common as packets."""

    headers: bytes
    """All that stands before the scan, which begins at `scan`."""
    scan: int
    payload_type: int
    head: bytes
    """What each packet begins with, its fragment offset 0."""
    extra: bytes
    """What the first one has besides: the tables, where no number stands for them."""


_last_beginning: _Beginning | None = None
"""Of the JPEG that was packed last: mostly it is the next one's, too."""


def _beginning(jpeg: bytes, info: JpegInfo, payload_type: int) -> _Beginning:
    q = _derived_q().get(info.tables, IN_BAND_Q)
    kind, restart = info.type, b""
    if info.restart_interval:
        kind += _RESTART
        # F and L set and the largest count: the frame is to be decoded as a whole (3.1.7).
        restart = struct.pack("!HH", info.restart_interval, 0xFFFF)
    extra = _TABLES_HEADER.pack(0, 0, len(info.tables)) + info.tables if q == IN_BAND_Q else b""
    head = HEADER.pack(VERSION_2, payload_type, 0, 0, 0) + _HEADER.pack(0, kind, q, info.width // 8, info.height // 8)
    return _Beginning(jpeg[: info.scan], info.scan, payload_type, head + restart, extra)


@functools.lru_cache(maxsize=64)
def _heads(head: bytes, offset: int, step: int, count: int) -> list[bytes]:
    """What `count` packets of a frame begin with: the first one's offset is 0, the second one's `offset`, and so on.

    Frames of about one size have the same ones.
    """
    before, behind = head[: HEADER_BYTES + 1], head[HEADER_BYTES + 4 :]
    offsets = [0, *range(offset, offset + (count - 1) * step, step)]
    heads = [before + each.to_bytes(3, "big") + behind for each in offsets]
    heads[-1] = _marked(heads[-1])
    return heads


def _marked(head: bytes) -> bytes:
    """A packet's beginning with the marker."""
    return head[:1] + bytes((head[1] | MARKER,)) + head[2:]


# ---- packets to a JPEG


class JpegFragment(NamedTuple):
    """One RTP payload's part of a frame. A named tuple, as 20,000 are made in a second."""

    offset: int
    type: int
    """0 for 4:2:2, 1 for 4:2:0; the restart header's 64 is taken off."""
    q: int
    width: int
    height: int
    restart_interval: int
    tables: bytes | None
    """128 bytes in a first fragment that brings tables, else None."""
    data: bytes


class NoSizeError(WireError):
    """A picture whose size neither its packets nor the session's description tells."""


def parse_fragment(payload: bytes, size: tuple[int, int] | None = None) -> JpegFragment:
    """Read one RTP payload. Raises WireError when it is not RFC 2435, or not what this receiver can rebuild.

    `size` is the pictures' width and height where the session's description tells them: a header that has no room for
    them says 0.
    """
    if len(payload) < 8:
        raise WireError(f"An RTP/JPEG payload has at least 8 bytes; this one has {len(payload)}.")
    offset, kind, q, columns, rows = _HEADER.unpack_from(payload)
    offset &= 0xFFFFFF  # the first byte tells fields of interlaced pictures apart; each is shown as a picture
    start = 8
    restart_interval = 0
    if _RESTART <= kind < 2 * _RESTART:
        if len(payload) < 12:
            raise WireError("The RTP/JPEG payload ends inside its restart header.")
        restart_interval = (payload[8] << 8) | payload[9]
        kind -= _RESTART
        start = 12
    if kind > 1:
        raise WireError(f"RTP/JPEG of type {kind} is not known; 0 (4:2:2) and 1 (4:2:0) are, with or without restarts.")
    if q == 0 or 100 <= q < 128:
        raise WireError(f"RTP/JPEG with a Q of {q} is reserved; 1 to 99 and 128 to 255 have a meaning.")
    width, height = columns * 8, rows * 8
    if not columns or not rows:
        if size is None:
            raise NoSizeError(
                f"The pictures are over {MAX_SIDE} pixels wide or high, which RTP/JPEG has no room to say (RFC 2435 "
                "3.1.5), and the server's description does not tell their size: have it send smaller ones."
            )
        width, height = size
    tables = None
    if q >= 128 and offset == 0:
        tables, start = _read_tables(payload, start, q)
    data = payload[start:]
    if not data or offset + len(data) > MAX_SCAN:
        raise WireError(
            f"An RTP/JPEG fragment of {len(data)} bytes at {offset} is empty or ends past {MAX_SCAN} bytes."
        )
    # Past the named tuple's own constructor, as in RtpPacket.parse.
    return tuple.__new__(JpegFragment, (offset, kind, q, width, height, restart_interval, tables, data))


def _read_tables(payload: bytes, start: int, q: int) -> tuple[bytes | None, int]:
    """The quantisation table header (3.1.8), which a first fragment has when Q is 128 or more: tables, data's place."""
    if len(payload) < start + 4:
        raise WireError("The RTP/JPEG payload ends inside its quantisation table header.")
    _, precision, length = _TABLES_HEADER.unpack_from(payload, start)
    start += 4
    if length == 0 and q != IN_BAND_Q:
        return None, start
    if precision or length not in (64, 128):
        raise WireError(f"RTP/JPEG brings two tables of 64 bytes; this has {length} bytes with precision {precision}.")
    if len(payload) < start + length:
        raise WireError("The RTP/JPEG payload ends inside its quantisation tables.")
    # FFmpeg sends one table when it uses the same for all planes.
    return payload[start : start + length] * (128 // length), start + length


@functools.lru_cache(maxsize=256)
@functools.lru_cache(maxsize=256)
def _columns(offset: int, step: int, count: int) -> tuple[bytes, bytes, bytes]:
    """The three bytes of each fragment's offset, of `count` that are `step` bytes apart: the first bytes, and so on."""
    offsets = range(offset, offset + count * step, step)
    return tuple(bytes([each >> shift & 0xFF for each in offsets]) for shift in (16, 8, 0))  # type: ignore[return-value]


class _Span(NamedTuple):
    """Fragments with consecutive numbers whose data follows on each other."""

    total: int
    offset: int
    size: int
    """Bytes of the data."""
    data: tuple[bytes, ...]
    """The data, in pieces."""


def _in_step(data: bytes, size: int, at: int, count: int) -> int | None:
    """Where the data of `count` packets from `at` on, two or more, belongs: the first one's offset, where each follows
    on the one before and all have the same header besides; None where they do not.

    Nothing but that header stands before the data; all are compared with the first at once, a byte of each.
    """
    header = at * size + HEADER_BYTES
    step, last = size - _DATA, len(data) - (at + count - 1) * size - _DATA
    if step <= 0 or last <= 0:
        return None
    offset = int.from_bytes(data[header + 1 : header + 4], "big")
    if offset + (count - 1) * step + last > MAX_SCAN:
        return None
    high, middle, low = _columns(offset, step, count)
    if data[header + 3 :: size] != low or data[header + 2 :: size] != middle or data[header + 1 :: size] != high:
        return None
    return offset if repeats(data, header + 4, 4, size, header + count * size) else None


def _data_of(data: bytes, size: int, at: int, count: int) -> tuple[bytes, bytes]:
    """The data of `count` packets, the last of a batch, in one copy; that of the last one, which may be shorter."""
    rows = np.frombuffer(data, np.uint8, (count - 1) * size, at * size).reshape(count - 1, size)[:, _DATA:]
    return rows.tobytes(), data[(at + count - 1) * size + _DATA :]


@functools.lru_cache(maxsize=256)
def _data_slices(size: int, count: int) -> tuple[slice, ...]:
    """Where the data of `count` packets of a batch stands, the last of which may be shorter."""
    return tuple(slice(at * size + _DATA, (at + 1) * size) for at in range(count))


@functools.lru_cache(maxsize=64)
def _opening(header: bytes, size: tuple[int, int] | None) -> bytes | None:
    """What stands before the scan of a frame whose first packet has this payload header; None where it has more."""
    offset, kind, q, columns, rows = _HEADER.unpack(header)
    width, height = (columns * 8, rows * 8) if columns and rows else size or (0, 0)
    if offset & 0xFFFFFF or kind > 1 or not 1 <= q <= 99 or not width or not height:
        return None
    return jfif_header(width, height, kind, derived_tables(q), 0)


def whole_frame(batch: Batch, size: tuple[int, int] | None = None) -> bytes | None:
    """A frame as a JFIF file, all of whose packets a batch has, in their order, the marker on the last one.

    None for what a `FrameAssembler` is to look at: it would say the same of the others, in three times the time. `size`
    is as for `parse_fragment`.
    """
    data, step, count = batch.body, batch.size, batch.total
    if count < 2:
        return None
    opening = _opening(data[HEADER_BYTES:_DATA], size) if len(data) >= _DATA else None
    if opening is None or _in_step(data, step, 0, count) != 0:
        return None
    parts = map(memoryview(data).__getitem__, _data_slices(step, count))
    return b"".join(
        (opening, *parts, b"" if data[-2:] == _EOI and len(data) - (count - 1) * step >= _DATA + 2 else _EOI)
    )


def begins_frame(payload: bytes) -> bool:
    """Whether a payload is the first of its frame: its fragment offset is 0 (RFC 2435 3.1.2)."""
    return payload[1:4] == b"\0\0\0"


class FrameAssembler:
    """Puts the fragments of one frame together; whoever owns it tells frames apart by their RTP timestamp.

    `tables` is the stream's cache of tables for Q from 128 to 254, which a sender may leave out once it has sent
    them (RFC 2435 3.1.8); hand the same mapping to all frames of a stream. Fragments may come in any order and twice.
    `size` is as for `parse_fragment`.
    """

    coding, key = JPEG_CODING, True
    refused: WireError | None = None

    def __init__(
        self, tables: MutableMapping[int, bytes] | None = None, *, size: tuple[int, int] | None = None
    ) -> None:
        self._size_told = size
        self._cache: MutableMapping[int, bytes] = {} if tables is None else tables
        self._firsts: list[int] = []  # the first sequence number of each span, ascending
        self._spans: list[_Span] = []
        self._count = 0  # fragments in those
        self._shape: JpegFragment | None = None  # the fragment that came first, for what all of a frame share
        self._kind = b""  # the header's bytes that all fragments of a frame share
        self._bare = False  # whether nothing stands between that header and the data
        self._tables: bytes | None = None
        self._lowest = self._highest = 0
        self._last: int | None = None  # the sequence number that bore the marker
        self._held = 0  # bytes held
        self._size: int | None = None  # bytes of the whole scan, once the marker was seen
        self.complete = False

    def add(self, sequence: int, marker: bool, payload: bytes) -> bool:
        """Take one fragment by its unwrapped sequence number; return whether the frame is complete now.

        A fragment already there changes nothing. Raises WireError for one that is no part of this frame, and stays
        as it was.
        """
        if not self._lacks(sequence, sequence):
            return self.complete
        if self._bare and payload[4:8] == self._kind:
            # Checked with the frame's first: what is left is where it belongs, and the data.
            offset, data = int.from_bytes(payload[1:4], "big"), payload[8:]
            if not data or offset + len(data) > MAX_SCAN:
                parse_fragment(payload, self._size_told)  # says why not
        else:
            offset, data = self._read(payload)
        self._check_span(sequence, sequence)
        self._take(sequence, marker, _Span(1, offset, len(data), (data,)))
        self._see_whether_complete()
        return self.complete

    def add_run(self, sequence: int, marker: bool, batch: Batch) -> list[WireError]:
        """Take fragments with consecutive numbers, the first's and the last's marker given; why any was refused.

        Each stands in `batch` behind its RTP header.
        """
        refused: list[WireError] = []
        data, size, count = batch.body, batch.size, batch.total
        at = 0
        while at < count:
            if count - at > 1 and (span := self._follow_on(sequence + at, batch, at)) is not None:
                self._take(sequence + at, marker, span)
                self._see_whether_complete()
                return refused
            start = at * size + HEADER_BYTES
            try:
                self.add(sequence + at, marker and at == count - 1, data[start : at * size + size])
            except WireError as error:
                refused.append(error)
            at += 1
        return refused

    def _follow_on(self, sequence: int, batch: Batch, at: int) -> _Span | None:
        """The data of a batch's fragments from `at` on, when each follows on the one before, checked at once; None
        where they are to be read one by one.
        """
        data, size, total = batch.body, batch.size, batch.total
        count, header = total - at, at * size + HEADER_BYTES
        if not self._count:
            try:
                self._read(data[header : header + size - HEADER_BYTES])
            except WireError:
                return None
        if not self._bare or data[header + 4 : header + 8] != self._kind:
            return None
        offset = _in_step(data, size, at, count)
        if offset is None:
            return None
        if not self._lacks(sequence, sequence + count - 1) or not self._is_near(sequence, sequence + count - 1):
            return None
        pieces = _data_of(data, size, at, count)
        return _Span(count, offset, len(pieces[0]) + len(pieces[1]), pieces)

    def _lacks(self, first: int, last: int) -> bool:
        """Whether there is no fragment from one number to the other."""
        if not self._count or first > self._highest or last < self._lowest:
            return True
        at = bisect_right(self._firsts, last) - 1
        return at < 0 or self._firsts[at] + self._spans[at].total <= first

    def _take(self, sequence: int, marker: bool, span: _Span) -> None:
        last = sequence + span.total - 1
        if not self._count:
            self._lowest, self._highest = sequence, last
        if sequence >= self._highest:
            self._firsts.append(sequence)
            self._spans.append(span)
        else:
            at = bisect_right(self._firsts, sequence)
            self._firsts.insert(at, sequence)
            self._spans.insert(at, span)
        if last > self._highest:
            self._highest = last
        if sequence < self._lowest:
            self._lowest = sequence
        self._count += span.total
        self._held += span.size
        if marker:
            self._last = last
            self._size = span.offset + span.size

    def _see_whether_complete(self) -> None:
        # Bytes are counted first: only when their number is right are they worth putting in order.
        if self._held == self._size and self._tables is not None and not self.complete:
            self.complete = self._contiguous()

    def _read(self, payload: bytes) -> tuple[int, bytes]:
        """Where a fragment's data belongs, and the data; the frame's first says what all of them share."""
        fragment = parse_fragment(payload, self._size_told)
        if not self._count:
            self._shape, self._kind = fragment, payload[4:8]
            self._bare = fragment.q < 128 and not fragment.restart_interval and payload[4] < _RESTART
        elif payload[4:8] != self._kind:
            raise WireError("An RTP/JPEG fragment has another type, Q or size than its frame's others.")
        if fragment.offset == 0 or self._bare:
            self._tables = self._find_tables(fragment)
        return fragment.offset, fragment.data

    def _check_span(self, first: int, last: int) -> None:
        if not self._is_near(first, last):
            raise WireError(f"An RTP/JPEG frame has at most {MAX_FRAGMENTS} fragments; this one would have more.")

    def _is_near(self, first: int, last: int) -> bool:
        return not self._count or max(self._highest, last) - min(self._lowest, first) < MAX_FRAGMENTS

    def begins(self, sequence: int, /) -> None:
        """A fragment with an offset of 0 says so itself."""

    def ends(self, sequence: int, /) -> None:
        """See `formats.Assembler`."""
        if self._last is not None or sequence != self._highest:
            return
        if self._count:
            span = self._spans[-1]
            self._last, self._size = sequence, span.offset + span.size
        self._see_whether_complete()

    def rescued(self) -> None:
        """Nothing can be had of a JPEG that is not whole."""

    @property
    def fragments(self) -> int:
        """How many fragments are there."""
        return self._count

    @property
    def missing(self) -> tuple[int, ...]:
        """The sequence numbers known to be wanting, ascending.

        Those between the lowest and the highest that came; the one before when the frame's beginning is wanting
        and the one after when its end is, as at least one packet is there.
        """
        if not self._count or self.complete:
            return ()
        wanting: list[int] = []
        if self._spans[0].offset != 0:
            wanting.append(self._lowest - 1)
        follows = self._lowest
        for first, span in zip(self._firsts, self._spans, strict=True):
            wanting += range(follows, first)
            follows = first + span.total
        if self._last is None:
            wanting.append(follows)
        return tuple(wanting)

    def frame(self) -> bytes:
        """The frame as a JFIF file. Raises WireError while it is incomplete."""
        shape = self._shape
        if not self.complete or self._tables is None or shape is None:
            raise WireError(f"The frame is incomplete: {self._count} fragments came, and not all of it.")
        ordered = [piece for span in self._spans for piece in span.data]
        header = jfif_header(shape.width, shape.height, shape.type, self._tables, shape.restart_interval)
        # Some senders send the EOI marker and some do not (3.1.9 leaves it open).
        tail = b"" if ordered[-1][-2:] == _EOI else _EOI
        return b"".join((header, *ordered, tail))

    def _find_tables(self, first: JpegFragment) -> bytes:
        if first.q < 128:
            return derived_tables(first.q)
        if first.tables is None:
            if first.q not in self._cache:
                raise WireError(f"The sender leaves out the tables of Q {first.q} and has not sent them before.")
            return self._cache[first.q]
        if first.q != IN_BAND_Q:
            self._cache[first.q] = first.tables
        return first.tables

    def _contiguous(self) -> bool:
        position = 0
        for span in self._spans:
            if span.offset != position:
                return False
            position += span.size
        return True


@functools.lru_cache(maxsize=64)
def jfif_header(width: int, height: int, kind: int, tables: bytes, restart_interval: int) -> bytes:
    """Everything before the scan of a JFIF file, as RFC 2435 appendix B rebuilds it.

    `kind` is 0 for 4:2:2 or 1 for 4:2:0, `tables` 128 bytes in zigzag order, sides are in pixels.
    """
    luminance = 0x22 if kind else 0x21
    parts = [
        _SOI,
        _build(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        _build(_DQT, b"\0" + tables[:64] + b"\1" + tables[64:]),
        _build(_SOF0, struct.pack("!BHHB", 8, height, width, 3) + bytes((1, luminance, 0, 2, 0x11, 1, 3, 0x11, 1))),
        _build(_DHT, b"".join(bytes([key]) + table for key, table in _HUFFMAN.items())),
        _build(_DRI, struct.pack("!H", restart_interval)) if restart_interval else b"",
        _build(_SOS, bytes((3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0))),
    ]
    return b"".join(parts)


def _build(marker: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0xFF, marker, 2 + len(body)) + body
