"""The two ends of a wire as the handles know them: an `Audience` at the server's, a `Receiver` at the client's.

A server knows what is sent and when, a client what is shown and heard; which sockets there are, who is at the other
end and what the bytes mean is behind these two. Each is owned by its handle's one thread, but where it says otherwise.
"""

from __future__ import annotations

import selectors
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from avlab.measure.numbers.attendance import Member
from avlab.wire.rtp import HEADER_BYTES, Packed
from avlab.wire.units import JPEG_CODING, NS, Chunk, EncodedFrame


class SoundPart(NamedTuple):
    """A run of sound that is lost or heard by itself: a row of the record. `timestamp` is None where there is none."""

    pts_ns: int
    timestamp: int | None
    bytes: int


def parts_of(packed: Packed, pts_ns: int, timestamp: int, rate: int) -> list[SoundPart]:
    """What the packets of a chunk carry, whose first has this presentation time and timestamp, of a clock of `rate`."""
    batch, parts = packed.batch, []
    for at in range(batch.total):
        ticks, size = at * packed.ticks, batch.size if at < batch.total - 1 else batch.last
        parts.append(SoundPart(pts_ns + ticks * NS // rate, (timestamp + ticks) & 0xFFFFFFFF, size - HEADER_BYTES))
    return parts


class Audience(Protocol):
    """Who a clip is sent to, by one wire. Does nothing before `open`.

    It is made with `play`, to be called when somebody plays from now on: that starts the clip unless it runs, and
    returns the media time of now in ns.
    """

    @property
    def url(self) -> str:
        """Where clients find it, once it is open. From any thread."""

    @property
    def clients(self) -> int:
        """How many there are. From any thread."""

    @property
    def sent_bytes(self) -> int:
        """Bytes of media that were handed to the system so far, for all clients. From any thread."""

    @property
    def members(self) -> tuple[Member, ...]:
        """Who they are, and how each of them fares, in the order in which they came. From any thread."""

    @property
    def occupied(self) -> bool:
        """Whether anybody who has asked for the running clip is still there: if not, it is rewound."""

    @property
    def ssrcs(self) -> set[int]:
        """The sources that clients know its streams by; empty where a wire has no such numbers. From any thread."""

    def open(self, selector: selectors.BaseSelector) -> None:
        """Bind, listen, register. OSError, with a sentence, when an address or a port cannot be had."""

    def attend(self, what: Any, link: Any, now_ns: int) -> None:
        """A socket is ready; `what` is the data that it was registered with."""

    def chunks(self) -> Iterator[Chunk]:
        """One pass over the source's sound, as this wire carries it; on the sound's thread."""

    def prepare(self, frame: EncodedFrame) -> Any:
        """What every client's packets are made from; on the video thread.

        FrameTooLargeError when this frame cannot be sent and the next one may, another WireError when none can.
        """

    def timestamp(self, stream: str, pts_ns: int) -> int | None:
        """By which number the record joins a frame with the client's; None where a wire has none."""

    def send_frame(self, unit: Any, pts_ns: int) -> tuple[int | None, int | None]:
        """Send what `prepare` made to all who play: when the first send began, in how many packets. None: nobody.

        FrameTooLargeError when the system would not take it.
        """

    def send_sound(self, chunk: Chunk) -> tuple[int | None, Sequence[SoundPart]]:
        """Send a chunk to all who play: when the first send began, and what it was cut into."""

    def wake_at(self) -> int | None:
        """The next moment at which `look_after` has something to do."""

    def look_after(self, now_ns: int) -> None:
        """What the moment asks for besides: let go of clients that are gone, for one."""

    def say_goodbye(self, now_ns: int) -> None:
        """The clip is over, or the server ends: whoever plays is told."""

    def rewind(self) -> None:
        """The clip starts again at the next `play`."""

    def drain(self) -> None:
        """Let the last bytes leave, for half a second at most; the thread's last act."""

    def close(self) -> None:
        """Close every socket. Harmless when `open` failed, or never was."""


class SoundOffer(NamedTuple):
    """What sound is offered."""

    rate: int
    """Sample frames a second."""
    channels: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server is about to send."""

    streams: frozenset[str]  # video, audio
    fps: float | None = None
    sound: SoundOffer | None = None
    clip: str = ""
    size: tuple[int, int] | None = None
    """Of the pictures, where it is told beforehand."""
    coding: str = JPEG_CODING
    """What the pictures' bytes are; of anyone's own payload format, whatever it says of each."""
    setup: bytes = b""
    """Parameter sets for their decoder, where those are told beforehand."""
    payload_types: Mapping[str, int] = field(default_factory=dict)
    """What each stream's packets bear (RFC 3550 5.1), by its name; empty on a wire without RTP."""
    delay_ns: int | None = None
    """How long sound is held back by a wire without timestamps, whose pictures are shown as they come. None: by a wire
    with timestamps, both are held back by the client's playout delay."""


class Receiver(Protocol):
    """A server as a client sees it, by one wire. Does nothing before `open`; what it takes goes to the presentation."""

    @property
    def ssrcs(self) -> set[int]:
        """The sources that the streams come from, as far as they are known. From any thread."""

    @property
    def said_goodbye(self) -> bool:
        """Whether all streams have ended, so that nothing is on its way any more. From any thread."""

    def open(self) -> Offer:
        """Reach the server and learn what it sends. OSError, with a sentence, or ValueError for what is not played."""

    def cancel(self) -> None:
        """Have `open` or `play`, on another thread, fail at once instead of waiting for the server."""

    def play(self, selector: selectors.BaseSelector) -> None:
        """Have it sent from now on, and register the sockets."""

    def attend(self, what: Any, link: Any) -> None:
        """A socket is ready; `what` is the data that it was registered with."""

    def wake_at(self) -> int:
        """The next moment at which `move_along` or `over` has something to do; asks no clock, changes nothing."""

    def move_along(self, now_ns: int) -> None:
        """What the moment asks for between packets: reports, signs of life."""

    def over(self, now_ns: int) -> bool:
        """Whether all has come that will. ConnectionError or TimeoutError, with a sentence, when the server is gone."""

    def deserted(self, now_ns: int) -> bool:
        """Once it is over: whether the server has gone away before an end that it had told, and may come back."""

    def leave(self, now_ns: int) -> None:
        """Tell the server that nobody listens any more; the thread's last act."""

    def close(self) -> None:
        """Close every socket. Harmless when `open` failed, or never was."""
