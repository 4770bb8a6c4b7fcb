"""What a payload format is to a sender, a receiver and a description, and all that there are, by their names. Pure.

A format of pictures is one object a stream and direction, as it may remember (JPEG's tables). A further one is a class
of these few methods and a line in `VIDEO` or `SOUND`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from avlab.wire.batch import Batch
from avlab.wire.payloads import jpeg, l16
from avlab.wire.payloads.bytes import BytesFormat
from avlab.wire.payloads.coded import AacFormat, CodedSound, OpusFormat
from avlab.wire.payloads.h264 import H264Format
from avlab.wire.payloads.h265 import H265Format
from avlab.wire.payloads.pcm import PcmFormat, joined
from avlab.wire.rtp import FIRST_DYNAMIC, JPEG, L16_MONO, L16_STEREO, MAX_PACKET, VIDEO_CLOCK, Packed
from avlab.wire.units import Chunk, EncodedFrame, Samples, WireError

DYNAMIC_SOUND = 97
"""The payload type of sound that has none of its own."""


class Assembler(Protocol):
    """Puts one picture together from its packets, in whatever order they come."""

    @property
    def complete(self) -> bool:
        """Whether the picture is whole."""

    def add_run(self, sequence: int, marker: bool, batch: Batch, /) -> Sequence[WireError]:
        """Take packets with consecutive numbers, the first's and the last's marker given; why any was refused.

        Each stands in `batch` behind its RTP header.
        """

    def begins(self, sequence: int, /) -> None:
        """The picture's first packet is known to have this number: the one before it ends another. Told at most once,
        and only to those of a format that is `by_marker`."""

    def ends(self, sequence: int, /) -> None:
        """The picture's last packet, which has come, is known to have this number, whether it bears a marker or not."""

    def frame(self) -> bytes | None:
        """The whole picture; None when its packets make none after all."""

    def rescued(self) -> bytes | None:
        """At its deadline, what can be had of a picture that is not whole; None for nothing."""

    @property
    def missing(self) -> Sequence[int]:
        """The sequence numbers known to be wanting."""

    @property
    def refused(self) -> WireError | None:
        """Why a picture is none whose packets are all there; None while that is not known."""

    @property
    def coding(self) -> str:
        """What its bytes are: `units.JPEG_CODING`, or what else a codec is known by."""

    @property
    def key(self) -> bool:
        """Whether it can be decoded without those before it."""


class VideoFormat(Protocol):
    """What encoded pictures are in RTP."""

    encoding: str
    """As an rtpmap names it."""
    payload_type: int
    """Its own (RFC 3551 section 6), or the first dynamic one."""
    by_marker: bool
    """Whether a picture's first packet is known by nothing but that the one before it has the marker."""
    rescues: bool
    """Whether something can be had of pictures that are not whole."""

    @property
    def clock_rate(self) -> int:
        """Ticks a second of the timestamps."""

    @property
    def parameters(self) -> str:
        """What the description says besides, in an fmtp line; empty for nothing."""

    def pack(self, frame: EncodedFrame, *, payload_type: int, packet_size: int = MAX_PACKET) -> Packed:
        """A picture as packets of at most `packet_size` bytes, less `REPAIR_BYTES`. Raises WireError."""

    def begins(self, payload: bytes, /) -> bool:
        """Whether a payload is the first of its picture; of a format that is `by_marker`, False."""

    def assembler(self) -> Assembler:
        """For one picture."""


class SoundReader(Protocol):
    """What sound is in RTP, to a receiver."""

    encoding: str
    """As an rtpmap names it."""
    clock_rate: int
    """Ticks a second of the timestamps; sample frames, too."""
    channels: int

    def samples(self, payload: bytes, /) -> Samples:
        """The sound of one packet. Raises WireError."""

    def together(self, batch: Batch, step: int, /) -> Samples | None:
        """The sound of packets that came together, each behind a plain RTP header, in one.

        None, and nothing done, where that cannot be said to be `step` sample frames of each, and no more of the last:
        each is to be read by itself then.
        """


class SoundFormat(Protocol):
    """What sound is in RTP, to a sender."""

    encoding: str
    """As an rtpmap names it."""
    clock_rate: int
    """Ticks a second of the timestamps."""
    channels: int
    payload_type: int
    """Its own (RFC 3551 section 6), or a dynamic one."""

    @property
    def parameters(self) -> str:
        """What the description says besides, in an fmtp line; empty for nothing."""

    def pack(self, chunk: Chunk, *, payload_type: int, packet_size: int = MAX_PACKET) -> Packed:
        """A chunk as packets of at most `packet_size` bytes. Raises WireError."""


class JpegFormat:
    """RTP/JPEG (RFC 2435). `size` is for pictures too large for its header, as a description tells it."""

    encoding, payload_type, clock_rate, parameters = "JPEG", JPEG, VIDEO_CLOCK, ""
    by_marker = rescues = False

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        self._size = size
        self._tables: dict[int, bytes] = {}

    def pack(self, frame: EncodedFrame, *, payload_type: int = JPEG, packet_size: int = MAX_PACKET) -> Packed:
        """See `VideoFormat`."""
        return jpeg.packed(frame.data, payload_type=payload_type, packet_size=packet_size)

    def begins(self, payload: bytes, /) -> bool:
        """See `VideoFormat`."""
        return jpeg.begins_frame(payload)

    def whole(self, batch: Batch) -> bytes | None:
        """A picture all of whose packets came together, in their order; None for what an assembler is to look at."""
        return jpeg.whole_frame(batch, self._size)

    def assembler(self) -> jpeg.FrameAssembler:
        """See `VideoFormat`."""
        return jpeg.FrameAssembler(self._tables, size=self._size)


class L16Format:
    """Linear sound of 16 bits (RFC 3551 4.5.11)."""

    encoding, parameters = "L16", ""

    def __init__(self, rate: int, channels: int) -> None:
        self.clock_rate, self.channels = rate, channels
        static = {(44_100, 2): L16_STEREO, (44_100, 1): L16_MONO}
        self.payload_type = static.get((rate, channels), DYNAMIC_SOUND)

    def pack(self, chunk: Chunk, *, payload_type: int, packet_size: int = MAX_PACKET) -> Packed:
        """See `SoundFormat`."""
        rate, channels = self.clock_rate, self.channels
        return l16.packed_sound(chunk, payload_type=payload_type, rate=rate, channels=channels, packet_size=packet_size)

    def samples(self, payload: bytes, /) -> Samples:
        """See `SoundReader`."""
        return l16.parse_l16(payload, self.channels)

    def together(self, batch: Batch, step: int, /) -> Samples | None:
        """See `SoundReader`."""
        payloads = joined(batch, step, 2 * self.channels)
        return None if payloads is None else self.samples(payloads)


# ---- by name

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})

VideoMaker = Callable[[Mapping[str, str], tuple[int, int] | None], VideoFormat]
"""From the parameters of an fmtp line, and the pictures' size where the description tells it. Raises WireError."""

SoundMaker = Callable[[int, int, Mapping[str, str]], "SoundReader | CodedSound"]
"""From clock rate, channels and the parameters of an fmtp line. Raises WireError."""

VIDEO: dict[str, VideoMaker] = {
    "JPEG": lambda parameters, size: JpegFormat(size),
    "H264": lambda parameters, size: H264Format.described(parameters),
    "H265": lambda parameters, size: H265Format.described(parameters),
    "X-BYTES": lambda parameters, size: BytesFormat(codec=parameters.get("codec", "")),
}
SOUND: dict[str, SoundMaker] = {
    "L16": lambda rate, channels, parameters: L16Format(rate, channels),
    "L8": lambda rate, channels, parameters: PcmFormat("L8", rate, channels),
    "L24": lambda rate, channels, parameters: PcmFormat("L24", rate, channels),
    "PCMU": lambda rate, channels, parameters: PcmFormat("PCMU", rate, channels),
    "PCMA": lambda rate, channels, parameters: PcmFormat("PCMA", rate, channels),
    "MPEG4-GENERIC": AacFormat,
    "OPUS": lambda rate, channels, parameters: OpusFormat(rate, channels),
}
"""Those that can be read, by their encodings in capitals, as descriptions are read."""


def video_format(
    encoding: str, parameters: Mapping[str, str] = NO_PARAMETERS, *, size: tuple[int, int] | None = None
) -> VideoFormat | None:
    """The format that a description names for pictures; None for one that is not known. Raises WireError."""
    maker = VIDEO.get(encoding.upper())
    return None if maker is None else maker(parameters, size)


def sound_format(
    encoding: str, rate: int, channels: int, parameters: Mapping[str, str] = NO_PARAMETERS
) -> SoundReader | CodedSound | None:
    """The format that a description names for sound; None for one that is not known. Raises WireError.

    `CodedSound` is for a decoder (`avlab.media.sounddecoder`), which makes a reader of it.
    """
    maker = SOUND.get(encoding.upper())
    return None if maker is None else maker(rate, channels, parameters)


def fmtp(payload_type: int, form: VideoFormat | SoundFormat) -> tuple[tuple[str, str], ...]:
    """The attribute of a description that tells a format's parameters; none where it has none."""
    return (("fmtp", f"{payload_type} {form.parameters}"),) if form.parameters else ()


__all__ = [
    "DYNAMIC_SOUND",
    "FIRST_DYNAMIC",
    "SOUND",
    "VIDEO",
    "AacFormat",
    "Assembler",
    "BytesFormat",
    "CodedSound",
    "H264Format",
    "H265Format",
    "JpegFormat",
    "L16Format",
    "OpusFormat",
    "PcmFormat",
    "SoundFormat",
    "SoundReader",
    "VideoFormat",
    "fmtp",
    "sound_format",
    "video_format",
]
