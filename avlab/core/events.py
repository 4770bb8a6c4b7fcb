"""What the machines tell: events, in the order in which they happened, and the paths that bytes take. Pure.

Times are integer nanoseconds of the clock that the machine's driver hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from avlab.timing.jitterbuffer import Frame
from avlab.timing.soundbuffer import Played, PlayedChunk
from avlab.wire.batch import Batch

_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class Path(NamedTuple):
    """One way of a stream's bytes between the two ends; how it is carried is the driver's affair."""

    stream: str
    """video or audio."""
    control: bool = False
    """Whether it is RTCP's; else RTP's."""


# ---- a sender's


class Sent(NamedTuple):
    """Packets of one source left the sender, as one batch of its `outgoing`."""

    time_ns: int
    stream: str
    ssrc: int
    number: int
    """The first packet's sequence number, which does not wrap; those of the others follow on it."""
    batch: Batch
    repair: str = ""
    """Empty for media, "fec" for parity among it, "rtx" for packets sent again; the name of anyone's own."""
    fate: str | None = None
    """None from the sender. A driver knows more: "lost" in a network of its own, "socket_dropped", "in_flight"."""

    @property
    def lane(self) -> str:
        """What an impairment draws its chances by: what repairs has lanes of its own and shifts no loss."""
        return f"{self.stream} {self.repair}" if self.repair else self.stream

    def part(self, first: int, after: int, fate: str | None = None) -> Sent:
        """The packets from `first` to the one before `after`, counted from 0, and what became of them."""
        time_ns, stream, ssrc, number, batch, repair, was = self
        if first == 0 and after >= batch.total and fate is was:
            return self
        return _new(Sent, (time_ns, stream, ssrc, number + first, batch.part(first, after), repair, fate))


class Reported(NamedTuple):
    """A receiver report about one of the sender's streams came, whether it is believed or not."""

    time_ns: int
    stream: str
    ssrc: int
    loss: float
    """Share of packets lost since the receiver's last report, 0 to 1."""
    lost: int
    """Packets lost since the beginning, less duplicates."""
    jitter_ns: int
    """Mean deviation of the packets' spacing (RFC 3550 6.4.1)."""
    round_trip_ns: int | None
    """None when the report answers to no sender report, or to one that cannot have been heard."""
    kbps: float | None
    """What was sent of the stream since the last report, in kilobits a second; None for the first report."""
    doubt: str | None
    """Why it cannot be true, in a few words; None when it can."""


class Doubted(NamedTuple):
    """A report could not be true, for the first time of a stream to which packets have been sent."""

    time_ns: int
    stream: str
    ssrc: int
    doubt: str
    """Why, in a few words."""


class KeyAsked(NamedTuple):
    """A client asks for a picture that needs no other (RFC 4585 6.3.1)."""

    time_ns: int
    stream: str
    ssrc: int


class ClockTold(NamedTuple):
    """The other end said what its clock shows, or what of ours it answers (RFC 3550 6.4.1, RFC 3611 4.4 and 4.5).

    All four moments of a round trip are here: ours of sending and arrival, `echo_ns` and `time_ns`; and the other's,
    `told_ns` less `held_ns`, and `told_ns`.
    """

    time_ns: int
    stream: str
    ssrc: int
    """The stream's own source."""
    peer: int
    """The source that says so: the stream's own, or a receiver's."""
    told_ns: int | None
    """The other's wall clock as it sent, in nanoseconds since 1970; None where it does not say."""
    echo_ns: int | None
    """When we sent what this answers; None where it answers nothing."""
    held_ns: int | None
    """How long it was kept at the other end, by its clock."""


class Outgoing(NamedTuple):
    """What a sender sends at once, and by which way."""

    path: Path
    batch: Batch
    sent: Sent | None = None
    """What the packets of media are; None for a compound packet of RTCP."""


SenderEvent: TypeAlias = Reported | Doubted | KeyAsked | ClockTold


class Offered(NamedTuple):
    """A frame of the clip was sent to whoever plays, or was not."""

    stream: str
    index: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody misses
    """From 0."""
    pts_ns: int
    timestamp: int | None
    """32 bits, as packets bear it; None on a wire without."""
    due_ns: int | None
    encoded_ns: int | None = None
    sent_ns: int | None = None
    """When the first send began; None when there was none."""
    bytes: int | None = None
    packets: int | None = None
    fate: str | None = None
    """None as long as only a client can tell; else skipped, or what a pacer gave for a reason."""


class SoundOffered(NamedTuple):
    """A chunk of sound was sent to whoever plays, or was not."""

    index: int  # type: ignore[assignment]  # as above
    due_ns: int
    sent_ns: int | None
    """When the first send began; None when there was none."""
    parts: Sequence[tuple[int, int | None, int]]
    """What each of its packets carries: presentation time, timestamp (None on a wire without), bytes."""


# ---- a player's: what arrives


class PacketsTaken(NamedTuple):
    """Packets of one source came together: consecutive numbers, one timestamp, or timestamps as far apart."""

    time_ns: int
    """When they came."""
    stream: str
    ssrc: int
    sequence: int
    """The first packet's number, unwrapped."""
    timestamp: int
    marker: bool
    """The last packet's; the others have none."""
    sizes: Sequence[int]
    """Bytes of each, with its header."""
    fates: Sequence[str | None]
    """What became of each, in the ledger's words; None for one that is malformed, and counts for nothing."""
    ticks: int = 0
    """From one packet's timestamp to the next one's."""


class SourcesKnown(NamedTuple):
    """The sources that were heard of so far, or another one of them sends a stream now."""

    ssrcs: tuple[int, ...]
    repair_ssrcs: tuple[int, ...]
    """Those of them that send what was lost again."""


class SourceChanged(NamedTuple):
    """Another source goes on with a stream."""

    time_ns: int
    stream: str
    before: int | None
    """The SSRC of the source before; None when none was known."""
    ssrc: int


class NumbersRestarted(NamedTuple):
    """A source began its sequence numbers again."""

    time_ns: int
    stream: str
    sequence: int
    """The 16 bits of the first new one."""


class Leapt(NamedTuple):
    """A stream's timestamps went on elsewhere; media time counts on."""

    time_ns: int
    stream: str
    leap_ns: int
    """How far, negative when they went back."""


class NotBelieved(NamedTuple):
    """What a sender says of its clocks does not fit what arrives."""

    time_ns: int
    stream: str
    what: str
    """sender report or RTP-Info."""


class Malformed(NamedTuple):
    """A packet could not be read."""

    time_ns: int
    error: str
    """A sentence."""


class Stray(NamedTuple):
    """A packet was out of line with those before and after it, and is not used."""

    time_ns: int
    stream: str
    sequence: int
    timestamp: int


# ---- a player's: what is presented


class FrameToDecode(NamedTuple):
    """A picture is whole that is no JPEG: `Player.decoded` is to be told what became of it, in the order of these."""

    frame: Frame


class DecodeEnds(NamedTuple):
    """No further picture is to be decoded: what a decoder holds back is to be given."""


class FrameReady(NamedTuple):
    """A picture is complete ahead of its time: for whoever shows pictures by a clock of its own."""

    frame: Frame
    due_ns: int
    """When it is to be seen, as the media clock stands now."""


class FrameDue(NamedTuple):
    """A picture is to be seen now."""

    time_ns: int
    frame: Frame
    holder: object | None
    """The taker that was given it ahead of its time and owes a verdict on it; None when nobody does."""
    at_once: bool
    """Whether pictures are shown as they come: then nobody was given them ahead of their time."""


class FrameDecided(NamedTuple):
    """What became of a picture, told once for each. One given ahead of its time is without its bytes."""

    frame: Frame
    fate: str
    """One of the ledger's words."""
    shown_ns: int | None
    timed: bool
    """Whether the wire has timestamps and numbers; without, `frame.ticks` counts the pictures."""


class SyncRead(NamedTuple):
    """A picture was seen while sound was heard."""

    time_ns: int
    video_pts_ns: int
    audio_pts_ns: int
    """The media time that was heard then."""
    depth_ns: int
    """How much sound was buffered."""
    skew_ppm: float
    """By how much the sender's clock is faster than the device's; NaN until measured."""


class SoundDecided(NamedTuple):
    """What became of the sound of some packets: heard, or not, and why."""

    runs: Sequence[Played | PlayedChunk]
    channels: int
    timed: bool
    """Whether the wire has timestamps; without, `ticks` counts the samples."""

    @property
    def packets(self) -> list[Played]:
        """Each packet by itself."""
        return [packet for run in self.runs for packet in ([run] if isinstance(run, Played) else run.apart())]


class DelayChanged(NamedTuple):
    """An adaptive playout delay was found to be another one."""

    time_ns: int
    delay_ns: int


class Rebuffered(NamedTuple):
    """Presentation moved to later at once, as what came was too late for it."""

    time_ns: int
    by_ns: int


class TooSlow(NamedTuple):
    """Pictures that came in time were skipped, as nobody looked at playout when they were due."""

    time_ns: int
    skipped: int


class LeaderChanged(NamedTuple):
    """Verdicts come from a taker from here on, or no longer."""

    time_ns: int
    here: bool


class Notice(NamedTuple):
    """What a person should know of, in a sentence."""

    time_ns: int
    name: str
    """A few words by which it is known in the record."""
    words: str


PlayerEvent: TypeAlias = (
    PacketsTaken
    | SourcesKnown
    | SourceChanged
    | NumbersRestarted
    | Leapt
    | NotBelieved
    | Malformed
    | Stray
    | FrameToDecode
    | DecodeEnds
    | FrameReady
    | FrameDue
    | FrameDecided
    | SyncRead
    | SoundDecided
    | DelayChanged
    | Rebuffered
    | TooSlow
    | LeaderChanged
    | Notice
    | ClockTold
)
