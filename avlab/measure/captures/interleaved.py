"""RTSP connections in a capture: RTP and RTCP between their messages (RFC 2326 10.12), and what descriptions say. Pure.

Segments are put in order as far as that is simple: copies are passed over, a few may come early, and behind a hole it
goes on where the next packet or message begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from avlab.measure.captures.rtpstreams import PayloadKind

STARTS = (b"RTSP", b"OPTI", b"DESC", b"SETU", b"PLAY", b"ANNO", b"GET_", b"SET_", b"PAUS", b"TEAR", b"RECO", b"REDI")
"""How what is said in RTSP begins, four letters of it."""

MOST_EARLY = 64
"""Segments that wait for one before them."""

LONGEST_MESSAGE = 1 << 18
MOST_FORMATS = 512

_MEDIA = re.compile(r"m=(\w+) \S+ \S+ (.*)")
_FORMAT = re.compile(r"a=rtpmap:(\d{1,3})\s+([^/\s]{1,40})/(\d{1,7})")
_LENGTH = re.compile(rb"\r?\ncontent-length[ \t]*:[ \t]*(\d{1,9})", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


class Found(NamedTuple):
    """An interleaved packet, and when its last byte came."""

    time_ns: int
    channel: int
    data: bytes


@dataclass(slots=True)
class Direction:
    """One direction of a connection."""

    formats: dict[int, PayloadKind]
    _next: int | None = None
    _early: dict[int, bytes] = field(default_factory=dict)
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, sequence: int, data: bytes, time_ns: int) -> Iterator[Found]:
        """A segment, which has bytes; the packets that it completes."""
        due = sequence if self._next is None else self._next
        behind = (sequence - due + (1 << 31)) % (1 << 32) - (1 << 31)
        if behind > 0:
            self._early[sequence] = data
            if len(self._early) <= MOST_EARLY:
                self._next = due
                return
            due = min(self._early, key=lambda each: (each - sequence) % (1 << 32) or 1 << 32)
            self._buffer.clear()  # a hole: what began before it does not end
        elif -behind < len(data):
            due = self._take(due, data[-behind:])
        while due in self._early:
            due = self._take(due, self._early.pop(due))
        self._next = due
        for channel, packet in self._packets():
            yield Found(time_ns, channel, packet)

    def _take(self, due: int, data: bytes) -> int:
        """What was due; what is due next."""
        self._buffer += data
        return (due + len(data)) % (1 << 32)

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        buffer, at = self._buffer, 0
        while at < len(buffer):
            if buffer[at] == 0x24:
                if at + 4 > len(buffer):
                    break
                after = at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
                if after > len(buffer):
                    break
                yield buffer[at + 1], bytes(buffer[at + 4 : after])
                at = after
            elif bytes(buffer[at : at + 4]) in STARTS:
                end = _END.search(buffer, at, at + LONGEST_MESSAGE)
                if end is None:
                    if len(buffer) - at < LONGEST_MESSAGE:
                        break
                    at += 1
                    continue
                told = _LENGTH.search(buffer, at, end.end())
                after = end.end() + min(int(told[1]) if told else 0, LONGEST_MESSAGE)
                if after > len(buffer):
                    break
                self._described(bytes(buffer[end.end() : after]))
                at = after
            elif len(buffer) - at < 4 and any(start.startswith(bytes(buffer[at:])) for start in STARTS):
                break
            else:  # nothing that begins here: on to what may
                places = [place for what in (b"$", *STARTS) if (place := buffer.find(what, at + 1)) > 0]
                at = min(places, default=max(at + 1, len(buffer) - 3))
        del buffer[:at]

    def _described(self, body: bytes) -> None:
        """The formats of a session description (RFC 8866)."""
        kind = ""
        for line in body.decode("utf-8", "replace").splitlines():
            if (media := _MEDIA.match(line)) is not None:
                kind = media[1]
            elif (found := _FORMAT.match(line)) and kind in ("audio", "video") and len(self.formats) < MOST_FORMATS:
                self.formats[int(found[1])] = PayloadKind(found[2], kind, int(found[3]) or None)
