"""The tutorial's wire: a JPEG in base64 as one datagram, and over TCP a length and a pickled bytes object a chunk.

Pure, and without the pickle module: its bytes are written and read here, so that nothing can ever be executed. Neither
half carries a time or a number: loss looks like silence, and nothing tells which picture belongs to which sound.
"""

from __future__ import annotations

import base64
import binascii
import struct
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from avlab.wire.jpegsize import check_jpeg
from avlab.wire.units import Chunk, EncodedFrame, FrameTooLargeError, Samples, WireError

PORT, PORT_B = 9688, 9699
"""Where the tutorial's server takes its datagrams: its Windows edition (A) and its macOS edition (B)."""

HELLO = b"Hello"
"""What the tutorial's client sends to be sent frames. Its server starts on any datagram, whatever is in it."""

MAX_DATAGRAM = 65_507
"""Bytes of the largest UDP datagram over IPv4: 65,535 less 20 of IP and 8 of UDP header."""

MACOS_DATAGRAM = 9_216
"""Bytes of the largest datagram that macOS sends unless its net.inet.udp.maxdgram is raised."""

RATE, CHANNELS = 44_100, 2
"""The only sound there is: nothing on the wire says otherwise."""

CHUNK_FRAMES = 1024
"""Sample frames of the tutorial's chunks, and of the longest chunk sent here."""

MAX_OBJECT = 1 << 20
"""Bytes of the largest chunk taken from a peer: six seconds of sound."""

_MAX_MESSAGE = MAX_OBJECT + 64  # with the opcodes around it, 44 bytes at most


class ForeignPickleError(WireError):
    """A peer sent a pickle that is not one bytes object, by mistake or as an attack. It was not unpickled."""


@dataclass(frozen=True, slots=True)
class ClassicFrame:
    """One picture as it came. The wire tells no index and no pts: `arrived_ns` is all that is known of its time."""

    jpeg: bytes
    width: int
    height: int
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class ClassicChunk:
    """A run of sound as it came: int16 samples, shape (sample frames, 2), 44,100 a second. Its pts is not told."""

    samples: Samples
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class ClassicEnd:
    """The sound is over: an empty chunk. The pictures' end is not told."""

    arrived_ns: int = 0


def sound_port(port: int) -> int:
    """The TCP port of the sound that belongs to the pictures on UDP `port`; ValueError when that is not 2 to 65535."""
    if not 2 <= port <= 65_535:
        raise ValueError(f"port must be from 2 to 65535, as the sound is on the port below, not {port}.")
    return port - 1


# ---- pictures


class ClassicVideo:
    """Pictures, one a datagram. `max_datagram` is how many bytes this system sends in one (4 to 65,507)."""

    def __init__(self, *, max_datagram: int = MAX_DATAGRAM) -> None:
        if not 4 <= max_datagram <= MAX_DATAGRAM:
            raise ValueError(f"max_datagram must be from 4 to {MAX_DATAGRAM} bytes, not {max_datagram}.")
        self.max_datagram = max_datagram

    def pack(self, frame: EncodedFrame, /) -> list[bytes]:
        """The frame's one datagram. Raises FrameTooLargeError, saying what to lower, when it does not fit."""
        datagram = base64.b64encode(frame.data)
        if len(datagram) > self.max_datagram:
            raise self.too_large(frame, len(datagram))
        return [datagram]

    def too_large(self, frame: EncodedFrame, size: int) -> FrameTooLargeError:
        """What is wrong with a frame that makes a datagram of `size` bytes, and what to lower."""
        ratio = self.max_datagram / size
        # A JPEG's bytes grow as its width to the power 1 (drawings) to 2.8 (noise); 1.25 is on the safe side.
        width = max(16, int(frame.width * ratio**0.8) // 8 * 8)
        sentence = (
            f"Frame {frame.index} ({frame.width}x{frame.height}) is {size:,} bytes in base64 and a datagram carries "
            f"{self.max_datagram:,} at most here: lower the width to about {width}, or the quality until a frame has "
            f"{100 - int(100 * ratio)} % fewer bytes."
        )
        if self.max_datagram < MAX_DATAGRAM:
            sentence += " On macOS 'sudo sysctl -w net.inet.udp.maxdgram=65535' makes room for larger ones."
        return FrameTooLargeError(sentence)

    def feed(self, datagram: bytes, now_ns: int, /) -> list[ClassicFrame]:
        """The picture in one datagram that arrived at `now_ns`. Raises WireError when there is none; the next may do.

        Takes what the tutorial's client takes: a space stands for '+', whatever else is foreign to base64 is passed
        over, and padding must be there.
        """
        if len(datagram) > 0xFFFF:
            raise WireError(f"{len(datagram):,} bytes are no datagram: the largest has 65,535.")
        try:
            jpeg = binascii.a2b_base64(datagram.replace(b" ", b"+"))
        except binascii.Error as error:
            raise WireError(f"This datagram is no picture of the classic wire: no base64 ({error}).") from None
        try:
            width, height = check_jpeg(jpeg)
        except WireError as error:
            raise WireError(f"This datagram is no picture of the classic wire: {error}.") from None
        return [ClassicFrame(jpeg, width, height, now_ns)]


# ---- sound


class ClassicSound:
    """Sound over TCP, one message a chunk: an 8-byte length in `byteorder`, then a pickled bytes object.

    The length is in the sending machine's own order and nothing says which that is; all of today's are little-endian.
    After an error the place of the next message is unknown: every later `feed` raises it again.
    """

    def __init__(self, *, byteorder: Literal["little", "big"] = sys.byteorder) -> None:
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}.")
        self._byteorder = byteorder
        self._buffer = bytearray()
        self._ended = False
        self._error: WireError | None = None

    @property
    def ended(self) -> bool:
        """Whether the end was read; what comes after it is passed over unread (the tutorial's server repeats it)."""
        return self._ended

    def pack(self, unit: Chunk | ClassicEnd, /) -> list[bytes]:
        """The messages of a chunk, cut at every 1,024 sample frames, or the one that says that the sound is over.

        A chunk without samples makes none, as an empty message would be the end. Raises WireError when the chunk is
        not 44,100 Hz stereo.
        """
        if isinstance(unit, ClassicEnd):
            return [self._message(b"")]
        samples = unit.samples
        if unit.rate != RATE or samples.ndim != 2 or samples.shape[1] != CHANNELS:
            raise WireError(
                f"The classic wire carries {CHANNELS} channels at {RATE} Hz and cannot say otherwise; the chunk has "
                f"shape {samples.shape} at {unit.rate} Hz. Resample it before it is packed."
            )
        pieces = (samples[start : start + CHUNK_FRAMES] for start in range(0, len(samples), CHUNK_FRAMES))
        return [self._message(piece.astype("<i2").tobytes()) for piece in pieces]

    def _message(self, data: bytes) -> bytes:
        body = write_pickle(data)
        return len(body).to_bytes(8, self._byteorder) + body

    def feed(self, data: bytes, now_ns: int, /) -> list[ClassicChunk | ClassicEnd]:
        """Take bytes from the connection, cut anywhere; return the chunks that they complete, oldest first.

        Holds one message at most. Raises WireError for a length over 1 MiB or sound that is cut, ForeignPickleError
        for a pickle of anything but bytes; chunks that the same bytes completed before it are not returned.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._ended:
            return []
        self._buffer += data
        try:
            return self._completed(now_ns)
        except WireError as error:
            self._error = error
            self._buffer.clear()
            raise

    def _completed(self, now_ns: int) -> list[ClassicChunk | ClassicEnd]:
        units: list[ClassicChunk | ClassicEnd] = []
        buffer, position = self._buffer, 0
        while len(buffer) >= position + 8:
            start = position + 8
            size = self._checked_length(bytes(buffer[position:start]))
            if len(buffer) < start + size:
                break
            position = start + size
            sound = read_pickle(bytes(buffer[start:position]))
            if not sound:
                self._ended = True
                buffer.clear()
                return [*units, ClassicEnd(now_ns)]
            if len(sound) % (2 * CHANNELS):
                raise WireError(f"A peer sent {len(sound)} bytes of sound, which are not whole 16-bit stereo samples.")
            units.append(ClassicChunk(np.frombuffer(sound, "<i2").astype(np.int16).reshape(-1, CHANNELS), now_ns))
        del buffer[:position]
        return units

    def _checked_length(self, prefix: bytes) -> int:
        """The length in a message's first bytes; WireError before anything is held for it when it is too large."""
        size = int.from_bytes(prefix, self._byteorder)
        if size <= _MAX_MESSAGE:
            return size
        swapped = int.from_bytes(prefix[::-1], self._byteorder)
        hint = "Is this the sound port of a classic server?"
        if swapped <= _MAX_MESSAGE:
            hint = f"In the other byte order it would be {swapped:,}: serve from a machine with the order of this one."
        raise WireError(f"A peer announces {size:,} bytes of sound at once; {_MAX_MESSAGE:,} is the most. {hint}")


# ---- pickles of one bytes object


class _Opcode(NamedTuple):
    """One of the pickle machine's instructions; its argument is a little-endian number without a sign."""

    role: str
    argument_bytes: int
    since: int
    """The first protocol that has it."""


_PROTO = 0x80
_OPCODES = {
    0x95: _Opcode("frame", 8, 4),  # FRAME
    0x43: _Opcode("bytes", 1, 3),  # SHORT_BINBYTES
    0x42: _Opcode("bytes", 4, 3),  # BINBYTES
    0x8E: _Opcode("bytes", 8, 4),  # BINBYTES8
    0x94: _Opcode("memo", 0, 4),  # MEMOIZE
    0x71: _Opcode("memo", 1, 1),  # BINPUT
    0x72: _Opcode("memo", 4, 1),  # LONG_BINPUT
    0x2E: _Opcode("stop", 0, 0),  # STOP
}
"""All that a pickled bytes object is made of in protocols 3 to 5 (Python's pickletools; PEP 3154)."""

_FOLLOWS = {"proto": ("bytes",), "bytes": ("memo", "stop"), "memo": ("stop",), "stop": ()}
"""What may follow what; a frame may begin between any two, when none is open."""


def write_pickle(data: bytes) -> bytes:
    """`data`, less than 4 GiB, as a pickle of protocol 3, byte for byte what Python writes."""
    size = len(data)
    header = bytes((0x43, size)) if size < 256 else struct.pack("<BI", 0x42, size)
    return b"".join((b"\x80\x03", header, data, b"q\0."))


def read_pickle(pickled: bytes) -> bytes:
    """The bytes object in a pickle of protocol 3, 4 or 5, read without the pickle machine.

    Raises ForeignPickleError when it is anything else, or is not whole to the last byte.
    """
    if len(pickled) < 2 or pickled[0] != _PROTO or not 3 <= pickled[1] <= 5:
        raise _foreign("it does not begin as pickle protocols 3 to 5 do")
    protocol, data, last = pickled[1], b"", "proto"
    position, frame_end = 2, 0
    while _FOLLOWS[last]:
        framed = position < frame_end
        end = frame_end if framed else len(pickled)
        if position >= end:
            raise _foreign("its pickle is cut short")
        opcode = _OPCODES.get(pickled[position])
        if opcode is None or opcode.since > protocol:
            raise _foreign(f"opcode {pickled[position]:#04x} is not part of a bytes object in protocol {protocol}")
        # An opcode with its argument lies in one frame, PEP 3154 says; so nothing here looks beyond `end`.
        begin = position + 1 + opcode.argument_bytes
        argument = int.from_bytes(pickled[position + 1 : begin], "little")
        reach = begin + (argument if opcode.role in ("bytes", "frame") else 0)
        if reach > end:
            raise _foreign("its pickle claims more bytes than it has")
        position = begin
        if opcode.role == "frame":
            if framed or not argument:
                raise _foreign("its pickle has a frame within a frame or without content")
            frame_end = reach
            continue
        if opcode.role not in _FOLLOWS[last]:
            raise _foreign("its pickle holds more or less than one bytes object")
        last = opcode.role
        if last == "bytes":
            data, position = pickled[begin:reach], reach
            if len(data) > MAX_OBJECT:
                raise _foreign(f"its bytes object has {len(data):,} bytes and {MAX_OBJECT:,} is the most")
    if position != len(pickled):
        raise _foreign(f"{len(pickled) - position} more bytes follow its pickle's end")
    return data


def _foreign(reason: str) -> ForeignPickleError:
    return ForeignPickleError(
        f"A peer tried to send something else than sound: {reason}. It was refused; nothing was unpickled or executed."
    )
