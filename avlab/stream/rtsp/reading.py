"""What reads a stream as it is described, whatever way it comes: payload formats, decoders, what is offered.

And what is said of datagrams that come too fast. All of it belongs to the client's thread, or comes before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from avlab.core.arriving import Described
from avlab.media.sounddecoder import DecodedSound
from avlab.parts import Call, PartError, called
from avlab.stream.ends import Offer, SoundOffer
from avlab.stream.recording import PlayerRecording
from avlab.stream.rtsp.playable import Playable
from avlab.wire import sdp
from avlab.wire.jpegsize import check_size
from avlab.wire.payloads.formats import (
    AacFormat,
    H264Format,
    H265Format,
    OpusFormat,
    SoundReader,
    VideoFormat,
    sound_format,
    video_format,
)
from avlab.wire.payloads.ownpayload import OwnFormat, part_name
from avlab.wire.units import JPEG_CODING, WireError

OVERLOAD = 50
"""So many datagrams dropped by the system, for want of being read, are worth a notice."""


@dataclass(frozen=True, slots=True)
class OwnParts:
    """A payload format and a codec of anyone's own, or None: how the first is called, and who is told when it fails."""

    payload: Any = None
    codec: Any = None
    call: Call = called
    failed: Callable[[PartError], None] | None = None

    @property
    def playable(self) -> Playable:
        """What can be played with them."""
        encoding = "" if self.payload is None else f"X-{part_name(self.payload)}"
        return Playable(payload=encoding, codec=self.codec is not None)

    def unpacks(self, encoding: str, codec: str) -> VideoFormat | None:
        """The payload format, made anew for a stream, if it is the one of that name."""
        if self.payload is None or encoding.upper() != self.playable.payload.upper():
            return None
        return OwnFormat(self.payload, codec=codec, call=self.call, failed=self.failed)


class Reading:
    """Makes what reads each medium. `begin` comes first, and again when other media are to come instead.

    `notice(name, words)` is told what a person should know.
    """

    def __init__(self, own: OwnParts, notice: Callable[[str, str], None]) -> None:
        self._own, self._notice = own, notice
        self._size: tuple[int, int] | None = None  # of the pictures, as the description has it

    def begin(self, media: Mapping[str, sdp.Media]) -> None:
        """These are the media, by stream."""
        self._size = self._size_told(media["video"]) if "video" in media else None

    def described(self, stream: str, media: sdp.Media) -> Described:
        """A medium for the player, as far as its description tells."""
        return Described(
            media.payload_type,
            media.clock_rate,
            channels=media.channels,
            encoding=media.encoding,
            pictures=self._formats_of(media) if stream == "video" else {},
            sound=_sound_of(media) if stream == "audio" else None,
            tells_times=media.tells_times,
        )

    def offer(self, media: Mapping[str, sdp.Media], name: str) -> Offer:
        """What is about to be sent; `name` is the session's."""
        video, sound = media.get("video"), media.get("audio")
        form = self._formats_of(video).get(video.payload_type) if video is not None else None
        predicted = form if isinstance(form, H264Format | H265Format) else None
        return Offer(
            frozenset(media),
            fps=video.framerate if video is not None else None,
            sound=SoundOffer(sound.clock_rate, sound.channels) if sound is not None else None,
            clip=name,
            size=self._size,
            coding=JPEG_CODING if predicted is None else predicted.coding,
            setup=b"" if predicted is None else predicted.setup,
            payload_types={stream: each.payload_type for stream, each in media.items()},
        )

    def name_idle_parts(self, media: sdp.Media, who: str) -> None:
        """Say what was handed in and is of no use, as `who` sends something else."""
        if self._own.payload is not None and media.encoding.upper() != self._own.playable.payload.upper():
            words = f"the payload format does nothing: {who} sends {media.encoding}"
            self._notice("payload does not apply", f"{words}; give it to the server as well, as payload=")
        if self._own.codec is not None and "codec" not in media.parameters(media.payload_type):
            words = f"the codec does nothing: {who} sends {_sent(media)}"
            self._notice("codec does not apply", f"{words}; give it to the server as well, as codec=")

    def _size_told(self, media: sdp.Media) -> tuple[int, int] | None:
        """The pictures' size as the description has it; None for one that is not decoded."""
        size = media.size
        if size is not None:
            try:
                check_size(*size)
            except WireError as error:
                self._notice("pictures too large", f"the server describes pictures that are not shown: {error}")
                return None
        return size

    def _formats_of(self, media: sdp.Media) -> dict[int, VideoFormat]:
        """The payload formats that pictures may come in, by payload type."""
        named = ((media.payload_type, media.encoding), *((number, form.encoding) for number, form in media.others))
        formats = {}
        for number, encoding in named:
            parameters = media.parameters(number)
            form = self._own.unpacks(encoding, parameters.get("codec", ""))
            if form is None:
                with contextlib.suppress(WireError):  # a further one, perhaps, that cannot be read
                    form = video_format(encoding, parameters, size=self._size)
            if form is not None:
                formats[number] = form
        return formats


def _sound_of(media: sdp.Media) -> SoundReader | None:
    parameters = media.parameters(media.payload_type)
    form = sound_format(media.encoding, media.clock_rate, media.channels, parameters)
    return DecodedSound(form) if isinstance(form, AacFormat | OpusFormat) else form


def _sent(media: sdp.Media) -> str:
    """What is sent, for a sentence on a codec that does nothing."""
    return media.encoding if media.encoding.upper() in ("H264", "H265") else "JPEG"


class Overload:
    """Counts what the system drops for want of being read, and says so once it is much."""

    def __init__(self, recording: PlayerRecording, notice: Callable[[str, str], None]) -> None:
        self._recording, self._notice = recording, notice
        self._dropped = 0

    def note(self, dropped: int, now_ns: int) -> None:
        """So many datagrams more were dropped."""
        if not dropped:
            return
        self._recording.note(now_ns, "socket_dropped", dropped)
        self._dropped += dropped
        if self._dropped - dropped < OVERLOAD <= self._dropped:
            self._notice(
                "overload",
                "this computer is too slow for the stream: the system drops packets that wait to be read; have the "
                "server send smaller pictures or fewer, or close other programs",
            )
