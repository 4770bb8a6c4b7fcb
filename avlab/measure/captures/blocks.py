"""The packets of a capture file, pcap or pcapng (draft-ietf-opsawg-pcap, -pcapng), in batches of arrays. Pure.

A file is a stranger's, of any size and cut anywhere: it is read in parts of `PART` bytes, whatever it claims, up to
where it makes sense. What finds a packet's beginning is a loop of three operations; all else is numpy's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

PART = 16 << 20
PADDING = 256
"""Zeros behind a batch's bytes, so that a header that is cut short can be looked at."""

LONGEST = 16 << 20
"""Bytes of a packet or block at most: a larger one is a damaged file's."""

LATEST_NS = 1 << 62

_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1_000, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1_000, 24),  # Kuznetzov's
    b"\xa1\xb2\xcd\x34": (">", 1_000, 24),
}
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_MOST_INTERFACES = 65_536


class Records(NamedTuple):
    """Packets as they were captured: where each one's bytes are in `data`, and how many; in order of the file."""

    data: Bytes
    at: Ints
    captured: Ints
    size: Ints
    """What it had on the wire."""
    time_ns: Ints
    """Unix time."""
    link: Ints
    """LINKTYPE_ numbers (tcpdump.org/linktypes.html)."""

    def last_ns(self, before_ns: int) -> int:
        """The time of the last packet; `before_ns` where there is none."""
        return int(self.time_ns[-1]) if len(self.time_ns) else before_ns


class _CaptureInterface(NamedTuple):
    link: int
    snap: int
    resolution: int  # of the times: as if_tsresol has it
    offset_ns: int


class CaptureFile:
    """Reads the packets of an open file; iterate once. ValueError, with a sentence, for one that is no capture."""

    def __init__(self, file: IO[bytes], *, name: str = "the file") -> None:
        self._file = file
        self.cut = False
        """Whether the file ended within a packet, or made no sense from some place on."""
        magic = file.read(4)
        if magic in _PCAP:
            self._order, self._unit_ns, self._head = _PCAP[magic]
            head = file.read(20)
            if len(head) < 20:
                raise ValueError(f"{name} ends within its header: it has no packets")
            self._link = struct.unpack(self._order + "I", head[16:])[0] & 0xFFFF
            self._classic = True
        elif magic == b"\n\r\r\n":
            self._classic = False
        else:
            raise ValueError(
                f"{name} is neither pcap nor pcapng: make one with tcpdump -w, Wireshark or avlab --capture"
            )

    def __iter__(self) -> Iterator[Records]:
        return self._of_pcap() if self._classic else self._of_pcapng()

    # ---- pcap

    def _of_pcap(self) -> Iterator[Records]:
        head, size_of = self._head, struct.Struct(self._order + "I").unpack_from
        rest = b""
        while part := self._file.read(PART):
            buffer = rest + part
            at, end = 0, len(buffer)
            places: list[int] = []
            found = places.append
            while at + head <= end:
                (size,) = size_of(buffer, at + 8)
                if size > LONGEST:
                    self.cut = True
                    break
                after = at + head + size
                if after > end:
                    break
                found(at)
                at = after
            if places:
                yield self._pcap_records(buffer, np.array(places, np.int64))
            if self.cut:
                return
            rest = buffer[at:]
        self.cut = bool(rest)

    def _pcap_records(self, buffer: bytes, at: Ints) -> Records:
        data = _padded(buffer)
        head = heads(data, at, 16)
        seconds, fraction, captured, size = (column(head, 4 * place, self._order + "u4") for place in range(4))
        time_ns = seconds * 1_000_000_000 + fraction * self._unit_ns
        return Records(data, at + self._head, captured, size, time_ns, np.full(len(at), self._link, np.int64))

    # ---- pcapng

    def _of_pcapng(self) -> Iterator[Records]:
        buffer = b"\n\r\r\n"
        order, interfaces = "<", list[_CaptureInterface]()
        last_ns = 0
        while part := self._file.read(PART):
            buffer += part
            at, end = 0, len(buffer)
            places: list[int] = []
            pair = struct.Struct(order + "II").unpack_from
            found = places.append
            while at + 12 <= end:
                kind, size = pair(buffer, at)
                if kind == _SECTION:
                    if places:
                        batch = _pcapng_records(buffer, places, order, interfaces, last_ns)
                        last_ns = batch.last_ns(last_ns)
                        yield batch
                        places.clear()
                    order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(buffer[at + 8 : at + 12], "")
                    if not order:
                        self.cut = True
                        break
                    pair = struct.Struct(order + "II").unpack_from
                    size = pair(buffer, at)[1]
                    interfaces = []
                if size < 12 or size % 4 or size > LONGEST:
                    self.cut = True
                    break
                if at + size > end:
                    break
                if kind in (_PACKET, _SIMPLE_PACKET, _OLD_PACKET):
                    found(at)
                elif kind == _INTERFACE and len(interfaces) < _MOST_INTERFACES:
                    interfaces.append(_interface(buffer[at + 8 : at + size - 4], order))
                at += size
            if places:
                batch = _pcapng_records(buffer, places, order or "<", interfaces, last_ns)
                last_ns = batch.last_ns(last_ns)
                yield batch
            if self.cut:
                return
            buffer = buffer[at:]
        self.cut = bool(buffer)


def _interface(body: bytes, order: str) -> _CaptureInterface:
    if len(body) < 8:
        return _CaptureInterface(-1, 0, 6, 0)
    link, _, snap = struct.unpack_from(order + "HHI", body)
    resolution, offset_ns, at = 6, 0, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if code == 9 and size == 1 and value:
            resolution = value[0]
        elif code == 14 and size == 8 and len(value) == 8:
            offset_ns = max(-LATEST_NS, min(LATEST_NS, struct.unpack(order + "q", value)[0] * 1_000_000_000))
        at += 4 + size + -size % 4
    return _CaptureInterface(link, snap, resolution, offset_ns)


def _pcapng_records(
    buffer: bytes, places: list[int], order: str, interfaces: list[_CaptureInterface], last_ns: int
) -> Records:
    data, at = _padded(buffer), np.array(places, np.int64)
    head = heads(data, at, 28)
    kind, length, which, high, low, captured, size = (column(head, 4 * place, order + "u4") for place in range(7))
    simple, old = kind == _SIMPLE_PACKET, kind == _OLD_PACKET
    size = np.where(simple, which, size)
    which = np.where(old, which >> 16 if order == ">" else which & 0xFFFF, which)
    which[simple] = 0
    known = which < len(interfaces)
    which = np.where(known, which, 0)
    table = interfaces or [_CaptureInterface(-1, 0, 6, 0)]
    snap = np.array([each.snap for each in table], np.int64)[which]
    link = np.array([each.link for each in table], np.int64)[which]
    begin = at + np.where(simple, 12, 28)
    captured[simple] = np.where(snap[simple] > 0, np.minimum(size[simple], snap[simple]), size[simple])
    room = at + length - 4 - begin
    captured = np.clip(captured, 0, np.maximum(room, 0))
    ticks = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    time_ns = np.zeros(len(at), np.int64)
    for number in np.unique(which):
        mine = which == number
        time_ns[mine] = _nanoseconds(ticks[mine], table[number])
    if simple.any():  # which have no time: the one before it
        timed = np.maximum.accumulate(np.where(simple, -1, np.arange(len(at))))
        time_ns = np.where(timed < 0, last_ns, time_ns[np.maximum(timed, 0)])
    good = known & (room > 0)
    return Records(data, begin[good], captured[good], size[good], time_ns[good], link[good])


def _nanoseconds(ticks: NDArray[np.uint64], interface: _CaptureInterface) -> Ints:
    """Ticks of an interface's clock as Unix time; a time beyond all reason is as late as there is."""
    power = interface.resolution & 0x7F
    if interface.resolution & 0x80:
        if power > 34:
            ticks, power = ticks >> np.uint64(min(power - 34, 63)), 34
        whole, part = ticks >> np.uint64(power), ticks & np.uint64((1 << power) - 1)
        spans: Any = whole.astype(np.float64) * 1e9 > LATEST_NS
        times = whole * np.uint64(1_000_000_000) + ((part * np.uint64(1_000_000_000)) >> np.uint64(power))
    elif power <= 9:
        spans = ticks.astype(np.float64) * 10.0 ** (9 - power) > LATEST_NS
        times = ticks * np.uint64(10 ** (9 - power))
    else:
        times = ticks // np.uint64(10 ** min(power - 9, 19))
        spans = times > np.uint64(LATEST_NS)
    found: Ints = np.where(spans, np.uint64(LATEST_NS), times).astype(np.int64)
    return np.clip(found + interface.offset_ns, 0, LATEST_NS)


def _padded(buffer: bytes) -> Bytes:
    return np.frombuffer(buffer + bytes(PADDING), np.uint8)


def heads(data: Bytes, at: Ints, size: int) -> Bytes:
    """The first `size` bytes, `PADDING` at the most, from each of these places: shape (places, size)."""
    taken: Bytes = np.lib.stride_tricks.sliding_window_view(data, size)[at]
    return taken


def column(head: Bytes, at: int, kind: str) -> Ints:
    """A field of each head, of a numpy type such as ">u2"."""
    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(head[:, at : at + size]).view(kind)[:, 0].astype(np.int64)
